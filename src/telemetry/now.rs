//! What cannot be counted up because it is a state: handed in by whoever holds it, at each scrape.

use std::time::Duration;

use super::labels::NodeState;
use crate::base::role::Role;

/// State at the moment of a scrape. What is not in it is no longer there, and shows none.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// Clusters.
    pub clusters: Vec<ClusterNow>,
    /// Listeners.
    pub listeners: Vec<ListenerNow>,
    /// HTTP fronts.
    pub fronts: Vec<FrontNow>,
}

/// State of an HTTP front.
#[derive(Clone, Debug, Default)]
pub struct FrontNow {
    /// Its label.
    pub name: String,
    /// Whether it can serve.
    pub ready: bool,
    /// Memory that stored answers take, when there is a cache.
    pub cache_bytes: Option<u64>,
    /// Every address its upstreams have now.
    pub upstreams: Vec<UpstreamNow>,
}

/// State of one address of an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamNow {
    /// Label of its group.
    pub group: String,
    /// Label of the upstream.
    pub upstream: String,
    /// The address.
    pub addr: String,
    /// Whether it gets requests.
    pub up: bool,
    /// Requests on it now.
    pub active: u32,
    /// Requests sent to it so far.
    pub requests: u64,
}

/// State of a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterNow {
    /// Its number, as [`add_cluster`](super::metrics::Metrics::add_cluster) gave it.
    pub number: usize,
    /// Its label.
    pub name: String,
    /// Live nodes that are primary.
    pub primaries: u64,
    /// Live nodes that are standby.
    pub standbys_up: u64,
    /// The nodes that are there.
    pub nodes: Vec<NodeNow>,
    /// Sessions that go on on nodes that are no longer there: the place the node had, and how many.
    pub departed: Vec<(usize, u64)>,
}

/// State of a node.
#[derive(Clone, Debug)]
pub struct NodeNow {
    /// Its place in the cluster's list.
    pub place: usize,
    /// Whether it is alive, whatever its role.
    pub up: bool,
    /// How it is judged.
    pub state: NodeState,
    /// Its role, when known.
    pub role: Option<Role>,
    /// Whether it is an old primary, whose place another one has taken.
    pub superseded: bool,
    /// Whether it is on probation, because it came and went.
    pub held_back: bool,
    /// How far it is behind in time, when known.
    pub lag_seconds: Option<f64>,
    /// Log it has not replayed, when known.
    pub lag_bytes: Option<u64>,
    /// Its share of new sessions.
    pub weight: u16,
    /// Its sessions over all listeners.
    pub sessions: u64,
}

/// State of a listener.
#[derive(Clone, Debug, Default)]
pub struct ListenerNow {
    /// Its label.
    pub name: String,
    /// Most sessions at a time.
    pub limit: u32,
    /// How long the longest waiting client has waited; zero when none waits.
    pub oldest_wait: Duration,
    /// Whether a listener that prefers standbys uses the primary; `None` for other targets.
    pub reads_on_primary: Option<bool>,
    /// Whether a node fits it.
    pub ready: bool,
    /// Whether somebody has paused it.
    pub paused: bool,
}
