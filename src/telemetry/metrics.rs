//! All figures of one pgsplit.
//!
//! # Invariant
//!
//! Every accepted connection is counted exactly once more, when it is known what became of it:
//!
//! > accepted = rejected + left + cancel requests + ended + active + panicked + opening
//!
//! summed over listeners and nodes. *Rejected* and *left* never reached a node, *ended* and *active* did; a
//! connection that turned out to be a cancel request is neither. *Panicked* stands for a session that broke off
//! before it was counted elsewhere. *Opening* is what is left over: connections between accept and node. It is
//! computed, so that a path which forgets to count shows as a figure that never comes back to 0.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::PrometheusHandle;

use super::catalog;
use super::count::{Count, Counts, as_f64};
use super::front::FrontMetrics;
use super::labels::CancelResult;
use super::listener::ListenerMetrics;
use super::node::NodeMetrics;
use super::now::{FrontNow, Now, UpstreamNow};
use super::pair::PairMetrics;
use super::process;
use super::registry::Registry;
use super::render::Families;
use super::shape::{FrontShape, ListenerShape, Shape};
use crate::base::id::NodeId;

/// How often [`Metrics::run_upkeep`] wants to be called when nobody scrapes.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// All figures of one pgsplit.
pub struct Metrics {
    registry: Registry,
    workers: usize,
    clusters: Vec<Cluster>,
    listeners: Vec<Listener>,
    fronts: Vec<(String, Arc<FrontMetrics>)>,
    cancels: Counts<{ CancelResult::ALL.len() }>,
    panics: Count,
    opening: Gauge,
    log_drops: Counter,
    dropped_lines: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
    /// Takes what is counted for a listener or node that the shape does not have, and is never shown: a wrong
    /// index must not end a session.
    nowhere: Nowhere,
    exporter: PrometheusHandle,
}

struct Cluster {
    primaries: Gauge,
    replicas_up: Gauge,
    nodes: Shelf<NodeMetrics>,
}

struct Listener {
    name: String,
    cluster: usize,
    metrics: ListenerMetrics,
    pairs: Shelf<PairMetrics>,
}

/// What all listeners have done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections turned away.
    pub rejected: u64,
    /// Bytes passed on to nodes.
    pub to_node_bytes: u64,
    /// Bytes passed on to clients.
    pub to_client_bytes: u64,
}

/// Figures by place. Some are added while others count; none is ever taken away.
struct Shelf<T>(RwLock<Vec<Arc<T>>>);

struct Nowhere {
    listener: ListenerMetrics,
    node: Arc<NodeMetrics>,
    pair: Arc<PairMetrics>,
    front: Arc<FrontMetrics>,
}

/// A figure of one address of an upstream.
type Figure = fn(&UpstreamNow) -> f64;

impl Metrics {
    /// Registers every series on a recorder of its own; all start at 0.
    #[must_use]
    pub fn new(shape: &Shape) -> Self {
        let (registry, exporter) = Registry::new();
        registry.gauge(&catalog::BUILD_INFO, &[shape.version]).set(1.0);
        let clusters = shape.clusters.iter().map(|cluster| Cluster {
            primaries: registry.gauge(&catalog::PRIMARIES, &[&cluster.name]),
            replicas_up: registry.gauge(&catalog::REPLICAS_UP, &[&cluster.name]),
            nodes: cluster.nodes.iter().map(|name| NodeMetrics::new(&registry, name)).collect(),
        });
        let listeners = shape.listeners.iter().map(|listener| {
            let nodes =
                shape.clusters.get(listener.cluster).map_or(&[][..], |cluster| cluster.nodes.as_slice());
            Listener {
                name: listener.name.clone(),
                cluster: listener.cluster,
                metrics: ListenerMetrics::new(&registry, listener),
                pairs: nodes
                    .iter()
                    .map(|node| PairMetrics::new(&registry, &listener.name, node, shape.workers))
                    .collect(),
            }
        });
        Self {
            clusters: clusters.collect(),
            listeners: listeners.collect(),
            fronts: shape
                .fronts
                .iter()
                .map(|front| (front.name.clone(), Arc::new(FrontMetrics::new(&registry, front))))
                .collect(),
            cancels: Counts::new(
                CancelResult::ALL.map(|result| registry.counter(&catalog::CANCELS, &[result.as_str()])),
            ),
            panics: Count::new(registry.counter(&catalog::PANICS, &[])),
            opening: registry.gauge(&catalog::OPENING, &[]),
            log_drops: registry.counter(&catalog::LOG_DROPS, &[]),
            dropped_lines: OnceLock::new(),
            nowhere: Nowhere::new(),
            exporter,
            registry,
            workers: shape.workers,
        }
    }

    /// The figures of the listener at this place of the shape.
    #[must_use]
    pub fn listener(&self, listener: usize) -> &ListenerMetrics {
        self.listeners.get(listener).map_or(&self.nowhere.listener, |listener| &listener.metrics)
    }

    /// One more node of the cluster at this place of the shape, in the place after its last. Its series exist from
    /// now on, all at 0. Call it before any session can reach the node.
    pub fn add_node(&self, cluster: usize, name: &str) {
        // First the listeners: who finds the node finds its sessions' figures as well.
        for listener in self.listeners.iter().filter(|listener| listener.cluster == cluster) {
            listener.pairs.add(PairMetrics::new(&self.registry, &listener.name, name, self.workers));
        }
        if let Some(cluster) = self.clusters.get(cluster) {
            cluster.nodes.add(NodeMetrics::new(&self.registry, name));
        }
    }

    /// The figures of a node of the cluster at this place of the shape. Those who count often keep them.
    #[must_use]
    pub fn node(&self, cluster: usize, node: NodeId) -> Arc<NodeMetrics> {
        let found = self.clusters.get(cluster).and_then(|cluster| cluster.nodes.get(node.place));
        found.unwrap_or_else(|| Arc::clone(&self.nowhere.node))
    }

    /// The figures of a listener's sessions on a node of its cluster. A session keeps them.
    #[must_use]
    pub fn pair(&self, listener: usize, node: NodeId) -> Arc<PairMetrics> {
        let found = self.listeners.get(listener).and_then(|listener| listener.pairs.get(node.place));
        found.unwrap_or_else(|| Arc::clone(&self.nowhere.pair))
    }

    /// Bytes that sessions of all listeners have passed on from the node to their clients.
    #[must_use]
    pub fn bytes_from(&self, cluster: usize, node: NodeId) -> u64 {
        let listeners = self.listeners.iter().filter(|listener| listener.cluster == cluster);
        listeners.filter_map(|listener| listener.pairs.get(node.place)).map(|pair| pair.bytes().1).sum()
    }

    /// Sessions that have reached the node so far, of all listeners.
    #[must_use]
    pub fn sessions_of(&self, cluster: usize, node: NodeId) -> u64 {
        let listeners = self.listeners.iter().filter(|listener| listener.cluster == cluster);
        let pairs = listeners.filter_map(|listener| listener.pairs.get(node.place));
        pairs.map(|pair| pair.ended() + pair.active()).sum()
    }

    /// What all listeners have done so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for listener in &self.listeners {
            totals.accepted += listener.metrics.accepted();
            totals.rejected += listener.metrics.rejected();
            for (to_node, to_client) in listener.pairs.all().iter().map(|pair| pair.bytes()) {
                totals.to_node_bytes += to_node;
                totals.to_client_bytes += to_client;
            }
        }
        totals
    }

    /// Forgets the connect times of the minute before the last one. Call it every
    /// [`TURN_INTERVAL`](super::recent::TURN_INTERVAL).
    pub fn turn(&self) {
        self.clusters.iter().flat_map(|cluster| cluster.nodes.all()).for_each(|node| node.turn());
    }

    /// The figures of the HTTP front at this place of the shape.
    #[must_use]
    pub fn front(&self, front: usize) -> &Arc<FrontMetrics> {
        self.fronts.get(front).map_or(&self.nowhere.front, |(_, metrics)| metrics)
    }

    /// A connection was a cancel request, and this became of it.
    pub fn cancel(&self, result: CancelResult) {
        self.cancels.one(result.index());
    }

    /// A session panicked before it was counted as ended.
    pub fn panicked(&self) {
        self.panics.one();
    }

    /// Where to ask how many log lines were lost. Only the first call counts.
    pub fn set_log_drops(&self, dropped_lines: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.dropped_lines.set(Box::new(dropped_lines));
    }

    /// Connections between accept and node.
    #[must_use]
    pub fn opening(&self) -> u64 {
        // Read in the order of a session's life, backwards: one that moves on meanwhile is then missing from
        // both places rather than in both, and shows as opening for one scrape.
        let accounted = self.cancels.total()
            + self.panics.value()
            + self.listeners.iter().map(Listener::accounted).sum::<u64>();
        let accepted: u64 = self.listeners.iter().map(|listener| listener.metrics.accepted()).sum();
        accepted.saturating_sub(accounted)
    }

    /// Prometheus text of every figure, with the states handed in.
    #[must_use]
    pub fn render(&self, now: &Now) -> String {
        self.publish();
        self.show(now);
        self.families(now).merge(&self.exporter.render())
    }

    /// Moves the samples of histograms out of their buffers, which a scrape does too. Without either they pile up:
    /// call this every [`UPKEEP_INTERVAL`].
    pub fn run_upkeep(&self) {
        self.exporter.run_upkeep();
    }

    fn publish(&self) {
        for listener in &self.listeners {
            listener.metrics.publish();
            listener.pairs.all().iter().for_each(|pair| pair.publish());
        }
        for node in self.clusters.iter().flat_map(|cluster| cluster.nodes.all()) {
            node.publish();
        }
        self.fronts.iter().for_each(|(_, front)| front.publish());
        self.cancels.publish();
        self.panics.publish();
        self.opening.set(as_f64(self.opening()));
        if let Some(dropped_lines) = self.dropped_lines.get() {
            self.log_drops.absolute(dropped_lines());
        }
    }

    fn show(&self, now: &Now) {
        for (cluster, now) in self.clusters.iter().zip(&now.clusters) {
            cluster.primaries.set(as_f64(now.primaries));
            cluster.replicas_up.set(as_f64(now.standbys_up));
        }
        for (listener, now) in self.listeners.iter().zip(&now.listeners) {
            listener.metrics.show(now);
        }
    }

    fn families(&self, now: &Now) -> Families {
        let mut families = Families::default();
        for (what, figure) in process::figures() {
            families.add(what, [(vec![], figure)]);
        }
        nodes::add(self.clusters.iter().map(|cluster| cluster.nodes.all()), &now.clusters, &mut families);
        let listeners = self.listeners.iter().zip(&now.listeners);
        families.add(
            &catalog::READS_ON_PRIMARY,
            listeners.map(|(listener, now)| {
                (vec![listener.name.as_str()], now.reads_on_primary.map(|yes| f64::from(u8::from(yes))))
            }),
        );
        self.http_families(now, &mut families);
        families
    }

    fn http_families(&self, now: &Now, families: &mut Families) {
        let fronts = || self.fronts.iter().map(|(name, _)| name.as_str()).zip(&now.fronts);
        let bytes = fronts().map(|(name, now)| (vec![name], now.cache_bytes.map(as_f64)));
        families.add(&catalog::HTTP_CACHE_BYTES, bytes);
        let ready = |front: &FrontNow| Some(f64::from(u8::from(front.ready)));
        families.add(&catalog::HTTP_READY, fronts().map(|(name, now)| (vec![name], ready(now))));
        let figures: [(_, Figure); 3] = [
            (&catalog::HTTP_UPSTREAM_UP, |upstream| f64::from(u8::from(upstream.up))),
            (&catalog::HTTP_UPSTREAM_ACTIVE, |upstream| f64::from(upstream.active)),
            (&catalog::HTTP_UPSTREAM_REQUESTS, |upstream| as_f64(upstream.requests)),
        ];
        for (what, figure) in figures {
            let upstreams = fronts().flat_map(|(name, now)| now.upstreams.iter().map(move |u| (name, u)));
            let labels = |(name, u)| {
                let u: &UpstreamNow = u;
                (vec![name, u.group.as_str(), u.upstream.as_str(), u.addr.as_str()], Some(figure(u)))
            };
            families.add(what, upstreams.map(labels));
        }
    }
}

impl Listener {
    /// Connections of which it is known what became of them, cancel requests aside.
    fn accounted(&self) -> u64 {
        let on_nodes: u64 = self.pairs.all().iter().map(|pair| pair.ended() + pair.active()).sum();
        on_nodes + self.metrics.turned_away()
    }
}

impl<T> Shelf<T> {
    fn get(&self, place: usize) -> Option<Arc<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(place).map(Arc::clone)
    }

    fn add(&self, figures: T) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(figures));
    }

    /// Those that are there now. Copied out, so that a scrape keeps nobody from adding.
    fn all(&self) -> Vec<Arc<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<T> FromIterator<T> for Shelf<T> {
    fn from_iter<I: IntoIterator<Item = T>>(figures: I) -> Self {
        Self(RwLock::new(figures.into_iter().map(Arc::new).collect()))
    }
}

impl Nowhere {
    fn new() -> Self {
        let registry = Registry::nowhere();
        let listener = ListenerShape { name: String::new(), cluster: 0, limit: 0 };
        let front = FrontShape { name: String::new(), groups: Vec::new(), methods: Vec::new() };
        Self {
            listener: ListenerMetrics::new(&registry, &listener),
            node: Arc::new(NodeMetrics::new(&registry, "")),
            pair: Arc::new(PairMetrics::new(&registry, "", "", 0)),
            front: Arc::new(FrontMetrics::new(&registry, &front)),
        }
    }
}

mod nodes;
#[cfg(test)]
mod tests;
