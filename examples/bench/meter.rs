//! What proxy and machine used between two points of time.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::measuring::machine::cores;
use crate::measuring::usage::{Cpu, busy_of_machine, of_descendants, of_family, of_process};

/// A measurement that has begun.
pub(crate) struct Meter {
    pub(crate) from: SystemTime,
    start: Instant,
    proxy: Cpu,
    processes: Vec<u32>,
    contained: Vec<u32>,
    foreign: u64,
    started: u64,
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
        // A look at thousands of processes takes a while, which is therefore outside of what counts.
        let started = of_all_started(&contained);
        let foreign = foreign();
        let proxy = Cpu::now(&processes);
        Self { from: SystemTime::now(), start: Instant::now(), proxy, processes, contained, foreign, started }
    }

    pub(crate) fn stop(self) -> Used {
        let (elapsed, to) = (self.start.elapsed(), SystemTime::now());
        let proxy = self.proxy.until_now(&self.processes);
        let ended_threads = self.proxy.ended_until_now(&self.processes);
        let foreign = foreign().saturating_sub(self.foreign);
        let started = of_all_started(&self.contained).saturating_sub(self.started);
        let others = foreign.saturating_sub(started) as f64 / 1e9 / (elapsed.as_secs_f64() * cores() as f64);
        Used { from: self.from, to, elapsed, proxy, ended_threads, others }
    }
}

/// Nanoseconds on a CPU of all programs but this one.
fn foreign() -> u64 {
    busy_of_machine().saturating_sub(of_process(std::process::id()))
}

/// Nanoseconds on a CPU of what this program has started: clients, proxy, node.
fn of_all_started(contained: &[u32]) -> u64 {
    of_descendants(std::process::id()) + contained.first().map_or(0, |&pid| of_family(pid))
}
