//! The one writer of a group's [`Standing`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::balance::judge::{Judge, Verdict};
use crate::config::http::{Front, Group, HttpCheck};
use crate::front::upstream::check::{self, Look, Outcome};
use crate::front::upstream::{Current, Instance, Member, Standing};
use crate::net::discover::{Finding, Name, Refresh, System, follow};
use crate::telemetry::front::FrontMetrics;

/// Failures in a row that put an upstream aside; one that cannot be connected to is put aside at once.
const FAILURES: u32 = 3;
/// How long the first time, doubled each time after,
const EJECTION: Duration = Duration::from_secs(1);
/// at most this,
const EJECTION_MOST: Duration = Duration::from_secs(60);
/// and forgotten after so long without.
const EJECTION_MEMORY: Duration = Duration::from_secs(120);
/// How often unused connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// News that may wait.
const BACKLOG: usize = 1024;

/// What the keeper is told.
#[derive(Debug)]
pub enum News {
    /// Where an upstream's name leads.
    Found {
        /// Its place in the group.
        upstream: usize,
        /// What was found.
        finding: Finding,
    },
    /// What a check found.
    Looked {
        /// Of which one.
        instance: Arc<Instance>,
        /// The check.
        look: Look,
        /// How long to wait until the next; answered when the check has been applied.
        pace: oneshot::Sender<Duration>,
    },
    /// A request failed.
    Failed {
        /// On which one.
        instance: Arc<Instance>,
        /// How many in a row.
        in_a_row: u32,
        /// Whether not even a connection came about.
        is_connect: bool,
        /// Why.
        error: String,
    },
}

/// A group under watch.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The current standing.
    pub current: Current,
    /// Where requests tell what they met. What does not fit is lost, as a flood of the same news may be.
    pub news: mpsc::Sender<News>,
    /// Tells all who wait when a request leaves an upstream.
    pub freed: Arc<Notify>,
    /// Ends the watch, when the last front that has the group is gone.
    _life: Arc<DropGuard>,
}

/// Where a group stands in the configuration, and what it shares with the process.
#[derive(Clone)]
pub struct Place {
    /// Its front.
    pub front: Arc<Front>,
    /// Its place there.
    pub group: usize,
    /// The front's counters.
    pub metrics: Arc<FrontMetrics>,
    /// How often names are looked up again.
    pub refresh: Refresh,
    /// Threads that keep connections.
    pub workers: usize,
}

/// Starts to watch the group, on the runtime it is called in; ended by `stop`, or when nobody has what this gives.
#[must_use]
pub fn start(place: &Place, group: &Group, tasks: &TaskTracker, stop: &CancellationToken) -> Watched {
    let (publish, current) = watch::channel(Arc::<Standing>::default());
    let (news, receiver) = mpsc::channel(BACKLOG);
    let freed = Arc::<Notify>::default();
    let stop = stop.child_token();
    for (at, upstream) in group.upstreams.iter().enumerate() {
        let (host, port) = (upstream.addr.host.clone(), upstream.addr.port);
        let name = Name { host, port, refresh: place.refresh.clone() };
        let found = follow(name, System, news.clone(), move |finding| News::Found { upstream: at, finding });
        tasks.spawn(stop.clone().run_until_cancelled_owned(found));
    }
    let keeper = Keeper {
        place: place.clone(),
        group: group.clone(),
        records: Vec::new(),
        publish,
        news: news.clone(),
        freed: Arc::clone(&freed),
        tasks: tasks.clone(),
        stop: stop.clone(),
    };
    tasks.spawn(keeper.keep(receiver));
    Watched { current, news, freed, _life: Arc::new(stop.drop_guard()) }
}

struct Keeper {
    place: Place,
    group: Group,
    records: Vec<Record>,
    publish: watch::Sender<Arc<Standing>>,
    news: mpsc::Sender<News>,
    freed: Arc<Notify>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What the keeper knows of one address beyond what it publishes.
struct Record {
    member: Member,
    judge: Judge,
    ejections: u32,
    ejected_at: Option<Instant>,
    /// Ends its checks.
    gone: CancellationToken,
}

impl Record {
    fn is_of(&self, instance: &Arc<Instance>) -> bool {
        Arc::ptr_eq(&self.member.instance, instance)
    }
}

impl Keeper {
    async fn keep(mut self, mut news: mpsc::Receiver<News>) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                Some(news) = news.recv() => self.apply(news),
                _ = sweep.tick() => self.records.iter().for_each(|record| record.member.instance.sweep()),
                () = stop.cancelled() => break,
            }
        }
        self.records.iter().for_each(|record| record.member.instance.close_idle());
    }

    fn apply(&mut self, news: News) {
        match news {
            News::Found { upstream, finding: Finding::Addrs(addrs) } => self.found(upstream, &addrs),
            News::Found { finding: Finding::Nothing(_), .. } => return,
            News::Looked { instance, look, pace } => {
                let next = self.looked(&instance, look);
                self.publish();
                // The watcher of an address that is gone.
                let _ = pace.send(next);
                return;
            }
            News::Failed { instance, in_a_row, is_connect, error } => {
                self.failed(&instance, in_a_row, is_connect, &error);
            }
        }
        self.publish();
    }

    fn publish(&self) {
        let members = self.records.iter().map(|record| record.member.clone()).collect();
        self.publish.send_replace(Arc::new(Standing { members }));
    }

    /// New addresses join; those that are no longer there leave, and their requests end by themselves.
    fn found(&mut self, upstream: usize, addrs: &[SocketAddr]) {
        let Some(config) = self.group.upstreams.get(upstream).cloned() else { return };
        let (front, group) = (self.place.front.name.as_str(), self.group.name.as_str());
        let mut fresh = addrs.to_vec();
        self.records.retain(|record| {
            let instance = &record.member.instance;
            if instance.upstream != upstream {
                return true;
            }
            let stays = addrs.contains(&instance.addr);
            fresh.retain(|addr| *addr != instance.addr);
            if !stays {
                info!(front, group, upstream = %instance.config.addr, addr = %instance.addr, "upstream_gone");
                record.gone.cancel();
                instance.close_idle();
            }
            stays
        });
        for addr in fresh {
            let taken: Vec<usize> = self.records.iter().map(|record| record.member.instance.slot).collect();
            let slot = (0..=taken.len()).find(|slot| !taken.contains(slot)).unwrap_or_default();
            let instance = Arc::new(Instance::new(
                slot,
                upstream,
                &config,
                addr,
                Arc::clone(&self.freed),
                self.place.workers,
            ));
            self.join(instance);
        }
    }

    fn join(&mut self, instance: Arc<Instance>) {
        let (front, group) = (self.place.front.name.as_str(), self.group.name.as_str());
        info!(front, group, upstream = %instance.config.addr, addr = %instance.addr, "upstream_found");
        let gone = self.stop.child_token();
        let mut verdict = Verdict::Up;
        let (mut rise, mut fall) = (std::num::NonZeroU32::MIN, std::num::NonZeroU32::MIN);
        if let Some(check) = &self.group.check {
            (verdict, rise, fall) = (Verdict::Starting, check.rise, check.fall);
            let watch = check::watch(Arc::clone(&instance), check.clone(), self.news.clone(), gone.clone());
            self.tasks.spawn(watch);
        }
        let member = Member {
            instance,
            verdict,
            progress: (0, 1),
            ejected_until: None,
            since: SystemTime::now(),
            last: None,
        };
        let judge = Judge::new(rise, fall);
        self.records.push(Record { member, judge, ejections: 0, ejected_at: None, gone });
    }

    /// Applies a check; how long to wait until the next.
    fn looked(&mut self, instance: &Arc<Instance>, look: Look) -> Duration {
        let Some(check) = &self.group.check else { return SWEEP };
        let Some(record) = self.records.iter_mut().find(|record| record.is_of(instance)) else {
            return check.interval;
        };
        let error = match &look.outcome {
            Outcome::Good(_) => None,
            Outcome::Bad(error) => Some(error.clone()),
            Outcome::NotMade(error) => {
                let (front, group) = (self.place.front.name.as_str(), self.group.name.as_str());
                warn!(front, group, upstream = %record.member.instance.config.addr, error, "upstream_not_checked");
                return check.interval;
            }
        };
        record.member.instance.set_suspect(error.is_some());
        let changed = record.judge.observe(error.is_none());
        let member = &mut record.member;
        member.progress = record.judge.progress();
        member.last = Some(look);
        if let Some(verdict) = changed {
            let before = std::mem::replace(&mut member.verdict, verdict);
            member.since = SystemTime::now();
            log_change(&self.place.front.name, &self.group.name, member, before, error.as_deref());
        }
        pace(member, check)
    }

    /// Puts an upstream aside whose requests fail, for a time that grows, unless it is the last one.
    fn failed(&mut self, instance: &Arc<Instance>, in_a_row: u32, is_connect: bool, error: &str) {
        if !self.group.passive || (!is_connect && in_a_row < FAILURES) {
            return;
        }
        let others = self.records.iter().filter(|record| !record.is_of(instance));
        let is_last = !others.into_iter().any(|record| record.member.takes_new());
        let Some(record) = self.records.iter_mut().find(|record| record.is_of(instance)) else {
            return;
        };
        record.member.instance.hurry.notify_one();
        if is_last || record.member.is_ejected() {
            return;
        }
        if record.ejected_at.is_some_and(|at| EJECTION_MEMORY < at.elapsed()) {
            record.ejections = 0;
        }
        let time = EJECTION.saturating_mul(1 << record.ejections.min(10)).min(EJECTION_MOST);
        let until = Instant::now() + time;
        record.ejections += 1;
        record.ejected_at = Some(until);
        record.member.ejected_until = Some(until);
        let instance = &record.member.instance;
        self.place.metrics.eject(self.place.group, instance.upstream);
        warn!(
            front = self.place.front.name,
            group = self.group.name,
            upstream = %instance.config.addr,
            addr = %instance.addr,
            seconds = time.as_secs(),
            error,
            "upstream_ejected"
        );
        // Those who wait for one that fits look again when its time is over.
        let freed = Arc::clone(&self.freed);
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            tokio::time::sleep_until(until).await;
            freed.notify_waiters();
        }));
    }
}

fn pace(member: &Member, check: &HttpCheck) -> Duration {
    match (member.verdict, member.progress) {
        (Verdict::Up, (0, _)) if !member.is_ejected() => check.interval,
        _ => check.fast_interval,
    }
}

fn log_change(front: &str, group: &str, member: &Member, from: Verdict, error: Option<&str>) {
    let word = |verdict| match verdict {
        Verdict::Starting => "starting",
        Verdict::Up => "up",
        Verdict::Down => "down",
    };
    let (from, to) = (word(from), word(member.verdict));
    let (upstream, addr) = (member.instance.config.addr.to_string(), member.instance.addr.to_string());
    if member.verdict == Verdict::Up {
        info!(front, group, upstream, addr, from, to, "upstream_state");
    } else {
        warn!(front, group, upstream, addr, from, to, error, "upstream_state");
    }
}

#[cfg(test)]
mod tests;
