//! Clusters under watch, as configurations come and go.

use std::sync::Arc;

use super::running::Ground;
use crate::config::{self, Config};
use crate::session::setup::Setup;
use crate::session::shared::Shared;
use crate::topology::Node;
use crate::topology::keeper::{self, Watched};
use crate::topology::order::{AdminState, By, Order};

/// Those of `config`: what the old setup has under the same name goes on.
pub(super) fn of(ground: &Ground, shared: &Shared, old: &Setup, config: &Config) -> Vec<Watched> {
    let watched = |cluster: &Arc<config::Cluster>| match known(old, cluster) {
        Some((before, watched)) if before == cluster => watched.clone(),
        _ => start(ground, shared, cluster, config),
    };
    config.clusters.iter().map(watched).collect()
}

fn start(ground: &Ground, shared: &Shared, cluster: &Arc<config::Cluster>, config: &Config) -> Watched {
    let names: Vec<String> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let number = shared.metrics.add_cluster(&names);
    keeper::start(cluster, number, config.dns, &shared.metrics, &ground.tasks, &ground.end)
}

/// Has the sessions leave that are on nodes of a cluster that is gone. It is watched until the last of them has.
pub(super) fn leave(ground: &Ground, old: &Setup, new: &Setup) {
    let is_gone = |watched: &&Watched| new.clusters.iter().all(|other| other.index != watched.index);
    for watched in old.clusters.iter().filter(is_gone) {
        let (gone, watched) = (gone(watched, &new.config), watched.clone());
        let leave = async move {
            for node in gone {
                let by = By { way: "reload", client: String::new() };
                let order = Order { admin: Some(AdminState::Drain), weight: None, by };
                // One that nobody knows any more needs no order.
                let _ = watched.order(&node, order).await;
            }
        };
        ground.tasks.spawn(ground.end.clone().run_until_cancelled_owned(leave));
    }
}

fn known<'s>(old: &'s Setup, cluster: &config::Cluster) -> Option<(&'s Arc<config::Cluster>, &'s Watched)> {
    old.config.clusters.iter().zip(&old.clusters).find(|(before, _)| before.name == cluster.name)
}

/// The nodes of a cluster that are none of this configuration's.
fn gone(watched: &Watched, config: &Config) -> Vec<String> {
    let stays = |node: &Node| {
        let mut nodes = config.clusters.iter().flat_map(|cluster| &cluster.nodes);
        nodes.any(|other| other.name == node.config.name && other.addr == node.config.addr)
    };
    let topology = watched.current.borrow();
    topology.nodes.iter().filter(|node| !stays(node)).map(|node| node.config.name.clone()).collect()
}
