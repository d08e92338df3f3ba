//! Bytes from one side to the other until both have ended.
//!
//! Both directions of a session are one task. A side is read only when it is readable and the other side has
//! taken what was read before, so a slow reader slows the writer down; it is read into the worker's buffer and
//! written on at once, and only what the other side does not take is kept, until it does.
//!
//! Each side may end its half while the other goes on. When the node has ended, the client gets a little time to
//! end too; nothing waits for ever for a peer that has nothing more to get.

pub mod parts;
mod talk;
mod way;

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

use crate::net::peer;
use crate::pg::error_response::Fatal;
use crate::session::card::Moved;
use crate::session::desk::Scratch;
use crate::session::error::Ending;
use crate::telemetry::pair::Traffic;
use talk::{GOOD_BYE, Talk};
use way::{Broken, State, Step, Way};

/// How long a client may take to close after the node has closed and it has got the node's last byte: `PostgreSQL` never ends
/// only its half, so there is nobody left who could answer. And a node after its client has said good-bye and closed.
const LINGER: Duration = Duration::from_secs(30);

/// How long a node may take to end after its client's good-bye before it is told that nothing more comes: it may have been
/// in the middle of a message, and the good-bye a part of that.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a client may take to take what it is told last.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The two connections of a session and what is between them.
#[derive(Debug)]
pub struct Relay<'a> {
    client: TcpStream,
    node: TcpStream,
    to_node: Way,
    to_client: Way,
    moved: &'a Moved,
    traffic: Arc<Traffic>,
    scratch: Scratch,
    talk: Talk,
    /// The client is not listened to any more once it has had its answers.
    is_finishing: bool,
    first_to_end: Option<Ending>,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<'a> Relay<'a> {
    /// A relay between two connections, each with what was read from it and not yet passed on; what it passes on is counted in
    /// `moved` for the session, and in `traffic` for all of them.
    #[must_use]
    pub fn new(
        (client, from_client): (TcpStream, BytesMut),
        (node, from_node): (TcpStream, BytesMut),
        moved: &'a Moved,
        traffic: Arc<Traffic>,
        scratch: Scratch,
    ) -> Self {
        let talk = Talk::new(&from_node);
        let (to_node, to_client) = (Way::new(from_client), Way::new(from_node));
        Self {
            client,
            node,
            to_node,
            to_client,
            moved,
            traffic,
            scratch,
            talk,
            is_finishing: false,
            first_to_end: None,
            linger: None,
        }
    }

    /// What is passed on is encrypted.
    pub const fn set_opaque(&mut self) {
        self.talk.is_readable = false;
    }

    /// Counts what was passed on before the relay began, to the node and to the client.
    pub fn count_earlier(&mut self, (to_node, to_client): (u64, u64)) {
        self.moved.add_to_node(to_node);
        self.moved.add_to_client(to_client);
        self.traffic.add_to_node(to_node);
        self.traffic.add_to_client(to_client);
    }

    /// Relays to the end.
    ///
    /// Not cancel safe: dropped midway, both connections are closed as they are.
    pub async fn run(&mut self) -> Ending {
        loop {
            if let Some(ending) = self.run_until(|_| ControlFlow::Continue(())).await {
                return ending;
            }
        }
    }

    /// Relays until the end, or until `see` says stop: it is shown what the node sends, before the client is.
    /// What it was shown is passed on all the same. `None`: stopped.
    ///
    /// Cancel safe: it can be called again.
    pub async fn run_until(&mut self, mut see: impl FnMut(&[u8]) -> ControlFlow<()>) -> Option<Ending> {
        poll_fn(|cx| self.poll(cx, &mut see)).await
    }

    /// What the node has sent and the client has not yet got.
    #[must_use]
    pub fn for_client(&self) -> &[u8] {
        &self.to_client.kept
    }

    /// Whether the node waits for the client's next transaction, as far as can be told: not through TLS.
    #[must_use]
    pub fn is_between_transactions(&self) -> bool {
        is_between_transactions(&self.talk, &self.to_node, &self.to_client)
    }

    /// Whether the client is listened to only until it has had its answers: it can then be parted from.
    pub const fn finish(&mut self, is_finishing: bool) {
        self.is_finishing = is_finishing;
    }

    /// The ending, if the node has ended the session already and the client not yet.
    #[must_use]
    pub fn ended_by_node(&self) -> Option<Ending> {
        self.first_to_end.filter(|first| matches!(first, Ending::Node | Ending::NodeBroke))
    }

    /// Ends the session from the middle. The client is told why if it has taken all the node has said so far, and that
    /// was whole messages; else its connection is closed, which says enough. A node that waits for it gets a good-bye.
    ///
    /// Not cancel safe, and need not be: dropped midway, both connections are just closed.
    pub async fn part(self, why: Fatal) {
        if self.is_between_transactions() {
            let _ = self.node.try_write(GOOD_BYE);
        }
        drop(self.node);
        let can_be_told = self.talk.is_readable && self.talk.framing.is_at_boundary();
        let mut client = self.client;
        let last_words = async {
            client.write_all(&self.to_client.kept).await?;
            client.write_all(&why.encode()).await
        };
        if can_be_told && matches!(timeout(LAST_WORDS, last_words).await, Ok(Ok(()))) {
            peer::leave(client).await;
        }
    }

    /// Bytes passed on so far, to the node and to the client.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        self.moved.bytes()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        see: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Poll<Option<Ending>> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut from_client, mut into_client) = self.client.split();
        let (mut from_node, mut into_node) = self.node.split();
        let mut stopped = false;
        // One step of each in turn: a direction that is always ready must not keep the other one waiting. What waits for
        // a socket need not be asked again.
        let (mut to_node_waits, mut to_client_waits) = (false, false);
        loop {
            let talk = &mut self.talk;
            let is_silenced = self.is_finishing
                && self.to_node.state == State::Open
                && is_between_transactions(talk, &self.to_node, &self.to_client);
            let to_node = if is_silenced || to_node_waits {
                Ok((Step::Waiting, 0))
            } else {
                self.to_node.step(cx, &mut from_client, &mut into_node, &mut scratch, |bytes| {
                    talk.hear_client(bytes);
                })
            };
            let to_client = if to_client_waits {
                Ok((Step::Waiting, 0))
            } else {
                self.to_client.step(cx, &mut from_node, &mut into_client, &mut scratch, |bytes| {
                    stopped |= see(bytes).is_break();
                    talk.hear(bytes);
                })
            };
            to_node_waits = !is_silenced && matches!(to_node, Ok((Step::Waiting, _)));
            to_client_waits = matches!(to_client, Ok((Step::Waiting, _)));
            if let Ok((_, bytes)) = to_node {
                self.moved.add_to_node(bytes);
                self.traffic.add_to_node(bytes);
            }
            if let Ok((_, bytes)) = to_client {
                self.moved.add_to_client(bytes);
                self.traffic.add_to_client(bytes);
            }
            let to_node = match to_node {
                Ok((step, _)) => step,
                Err(Broken::Source) => {
                    abort(&self.node);
                    return Poll::Ready(Some(self.ended(Ending::ClientBroke)));
                }
                // The node may have said why before it closed: that must be passed on first, and then the client
                // read on, or the close would be a reset and take those words with it.
                Err(Broken::Sink) => {
                    self.to_node.discard();
                    self.first_to_end.get_or_insert(Ending::NodeBroke);
                    Step::Moved
                }
            };
            let to_client = match to_client {
                Ok((step, _)) => step,
                Err(Broken::Source) => {
                    let now = if self.talk.client_took_leave() { Ending::Client } else { Ending::NodeBroke };
                    return Poll::Ready(Some(self.ended(now)));
                }
                Err(Broken::Sink) => return Poll::Ready(Some(self.ended(Ending::ClientBroke))),
            };
            if matches!(to_node, Step::SourceEnded) {
                self.first_to_end.get_or_insert(Ending::Client);
                // It closes at the good-bye, and to tell it that nothing more comes would only be more work for both.
                if self.talk.left_idle_node {
                    self.to_node.state = State::Leaving;
                }
            }
            if matches!(to_client, Step::SourceEnded) {
                let ending = if self.talk.client_took_leave() { Ending::Client } else { Ending::Node };
                self.first_to_end.get_or_insert(ending);
            }
            // Both have ended: the close tells those who have not been told.
            if self.to_node.has_ended() && self.to_client.has_ended() {
                return Poll::Ready(Some(self.ended(Ending::Client)));
            }
            if stopped {
                return Poll::Ready(None);
            }
            if matches!((to_node, to_client), (Step::Waiting | Step::Ended, Step::Waiting | Step::Ended)) {
                break;
            }
        }
        let most = match (self.to_node.state, self.to_client.state) {
            (State::Leaving, _) => PATIENCE,
            // Counted from when the client has taken everything, however slowly it does.
            (_, State::Ended) => LINGER,
            // Nobody is there for whom the node could still do anything.
            (State::Ending | State::Ended, _) if self.talk.left_idle_node => LINGER,
            _ => return Poll::Pending,
        };
        ready!(self.linger.get_or_insert_with(|| Box::pin(sleep(most))).as_mut().poll(cx));
        if self.to_node.state == State::Leaving {
            (self.to_node.state, self.linger) = (State::Ending, None);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(self.ended(Ending::Node)))
    }

    /// How the session ended: as the first end or break said. What follows it, such as the reset of a server that
    /// did not wait for a client's last TLS record, is an echo.
    fn ended(&self, now: Ending) -> Ending {
        self.first_to_end.unwrap_or(now)
    }
}

fn is_between_transactions(talk: &Talk, to_node: &Way, to_client: &Way) -> bool {
    talk.is_readable && talk.framing.is_idle() && to_node.kept.is_empty() && to_client.kept.is_empty()
}

/// Makes the close a reset: a server whose client broke off must not take it for an orderly end.
fn abort(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::desk::Desk;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    pub(super) async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ours, listener.accept().await.unwrap().0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_end_after_the_good_bye_is_left() {
        let (client, mut clients_end) = pair().await;
        let (node, _nodes_end) = pair().await;
        let ready = BytesMut::from(&b"Z\0\0\0\x05I"[..]);
        let parts = ((client, BytesMut::new()), (node, ready));
        let moved = Moved::default();
        let mut relay = Relay::new(parts.0, parts.1, &moved, Arc::default(), Desk::new(0).scratch());
        clients_end.write_all(GOOD_BYE).await.unwrap();
        clients_end.shutdown().await.unwrap();
        let began = Instant::now();
        let ending = timeout(LINGER * 10, relay.run()).await.expect("an end");
        assert_eq!(ending, Ending::Client);
        assert_eq!(began.elapsed().as_secs(), (PATIENCE + LINGER).as_secs());
    }
}
