//! The one writer of a cluster's [`Topology`].
//!
//! Everything that is learnt about a node, by its checks or by sessions, comes here and is applied to the node's
//! record in the order it comes; when it changed anything, one new snapshot is published. Where each address of a name
//! is a node of its own, `names` says which there are, and `places` which of them is which node.

mod chatter;
mod names;
mod orders;
mod places;
mod record;
mod rivals;
mod succession;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::balance::judge::Verdict;
use crate::base::id::NodeId;
use crate::base::role::Role;
use crate::config;
use crate::net::discover::{Finding, Resolve, System};
use crate::pg::sqlstate;
use crate::telemetry::labels::CheckResult;
use crate::telemetry::metrics::Metrics;
use crate::topology::check::{Outcome, Report};
use crate::topology::order::{Ask, Done, Order, OrderError, Orders};
use crate::topology::outcome::{Met, Outcomes};
use crate::topology::watcher::{self, Reported, Watch};
use crate::topology::{Current, RoleSource, Topology};
use names::{Found, Names};
use places::Places;
use record::{Cause, Record, Tell};

/// A cluster under watch: where its state is seen and where sessions report.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The cluster's number, by which its counters are found; the same for as long as the process lives.
    pub index: usize,
    /// The current snapshot.
    pub current: Current,
    /// What sessions met.
    pub outcomes: Outcomes,
    /// Tells all who wait when a session leaves a node.
    pub freed: Arc<Notify>,
    /// Where people say what they want of the nodes.
    pub orders: Orders,
    /// Ends the watch when the last one who has it, a setup or a listener's session, is gone.
    pub life: Life,
}

/// What it is that ends; by default nothing.
#[derive(Clone, Debug, Default)]
pub struct Life(#[expect(dead_code, reason = "it is there to be dropped")] Option<Arc<DropGuard>>);

impl Watched {
    /// Has the keeper do what is wanted of the node with this name, and resolves when sessions can see it. With
    /// `dns.all_addresses` each address has a name of its own, `db/2`. Cancel safe; whether it is done then is not known.
    ///
    /// # Errors
    /// No such node, a weight that cannot be, or nobody keeps the nodes any more.
    pub async fn order(&self, node: &str, order: Order) -> Result<Done, OrderError> {
        self.orders.ask(|answer| Ask::Node(node.to_owned(), order, answer)).await?
    }
}

/// Starts to watch the cluster, on the runtime it is called in: one task a node, one a name that is followed, and one
/// for the keeper, all ended by `stop`, or when nobody has what this gives any more.
pub fn start(
    cluster: &Arc<config::Cluster>,
    index: usize,
    dns: config::Dns,
    metrics: &Arc<Metrics>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Watched {
    start_with(&System, cluster, index, dns, metrics, tasks, stop)
}

fn start_with(
    resolver: &impl Resolve,
    cluster: &Arc<config::Cluster>,
    index: usize,
    dns: config::Dns,
    metrics: &Arc<Metrics>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Watched {
    let stop = &stop.child_token();
    let freed = Arc::new(Notify::new());
    let (outcomes, met) = Outcomes::channel();
    let (orders, asked) = Orders::channel();
    let (reports, reported) = mpsc::channel(cluster.nodes.len().max(1));
    let names = Names::of(cluster, dns);
    let watchers = Watchers { reports, tasks: tasks.clone(), stop: stop.clone() };
    let mut keeper = Keeper::new(cluster, index, metrics, &freed, watchers);
    let current = keeper.publish.subscribe();
    let ids: Vec<NodeId> = keeper.places.records().map(|record| record.node.id).collect();
    for (of, id) in ids.into_iter().enumerate() {
        if !names.has(of) {
            keeper.watch(id);
        }
    }
    let found = names.follow(resolver, tasks, stop);
    tasks.spawn(keeper.keep(News { reported, met, found, asked }, stop.clone()));
    let life = Life(Some(Arc::new(stop.clone().drop_guard())));
    Watched { index, current, outcomes, freed, orders, life }
}

struct Keeper {
    cluster: Arc<config::Cluster>,
    /// The cluster's place among all, for metrics.
    index: usize,
    metrics: Arc<Metrics>,
    places: Places,
    watchers: Watchers,
    publish: watch::Sender<Arc<Topology>>,
    /// The cluster's primary: see [`succession`].
    primary: Option<NodeId>,
    /// Which one it was before there was none.
    last_primary: Option<NodeId>,
    /// Whether there was a primary, and it is gone or fails.
    is_primary_awaited: bool,
}

/// What watchers are started with.
struct Watchers {
    reports: mpsc::Sender<Reported>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Where the keeper hears news.
struct News {
    reported: mpsc::Receiver<Reported>,
    met: mpsc::Receiver<(NodeId, Met)>,
    found: mpsc::Receiver<Found>,
    asked: mpsc::Receiver<Ask>,
}

impl Keeper {
    fn new(
        cluster: &Arc<config::Cluster>,
        index: usize,
        metrics: &Arc<Metrics>,
        freed: &Arc<Notify>,
        watchers: Watchers,
    ) -> Self {
        let places = Places::new(cluster, index, metrics, freed);
        let publish = watch::channel(Arc::new(places.topology(None))).0;
        Self {
            cluster: Arc::clone(cluster),
            index,
            metrics: Arc::clone(metrics),
            places,
            watchers,
            publish,
            primary: None,
            last_primary: None,
            is_primary_awaited: false,
        }
    }

    /// Starts to look at a node.
    fn watch(&mut self, id: NodeId) {
        let Some(record) = self.places.get_mut(id) else { return };
        let watch = Watch {
            id,
            node: Arc::clone(&record.node.config),
            only_at: record.node.only_at,
            settings: self.cluster.check.clone(),
            current: self.publish.subscribe(),
            hurry: Arc::clone(&record.hurry),
            reports: self.watchers.reports.clone(),
        };
        let gone = self.watchers.stop.child_token();
        self.watchers.tasks.spawn(watcher::watch(watch, gone.clone()));
        record.watched = Some(gone.drop_guard());
    }

    async fn keep(mut self, mut news: News, stop: CancellationToken) {
        loop {
            tokio::select! {
                Some(Reported { id, report, pace }) = news.reported.recv() => {
                    self.apply_report(id, report);
                    self.publish();
                    let _ = pace.send(self.pace(id));
                }
                Some((id, met)) = news.met.recv() => {
                    if self.apply_met(id, &met) {
                        self.publish();
                    }
                }
                Some(found) = news.found.recv() => {
                    self.apply_found(found);
                    self.publish();
                }
                Some(ask) = news.asked.recv() => self.answer(ask),
                () = stop.cancelled() => return,
            }
        }
    }

    /// Applies what was found out about a node's name.
    fn apply_found(&mut self, Found { of, finding }: Found) {
        match finding {
            Finding::Addrs(addrs) => {
                for id in self.places.settle(of, &addrs) {
                    self.watch(id);
                }
            }
            Finding::Nothing(error) => {
                if let Some(id) = self.places.unsettled(of) {
                    self.apply_report(id, Report::of_lookup(&error));
                }
            }
        }
    }

    fn publish(&mut self) {
        self.settle_primary();
        self.warn_of_two_primaries();
        let check = &self.cluster.check;
        let (at_least, patience) = (check.fast_interval, check.interval + check.timeout);
        let trouble = |record: &Record| record.trouble(self.primary, at_least, patience);
        // Good news first, so that a session that finds its way to a node by what is published now does not find that it
        // must leave it; bad news last, so that a session that has to go finds where to go.
        self.places.records().for_each(|record| record.tell_sessions(trouble(record), Tell::Better));
        self.publish.send_replace(Arc::new(self.places.topology(self.primary)));
        self.places.records().for_each(|record| record.tell_sessions(trouble(record), Tell::All));
        self.places.tell_departed(self.primary);
    }

    fn apply_report(&mut self, id: NodeId, report: Report) {
        self.places.forget_ended();
        let written = self.primary.and_then(|primary| self.places.get(primary)?.lsn);
        let heard = self.metrics.bytes_from(self.index, id);
        // Whoever is alone, or the primary that sessions wait for, need not prove itself first.
        let is_alone = self.places.records().all(|other| other.node.id == id || !other.node.is_up());
        let is_primary_awaited = self.is_primary_awaited;
        // What was found before somebody said that it is to rest.
        let Some(record) = self.places.get_mut(id).filter(|record| !record.node.rests()) else { return };
        record.listen(report.shows_life(), heard);
        let step = report.steps.last().map_or("", |step| step.name);
        match &report.outcome {
            Outcome::Up(facts) => {
                record.metrics.check(CheckResult::Up, report.took);
                if facts.is_ready {
                    record.set_full(false);
                }
                record.learn(facts, written, self.cluster.check.max_lag);
                record.warn_once(facts.warning.as_deref());
                let is_needed = is_alone || (is_primary_awaited && record.is_fit_as_primary());
                record
                    .observe_good(is_needed, &Cause { seen_by: "check", step, error: None, sqlstate: None });
            }
            Outcome::Full(text) => {
                record.metrics.check(CheckResult::Full, report.took);
                record.set_full(true);
                let sqlstate = Some(sqlstate::TOO_MANY_CONNECTIONS);
                record.observe_good(is_alone, &Cause { seen_by: "check", step, error: Some(text), sqlstate });
            }
            Outcome::Failed(failure) => {
                record.metrics.check(CheckResult::Failed, report.took);
                let sqlstate = failure.sqlstate.as_deref();
                let error = Some(failure.text.as_str());
                record.observe(false, &Cause { seen_by: "check", step: failure.step, error, sqlstate });
            }
            Outcome::NotMade(text) => {
                record.warn_once(Some(&format!("this machine could not check: {text}")));
            }
        }
        if !report.addrs.is_empty() {
            record.node.addrs = report.addrs.as_slice().into();
        }
        let has_passed = matches!(report.outcome, Outcome::Up(_));
        record.node.last_check = Some(Arc::new(report));
        if has_passed {
            record.passed = Some(Instant::now());
            self.confirm_primary(id);
        }
    }

    /// Applies what a session met; whether that changed anything. A node that sessions complain of is looked at
    /// once more without delay.
    fn apply_met(&mut self, id: NodeId, met: &Met) -> bool {
        if !self.cluster.check.passive {
            return false;
        }
        let Some(record) = self.places.get_mut(id).filter(|record| !record.node.rests()) else {
            return false;
        };
        let cause = |step, error, sqlstate| Cause { seen_by: "session", step, error, sqlstate };
        match met {
            Met::Role { in_recovery } => {
                let is_news = record.set_role(Role::from_in_recovery(*in_recovery), RoleSource::Client);
                if is_news {
                    // Only a check sees the timeline, by which it may be the primary from now on.
                    record.hurry.notify_one();
                }
                return is_news;
            }
            Met::Failure(text) => record.observe(false, &cause("connect", Some(text), None)),
            Met::NotNow(text) => {
                record.observe(false, &cause("startup", Some(text), Some(sqlstate::CANNOT_CONNECT_NOW)));
            }
            Met::Full(text) => {
                record.set_full(true);
                record.note(&cause("startup", Some(text), Some(sqlstate::TOO_MANY_CONNECTIONS)));
            }
            Met::Silence => {}
        }
        record.hurry.notify_one();
        !matches!(met, Met::Silence)
    }

    /// How long to wait before the next look at a node.
    fn pace(&self, id: NodeId) -> Duration {
        let probation = self.places.get(id).and_then(|record| record.node.held_back());
        let usual = self.usual_pace(id);
        // So that its end is published in time, also when the pace is shortened a little.
        probation.map_or(usual, |left| usual.min(left + left / 4))
    }

    fn usual_pace(&self, id: NodeId) -> Duration {
        let check = &self.cluster.check;
        let Some(Record { node, .. }) = self.places.get(id) else { return check.interval };
        match (node.verdict, node.progress) {
            (Verdict::Up | Verdict::Down, (1.., _)) => check.fast_interval,
            _ if self.is_awaited(node) => check.fast_interval.min(check.down_interval),
            (Verdict::Up, _) if node.is_full() => check.fast_interval,
            (Verdict::Down, _) => check.down_interval,
            (Verdict::Up | Verdict::Starting, _) => check.interval,
        }
    }
}

#[cfg(test)]
mod tests;
