//! A program that is compared: found, started in a directory of its own, waited for, ended.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{Instant, sleep};

use crate::support::process::{family, signal};

/// For a start and for an end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// A program in PATH, or where Debian keeps servers, which only root has in PATH.
pub(crate) fn find(name: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let servers = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let found = env::split_paths(&path).chain(servers).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("{name} is not installed"))
}

/// The first line a program prints about its version, wherever it prints it.
pub(crate) fn first_line(program: &Path, argument: &str) -> Option<String> {
    first_line_of(Command::new(program).arg(argument))
}

pub(crate) fn first_line_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}

/// The pgsplit that is compared: `PGSPLIT_BIN`, or the one built beside this program.
pub(crate) fn pgsplit() -> Result<PathBuf, String> {
    let path = env::var_os("PGSPLIT_BIN").unwrap_or_else(|| "target/release/pgsplit".into());
    // It is started from another directory.
    let path = PathBuf::from(path);
    path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))
}

/// Without `PGSPLIT_CONFIG`, `PGPASSFILE` and the like of the one who runs this.
pub(crate) fn without_variables_of_postgres(command: &mut Command) {
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
}

/// A started program with all its processes. Dropping it kills them and deletes its directory.
pub(crate) struct Program {
    name: String,
    child: Child,
    dir: PathBuf,
}

impl Program {
    /// Runs a command in `dir`, where its configuration is written before. What it prints goes to the files `out` and
    /// `err` there.
    pub(crate) fn start(
        name: &str,
        command: &mut Command,
        dir: PathBuf,
        (file, config): (&str, &str),
    ) -> Result<Self, String> {
        let mut spawn = || {
            fs::write(dir.join(file), config)?;
            command.current_dir(&dir).stdin(Stdio::null()).process_group(0);
            command.stdout(File::create(dir.join("out"))?).stderr(File::create(dir.join("err"))?);
            let child = command.spawn()?;
            // For the watchdog, should we be killed.
            fs::write(dir.join("pid"), format!("{}\n", child.id()))?;
            Ok(child)
        };
        let child: io::Result<Child> = spawn();
        let child = child.map_err(|error| format!("{name}: {error}"))?;
        Ok(Self { name: name.to_owned(), child, dir })
    }

    /// All its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        family(self.child.id())
    }

    /// Its directory, in which it works.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// An error when it runs no more.
    pub(crate) fn check_running(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(self.ended(status)),
            _ => Ok(()),
        }
    }

    fn ended(&self, status: ExitStatus) -> String {
        format!("{} ended with {status}: {}", self.name, self.last_words())
    }

    /// Ends it and waits until every process has gone, so that nothing of it answers for the next.
    pub(crate) async fn stop(&mut self) {
        signal(self.child.id(), Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            sleep(POLL).await;
        }
    }

    /// What it printed at last.
    pub(crate) fn last_words(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        let text = read("out") + &read("err");
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.iter().skip(lines.len().saturating_sub(3)).copied().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Not when it has been waited for: its number may be somebody else's by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
