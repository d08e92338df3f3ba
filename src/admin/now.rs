//! The state of all clusters as figures, at the moment of a scrape.

use std::sync::Arc;
use std::time::Duration;

use crate::base::role::{Role, Target};
use crate::session::shared::{Listener, Shared};
use crate::telemetry::now::{ClusterNow, ListenerNow, NodeNow, Now};
use crate::topology::choose::fitting;
use crate::topology::{Node, Topology};

/// The figures that are read, not counted.
#[must_use]
pub fn now(shared: &Shared) -> Now {
    let clusters = (0..shared.config.clusters.len()).map(|cluster| {
        let topology = topology_of(shared, cluster);
        topology.map_or_else(ClusterNow::default, |topology| cluster_now(&topology))
    });
    Now { clusters: clusters.collect(), listeners: shared.listeners.iter().map(listener_now).collect() }
}

/// Whether a new session of this listener would find a node.
#[must_use]
pub fn is_ready(listener: &Listener) -> bool {
    !fitting(&listener.watched.current.borrow(), listener.config.target, |_| true).is_empty()
}

/// The current state of a cluster; `None` when no listener leads there.
#[must_use]
pub fn topology_of(shared: &Shared, cluster: usize) -> Option<Arc<Topology>> {
    let listener = shared.listeners.iter().find(|listener| listener.config.cluster == cluster)?;
    Some(Arc::clone(&listener.watched.current.borrow()))
}

fn cluster_now(topology: &Topology) -> ClusterNow {
    let alive =
        |role| topology.nodes.iter().filter(move |node| node.is_up() && node.role() == Some(role)).count();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    ClusterNow {
        primaries: count(alive(Role::Primary)),
        standbys_up: count(alive(Role::Standby)),
        nodes: topology.nodes.iter().map(node_now).collect(),
    }
}

fn node_now(node: &Node) -> NodeNow {
    NodeNow {
        up: node.is_up(),
        state: node.state(),
        role: node.role(),
        lag_seconds: node.lag.time.map(|time| time.as_secs_f64()),
        lag_bytes: node.lag.bytes,
        weight: node.config.weight,
        sessions: u64::from(node.load.sessions()),
    }
}

fn listener_now(listener: &Listener) -> ListenerNow {
    let topology = listener.watched.current.borrow().clone();
    let nodes = fitting(&topology, listener.config.target, |_| true);
    let on_primary = nodes.first().is_some_and(|node| node.role() == Some(Role::Primary));
    ListenerNow {
        oldest_wait: listener.waiting().1.map_or(Duration::ZERO, |since| since.elapsed()),
        reads_on_primary: (listener.config.target == Target::PreferStandby).then_some(on_primary),
        ready: !nodes.is_empty(),
    }
}
