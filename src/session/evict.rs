//! When a session must leave its node although neither side has ended it, and how it is told.
//!
//! A session stays through most of what keeps new ones away. What it is given notice for, and whether it goes at once or
//! between two transactions, is for the cluster's `sessions.on_…` to say; that pgsplit stops is one more reason.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::base::board::Watch;
use crate::config::{OnTrouble, Sessions};
use crate::pg::error_response::Fatal;
use crate::pg::sqlstate;
use crate::session::card::Card;
use crate::session::error::Ending;
use crate::session::relay::Relay;
use crate::session::shared::{Listener, Shared, Stage};
use crate::topology::trouble::{Trouble, Troubles};

/// A session that is to leave when it can, and has had its answers, is not listened to any more; when nothing comes from
/// its node for so long either, it goes. A client that sends several transactions at a time has them answered one after the
/// other.
const QUIET: Duration = Duration::from_secs(1);

/// What a session is told that somebody has ended by hand; much as a server says it for `pg_terminate_backend`.
pub(super) const KILLED: &str = "terminating connection by the administrator's command";

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
    /// Somebody has taken the node out of use.
    Draining,
    /// pgsplit is stopping.
    Stopping,
    /// Somebody has ended it by hand.
    Killed,
}

/// What a session is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// To stay, after all.
    Stay,
    /// To leave when it can.
    Finish(Eviction),
    /// To go on in another process.
    Move,
    /// To leave at once.
    Leave(Eviction),
}

/// How relaying came to its end.
#[derive(Debug)]
pub enum Parting {
    /// Both sides have ended.
    Ended(Ending),
    /// The session must leave its node.
    Evicted(Eviction),
    /// It is to go on in another process; if it does not, it can be relayed again.
    Moves,
}

/// A session's stay on its node.
#[derive(Debug)]
pub struct Stay<'a> {
    listener: Arc<Listener>,
    card: &'a Card,
    trouble: Watch<Trouble>,
    stage: Watch<Stage>,
    /// Since it has been told to leave when it can: the time until it is told again. Boxed, as few sessions ever have it.
    told_again: Option<Pin<Box<Sleep>>>,
}

impl<'a> Stay<'a> {
    /// A stay that has just begun, on the node with these troubles.
    #[must_use]
    pub fn new(shared: &Shared, listener: Arc<Listener>, card: &'a Card, troubles: &Troubles) -> Self {
        Self { listener, card, trouble: troubles.watch(), stage: shared.stage.watch(), told_again: None }
    }

    /// The listener it came through, in the version whose rules it goes by.
    #[must_use]
    pub fn listener(&self) -> Arc<Listener> {
        Arc::clone(&self.listener)
    }

    /// Drives `step` to its end, unless the session must leave at once before that. Cancel safe if `step` is.
    ///
    /// # Errors
    /// Why it must leave; `step` has been dropped.
    pub async fn unless_evicted<T>(&mut self, step: impl Future<Output = T>) -> Result<T, Eviction> {
        let mut step = pin!(step);
        loop {
            match self.until_told(false, step.as_mut()).await {
                Ok(done) => return Ok(done),
                Err(Order::Leave(why)) => return Err(why),
                Err(Order::Stay | Order::Finish(_) | Order::Move) => {}
            }
        }
    }

    /// Relays until the end, unless the session must leave before that, be it only between two transactions, or is to move.
    ///
    /// Not cancel safe: see [`Relay::run`].
    pub async fn relay(&mut self, relay: &mut Relay<'_>) -> Parting {
        let mut bytes = None;
        loop {
            let told = {
                let run = pin!(relay.run());
                self.until_told(true, run).await
            };
            match told {
                Ok(ending) => return Parting::Ended(ending),
                // A node that has ended the session already cannot be left.
                Err(Order::Leave(why)) => {
                    return relay.ended_by_node().map_or(Parting::Evicted(why), Parting::Ended);
                }
                Err(Order::Move) => return Parting::Moves,
                Err(Order::Finish(why)) => {
                    let before = bytes.replace(relay.bytes());
                    if relay.is_between_transactions() && before == bytes {
                        return Parting::Evicted(why);
                    }
                    relay.finish(before.is_some() || !why.has_time());
                }
                Err(Order::Stay) => relay.finish(false),
            }
        }
    }

    /// Drives `step`, until it has ended or the session is told something.
    async fn until_told<T>(
        &mut self,
        may_move: bool,
        mut step: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Order> {
        poll_fn(|cx| match step.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_order(cx, may_move).map(Err),
        })
        .await
    }

    /// Ready when the session is told something; to finish, again and again.
    ///
    /// A session at work comes by here for every packet, and hardly ever is it told anything.
    fn poll_order(&mut self, cx: &mut Context<'_>, may_move: bool) -> Poll<Order> {
        let is_news = self.trouble.poll_news(cx).is_ready() | self.stage.poll_news(cx).is_ready();
        if self.card.is_killed() {
            return Poll::Ready(Order::Leave(Eviction::Killed));
        }
        // What is the matter with its node is the matter there, too.
        if may_move && self.card.is_to_move() {
            return Poll::Ready(Order::Move);
        }
        if !is_news && self.told_again.is_none() {
            return Poll::Pending;
        }
        let order = self.order_now();
        match (order, &mut self.told_again) {
            (Order::Stay, None) => return Poll::Pending,
            (Order::Stay, Some(_)) => self.told_again = None,
            (Order::Leave(_) | Order::Move, _) => {}
            (Order::Finish(_), None) => self.told_again = Some(Box::pin(sleep(QUIET))),
            (Order::Finish(_), Some(again)) => {
                ready!(again.as_mut().poll(cx));
                again.as_mut().reset(Instant::now() + QUIET);
            }
        }
        Poll::Ready(order)
    }

    fn order_now(&self) -> Order {
        let stage = self.stage.now();
        if stage == Stage::Over {
            return Order::Leave(Eviction::Stopping);
        }
        match order_for(self.trouble.now(), self.listener.sessions(), self.listener.is_for_primary()) {
            Order::Stay if stage == Stage::LastCall => Order::Finish(Eviction::Stopping),
            order => order,
        }
    }
}

/// What a session on a node with this trouble is told. Of several reasons the most urgent counts.
fn order_for(trouble: Trouble, policy: &Sessions, is_for_primary: bool) -> Order {
    let reasons = [
        (trouble.is_unreachable, policy.on_down, Eviction::NodeDown),
        (trouble.is_demoted && is_for_primary, policy.on_demote, Eviction::Demoted),
        (trouble.is_draining, policy.on_drain, Eviction::Draining),
        (trouble.is_leaving, policy.on_leave, Eviction::Leaving),
        (trouble.is_lagging, policy.on_lag, Eviction::Lagging),
    ];
    let given = || reasons.iter().filter(|(is_so, ..)| *is_so);
    let first = |action| given().find(|(_, how, _)| *how == action).map(|(.., why)| *why);
    first(OnTrouble::Close)
        .map(Order::Leave)
        .or_else(|| first(OnTrouble::Drain).map(Order::Finish))
        .unwrap_or(Order::Stay)
}

impl Eviction {
    /// Whether nothing is lost by what the session still asks for a moment. Who has just logged in gets its first answer
    /// then, and who says nothing in that time is parted from without ever having been left unheard.
    const fn has_time(self) -> bool {
        matches!(self, Self::Draining)
    }

    /// What the client is told; `node` is its name.
    #[must_use]
    pub fn fatal(self, node: &str) -> Fatal {
        let message = match self {
            Self::NodeDown => format!("terminating connection because node \"{node}\" is down"),
            Self::Demoted => {
                format!("terminating connection because node \"{node}\" is no longer the primary")
            }
            Self::Lagging => format!("terminating connection because node \"{node}\" is too far behind"),
            Self::Leaving => {
                format!("terminating connection because the name of node \"{node}\" no longer leads to it")
            }
            Self::Draining => {
                format!("terminating connection because node \"{node}\" is being taken out of use")
            }
            Self::Stopping => "terminating connection because this balancer is shutting down".to_owned(),
            Self::Killed => KILLED.to_owned(),
        };
        // Who was ended by hand was ended for a reason, and is not asked to come back.
        let hint = if self == Self::Killed { "" } else { "Connect again." };
        Fatal { code: sqlstate::ADMIN_SHUTDOWN, message, hint: hint.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn told(policy: &str, trouble: Trouble, is_for_primary: bool) -> Order {
        let yaml = format!("nodes: [{{addr: '127.0.0.1:1', role: primary}}]\nsessions: {{{policy}}}");
        let config = Config::from_yaml(&yaml, "test", &|_| None).unwrap();
        order_for(trouble, &config.clusters[0].sessions, is_for_primary)
    }

    #[test]
    fn sessions_go_for_what_makes_them_useless_and_stay_through_the_rest() {
        let none = Trouble::default();
        let down = Trouble { is_unreachable: true, ..none };
        let demoted = Trouble { is_demoted: true, ..none };
        let slow = Trouble { is_lagging: true, is_leaving: true, ..none };
        assert_eq!(told("", none, true), Order::Stay);
        assert_eq!(told("", down, false), Order::Leave(Eviction::NodeDown));
        assert_eq!(told("", demoted, true), Order::Leave(Eviction::Demoted));
        assert_eq!(told("", demoted, false), Order::Stay, "who only reads");
        assert_eq!(told("", slow, true), Order::Stay);
        let drained = Trouble { is_draining: true, ..none };
        assert_eq!(told("", drained, false), Order::Finish(Eviction::Draining));
        assert_eq!(told("on_drain: keep", drained, false), Order::Stay);
        assert_eq!(told("on_drain: close", drained, true), Order::Leave(Eviction::Draining));
    }

    #[test]
    fn of_several_reasons_the_most_urgent_counts() {
        let all = Trouble {
            is_unreachable: true,
            is_demoted: true,
            is_lagging: true,
            is_leaving: true,
            is_draining: true,
        };
        let told = |policy: &str| told(policy, all, true);
        assert_eq!(told(""), Order::Leave(Eviction::NodeDown));
        assert_eq!(told("on_down: keep"), Order::Leave(Eviction::Demoted));
        assert_eq!(told("on_down: keep, on_demote: drain, on_lag: close"), Order::Leave(Eviction::Lagging));
        assert_eq!(told("on_down: keep, on_demote: keep"), Order::Finish(Eviction::Draining));
        let told = |rest: &str| told(&format!("on_down: keep, on_demote: keep, on_drain: keep{rest}"));
        assert_eq!(told(", on_leave: drain"), Order::Finish(Eviction::Leaving));
        assert_eq!(told(""), Order::Stay);
    }
}
