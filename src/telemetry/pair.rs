//! Figures of one listener's sessions on one node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Histogram};

use super::catalog;
use super::count::{Counted, Counts, Level};
use super::labels::End;
use super::registry::Registry;

/// Figures of one listener's sessions on one node.
pub struct PairMetrics {
    node: String,
    active: Level,
    ended: Counts<{ End::ALL.len() }>,
    login_duration: Histogram,
    /// One for each worker, and a last one for a worker that the shape did not announce.
    traffic: Vec<Arc<Traffic>>,
    spare: Arc<Traffic>,
    to_node: Counter,
    to_client: Counter,
}

impl PairMetrics {
    pub(super) fn new(registry: &Registry, listener: &str, node: &str, workers: usize) -> Self {
        let labels = [listener, node];
        Self {
            node: node.to_owned(),
            active: Level::new(registry.gauge(&catalog::ACTIVE, &labels)),
            ended: Counts::new(
                End::ALL.map(|end| registry.counter(&catalog::SESSIONS, &[listener, node, end.as_str()])),
            ),
            login_duration: registry.histogram(&catalog::LOGIN_DURATION, &labels),
            traffic: std::iter::repeat_with(Arc::default).take(workers).collect(),
            spare: Arc::default(),
            to_node: registry.counter(&catalog::BYTES, &[listener, node, "to_node"]),
            to_client: registry.counter(&catalog::BYTES, &[listener, node, "to_client"]),
        }
    }

    /// The label of its node.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// A session is on the node for as long as the guard lives.
    pub fn active_guard(&self) -> Counted {
        self.active.enter()
    }

    /// A session that had reached the node has ended.
    pub fn end(&self, end: End) {
        self.ended.one(end.index());
    }

    /// A client was logged in this long after it was accepted.
    pub fn login_duration(&self, took: Duration) {
        self.login_duration.record(took);
    }

    /// Where the worker with this number, and no other thread, counts the bytes it moves. A number beyond the
    /// shape's workers gets a place that several threads may share, and so may count too little.
    #[must_use]
    pub fn traffic(&self, worker: usize) -> Arc<Traffic> {
        Arc::clone(self.traffic.get(worker).unwrap_or(&self.spare))
    }

    /// Sessions now.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.active.value()
    }

    /// Sessions that have ended, however they did.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ended.total()
    }

    /// Bytes moved so far: to the node, to the client.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        self.traffic.iter().chain([&self.spare]).fold((0, 0), |(to_node, to_client), one| {
            (to_node + one.to_node.load(Ordering::Relaxed), to_client + one.to_client.load(Ordering::Relaxed))
        })
    }

    pub(super) fn publish(&self) {
        self.active.publish();
        self.ended.publish();
        let (to_node, to_client) = self.bytes();
        self.to_node.absolute(to_node);
        self.to_client.absolute(to_client);
    }
}

/// Bytes that one worker has moved between one listener's clients and one node.
///
/// Only that worker's thread writes here, so adding is a load and a store: a `fetch_add` would lock the cache line
/// on every read of every session, to guard against a second writer that does not exist. A scrape only reads, and
/// may be one step behind. The alignment keeps two workers off one cache line (and off the pair of lines that the
/// processor fetches together), where each would slow the other down.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Traffic {
    to_node: AtomicU64,
    to_client: AtomicU64,
}

impl Traffic {
    /// `bytes` more went to the node.
    pub fn add_to_node(&self, bytes: u64) {
        add(&self.to_node, bytes);
    }

    /// `bytes` more went to the client.
    pub fn add_to_client(&self, bytes: u64) {
        add(&self.to_client, bytes);
    }
}

fn add(sum: &AtomicU64, bytes: u64) {
    sum.store(sum.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
}
