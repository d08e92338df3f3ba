//! The one writer of a cluster's [`Topology`].
//!
//! Everything that is learnt about a node, by its checks or by sessions, comes here and is applied in the order
//! it comes; after each piece of news one new snapshot is published. Only changes are logged.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::balance::judge::{Judge, Verdict};
use crate::base::id::NodeId;
use crate::base::role::Role;
use crate::config::{self, MaxLag};
use crate::telemetry::labels::CheckResult;
use crate::telemetry::metrics::Metrics;
use crate::topology::check::{Facts, Outcome, Report};
use crate::topology::outcome::{Met, Outcomes};
use crate::topology::watcher::{self, Watch};
use crate::topology::{Current, KnownRole, Lag, Node, RoleSource, Topology};

/// How long a node that said 53300 gets no new sessions, unless a check finds room before.
const FULL_FOR: Duration = Duration::from_secs(1);

/// A cluster under watch: where its state is seen and where sessions report.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The current snapshot.
    pub current: Current,
    /// What sessions met.
    pub outcomes: Outcomes,
    /// Tells all who wait when a session leaves a node.
    pub freed: Arc<Notify>,
}

/// Starts to watch the cluster: one task a node and one for the keeper, all ended by `stop`.
pub fn start(
    cluster: &Arc<config::Cluster>,
    index: usize,
    metrics: &Arc<Metrics>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Watched {
    let freed = Arc::new(Notify::new());
    let topology = Topology::starting(cluster, &freed);
    let (publish, current) = watch::channel(Arc::new(topology.clone()));
    let (outcomes, met) = Outcomes::channel();
    let (reports, reported) = mpsc::channel(cluster.nodes.len().max(1));
    let mut hurry = Vec::new();
    for (at, node) in cluster.nodes.iter().enumerate() {
        let notify = Arc::new(Notify::new());
        hurry.push(Arc::clone(&notify));
        let watch = Watch {
            id: NodeId(at),
            node: Arc::clone(node),
            settings: cluster.check.clone(),
            current: current.clone(),
            hurry: notify,
            reports: reports.clone(),
        };
        tasks.spawn(watcher::watch(watch, stop.clone()));
    }
    let check = &cluster.check;
    let keeper = Keeper {
        judges: cluster.nodes.iter().map(|_| Judge::new(check.rise, check.fall)).collect(),
        marks: vec![Marks::default(); cluster.nodes.len()],
        topology,
        cluster: Arc::clone(cluster),
        index,
        metrics: Arc::clone(metrics),
        hurry,
        publish,
        primaries: 0,
    };
    tasks.spawn(keeper.keep(reported, met, stop.clone()));
    Watched { current, outcomes, freed }
}

struct Keeper {
    cluster: Arc<config::Cluster>,
    /// The cluster's place among all, for metrics.
    index: usize,
    topology: Topology,
    judges: Vec<Judge>,
    marks: Vec<Marks>,
    metrics: Arc<Metrics>,
    hurry: Vec<Arc<Notify>>,
    publish: watch::Sender<Arc<Topology>>,
    /// Living primaries seen last.
    primaries: usize,
}

/// What must be remembered of a node beside what is published.
#[derive(Clone, Debug, Default)]
struct Marks {
    /// Log position the node reported last.
    lsn: Option<u64>,
    /// The warning that was logged last, so that it is logged once.
    warning: Option<String>,
    /// The lag was too much at the last check.
    over_lag: bool,
    /// Until when its down time has been counted.
    down_counted: Option<Instant>,
}

/// What decided an observation, for the log.
struct Cause<'a> {
    from: &'static str,
    step: &'a str,
    text: &'a str,
    sqlstate: Option<&'a str>,
}

impl Keeper {
    async fn keep(
        mut self,
        mut reported: mpsc::Receiver<(NodeId, Report)>,
        mut met: mpsc::Receiver<(NodeId, Met)>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                Some((id, report)) = reported.recv() => self.apply_report(id, report),
                Some((id, met)) = met.recv() => self.apply_met(id, &met),
                () = stop.cancelled() => return,
            }
            self.watch_primaries();
            self.publish.send_replace(Arc::new(self.topology.clone()));
        }
    }

    fn apply_report(&mut self, id: NodeId, report: Report) {
        let metrics = Arc::clone(&self.metrics);
        let of_node = metrics.node(self.index, id);
        match &report.outcome {
            Outcome::Up(facts) => {
                of_node.check(CheckResult::Up, report.took);
                self.set_full(id, None);
                self.learn(id, facts);
                let last = report.steps.last().map_or("", |step| step.name);
                self.observe(id, true, &Cause { from: "check", step: last, text: "ok", sqlstate: None });
            }
            Outcome::Full(text) => {
                of_node.check(CheckResult::Full, report.took);
                self.set_full(id, Some(text));
                self.observe(
                    id,
                    true,
                    &Cause { from: "check", step: "startup", text, sqlstate: Some("53300") },
                );
            }
            Outcome::Failed(failure) => {
                of_node.check(CheckResult::Failed, report.took);
                let sqlstate = failure.sqlstate.as_deref();
                let cause = Cause { from: "check", step: failure.step, text: &failure.text, sqlstate };
                self.observe(id, false, &cause);
            }
            Outcome::NotMade(text) => {
                let warning = format!("this machine could not check: {text}");
                self.warn_once(id, Some(warning));
            }
        }
        if let Some(node) = self.topology.nodes.get_mut(id.0) {
            if !report.addrs.is_empty() {
                node.addrs = report.addrs.as_slice().into();
            }
            node.last_check = Some(Arc::new(report));
        }
    }

    /// Applies what a session met. A node that sessions complain of is looked at once more without delay.
    fn apply_met(&mut self, id: NodeId, met: &Met) {
        if !self.cluster.check.passive {
            return;
        }
        let failure = match met {
            Met::Failure(text) => Some(Cause { from: "session", step: "connect", text, sqlstate: None }),
            Met::NotNow(text) => {
                Some(Cause { from: "session", step: "startup", text, sqlstate: Some("57P03") })
            }
            Met::Full(text) => {
                self.set_full(id, Some(text));
                None
            }
            Met::Silence => None,
            Met::Role { in_recovery } => {
                self.set_role(id, Role::from_in_recovery(*in_recovery), RoleSource::Client);
                return;
            }
        };
        if let Some(cause) = failure {
            self.observe(id, false, &cause);
        }
        if let Some(hurry) = self.hurry.get(id.0) {
            hurry.notify_one();
        }
    }

    /// Lets the judge hear one observation; publishes and logs the verdict when it changes.
    fn observe(&mut self, id: NodeId, good: bool, cause: &Cause<'_>) {
        let (Some(judge), Some(node), Some(marks)) =
            (self.judges.get_mut(id.0), self.topology.nodes.get_mut(id.0), self.marks.get_mut(id.0))
        else {
            return;
        };
        let of_node = self.metrics.node(self.index, id);
        if let Some(counted) = &mut marks.down_counted {
            let now = Instant::now();
            of_node.down_for(now - std::mem::replace(counted, now));
        }
        let before = node.state();
        let changed = judge.observe(good);
        node.progress = judge.progress();
        let Some(verdict) = changed else { return };
        node.verdict = verdict;
        node.since = SystemTime::now();
        marks.down_counted = (verdict == Verdict::Down).then(Instant::now);
        if verdict == Verdict::Down {
            node.full_until = None;
            node.primary_since = None;
        } else if node.role() == Some(Role::Primary) {
            node.primary_since.get_or_insert_with(Instant::now);
        }
        of_node.state_change(node.state());
        let (name, role) = (node.config.name.as_str(), node.role().map_or("unknown", Role::as_str));
        let (from, to, sessions) = (before.as_str(), node.state().as_str(), node.load.sessions());
        let Cause { from: seen_by, step, text: error, sqlstate } = *cause;
        if verdict == Verdict::Down {
            warn!(node = name, from, to, role, seen_by, step, error, sqlstate, sessions, "node_state");
        } else {
            info!(node = name, from, to, role, seen_by, step, "node_state");
        }
    }

    fn set_full(&mut self, id: NodeId, full: Option<&str>) {
        let Some(node) = self.topology.nodes.get_mut(id.0) else { return };
        let was = node.full_until.is_some();
        node.full_until = full.map(|_| Instant::now() + FULL_FOR.max(self.cluster.check.fast_interval * 2));
        let name = node.config.name.as_str();
        match full {
            Some(error) if !was => {
                self.metrics.node(self.index, id).state_change(node.state());
                warn!(
                    node = name,
                    from = "up",
                    to = "full",
                    error,
                    sessions = node.load.sessions(),
                    "node_state"
                );
            }
            None if was => info!(node = name, from = "full", to = "up", "node_state"),
            _ => {}
        }
    }

    /// Believes a role, unless the file says which one it is.
    fn set_role(&mut self, id: NodeId, role: Role, from: RoleSource) {
        let Some(node) = self.topology.nodes.get_mut(id.0) else { return };
        if node.role.is_some_and(|known| known.from == RoleSource::File) {
            return;
        }
        let before = node.role();
        node.role = Some(KnownRole { role, from });
        if before == Some(role) {
            return;
        }
        node.primary_since = (role == Role::Primary && node.is_up()).then(Instant::now);
        let was = before.map_or("unknown", Role::as_str);
        info!(
            node = node.config.name.as_str(),
            from = was,
            to = role.as_str(),
            seen_by = from.as_str(),
            "node_role"
        );
    }

    fn learn(&mut self, id: NodeId, facts: &Facts) {
        if let Some(role) = facts.role {
            self.set_role(id, role, RoleSource::Check);
        }
        let lag = self.lag(id, facts);
        let (Some(node), Some(marks)) = (self.topology.nodes.get_mut(id.0), self.marks.get_mut(id.0)) else {
            return;
        };
        let name = node.config.name.as_str();
        node.read_only = facts.read_only.or(node.read_only);
        if facts.version.is_some() {
            node.version.clone_from(&facts.version);
        }
        marks.lsn = facts.lsn;
        node.lag = lag;
        let over = self.cluster.check.max_lag.is_some_and(|max| match max {
            MaxLag::Time(max) => lag.time.is_some_and(|time| max < time),
            MaxLag::Bytes(max) => lag.bytes.is_some_and(|bytes| max < bytes),
        });
        // Two checks in a row either way: one late record must not move sessions about.
        let is_lagging = if over == marks.over_lag { over } else { node.is_lagging };
        marks.over_lag = over;
        if is_lagging != node.is_lagging {
            node.is_lagging = is_lagging;
            let (seconds, bytes) = (lag.time.map(|time| time.as_secs_f64()), lag.bytes);
            warn!(node = name, lagging = is_lagging, lag_seconds = seconds, lag_bytes = bytes, "node_lag");
        }
        self.warn_once(id, facts.warning.clone());
    }

    /// Logs a warning when it is another one than the last.
    fn warn_once(&mut self, id: NodeId, warning: Option<String>) {
        let (Some(node), Some(marks)) = (self.topology.nodes.get(id.0), self.marks.get_mut(id.0)) else {
            return;
        };
        if warning != marks.warning {
            if let Some(error) = &warning {
                warn!(node = node.config.name.as_str(), error = error.as_str(), "check_warning");
            }
            marks.warning = warning;
        }
    }

    /// A standby that has replayed all that its primary had written at its own last check is not behind, however
    /// old the last transaction is: an idle primary makes nobody late.
    fn lag(&self, id: NodeId, facts: &Facts) -> Lag {
        let role = self.topology.node(id).and_then(Node::role).or(facts.role);
        if role != Some(Role::Standby) {
            return Lag::default();
        }
        let primary =
            self.topology.nodes.iter().find(|node| node.is_up() && node.role() == Some(Role::Primary));
        let written = primary.and_then(|node| self.marks.get(node.id.0)?.lsn);
        let bytes = written.zip(facts.lsn).map(|(written, replayed)| written.saturating_sub(replayed));
        let time = if bytes == Some(0) { Some(Duration::ZERO) } else { facts.replay_age };
        Lag { time, bytes }
    }

    /// Says so when the number of living primaries is not one.
    fn watch_primaries(&mut self) {
        let alive = |node: &&Node| node.is_up() && node.role() == Some(Role::Primary);
        let names: Vec<_> =
            self.topology.nodes.iter().filter(alive).map(|node| node.config.name.as_str()).collect();
        if 1 < names.len() && self.primaries <= 1 {
            let used =
                crate::topology::choose::incumbent(&self.topology).map_or("", |node| &node.config.name);
            warn!(nodes = names.join(", "), writes_go_to = used, "two_primaries");
        }
        self.primaries = names.len();
    }
}

#[cfg(test)]
mod tests;
