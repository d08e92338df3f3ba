//! What the proxies are given to do, and how much of it.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::support::programs::programs;

/// Work that comes in equal units.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// Whether the proxy writes a line for each session.
    pub(crate) logs: bool,
    /// Units of the smaller work.
    pub(crate) few: u32,
    /// Units of the greater work.
    pub(crate) many: u32,
    work: Work,
}

enum Work {
    /// A login, a query and a leave.
    Sessions,
    /// A query of one session.
    Queries,
    /// A thousand rows of a bulk transfer.
    Rows,
}

pub(crate) const CASES: [Case; 4] = [
    Case { name: "session", unit: "session", logs: true, few: 100, many: 500, work: Work::Sessions },
    Case {
        name: "session-unlogged",
        unit: "session",
        logs: false,
        few: 100,
        many: 500,
        work: Work::Sessions,
    },
    Case { name: "round-trip", unit: "transaction", logs: true, few: 500, many: 3500, work: Work::Queries },
    Case { name: "rows", unit: "1000 rows", logs: true, few: 100, many: 1000, work: Work::Rows },
];

impl Case {
    /// Has `units` of the work done through the proxy at `addr`, to the end.
    pub(crate) fn run(&self, addr: SocketAddr, units: u32) -> Result<(), String> {
        let units = units.to_string();
        match self.work {
            Work::Sessions => pgbench(addr, &["-S", "-C", "-n", "-t", &units]),
            Work::Queries => pgbench(addr, &["-S", "-M", "prepared", "-n", "-t", &units]),
            Work::Rows => {
                let rows = format!("select repeat('x', 37) from generate_series(1, 1000 * {units})");
                let mut psql = programs().command("psql");
                psql.args(["-X", "-d", &place(addr), "-c", &format!("copy ({rows}) to stdout")]);
                finish(psql.stdout(Stdio::null()))
            }
        }
    }

    /// What one unit costs, when the two works cost this.
    pub(crate) fn per_unit(&self, few: u64, many: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 53 bits")]
        let difference = many as f64 - few as f64;
        difference / f64::from(self.many - self.few)
    }
}

/// Makes the tables that are asked.
pub(crate) fn fill(server: SocketAddr) -> Result<(), String> {
    pgbench(server, &["-i", "-q"])
}

fn pgbench(addr: SocketAddr, arguments: &[&str]) -> Result<(), String> {
    finish(programs().command("pgbench").args(arguments).arg(place(addr)).stdout(Stdio::null()))
}

/// A client of one packet exchange less: no question about encryption.
fn place(addr: SocketAddr) -> String {
    let (host, port) = (addr.ip(), addr.port());
    format!("host={host} port={port} user=postgres dbname=postgres sslmode=disable gssencmode=disable")
}

fn finish(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().display().to_string();
    let output = command.stderr(Stdio::piped()).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}: {}", output.status, words.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_works_have_in_common_falls_out() {
        let case = &CASES[0];
        assert_eq!((case.few, case.many), (100, 500));
        assert!((case.per_unit(7_000 + 100 * 3, 7_000 + 500 * 3) - 3.0).abs() < f64::EPSILON);
        assert!((case.per_unit(900, 500) + 1.0).abs() < f64::EPSILON);
    }
}
