//! Figures of the process, under the names that every exporter uses.

use super::catalog::{
    Described, PROCESS_CPU, PROCESS_FDS, PROCESS_MAX_FDS, PROCESS_MEMORY, PROCESS_START, PROCESS_THREADS,
};
use super::count::as_f64;

/// Every figure, `None` where the system does not tell. Not through the crate's own recorder, which cuts CPU time
/// to whole seconds and shows no limit as a limit of 0.
pub(super) fn figures() -> [(&'static Described, Option<f64>); 6] {
    let process = metrics_process::collector::collect();
    [
        (&PROCESS_START, process.start_time_seconds.map(as_f64)),
        (&PROCESS_CPU, process.cpu_seconds_total),
        (&PROCESS_MEMORY, process.resident_memory_bytes.map(as_f64)),
        (&PROCESS_FDS, process.open_fds.map(as_f64)),
        (&PROCESS_MAX_FDS, process.max_fds.filter(|limit| *limit > 0).map(as_f64)),
        (&PROCESS_THREADS, process.threads.map(as_f64)),
    ]
}
