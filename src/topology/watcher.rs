//! Looks at one node again and again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::base::id::NodeId;
use crate::config::{self, Check};
use crate::topology::Current;
use crate::topology::check::{Report, Whither, check};

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

/// Looks until `stop`: the first time at once, then at the pace that the node's state asks for.
pub async fn watch(watch: Watch, stop: CancellationToken) {
    let life = async {
        loop {
            let known =
                watch.current.borrow().node(watch.id).map(|node| Arc::clone(&node.addrs)).unwrap_or_default();
            let whither = watch.only_at.map_or(Whither::Name(&known), Whither::Addr);
            let report = check(&watch.node, whither, &watch.settings).await;
            let (pace, answer) = oneshot::channel();
            let reported = Reported { id: watch.id, report, pace };
            if watch.reports.send(reported).await.is_err() {
                return;
            }
            let Ok(pace) = answer.await else { return };
            if timeout(jittered(pace), watch.hurry.notified()).await.is_ok() {
                sleep(COMPLAINT_PAUSE.min(pace)).await;
            }
        }
    };
    stop.run_until_cancelled(life).await;
}

/// Within a tenth of `pace`, so that checks of many balancers and nodes do not fall into step.
fn jittered(pace: Duration) -> Duration {
    pace.mul_f64(0.9 + 0.2 * fastrand::f64())
}
