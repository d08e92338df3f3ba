//! The table, and the file with every run.

use serde_json::{Value, json};

use crate::facts::{Facts, Service};
use crate::faults::Fault;
use crate::measuring::table::{self, Column, NOTHING, figure, text};
use crate::proxies::Peer;

const COLUMNS: [Column; 14] = [
    text("fault"),
    text("proxy"),
    figure("reads", "failed"),
    figure("writes", "failed"),
    figure("slowest", "read s"),
    figure("slowest", "write s"),
    figure("no reads", "for s"),
    figure("no writes", "for s"),
    figure("told", "after s"),
    figure("in", "flight"),
    figure("cut", "needlessly"),
    figure("promoted", "to write s"),
    figure("writes", "missing"),
    text("remarks"),
];

/// A fault with a proxy, and its runs.
pub(crate) struct Measured {
    pub(crate) fault: Fault,
    pub(crate) peer: Peer,
    pub(crate) runs: Vec<Facts>,
}

impl Measured {
    fn sum(&self, of: impl Fn(&Facts) -> usize) -> usize {
        self.runs.iter().map(of).sum()
    }

    fn most(&self, of: impl Fn(&Facts) -> f64) -> f64 {
        self.runs.iter().map(of).fold(0.0, f64::max)
    }

    fn failed(&self, of: impl Fn(&Facts) -> &Service) -> String {
        format!("{} of {}", self.sum(|facts| of(facts).failed), self.sum(|facts| of(facts).of))
    }

    fn told(&self) -> (String, Vec<&str>) {
        let sessions = self.sum(|facts| facts.told.sessions);
        if sessions == 0 {
            return (NOTHING.to_owned(), Vec::new());
        }
        let told = self.sum(|facts| facts.told.after.len());
        let last = self.most(|facts| facts.told.after.iter().copied().fold(0.0, f64::max));
        let mut how: Vec<&str> =
            self.runs.iter().flat_map(|facts| &facts.told.how).map(String::as_str).collect();
        how.sort_unstable();
        how.dedup();
        (if told < sessions { "never".to_owned() } else { format!("{last:.2}") }, how)
    }

    fn promotion(&self) -> String {
        let of_runs: Vec<_> = self.runs.iter().filter_map(|facts| facts.promotion).collect();
        if of_runs.is_empty() {
            return NOTHING.to_owned();
        }
        let through: Option<Vec<f64>> = of_runs.iter().map(|both| both.0).collect();
        through.map_or("never".to_owned(), |all| {
            format!("{:.2}", all.into_iter().fold(f64::NEG_INFINITY, f64::max))
        })
    }

    fn remarks(&self) -> String {
        let mut remarks = Vec::new();
        let (_, how) = self.told();
        if !how.is_empty() {
            remarks.push(format!("told by {}", how.join(", ")));
        }
        let direct =
            self.runs.iter().filter_map(|facts| facts.promotion?.1).fold(f64::NEG_INFINITY, f64::max);
        if direct.is_finite() {
            remarks.push(format!("direct write after {direct:.2} s"));
        }
        for two in self.runs.iter().filter_map(|facts| facts.two_primaries.as_ref()) {
            remarks.push(format!(
                "writes: {} on the old until {:.1} s, {} on the new; on both for {:.1} s",
                two.old, two.old_until, two.new, two.both
            ));
        }
        let cancels = self.runs.iter().filter_map(|facts| facts.cancels);
        let (lost, sent) = cancels.fold((0, 0), |sum, cancels| (sum.0 + cancels.0, sum.1 + cancels.1));
        if sent > 0 {
            remarks.push(format!("{lost} of {sent} cancels lost"));
        }
        let before = self.sum(|facts| facts.failed_in_calm);
        if before > 0 {
            remarks.push(format!("{before} failed before the fault"));
        }
        remarks.join("; ")
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.fault.name().to_owned(), self.peer.name().to_owned()];
        if self.fault == Fault::Cancel {
            cells.extend(std::iter::repeat_n(NOTHING.to_owned(), COLUMNS.len() - 3));
        } else {
            let missing: Option<usize> = self.runs.iter().map(|facts| facts.missing).sum();
            cells.extend([
                self.failed(|facts| &facts.reads),
                self.failed(|facts| &facts.writes),
                format!("{:.2}", self.most(|facts| facts.reads.slowest)),
                format!("{:.2}", self.most(|facts| facts.writes.slowest)),
                format!("{:.1}", self.most(|facts| facts.reads.without)),
                format!("{:.1}", self.most(|facts| facts.writes.without)),
                self.told().0,
                self.sum(|facts| facts.in_flight).to_string(),
                self.sum(|facts| facts.needless).to_string(),
                self.promotion(),
                missing.map_or("?".to_owned(), |missing| missing.to_string()),
            ]);
        }
        cells.push(self.remarks());
        cells
    }

    fn json(&self) -> Value {
        json!({
            "fault": self.fault.name(),
            "proxy": self.peer.name(),
            "runs": self.runs.iter().map(Facts::json).collect::<Vec<_>>(),
        })
    }
}

/// The aligned table, a block for each fault.
pub(crate) fn table(results: &[Measured]) -> String {
    let made: Vec<&Measured> = results.iter().filter(|result| !result.runs.is_empty()).collect();
    let of_fault = made.chunk_by(|a, b| a.fault == b.fault);
    table::table(&COLUMNS, of_fault.map(|rows| rows.iter().map(|row| row.cells()).collect()).collect())
}

/// All of it, with every run.
pub(crate) fn file(setup: &Value, results: &[Measured]) -> Value {
    json!({ "setup": setup, "rows": results.iter().map(Measured::json).collect::<Vec<_>>() })
}
