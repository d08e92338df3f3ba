//! From the runs to figures: medians, ratios, a table, a file.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::cases::Case;
use crate::measuring::figures::{Better, Compared};
use crate::measuring::table::{self, Column, figure, shown, significant, text};
use crate::peers::Peer;

/// What one unit of work costs, by one run.
pub(crate) struct Run {
    pub(crate) instructions: f64,
    /// System calls by name.
    pub(crate) calls: BTreeMap<String, f64>,
}

impl Run {
    fn all_calls(&self) -> f64 {
        self.calls.values().sum()
    }
}

/// A case with its runs.
pub(crate) struct Measured {
    pub(crate) case: &'static Case,
    pub(crate) runs: Compared<Peer, Run>,
    heaviest: Vec<String>,
}

/// So rare a system call is not named, as long as there are others: it belongs to something else.
const RARE: f64 = 0.01;

impl Measured {
    pub(crate) fn new(case: &'static Case) -> Self {
        Self { case, runs: Compared::default(), heaviest: Vec::new() }
    }

    pub(crate) fn set_heaviest(&mut self, functions: Vec<String>) {
        self.heaviest = functions;
    }

    /// Where pgsplit's instructions go, if that was asked for.
    pub(crate) fn heaviest(&self) -> Vec<String> {
        if self.heaviest.is_empty() {
            return Vec::new();
        }
        let head = format!("{}: pgsplit's heaviest functions, without those they call", self.case.name);
        let functions = self.heaviest.iter().map(|function| format!("  {function}"));
        std::iter::once(head).chain(functions).chain([String::new()]).collect()
    }

    /// Which system calls one unit takes, a line for each peer.
    pub(crate) fn calls(&self) -> Vec<String> {
        let line = |peer| {
            let calls = self.calls_of(peer);
            let least = RARE * calls.iter().map(|(_, calls)| calls).sum::<f64>();
            let named = calls.iter().filter(|&&(_, calls)| calls > least);
            let words: Vec<String> =
                named.map(|(name, calls)| format!("{name} {}", significant(*calls))).collect();
            format!("{} {}: {}", self.case.name, peer.name(), words.join(", "))
        };
        self.runs.peers().map(line).collect()
    }

    /// The most frequent first.
    fn calls_of(&self, peer: Peer) -> Vec<(&str, f64)> {
        let names: BTreeSet<&str> =
            self.runs.of(peer).flat_map(|(_, run)| run.calls.keys().map(String::as_str)).collect();
        let median = |name: &str| {
            self.runs.median(peer, |run| Some(run.calls.get(name).copied().unwrap_or(0.0))).unwrap_or(0.0)
        };
        let mut calls: Vec<_> = names.into_iter().map(|name| (name, median(name))).collect();
        calls.sort_by(|a, b| b.1.total_cmp(&a.1));
        calls
    }

    fn instructions(&self, peer: Peer) -> Option<f64> {
        self.runs.median(peer, |run| Some(run.instructions))
    }

    fn ratio(&self, peer: Peer) -> Option<f64> {
        let figure = |run: &Run| Some(run.instructions);
        let best = self.runs.best(Better::Less, |_| true, figure);
        self.runs.ratio(peer, best, figure)
    }

    /// How far the runs are apart, as a share of the median.
    fn spread(&self, peer: Peer) -> Option<f64> {
        let runs = || self.runs.of(peer).map(|(_, run)| run.instructions);
        let (least, most) = (runs().reduce(f64::min)?, runs().reduce(f64::max)?);
        Some((most - least) / self.instructions(peer)?)
    }

    fn cells(&self, peer: Peer) -> Vec<String> {
        vec![
            self.case.name.to_owned(),
            peer.name().to_owned(),
            self.case.unit.to_owned(),
            shown(self.instructions(peer), significant),
            shown(self.ratio(peer), |ratio| format!("{ratio:.2}")),
            shown(self.spread(peer), |spread| format!("{:.2}", spread * 100.0)),
            shown(self.runs.median(peer, |run| Some(run.all_calls())), significant),
        ]
    }

    fn json(&self) -> Value {
        let peers: Vec<Value> = self.runs.peers().map(|peer| self.json_of(peer)).collect();
        json!({
            "case": self.case.name,
            "unit": self.case.unit,
            "logs": self.case.logs,
            "units": [self.case.few, self.case.many],
            "peers": peers,
            "heaviest_of_pgsplit": self.heaviest,
        })
    }

    fn json_of(&self, peer: Peer) -> Value {
        let runs = self.runs.of(peer).map(|(round, run)| {
            json!({ "round": round + 1, "instructions": run.instructions, "syscalls": run.calls })
        });
        json!({
            "peer": peer.name(),
            "instructions": self.instructions(peer),
            "instructions_to_best": self.ratio(peer),
            "spread_of_instructions": self.spread(peer),
            "syscalls": self.runs.median(peer, |run| Some(run.all_calls())),
            "syscalls_by_name": self.calls_of(peer).into_iter().collect::<BTreeMap<_, _>>(),
            "runs": runs.collect::<Vec<_>>(),
        })
    }
}

const COLUMNS: [Column; 7] = [
    text("case"),
    text("peer"),
    text("unit"),
    figure("instructions", "/unit"),
    figure("instructions", "/best"),
    figure("spread", "%"),
    figure("syscalls", "/unit"),
];

/// The aligned table.
pub(crate) fn table(results: &[Measured]) -> String {
    let block = |result: &Measured| result.runs.peers().map(|peer| result.cells(peer)).collect();
    table::table(&COLUMNS, results.iter().map(block).collect())
}

/// All of it, with every run.
pub(crate) fn file(setup: &Value, results: &[Measured]) -> Value {
    json!({ "setup": setup, "cases": results.iter().map(Measured::json).collect::<Vec<_>>() })
}
