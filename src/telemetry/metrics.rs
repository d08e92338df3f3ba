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
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::PrometheusHandle;

use super::catalog;
use super::count::{Count, Counts, as_f64};
use super::front::{FrontMetrics, Lasting};
use super::labels::{CancelResult, ReloadResult, UpgradeResult};
use super::listener::ListenerMetrics;
use super::node::NodeMetrics;
use super::now::{ClusterNow, FrontNow, ListenerNow, Now, UpstreamNow};
use super::pair::PairMetrics;
use super::process;
use super::registry::Registry;
use super::render::Families;
use super::shape::{FrontShape, Shape};
use crate::base::id::NodeId;

/// How often [`Metrics::run_upkeep`] wants to be called when nobody scrapes.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// All figures of one pgsplit.
pub struct Metrics {
    registry: Registry,
    workers: usize,
    clusters: Shelf<Cluster>,
    listeners: Shelf<Listener>,
    fronts: Shelf<Lasting>,
    /// Those of all clusters, each once.
    nodes: Shelf<NodeMetrics>,
    cancels: Counts<{ CancelResult::ALL.len() }>,
    reloads: Reloads,
    upgrades: Counts<{ UpgradeResult::ALL.len() }>,
    panics: Count,
    opening: Gauge,
    log_drops: Counter,
    dropped_lines: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
    /// Takes what is counted for a listener or node that does not exist, and is never shown: a wrong index must not end a
    /// session.
    nowhere: Nowhere,
    exporter: PrometheusHandle,
}

struct Cluster {
    /// By place.
    nodes: Shelf<NodeMetrics>,
}

struct Listener {
    metrics: Arc<ListenerMetrics>,
    /// Those of all nodes it ever had, each once.
    pairs: Shelf<PairMetrics>,
    /// The clusters it has been on, and the same pairs by place.
    on: RwLock<Vec<(usize, Vec<Arc<PairMetrics>>)>>,
}

/// How loading the configuration again went.
struct Reloads {
    results: Counts<{ ReloadResult::ALL.len() }>,
    is_last_good: Gauge,
    last_good: Gauge,
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
    listener: Arc<ListenerMetrics>,
    node: Arc<NodeMetrics>,
    pair: Arc<PairMetrics>,
}

/// A figure of one address of an upstream.
type Figure = fn(&UpstreamNow) -> f64;

impl Metrics {
    /// Registers every series on a recorder of its own; all start at 0. Clusters and listeners get the numbers of their
    /// places in the shape.
    #[must_use]
    pub fn new(shape: &Shape) -> Self {
        let (registry, exporter) = Registry::new();
        registry.gauge(&catalog::BUILD_INFO, &[shape.version]).set(1.0);
        let metrics = Self {
            clusters: Shelf::default(),
            listeners: Shelf::default(),
            fronts: Shelf::default(),
            nodes: Shelf::default(),
            cancels: Counts::new(
                CancelResult::ALL.map(|result| registry.counter(&catalog::CANCELS, &[result.as_str()])),
            ),
            reloads: Reloads::new(&registry),
            upgrades: Counts::new(
                UpgradeResult::ALL.map(|result| registry.counter(&catalog::UPGRADES, &[result.as_str()])),
            ),
            panics: Count::new(registry.counter(&catalog::PANICS, &[])),
            opening: registry.gauge(&catalog::OPENING, &[]),
            log_drops: registry.counter(&catalog::LOG_DROPS, &[]),
            dropped_lines: OnceLock::new(),
            nowhere: Nowhere::new(),
            exporter,
            registry,
            workers: shape.workers,
        };
        for cluster in &shape.clusters {
            metrics.add_cluster(&cluster.nodes);
        }
        for listener in &shape.listeners {
            metrics.add_listener(&listener.name, listener.cluster);
        }
        for front in &shape.fronts {
            metrics.add_front(front);
        }
        metrics
    }

    /// One more cluster, with nodes of these names in its first places; its number. A name that another cluster has or had
    /// goes on with the same figures.
    pub fn add_cluster(&self, nodes: &[String]) -> usize {
        let number = self.clusters.put(Arc::new(Cluster { nodes: Shelf::default() }));
        for name in nodes {
            self.add_node(number, name);
        }
        number
    }

    /// A listener of this name that is on the cluster with this number; its own number. A name that was there before has its
    /// figures and its number again, and may be on another cluster now.
    pub fn add_listener(&self, name: &str, cluster: usize) -> usize {
        let known = self.listeners.find(|listener| listener.metrics.name() == name);
        let (number, listener) = known.unwrap_or_else(|| {
            let metrics = Arc::new(ListenerMetrics::new(&self.registry, name));
            let listener = Arc::new(Listener { metrics, pairs: Shelf::default(), on: RwLock::default() });
            (self.listeners.put(Arc::clone(&listener)), listener)
        });
        let nodes = self.clusters.get(cluster).map(|cluster| cluster.nodes.all()).unwrap_or_default();
        let names: Vec<&str> = nodes.iter().map(|node| node.name()).collect();
        listener.be_on(cluster, &names, &self.registry, self.workers);
        number
    }

    /// A front of this shape. A name that was there before goes on with its figures.
    pub fn add_front(&self, shape: &FrontShape) -> Arc<FrontMetrics> {
        let known = self.fronts.find(|front| front.name() == shape.name).map(|(_, front)| front);
        let lasting = known.unwrap_or_else(|| {
            let lasting = Arc::new(Lasting::new(&self.registry, &shape.name));
            self.fronts.put(Arc::clone(&lasting));
            lasting
        });
        Arc::new(FrontMetrics::new(&self.registry, shape, &lasting))
    }

    /// The figures of the listener with this number.
    #[must_use]
    pub fn listener(&self, listener: usize) -> Arc<ListenerMetrics> {
        let found = self.listeners.get(listener).map(|listener| Arc::clone(&listener.metrics));
        found.unwrap_or_else(|| Arc::clone(&self.nowhere.listener))
    }

    /// One more node of the cluster with this number, in the place after its last. Its series exist from now on. Call it
    /// before any session can reach the node.
    pub fn add_node(&self, cluster: usize, name: &str) {
        // First the listeners: who finds the node finds its sessions' figures as well.
        for listener in self.listeners.all() {
            listener.add_node(cluster, name, &self.registry, self.workers);
        }
        let Some(cluster) = self.clusters.get(cluster) else { return };
        let known = self.nodes.find(|node| node.name() == name).map(|(_, node)| node);
        let node = known.unwrap_or_else(|| {
            let node = Arc::new(NodeMetrics::new(&self.registry, name));
            self.nodes.put(Arc::clone(&node));
            node
        });
        cluster.nodes.put(node);
    }

    /// The figures of a node of the cluster with this number. Those who count often keep them.
    #[must_use]
    pub fn node(&self, cluster: usize, node: NodeId) -> Arc<NodeMetrics> {
        let found = self.clusters.get(cluster).and_then(|cluster| cluster.nodes.get(node.place));
        found.unwrap_or_else(|| Arc::clone(&self.nowhere.node))
    }

    /// The figures of a listener's sessions on a node of a cluster that it is on, or was. A session keeps them.
    #[must_use]
    pub fn pair(&self, listener: usize, cluster: usize, node: NodeId) -> Arc<PairMetrics> {
        let found = self.listeners.get(listener).and_then(|listener| listener.pair(cluster, node));
        found.unwrap_or_else(|| Arc::clone(&self.nowhere.pair))
    }

    /// Bytes that sessions of all listeners have passed on from the node to their clients.
    #[must_use]
    pub fn bytes_from(&self, cluster: usize, node: NodeId) -> u64 {
        let listeners = self.listeners.all();
        listeners.iter().filter_map(|listener| listener.pair(cluster, node)).map(|pair| pair.bytes().1).sum()
    }

    /// Sessions that have reached the node so far, of all listeners.
    #[must_use]
    pub fn sessions_of(&self, cluster: usize, node: NodeId) -> u64 {
        let listeners = self.listeners.all();
        let pairs = listeners.iter().filter_map(|listener| listener.pair(cluster, node));
        pairs.map(|pair| pair.ended() + pair.active()).sum()
    }

    /// What all listeners have done so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for listener in self.listeners.all() {
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
        // Not those of each cluster: one that has been in two of them is one.
        self.nodes.all().iter().for_each(|node| node.turn());
    }

    /// A connection was a cancel request, and this became of it.
    pub fn cancel(&self, result: CancelResult) {
        self.cancels.one(result.index());
    }

    /// The configuration was to be loaded again, and this became of it.
    pub fn reloaded(&self, result: ReloadResult) {
        self.reloads.results.one(result.index());
        self.reloads.is_last_good.set(f64::from(u8::from(result != ReloadResult::Failed)));
        if result != ReloadResult::Failed {
            self.reloads.last_good.set(now_seconds());
        }
    }

    /// This became of an upgrade.
    pub fn upgraded(&self, result: UpgradeResult) {
        self.upgrades.one(result.index());
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
        let listeners = self.listeners.all();
        let accounted = self.cancels.total()
            + self.panics.value()
            + listeners.iter().map(|listener| listener.accounted()).sum::<u64>();
        let accepted: u64 = listeners.iter().map(|listener| listener.metrics.accepted()).sum();
        accepted.saturating_sub(accounted)
    }

    /// Prometheus text of every figure, with the states handed in.
    #[must_use]
    pub fn render(&self, now: &Now) -> String {
        self.publish();
        self.families(now).merge(&self.exporter.render())
    }

    /// Moves the samples of histograms out of their buffers, which a scrape does too. Without either they pile up:
    /// call this every [`UPKEEP_INTERVAL`].
    pub fn run_upkeep(&self) {
        self.exporter.run_upkeep();
    }

    fn publish(&self) {
        for listener in self.listeners.all() {
            listener.metrics.publish();
            listener.pairs.all().iter().for_each(|pair| pair.publish());
        }
        self.nodes.all().iter().for_each(|node| node.publish());
        self.fronts.all().iter().for_each(|front| front.publish());
        self.cancels.publish();
        self.reloads.results.publish();
        self.upgrades.publish();
        self.panics.publish();
        self.opening.set(as_f64(self.opening()));
        if let Some(dropped_lines) = self.dropped_lines.get() {
            self.log_drops.absolute(dropped_lines());
        }
    }

    fn families(&self, now: &Now) -> Families {
        let mut families = Families::default();
        for (what, figure) in process::figures() {
            families.add(what, [(vec![], figure)]);
        }
        nodes::add(&self.nodes.all(), &self.places(now), &mut families);
        let mut of_clusters = |what, figure: fn(&ClusterNow) -> u64| {
            families.add(what, now.clusters.iter().map(|c| (vec![c.name.as_str()], Some(as_f64(figure(c))))));
        };
        of_clusters(&catalog::PRIMARIES, |cluster| cluster.primaries);
        of_clusters(&catalog::REPLICAS_UP, |cluster| cluster.standbys_up);
        let mut of_listeners = |what, figure: fn(&ListenerNow) -> Option<f64>| {
            families.add(what, now.listeners.iter().map(|l| (vec![l.name.as_str()], figure(l))));
        };
        of_listeners(&catalog::LIMIT, |listener| Some(f64::from(listener.limit)));
        of_listeners(&catalog::OLDEST_WAIT, |listener| Some(listener.oldest_wait.as_secs_f64()));
        of_listeners(&catalog::LISTENER_READY, |listener| Some(f64::from(u8::from(listener.ready))));
        of_listeners(&catalog::LISTENER_PAUSED, |listener| Some(f64::from(u8::from(listener.paused))));
        of_listeners(&catalog::READS_ON_PRIMARY, |listener| {
            listener.reads_on_primary.map(|yes| f64::from(u8::from(yes)))
        });
        http_families(now, &mut families);
        families
    }

    /// The places of every cluster there ever was, and the clusters that there are.
    fn places<'n>(&self, now: &'n Now) -> Vec<(Vec<Arc<NodeMetrics>>, Option<&'n ClusterNow>)> {
        let of = |number| now.clusters.iter().find(|cluster| cluster.number == number);
        let clusters = self.clusters.all();
        clusters.iter().enumerate().map(|(number, cluster)| (cluster.nodes.all(), of(number))).collect()
    }
}

fn http_families(now: &Now, families: &mut Families) {
    let fronts = || now.fronts.iter().map(|front| (front.name.as_str(), front));
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

impl Listener {
    /// Connections of which it is known what became of them, cancel requests aside.
    fn accounted(&self) -> u64 {
        let on_nodes: u64 = self.pairs.all().iter().map(|pair| pair.ended() + pair.active()).sum();
        on_nodes + self.metrics.turned_away()
    }

    /// It is on the cluster with this number, whose places have these names.
    fn be_on(&self, cluster: usize, names: &[&str], registry: &Registry, workers: usize) {
        let mut on = self.on.write().unwrap_or_else(PoisonError::into_inner);
        let known = on.iter().position(|(number, _)| *number == cluster);
        let at = known.unwrap_or_else(|| {
            on.push((cluster, Vec::new()));
            on.len() - 1
        });
        let Some((_, pairs)) = on.get_mut(at) else { return };
        let missing = names.iter().skip(pairs.len());
        pairs.extend(missing.map(|name| self.pair_with(name, registry, workers)));
    }

    /// The cluster has one more node.
    fn add_node(&self, cluster: usize, name: &str, registry: &Registry, workers: usize) {
        let mut on = self.on.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pairs)) = on.iter_mut().find(|(number, _)| *number == cluster) {
            pairs.push(self.pair_with(name, registry, workers));
        }
    }

    fn pair_with(&self, node: &str, registry: &Registry, workers: usize) -> Arc<PairMetrics> {
        let known = self.pairs.find(|pair| pair.node() == node).map(|(_, pair)| pair);
        known.unwrap_or_else(|| {
            let pair = Arc::new(PairMetrics::new(registry, self.metrics.name(), node, workers));
            self.pairs.put(Arc::clone(&pair));
            pair
        })
    }

    fn pair(&self, cluster: usize, node: NodeId) -> Option<Arc<PairMetrics>> {
        let on = self.on.read().unwrap_or_else(PoisonError::into_inner);
        let (_, pairs) = on.iter().find(|(number, _)| *number == cluster)?;
        pairs.get(node.place).map(Arc::clone)
    }
}

impl Reloads {
    fn new(registry: &Registry) -> Self {
        let is_last_good = registry.gauge(&catalog::RELOAD_SUCCESSFUL, &[]);
        let last_good = registry.gauge(&catalog::RELOAD_SUCCESS_TIME, &[]);
        is_last_good.set(1.0);
        last_good.set(now_seconds());
        let result = |result: ReloadResult| registry.counter(&catalog::RELOADS, &[result.as_str()]);
        Self { results: Counts::new(ReloadResult::ALL.map(result)), is_last_good, last_good }
    }
}

fn now_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl<T> Shelf<T> {
    fn get(&self, place: usize) -> Option<Arc<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(place).map(Arc::clone)
    }

    /// The first that fits, and its place.
    fn find(&self, fits: impl Fn(&T) -> bool) -> Option<(usize, Arc<T>)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|one| fits(one))?;
        Some((at, Arc::clone(all.get(at)?)))
    }

    /// Puts it into the place after the last; which one that is.
    fn put(&self, figures: Arc<T>) -> usize {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.push(figures);
        all.len() - 1
    }

    /// Those that are there now. Copied out, so that a scrape keeps nobody from adding.
    fn all(&self) -> Vec<Arc<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl Nowhere {
    fn new() -> Self {
        let registry = Registry::nowhere();
        Self {
            listener: Arc::new(ListenerMetrics::new(&registry, "")),
            node: Arc::new(NodeMetrics::new(&registry, "")),
            pair: Arc::new(PairMetrics::new(&registry, "", "", 0)),
        }
    }
}

mod nodes;
#[cfg(test)]
mod tests;
