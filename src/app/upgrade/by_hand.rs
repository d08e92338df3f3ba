//! What people have set by hand, and no file says: it goes over, and back for who still waits with the old process.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::session::shared::Shared;
use crate::topology::order::{AdminState, By, Order, Weigh};

/// Which listeners are paused, and how nodes are to be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ByHand {
    listeners: Vec<ListenerByHand>,
    nodes: Vec<NodeByHand>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ListenerByHand {
    name: String,
    is_paused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NodeByHand {
    name: String,
    admin: String,
    /// `None`: that of the file.
    weight: Option<u16>,
}

impl ByHand {
    /// As it is now.
    pub(super) fn of(shared: &Shared) -> Self {
        let setup = shared.setup();
        let listeners = setup.listeners.iter().map(|listener| ListenerByHand {
            name: listener.config.name.clone(),
            is_paused: listener.is_paused(),
        });
        let mut nodes = Vec::new();
        for watched in &setup.clusters {
            let topology = Arc::clone(&watched.current.borrow());
            nodes.extend(topology.nodes.iter().map(|node| NodeByHand {
                name: node.config.name.clone(),
                admin: node.admin.as_str().to_owned(),
                weight: (node.weight != node.config.weight).then_some(node.weight),
            }));
        }
        Self { listeners: listeners.collect(), nodes }
    }

    /// Lets it be so here, for what is here. Not cancel safe.
    pub(super) async fn apply(&self, shared: &Shared) {
        let (setup, here) = (shared.setup(), Self::of(shared));
        for ListenerByHand { name, is_paused } in &self.listeners {
            if let Some(listener) = setup.listener(name) {
                listener.set_paused(*is_paused);
            }
        }
        for node in self.nodes.iter().filter(|node| !here.nodes.contains(node)) {
            let order = Order {
                admin: AdminState::from_word(&node.admin),
                weight: Some(node.weight.map_or(Weigh::AsWritten, Weigh::By)),
                by: By { way: "upgrade", client: "the other process".to_owned() },
            };
            for watched in &setup.clusters {
                // Who has no such node says so, and there may be none any more.
                let _ = watched.order(&node.name, order.clone()).await;
            }
        }
    }
}
