//! The process between the old one and the new one, which starts the new one and ends when that can go on without it.
//!
//! Who starts a process is its parent, and when that ends, the first process of the system is, or whoever has asked to be. The
//! old process lives on for a while, so that the new one would not be systemd's child by the time it becomes the main process
//! of the service. Of such a one systemd (257) says "We'll most likely not notice when it exits", and in a stop it does not wait
//! for it: it sends SIGTERM and SIGKILL at once. As the child of this process it changes its parent when this one ends, which is
//! before systemd is told of it.
//!
//! This is the old process's own program, whatever has become of its file, so that the two understand each other.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::{Heard, Mouth, VARIABLE, open};

/// What [`VARIABLE`] is for it.
pub(super) const MIDDLE: &str = "middle";
/// Of systemd, and meant for the old process alone: its sockets go another way, and the number it is to watch is another one.
const OURS: [&str; 4] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_PID"];

/// What the old process says to it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToMiddle {
    /// Start this. Its standard input comes with it.
    Start { program: OsString, arguments: Vec<OsString> },
    /// End, and leave the new process alone.
    LetGo,
    /// End the new process, and then yourself.
    End,
}

/// What it says to the old process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromMiddle {
    /// The new process is there.
    Started { pid: u32 },
    /// It is not.
    NotStarted { why: String },
    /// It has ended, by this status of `wait(2)`.
    Ended { status: i32 },
}

/// Whether this process is that one.
#[must_use]
pub fn is_this() -> bool {
    env::var_os(VARIABLE).is_some_and(|value| value == MIDDLE)
}

/// Does what it is there for.
///
/// # Errors
/// The variable is set, and standard input is not what it says; or the system has no room.
pub fn run() -> io::Result<()> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(stand_between(control))
}

async fn stand_between(control: UnixStream) -> io::Result<()> {
    // They are for the others: a manager of services sends them to all.
    let _ignored =
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::user_defined2()]
            .map(signal);
    let mut ends = signal(SignalKind::child())?;
    let (mut mouth, mut ear) = open(control)?;
    let Some(Heard { what: ToMiddle::Start { program, arguments }, descriptors, .. }) = ear.hear().await?
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut child = match start(&program, &arguments, descriptors) {
        Ok(child) => child,
        Err(error) => return mouth.say(&FromMiddle::NotStarted { why: error.to_string() }).await,
    };
    mouth.say(&FromMiddle::Started { pid: child.id() }).await?;
    loop {
        tokio::select! {
            order = ear.hear() => match order {
                Ok(Some(Heard { what: ToMiddle::End, .. })) => {
                    child.kill()?;
                    child.wait()?;
                    return Ok(());
                }
                // Without the old process the new one knows what to do.
                _ => return Ok(()),
            },
            _ = ends.recv() => if let Some(status) = child.try_wait()? {
                return tell(&mut mouth, status).await;
            },
        }
    }
}

fn start(program: &OsString, arguments: &[OsString], descriptors: Vec<OwnedFd>) -> io::Result<Child> {
    let passage = descriptors.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(passage).env(VARIABLE, "stdin");
    for name in OURS {
        command.env_remove(name);
    }
    // With the command goes what this process has of the passage.
    command.spawn()
}

async fn tell(mouth: &mut Mouth, status: ExitStatus) -> io::Result<()> {
    mouth.say(&FromMiddle::Ended { status: status.into_raw() }).await
}
