//! What processes used, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;

use crate::support::process::family;

/// Nanoseconds on a CPU of every thread of some processes at one moment.
pub(crate) struct Cpu(BTreeMap<u32, u64>);

impl Cpu {
    pub(crate) fn now(processes: &[u32]) -> Self {
        let mut threads = BTreeMap::new();
        for pid in processes {
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let Some(id) = task.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
                // Absent when the thread has just ended.
                let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
                let on_cpu = text.split_whitespace().next().and_then(|field| field.parse().ok());
                threads.insert(id, on_cpu.unwrap_or(0));
            }
        }
        Self(threads)
    }

    /// What those threads have used since then. A thread that ended meanwhile counts for nothing, rather than
    /// less than nothing.
    pub(crate) fn until_now(&self, processes: &[u32]) -> u64 {
        let used = |(id, after): (&u32, &u64)| after.saturating_sub(self.0.get(id).copied().unwrap_or(0));
        Self::now(processes).0.iter().map(used).sum()
    }

    /// How many of those threads have ended since, with what they used.
    pub(crate) fn ended_until_now(&self, processes: &[u32]) -> usize {
        let now = Self::now(processes);
        self.0.keys().filter(|id| !now.0.contains_key(id)).count()
    }
}

/// Memory in KiB.
pub(crate) struct Memory {
    /// Resident, with shared pages counted in each process.
    pub(crate) rss: u64,
    /// Resident, with shared pages divided among those that share them.
    pub(crate) pss: u64,
    /// Written to, and nobody else's.
    pub(crate) private: u64,
}

impl Memory {
    pub(crate) fn now(processes: &[u32]) -> Self {
        let sum = |file: &str, key: &str| processes.iter().filter_map(|&pid| kib(pid, file, key)).sum();
        Self {
            rss: sum("status", "VmRSS:"),
            pss: sum("smaps_rollup", "Pss:"),
            private: sum("smaps_rollup", "Private_Dirty:"),
        }
    }
}

fn kib(pid: u32, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

/// The kernel's clock for the times in `stat` files: 100 a second on every architecture that Rust's Linux targets
/// run on.
const NS_PER_TICK: u64 = 10_000_000;

/// Nanoseconds that all CPUs together have been busy, for whomever.
pub(crate) fn busy_of_machine() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = text
        .lines()
        .next()
        .map(|line| line.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect())
        .unwrap_or_default();
    // The fourth and fifth are time spent idle.
    let busy = fields.iter().enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|(_, ticks)| ticks);
    busy.sum::<u64>() * NS_PER_TICK
}

/// Nanoseconds on a CPU of the children of this program that have ended.
pub(crate) fn of_ended_children() -> u64 {
    of_ended_children_of(std::process::id())
}

fn of_ended_children_of(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = text.rsplit_once(')').map_or("", |(_, after)| after);
    // Fields 16 and 17 of the file, counted from the third, which follows the name.
    let ticks = after_name.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok());
    ticks.sum::<u64>() * NS_PER_TICK
}

/// Nanoseconds on a CPU of a process and all its descendants, also of those that have ended.
pub(crate) fn of_family(pid: u32) -> u64 {
    of_process(pid) + of_descendants(pid)
}

/// Nanoseconds on a CPU of the threads that a process has.
pub(crate) fn of_process(pid: u32) -> u64 {
    Cpu::now(&[pid]).0.values().sum()
}

/// Nanoseconds on a CPU of all that a process has started and that they have, also of those that have ended.
pub(crate) fn of_descendants(pid: u32) -> u64 {
    let family = family(pid);
    let ended: u64 = family.iter().map(|&pid| of_ended_children_of(pid)).sum();
    let others: Vec<u32> = family.into_iter().filter(|&other| other != pid).collect();
    Cpu::now(&others).0.values().sum::<u64>() + ended
}

/// How often the threads of some processes have gone to sleep, and therefore been woken.
pub(crate) fn sleeps(processes: &[u32]) -> u64 {
    let of_task = |task: &fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("status")).ok()?;
        let count = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        count.trim().parse::<u64>().ok()
    };
    let tasks = processes.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok());
    tasks.flatten().flatten().filter_map(|task| of_task(&task)).sum()
}
