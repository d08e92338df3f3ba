//! pgbench, and what its log of transactions says about a stretch of time.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};
use tokio::time::timeout;

use crate::latency::Latency;
use crate::sessions::{DATABASE, USER};
use crate::support::home;
use crate::support::programs::programs;

/// Rows of the largest table: 100,000 times this.
const SCALE: &str = "10";
/// For hundreds of logins, also before a peer that does one after another.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client program of PostgreSQL for `addr`, with or without TLS.
pub(crate) fn client(program: &str, addr: SocketAddr, tls: bool) -> Command {
    let mut command = programs().command(program);
    command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string(), "-U", USER]);
    command.env("PGSSLMODE", if tls { "require" } else { "disable" }).env("PGGSSENCMODE", "disable");
    // Where libpq looks for certificates of the one who runs this, whose home may be closed to others.
    command.env("HOME", "/nonexistent");
    command
}

/// Makes pgbench's tables.
pub(crate) async fn initialize(addr: SocketAddr) -> Result<(), String> {
    let mut command = client("pgbench", addr, false);
    command.args(["-i", "-q", "-s", SCALE, DATABASE]);
    let output = tokio::process::Command::from(command).kill_on_drop(true).output().await;
    let output = output.map_err(|error| format!("pgbench: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(last_error(&String::from_utf8_lossy(&output.stderr))) }
}

/// What the clients of a run do.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) addr: SocketAddr,
    pub(crate) clients: u32,
    /// A session for each transaction.
    pub(crate) connects: bool,
    pub(crate) tls: bool,
    /// Of the stretch that counts.
    pub(crate) seconds: u32,
}

/// What a stretch of a run was like.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) transactions: u64,
    pub(crate) latency: Option<Latency>,
}

/// A run that is under way. Dropping it ends it.
pub(crate) struct Pgbench {
    child: Child,
    errors: Lines<BufReader<ChildStderr>>,
    dir: PathBuf,
    connects: bool,
    said: String,
}

impl Pgbench {
    /// Returns when all clients are connected and the first second, which does not count, is over.
    pub(crate) async fn start(plan: Plan) -> Result<Self, String> {
        let dir = home::directory_of(programs().owner, "pgbench");
        let mut command = client("pgbench", plan.addr, plan.tls);
        command.args(["-n", "-S", "-P", "1", "-l", "-c", &plan.clients.to_string()]);
        command.args(["-j", &plan.clients.min(2).to_string()]);
        // A second before what counts, and one after it, so that it does not end within.
        command.args(["-T", &plan.seconds.saturating_add(2).to_string()]);
        command.arg(format!("--log-prefix={}", dir.join("log").display()));
        command.args(if plan.connects { ["-C", "-Msimple"] } else { ["-M", "prepared"] }).arg(DATABASE);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn();
        let mut child = child.map_err(|error| format!("pgbench: {error}"))?;
        let errors = child.stderr.take().ok_or("pgbench without standard error")?;
        let errors = BufReader::new(errors).lines();
        let mut run = Self { child, errors, dir, connects: plan.connects, said: String::new() };
        let begun = timeout(PATIENCE + Duration::from_secs(1), run.read_until(is_progress)).await;
        match begun {
            Ok(true) => Ok(run),
            Ok(false) => Err(last_error(&run.said)),
            Err(_) => Err(format!("pgbench: not connected in {PATIENCE:?}; {}", run.said)),
        }
    }

    /// Whether such a line came before the end.
    async fn read_until(&mut self, wanted: impl Fn(&str) -> bool) -> bool {
        while let Ok(Some(line)) = self.errors.next_line().await {
            if wanted(&line) {
                return true;
            }
            if !is_progress(&line) {
                self.said.push_str(&line);
                self.said.push('\n');
            }
        }
        false
    }

    /// Waits for the end of the run, and says what happened between the two points of time.
    pub(crate) async fn finish(mut self, from: SystemTime, to: SystemTime) -> Result<Stretch, String> {
        let ended = timeout(PATIENCE, async {
            self.read_until(|_| false).await;
            self.child.wait().await
        });
        let status = ended.await.map_err(|_| format!("pgbench: not done {PATIENCE:?} after its time"))?;
        let status = status.map_err(|error| format!("pgbench: {error}"))?;
        // Also when a client of many was lost.
        if !status.success() || self.said.contains("error:") {
            return Err(last_error(&self.said));
        }
        let log = read_all(&self.dir).map_err(|error| format!("{}: {error}", self.dir.display()))?;
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(stretch(&log, since(from), since(to), self.connects))
    }
}

impl Drop for Pgbench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn is_progress(line: &str) -> bool {
    line.starts_with("progress: ")
}

/// pgbench says much; what went wrong first is told.
fn last_error(said: &str) -> String {
    let error = said.lines().find(|line| line.contains("error:")).or_else(|| said.lines().last());
    format!("{} ({} lines of errors)", error.unwrap_or("pgbench said nothing"), said.lines().count())
}

/// The logs of all its threads.
fn read_all(dir: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    for entry in fs::read_dir(dir)? {
        text += &fs::read_to_string(entry?.path())?;
    }
    Ok(text)
}

/// A line of the log.
#[derive(Clone, Copy)]
struct Line {
    client: u32,
    /// Of the transaction, microseconds.
    took: u64,
    /// Since 1970.
    end: Duration,
}

impl Line {
    /// Client, number of the transaction, its time, number of the script, seconds and microseconds of its end.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[client, _, took, _, seconds, micros, ..] = fields.as_slice() else { return None };
        let micros = Duration::from_micros(micros.parse().ok()?);
        let end = Duration::from_secs(seconds.parse().ok()?) + micros;
        Some(Self { client: client.parse().ok()?, took: took.parse().ok()?, end })
    }
}

/// What ended in a stretch of time. The log has the time of a transaction without that of connecting, so with
/// `connects` a client's time from one end to the next counts.
fn stretch(log: &str, from: Duration, to: Duration, connects: bool) -> Stretch {
    let mut ends = BTreeMap::<u32, Duration>::new();
    let mut took = Vec::new();
    let mut transactions = 0;
    for line in log.lines().filter_map(Line::parse) {
        let last = ends.insert(line.client, line.end);
        if line.end < from || to <= line.end {
            continue;
        }
        transactions += 1;
        if !connects {
            took.push(line.took);
        } else if let Some(last) = last {
            took.extend(u64::try_from(line.end.saturating_sub(last).as_micros()));
        }
    }
    Stretch { transactions, latency: Latency::of(took) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
0 1 100 0 1000 100000
1 1 200 0 1000 500000
0 2 300 0 1001 0
0 3 400 0 1001 400000
1 2 500 0 1001 600000
0 4 600 0 1002 0
";

    fn check(connects: bool, expected: [u64; 3]) {
        let found = stretch(LOG, Duration::from_secs(1001), Duration::from_secs(1002), connects);
        assert_eq!(found.transactions, 3);
        let latency = found.latency.map(|all| [all.p50, all.p99, all.max]);
        assert_eq!(latency, Some(expected));
    }

    #[test]
    fn a_stretch_has_the_transactions_that_ended_in_it() {
        check(false, [400, 500, 500]);
    }

    #[test]
    fn a_session_lasts_from_one_end_to_the_next() {
        check(true, [900_000, 1_100_000, 1_100_000]);
    }

    #[test]
    fn other_lines_are_passed_over() {
        for text in ["", "0 1 failed 0 1000 1", "0 1 100 0 1000", "x"] {
            assert_eq!(stretch(text, Duration::ZERO, Duration::MAX, false).transactions, 0, "{text:?}");
        }
    }

    #[test]
    fn of_much_output_the_first_error_is_told() {
        let said =
            "pgbench (15)\npgbench: error: connection to server failed\npgbench: error: client 1 aborted\n";
        assert_eq!(last_error(said), "pgbench: error: connection to server failed (3 lines of errors)");
        assert_eq!(last_error(""), "pgbench said nothing (0 lines of errors)");
    }
}
