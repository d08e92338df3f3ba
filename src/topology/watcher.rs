//! Looks at one node again and again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::balance::judge::Verdict;
use crate::base::id::NodeId;
use crate::config::{self, Check};
use crate::topology::check::{Report, check};
use crate::topology::{Current, Node};

/// Two looks at a node that sessions complain of are at least this far apart.
const COMPLAINT_PAUSE: Duration = Duration::from_millis(50);

/// What a watcher works with.
#[derive(Debug)]
pub struct Watch {
    /// Which node.
    pub id: NodeId,
    /// The node.
    pub node: Arc<config::Node>,
    /// How to look.
    pub settings: Check,
    /// Where the state of the node is seen, which sets the pace.
    pub current: Current,
    /// Asks for a look at once.
    pub hurry: Arc<Notify>,
    /// Where reports go.
    pub reports: mpsc::Sender<(NodeId, Report)>,
}

/// Looks until `stop`: the first time at once, then at the pace that the node's state asks for.
pub async fn watch(watch: Watch, stop: CancellationToken) {
    let life = async {
        loop {
            let password = watch.settings.password.as_ref().or(watch.node.password.as_ref());
            let report = check(&watch.node.addr, password, &watch.settings).await;
            if watch.reports.send((watch.id, report)).await.is_err() {
                return;
            }
            tokio::select! {
                () = watch.due() => {}
                () = watch.hurry.notified() => sleep(COMPLAINT_PAUSE.min(watch.pace())).await,
            }
        }
    };
    stop.run_until_cancelled(life).await;
}

impl Watch {
    /// Resolves when the next look is due. The keeper judges the last one while this waits, and sessions meet
    /// the node, so the pace is taken anew at each change.
    async fn due(&self) {
        let (since, jitter) = (Instant::now(), jitter());
        let mut current = self.current.clone();
        loop {
            current.mark_unchanged();
            tokio::select! {
                () = sleep_until(since + self.pace().mul_f64(jitter)) => return,
                Ok(()) = current.changed() => {}
            }
        }
    }

    fn pace(&self) -> Duration {
        let current = self.current.borrow();
        current.node(self.id).map_or(self.settings.interval, |node| pace(node, &self.settings))
    }
}

fn pace(node: &Node, settings: &Check) -> Duration {
    match (node.verdict, node.progress) {
        (Verdict::Up | Verdict::Down, (1.., _)) => settings.fast_interval,
        (Verdict::Up, _) if node.is_full() => settings.fast_interval,
        (Verdict::Down, _) => settings.down_interval,
        (Verdict::Up | Verdict::Starting, _) => settings.interval,
    }
}

/// Within a tenth of 1, so that checks of many balancers and nodes do not fall into step.
fn jitter() -> f64 {
    0.9 + 0.2 * fastrand::f64()
}
