//! System calls of a running proxy, by strace.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tokio::time::{Instant, sleep};

use crate::cases::Case;
use crate::measuring::program::{PATIENCE, POLL, find, first_line};
use crate::peers::Proxy;
use crate::support::process::{Signal, signal};

pub(crate) fn version() -> Result<String, String> {
    let strace = find("strace")?;
    let line = first_line(&strace, "--version");
    let version = line.as_deref().and_then(|line| line.split_whitespace().last());
    Ok(format!("strace {}", version.ok_or_else(|| format!("{} says no version", strace.display()))?))
}

/// How often each system call was made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Calls(BTreeMap<String, u64>);

impl Calls {
    /// What strace writes with `-c -U calls,name`: a line for each between two of dashes.
    fn read(text: &str) -> Self {
        let line = |line: &str| {
            let (calls, name) = line.trim().split_once(' ')?;
            Some((name.trim().to_owned(), calls.parse().ok()?))
        };
        let rows = text.lines().skip_while(|line| !line.starts_with('-')).skip(1);
        Self(rows.take_while(|line| !line.starts_with('-')).filter_map(line).collect())
    }

    /// By name, what one unit costs when this was counted for the greater work and `few` for the smaller.
    pub(crate) fn per_unit(&self, few: &Self, case: &Case) -> BTreeMap<String, f64> {
        let count = |calls: &Self, name: &str| calls.0.get(name).copied().unwrap_or(0);
        let names = self.0.keys().chain(few.0.keys());
        names.map(|name| (name.clone(), case.per_unit(count(few, name), count(self, name)))).collect()
    }
}

/// System calls for some work.
pub(crate) async fn count(proxy: &Proxy, case: &Case, units: u32) -> Result<Calls, String> {
    let strace = Strace::attach(proxy).await?;
    case.run(proxy.addr(), units)?;
    strace.detach().await
}

/// A strace at work. Dropping it ends it, and the proxy goes on.
struct Strace {
    child: Child,
    file: PathBuf,
}

impl Strace {
    async fn attach(proxy: &Proxy) -> Result<Self, String> {
        let (pid, file) = (proxy.pid(), proxy.dir().join("strace"));
        let child = Command::new(find("strace")?)
            .args(["-c", "-f", "-U", "calls,name", "-p", &pid.to_string(), "-o"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut strace = Self { child: child.map_err(|error| format!("strace: {error}"))?, file };
        let start = Instant::now();
        while !is_traced(pid) {
            if let Ok(Some(status)) = strace.child.try_wait() {
                return Err(format!("strace ended with {status}: may this user trace processes?"));
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("strace does not see every thread of {pid} in {PATIENCE:?}"));
            }
            sleep(POLL).await;
        }
        Ok(strace)
    }

    async fn detach(mut self) -> Result<Calls, String> {
        signal(self.child.id(), Signal::INT);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > PATIENCE {
                return Err(format!("strace does not end in {PATIENCE:?}"));
            }
            sleep(POLL).await;
        }
        let text =
            fs::read_to_string(&self.file).map_err(|error| format!("{}: {error}", self.file.display()))?;
        Ok(Calls::read(&text))
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Whether somebody traces every thread of the process.
fn is_traced(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().all(|task| {
        let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let tracer = text.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::CASES;

    const SUMMARY: &str = "    calls syscall\n--------- ----------------\n     1212 setsockopt\n     1047 \
                           epoll_wait\n--------- ----------------\n     2259 total\n";

    #[test]
    fn calls_are_read_by_name_and_without_their_sum() {
        let calls = Calls::read(SUMMARY);
        let expected = [("epoll_wait", 1047), ("setsockopt", 1212)];
        assert_eq!(calls, Calls(expected.map(|(name, calls)| (name.to_owned(), calls)).into()));
        assert_eq!(Calls::read(""), Calls(BTreeMap::new()));
    }

    #[test]
    fn a_call_that_only_one_of_both_works_made_counts() {
        let case = &CASES[0];
        let few = Calls([("close".to_owned(), 400)].into());
        let many = Calls([("read".to_owned(), 800)].into());
        let found = many.per_unit(&few, case);
        assert!((found["read"] - 2.0).abs() < f64::EPSILON && (found["close"] + 1.0).abs() < f64::EPSILON);
    }
}
