//! Whether the database behind a front's services is there: what the listener knows that they reach it by.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::base::role::Target;
use crate::topology::Current;
use crate::topology::choose::fitting;

/// A node may come to fit without a change being published: a full one does when its time is over.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The listener that a front's services reach their database by.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its name.
    pub listener: String,
    is_there: watch::Receiver<bool>,
}

impl Database {
    /// Follows the nodes that fit the listener, in a task that the caller runs until `stop`. It ends as well when nobody has
    /// the database any more.
    pub fn follow(
        front: &str,
        listener: &str,
        target: Target,
        mut current: Current,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        // Not known yet counts as there: the first checks decide.
        let (publish, is_there) = watch::channel(true);
        let (front, name) = (front.to_owned(), listener.to_owned());
        let life = async move {
            while !publish.is_closed() {
                let is_starting = current
                    .borrow_and_update()
                    .nodes
                    .iter()
                    .any(|node| node.verdict == crate::balance::judge::Verdict::Starting);
                let is_there = is_starting || !fitting(&current.borrow(), target, |_| true).is_empty();
                if publish.send_replace(is_there) != is_there {
                    if is_there {
                        info!(front, listener = name, "database_back");
                    } else {
                        let effect = "stored answers go out past their time, other requests wait";
                        warn!(front, listener = name, effect, "database_gone");
                    }
                }
                if let Ok(Err(_)) = timeout(LOOK_AGAIN, current.changed()).await {
                    return;
                }
            }
        };
        let life = async move { stop.run_until_cancelled(life).await.unwrap_or_default() };
        (Self { listener: listener.to_owned(), is_there }, life)
    }

    /// Whether a node fits the listener.
    #[must_use]
    pub fn is_there(&self) -> bool {
        *self.is_there.borrow()
    }

    /// Waits for that until `deadline`. Cancel safe.
    pub async fn wait(&self, deadline: Instant) -> bool {
        let mut is_there = self.is_there.clone();
        matches!(timeout_at(deadline, is_there.wait_for(|is_there| *is_there)).await, Ok(Ok(_)))
    }
}
