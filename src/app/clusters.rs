//! Clusters under watch, as configurations come and go.

use std::sync::Arc;

use super::running::Ground;
use crate::config::{self, Config};
use crate::session::setup::Setup;
use crate::session::shared::Shared;
use crate::topology::keeper::{self, Watched};

/// Those of `config`: what the old setup has under the same name goes on, by the new settings. Cancel safe, but what is done
/// stays done.
pub(super) async fn of(ground: &Ground, shared: &Shared, old: &Setup, config: &Config) -> Vec<Watched> {
    let mut all = Vec::new();
    for cluster in &config.clusters {
        all.push(watch(ground, shared, old, config, cluster).await);
    }
    all
}

async fn watch(
    ground: &Ground,
    shared: &Shared,
    old: &Setup,
    config: &Config,
    cluster: &Arc<config::Cluster>,
) -> Watched {
    let mut known = old.config.clusters.iter().zip(&old.clusters);
    if let Some((before, watched)) = known.find(|(before, _)| before.name == cluster.name) {
        let is_same = before == cluster && old.config.dns == config.dns;
        if is_same || watched.reconfigure(Arc::clone(cluster), config.dns).await.is_ok() {
            return watched.clone();
        }
    }
    let names: Vec<String> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let number = shared.metrics.add_cluster(&names);
    keeper::start(cluster, number, config.dns, &shared.metrics, &ground.tasks, &ground.end)
}

/// Has the nodes depart of clusters that the new setup does not have. They are watched until the last session on them has
/// ended.
pub(super) async fn leave(old: &Setup, new: &Setup) {
    let is_gone = |watched: &&Watched| new.clusters.iter().all(|other| other.index != watched.index);
    for watched in old.clusters.iter().filter(is_gone) {
        // Who has ended already needs no word.
        let _ = watched.depart().await;
    }
}
