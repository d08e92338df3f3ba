//! What there is to count: the names that become labels.

use super::labels::HttpMethod;

/// Everything that has figures of its own from the start. More of each may be added later.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Version of pgsplit.
    pub version: &'static str,
    /// In the order of the configuration.
    pub clusters: Vec<ClusterShape>,
    /// In the order of the configuration.
    pub listeners: Vec<ListenerShape>,
    /// In the order of the configuration.
    pub fronts: Vec<FrontShape>,
    /// Worker threads that move bytes.
    pub workers: usize,
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct ClusterShape {
    /// Its label.
    pub name: String,
    /// Labels of its nodes, unique over all clusters; in the order of their places.
    pub nodes: Vec<String>,
}

/// A listener.
#[derive(Clone, Debug)]
pub struct ListenerShape {
    /// Its label.
    pub name: String,
    /// Index into [`Shape::clusters`].
    pub cluster: usize,
}

/// An HTTP front.
#[derive(Clone, Debug)]
pub struct FrontShape {
    /// Its label.
    pub name: String,
    /// Labels of its groups, and of their upstreams.
    pub groups: Vec<(String, Vec<String>)>,
    /// Methods that have figures of their own.
    pub methods: Vec<HttpMethod>,
}
