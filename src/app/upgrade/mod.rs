//! An upgrade without a lost session: a new process, which this one starts, goes on with its sockets and its sessions.
//!
//! `old` is the side of the process that leaves, [`heir`] that of the one that stays. Between them is a pair of sockets that
//! nobody else has, and these steps:
//!
//! 1. Each says which protocol it speaks. The new one has read its configuration by then.
//! 2. The new one is given the sockets that listen, builds everything, has a look at the nodes and says that it is ready.
//! 3. The old one shuts its gate: nobody is accepted, and no order taken, until the new one, which is told so and what has been
//!    set by hand meanwhile, says that it opens its own. Who comes between waits in the system's queue.
//! 4. Sessions go over, a few at a time: the old one stops reading and writing, the new one says that it has all it needs, and
//!    touches nothing until the old one says that the session is no longer its own.
//! 5. All that could go have gone: the old one closes its listening sockets, and leaves when it has nothing left, or when the
//!    time for a drain is over. Sessions that get a node meanwhile follow.
//!
//! A third process, in the [`middle`], is the parent of the new one, and ends before step 5 is told to anybody.
//!
//! Until step 3 a failure changes nothing. Until step 5 a session is lost only with the process that has it, and the old one
//! serves again. From then on the new one is the one that there is.
//!
//! A stop may come at any time, and to one or both: a manager of services tells all processes of a service, and ends those that
//! are left when the main one has ended. So the main one stays until the other has ended, too: the old one before step 5, the
//! new one after it.

mod by_hand;
pub(super) mod child;
pub mod heir;
pub mod launch;
pub mod middle;
pub(super) mod old;
mod removal;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use bytes::{Buf, Bytes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::text::escaped;
use crate::net::handed::Spot;
use crate::net::passage::{self, Receiver, Sender};
use crate::session::moved::Record;
use by_hand::ByHand;

/// What the two say to each other; another number is another language.
const PROTOCOL: u32 = 1;
/// Set for a process whose standard input is the passage to the one whose place it is to take, and for the one between them.
const VARIABLE: &str = "PGSPLIT_UPGRADE";
/// This process's.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// In characters: what one says to the other is shown to people.
const WORDS_MAX: usize = 2000;

/// What the old process says.
#[derive(Debug, Serialize, Deserialize)]
enum ToNew {
    /// First of all.
    Hello { protocol: u32, version: String },
    /// These sockets listen there.
    Sockets(Spot),
    /// This one is the admin server's in the file system.
    Local(PathBuf),
    /// That was all: build everything. What people have set by hand.
    Prepare(ByHand),
    /// Accept from now on. Sessions that come have numbers above this one. Here nothing is set by hand any more: this is how it
    /// is now.
    Begin { numbers_above: u64, by_hand: ByHand },
    /// A session, which is still mine.
    Session(Box<Record>),
    /// The session of this number is yours from now on.
    Yours(u64),
    /// All that were in use have been asked. Those that log in yet follow.
    Settled { by: String, moved: u64, stayed: usize },
    /// I have been told to stop before that: so are you. The place stays mine until you have ended.
    Stop,
}

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
enum ToOld {
    /// First of all. My configuration is well.
    Hello { protocol: u32, version: String },
    /// I end.
    Refused { why: String },
    /// All is built, and has been looked at.
    Ready,
    /// I accept from now on.
    Begun,
    /// I have all I need for the session of this number.
    Taken(u64),
    /// I cannot go on with it.
    NotTaken(u64, String),
    /// People have set something by hand since.
    ByHand(ByHand),
}

/// The end of the passage that is written to.
#[derive(Debug)]
struct Mouth(Sender);

/// The end that is read from.
#[derive(Debug)]
struct Ear(Receiver);

/// What was heard, and what came with it.
#[derive(Debug)]
struct Heard<T> {
    what: T,
    tail: Bytes,
    descriptors: Vec<OwnedFd>,
}

fn open(stream: UnixStream) -> io::Result<(Mouth, Ear)> {
    passage::open(stream).map(|(sender, receiver)| (Mouth(sender), Ear(receiver)))
}

impl Mouth {
    /// Not cancel safe: half of it may have been said.
    async fn say(&mut self, what: &impl Serialize) -> io::Result<()> {
        self.0.send(&encode(what, &[])?, &[]).await
    }

    /// With bytes that follow, and descriptors. Not cancel safe either.
    async fn give(
        &mut self,
        what: &impl Serialize,
        tail: &[&[u8]],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.0.send(&encode(what, tail)?, descriptors).await
    }

    /// Says no more, which the other side hears.
    fn close(&self) {
        self.0.close();
    }
}

impl Ear {
    /// `None`: the other side has closed. Cancel safe.
    async fn hear<T: DeserializeOwned>(&mut self) -> io::Result<Option<Heard<T>>> {
        let Some(message) = self.0.receive().await? else { return Ok(None) };
        let (what, tail) = decode(message.bytes)?;
        Ok(Some(Heard { what, tail, descriptors: message.descriptors }))
    }
}

/// The length of a JSON text, that text, and what follows.
fn encode(what: &impl Serialize, tail: &[&[u8]]) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(what)?;
    let length = u32::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok([&[&length.to_be_bytes()[..], &text], tail].concat().concat())
}

fn decode<T: DeserializeOwned>(mut bytes: Bytes) -> io::Result<(T, Bytes)> {
    let length = bytes.try_get_u32().map_err(|_| io::ErrorKind::InvalidData)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if bytes.len() < length {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let text = bytes.split_to(length);
    // Not in the words of the parser, which may repeat a secret.
    let what = serde_json::from_slice(&text).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((what, bytes))
}

/// What the other side has said, as it may be shown.
fn shown(words: &str) -> String {
    escaped(words.as_bytes(), WORDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard_with_what_follows() {
        let bytes = encode(&ToNew::Yours(7), &[b"ab", b"c"]).unwrap();
        let (what, tail) = decode::<ToNew>(bytes.clone().into()).unwrap();
        assert!(matches!(what, ToNew::Yours(7)) && &tail[..] == b"abc");
        for bad in [&bytes[..3], &bytes[..9], b"\0\0\0\x02{}", b"\xff\xff\xff\xff{}"] {
            assert!(decode::<ToNew>(Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
    }
}
