//! The `StartupMessage`: passed on to the byte, and read beside that for the account of the session.

use bytes::Bytes;
use memchr::memchr;

use crate::pg::first_packet::Refused;

/// A startup packet whose layout a server would accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup {
    /// The whole packet as the client sent it, length field included.
    pub packet: Bytes,
    /// What it says, for the log.
    pub params: Params,
}

/// What this program reads of the parameters. Where a name comes twice the last one counts, as in a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// Never empty.
    pub user: Vec<u8>,
    /// Empty: the user's name is the database's, as in a server.
    pub database: Vec<u8>,
    /// Empty when not sent.
    pub application_name: Vec<u8>,
    /// A replication connection, physical or logical: it has slots of its own on the server.
    pub is_replication: bool,
}

impl Params {
    /// The database the session goes to.
    #[must_use]
    pub fn database_or_user(&self) -> &[u8] {
        if self.database.is_empty() { &self.user } else { &self.database }
    }
}

/// Reads the parameters behind the protocol version.
///
/// The rules, with their quirks, are those of `ProcessStartupPacket` in `PostgreSQL`'s
/// `src/backend/tcop/backend_startup.c`.
///
/// # Errors
/// What a server would answer.
pub(super) fn parse_params(body: &[u8]) -> Result<Params, Refused> {
    let mut params = Params::default();
    let mut rest = body;
    loop {
        match rest.split_first() {
            Some((0, [])) => break,
            None | Some((0, _)) => return Err(Refused::Layout),
            Some(_) => {}
        }
        let (name, after) = split_c_string(rest).ok_or(Refused::Layout)?;
        let (value, after) = split_c_string(after).ok_or(Refused::Layout)?;
        match name {
            b"user" => params.user = value.to_vec(),
            b"database" => params.database = value.to_vec(),
            b"replication" => params.is_replication = !matches!(value, b"false" | b"off" | b"no" | b"0"),
            b"application_name" => params.application_name = value.to_vec(),
            _ => {}
        }
        rest = after;
    }
    if params.user.is_empty() { Err(Refused::NoUser) } else { Ok(params) }
}

/// The text up to the first null, and what follows that.
pub(super) fn split_c_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(0, bytes)?;
    let (text, rest) = bytes.split_at_checked(end)?;
    Some((text, rest.split_first()?.1))
}
