//! The state of all clusters as figures, at the moment of a scrape.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::base::role::{Role, Target};
use crate::front::shared::Front;
use crate::front::upstream::Member;
use crate::session::shared::{Listener, Shared};
use crate::telemetry::now::{ClusterNow, FrontNow, ListenerNow, NodeNow, Now, UpstreamNow};
use crate::topology::choose::fitting;
use crate::topology::{Node, Topology};

/// The figures that are read, not counted.
#[must_use]
pub fn now(shared: &Shared, fronts: &[Arc<Front>]) -> Now {
    let setup = shared.setup();
    let clusters = setup.config.clusters.iter().zip(&setup.clusters);
    let clusters =
        clusters.map(|(config, watched)| cluster_now(&config.name, watched.index, &watched.current.borrow()));
    Now {
        clusters: clusters.collect(),
        listeners: setup.listeners.iter().map(|listener| listener_now(listener)).collect(),
        fronts: fronts.iter().map(|front| front_now(front)).collect(),
    }
}

fn front_now(front: &Front) -> FrontNow {
    let upstreams = front.groups.iter().flat_map(|group| {
        let standing = group.standing();
        let name = &group.config.name;
        standing.members.iter().map(|member| upstream_now(name, member)).collect::<Vec<_>>()
    });
    FrontNow {
        name: front.config.name.clone(),
        ready: front.troubles().is_empty(),
        cache_bytes: front.cache.as_ref().map(|cache| cache.bytes()),
        upstreams: upstreams.collect(),
    }
}

fn upstream_now(group: &str, member: &Member) -> UpstreamNow {
    let instance = &member.instance;
    UpstreamNow {
        group: group.to_owned(),
        upstream: instance.config.addr.to_string(),
        addr: instance.addr.to_string(),
        up: member.takes_new(),
        active: instance.load.sessions(),
        requests: instance.requests.load(Ordering::Relaxed),
    }
}

fn cluster_now(name: &str, number: usize, topology: &Topology) -> ClusterNow {
    let standbys = topology.nodes.iter().filter(|node| node.is_up() && node.role() == Some(Role::Standby));
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    ClusterNow {
        number,
        name: name.to_owned(),
        primaries: count(topology.living_primaries().count()),
        standbys_up: count(standbys.count()),
        nodes: topology.nodes.iter().map(node_now).collect(),
        departed: topology
            .departed
            .iter()
            .map(|departed| (departed.id.place, u64::from(departed.load.sessions())))
            .collect(),
    }
}

fn node_now(node: &Node) -> NodeNow {
    NodeNow {
        place: node.id.place,
        up: node.is_up(),
        state: node.state(),
        role: node.role(),
        superseded: node.is_superseded,
        held_back: node.held_back().is_some(),
        lag_seconds: node.lag.time.map(|time| time.as_secs_f64()),
        lag_bytes: node.lag.bytes,
        weight: node.weight,
        sessions: u64::from(node.load.sessions()),
    }
}

fn listener_now(listener: &Listener) -> ListenerNow {
    let topology = listener.watched.current.borrow().clone();
    let nodes = fitting(&topology, listener.config.target, |_| true);
    let on_primary = nodes.first().is_some_and(|node| node.role() == Some(Role::Primary));
    ListenerNow {
        name: listener.config.name.clone(),
        limit: listener.config.max_connections.get(),
        oldest_wait: listener.waiting().1.map_or(Duration::ZERO, |since| since.elapsed()),
        reads_on_primary: (listener.config.target == Target::PreferStandby).then_some(on_primary),
        ready: !nodes.is_empty(),
        paused: listener.is_paused(),
    }
}
