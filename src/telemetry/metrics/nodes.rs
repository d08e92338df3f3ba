//! What is shown of nodes as they are at the moment of a scrape. Written by hand, because a node that is no longer
//! there shows no state: 0 would say that it is down.

use std::sync::Arc;

use crate::base::role::Role;
use crate::telemetry::catalog::{self, Described};
use crate::telemetry::count::as_f64;
use crate::telemetry::labels::NodeState;
use crate::telemetry::node::NodeMetrics;
use crate::telemetry::now::{ClusterNow, NodeNow};
use crate::telemetry::render::Families;

const ROLES: [Option<Role>; 3] = [Some(Role::Primary), Some(Role::Standby), None];

/// One name: its figures, its node if there is one, and its sessions.
struct Place {
    metrics: Arc<NodeMetrics>,
    node: Option<NodeNow>,
    sessions: u64,
}

/// Adds the families of all nodes. `clusters` has the figures of each by place, and its state if it is still there.
pub(super) fn add(
    all: &[Arc<NodeMetrics>],
    clusters: &[(Vec<Arc<NodeMetrics>>, Option<&ClusterNow>)],
    families: &mut Families,
) {
    let places: Vec<Place> = all.iter().map(|metrics| place_of(metrics, clusters)).collect();

    let mut of_nodes = |what: &Described, figure: fn(&Place, &NodeNow) -> Option<f64>| {
        let sample = |place| figure_of(place, figure);
        families.add(what, places.iter().map(|place| (vec![place.metrics.name()], sample(place))));
    };
    of_nodes(&catalog::NODE_UP, |_, node| Some(yes(node.up)));
    of_nodes(&catalog::NODE_SUPERSEDED, |_, node| Some(yes(node.superseded)));
    of_nodes(&catalog::NODE_HELD_BACK, |_, node| Some(yes(node.held_back)));
    of_nodes(&catalog::NODE_WEIGHT, |_, node| Some(f64::from(node.weight)));
    of_nodes(&catalog::NODE_LAG_SECONDS, |_, node| node.lag_seconds);
    of_nodes(&catalog::NODE_LAG_BYTES, |_, node| node.lag_bytes.map(as_f64));
    of_nodes(&catalog::NODE_LAST_CHECK, |place, _| Some(place.metrics.last_check_seconds()));

    let states = places.iter().flat_map(|place| {
        let figure = |node: &NodeNow, state| yes(node.state == state);
        NodeState::ALL.into_iter().map(move |state| {
            let figure = place.node.as_ref().map(|node| figure(node, state));
            (vec![place.metrics.name(), state.as_str()], figure)
        })
    });
    families.add(&catalog::NODE_STATE, states);
    let roles = places.iter().flat_map(|place| {
        ROLES.into_iter().map(move |role| {
            let figure = place.node.as_ref().map(|node| yes(node.role == role));
            (vec![place.metrics.name(), role.map_or("unknown", Role::as_str)], figure)
        })
    });
    families.add(&catalog::NODE_ROLE, roles);

    // These are true of a place whether or not somebody has it.
    let always = |figure: fn(&Place) -> f64| {
        places.iter().map(move |place| (vec![place.metrics.name()], Some(figure(place))))
    };
    families.add(&catalog::NODE_SESSIONS, always(|place| as_f64(place.sessions)));
    families.add(&catalog::NODE_DOWN_SECONDS, always(|place| place.metrics.down_seconds()));
}

/// A name may have had places in several clusters, one after the other, and sessions in each.
fn place_of(metrics: &Arc<NodeMetrics>, clusters: &[(Vec<Arc<NodeMetrics>>, Option<&ClusterNow>)]) -> Place {
    let (mut found, mut sessions) = (None, 0);
    for (shelf, now) in clusters.iter().filter_map(|(shelf, now)| Some((shelf, (*now)?))) {
        let own = shelf.iter().enumerate().filter(|(_, other)| Arc::ptr_eq(other, metrics));
        for (place, _) in own {
            let node = now.nodes.iter().find(|node| node.place == place);
            let departed = now.departed.iter().filter(|(had, _)| *had == place).map(|(_, sessions)| sessions);
            sessions += node.map_or(0, |node| node.sessions) + departed.sum::<u64>();
            found = found.or_else(|| node.cloned());
        }
    }
    Place { metrics: Arc::clone(metrics), node: found, sessions }
}

fn figure_of(place: &Place, figure: fn(&Place, &NodeNow) -> Option<f64>) -> Option<f64> {
    figure(place, place.node.as_ref()?)
}

fn yes(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}
