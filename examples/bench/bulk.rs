//! Much in one session: COPY through psql, rows through a client that only counts them.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use crate::cases::Bulk;
use crate::pgbench::client;
use crate::sessions::{DATABASE, Session};
use crate::support::home;
use crate::support::programs::programs;

/// Of a line with its end.
const LINE: usize = 100;
const LINES_PER_MEGABYTE: u32 = 10_000;
/// What the server keeps in memory, and sends as often as needed.
const MOST_AT_ONCE: u32 = 100;
/// Of the bytes of other cases: the server takes ten times as long to make so many small rows.
const SMALL_ROWS_SHARE: u32 = 10;
/// A row of one number with seven digits, with all that is around it.
const SMALL_ROW: u32 = 18;
const LARGE_ROW: u32 = 64 * 1024;
const MEGABYTE: u32 = 1_000_000;

/// The table that is read and the file that is written.
pub(crate) struct Source {
    file: PathBuf,
    /// Of the table and of the file.
    megabytes: u32,
    times: u32,
}

impl Source {
    /// Makes both, for cases that move `megabytes`.
    pub(crate) async fn make(node: SocketAddr, megabytes: u32) -> Result<Self, String> {
        let times = megabytes.div_ceil(MOST_AT_ONCE);
        let megabytes = megabytes.div_ceil(times);
        let lines = megabytes * LINES_PER_MEGABYTE;
        let line = format!("rpad(i::text, {}, 'x') as line from generate_series(1, {lines}) i", LINE - 1);
        for statement in [
            &format!("create unlogged table lines as select {line}"),
            "create unlogged table sink (line text)",
            "vacuum analyze lines",
        ] {
            Session::drain(node, statement).await?;
        }
        let file = home::directory_of(programs().owner, "bulk").join("lines");
        let mut text = String::new();
        for i in 1..=lines {
            let _ = writeln!(text, "{i:x<width$}", width = LINE - 1);
        }
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Self { file, megabytes, times })
    }

    /// Moves what a case moves and returns how many megabytes it were, as the client counts them.
    pub(crate) async fn run(&self, bulk: Bulk, addr: SocketAddr, tls: bool) -> Result<f64, String> {
        let rows = |of_bytes: u32, share: u32| {
            let bytes = u64::from(self.megabytes) * u64::from(self.times) * u64::from(MEGABYTE / share);
            (bytes / u64::from(of_bytes)).max(1)
        };
        match bulk {
            Bulk::CopyOut => self.copy("copy lines to stdout", addr, tls).await,
            Bulk::CopyIn => {
                // The server reads every line and keeps none.
                let file = self.file.display();
                self.copy(&format!("\\copy sink from '{file}' where false"), addr, tls).await
            }
            Bulk::LargeRows => {
                let rows = rows(LARGE_ROW, 1);
                rows_of(addr, &format!("select repeat('x', {LARGE_ROW}) from generate_series(1, {rows})"))
                    .await
            }
            Bulk::SmallRows => {
                let rows = rows(SMALL_ROW, SMALL_ROWS_SHARE);
                rows_of(addr, &format!("select generate_series(1, {rows})")).await
            }
        }
    }

    /// One session of psql that does the same as often as needed.
    async fn copy(&self, statement: &str, addr: SocketAddr, tls: bool) -> Result<f64, String> {
        let mut command = client("psql", addr, tls);
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", DATABASE]);
        for _ in 0..self.times {
            command.args(["-c", statement]);
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let output = tokio::process::Command::from(command).kill_on_drop(true).spawn();
        let output = output.map_err(|error| format!("psql: {error}"))?.wait_with_output().await;
        let output = output.map_err(|error| format!("psql: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "psql: {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            ));
        }
        Ok(f64::from(self.megabytes) * f64::from(self.times))
    }
}

async fn rows_of(addr: SocketAddr, sql: &str) -> Result<f64, String> {
    let answer = Session::drain(addr, sql).await?;
    Ok(answer.bytes as f64 / f64::from(MEGABYTE))
}
