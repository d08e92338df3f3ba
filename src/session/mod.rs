//! The data side: the life of one client connection, from accept to its closing line.
//!
//! A [`worker`](crate::net::worker) is handed a connection and runs [`serve`]. The steps, in the order of a life:
//!
//! 1. [`negotiate`]: which first packet is it? encryption, login, cancel
//! 2. [`admit`]: is there room on the listener?
//! 3. [`place`]: a node that fits, by the listener's balance; [`hold`]: the wait when there is none, in a [`queue`]
//! 4. [`connect`]: reach it and hear its first answer; if it refuses before authentication, the next one
//!    ("replay")
//! 5. [`login`]: pass the authentication through, and read along
//! 6. [`relay`]: pass bytes until both sides have ended, or [`evict`] says that the session must leave its node
//! 7. [`account`]: one line in the log, and the counters
//!
//! An upgrade moves sessions from one process to another while they pass bytes on: [`departure`], [`moved`], [`arrival`].
//! Beside them a [`card`] in the [`roster`] shows the session to others while it lives, and lets them end it, and
//! [`cancel`] is a connection that only asks for another one's query to be stopped.
//!
//! # Invariants
//!
//! - Once a client has sent its startup packet it is told why it is refused.
//! - What the node gets is what the client sent, to the byte, and the other way round.
//! - No node's byte reaches the client before that node is the one the session stays with, but for the one that
//!   says no to encryption and means the same from every node.
//! - What was counted up is counted down by a guard's `Drop`.
//! - An idle session owns no buffer.

pub mod accept;
pub mod account;
pub mod admit;
pub mod arrival;
pub mod cancel;
pub mod card;
pub mod connect;
pub mod departure;
pub mod desk;
pub mod error;
pub mod evict;
pub mod hold;
pub mod login;
pub mod moved;
pub mod names;
pub mod negotiate;
pub mod place;
pub mod queue;
pub mod relay;
pub mod roster;
pub mod setup;
pub mod shared;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::balance::load::Place;
use crate::balance::valve::Pass;
use crate::config::{self, Tls};
use crate::net::descriptors::Held;
use crate::net::worker::{Accepted, Served};
use crate::pg::cancel_key::CancelKey;
use crate::pg::first_packet::FirstPacket;
use crate::telemetry::count::Counted;
use account::Account;
use admit::Permit;
use card::{Card, Killed, State};
use connect::{Opening, Reached};
use desk::Desk;
use error::{Ending, SessionError};
use evict::{Eviction, Parting, Stay};
use negotiate::Client;
use relay::Relay;
use shared::{Listener, Shared};

/// Serves one connection to its end. Infallible: every ending is an entry in the account.
#[expect(clippy::manual_async_fn, reason = "the future of an `async fn` has room for its arguments twice")]
pub fn serve(
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    accepted: Box<Accepted<Arc<Listener>>>,
) -> impl Future<Output = ()> + Send {
    async move {
        let listener = Arc::clone(&accepted.to);
        let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let card = Card::new(shared.ids.next(), &listener.config, accepted.peer, accepted.at, task);
        let Some(card) = shared.roster.enter(desk.index, card) else { return };
        let mut account = Account::open(&shared, &listener, &desk, &card);
        let ending = live(&shared, &desk, accepted, &mut account).await;
        account.close(ending);
    }
}

/// What is done but once is boxed, so that its memory goes when it is done: sessions live long.
async fn live(
    shared: &Shared,
    desk: &Desk,
    accepted: Box<Accepted<Arc<Listener>>>,
    account: &mut Account<'_>,
) -> Result<Ending, SessionError> {
    let Some(mut session) = Box::pin(begin(shared, desk, accepted, account)).await? else {
        return Ok(Ending::Cancel);
    };
    let Session { relay, stay, pass, .. } = &mut session;
    let logged_in = {
        let rules = stay.listener();
        let login = Box::pin(login::log_in(shared, &rules, relay, account, pass.take()));
        Box::pin(stay.unless_evicted(login)).await
    };
    let ending = match logged_in {
        Ok(Some(ended_early)) => Ok(ended_early),
        Ok(None) => pass_on(shared, &mut session, account).await,
        Err(why) => Err(why),
    };
    match ending {
        Ok(ending) => Ok(ending),
        Err(why) => session.part(why).await,
    }
}

/// Passes on what both sides say until they have ended, the session must leave its node, or another process goes on with it.
#[expect(clippy::manual_async_fn, reason = "the future of an `async fn` has room for its arguments twice")]
fn pass_on(
    shared: &Shared,
    session: &mut Session<'_>,
    account: &Account<'_>,
) -> impl Future<Output = Result<Ending, Eviction>> + Send {
    async move {
        account.card().set_state(State::Active);
        let Session { relay, stay, .. } = session;
        loop {
            match stay.relay(relay).await {
                Parting::Ended(ending) => return Ok(ending),
                Parting::Evicted(why) => return Err(why),
                Parting::Moves => {
                    if Box::pin(departure::depart(shared, relay, account)).await {
                        return Ok(Ending::Moved);
                    }
                }
            }
        }
    }
}

/// A session that has found its node.
struct Session<'a> {
    relay: Relay<'a>,
    stay: Stay<'a>,
    /// Its right to log in now.
    pass: Option<Pass>,
    node: Arc<config::Node>,
    /// Where it counts while it lives.
    _guards: (Permit, Place, Counted, Held, Served),
}

impl Session<'_> {
    /// Ends it from the middle. Boxed, as it is done but once.
    fn part(self, why: Eviction) -> impl Future<Output = Result<Ending, SessionError>> + Send {
        Box::pin(async move {
            self.relay.part(why.fatal(&self.node.name)).await;
            Err(SessionError::Evicted(why))
        })
    }
}

/// From accept to a node that the client stays with; `None`: it was a cancel request, and has been dealt with.
async fn begin<'a>(
    shared: &Shared,
    desk: &Desk,
    accepted: Box<Accepted<Arc<Listener>>>,
    account: &mut Account<'a>,
) -> Result<Option<Session<'a>>, SessionError> {
    let Accepted { stream, peer, to: mut listener, at, descriptor, silent, served } = *accepted;
    let stream = TcpStream::from_std(stream).map_err(SessionError::Client)?;
    let mut client = Client::greet(stream, silent, peer, &listener, at);
    let card = account.card();
    // What goes into a future is in it twice, so here goes a pointer.
    let bound = Box::pin(bind(shared, &mut listener, &mut client, account));
    let bound = match card.unless_killed(shared.kill.run_until_cancelled(bound)).await {
        Ok(bound) => bound.unwrap_or(Err(SessionError::Drained)),
        Err(Killed) => Err(SessionError::Killed),
    };
    let (node, permit) = match bound {
        Ok(Bound::Session(node, permit)) => (node, permit),
        Ok(Bound::Cancel(key, packet)) => {
            Box::pin(cancel::cancel(shared, &listener, client, &key, &packet)).await;
            return Ok(None);
        }
        Err(error) => return Err(Box::pin(client.refuse(shared, error)).await),
    };
    let (active, traffic) = account.seat(&listener, &node);
    let stay = Stay::new(shared, listener, card, &node.troubles);
    let (client, scratch) = (client.into_parts(), desk.scratch());
    let mut relay = Relay::new(client, (node.stream, node.answer), &card.moved, traffic, scratch);
    relay.count_earlier(node.moved);
    if !account.is_readable() {
        relay.set_opaque();
    }
    let guards = (permit, node.place, active, descriptor, served);
    Ok(Some(Session { relay, stay, pass: node.pass, node: node.config, _guards: guards }))
}

/// What a connection turned out to be.
enum Bound {
    /// A session, and the node it stays with.
    Session(Reached, Permit),
    /// A request to cancel somebody's query.
    Cancel(CancelKey, Bytes),
}

/// From the first byte to the node that the session stays with.
///
/// Should a reload give the listener other rules meanwhile, the session goes by those: `listener` is that version then.
async fn bind(
    shared: &Shared,
    listener: &mut Arc<Listener>,
    client: &mut Client,
    account: &mut Account<'_>,
) -> Result<Bound, SessionError> {
    let mut permit = None;
    let mut refused_encryption = None;
    loop {
        let first = client.first_packet().await?;
        keep_up(shared, listener);
        let opening = match first {
            FirstPacket::Cancel(key, packet) => return Ok(Bound::Cancel(key, packet)),
            FirstPacket::Encryption(..) if listener.config.tls == Tls::Off => {
                client.say(b"N").await?;
                continue;
            }
            FirstPacket::Encryption(kind, packet) => Opening::Encryption(kind, packet),
            FirstPacket::DirectTls(_) if listener.config.tls == Tls::Off => return Err(SessionError::TlsOff),
            FirstPacket::DirectTls(record) => Opening::Tls(record),
            FirstPacket::Startup(startup) => {
                account.set_params(&startup.params);
                Opening::Startup { packet: startup.packet, is_replication: startup.params.is_replication }
            }
        };
        let held = match permit.take() {
            Some(permit) => permit,
            None => admit::admit(shared, listener)?,
        };
        let asked = Instant::now();
        let mut node = loop {
            let earlier = refused_encryption.take();
            match connect::connect(shared, listener, client, &opening, earlier, account).await {
                Err(SessionError::OtherRules) => keep_up(shared, listener),
                reached => break reached?,
            }
        };
        client.excuse(asked.elapsed());
        if opening.is_request() && node.answer[..] == *b"N" {
            client.say(&node.answer.split()).await?;
            node.moved.1 += 1;
            // It waits for the client now, as long as that likes.
            node.pass = None;
            permit = Some(held);
            refused_encryption = Some(node);
            continue;
        }
        account.set_encryption(&opening);
        return Ok(Bound::Session(node, held));
    }
}

/// Takes the version of the listener that is in force now; one that is gone stays as it was.
fn keep_up(shared: &Shared, listener: &mut Arc<Listener>) {
    if listener.is_outdated.is_cancelled()
        && let Some(current) = shared.setup().listeners.iter().find(|other| other.index == listener.index)
    {
        *listener = Arc::clone(current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There are thousands, most of them idle; what else an idle one has is a few watches and its cancel key.
    #[test]
    fn what_a_session_keeps_is_small() {
        fn of<F>(_: impl FnOnce(Arc<Shared>, Arc<Desk>, Box<Accepted<Arc<Listener>>>) -> F) -> usize {
            size_of::<F>()
        }
        let (future, card) = (of(serve), size_of::<Card>());
        assert!(future + card <= 1088, "{future} + {card}");
    }

    /// Moving it into its box is a copy of all of it.
    #[test]
    fn what_is_moved_to_begin_a_session_is_small() {
        type Begun<'a, F> =
            fn(&'a Shared, &'a Desk, Box<Accepted<Arc<Listener>>>, &'a mut Account<'static>) -> F;
        fn of<F>(_: Begun<'static, F>) -> usize {
            size_of::<F>()
        }
        assert!(of(begin) <= 1024, "{}", of(begin));
    }
}
