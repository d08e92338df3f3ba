//! Which node is the cluster's primary, when several say that they are one, and what is done while one is awaited.
//!
//! What a server says of itself cannot settle it: an old primary that comes back after a failover still says what it
//! said before. The timeline can, which is a number higher after each promotion:
//!
//! - Of two servers of one origin the one on the later timeline is the primary, at once and however well the other one is:
//!   what is written there from now on ends where the promotion began.
//!
//! Where it cannot be read, what has been seen has to do:
//!
//! - The primary keeps its place as long as it lives, and nobody takes it by turning up.
//! - A promotion that was seen takes effect before the old primary is *down*: as soon as a check of it fails, or shows that
//!   it has been away meanwhile. If a check of it has passed since, both live: then nothing changes.
//! - When there is none, one whose promotion was seen comes first, then the one that has been a primary longest.
//!
//! A primary in drain keeps its place, too, but gives it to any other one that turns up, for it gets no sessions. One in maint
//! is not looked at, so it has no place to keep; what it was is known, and nobody awaits it.
//!
//! Who had to give the place away is *superseded*, and so is a primary that comes back beside another one, unless it is
//! known not to be older. It gets no session until it is a standby, or writes on a timeline that is not an earlier one.

use std::cmp::Reverse;

use tracing::warn;

use crate::base::id::NodeId;
use crate::base::role::Role;
use crate::topology::check::{Lineage, Outcome};
use crate::topology::keeper::Keeper;
use crate::topology::keeper::record::Record;
use crate::topology::{KnownRole, Node, RoleSource};

impl Keeper {
    /// Settles it anew, after each piece of news.
    pub(super) fn settle_primary(&mut self) {
        let before = self.primary.filter(|id| self.places.get(*id).is_some_and(Record::is_living_primary));
        self.look_for_old_primaries(before);
        let first = before.or_else(|| self.successor());
        let after = first.and_then(|primary| self.heir(primary)).or(first);
        if let Some(id) = after.filter(|_| after != self.last_primary) {
            self.announce(id);
            let lineage = self.places.get(id).and_then(|record| record.lineage);
            let loser = self.last_primary.replace(id).and_then(|loser| self.places.get_mut(loser));
            let loser = loser.filter(|loser| loser.is_checked_primary());
            loser.filter(|loser| is_older(loser.lineage, lineage).unwrap_or(true)).map(Record::supersede);
        }
        self.primary = after;
        self.look_for_primary();
    }

    /// Compares every living primary with the cluster's, or with the one there was.
    fn look_for_old_primaries(&mut self, primary: Option<NodeId>) {
        let Some(known) = primary.or(self.last_primary) else { return };
        let lineage = self.places.get(known).and_then(|record| record.lineage);
        let others = self.places.records_mut().filter(|record| record.node.id != known);
        for other in others.filter(|other| other.node.is_up() && other.is_checked_primary()) {
            match is_older(other.lineage, lineage) {
                Some(true) => other.supersede(),
                Some(false) => other.node.is_superseded = false,
                None if primary.is_some() && other.away.is_some() => other.supersede(),
                None => {}
            }
        }
    }

    /// Who takes the place of a primary that lives.
    fn heir(&self, primary: NodeId) -> Option<NodeId> {
        let old = self.places.get(primary)?;
        let (id, is_drained) = (old.id(), !old.node.is_in_service());
        if old.has_written_role() && !is_drained {
            return None;
        }
        let fit = self
            .candidates()
            .filter(|record| record.id() != id && record.node.is_sound() && record.node.is_of_use());
        let heirs = fit.filter(|record| {
            if is_drained {
                return is_older(record.lineage, old.lineage) != Some(true);
            }
            is_older(old.lineage, record.lineage).unwrap_or_else(|| has_given_way(old, record))
        });
        heirs.max_by_key(|record| (record.timeline(), record.promoted)).map(Record::id)
    }

    /// Who is the primary when there is none. One that gets no sessions is better than none, as it need not be awaited.
    fn successor(&self) -> Option<NodeId> {
        let rank = |record: &&Record| {
            (
                !record.node.is_of_use(),
                Reverse(record.promoted),
                Reverse(record.timeline()),
                record.primary_since,
            )
        };
        self.candidates().min_by_key(rank).map(Record::id)
    }

    fn candidates(&self) -> impl Iterator<Item = &Record> {
        self.places.records().filter(|record| record.is_living_primary() && !record.node.is_superseded)
    }

    fn announce(&self, id: NodeId) {
        let name = |id: NodeId| self.places.get(id).map(|record| record.node.config.name.as_str());
        if let Some(before) = self.last_primary {
            warn!(node = name(id), before = name(before), "primary_changed");
        }
    }

    /// The primary has passed a check: who was promoted beside it is no heir, unless the primary has been away meanwhile.
    pub(super) fn confirm_primary(&mut self, id: NodeId) {
        let Some(primary) = self.places.get(id).filter(|_| self.primary == Some(id)) else { return };
        let away = primary.away;
        for record in self.places.records_mut() {
            if record.id() == id || away < record.standby_seen {
                record.promoted = None;
            }
        }
    }

    /// Looks at every node that may be promoted, in the moment when the primary begins to fail.
    fn look_for_primary(&mut self) {
        let primary = self.primary.and_then(|id| self.places.get(id));
        // There was one: a cluster of standbys alone awaits nothing.
        let last = self.last_primary.and_then(|id| self.places.get(id));
        let may_come = self.last_primary.is_some() && !last.is_some_and(|record| record.node.rests());
        let is_awaited = may_come && !primary.is_some_and(|record| record.node.is_sound());
        if is_awaited && !self.is_primary_awaited {
            let may_be_promoted = self.places.records().filter(|record| self.may_be_promoted(&record.node));
            may_be_promoted.for_each(|record| record.hurry.notify_one());
        }
        self.is_primary_awaited = is_awaited;
    }

    /// Whether this node's promotion, or its return, is what sessions may be waiting for now.
    pub(super) fn is_awaited(&self, node: &Node) -> bool {
        let may_return = !node.is_up() && !node.is_superseded && node.role() != Some(Role::Standby);
        self.is_primary_awaited && (may_return || self.may_be_promoted(node))
    }

    /// Whether a check might find that it has been promoted. A role that is written in the file stays what it is.
    fn may_be_promoted(&self, node: &Node) -> bool {
        self.cluster.check.finds_roles()
            && node.is_up()
            && (node.role() != Some(Role::Primary) || node.is_superseded)
            && node.role.is_none_or(|role| role.from != RoleSource::File)
    }
}

/// Whether a history ends where another one goes on; `None`: not known. Servers that did not begin as one are not.
fn is_older(one: Option<Lineage>, other: Option<Lineage>) -> Option<bool> {
    let (one, other) = one.zip(other)?;
    Some(one.system == other.system && one.timeline < other.timeline)
}

/// Whether the promotion of `heir` was seen, and `old` fails, or has not been there throughout.
fn has_given_way(old: &Record, heir: &Record) -> bool {
    heir.promoted.is_some() && (old.fails_checks() || heir.standby_seen <= old.away)
}

impl Record {
    fn id(&self) -> NodeId {
        self.node.id
    }

    pub(super) fn is_living_primary(&self) -> bool {
        self.node.is_up() && self.node.role() == Some(Role::Primary)
    }

    /// Whether it says that it is a primary, and is not known as an old one.
    pub(super) fn is_fit_as_primary(&self) -> bool {
        self.node.role() == Some(Role::Primary) && !self.node.is_superseded
    }

    fn has_written_role(&self) -> bool {
        self.node.role.is_some_and(|role| role.from == RoleSource::File)
    }

    /// Whether a check has found that it is a primary, when it was last looked at. A role that was learnt from a client's
    /// login may be that of whatever is behind a pooler.
    fn is_checked_primary(&self) -> bool {
        self.node.role == Some(KnownRole { role: Role::Primary, from: RoleSource::Check })
    }

    fn timeline(&self) -> Option<u32> {
        self.lineage.map(|lineage| lineage.timeline)
    }

    /// Whether its last check failed. Failed sessions alone do not cost a primary its place.
    fn fails_checks(&self) -> bool {
        let last = self.node.last_check.as_ref().map(|report| &report.outcome);
        self.node.is_going_down() && matches!(last, Some(Outcome::Failed(_)))
    }

    fn supersede(&mut self) {
        self.promoted = None;
        if !std::mem::replace(&mut self.node.is_superseded, true) {
            warn!(node = self.node.config.name.as_str(), "primary_superseded");
        }
    }
}
