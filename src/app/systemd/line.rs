//! How things are, in one line: who takes writes and reads now, who is down, and how many sessions there are.

use std::fmt::{self, Write};
use std::sync::Arc;

use crate::balance::judge::Verdict;
use crate::base::text::escaped;
use crate::front::group::Group;
use crate::front::shared::Front;
use crate::session::setup::Setup;
use crate::session::shared::{Listener, Shared};
use crate::topology::Topology;
use crate::topology::choose::fitting;

/// More names than this are counted.
const MOST_NAMED: usize = 6;
/// In characters; names may be long.
const LONGEST: usize = 400;

/// The line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// What somebody wants to know at once when it changes.
    pub(super) words: String,
    /// What changes all the time.
    pub(super) figures: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The protocol knows lines, and nothing in a name may end this one.
        f.write_str(&escaped(self.words.as_bytes(), LONGEST))?;
        f.write_str(&self.figures)
    }
}

impl Line {
    /// Now.
    pub(super) fn of(shared: &Shared, fronts: &[Arc<Front>]) -> Self {
        let setup = shared.setup();
        let mut parts = Vec::new();
        if shared.is_draining() {
            parts.push("Draining.".to_owned());
        } else {
            let several = 1 < setup.clusters.len();
            for (config, watched) in setup.config.clusters.iter().zip(&setup.clusters) {
                if several {
                    parts.push(format!("{}:", config.name));
                }
                let is_on_it = |listener: &&Arc<Listener>| listener.watched.index == watched.index;
                let listeners = setup.listeners.iter().filter(is_on_it);
                parts.extend(of_cluster(&watched.current.borrow(), &listeners.collect::<Vec<_>>()));
            }
            parts.extend(of_fronts(fronts));
        }
        Self { words: parts.join(" "), figures: figures(&setup, fronts) }
    }
}

fn of_cluster(topology: &Topology, listeners: &[&Arc<Listener>]) -> Vec<String> {
    let mut parts = Vec::new();
    for (what, is_for_primary) in [("Writes", true), ("Reads", false)] {
        let mut of_kind =
            listeners.iter().filter(|listener| listener.is_for_primary() == is_for_primary).peekable();
        if of_kind.peek().is_none() {
            continue;
        }
        let mut names: Vec<&str> = Vec::new();
        for node in of_kind.flat_map(|listener| fitting(topology, listener.config.target, |_| true)) {
            if !names.contains(&node.config.name.as_str()) {
                names.push(&node.config.name);
            }
        }
        parts.push(format!("{what}: {}.", listed(&names, "no node")));
    }
    let down = topology.nodes.iter().filter(|node| node.verdict == Verdict::Down);
    let down: Vec<_> = down.map(|node| node.config.name.as_str()).collect();
    if !down.is_empty() {
        parts.push(format!("Down: {}.", listed(&down, "")));
    }
    parts
}

fn of_fronts(fronts: &[Arc<Front>]) -> Option<String> {
    let standings: Vec<_> = fronts.iter().flat_map(|front| &front.groups).map(Group::standing).collect();
    let all = || standings.iter().flat_map(|standing| &standing.members);
    let (up, known) = (all().filter(|member| member.takes_new()).count(), all().count());
    (!fronts.is_empty()).then(|| format!("HTTP: {up} of {known} upstreams."))
}

fn figures(setup: &Setup, fronts: &[Arc<Front>]) -> String {
    let sessions: u32 = setup.listeners.iter().map(|listener| listener.active()).sum();
    let waiting: usize = setup.listeners.iter().map(|listener| listener.waiting().0).sum();
    let requests: u64 = fronts.iter().map(|front| front.metrics.in_flight()).sum();
    let mut text = String::new();
    if !setup.listeners.is_empty() {
        text += &count(u64::from(sessions), "session");
    }
    if waiting != 0 {
        let _ = write!(text, ", {waiting} waiting");
    }
    if !fronts.is_empty() {
        text += if text.is_empty() { "" } else { "," };
        text += &count(requests, "request");
    }
    text
}

fn count(n: u64, what: &str) -> String {
    if n == 1 { format!(" 1 {what}") } else { format!(" {n} {what}s") }
}

fn listed(names: &[&str], none: &str) -> String {
    match names.get(..MOST_NAMED) {
        _ if names.is_empty() => none.to_owned(),
        Some(first) if MOST_NAMED < names.len() => {
            format!("{} and {} more", first.join(", "), names.len() - MOST_NAMED)
        }
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_names_are_said_and_many_are_counted() {
        assert_eq!(listed(&[], "no node"), "no node");
        assert_eq!(listed(&["db1", "db2"], ""), "db1, db2");
        assert_eq!(listed(&["a", "b", "c", "d", "e", "f"], ""), "a, b, c, d, e, f");
        assert_eq!(listed(&["a", "b", "c", "d", "e", "f", "g", "h"], ""), "a, b, c, d, e, f and 2 more");
    }

    #[test]
    fn a_line_is_one_line() {
        let line = Line { words: "Writes: db\nREADY=1.".to_owned(), figures: " 1 session".to_owned() };
        assert_eq!(line.to_string(), "Writes: db\\x0aREADY=1. 1 session");
    }
}
