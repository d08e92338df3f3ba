//! Which nodes fit a target now, best kind first. Pure.

use crate::base::role::{Role, Target};
use crate::topology::{Node, Topology};

/// The nodes that a new session for `target` may go to: all of the first kind that has any.
///
/// A kind is left only when it is empty, so a prefer-standby listener touches the primary only when no standby
/// takes sessions. Within a kind, nodes that are going down come after all others, and before that those marked `backup`
/// after those that are not. Standbys that are further behind than allowed come last rather than never: for a read, late
/// is better than not at all. Before all that, a node on probation, because it came and went, is only taken when none else of
/// any kind is left. An old primary, whose place another one has taken, fits nothing, nor does a node that somebody has taken out
/// of use, nor a standby whose Patroni says that it is not to be read from.
pub fn fitting(topology: &Topology, target: Target, allowed: impl Fn(&Node) -> bool) -> Vec<&Node> {
    let takes_new = |node: &Node| {
        node.is_up()
            && node.is_of_use()
            && !node.is_superseded
            && !node.is_kept_from_reads()
            && !node.is_full()
            && allowed(node)
    };
    let is_primary = |node: &Node| topology.primary == Some(node.id);
    let fits = |node: &Node, kind: Kind| match kind {
        Kind::Any => true,
        Kind::Primary => is_primary(node),
        Kind::Writable => is_primary(node) && node.read_only != Some(true),
        Kind::Standby => node.role() == Some(Role::Standby),
        Kind::ReadOnly => node.role() == Some(Role::Standby) || node.read_only == Some(true),
    };
    // Once more for those on probation. All are asked again, as a probation may end between the two.
    for may_be_held_back in [false, true] {
        for &(kind, is_lagging) in kinds(target) {
            for (is_going_down, backup) in [(false, false), (false, true), (true, false), (true, true)] {
                let of_kind = |node: &&Node| {
                    node.is_going_down() == is_going_down
                        && node.config.backup == backup
                        && node.is_lagging == is_lagging
                        && fits(node, kind)
                        && takes_new(node)
                        && (may_be_held_back || node.held_back().is_none())
                };
                let found: Vec<_> = topology.nodes.iter().filter(of_kind).collect();
                if !found.is_empty() {
                    return found;
                }
            }
        }
    }
    Vec::new()
}

#[derive(Clone, Copy)]
enum Kind {
    Any,
    Primary,
    Writable,
    Standby,
    ReadOnly,
}

/// What to look for, in turn: a kind, and whether its lagging ones.
const fn kinds(target: Target) -> &'static [(Kind, bool)] {
    match target {
        Target::Any => &[(Kind::Any, false), (Kind::Any, true)],
        Target::Primary => &[(Kind::Primary, false)],
        Target::ReadWrite => &[(Kind::Writable, false)],
        Target::Standby => &[(Kind::Standby, false), (Kind::Standby, true)],
        Target::ReadOnly => &[(Kind::ReadOnly, false), (Kind::ReadOnly, true)],
        Target::PreferStandby => &[(Kind::Standby, false), (Kind::Any, false), (Kind::Any, true)],
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::balance::judge::Verdict;
    use crate::base::id::NodeId;
    use crate::config;
    use crate::topology::check::patroni::Said;
    use crate::topology::order::AdminState;
    use crate::topology::{KnownRole, RoleSource};
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::time::Instant;

    /// A topology from words such as `"primary standby:lag -standby:backup"`; `-` before a role: down.
    pub(crate) fn topology(words: &str) -> Topology {
        let now = Instant::now();
        let nodes = words.split_whitespace().enumerate().map(|(at, word)| {
            let mut parts = word.trim_start_matches('-').split(':');
            let role = match parts.next() {
                Some("primary") => Some(Role::Primary),
                Some("standby") => Some(Role::Standby),
                _ => None,
            };
            let flags: Vec<_> = parts.collect();
            let config = config::Node {
                name: format!("n{at}"),
                addr: config::NodeAddr { host: "localhost".into(), port: 1 },
                role: None,
                weight: if flags.contains(&"zero") { 0 } else { 100 },
                backup: flags.contains(&"backup"),
                max_connections: None,
                password: None,
                patroni: config::PatroniAddr::default(),
            };
            let mut node = Node::starting(NodeId::first(at), &Arc::new(config), Arc::default());
            node.verdict = if word.starts_with('-') { Verdict::Down } else { Verdict::Up };
            node.role = role.map(|role| KnownRole { role, from: RoleSource::Check });
            node.is_lagging = flags.contains(&"lag");
            node.progress = (u32::from(flags.contains(&"failing")), 3);
            node.read_only = flags.contains(&"readonly").then_some(true);
            node.full_until = flags.contains(&"full").then(|| now + Duration::from_secs(60));
            node.held_until = flags.contains(&"held").then(|| now + Duration::from_secs(60));
            node.is_superseded = flags.contains(&"superseded");
            let admin = flags.iter().find_map(|flag| AdminState::from_word(flag));
            node.admin = admin.unwrap_or_default();
            let noloadbalance = flags.contains(&"noloadbalance");
            node.patroni = noloadbalance.then(|| Said { noloadbalance, ..Said::default() });
            node
        });
        let mut topology = Topology { nodes: nodes.collect(), ..Topology::default() };
        let primary = topology.living_primaries().find(|node| !node.is_superseded).map(|node| node.id);
        topology.primary = primary;
        topology
    }

    #[track_caller]
    fn check(words: &str, target: Target, expected: &[usize]) {
        let topology = topology(words);
        let got: Vec<_> = fitting(&topology, target, |_| true).iter().map(|node| node.id.place).collect();
        assert_eq!(got, expected, "{words} for {target}");
    }

    #[test]
    fn each_target_means_what_it_means_in_libpq() {
        let words = "primary standby standby ?";
        check(words, Target::Any, &[0, 1, 2, 3]);
        check(words, Target::Primary, &[0]);
        check(words, Target::ReadWrite, &[0]);
        check(words, Target::Standby, &[1, 2]);
        check(words, Target::ReadOnly, &[1, 2]);
        check(words, Target::PreferStandby, &[1, 2]);
        check("primary:readonly", Target::ReadWrite, &[]);
        check("primary:readonly", Target::ReadOnly, &[0]);
    }

    #[test]
    fn reads_fall_back_to_the_primary_and_come_home() {
        check("primary -standby standby", Target::PreferStandby, &[2]);
        check("primary -standby -standby", Target::PreferStandby, &[0]);
        check("primary standby:full", Target::PreferStandby, &[0]);
        check("primary -standby", Target::Standby, &[]);
        check("? -standby", Target::PreferStandby, &[0]);
    }

    #[test]
    fn a_node_that_is_going_down_comes_last_of_its_kind() {
        check("primary standby:failing standby", Target::PreferStandby, &[2]);
        check("primary standby:failing", Target::PreferStandby, &[1]);
        check("primary standby:failing standby:backup", Target::Standby, &[2]);
        check("primary standby:failing:backup standby:failing", Target::Standby, &[2]);
        check("primary standby:failing standby:lag", Target::PreferStandby, &[1]);
        check("primary:failing standby:failing", Target::Any, &[0, 1]);
        check("primary:failing", Target::Primary, &[0]);
    }

    #[test]
    fn a_node_on_probation_waits_until_no_other_is_left() {
        check("primary standby:held standby", Target::PreferStandby, &[2]);
        check("primary standby:held", Target::PreferStandby, &[0]);
        check("primary standby:held standby:lag", Target::PreferStandby, &[0]);
        check("primary standby:held standby:lag", Target::Standby, &[2]);
        check("primary:held standby:held", Target::PreferStandby, &[1]);
        check("primary:held standby", Target::Primary, &[0]);
        check("primary:held standby", Target::Any, &[1]);
        check("primary:full standby:held standby:held:backup", Target::PreferStandby, &[1]);
        check("standby:held standby:failing", Target::Standby, &[1]);
        check("primary -standby:held", Target::Standby, &[]);
    }

    #[test]
    fn nobody_writes_to_a_node_whose_role_is_unknown() {
        check("? ?", Target::Primary, &[]);
        check("? ?", Target::ReadWrite, &[]);
    }

    #[test]
    fn an_old_primary_is_not_even_read_from() {
        for target in [Target::Any, Target::PreferStandby, Target::ReadWrite] {
            check("primary:superseded primary", target, &[1]);
            check("primary:superseded primary:full", target, &[]);
            check("primary:superseded -primary", target, &[]);
        }
        check("primary:superseded primary ?", Target::Any, &[1, 2]);
        check("primary:superseded:readonly primary", Target::ReadOnly, &[]);
        check("primary:superseded primary standby", Target::PreferStandby, &[2]);
    }

    #[test]
    fn a_standby_that_is_not_to_be_read_from_waits_until_it_is_promoted() {
        for target in [Target::Any, Target::PreferStandby, Target::Standby, Target::ReadOnly] {
            check("standby:noloadbalance standby", target, &[1]);
            check("standby:noloadbalance -primary", target, &[]);
        }
        check("?:noloadbalance primary", Target::Any, &[1]);
        check("primary:noloadbalance standby", Target::Primary, &[0]);
        check("primary:noloadbalance -standby", Target::PreferStandby, &[0]);
    }

    #[test]
    fn a_second_primary_is_written_to_by_nobody() {
        check("primary primary", Target::Primary, &[0]);
        check("primary primary", Target::Any, &[0, 1]);
    }

    #[test]
    fn a_node_in_drain_or_maint_fits_nobody() {
        check("primary standby:drain standby:lag", Target::Standby, &[2]);
        check("primary standby:drain standby:maint", Target::PreferStandby, &[0]);
        check("primary:drain standby", Target::Primary, &[]);
        check("primary:drain standby", Target::Any, &[1]);
        check("primary:maint standby:drain", Target::Any, &[]);
        check("primary:ready standby", Target::Primary, &[0]);
    }

    #[test]
    fn backups_and_laggards_wait_for_their_turn() {
        check("standby standby:backup primary", Target::PreferStandby, &[0]);
        check("-standby standby:backup primary", Target::PreferStandby, &[1]);
        check("standby standby:lag primary", Target::PreferStandby, &[0]);
        check("standby:lag primary", Target::PreferStandby, &[1]);
        check("standby:lag -primary", Target::PreferStandby, &[0]);
        check("standby:lag", Target::Standby, &[0]);
        check("standby:zero standby", Target::Standby, &[1]);
    }
}
