//! The new process, as the old one starts it and ends it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{self, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::VARIABLE;
use super::launch::Launch;

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Of systemd, and meant for this process alone: its sockets go another way, and the number it is to watch is another one.
const OURS: [&str; 4] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_PID"];

/// The new process. Dropped, it is ended, unless it has been let go.
#[derive(Debug)]
pub(super) struct Child {
    process: process::Child,
    is_let_go: bool,
}

impl Child {
    /// Starts a program, and gives the passage to it, which no other process has.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn start(launch: &Launch) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).stdin(OwnedFd::from(theirs)).env(VARIABLE, "stdin");
        for name in OURS {
            command.env_remove(name);
        }
        Ok((Self { process: command.spawn()?, is_let_go: false }, ours))
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How it has ended, if it does so within this time. Cancel safe.
    pub(super) async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => sleep(LOOK).await,
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Asks it to end, in its own time.
    pub(super) fn ask_to_end(&self) {
        // It is not waited for before, so that the number is its own.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
    }

    /// It is to outlive this process.
    pub(super) fn let_go(mut self) {
        self.is_let_go = true;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_let_go {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
