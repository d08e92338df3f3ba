//! The wait of a session for which there is no node now ("hold"): first come, first served, bounded in number and time.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::base::id::NodeId;
use crate::base::role::Target;
use crate::session::error::SessionError;
use crate::session::negotiate::Client;
use crate::session::place::{Choice, Chosen, choose, is_there_another};
use crate::session::queue::Ticket;
use crate::session::shared::{Listener, Shared};
use crate::telemetry::count::Counted;
use crate::topology::choose::fitting;
use crate::topology::{Node, Topology};

/// Before a node that has just refused is tried again.
const BREATH: Duration = Duration::from_millis(50);
/// Who only waits for others to be logged in is not sent away for that. Until it is looked at again.
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

    /// A node and a place on it, at once or after a wait. After a wait nodes in `tried` may be tried again, for
    /// something has changed. Cancel safe: a place that was not given out is free.
    ///
    /// # Errors
    /// No node came to fit in time, too many wait already, the client left, or pgsplit is stopping.
    pub async fn place(&mut self, client: &Client, tried: &mut Vec<NodeId>) -> Result<Choice, SessionError> {
        // Who has been refused by a node has been here before those in line.
        let may_go_first = !tried.is_empty() || !self.listener.queue.has_standing();
        if may_go_first
            && !self.listener.is_paused()
            && let Chosen::Node(choice) = choose(self.listener, client.peer().ip(), tried)
        {
            return Ok(choice);
        }
        self.stand_in_line(tried)?;
        let began = Instant::now();
        let choice = self.wait(client, tried).await;
        self.waited += began.elapsed();
        choice
    }

    async fn wait(&self, client: &Client, tried: &mut Vec<NodeId>) -> Result<Choice, SessionError> {
        let (shared, listener) = (self.shared, self.listener);
        let is_refused = !tried.is_empty();
        let Some((ticket, _)) = &self.ticket else { return Err(SessionError::LeftQueue) };
        let mut until = ticket.since() + listener.sessions().queue_timeout;
        let mut turn = pin!(async {
            ticket.turn().await;
            look(listener, client, tried).await
        });
        let choice = loop {
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Err(SessionError::Drained),
                () = client.gone() => return Err(SessionError::LeftQueue),
                choice = &mut turn => break choice,
                () = sleep_until(until) => {
                    if is_refused || listener.is_paused() || !is_there_another(listener, &[]) {
                        return Err(self.give_up());
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

    /// Takes a ticket, or its old place again.
    fn stand_in_line(&mut self, tried: &[NodeId]) -> Result<(), SessionError> {
        let (listener, sessions) = (self.listener, self.listener.sessions());
        if self.ticket.is_none() {
            let is_soon = !listener.is_paused() && is_there_another(listener, tried);
            if sessions.queue_timeout.is_zero() && !is_soon {
                return Err(self.give_up());
            }
            // The listener's own limit bounds those who only wait for others to be logged in.
            let limit = (!is_soon).then_some(sessions.queue_size);
            let Some(ticket) = listener.queue.enter(limit) else {
                let (limit, why) = (sessions.queue_size, self.why());
                return Err(SessionError::QueueFull(format!("{limit} sessions wait already: {why}")));
            };
            self.ticket = Some((ticket, self.shared.metrics.listener(listener.index).waiting_guard()));
        }
        if let Some((ticket, _)) = &self.ticket {
            ticket.step_back();
        }
        Ok(())
    }

    fn give_up(&self) -> SessionError {
        if self.listener.is_paused() {
            return SessionError::QueueTimeout(self.why());
        }
        let topology = self.listener.watched.current.borrow().clone();
        let mut roomy = Topology::clone(&topology);
        roomy.nodes.iter_mut().for_each(|node| node.full_until = None);
        let is_crowded =
            |node: &&Node| topology.node(node.id).is_some_and(|node| node.is_full() || !node.has_room());
        if !fitting(&roomy, self.listener.config.target, |_| true).iter().any(is_crowded) {
            return SessionError::NoNode { text: self.why(), hint: self.what_still_works() };
        }
        let waited = self.ticket.as_ref().map_or(Duration::ZERO, |(ticket, _)| ticket.since().elapsed());
        let (seconds, name) = (waited.as_secs(), &self.listener.config.name);
        let nodes = in_words(&topology);
        SessionError::QueueTimeout(format!(
            "waited {seconds}s for a free place on listener \"{name}\": {nodes}"
        ))
    }

    /// That the listener is paused; else what was looked for, and what every node is instead.
    fn why(&self) -> String {
        if self.listener.is_paused() {
            return format!("listener \"{}\" is paused", self.listener.config.name);
        }
        let topology = self.listener.watched.current.borrow().clone();
        let wanted = match self.listener.config.target {
            Target::Any | Target::PreferStandby => "node",
            target => target.as_str(),
        };
        format!("no live {wanted} for listener \"{}\": {}", self.listener.config.name, in_words(&topology))
    }

    /// Other listeners of the cluster that have a node.
    fn what_still_works(&self) -> String {
        let works = |other: &&Listener| {
            other.index != self.listener.index
                && other.config.cluster == self.listener.config.cluster
                && is_there_another(other, &[])
        };
        let words = |other: &Listener| format!("\"{}\" on port {}", other.config.name, other.addr.port());
        let names: Vec<_> = self.shared.listeners.iter().filter(works).map(words).collect();
        if names.is_empty() { String::new() } else { format!("Listener {} still works.", names.join(", ")) }
    }
}

fn in_words(topology: &Topology) -> String {
    topology.nodes.iter().map(Node::in_words).collect::<Vec<_>>().join("; ")
}

/// Looks for a node until there is one; for who is first in line. Cancel safe.
async fn look(listener: &Listener, client: &Client, tried: &mut Vec<NodeId>) -> Choice {
    let mut current = listener.watched.current.clone();
    let mut pause = listener.pause.subscribe();
    loop {
        // News that comes from here on ends the wait, also when it comes before the wait begins.
        current.mark_unchanged();
        pause.mark_unchanged();
        let mut freed = pin!(listener.watched.freed.notified());
        freed.as_mut().enable();
        if !listener.is_paused()
            && let Chosen::Node(choice) = choose(listener, client.peer().ip(), tried)
        {
            return choice;
        }
        tokio::select! {
            _ = current.changed() => {}
            _ = pause.changed() => {}
            () = freed => {}
        }
        if !tried.is_empty() {
            tried.clear();
            sleep(BREATH).await;
        }
    }
}
