//! How sessions end, for three audiences: the client, the log, the counters.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pg::error_response::Fatal;
use crate::pg::first_packet::Refused;
use crate::pg::sqlstate;
use crate::session::evict::{Eviction, KILLED};
use crate::telemetry::labels::{End, Rejection};

/// A session that was served, or a cancel request that was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The client closed first.
    Client,
    /// The client's connection broke: reset, or gone without a word.
    ClientBroke,
    /// The node closed first.
    Node,
    /// The node's connection broke.
    NodeBroke,
    /// It was a cancel request.
    Cancel,
    /// It goes on in another process.
    Moved,
}

/// What a session lacks that waits, or may not wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// Somebody has paused its listener.
    #[error("listener \"{0}\" is paused")]
    Paused(String),
    /// A node that fits.
    #[error("no live {wanted} for listener \"{listener}\": {nodes}")]
    Node {
        /// What was looked for.
        wanted: &'static str,
        /// The listener's name.
        listener: String,
        /// What every node is instead, in words.
        nodes: String,
    },
    /// A place on a node that fits.
    #[error("no free place on listener \"{listener}\": {nodes}")]
    Place {
        /// The listener's name.
        listener: String,
        /// What every node is, in words.
        nodes: String,
    },
    /// The same, after a wait.
    #[error("waited {seconds}s for a free place on listener \"{listener}\": {nodes}")]
    PlaceInTime {
        /// For how long.
        seconds: u64,
        /// The listener's name.
        listener: String,
        /// What every node is, in words.
        nodes: String,
    },
}

/// A session that was not served, or was cut.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The client closed before it had said what it wants.
    #[error("the client left before its first packet was complete")]
    Left,
    /// The client's connection failed before there was a node.
    #[error("the client's connection failed")]
    Client(#[source] io::Error),
    /// The first packets were wrong.
    #[error("bad first packet")]
    Refused(#[source] Refused),
    /// The first packets took too long.
    #[error("no complete startup packet within {}", humantime::format_duration(*.0))]
    StartupTimeout(Duration),
    /// All places of the listener are taken.
    #[error("too many connections on listener \"{listener}\" (limit {limit})")]
    Limit {
        /// Its name.
        listener: String,
        /// Its places.
        limit: u32,
    },
    /// The process has no more file descriptors to give.
    #[error("too many connections: this balancer may open {limit} files, and keeps the last for itself")]
    Descriptors {
        /// The limit of open files.
        limit: u64,
    },
    /// No node fits, and none came to fit while the session waited.
    #[error("{lack}")]
    NoNode {
        /// What was looked for and what every node is instead.
        lack: Lack,
        /// What still works.
        hint: String,
    },
    /// The client began with a TLS handshake, and every node closed the connection at that.
    #[error(
        "no node answers a TLS handshake without a request before it: servers do so from PostgreSQL 17 on"
    )]
    NoDirectTls,
    /// The client began with a TLS handshake on a listener that keeps sessions readable.
    #[error("a TLS handshake on a listener with tls: off")]
    TlsOff,
    /// Nodes fit, but none had a free place while the session waited.
    #[error("{0}")]
    QueueTimeout(Lack),
    /// As many sessions as may do so wait already.
    #[error("{waiting} sessions wait already: {lack}")]
    QueueFull {
        /// How many.
        waiting: u32,
        /// What for.
        lack: Lack,
    },
    /// The client left while it waited for a node.
    #[error("the client left while it waited for a node")]
    LeftQueue,
    /// The listener has other rules now, by which the search for a node begins again: no session ends by this.
    #[error("the listener has other rules now")]
    OtherRules,
    /// pgsplit is stopping.
    #[error("this balancer is shutting down")]
    Drained,
    /// Somebody has ended it by hand before it had a node.
    #[error("{KILLED}")]
    Killed,
    /// The session had to leave its node.
    #[error("the session had to leave its node")]
    Evicted(Eviction),
}

impl SessionError {
    /// What the client is told before its connection is closed; `None`: it has gone, or would not understand.
    #[must_use]
    pub fn fatal(&self) -> Option<Fatal> {
        let code = match self {
            Self::Left
            | Self::Client(_)
            | Self::LeftQueue
            | Self::OtherRules
            | Self::Refused(_)
            | Self::NoDirectTls
            | Self::TlsOff
            | Self::StartupTimeout(_)
            | Self::Evicted(_) => return None,
            Self::Limit { .. } | Self::Descriptors { .. } => sqlstate::TOO_MANY_CONNECTIONS,
            Self::NoNode { .. } | Self::QueueTimeout(_) | Self::QueueFull { .. } => {
                sqlstate::CANNOT_CONNECT_NOW
            }
            Self::Drained | Self::Killed => sqlstate::ADMIN_SHUTDOWN,
        };
        let hint = match self {
            Self::NoNode { hint, .. } => hint.clone(),
            _ => String::new(),
        };
        Some(Fatal { code, message: self.to_string(), hint })
    }

    /// The counter of connections that never reached a node; `None`: the client left of itself.
    #[must_use]
    pub const fn rejection(&self) -> Option<Rejection> {
        match self {
            Self::Left | Self::Client(_) | Self::LeftQueue | Self::OtherRules | Self::Evicted(_) => None,
            Self::Refused(_) | Self::TlsOff => Some(Rejection::Protocol),
            Self::StartupTimeout(_) => Some(Rejection::StartupTimeout),
            Self::Limit { .. } | Self::Descriptors { .. } => Some(Rejection::Limit),
            Self::NoNode { .. } | Self::NoDirectTls => Some(Rejection::NoNode),
            Self::QueueTimeout(_) => Some(Rejection::QueueTimeout),
            Self::QueueFull { .. } => Some(Rejection::QueueFull),
            Self::Drained => Some(Rejection::Draining),
            Self::Killed => Some(Rejection::Killed),
        }
    }

    /// The label of the counter of ended sessions, for one that had reached a node.
    #[must_use]
    pub const fn end(&self) -> End {
        match self {
            Self::Evicted(Eviction::NodeDown) => End::NodeDown,
            Self::Evicted(Eviction::Demoted) => End::Demoted,
            Self::Evicted(Eviction::Lagging) => End::Lagging,
            Self::Evicted(Eviction::Killed) => End::Killed,
            _ => End::Drain,
        }
    }

    /// `HAProxy`'s two letters: who ended it, and when.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Left | Self::Client(_) => "CR",
            Self::Refused(_) | Self::TlsOff | Self::Limit { .. } | Self::Descriptors { .. } => "PR",
            Self::StartupTimeout(_) => "cR",
            Self::NoNode { .. } | Self::NoDirectTls => "SC",
            Self::QueueTimeout(_) => "sQ",
            Self::QueueFull { .. } => "PQ",
            Self::LeftQueue | Self::OtherRules => "CQ",
            Self::Killed => "KQ",
            Self::Drained
            | Self::Evicted(Eviction::Stopping | Eviction::Leaving | Eviction::Draining | Eviction::Killed) => {
                "KD"
            }
            Self::Evicted(Eviction::NodeDown | Eviction::Demoted | Eviction::Lagging) => "DD",
        }
    }
}

impl Ending {
    /// The label of the counter of ended sessions.
    #[must_use]
    pub const fn end(self) -> End {
        match self {
            Self::Client | Self::ClientBroke | Self::Cancel => End::Client,
            Self::Moved => End::Moved,
            Self::Node | Self::NodeBroke => End::Server,
        }
    }

    /// `HAProxy`'s two letters: who ended it, and when.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Client | Self::Cancel | Self::Moved => "--",
            Self::ClientBroke => "CD",
            Self::Node | Self::NodeBroke => "SD",
        }
    }
}
