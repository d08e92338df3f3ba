//! Which node is the cluster's primary, when several say that they are one, and what is done while one is awaited.
//!
//! What a server says of itself cannot settle it: an old primary that comes back after a failover still says what it
//! said before. What has been seen can:
//!
//! - The primary keeps its place as long as it lives, and nobody takes it by turning up.
//! - When it is gone, one whose promotion was seen comes first, then the one that has been a primary longest.
//! - A promotion that is seen takes effect before the old primary is *down*: as soon as a check of it fails. If a check
//!   of it has passed since, both live, and somebody has promoted a copy: then nothing changes.
//! - A primary that comes back beside another one, or that had to give its place away, is *superseded*: what it holds
//!   ends where the other one's promotion begins. It gets no session until it has been seen as a standby.

use std::cmp::Reverse;

use tracing::warn;

use crate::base::id::NodeId;
use crate::base::role::Role;
use crate::config::CheckKind;
use crate::topology::check::Outcome;
use crate::topology::keeper::Keeper;
use crate::topology::keeper::record::Record;
use crate::topology::{Node, RoleSource};

impl Keeper {
    /// Settles it anew, after each piece of news.
    pub(super) fn settle_primary(&mut self) {
        let before = self.primary.filter(|id| self.places.get(*id).is_some_and(Record::is_living_primary));
        if let Some(primary) = before {
            let others = self.places.records_mut().filter(|record| record.node.id != primary);
            others.filter(|record| record.has_come_back()).for_each(Record::supersede);
        }
        let after = match before {
            Some(primary) => self.heir(primary).or(before),
            None => self.successor(),
        };
        if after != before
            && let Some(old) = before.and_then(|id| self.places.get_mut(id))
        {
            old.supersede();
        }
        if let Some(id) = after.filter(|id| Some(*id) != self.last_primary) {
            self.announce(id, self.last_primary);
            self.last_primary = after;
        }
        self.primary = after;
        self.look_for_primary();
    }

    /// Who takes the place of a primary that lives, but fails its checks.
    fn heir(&self, primary: NodeId) -> Option<NodeId> {
        let old =
            self.places.get(primary).filter(|record| record.fails_checks() && !record.has_written_role())?;
        let promoted = self.candidates().filter(|record| {
            record.node.id != old.node.id && record.node.is_sound() && 0 < record.node.config.weight
        });
        promoted
            .filter(|record| record.promoted.is_some())
            .max_by_key(|record| record.promoted)
            .map(Record::id)
    }

    /// Who is the primary when there is none. One of weight 0 is better than none, as it need not be awaited.
    fn successor(&self) -> Option<NodeId> {
        let rank = |record: &&Record| {
            (record.node.config.weight == 0, Reverse(record.promoted), record.primary_since)
        };
        self.candidates().min_by_key(rank).map(Record::id)
    }

    fn candidates(&self) -> impl Iterator<Item = &Record> {
        self.places.records().filter(|record| record.is_living_primary() && !record.node.is_superseded)
    }

    fn announce(&self, id: NodeId, before: Option<NodeId>) {
        let name = |id: NodeId| self.places.get(id).map(|record| record.node.config.name.as_str());
        if let Some(before) = before {
            warn!(node = name(id), before = name(before), "primary_changed");
        }
    }

    /// The primary has passed a check: who was promoted beside it is no heir.
    pub(super) fn confirm_primary(&mut self, id: NodeId) {
        if self.primary == Some(id) {
            self.places.records_mut().for_each(|record| record.promoted = None);
        }
    }

    /// Looks at every node that may be promoted, in the moment when the primary begins to fail.
    fn look_for_primary(&mut self) {
        let primary = self.primary.and_then(|id| self.places.get(id));
        // There was one: a cluster of standbys alone awaits nothing.
        let is_awaited = self.last_primary.is_some() && !primary.is_some_and(|record| record.node.is_sound());
        if is_awaited && !self.is_primary_awaited {
            let may_be_promoted = self.places.records().filter(|record| self.may_be_promoted(&record.node));
            may_be_promoted.for_each(|record| record.hurry.notify_one());
        }
        self.is_primary_awaited = is_awaited;
    }

    /// Whether a promotion of this node is what sessions may be waiting for now.
    pub(super) fn is_awaited(&self, node: &Node) -> bool {
        self.is_primary_awaited && self.may_be_promoted(node)
    }

    /// Whether a check might find that it has been promoted. A role that is written in the file stays what it is.
    fn may_be_promoted(&self, node: &Node) -> bool {
        self.cluster.check.kind == CheckKind::Login
            && node.is_up()
            && node.role() != Some(Role::Primary)
            && node.role.is_none_or(|role| role.from != RoleSource::File)
    }
}

impl Record {
    fn id(&self) -> NodeId {
        self.node.id
    }

    fn is_living_primary(&self) -> bool {
        self.node.is_up() && self.node.role() == Some(Role::Primary)
    }

    fn has_written_role(&self) -> bool {
        self.node.role.is_some_and(|role| role.from == RoleSource::File)
    }

    /// Whether it is an old primary, as far as its checks can tell. A role that was learnt from a client's login may be
    /// that of whatever is behind a pooler.
    fn has_come_back(&self) -> bool {
        self.is_living_primary()
            && self.was_down
            && self.node.role.is_some_and(|role| role.from == RoleSource::Check)
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
