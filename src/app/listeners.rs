//! Listeners, as configurations come and go.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::balance::pick::Picker;
use crate::config::{self, Cluster, Config};
use crate::net::options::Options;
use crate::session::queue::Queue;
use crate::session::setup::Setup;
use crate::session::shared::{Listener, Shared};
use crate::topology::keeper::Watched;

/// Socket options of sessions to this cluster, on both sides.
pub(super) fn options(cluster: &Cluster) -> Options {
    let sessions = &cluster.sessions;
    Options {
        keepalive: sessions.keepalive.map(|keepalive| (keepalive.idle, keepalive.interval, keepalive.count)),
        user_timeout: sessions.tcp_user_timeout,
    }
}

/// The cluster a listener of this configuration is on.
pub(super) fn cluster_of<'a>(config: &'a Config, listener: &config::Listener) -> &'a Arc<Cluster> {
    let cluster = config.clusters.get(listener.cluster);
    cluster.unwrap_or_else(|| unreachable!("a checked listener names a cluster that exists"))
}

/// The listener as the current setup has it, if nothing of it is different; else a new version, which goes on counting where
/// that one of this name stands.
pub(super) fn version(
    shared: &Shared,
    old: &Setup,
    (config, listener): (&Config, &Arc<config::Listener>),
    watched: &Watched,
    addr: SocketAddr,
) -> Arc<Listener> {
    let (before, cluster) = (old.listener(&listener.name), cluster_of(config, listener));
    if let Some(before) = before
        && before.addr == addr
        && before.watched.index == watched.index
        && before.cluster == *cluster
        && *before.config == (config::Listener { cluster: before.config.cluster, ..(**listener).clone() })
    {
        return Arc::clone(before);
    }
    let index = shared.metrics.add_listener(&listener.name, watched.index);
    let nodes = watched.current.borrow().nodes.len();
    Arc::new(Listener {
        index,
        metrics: shared.metrics.listener(index),
        config: Arc::clone(listener),
        options: options(cluster),
        cluster: Arc::clone(cluster),
        watched: watched.clone(),
        addr,
        picker: Mutex::new(Picker::new(listener.balance, nodes, fastrand::u64(..))),
        sessions: before.map_or_else(|| Arc::new(AtomicU32::new(0)), |before| Arc::clone(&before.sessions)),
        queue: before.map_or_else(Arc::<Queue>::default, |before| Arc::clone(&before.queue)),
        pause: before.map_or_else(|| watch::Sender::new(false), |before| before.pause.clone()),
        is_outdated: CancellationToken::new(),
    })
}
