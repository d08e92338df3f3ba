//! A session on its way from one process to another: all that is known of it, and its connections.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::role::Role;
use crate::session::account::Waits;
use crate::session::card::Tls;
use crate::session::names::Names;
use crate::session::relay::parts::{Parts, Stand};

/// What is known of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number.
    pub id: u64,
    /// The name of the listener that it came through.
    pub listener: String,
    /// Who connected.
    pub client: SocketAddr,
    /// How long ago.
    pub age: Duration,
    /// What the client calls itself.
    pub names: Option<Names>,
    /// How it is encrypted.
    pub tls: Tls,
    /// Where it is.
    pub node: OnNode,
    /// How long the steps took.
    pub(super) waits: Waits,
    /// Why other nodes did not take it.
    pub redispatches: Vec<String>,
    /// What its login was refused with.
    pub sqlstate: Option<String>,
    /// What cancels its queries.
    pub key: Option<KeyBody>,
    /// Bytes that it has passed on, to the node and to the client.
    pub bytes: (u64, u64),
    /// Where its relay stands.
    pub stand: Stand,
}

/// The node of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnNode {
    /// Its name.
    pub name: String,
    /// The address that answered.
    pub addr: SocketAddr,
    /// Its role when it was chosen.
    pub role: Option<Role>,
}

/// A cancel key, as the server sent it. A secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyBody(pub Vec<u8>);

impl fmt::Debug for KeyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBody(…)")
    }
}

/// A session on its way.
#[derive(Debug)]
pub struct Moved {
    /// What is known of it.
    pub record: Record,
    /// What the node has not taken yet, and what the client has not.
    pub kept: [Bytes; 2],
    /// The client's connection, and the node's.
    pub sockets: [OwnedFd; 2],
}

impl Moved {
    /// Its relay, in parts; and the record, which tells the rest.
    pub(super) fn into_parts(self) -> (Record, Parts) {
        let Self { record, kept, sockets } = self;
        let stand = record.stand.clone();
        (record, Parts { stand, kept, sockets })
    }
}
