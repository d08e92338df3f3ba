//! What several tests of sessions need: configurations without a check login, `PostgreSQL`'s own clients, a log
//! of what nodes were sent.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "a test that cannot set up its world should panic and say why; each test needs a part"
)]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::support::balancer::binary;
use crate::support::client::PASSWORD;
use crate::support::programs::programs;

/// One listener at [`crate::support::balancer::Balancer::rw`] over nodes with written roles, tried in their
/// order. The checks only connect, so that nodes can be scripted, and whatever a session meets changes nothing
/// for the next one. `rest` are more lines of the file.
pub fn in_order(nodes: impl IntoIterator<Item = SocketAddr>, rest: &str) -> String {
    with_listener(nodes, "target: any, balance: first", rest)
}

/// The same with other words about the listener.
pub fn with_listener(nodes: impl IntoIterator<Item = SocketAddr>, listener: &str, rest: &str) -> String {
    let nodes: Vec<_> = nodes
        .into_iter()
        .enumerate()
        .map(|(i, addr)| format!("  - {{name: n{i}, addr: \"{addr}\", role: standby}}\n"))
        .collect();
    format!(
        "nodes:\n{}check: {{type: tcp, interval: 200ms, passive: no}}\nlisteners:\n  - {{name: all, bind: \
         \"BALANCER:6432\", {listener}}}\n{rest}",
        nodes.concat()
    )
}

/// A connection string for [`psql`] and its kind; `more` is added to it.
pub fn conninfo(addr: SocketAddr, more: &str) -> String {
    let (ip, port) = (addr.ip(), addr.port());
    format!(
        "hostaddr={ip} port={port} user=postgres password={PASSWORD} dbname=postgres connect_timeout=15 {more}"
    )
}

/// A client program, with nobody's home: libpq looks for certificates there.
pub fn program(name: &str) -> Command {
    let mut command = programs().command(name);
    command.env("HOME", "/nonexistent");
    command
}

/// `psql` to run `sql` and print bare values.
pub fn psql_command(conninfo: &str, sql: &str) -> Command {
    let mut command = program("psql");
    command.args(["-XAtqw", "-v", "ON_ERROR_STOP=1", "-d", conninfo, "-c", sql]);
    command
}

/// What `psql` printed, without the last newline; an error is what it said instead.
pub async fn psql(conninfo: &str, sql: &str) -> Result<String, String> {
    let output = output(psql_command(conninfo, sql)).await;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Runs a command to its end.
pub async fn output(command: Command) -> Output {
    // No test depends on the terminal it is started at.
    tokio::process::Command::from(command).stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap()
}

/// What nodes were sent, in the order it was noted.
#[derive(Clone, Debug, Default)]
pub struct Notes<T>(Arc<Mutex<Vec<T>>>);

impl<T: Clone> Notes<T> {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    pub fn add(&self, note: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    pub fn all(&self) -> Vec<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Resident memory of a process, in bytes.
pub fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A metric as the whole number it is.
#[expect(clippy::cast_possible_truncation, reason = "counters of a test are small")]
pub fn whole(value: f64) -> i64 {
    value.round() as i64
}

/// Runs pgsplit in a directory, with these variables and no other: exit code, standard output, standard error, in which no
/// secret may stand.
pub async fn run_in(here: &Path, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.args(args).env_clear().envs(env.iter().copied()).current_dir(here);
    let Output { status, stdout, stderr } = output(command).await;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert!(!stdout.contains("canary") && !stderr.contains("canary"), "{stdout}{stderr}");
    (status.code(), stdout, stderr)
}
