//! Figures of one listener.

use std::time::Duration;

use metrics::Histogram;

use super::catalog;
use super::count::{Count, Counted, Counts, Level};
use super::labels::{Redispatch, Rejection};
use super::registry::Registry;

/// Figures of one listener.
pub struct ListenerMetrics {
    name: String,
    accepted: Count,
    rejected: Counts<{ Rejection::ALL.len() }>,
    left: Count,
    accept_errors: Count,
    redispatches: Counts<{ Redispatch::ALL.len() }>,
    waiting: Level,
    queue_wait: Histogram,
    session_duration: Histogram,
}

impl ListenerMetrics {
    pub(super) fn new(registry: &Registry, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            accepted: Count::new(registry.counter(&catalog::ACCEPTED, &[name])),
            rejected: Counts::new(
                Rejection::ALL.map(|why| registry.counter(&catalog::REJECTED, &[name, why.as_str()])),
            ),
            left: Count::new(registry.counter(&catalog::LEFT, &[name])),
            accept_errors: Count::new(registry.counter(&catalog::ACCEPT_ERRORS, &[name])),
            redispatches: Counts::new(
                Redispatch::ALL.map(|why| registry.counter(&catalog::REDISPATCHES, &[name, why.as_str()])),
            ),
            waiting: Level::new(registry.gauge(&catalog::WAITING, &[name])),
            queue_wait: registry.histogram(&catalog::QUEUE_WAIT, &[name]),
            session_duration: registry.histogram(&catalog::SESSION_DURATION, &[name]),
        }
    }

    /// A connection was accepted.
    pub fn accept(&self) {
        self.accepted.one();
    }

    /// An accept call failed.
    pub fn accept_error(&self) {
        self.accept_errors.one();
    }

    /// A connection was turned away before it reached a node.
    pub fn reject(&self, why: Rejection) {
        self.rejected.one(why.index());
    }

    /// A client hung up before a node was chosen for it.
    pub fn left(&self) {
        self.left.one();
    }

    /// A session was given to another node.
    pub fn redispatch(&self, why: Redispatch) {
        self.redispatches.one(why.index());
    }

    /// A client waits for a node for as long as the guard lives.
    pub fn waiting_guard(&self) -> Counted {
        self.waiting.enter()
    }

    /// A client has waited this long, whether a node came or not.
    pub fn queue_wait(&self, waited: Duration) {
        self.queue_wait.record(waited);
    }

    /// A session that had reached a node has lasted this long.
    pub fn session_duration(&self, lasted: Duration) {
        self.session_duration.record(lasted);
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.value()
    }

    /// Connections turned away so far, for all reasons.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected.total()
    }

    /// Clients that wait now.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.value()
    }

    /// The label.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Connections that ended without a node.
    pub(super) fn turned_away(&self) -> u64 {
        self.rejected.total() + self.left.value()
    }

    pub(super) fn publish(&self) {
        self.accepted.publish();
        self.rejected.publish();
        self.left.publish();
        self.accept_errors.publish();
        self.redispatches.publish();
        self.waiting.publish();
    }
}
