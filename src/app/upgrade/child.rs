//! The new process, as the old one has it started and ended: by a third one in the [`middle`](super::middle).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{self, Command, ExitStatus};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use super::launch::Launch;
use super::middle::{FromMiddle, MIDDLE, ToMiddle};
use super::{Ear, Heard, Mouth, VARIABLE, encode, open};
use crate::net::passage::send_blocking;

/// How long the one in the middle may take to start a program, or to end it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether that one has ended.
const LOOK: Duration = Duration::from_millis(5);
/// Whatever is now where this process's own program was.
#[cfg(target_os = "linux")]
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The new process. Dropped, it is ended, unless it has been let go.
#[derive(Debug)]
pub(in crate::app) struct Child {
    pid: u32,
    /// The one in the middle.
    middle: process::Child,
    mouth: Mouth,
    ear: Ear,
    /// What the mouth speaks through, for who cannot wait.
    control: UnixStream,
    ended: Option<ExitStatus>,
    is_let_go: bool,
}

impl Child {
    /// Starts a program, and gives the passage to it, which no other process has. Not cancel safe.
    ///
    /// # Errors
    /// What the system said.
    pub(super) async fn start(launch: &Launch) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let (control, for_middle) = UnixStream::pair()?;
        let middle = Command::new(own_program(launch))
            .arg0(&launch.program)
            .args(&launch.arguments)
            .stdin(OwnedFd::from(for_middle))
            .env(VARIABLE, MIDDLE)
            .spawn()?;
        let (mouth, ear) = open(control.try_clone()?)?;
        let mut child = Self { pid: 0, middle, mouth, ear, control, ended: None, is_let_go: false };
        let program = launch.program.clone().into_os_string();
        let start = ToMiddle::Start { program, arguments: launch.arguments.clone() };
        let answer = async {
            child.mouth.give(&start, &[], &[theirs.as_fd()]).await?;
            child.ear.hear().await
        };
        match timeout(PATIENCE, answer).await?? {
            Some(Heard { what: FromMiddle::Started { pid }, .. }) => child.pid = pid,
            Some(Heard { what: FromMiddle::NotStarted { why }, .. }) => return Err(io::Error::other(why)),
            Some(Heard { what: FromMiddle::Ended { .. }, .. }) | None => {
                return Err(io::Error::other("the process that was to start it has ended"));
            }
        }
        Ok((child, ours))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Resolves when it has ended. Cancel safe.
    pub(in crate::app) async fn end(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        let told = loop {
            match self.ear.hear().await {
                Ok(Some(Heard { what: FromMiddle::Ended { status }, .. })) => break Some(status),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break None,
            }
        };
        // Told or not, the one in the middle has nothing else to do.
        let middle = self.middle.wait().unwrap_or_default();
        *self.ended.insert(told.map_or(middle, ExitStatus::from_raw))
    }

    /// How it has ended, if it does so within this time. Cancel safe.
    pub(in crate::app) async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        timeout(within, self.end()).await.ok()
    }

    /// Asks it to end, in its own time; at once, if it has been asked before.
    pub(in crate::app) fn ask_to_end(&self) {
        if self.ended.is_none() {
            self.signal(Signal::TERM);
        }
    }

    /// It is to outlive this process; comes back when it is no descendant of this one any more. Not cancel safe.
    pub(in crate::app) async fn let_go(mut self) {
        self.is_let_go = true;
        let gone = async {
            self.mouth.say(&ToMiddle::LetGo).await?;
            while self.ear.hear::<FromMiddle>().await?.is_some() {}
            io::Result::Ok(())
        };
        // Where that one is not there any more it is so already.
        if matches!(timeout(PATIENCE, gone).await, Ok(Ok(()))) {
            let _ = self.middle.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        // Its number is its own as long as the one in the middle has not waited for it, which it tells.
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.is_let_go || self.ended.is_some() {
            return;
        }
        if let Ok(words) = encode(&ToMiddle::End, &[]) {
            let _ = send_blocking(&self.control, &words);
        }
        // It takes a moment.
        for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
            if !matches!(self.middle.try_wait(), Ok(None)) {
                return;
            }
            sleep(LOOK);
        }
        self.signal(Signal::KILL);
        let _ = self.middle.kill();
        let _ = self.middle.wait();
    }
}

#[cfg(target_os = "linux")]
fn own_program(_: &Launch) -> &'static str {
    OWN_PROGRAM
}

#[cfg(not(target_os = "linux"))]
fn own_program(launch: &Launch) -> &std::path::Path {
    &launch.program
}
