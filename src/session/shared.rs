//! What all sessions of a process have in common.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::balance::pick::Picker;
use crate::base::id::SessionIds;
use crate::config::{self, Cluster, Config, Sessions};
use crate::net::descriptors::Descriptors;
use crate::net::options::Options;
use crate::session::cancel::{CancelTable, SourceLimit};
use crate::telemetry::metrics::Metrics;
use crate::topology::keeper::Watched;

/// Everything a session needs that is not its own; built once, in `app`.
pub struct Shared {
    /// The configuration.
    pub config: Arc<Config>,
    /// In the order of the configuration.
    pub clusters: Vec<Watched>,
    /// In the order of the configuration.
    pub listeners: Vec<Listener>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Where the admin server listens.
    pub admin: Option<SocketAddr>,
    /// The process's file descriptors.
    pub descriptors: Descriptors,
    /// Who may cancel what, and where.
    pub cancels: CancelTable,
    /// How many cancel requests nobody knows the key of one source may send.
    pub cancel_limit: SourceLimit,
    /// Numbers for sessions.
    pub ids: SessionIds,
    /// Nothing is accepted from now on, and nobody waits for a node any more.
    pub stop: CancellationToken,
    /// All sessions end now.
    pub kill: CancellationToken,
}

/// One listener and what is going on there.
pub struct Listener {
    /// Place in the configuration.
    pub index: usize,
    /// What the file says.
    pub config: Arc<config::Listener>,
    /// The cluster its sessions go to.
    pub cluster: Arc<Cluster>,
    /// That cluster's state.
    pub watched: Watched,
    /// The address it is bound to, with the real port.
    pub addr: SocketAddr,
    /// Socket options of its sessions, on both sides.
    pub options: Options,
    /// Whose turn it is.
    pub picker: Mutex<Picker>,
    /// Sessions now.
    pub sessions: Arc<AtomicU32>,
    /// Sessions that wait for a node, with the time each began to.
    pub waiting: Mutex<Waiting>,
}

/// The sessions of one listener that wait for a node.
#[derive(Debug, Default)]
pub struct Waiting {
    next: u64,
    since: std::collections::BTreeMap<u64, tokio::time::Instant>,
}

impl Waiting {
    /// Adds one; `None` when `limit` wait already.
    pub fn enter(&mut self, limit: u32) -> Option<u64> {
        if usize::try_from(limit).is_ok_and(|limit| limit <= self.since.len()) {
            return None;
        }
        let ticket = self.next;
        self.next += 1;
        self.since.insert(ticket, tokio::time::Instant::now());
        Some(ticket)
    }

    /// Takes one out.
    pub fn leave(&mut self, ticket: u64) {
        self.since.remove(&ticket);
    }

    /// How many wait, and since when the first of them does.
    #[must_use]
    pub fn summary(&self) -> (usize, Option<tokio::time::Instant>) {
        (self.since.len(), self.since.values().next().copied())
    }
}

impl Listener {
    /// How its sessions are set up.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.cluster.sessions
    }

    /// Sessions now.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// How many sessions wait for a node, and since when the first of them does.
    #[must_use]
    pub fn waiting(&self) -> (usize, Option<tokio::time::Instant>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).summary()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("name", &self.config.name).finish_non_exhaustive()
    }
}
