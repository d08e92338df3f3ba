//! Which of two primaries is the cluster's, and what is done while one is awaited.

use crate::base::role::Role;
use crate::topology::choose::incumbent;
use crate::topology::{Node, RoleSource, Topology};

use super::Keeper;

impl Keeper {
    /// Gives the place of a primary that fails to one whose promotion was seen: somebody promoted it because the old one
    /// is gone, and what waits for a primary must not wait until that is certain. The old one does not get its place back
    /// by coming back.
    pub(super) fn hand_over(&mut self) {
        let topology = self.places.topology();
        let Some(old) = incumbent(&topology).filter(|node| node.is_going_down()).map(|node| node.id) else {
            return;
        };
        let is_heir = |node: &Node| is_sound_primary(node) && node.id != old;
        if self.places.records().any(|record| record.was_promoted && is_heir(&record.node))
            && let Some(record) = self.places.get_mut(old)
        {
            record.yield_primacy();
        }
    }

    /// Looks at every node that may be promoted, in the moment when the primary begins to fail.
    pub(super) fn look_for_primary(&mut self, topology: &Topology) {
        let is_awaited = is_primary_awaited(topology);
        if is_awaited && !self.is_primary_awaited {
            let candidates = self.places.records().filter(|record| may_be_promoted(&record.node));
            candidates.for_each(|record| record.hurry.notify_one());
        }
        self.is_primary_awaited = is_awaited;
    }

    /// Whether a promotion of this node is what sessions may be waiting for now.
    pub(super) fn is_awaited(&self, node: &Node) -> bool {
        self.is_primary_awaited && may_be_promoted(node)
    }
}

/// There was a primary, and now there is none that can be relied on. A cluster of standbys alone awaits nothing.
fn is_primary_awaited(topology: &Topology) -> bool {
    topology.nodes.iter().any(|node| node.role() == Some(Role::Primary))
        && !topology.nodes.iter().any(is_sound_primary)
}

fn is_sound_primary(node: &Node) -> bool {
    node.is_up() && !node.is_going_down() && node.role() == Some(Role::Primary)
}

/// A role that the file says stays what it is.
fn may_be_promoted(node: &Node) -> bool {
    node.is_up()
        && node.role() != Some(Role::Primary)
        && node.role.is_none_or(|role| role.from != RoleSource::File)
}
