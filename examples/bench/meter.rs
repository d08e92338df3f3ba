//! What proxy and machine used between two points of time.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::measuring::machine::cores;
use crate::measuring::usage::{Cpu, busy_of_machine, of_family};

/// A measurement that has begun.
pub(crate) struct Meter {
    pub(crate) from: SystemTime,
    start: Instant,
    proxy: Cpu,
    processes: Vec<u32>,
    contained: Vec<u32>,
    busy: u64,
    ours: u64,
}

/// What it came to.
pub(crate) struct Used {
    pub(crate) from: SystemTime,
    pub(crate) to: SystemTime,
    pub(crate) elapsed: Duration,
    /// Nanoseconds on a CPU of the proxy.
    pub(crate) proxy: u64,
    /// Its threads that ended meanwhile, which are not counted.
    pub(crate) ended_threads: usize,
    /// Share of all cores that programs used that have nothing to do with this.
    pub(crate) others: f64,
}

impl Meter {
    /// Of a proxy with these processes, which are children of this program or are in a container.
    pub(crate) fn start(processes: Vec<u32>, is_contained: bool) -> Self {
        let contained = if is_contained { processes.clone() } else { Vec::new() };
        let (busy, ours) = (busy_of_machine(), ours(&contained));
        let proxy = Cpu::now(&processes);
        Self { from: SystemTime::now(), start: Instant::now(), proxy, processes, contained, busy, ours }
    }

    pub(crate) fn stop(self) -> Used {
        let (elapsed, to) = (self.start.elapsed(), SystemTime::now());
        let proxy = self.proxy.until_now(&self.processes);
        let ended_threads = self.proxy.ended_until_now(&self.processes);
        let (busy, ours) = (busy_of_machine(), ours(&self.contained));
        let others = busy.saturating_sub(self.busy).saturating_sub(ours.saturating_sub(self.ours));
        let others = others as f64 / 1e9 / (elapsed.as_secs_f64() * cores() as f64);
        Used { from: self.from, to, elapsed, proxy, ended_threads, others }
    }
}

/// Nanoseconds on a CPU of this program with all it has started: clients, proxy, node.
fn ours(contained: &[u32]) -> u64 {
    of_family(std::process::id()) + contained.first().map_or(0, |&pid| of_family(pid))
}
