//! The new process, as the old one starts it and ends it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus};
use std::time::Duration;

use rustix::process::geteuid;
use tokio::time::{Instant, sleep};

use super::VARIABLE;

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Of systemd, and meant for this process alone: its sockets go another way, and the number it is to watch is another one.
const OURS: [&str; 4] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_PID"];
/// A file that others than its owner can write.
const WRITABLE: u32 = 0o022;

/// How this process was started, and so how another one like it is.
#[derive(Clone, Debug)]
pub struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Launch {
    /// That of this process; to be asked before it changes its directory. A program that was found by its name is looked for
    /// again, and a path leads to whatever is there by then: to a newer version, if there is one.
    #[must_use]
    pub fn of_process() -> Self {
        let mut arguments = env::args_os();
        let named = arguments.next().map(PathBuf::from).filter(|name| !name.as_os_str().is_empty());
        let is_path = |name: &PathBuf| 1 < name.components().count() || name.is_absolute();
        let program = match named {
            Some(path) if is_path(&path) => std::path::absolute(&path).unwrap_or(path),
            Some(name) => name,
            None => env::current_exe().unwrap_or_else(|_| PathBuf::from("pgsplit")),
        };
        Self { program, arguments: arguments.collect() }
    }

    /// What is started when nobody says otherwise.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }
}

/// The new process. Dropped, it is ended, unless it has been let go.
#[derive(Debug)]
pub(super) struct Child {
    process: process::Child,
    is_let_go: bool,
}

impl Child {
    /// Starts `program`, and gives the passage to it, which no other process has.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn start(launch: &Launch, program: &Path) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(program);
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

/// Whether a program that somebody has named may be run: it gets all that this process has, so nobody may be able to put
/// another one in its place who could not have done that with this one.
///
/// # Errors
/// In words: not this one.
pub(super) fn check(program: &Path) -> Result<(), String> {
    let shown = program.display();
    let file = fs::metadata(program).map_err(|error| format!("cannot use {shown}: {error}"))?;
    if !program.is_absolute() || !file.is_file() {
        return Err(format!("cannot use {shown}: it must be the full path of a program"));
    }
    let is_own = file.uid() == 0 || file.uid() == geteuid().as_raw();
    if !is_own || file.mode() & WRITABLE != 0 {
        let hint = "it must belong to root or to the user that pgsplit runs as, and nobody else may be able to write it";
        return Err(format!("will not run {shown}: {hint}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_programs_that_nobody_else_can_write_are_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgsplit");
        assert!(check(&path).unwrap_err().contains("No such file"));
        fs::write(&path, "").unwrap();
        for (mode, is_fine) in [(0o755, true), (0o775, false), (0o757, false), (0o700, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check(&path).is_ok(), is_fine, "{mode:o}");
        }
        assert!(check(dir.path()).is_err() && check(Path::new("pgsplit")).is_err());
    }
}
