//! Figures of one node: what sessions and checks met there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::Histogram;

use super::catalog;
use super::count::{Counts, as_f64};
use super::labels::{CheckResult, ConnectError, NodeState, StartupError};
use super::recent::RecentTimes;
use super::registry::Registry;

/// Figures of one node.
pub struct NodeMetrics {
    name: String,
    connect_duration: Histogram,
    recent_connects: RecentTimes,
    connect_errors: Counts<{ ConnectError::ALL.len() }>,
    startup_errors: Counts<{ StartupError::ALL.len() }>,
    checks: Counts<{ CheckResult::ALL.len() }>,
    check_duration: Histogram,
    last_check_millis: AtomicU64,
    state_changes: Counts<{ NodeState::ALL.len() }>,
    down_millis: AtomicU64,
}

impl NodeMetrics {
    pub(super) fn new(registry: &Registry, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            recent_connects: RecentTimes::default(),
            connect_duration: registry.histogram(&catalog::NODE_CONNECT_DURATION, &[name]),
            connect_errors: Counts::new(
                ConnectError::ALL
                    .map(|why| registry.counter(&catalog::NODE_CONNECT_ERRORS, &[name, why.as_str()])),
            ),
            startup_errors: Counts::new(
                StartupError::ALL
                    .map(|class| registry.counter(&catalog::NODE_STARTUP_ERRORS, &[name, class.as_str()])),
            ),
            checks: Counts::new(
                CheckResult::ALL
                    .map(|result| registry.counter(&catalog::NODE_CHECKS, &[name, result.as_str()])),
            ),
            check_duration: registry.histogram(&catalog::NODE_CHECK_DURATION, &[name]),
            last_check_millis: AtomicU64::new(0),
            state_changes: Counts::new(
                NodeState::ALL.map(|to| registry.counter(&catalog::NODE_STATE_CHANGES, &[name, to.as_str()])),
            ),
            down_millis: AtomicU64::new(0),
        }
    }

    /// A session's connect to the node succeeded.
    pub fn connect_duration(&self, took: Duration) {
        self.connect_duration.record(took);
        self.recent_connects.record(took);
    }

    /// What all but one of a hundred connects of the last minute or two took at most; `None` when there were none.
    #[must_use]
    pub fn connect_p99(&self) -> Option<Duration> {
        self.recent_connects.p99()
    }

    /// A minute is over.
    pub(super) fn turn(&self) {
        self.recent_connects.turn();
    }

    /// A session's connect to the node failed.
    pub fn connect_error(&self, why: ConnectError) {
        self.connect_errors.one(why.index());
    }

    /// The node answered a login with an error.
    pub fn startup_error(&self, class: StartupError) {
        self.startup_errors.one(class.index());
    }

    /// A check ended just now.
    pub fn check(&self, result: CheckResult, took: Duration) {
        self.checks.one(result.index());
        self.check_duration.record(took);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_check_millis.store(millis(now), Ordering::Relaxed);
    }

    /// The judgement changed.
    pub fn state_change(&self, to: NodeState) {
        self.state_changes.one(to.index());
    }

    /// The node was down for this much more time. Call it while the node is down, not only at the end.
    pub fn down_for(&self, time: Duration) {
        self.down_millis.fetch_add(millis(time), Ordering::Relaxed);
    }

    /// The label.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// End of the last check, Unix time; 0 before the first.
    pub(super) fn last_check_seconds(&self) -> f64 {
        as_f64(self.last_check_millis.load(Ordering::Relaxed)) / 1000.0
    }

    /// Time down so far.
    pub(super) fn down_seconds(&self) -> f64 {
        as_f64(self.down_millis.load(Ordering::Relaxed)) / 1000.0
    }

    pub(super) fn publish(&self) {
        self.connect_errors.publish();
        self.startup_errors.publish();
        self.checks.publish();
        self.state_changes.publish();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
