//! The state of everything in one sentence or two, for who has just been woken: `Writes: db1. Reads: db2 (db3 down 12 s:
//! connection refused).`

use std::sync::Arc;
use std::time::Duration;

use crate::balance::judge::Verdict;
use crate::base::role::{Role, Target};
use crate::front::shared::Front;
use crate::session::setup::Setup;
use crate::session::shared::{Listener, Shared};
use crate::topology::check::Outcome;
use crate::topology::choose::fitting;
use crate::topology::{Node, Topology};

/// Where new sessions of a listener go now, and why there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Going {
    /// Names of nodes; none: sessions wait.
    pub to: Vec<String>,
    pub why: String,
}

/// What the sentence needs of a listener.
#[derive(Clone, Copy, Debug)]
struct Door<'a> {
    name: &'a str,
    target: Target,
    is_paused: bool,
    waiting: usize,
}

/// The sentence.
pub(crate) fn in_words(shared: &Shared, setup: &Setup, fronts: &[Arc<Front>]) -> String {
    let mut sentences = Vec::new();
    if shared.stop.is_cancelled() {
        sentences.push("Stopping: nothing new is accepted.".to_owned());
    } else if shared.is_draining() {
        sentences.push("Stopping soon: /readyz says so, and what is new is still accepted.".to_owned());
    }
    let several = 1 < setup.clusters.len();
    for (cluster, watched) in setup.config.clusters.iter().zip(&setup.clusters) {
        let topology = Arc::clone(&watched.current.borrow());
        let of_it = setup.listeners.iter().filter(|listener| listener.cluster.name == cluster.name);
        let doors: Vec<_> = of_it.map(|listener| Door::of(listener)).collect();
        let words = of_cluster(&topology, &doors);
        sentences.push(if several { format!("{}: {words}", cluster.name) } else { words });
    }
    for front in fronts {
        let name = &front.config.name;
        let troubles = front.troubles();
        if !troubles.is_empty() {
            sentences.push(format!("HTTP {name}: {}.", troubles.join("; ")));
        } else if setup.clusters.is_empty() {
            sentences.push(format!("HTTP {name}: ready."));
        }
    }
    sentences.join(" ")
}

/// Where new sessions of a listener go now.
pub(super) fn going(listener: &Listener) -> Going {
    let topology = Arc::clone(&listener.watched.current.borrow());
    where_to(&topology, Door::of(listener))
}

impl<'a> Door<'a> {
    fn of(listener: &'a Listener) -> Self {
        Self {
            name: &listener.config.name,
            target: listener.config.target,
            is_paused: listener.is_paused(),
            waiting: listener.waiting().0,
        }
    }

    const fn is_for_writes(&self) -> bool {
        matches!(self.target, Target::Primary | Target::ReadWrite)
    }
}

fn where_to(topology: &Topology, door: Door<'_>) -> Going {
    if door.is_paused {
        return Going { to: Vec::new(), why: "it is paused: new sessions wait".to_owned() };
    }
    let nodes = fitting(topology, door.target, Node::has_room);
    let to = nodes.iter().map(|node| node.config.name.clone()).collect();
    let are_primary = nodes.iter().all(|node| node.role() == Some(Role::Primary));
    let kind = match door.target {
        _ if nodes.is_empty() => return Going { to, why: nobody(topology, door.target) },
        Target::Primary | Target::ReadWrite => "the primary",
        Target::PreferStandby if are_primary => "no standby takes new sessions, so they go to the primary",
        Target::PreferStandby | Target::Standby if nodes.len() == 1 => {
            "the only standby that takes new sessions"
        }
        Target::PreferStandby | Target::Standby => "all standbys that take new sessions",
        Target::ReadOnly => "nodes whose sessions are read-only",
        Target::Any => "any node that takes new sessions",
    };
    let but = nodes.iter().find_map(|node| match node {
        node if node.is_going_down() => Some("; it fails, but there is no other"),
        node if node.is_lagging => Some("; it is too far behind, but there is no other"),
        node if node.held_back().is_some() => Some("; it came and went, but there is no other"),
        _ => None,
    });
    Going { to, why: kind.to_owned() + but.unwrap_or_default() }
}

/// Why no node fits.
fn nobody(topology: &Topology, target: Target) -> String {
    let wanted = match target {
        Target::Any | Target::PreferStandby => "node",
        Target::ReadOnly => "read-only node",
        Target::Primary | Target::ReadWrite => "primary",
        Target::Standby => "standby",
    };
    let all: Vec<_> = topology.nodes.iter().map(Node::in_words).collect();
    format!("no {wanted} takes new sessions: {}", all.join("; "))
}

fn of_cluster(topology: &Topology, doors: &[Door<'_>]) -> String {
    let mut parts = Vec::new();
    if let Some(door) = doors.iter().find(|door| door.is_for_writes()) {
        parts.push(part(topology, "Writes", *door));
    }
    if let Some(door) = doors.iter().find(|door| !door.is_for_writes()) {
        parts.push(part(topology, "Reads", *door));
    }
    let troubles: Vec<_> = topology.nodes.iter().filter_map(trouble).collect();
    if !troubles.is_empty() {
        let last = parts.pop().unwrap_or_default();
        parts.push(format!("{last} ({})", troubles.join(", ")).trim_start().to_owned());
    }
    parts.iter().map(|part| format!("{part}.")).collect::<Vec<_>>().join(" ")
}

/// One sentence, without its point.
fn part(topology: &Topology, what: &str, door: Door<'_>) -> String {
    let Going { to, .. } = where_to(topology, door);
    let who = match door.waiting {
        0 => String::new(),
        1 => ", 1 session waits".to_owned(),
        n => format!(", {n} sessions wait"),
    };
    if door.is_paused {
        return format!("{what} wait: {} is paused{who}", door.name);
    }
    if to.is_empty() {
        let wanted = if door.is_for_writes() { "primary" } else { "node" };
        return format!("{what} wait: no {wanted}{who}");
    }
    let is_primary = |name: &String| topology.primary().is_some_and(|primary| primary.config.name == *name);
    let falls_back = !door.is_for_writes() && door.target != Target::Any && to.iter().all(is_primary);
    let aside = if falls_back { ", the primary" } else { "" };
    format!("{what}: {}{aside}{who}", to.join(", "))
}

/// What is the matter with a node, if anything is.
fn trouble(node: &Node) -> Option<String> {
    let name = &node.config.name;
    match node.verdict {
        _ if !node.is_in_service() => Some(node.in_words()),
        Verdict::Starting => Some(format!("{name} not checked yet")),
        Verdict::Down => {
            let age = age(node.since.elapsed().unwrap_or_default());
            let error = node.last_check.as_deref().and_then(|report| match &report.outcome {
                Outcome::Failed(failure) => Some(format!(": {}", failure.text)),
                _ => None,
            });
            Some(format!("{name} down {age}{}", error.unwrap_or_default()))
        }
        Verdict::Up => {
            let is_well = node.is_sound()
                && !node.is_full()
                && !node.is_superseded
                && !node.is_lagging
                && node.has_room()
                && node.is_of_use()
                && node.held_back().is_none();
            (!is_well).then(|| node.in_words())
        }
    }
}

/// A time as somebody says it: `12 s`, `41 min`, `3 h`, `2 d`.
pub(super) fn age(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::choose::tests::topology;

    const RW: Door<'_> = Door { name: "rw", target: Target::Primary, is_paused: false, waiting: 0 };
    const RO: Door<'_> = Door { name: "ro", target: Target::PreferStandby, is_paused: false, waiting: 0 };

    #[track_caller]
    fn check(words: &str, expected: &str) {
        assert_eq!(of_cluster(&topology(words), &[RW, RO]), expected, "{words}");
    }

    #[test]
    fn it_says_where_writes_and_reads_go_and_what_is_wrong() {
        check("primary standby standby", "Writes: n0. Reads: n1, n2.");
        check("primary standby -standby", "Writes: n0. Reads: n1 (n2 down 0 s).");
        check("primary -standby", "Writes: n0. Reads: n0, the primary (n1 down 0 s).");
        check("-primary standby", "Writes wait: no primary. Reads: n1 (n0 down 0 s).");
        check("-primary", "Writes wait: no primary. Reads wait: no node (n0 down 0 s).");
        check("primary standby:zero", "Writes: n0. Reads: n0, the primary (n1 has weight 0).");
        check("primary standby:drain standby", "Writes: n0. Reads: n2 (n1 in drain).");
        check("primary standby standby:lag", "Writes: n0. Reads: n1 (n2 standby, lagging).");
    }

    #[test]
    fn who_waits_is_counted() {
        let all = topology("primary standby");
        let paused = Door { is_paused: true, waiting: 8, ..RW };
        assert_eq!(of_cluster(&all, &[paused, RO]), "Writes wait: rw is paused, 8 sessions wait. Reads: n1.");
        let none = topology("-primary standby");
        let waits = Door { waiting: 1, ..RW };
        assert_eq!(of_cluster(&none, &[waits]), "Writes wait: no primary, 1 session waits (n0 down 0 s).");
        assert_eq!(of_cluster(&topology("standby"), &[Door { target: Target::Any, ..RO }]), "Reads: n0.");
    }

    #[test]
    fn a_listener_says_why_its_sessions_go_where_they_go() {
        let why = |words: &str, door| {
            let going = where_to(&topology(words), door);
            (going.to.join(" "), going.why)
        };
        let told = |to: &str, why: &str| (to.to_owned(), why.to_owned());
        assert_eq!(why("primary standby", RW), told("n0", "the primary"));
        assert_eq!(why("primary standby standby", RO), told("n1 n2", "all standbys that take new sessions"));
        let fallback = "no standby takes new sessions, so they go to the primary";
        assert_eq!(why("primary -standby", RO), told("n0", fallback));
        assert_eq!(
            why("primary", Door { is_paused: true, ..RW }),
            told("", "it is paused: new sessions wait")
        );
        let (to, words) = why("-primary standby", RW);
        assert!(to.is_empty() && words.starts_with("no primary takes new sessions: n0 down 0s"), "{words}");
        let failing = "the only standby that takes new sessions; it fails, but there is no other";
        assert_eq!(why("standby:failing", RO), told("n0", failing));
    }

    #[test]
    fn ages_are_as_somebody_says_them() {
        let ages = [12, 119, 120, 7199, 7200, 172_800].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["12 s", "119 s", "2 min", "119 min", "2 h", "2 d"]);
    }
}
