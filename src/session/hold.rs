//! The wait of a session for which there is no node now ("hold"): first come, first served, bounded in number and time.

use std::future::pending;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::base::id::NodeId;
use crate::base::role::Target;
use crate::session::error::{Lack, SessionError};
use crate::session::place::{Choice, Chosen, choose, is_there_another};
use crate::session::queue::Ticket;
use crate::session::shared::{Listener, Shared};
use crate::telemetry::count::Counted;
use crate::topology::choose::fitting;
use crate::topology::{Node, Topology};

/// Before a node that has just refused is tried again.
const BREATH: Duration = Duration::from_millis(50);
/// Before it is looked again at what nobody has told anything new of.
const LONGER: Duration = Duration::from_secs(1);

/// A session's wait for a node: begins when it first has to.
#[derive(Debug)]
pub struct Hold<'a> {
    shared: &'a Shared,
    listener: &'a Listener,
    /// Kept until the session has a node.
    ticket: Option<(Ticket<'a>, Counted)>,
    waited: Duration,
}

impl<'a> Hold<'a> {
    /// A session that does not wait yet.
    #[must_use]
    pub const fn new(shared: &'a Shared, listener: &'a Listener) -> Self {
        Self { shared, listener, ticket: None, waited: Duration::ZERO }
    }

    /// A node and a place on it, at once or after a wait, for a client at `source`, who leaves when `gone` resolves. After a
    /// wait nodes in `tried` may be tried again, for something has changed.
    ///
    /// Cancel safe: a place that was not given out is free.
    ///
    /// # Errors
    /// No node came to fit in time, too many wait already, the client left, or pgsplit is stopping.
    pub async fn place(
        &mut self,
        source: IpAddr,
        gone: impl Future<Output = ()>,
        tried: &mut Vec<NodeId>,
    ) -> Result<Choice, SessionError> {
        // Who has been refused by a node has been here before those in line.
        let may_go_first = !tried.is_empty() || !self.listener.queue.has_standing();
        if may_go_first
            && !self.listener.is_paused()
            && let Chosen::Node(choice) = choose(self.listener, source, tried)
        {
            return Ok(choice);
        }
        self.stand_in_line(tried)?;
        let began = Instant::now();
        let choice = self.wait(source, gone, tried).await;
        self.waited += began.elapsed();
        choice
    }

    async fn wait(
        &self,
        source: IpAddr,
        gone: impl Future<Output = ()>,
        tried: &mut Vec<NodeId>,
    ) -> Result<Choice, SessionError> {
        let (shared, listener) = (self.shared, self.listener);
        let Some((ticket, _)) = &self.ticket else { return Err(SessionError::LeftQueue) };
        // A listener that is gone has no other rules: who waits there goes on by those it came with.
        let has_rules = shared.setup().listeners.iter().any(|other| other.index == listener.index);
        let is_refused = is_refused(listener, tried);
        let mut until = ticket.since() + listener.sessions().queue_timeout;
        if !is_refused && is_there_another(listener, tried) {
            until = until.max(Instant::now() + LONGER);
        }
        let mut gone = pin!(gone);
        let mut turn = pin!(async {
            if tried.is_empty() {
                ticket.turn().await;
            } else {
                // It has been first in line before, and would only be in the way of those whom nobody has refused.
                ticket.step_aside();
            }
            if is_refused {
                news(listener).await;
                tried.clear();
            }
            look(listener, source, tried).await
        });
        let choice = loop {
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Err(SessionError::Drained),
                () = &mut gone => return Err(SessionError::LeftQueue),
                () = listener.is_outdated.cancelled(), if has_rules => return Err(SessionError::OtherRules),
                choice = &mut turn => break choice,
                () = sleep_until(until) => {
                    if is_refused || listener.is_paused() || !is_there_another(listener, &[]) {
                        return Err(self.give_up(is_refused));
                    }
                    until = Instant::now() + LONGER;
                }
            }
        };
        ticket.step_aside();
        Ok(choice)
    }

    /// How long it has waited.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// Takes a ticket, unless it has one.
    fn stand_in_line(&mut self, tried: &[NodeId]) -> Result<(), SessionError> {
        let (listener, sessions) = (self.listener, self.listener.sessions());
        if self.ticket.is_none() {
            let is_soon = !listener.is_paused() && is_there_another(listener, tried);
            if sessions.queue_timeout.is_zero() && !is_soon {
                return Err(self.give_up(is_refused(listener, tried)));
            }
            // The listener's own limit bounds those who only wait for others to be logged in.
            let limit = (!is_soon).then_some(sessions.queue_size);
            let Some(ticket) = listener.queue.enter(limit) else { return Err(self.queue_full()) };
            self.ticket = Some((ticket, listener.metrics.waiting_guard()));
        }
        Ok(())
    }

    fn give_up(&self, is_refused: bool) -> SessionError {
        if self.listener.is_paused() {
            return SessionError::QueueTimeout(self.lack());
        }
        if !self.lacks_place(is_refused) {
            return SessionError::NoNode { lack: self.lack(), hint: self.what_still_works() };
        }
        let waited = self.ticket.as_ref().map_or(Duration::ZERO, |(ticket, _)| ticket.since().elapsed());
        let (listener, nodes) = self.listener_and_nodes();
        SessionError::QueueTimeout(Lack::PlaceInTime { seconds: waited.as_secs(), listener, nodes })
    }

    /// Whether nodes fit, and what this session lacks is a place on one of them.
    fn lacks_place(&self, is_refused: bool) -> bool {
        let topology = self.listener.watched.current.borrow().clone();
        let mut roomy = Topology::clone(&topology);
        roomy.nodes.iter_mut().for_each(|node| node.full_until = None);
        let is_crowded =
            |node: &&Node| topology.node(node.id).is_some_and(|node| node.is_full() || !node.has_room());
        let nodes = fitting(&roomy, self.listener.config.target, |_| true);
        (!is_refused && !nodes.is_empty()) || nodes.iter().any(is_crowded)
    }

    /// Too many wait already.
    fn queue_full(&self) -> SessionError {
        let waiting = self.listener.sessions().queue_size;
        let lack = if !self.listener.is_paused() && self.lacks_place(false) {
            let (listener, nodes) = self.listener_and_nodes();
            Lack::Place { listener, nodes }
        } else {
            self.lack()
        };
        SessionError::QueueFull { waiting, lack }
    }

    /// That the listener is paused; else what was looked for, and what every node is instead.
    fn lack(&self) -> Lack {
        let (listener, nodes) = self.listener_and_nodes();
        if self.listener.is_paused() {
            return Lack::Paused(listener);
        }
        let wanted = match self.listener.config.target {
            Target::Any | Target::PreferStandby => "node",
            target => target.as_str(),
        };
        Lack::Node { wanted, listener, nodes }
    }

    /// The listener's name, and what every node of its cluster is, in words.
    fn listener_and_nodes(&self) -> (String, String) {
        let topology = self.listener.watched.current.borrow().clone();
        let nodes = topology.nodes.iter().map(Node::in_words).collect::<Vec<_>>();
        (self.listener.config.name.clone(), nodes.join("; "))
    }

    /// Other listeners of the cluster that have a node.
    fn what_still_works(&self) -> String {
        let works = |other: &&Arc<Listener>| {
            other.index != self.listener.index
                && other.watched.index == self.listener.watched.index
                && is_there_another(other, &[])
        };
        let words =
            |other: &Arc<Listener>| format!("\"{}\" on port {}", other.config.name, other.addr.port());
        let setup = self.shared.setup();
        let names: Vec<_> = setup.listeners.iter().filter(works).map(words).collect();
        if names.is_empty() { String::new() } else { format!("Listener {} still works.", names.join(", ")) }
    }
}

/// Looks for a node until there is one; for who is first in line, or was. Cancel safe.
async fn look(listener: &Listener, source: IpAddr, tried: &mut Vec<NodeId>) -> Choice {
    let mut current = listener.watched.current.clone();
    let mut pause = listener.pause.subscribe();
    loop {
        // News that comes from here on ends the wait, also when it comes before the wait begins.
        current.mark_unchanged();
        pause.mark_unchanged();
        let mut freed = pin!(listener.watched.freed.notified());
        freed.as_mut().enable();
        if !listener.is_paused()
            && let Chosen::Node(choice) = choose(listener, source, tried)
        {
            return choice;
        }
        tokio::select! {
            biased;
            changed = current.changed() => match changed {
                Ok(()) => tried.clear(),
                // Nobody is left who could say anything new.
                Err(_) => pending().await,
            },
            _ = pause.changed() => {}
            () = freed => {}
        }
    }
}

/// Whether every node that fits is among those that have refused the session.
fn is_refused(listener: &Listener, tried: &[NodeId]) -> bool {
    !tried.is_empty() && !is_there_another(listener, tried)
}

/// Resolves when a node that has refused may think otherwise. Cancel safe.
async fn news(listener: &Listener) {
    let mut current = listener.watched.current.clone();
    current.mark_unchanged();
    tokio::select! {
        biased;
        _ = current.changed() => {}
        () = listener.watched.freed.notified() => {}
        () = sleep(LONGER) => return,
    }
    sleep(BREATH).await;
}

#[cfg(test)]
mod tests;
