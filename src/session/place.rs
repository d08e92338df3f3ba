//! A node for a session, and a place on it; when there is none, the wait for one ("hold").

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::balance::load::Place;
use crate::balance::pick::Candidate;
use crate::base::id::NodeId;
use crate::base::role::{Role, Target};
use crate::config;
use crate::session::error::SessionError;
use crate::session::negotiate::Client;
use crate::session::shared::{Listener, Shared};
use crate::topology::choose::fitting;
use crate::topology::{Node, Topology};

/// Before a node that has just refused is tried again.
const BREATH: Duration = Duration::from_millis(50);

/// A node chosen for a session, as it was seen at that moment.
#[derive(Debug)]
pub struct Choice {
    /// Which node.
    pub id: NodeId,
    /// What the file says of it.
    pub config: Arc<config::Node>,
    /// Where it is.
    pub addrs: Arc<[SocketAddr]>,
    /// Its role, as far as known.
    pub role: Option<Role>,
    /// The session's place on it.
    pub place: Place,
}

/// Chooses among the nodes that fit, by the listener's balance, leaving out those in `tried`.
pub fn choose(listener: &Listener, source: IpAddr, tried: &[NodeId]) -> Option<Choice> {
    let topology = Arc::clone(&listener.watched.current.borrow());
    let mut passed_over = tried.to_vec();
    loop {
        let allowed = |node: &Node| !passed_over.contains(&node.id) && node.has_room();
        let nodes = fitting(&topology, listener.config.target, allowed);
        let candidate = |node: &&Node| Candidate {
            index: node.id.place,
            weight: node.config.weight,
            load: node.load.sessions(),
        };
        let candidates: Vec<_> = nodes.iter().map(candidate).collect();
        let places = candidates.iter().map(|candidate| candidate.index + 1).max()?;
        let picked = {
            let mut picker = listener.picker.lock().unwrap_or_else(PoisonError::into_inner);
            picker.make_room(places);
            picker.pick(&candidates, source)?
        };
        let node = nodes.into_iter().find(|node| node.id.place == picked.index)?;
        let id = node.id;
        if let Some(place) = node.load.enter(node.config.max_connections) {
            let (config, addrs) = (Arc::clone(&node.config), Arc::clone(&node.addrs));
            return Some(Choice { id, config, addrs, role: node.role(), place });
        }
        // Somebody else took the last place in between.
        passed_over.push(id);
    }
}

/// Whether a session would find a node now, other than those in `tried`.
#[must_use]
pub fn is_there_another(listener: &Listener, tried: &[NodeId]) -> bool {
    let topology = listener.watched.current.borrow();
    let allowed = |node: &Node| !tried.contains(&node.id) && node.has_room();
    topology.nodes.iter().any(allowed) && !fitting(&topology, listener.config.target, allowed).is_empty()
}

/// Whether a node that a session is on its way to has got worse, so that the session would now be given another one, other
/// than those in `tried`.
#[must_use]
pub fn is_outclassed(topology: &Topology, listener: &Listener, id: NodeId, tried: &[NodeId]) -> bool {
    let is_well = |node: &Node| node.is_sound() && !node.is_superseded;
    let is_for_primary = matches!(listener.config.target, Target::Primary | Target::ReadWrite);
    // The usual case, for every session: asked without looking at all nodes.
    if topology.node(id).is_some_and(is_well) && (!is_for_primary || topology.primary == Some(id)) {
        return false;
    }
    let allowed = |node: &Node| node.id == id || (!tried.contains(&node.id) && node.has_room());
    let nodes = fitting(topology, listener.config.target, allowed);
    !nodes.is_empty() && nodes.iter().all(|node| node.id != id)
}

/// A session's wait for a node: begins when it first has to, and is bounded in time and number.
#[derive(Debug)]
pub struct Hold<'a> {
    shared: &'a Shared,
    listener: &'a Listener,
    ticket: Option<Ticket<'a>>,
    waited: Duration,
}

/// A place in the queue. Kept until the session has a node: one that was refused again goes on waiting where it
/// was.
#[derive(Debug)]
struct Ticket<'a> {
    listener: &'a Listener,
    number: u64,
    since: Instant,
    _counted: crate::telemetry::count::Counted,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.listener.waiting.lock().unwrap_or_else(PoisonError::into_inner).leave(self.number);
    }
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
        if let Some(choice) = choose(self.listener, client.peer().ip(), tried) {
            return Ok(choice);
        }
        let deadline = self.begin()?;
        let began = Instant::now();
        let choice = self.wait(client, tried, deadline).await;
        self.waited += began.elapsed();
        choice
    }

    async fn wait(
        &self,
        client: &Client,
        tried: &mut Vec<NodeId>,
        until: Instant,
    ) -> Result<Choice, SessionError> {
        let mut current = self.listener.watched.current.clone();
        loop {
            // News that comes from here on ends the wait, also when it comes before the wait begins.
            current.mark_unchanged();
            let mut freed = pin!(self.listener.watched.freed.notified());
            freed.as_mut().enable();
            if let Some(choice) = choose(self.listener, client.peer().ip(), tried) {
                return Ok(choice);
            }
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return Err(SessionError::Drained),
                () = client.gone() => return Err(SessionError::LeftQueue),
                () = sleep_until(until) => return Err(self.give_up()),
                _ = current.changed() => {}
                () = freed => {}
            }
            if !tried.is_empty() {
                tried.clear();
                sleep(BREATH).await;
            }
        }
    }

    /// How long it has waited.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// Takes a ticket, unless it has one; the time until which it may wait.
    fn begin(&mut self) -> Result<Instant, SessionError> {
        let sessions = self.listener.sessions();
        if self.ticket.is_none() {
            if sessions.queue_timeout.is_zero() {
                return Err(self.give_up());
            }
            let mut waiting = self.listener.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(number) = waiting.enter(sessions.queue_size) else {
                let (limit, why) = (sessions.queue_size, self.why());
                return Err(SessionError::QueueFull(format!("{limit} sessions wait already: {why}")));
            };
            let counted = self.shared.metrics.listener(self.listener.index).waiting_guard();
            self.ticket =
                Some(Ticket { listener: self.listener, number, since: Instant::now(), _counted: counted });
        }
        let since = self.ticket.as_ref().map_or_else(Instant::now, |ticket| ticket.since);
        Ok(since + sessions.queue_timeout)
    }

    fn give_up(&self) -> SessionError {
        let topology = self.listener.watched.current.borrow().clone();
        let mut roomy = Topology::clone(&topology);
        roomy.nodes.iter_mut().for_each(|node| node.full_until = None);
        let is_crowded =
            |node: &&Node| topology.node(node.id).is_some_and(|node| node.is_full() || !node.has_room());
        if !fitting(&roomy, self.listener.config.target, |_| true).iter().any(is_crowded) {
            return SessionError::NoNode { text: self.why(), hint: self.what_still_works() };
        }
        let waited = self.ticket.as_ref().map_or(Duration::ZERO, |ticket| ticket.since.elapsed());
        let (seconds, name) = (waited.as_secs(), &self.listener.config.name);
        let nodes = in_words(&topology);
        SessionError::QueueTimeout(format!(
            "waited {seconds}s for a free place on listener \"{name}\": {nodes}"
        ))
    }

    /// What was looked for, and what every node is instead.
    fn why(&self) -> String {
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
