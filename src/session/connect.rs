//! Reaching a node and hearing its first answer; when it refuses before authentication, the next one ("replay").
//!
//! Until a node's first `AuthenticationXXX` has been passed on, nothing binds the client to it: `PostgreSQL`
//! decides about 57P03 (starting up, shutting down) and 53300 (full) before that, in `BackendInitialize` of
//! `src/backend/tcop/backend_startup.c`. So the same first packet can be sent to another node, and the client
//! sees one clean login. A node that asks for no password says `AuthenticationOk` first and that only superusers
//! may still come in after it, so that one is held back until the next message. Any other refusal is the client's
//! answer: a wrong password is tried on one node only.
//!
//! Through TLS the answers cannot be read; there the replay ends with the node's yes.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::balance::load::Place;
use crate::balance::valve::Pass;
use crate::base::id::NodeId;
use crate::base::role::Role;
use crate::base::text::escaped;
use crate::config;
use crate::net::dial::{self, io_text};
use crate::pg::error_response::ErrorFields;
use crate::pg::first_packet::Encryption;
use crate::pg::message::{Scanner, Seen};
use crate::pg::sqlstate;
use crate::session::account::Account;
use crate::session::card::State;
use crate::session::error::SessionError;
use crate::session::hold::Hold;
use crate::session::negotiate::Client;
use crate::session::place::{Choice, is_outclassed, is_there_another};
use crate::session::shared::{Listener, Shared};
use crate::telemetry::labels::{ConnectError, Redispatch, StartupError};
use crate::topology::Node;
use crate::topology::outcome::Met;
use crate::topology::trouble::Troubles;

/// A whole login without a password fits, so that it is passed on in one piece.
const ANSWER_USUAL: usize = 1024;
/// What a node may send before it is clear whether it takes the client. A server's notices are shorter.
const ANSWER_MAX: usize = 64 * 1024;
/// A node's text in a log line is cut here.
const TEXT_MAX: usize = 200;

/// The first packet that is sent to a node.
#[derive(Clone, Debug)]
pub enum Opening {
    /// `SSLRequest` or `GSSENCRequest`.
    Encryption(Encryption, Bytes),
    /// The first TLS record of a client that did not ask.
    Tls(Bytes),
    /// `StartupMessage`.
    Startup {
        /// The packet.
        packet: Bytes,
        /// It asks for a replication connection.
        is_replication: bool,
    },
}

impl Opening {
    fn packet(&self) -> &[u8] {
        match self {
            Self::Encryption(_, packet) | Self::Tls(packet) | Self::Startup { packet, .. } => packet,
        }
    }

    /// Whether a server that closes without an answer to it has something the matter. It may well close at a TLS
    /// handshake, or at a request for encryption of an odd length.
    fn is_ordinary(&self) -> bool {
        match self {
            Self::Encryption(_, packet) => packet.len() == 8,
            Self::Tls(_) => false,
            Self::Startup { .. } => true,
        }
    }

    /// Whether it asks something that is answered with one byte.
    #[must_use]
    pub const fn is_request(&self) -> bool {
        matches!(self, Self::Encryption(..))
    }
}

/// A node that took the opening.
#[derive(Debug)]
pub struct Reached {
    /// Which node.
    pub id: NodeId,
    /// What the file says of it.
    pub config: Arc<config::Node>,
    /// The address that answered.
    pub addr: SocketAddr,
    /// Its role when it was chosen.
    pub role: Option<Role>,
    /// The connection.
    pub stream: TcpStream,
    /// What it has said so far and the client has not heard.
    pub answer: BytesMut,
    /// When it was sent the opening.
    pub asked: Instant,
    /// Bytes that went to it and, of what it said, on to the client.
    pub moved: (u64, u64),
    /// The session's place on it.
    pub place: Place,
    /// Its right to log in now.
    pub pass: Option<Pass>,
    /// What is the matter with it.
    pub troubles: Troubles,
}

/// A node that the opening will be sent to.
enum Next {
    /// One that has just been chosen.
    Fresh(Choice),
    /// One that has said no to encryption and waits for the startup packet.
    Waiting(Reached),
}

/// Why another node must be found.
#[derive(Debug)]
struct Refusal {
    reason: Redispatch,
    /// What to tell the keeper; nothing when it was this machine that failed.
    met: Option<Met>,
    /// It was for want of a descriptor.
    is_out_of_files: bool,
}

impl Refusal {
    const fn new(reason: Redispatch, met: Option<Met>) -> Self {
        Self { reason, met, is_out_of_files: false }
    }
}

/// A node that takes the session. Tries one after the other, and waits when there is none.
///
/// `earlier` is a node that has already said no to encryption and waits for the startup packet.
///
/// Not cancel safe: dropped midway, the connection to the node is closed, and the waits are in no account.
///
/// # Errors
/// No node came to fit in time, or the client left.
pub async fn connect(
    shared: &Shared,
    listener: &Listener,
    client: &Client,
    opening: &Opening,
    earlier: Option<Reached>,
    account: &mut Account<'_>,
) -> Result<Reached, SessionError> {
    let began = Instant::now();
    let mut hold = Hold::new(shared, listener);
    let reached = one_after_the_other(shared, listener, client, opening, earlier, &mut hold, account).await;
    let until = reached.as_ref().map_or_else(|_| Instant::now(), |reached| reached.asked);
    account.add_waits(hold.waited(), (until - began).saturating_sub(hold.waited()));
    reached
}

async fn one_after_the_other(
    shared: &Shared,
    listener: &Listener,
    client: &Client,
    opening: &Opening,
    mut earlier: Option<Reached>,
    hold: &mut Hold<'_>,
    account: &mut Account<'_>,
) -> Result<Reached, SessionError> {
    let mut tried = Vec::new();
    // Those of them that were left for a better one. They have refused nothing.
    let mut left = 0;
    let mut is_out_of_files = false;
    loop {
        let next = if let Some(reached) = earlier.take() {
            Next::Waiting(reached)
        } else {
            account.card().set_state(State::Waiting);
            let choice = hold.place(client.peer().ip(), client.gone(), &mut tried).await;
            let choice = choice.map_err(|error| match error {
                // What the nodes are is no reason then.
                SessionError::NoNode { .. }
                | SessionError::QueueTimeout(_)
                | SessionError::QueueFull { .. }
                    if is_out_of_files =>
                {
                    SessionError::Descriptors { limit: shared.descriptors.limit() }
                }
                error => error,
            })?;
            account.card().set_state(State::Opening);
            Next::Fresh(choice)
        };
        if tried.is_empty() {
            left = 0;
        }
        let id = next.id();
        tried.push(id);
        // The client may have closed its half and still wait for the answer: whether it has left shows later.
        let refusal = match send(shared, listener, next, opening, &tried).await {
            Ok(reached) => return Ok(reached),
            Err(refusal) => refusal,
        };
        is_out_of_files = refusal.is_out_of_files;
        account.add_redispatch(refusal.reason);
        left += usize::from(refusal.reason == Redispatch::GoingDown);
        if let Some(met) = refusal.met {
            listener.watched.outcomes.tell(id, met);
        }
        let closed_at_tls = matches!((opening, refusal.reason), (Opening::Tls(_), Redispatch::Reset));
        if closed_at_tls && !is_there_another(listener, &tried) {
            return Err(SessionError::NoDirectTls);
        }
        if usize::try_from(listener.sessions().retries)
            .is_ok_and(|retries| retries < tried.len().saturating_sub(left))
        {
            // Enough for one go: from here on the session waits until something changes.
            tried = listener.watched.current.borrow().nodes.iter().map(|node| node.id).collect();
        }
    }
}

impl Next {
    const fn id(&self) -> NodeId {
        match self {
            Self::Fresh(choice) => choice.id,
            Self::Waiting(reached) => reached.id,
        }
    }
}

/// Sends the opening to one node and hears its answer.
async fn send(
    shared: &Shared,
    listener: &Listener,
    next: Next,
    opening: &Opening,
    tried: &[NodeId],
) -> Result<Reached, Refusal> {
    let (id, has_waited) = (next.id(), matches!(next, Next::Waiting(_)));
    let answered = async {
        let mut reached = match next {
            Next::Fresh(choice) => dial(shared, listener, choice, tried).await?,
            Next::Waiting(reached) => reached,
        };
        talk(listener, &mut reached, opening, tried).await?;
        Ok(reached)
    };
    let answered = tokio::select! {
        // An answer that is there counts, whatever else has come to pass.
        biased;
        answered = answered => answered,
        () = fall_behind(listener, id, tried) => Err(Refusal::new(Redispatch::GoingDown, None)),
    };
    let mut refusal = match answered {
        Ok(reached) => return Ok(reached),
        Err(refusal) => refusal,
    };
    match (&refusal.met, opening) {
        (Some(Met::NotNow(_) | Met::Full(_)), _) => {
            let metrics = shared.metrics.node(listener.watched.index, id);
            metrics.startup_error(StartupError::from_sqlstate(refusal.reason.as_str()));
            if let (Some(Met::Full(_)), Opening::Startup { is_replication: true, .. }) =
                (&refusal.met, opening)
            {
                // Not the server is full, but its slots for replication (`max_wal_senders`).
                refusal.met = Some(Met::Silence);
            }
        }
        // Nor does a server wait for ever for a startup packet. What a client can bring about must not count against a
        // node, or anybody could take all of them away with a few bytes.
        (Some(Met::Failure(_)), opening) if has_waited || !opening.is_ordinary() => {
            refusal.met = Some(Met::Silence);
        }
        _ => {}
    }
    Err(refusal)
}

/// Sends the opening and hears the answer, unless the node takes too long to give one.
async fn talk(
    listener: &Listener,
    reached: &mut Reached,
    opening: &Opening,
    tried: &[NodeId],
) -> Result<(), Refusal> {
    let id = reached.id;
    reached.asked = Instant::now();
    let talked = async {
        reached.stream.write_all(opening.packet()).await.map_err(|error| reset(&error))?;
        reached.moved.0 += u64::try_from(opening.packet().len()).unwrap_or(u64::MAX);
        hear(reached, opening).await
    };
    tokio::select! {
        biased;
        talked = talked => talked,
        () = lose_patience(listener, id, tried) => {
            Err(Refusal::new(Redispatch::NoAnswer, Some(Met::Silence)))
        }
    }
}

async fn dial(
    shared: &Shared,
    listener: &Listener,
    choice: Choice,
    tried: &[NodeId],
) -> Result<Reached, Refusal> {
    let metrics = shared.metrics.node(listener.watched.index, choice.id);
    let began = Instant::now();
    let sessions = listener.sessions();
    // A host that has gone from the network does not even refuse. While another node fits there is no use in waiting for
    // longer than that one may take to answer.
    let is_hasty = sessions.answer_timeout < sessions.connect_timeout && is_there_another(listener, tried);
    let longest = if is_hasty { sessions.answer_timeout } else { sessions.connect_timeout };
    let connected = async {
        let (stream, addr) = dial::connect(&choice.addrs, began + longest).await?;
        listener.options.apply(&stream)?;
        Ok((stream, addr))
    };
    match connected.await {
        Ok((stream, addr)) => {
            metrics.connect_duration(began.elapsed());
            let Choice { id, config, role, place, pass, troubles, .. } = choice;
            Ok(Reached {
                id,
                config,
                addr,
                role,
                stream,
                answer: BytesMut::with_capacity(ANSWER_USUAL),
                asked: began,
                moved: (0, 0),
                place,
                pass: Some(pass),
                troubles,
            })
        }
        Err(error) => {
            metrics.connect_error(ConnectError::from_io(&error));
            let met = match error.kind() {
                _ if dial::is_own_fault(&error) => None,
                // A crowded server may take that long to accept; and on a crowded machine this thread to look.
                io::ErrorKind::TimedOut if is_hasty || longest + longest / 4 <= began.elapsed() => {
                    Some(Met::Silence)
                }
                _ => Some(Met::Failure(io_text(&error))),
            };
            let is_out_of_files = dial::is_out_of_files(&error);
            Err(Refusal { is_out_of_files, ..Refusal::new(Redispatch::Connect, met) })
        }
    }
}

/// Resolves when the node has been silent long enough to look for another one: at once when there is another,
/// else when the node is found down or a client would have waited that long for any node.
async fn lose_patience(listener: &Listener, id: NodeId, tried: &[NodeId]) {
    let sessions = listener.sessions();
    let longest = Instant::now() + sessions.queue_timeout.max(sessions.answer_timeout);
    loop {
        sleep(sessions.answer_timeout).await;
        // Asks for a check, which finds out whether the node is stopped or only slow.
        listener.watched.outcomes.tell(id, Met::Silence);
        let is_up = listener.watched.current.borrow().node(id).is_some_and(Node::is_up);
        if !is_up || longest <= Instant::now() || is_there_another(listener, tried) {
            return;
        }
    }
}

/// Resolves when the node would no longer be chosen: it has begun to fail, or another one has taken its place.
async fn fall_behind(listener: &Listener, id: NodeId, tried: &[NodeId]) {
    let mut current = listener.watched.current.clone();
    if current.wait_for(|topology| is_outclassed(topology, listener, id, tried)).await.is_err() {
        // Nobody is left who could say so.
        pending::<()>().await;
    }
}

/// Reads until it is clear whether the node takes the session. What it said stays in `answer`.
async fn hear(reached: &mut Reached, opening: &Opening) -> Result<(), Refusal> {
    let mut hearing = Hearing::default();
    loop {
        let before = reached.answer.len();
        match reached.stream.read_buf(&mut reached.answer).await {
            Ok(0) => return Err(reset(&io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(reset(&error)),
        }
        let news = reached.answer.get(before..).unwrap_or_default();
        let decided = match opening {
            Opening::Tls(_) => true,
            Opening::Encryption(..) if before == 0 => match (news, news.first()) {
                ([_], Some(b'S' | b'G' | b'N')) => true,
                (_, Some(b'E')) => hearing.decide(news)?,
                _ => return Err(strange("sent more than one byte in answer to a request for encryption")),
            },
            Opening::Encryption(..) | Opening::Startup { .. } => hearing.decide(news)?,
        };
        if decided || ANSWER_MAX < reached.answer.len() {
            return Ok(());
        }
    }
}

/// What has been heard of a node's answer.
#[derive(Debug, Default)]
struct Hearing {
    scanner: Scanner,
    /// It has let the client in without a password.
    let_in: bool,
}

impl Hearing {
    /// Whether `news` settles that this node has the session; that it refuses is an error.
    fn decide(&mut self, news: &[u8]) -> Result<bool, Refusal> {
        let mut decision = Ok(false);
        let let_in = &mut self.let_in;
        let scanned = self.scanner.scan(news, |seen| {
            decision = match seen {
                Seen::Authentication { method: 0 } => {
                    *let_in = true;
                    return ControlFlow::Continue(());
                }
                Seen::Error(fields) => refusal(&fields, *let_in).map_or(Ok(true), Err),
                Seen::Authentication { .. } | Seen::Ready => Ok(true),
                _ if *let_in => Ok(true),
                // NegotiateProtocolVersion is passed on together with what follows it, so it is seen once.
                Seen::CancelKey(_) | Seen::Parameter(..) | Seen::Other(_) => return ControlFlow::Continue(()),
            };
            ControlFlow::Break(())
        });
        scanned.map_err(|error| strange(&error.to_string()))?;
        decision
    }
}

/// The two refusals that another node may not share; anything else is the client's answer.
fn refusal(fields: &ErrorFields<'_>, let_in: bool) -> Option<Refusal> {
    let text = || escaped(fields.message.unwrap_or_default(), TEXT_MAX);
    if fields.says_full(let_in) {
        return Some(Refusal::new(Redispatch::TooManyConnections, Some(Met::Full(text()))));
    }
    let not_now = fields.code == Some(sqlstate::CANNOT_CONNECT_NOW);
    not_now.then(|| Refusal::new(Redispatch::CannotConnectNow, Some(Met::NotNow(text()))))
}

fn reset(error: &io::Error) -> Refusal {
    let text = match error.kind() {
        io::ErrorKind::UnexpectedEof => "closed the connection without an answer".to_owned(),
        _ => io_text(error),
    };
    Refusal::new(Redispatch::Reset, Some(Met::Failure(text)))
}

fn strange(what: &str) -> Refusal {
    Refusal::new(Redispatch::Reset, Some(Met::Failure(what.to_owned())))
}
