//! What is learnt about one session, its closing line in the log, and its closing counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{debug, info};

use crate::base::addr::addr_text;
use crate::base::id::NodeId;
use crate::base::role::Role;
use crate::base::text::escaped;
use crate::config::LogSessions;
use crate::pg::cancel_key::CancelKey;
use crate::pg::first_packet::Encryption;
use crate::pg::startup::Params;
use crate::session::cancel::HeldKey;
use crate::session::card::{self, Card, State, Tls};
use crate::session::connect::{Opening, Reached};
use crate::session::desk::Desk;
use crate::session::error::{Ending, SessionError};
use crate::session::moved::{KeyBody, OnNode as OnNodeRecord, Record};
use crate::session::names::{Names, name};
use crate::session::relay::parts::Stand;
use crate::session::shared::{Listener, Shared};
use crate::telemetry::count::Counted;
use crate::telemetry::labels::{End, Redispatch};
use crate::telemetry::pair::{PairMetrics, Traffic};

/// The account of one session. It is closed once; a session that panics leaves its line through `Drop`.
pub struct Account<'a> {
    shared: &'a Shared,
    listener: &'a Listener,
    /// What others may see of it, too.
    card: &'a Card,
    desk: &'a Desk,
    node: Option<OnNode>,
    waits: Waits,
    redispatches: Vec<&'static str>,
    sqlstate: Option<String>,
    key: Option<HeldKey>,
    is_closed: bool,
}

/// What its card does not have of its node.
struct OnNode {
    id: NodeId,
    asked: Instant,
    metrics: Arc<PairMetrics>,
}

/// How long the steps took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waits {
    queue: Duration,
    connect: Duration,
    login: Option<Duration>,
}

impl<'a> Account<'a> {
    /// Opens the account of a connection that has just been accepted.
    #[must_use]
    pub fn open(shared: &'a Shared, listener: &'a Listener, desk: &'a Desk, card: &'a Card) -> Self {
        let account = Self {
            shared,
            listener,
            card,
            desk,
            node: None,
            waits: Waits::default(),
            redispatches: Vec::new(),
            sqlstate: None,
            key: None,
            is_closed: false,
        };
        if shared.setup().config.log.sessions == LogSessions::Both {
            let (id, listener) = (card.id.to_string(), listener.config.name.as_str());
            info!(id, listener, client = %card.client, "session_start");
        }
        account
    }

    /// The account of a session that was served elsewhere until now, and goes on from there, on this node; what it counts in
    /// as long as the guard lives, and where it counts what it passes on. Nothing that was counted there is counted again.
    pub fn taken_up(
        shared: &'a Shared,
        listener: &'a Listener,
        desk: &'a Desk,
        (card, record): (&'a Card, &Record),
        id: NodeId,
    ) -> (Self, Counted, Arc<Traffic>) {
        let metrics = shared.metrics.pair(listener.index, listener.watched.index, id);
        let (active, traffic) = (metrics.active_guard(), metrics.traffic(desk.index));
        let key = record.key.as_ref().and_then(|key| CancelKey::parse(&key.0));
        let reasons = Redispatch::ALL.iter().map(|reason| reason.as_str());
        let account = Self {
            shared,
            listener,
            card,
            desk,
            node: Some(OnNode { id, asked: Instant::now(), metrics }),
            waits: record.waits.clone(),
            redispatches: reasons.filter(|reason| record.redispatches.iter().any(|r| r == reason)).collect(),
            sqlstate: record.sqlstate.as_ref().map(|code| escaped(code.as_bytes(), 5)),
            key: key.map(|key| shared.cancels.insert(key, record.node.addr)),
            is_closed: false,
        };
        (account, active, traffic)
    }

    /// All that another process must know to go on with it; `None`: it has no node.
    #[must_use]
    pub fn record(&self, stand: Stand) -> Option<Record> {
        let said = self.card.said();
        let node = said.node.as_ref()?;
        let (name, addr, role) = (node.config.name.clone(), node.addr, node.role);
        Some(Record {
            id: self.card.id.number(),
            listener: self.listener.config.name.clone(),
            client: self.card.client,
            age: self.card.accepted.elapsed(),
            names: said.names.as_deref().cloned(),
            tls: said.tls,
            node: OnNodeRecord { name, addr, role },
            waits: self.waits.clone(),
            redispatches: self.redispatches.iter().map(|&reason| reason.to_owned()).collect(),
            sqlstate: self.sqlstate.clone(),
            key: self.key.as_ref().map(|key| KeyBody(key.key().body())),
            bytes: self.card.moved.bytes(),
            stand,
        })
    }

    /// It was not taken up after all: it goes on where it was, and nothing is to be counted here.
    pub fn forget(mut self) {
        self.is_closed = true;
    }

    /// What others may see of it.
    #[must_use]
    pub const fn card(&self) -> &'a Card {
        self.card
    }

    /// Whose session it is to be.
    pub fn set_params(&mut self, params: &Params) {
        let names = self.desk.names.share(Names::of(params));
        self.card.said().names = Some(names);
    }

    /// What the server says the application is called.
    pub fn set_application_name(&mut self, value: &[u8]) {
        let mut said = self.card.said();
        let (Some(application), Some(names)) = (name(value), &said.names) else { return };
        if names.application.as_ref() != Some(&application) {
            let names = Names { application: Some(application), ..Names::clone(names) };
            said.names = Some(self.desk.names.share(names));
        }
    }

    /// How the session is encrypted, once its last opening has been taken.
    pub fn set_encryption(&mut self, opening: &Opening) {
        self.card.said().tls = match opening {
            Opening::Startup { .. } => Tls::None,
            Opening::Encryption(Encryption::Ssl, _) => Tls::Passthrough,
            Opening::Encryption(Encryption::Gss, _) => Tls::Gss,
            Opening::Tls(_) => Tls::Direct,
        };
    }

    /// Whether what the node says can be read.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.card.said().tls == Tls::None
    }

    /// The session stays with this node; it counts there as long as the guard lives. With the counters of what it
    /// will pass on. `listener` is the version that the node was found by.
    pub fn seat(&mut self, listener: &Listener, node: &Reached) -> (Counted, Arc<Traffic>) {
        let metrics = self.shared.metrics.pair(listener.index, listener.watched.index, node.id);
        let seat = (metrics.active_guard(), metrics.traffic(self.desk.index));
        let (config, addr, role) = (Arc::clone(&node.config), node.addr, node.role);
        self.card.said().node = Some(card::OnNode { config, addr, role });
        self.card.set_state(State::Login);
        self.node = Some(OnNode { id: node.id, asked: node.asked, metrics });
        seat
    }

    /// The address of the session's node.
    #[must_use]
    pub fn node_addr(&self) -> Option<SocketAddr> {
        self.card.said().node.as_ref().map(|node| node.addr)
    }

    /// The session's node.
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        self.node.as_ref().map(|node| node.id)
    }

    /// Time spent waiting for a node, and reaching it.
    pub fn add_waits(&mut self, queue: Duration, connect: Duration) {
        self.waits.queue += queue;
        self.waits.connect += connect;
    }

    /// A node refused, and the session goes on to another.
    pub fn add_redispatch(&mut self, reason: Redispatch) {
        self.listener.metrics.redispatch(reason);
        // A session can wait long and try often; the line keeps the beginning.
        if self.redispatches.len() < 16 {
            self.redispatches.push(reason.as_str());
        }
    }

    /// The session can be cancelled by this key.
    pub fn hold_key(&mut self, key: HeldKey) {
        self.key = Some(key);
    }

    /// The node has let the client in.
    pub fn set_logged_in(&mut self) {
        if let Some(node) = &self.node {
            self.waits.login = Some(node.asked.elapsed());
            node.metrics.login_duration(self.card.accepted.elapsed());
        }
    }

    /// The node refused the login with this code.
    pub fn set_sqlstate(&mut self, code: &str) {
        self.sqlstate = Some(escaped(code.as_bytes(), 5));
    }

    /// Closes the account.
    pub fn close(mut self, ending: Result<Ending, SessionError>) {
        self.is_closed = true;
        if let (Ok(Ending::Moved), Some(node)) = (&ending, &self.node) {
            // Its line and its figures are for the other process to give.
            return node.metrics.end(End::Moved);
        }
        let listener = &self.listener.metrics;
        if !self.waits.queue.is_zero() {
            listener.queue_wait(self.waits.queue);
        }
        match ending {
            Ok(Ending::Cancel | Ending::Moved) => {}
            Ok(ending) => {
                listener.session_duration(self.card.accepted.elapsed());
                if let Some(node) = &self.node {
                    node.metrics.end(ending.end());
                }
                self.log(ending.end().as_str(), ending.code(), None, ending != Ending::NodeBroke);
            }
            Err(error) => {
                let code = error.code();
                match (&self.node, error.rejection()) {
                    (Some(node), _) => {
                        listener.session_duration(self.card.accepted.elapsed());
                        node.metrics.end(error.end());
                        self.log(error.end().as_str(), code, None, error.end() == End::Drain);
                    }
                    (None, Some(rejection)) => {
                        listener.reject(rejection);
                        self.log(rejection.as_str(), code, Some(&error), false);
                    }
                    (None, None) => {
                        listener.left();
                        let (id, name) = (self.card.id.to_string(), self.listener.config.name.as_str());
                        debug!(id, listener = name, client = %self.card.client, end_code = code, "client_left");
                    }
                }
            }
        }
    }

    fn log(&self, end: &str, end_code: &str, error: Option<&SessionError>, is_normal: bool) {
        match self.shared.setup().config.log.sessions {
            LogSessions::Off => return,
            LogSessions::Errors if is_normal && self.sqlstate.is_none() => return,
            LogSessions::Errors | LogSessions::End | LogSessions::Both => {}
        }
        let said = self.card.said();
        let (node, names) = (said.node.as_ref(), said.names.as_deref());
        let (to_node, to_client) = self.card.moved.bytes();
        let seconds = |time: Duration| time.as_secs_f64();
        info!(
            id = self.card.id.to_string(),
            listener = self.listener.config.name.as_str(),
            client = addr_text(self.card.client),
            node = node.map(|node| node.config.name.as_str()),
            node_addr = node.map(|node| addr_text(node.addr)),
            role = node.and_then(|node| node.role).map(Role::as_str),
            user = names.and_then(|names| names.user.as_deref()),
            database = names.and_then(|names| names.database.as_deref()),
            app = names.and_then(|names| names.application.as_deref()),
            tls = said.tls.as_str(),
            queue_s = seconds(self.waits.queue),
            connect_s = seconds(self.waits.connect),
            login_s = self.waits.login.map(seconds),
            duration_s = seconds(self.card.accepted.elapsed()),
            to_node_bytes = to_node,
            to_client_bytes = to_client,
            end,
            end_code,
            sqlstate = self.sqlstate.as_deref(),
            error = error.map(with_cause),
            redispatches = self.redispatches.len(),
            redispatch_reasons = self.redispatches.join(","),
            active_listener = self.listener.active(),
            active_node = self.node.as_ref().map(|node| node.metrics.active()),
            "session_end"
        );
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        if !self.is_closed {
            self.shared.metrics.panicked();
            self.log(End::Error.as_str(), "PD", None, false);
        }
    }
}

fn with_cause(error: &SessionError) -> String {
    use std::error::Error;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
