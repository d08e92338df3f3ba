//! Looks at one node again and again.
//!
//! A server that has frozen answers nothing, so each look at it takes all the time a look may take. Looks therefore
//! overlap: one that is not answered does not keep the next from its turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::base::id::NodeId;
use crate::config::{self, Check};
use crate::topology::Current;
use crate::topology::check::{Outcome, Report, Whither, check};

/// Two looks at a node that sessions complain of are at least this far apart.
const COMPLAINT_PAUSE: Duration = Duration::from_millis(50);

/// What a watcher works with.
#[derive(Debug)]
pub struct Watch {
    /// Which node.
    pub id: NodeId,
    /// The node.
    pub node: Arc<config::Node>,
    /// Its only address, if it has one: then its name is not looked up.
    pub only_at: Option<SocketAddr>,
    /// How to look.
    pub settings: Check,
    /// Where the addresses that were last good are found.
    pub current: Current,
    /// Asks for a look at once.
    pub hurry: Arc<Notify>,
    /// Where reports go.
    pub reports: mpsc::Sender<Reported>,
}

/// A report on its way to the keeper.
#[derive(Debug)]
pub struct Reported {
    /// Which node.
    pub id: NodeId,
    /// What the look found.
    pub report: Report,
    /// How long to wait until the next look; answered when the report has been applied.
    pub pace: oneshot::Sender<Duration>,
}

/// Looks until `gone` or `stop`: the first time at once, then at the pace that the node's state asks for. While a look is not
/// answered, the next begins beside it, up to `fall` of them: so many verdicts are needed. When the node is `gone`, looks that
/// are under way come to their end, and nobody is told what they find: broken off, each would be a line in the server's log.
pub async fn watch(watch: Watch, gone: CancellationToken, stop: CancellationToken) {
    stop.run_until_cancelled(watch_by(look, watch, gone)).await;
}

async fn look(watch: Arc<Watch>) -> Report {
    let known = watch.current.borrow().node(watch.id).map(|node| Arc::clone(&node.addrs)).unwrap_or_default();
    let whither = watch.only_at.map_or(Whither::Name(&known), Whither::Addr);
    check(&watch.node, whither, &watch.settings).await
}

async fn watch_by<F>(look: impl Fn(Arc<Watch>) -> F, watch: Watch, gone: CancellationToken)
where
    F: Future<Output = Report> + Send + 'static,
{
    let watch = Arc::new(watch);
    let mut looks = Looks::default();
    let life = async {
        loop {
            looks.begin(look(Arc::clone(&watch)));
            if watch.until_next(&mut looks).await.is_none() {
                return;
            }
        }
    };
    gone.run_until_cancelled(life).await;
    while looks.running.join_next().await.is_some() {}
}

impl Watch {
    /// Tells what the looks find until it is time for another one; `None` when nobody listens any more.
    async fn until_next(&self, looks: &mut Looks) -> Option<()> {
        let most = usize::try_from(self.settings.fall.get()).unwrap_or(usize::MAX);
        let began = Instant::now();
        // Two that hang in one short stall of the server are one piece of news.
        let mut due = began + self.settings.fast_interval.max(self.settings.timeout / 2);
        loop {
            let has_room = looks.running.len() < most;
            let is_idle = looks.running.is_empty();
            let complaint = async {
                if !is_idle {
                    sleep_until(began + COMPLAINT_PAUSE).await;
                }
                self.hurry.notified().await;
            };
            tokio::select! {
                // What is known comes before what is to be found out.
                biased;
                report = looks.ended(), if !is_idle => {
                    let Some(report) = report else { continue };
                    let pace = self.tell(report).await?;
                    if looks.running.is_empty() {
                        due = Instant::now() + jittered(pace);
                    }
                }
                () = sleep_until(due), if has_room => return Some(()),
                () = complaint, if has_room => {
                    if !is_idle {
                        return Some(());
                    }
                    due = due.min(Instant::now() + COMPLAINT_PAUSE);
                }
            }
        }
    }

    /// Tells the keeper; answers how long to wait.
    async fn tell(&self, report: Report) -> Option<Duration> {
        let (pace, answer) = oneshot::channel();
        self.reports.send(Reported { id: self.id, report, pace }).await.ok()?;
        answer.await.ok()
    }
}

/// The looks that have not ended yet. Dropping this ends them.
#[derive(Default)]
struct Looks {
    running: JoinSet<(u64, Report)>,
    begun: u64,
    /// The latest one that has ended.
    latest: u64,
}

impl Looks {
    fn begin(&mut self, look: impl Future<Output = Report> + Send + 'static) {
        self.begun += 1;
        let number = self.begun;
        self.running.spawn(async move { (number, look.await) });
    }

    /// The next that ends; `None` when that says nothing. Cancel safe.
    ///
    /// What a look has found that began before one that is known already is old. Only that it found nothing still counts.
    async fn ended(&mut self) -> Option<Report> {
        let (number, report) = self.running.join_next().await?.ok()?;
        let is_overtaken = number < self.latest;
        self.latest = self.latest.max(number);
        (!is_overtaken || matches!(report.outcome, Outcome::Failed(_))).then_some(report)
    }
}

/// Up to a fifth less than `pace`, so that checks of many balancers and nodes do not fall into step.
fn jittered(pace: Duration) -> Duration {
    pace.mul_f64(0.8 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests;
