//! A relay taken apart, and put together again elsewhere: no byte is lost between, and none is passed on twice.

use std::io;
use std::net::TcpStream as StdStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::{Relay, State, Talk, Way};
use crate::session::card::Moved;
use crate::session::desk::Scratch;
use crate::session::error::Ending;
use crate::telemetry::pair::Traffic;

/// Where a relay stands, but for the bytes that one side has sent and the other has not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    to_node: WayStand,
    to_client: WayStand,
    talk: Talk,
    first_to_end: Option<Ending>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WayStand {
    state: State,
    kept: usize,
}

/// All that a relay consists of.
#[derive(Debug)]
pub struct Parts {
    /// Where it stands.
    pub stand: Stand,
    /// What the node has not taken yet, and what the client has not.
    pub kept: [Bytes; 2],
    /// The client's connection, and the node's.
    pub sockets: [OwnedFd; 2],
}

impl Stand {
    /// How long the bytes are that belong to it: for the node, for the client.
    #[must_use]
    pub const fn kept(&self) -> [usize; 2] {
        [self.to_node.kept, self.to_client.kept]
    }
}

impl<'a> Relay<'a> {
    /// Its parts, to be put together elsewhere. It can go on all the same, unless that has begun; until it is known, it must
    /// not be polled.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub fn parts(&self) -> io::Result<Parts> {
        let way = |way: &Way| WayStand { state: way.state, kept: way.kept.len() };
        let copy = |stream: &TcpStream| stream.as_fd().try_clone_to_owned();
        Ok(Parts {
            stand: Stand {
                to_node: way(&self.to_node),
                to_client: way(&self.to_client),
                talk: self.talk.clone(),
                first_to_end: self.first_to_end,
            },
            kept: [&self.to_node, &self.to_client].map(|way| Bytes::copy_from_slice(&way.kept)),
            sockets: [copy(&self.client)?, copy(&self.node)?],
        })
    }

    /// Puts a relay together, which goes on where that of the parts stood. To be called in the runtime that it is polled in.
    /// How long it waits for who is to end is counted anew. What it passes on from now on is counted in `moved` and `traffic`.
    ///
    /// # Errors
    /// What the system said.
    pub fn from_parts(
        parts: Parts,
        moved: &'a Moved,
        traffic: Arc<Traffic>,
        scratch: Scratch,
    ) -> io::Result<Self> {
        let Parts { stand: Stand { to_node, to_client, talk, first_to_end }, kept, sockets } = parts;
        let [for_node, for_client] = kept;
        let [client, node] = sockets.map(|socket| {
            let stream = StdStream::from(socket);
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        });
        let way = |stand: WayStand, kept: Bytes| Way {
            kept: if kept.is_empty() { BytesMut::new() } else { BytesMut::from(&kept[..]) },
            state: stand.state,
        };
        Ok(Self {
            client: client?,
            node: node?,
            to_node: way(to_node, for_node),
            to_client: way(to_client, for_client),
            moved,
            traffic,
            scratch,
            talk,
            is_finishing: false,
            first_to_end,
            linger: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::desk::Desk;
    use crate::session::relay::tests::pair;
    use proptest::prelude::*;
    use std::ops::ControlFlow;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Through what another process would be told, byte for byte.
    fn again<'a>(relay: Relay<'a>, moved: &'a Moved) -> Relay<'a> {
        let parts = relay.parts().unwrap();
        let scratch = Arc::clone(&relay.scratch);
        drop(relay);
        let text = serde_json::to_string(&parts.stand).unwrap();
        let stand: Stand = serde_json::from_str(&text).unwrap();
        assert_eq!(stand, parts.stand);
        assert_eq!(stand.kept(), [parts.kept[0].len(), parts.kept[1].len()]);
        Relay::from_parts(Parts { stand, ..parts }, moved, Arc::default(), scratch).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn nothing_is_lost_and_nothing_comes_twice(
            chunks in proptest::collection::vec((any::<bool>(), 1usize..150_000), 1..12),
            moves in proptest::collection::vec(any::<bool>(), 12),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let ((client, clients_end), (node, nodes_end)) = (pair().await, pair().await);
                let early = BytesMut::from(&b"early"[..]);
                let scratch = Desk::new(0).scratch();
                let moved = Moved::default();
                let node = (node, BytesMut::new());
                let mut relay = Relay::new((client, early), node, &moved, Arc::default(), scratch);
                let (mut from_client, mut into_client) = clients_end.into_split();
                let (mut from_node, mut into_node) = nodes_end.into_split();
                let (mut to_node, mut to_client) = (b"early".to_vec(), Vec::new());
                for ((is_clients, length), is_moved) in chunks.into_iter().zip(moves) {
                    let all = if is_clients { &mut to_node } else { &mut to_client };
                    let bytes: Vec<u8> = (all.len()..all.len() + length).map(|n| n.to_le_bytes()[n % 3]).collect();
                    all.extend_from_slice(&bytes);
                    // As much as gets through with nobody reading: the rest is kept, or waits in the sender.
                    if is_clients {
                        into_client = write_beside(&mut relay, into_client, bytes).await;
                    } else {
                        into_node = write_beside(&mut relay, into_node, bytes).await;
                    }
                    if is_moved {
                        relay = again(relay, &moved);
                    }
                }
                drop((into_client, into_node));
                let (mut at_node, mut at_client) = (Vec::new(), Vec::new());
                let (relayed, read_a, read_b) = tokio::join!(
                    async {
                        let ending = relay.run().await;
                        (ending, relay.bytes(), drop(relay)).1
                    },
                    from_node.read_to_end(&mut at_node),
                    from_client.read_to_end(&mut at_client)
                );
                read_a.unwrap();
                read_b.unwrap();
                assert!(at_node == to_node && at_client == to_client);
                assert_eq!(relayed, (to_node.len() as u64, to_client.len() as u64));
            });
        }
    }

    /// Writes while the relay runs, until all is written: somebody else's buffers are large enough.
    async fn write_beside(
        relay: &mut Relay<'_>,
        mut into: tokio::net::tcp::OwnedWriteHalf,
        bytes: Vec<u8>,
    ) -> tokio::net::tcp::OwnedWriteHalf {
        tokio::select! {
            ending = relay.run_until(|_| ControlFlow::Continue(())) => panic!("{ending:?}"),
            written = into.write_all(&bytes) => written.unwrap(),
        }
        into
    }
}
