//! When a session must leave its node although neither side has ended it, and how it is told.
//!
//! A session stays through most of what keeps new ones away. What it is given notice for, and whether it goes at once or
//! between two transactions, is for the cluster's `sessions.on_…` to say; that pgsplit stops is one more reason.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::time::sleep;

use crate::config::{OnTrouble, Sessions};
use crate::pg::error_response::Fatal;
use crate::pg::sqlstate;
use crate::session::error::Ending;
use crate::session::relay::Relay;
use crate::session::shared::{Listener, Shared};
use crate::topology::trouble::{Trouble, Troubles};

/// For so long nothing must have been said on a session before it counts as being between two transactions: a client
/// that sends several at a time has them answered one after the other.
const QUIET: Duration = Duration::from_secs(1);

/// Why a session must leave its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// The node is down.
    NodeDown,
    /// The session is there to write, and the node is not the primary any more.
    Demoted,
    /// The node is too far behind.
    Lagging,
    /// The node is to be left.
    Leaving,
    /// pgsplit is stopping.
    Stopping,
}

/// A session's stay on its node.
#[derive(Debug)]
pub struct Stay<'a> {
    shared: &'a Shared,
    listener: &'a Listener,
    troubles: Troubles,
    /// It has been asked to go when it can.
    is_asked: bool,
    /// Bytes that had been passed on when it was last asked.
    bytes: Option<(u64, u64)>,
}

impl<'a> Stay<'a> {
    /// A stay that has just begun, on the node with these troubles.
    #[must_use]
    pub const fn new(shared: &'a Shared, listener: &'a Listener, troubles: Troubles) -> Self {
        Self { shared, listener, troubles, is_asked: false, bytes: None }
    }

    /// Drives `step` to its end, unless the session must leave at once before that. Cancel safe if `step` is.
    ///
    /// # Errors
    /// Why it must leave; `step` has been dropped.
    pub async fn unless_evicted<T>(&mut self, step: impl Future<Output = T>) -> Result<T, Eviction> {
        let mut step = pin!(step);
        loop {
            match self.while_unasked(step.as_mut()).await {
                Ok(done) => return Ok(done),
                Err((OnTrouble::Close, why)) => return Err(why),
                Err(_) => {}
            }
        }
    }

    /// Relays until the end, unless the session must leave before that, be it only between two transactions.
    ///
    /// Not cancel safe: see [`Relay::run`].
    ///
    /// # Errors
    /// Why it must leave.
    pub async fn relay(&mut self, relay: &mut Relay) -> Result<Ending, Eviction> {
        loop {
            let asked = {
                let run = pin!(relay.run());
                self.while_unasked(run).await
            };
            match asked {
                Ok(ending) => return Ok(ending),
                Err((OnTrouble::Close, why)) => return Err(why),
                Err((_, why)) => {
                    let before = self.bytes.replace(relay.bytes());
                    if relay.is_between_transactions() && before == self.bytes {
                        return Err(why);
                    }
                }
            }
        }
    }

    /// Drives `step`, until it has ended or the session is asked to leave.
    ///
    /// A session at work comes by here for every packet, and hardly ever is it asked: the future that waits for that is
    /// polled once, to be woken by it, and then only when there is news.
    async fn while_unasked<T>(
        &mut self,
        mut step: std::pin::Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, (OnTrouble, Eviction)> {
        let (shared, mut seen, is_asked) = (self.shared, self.troubles.clone(), self.is_asked);
        let mut is_awake = true;
        let mut notice = pin!(self.notice());
        poll_fn(|cx| {
            if let Poll::Ready(done) = step.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            is_awake |= seen.has_changed().unwrap_or(false) || shared.is_ending.load(Ordering::Relaxed);
            if !is_awake {
                return Poll::Pending;
            }
            // Who is asked to go when it can is asked again after a time.
            is_awake = is_asked;
            seen.mark_unchanged();
            notice.as_mut().poll(cx).map(Err)
        })
        .await
    }

    /// Resolves when the session is to leave: at once, or when it can, and then again and again. Cancel safe.
    async fn notice(&mut self) -> (OnTrouble, Eviction) {
        loop {
            let (how, why) = self.order();
            match how {
                OnTrouble::Close => return (how, why),
                OnTrouble::Drain if !std::mem::replace(&mut self.is_asked, true) => return (how, why),
                OnTrouble::Drain => tokio::select! {
                    () = sleep(QUIET) => return (how, why),
                    () = self.news() => {}
                },
                OnTrouble::Keep => {
                    self.is_asked = false;
                    self.news().await;
                }
            }
        }
    }

    /// Resolves when it may be that the session is to leave.
    async fn news(&mut self) {
        let Self { shared, troubles, .. } = self;
        let is_last_call = shared.last_call.is_cancelled();
        tokio::select! {
            Ok(()) = troubles.changed() => {}
            () = shared.last_call.cancelled(), if !is_last_call => {}
            () = shared.kill.cancelled() => {}
        }
    }

    /// What becomes of the session now, and why.
    fn order(&mut self) -> (OnTrouble, Eviction) {
        let trouble = *self.troubles.borrow_and_update();
        let order = order(trouble, self.listener.sessions(), self.listener.is_for_primary());
        if self.shared.kill.is_cancelled() {
            return (OnTrouble::Close, Eviction::Stopping);
        }
        if order.0 == OnTrouble::Keep && self.shared.last_call.is_cancelled() {
            return (OnTrouble::Drain, Eviction::Stopping);
        }
        order
    }
}

/// What becomes of a session on a node with this trouble. Of several reasons the most urgent counts.
fn order(trouble: Trouble, policy: &Sessions, is_for_primary: bool) -> (OnTrouble, Eviction) {
    let reasons = [
        (trouble.is_unreachable, policy.on_down, Eviction::NodeDown),
        (trouble.is_demoted && is_for_primary, policy.on_demote, Eviction::Demoted),
        (trouble.is_leaving, policy.on_leave, Eviction::Leaving),
        (trouble.is_lagging, policy.on_lag, Eviction::Lagging),
    ];
    let given = reasons.into_iter().filter(|(is_so, ..)| *is_so).map(|(_, how, why)| (how, why));
    given.reduce(|a, b| if a.0 < b.0 { b } else { a }).unwrap_or((OnTrouble::Keep, Eviction::Stopping))
}

impl Eviction {
    /// What the client is told; `node` is its name.
    #[must_use]
    pub fn fatal(self, node: &str) -> Fatal {
        let message = match self {
            Self::NodeDown => format!("terminating connection because node \"{node}\" is down"),
            Self::Demoted => {
                format!("terminating connection because node \"{node}\" is no longer the primary")
            }
            Self::Lagging => format!("terminating connection because node \"{node}\" is too far behind"),
            Self::Leaving => format!("terminating connection because node \"{node}\" is going to be left"),
            Self::Stopping => "terminating connection because this balancer is shutting down".to_owned(),
        };
        Fatal { code: sqlstate::ADMIN_SHUTDOWN, message, hint: "Connect again.".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn decided(policy: &str, trouble: Trouble, is_for_primary: bool) -> (OnTrouble, Eviction) {
        let yaml = format!("nodes: [{{addr: '127.0.0.1:1', role: primary}}]\nsessions: {{{policy}}}");
        let config = Config::from_yaml(&yaml, "test", &|_| None).unwrap();
        order(trouble, &config.clusters[0].sessions, is_for_primary)
    }

    #[test]
    fn sessions_go_for_what_makes_them_useless_and_stay_through_the_rest() {
        let none = Trouble::default();
        let down = Trouble { is_unreachable: true, ..none };
        let demoted = Trouble { is_demoted: true, ..none };
        let slow = Trouble { is_lagging: true, is_leaving: true, ..none };
        assert_eq!(decided("", none, true).0, OnTrouble::Keep);
        assert_eq!(decided("", down, false), (OnTrouble::Close, Eviction::NodeDown));
        assert_eq!(decided("", demoted, true), (OnTrouble::Close, Eviction::Demoted));
        assert_eq!(decided("", demoted, false).0, OnTrouble::Keep, "who only reads");
        assert_eq!(decided("", slow, true).0, OnTrouble::Keep);
    }

    #[test]
    fn of_several_reasons_the_most_urgent_counts() {
        let all = Trouble { is_unreachable: true, is_demoted: true, is_lagging: true, is_leaving: true };
        let policy = |words| decided(words, all, true);
        assert_eq!(policy(""), (OnTrouble::Close, Eviction::NodeDown));
        assert_eq!(policy("on_down: keep"), (OnTrouble::Close, Eviction::Demoted));
        assert_eq!(
            policy("on_down: keep, on_demote: drain, on_lag: close"),
            (OnTrouble::Close, Eviction::Lagging)
        );
        assert_eq!(
            policy("on_down: keep, on_demote: keep, on_leave: drain"),
            (OnTrouble::Drain, Eviction::Leaving)
        );
        assert_eq!(policy("on_down: keep, on_demote: keep").0, OnTrouble::Keep);
    }
}
