//! What the tests stand on.

pub(crate) mod client;
pub(crate) mod postgres;
pub(crate) mod service;
pub(crate) mod wait;

use rustix::process::{Pid, kill_process};

pub(crate) use rustix::process::Signal;

/// Part of every URL here, and of nothing that comes out of the service.
pub(crate) const PASSWORD: &str = "hunter2-not-shown";

/// Sends `signal`; a process that is gone already is fine.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process(pid, signal);
}
