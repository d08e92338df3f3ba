//! What others may see of a session while it lives, and the switch that ends it.
//!
//! Its own thread writes, anybody reads. What changes with each packet is a plain number that only that thread adds to; what
//! changes a few times in a life stands behind a lock.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::base::id::SessionId;
use crate::base::role::Role;
use crate::config;
use crate::session::names::Names;

/// What is known of one session.
#[derive(Debug)]
pub struct Card {
    /// Its number.
    pub id: SessionId,
    /// Where it came in.
    pub listener: Arc<config::Listener>,
    /// Who connected.
    pub client: SocketAddr,
    /// When the connection was accepted.
    pub accepted: Instant,
    /// What it has passed on.
    pub moved: Moved,
    said: Mutex<Said>,
    state: AtomicU8,
    is_killed: AtomicBool,
    is_to_move: AtomicBool,
    /// The task that serves it.
    task: Waker,
    /// See [`Card::sweep`].
    swept_bytes: AtomicU64,
    quiet_since: AtomicU32,
}

/// What is learnt of a session on its way.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// What its client calls itself, as far as that can be read.
    pub names: Option<Arc<Names>>,
    /// How it is encrypted.
    pub tls: Tls,
    /// The node it stays with.
    pub node: Option<OnNode>,
}

/// The node of a session.
#[derive(Clone, Debug)]
pub struct OnNode {
    /// What the file says of it.
    pub config: Arc<config::Node>,
    /// The address that answered.
    pub addr: SocketAddr,
    /// Its role when it was chosen.
    pub role: Option<Role>,
}

/// How a session is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tls {
    /// Not at all, or nothing is known yet.
    #[default]
    None,
    /// By the node, whom the client asked.
    Passthrough,
    /// By the node, in the way of GSSAPI.
    Gss,
    /// By the node, whom the client did not ask.
    Direct,
}

impl Tls {
    /// The word for log and status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Passthrough => "passthrough",
            Self::Gss => "gss",
            Self::Direct => "direct",
        }
    }
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The client says what it wants, or a node is reached.
    Opening,
    /// It waits for a node.
    Waiting,
    /// Its node lets it in, or not.
    Login,
    /// It is in use.
    Active,
}

impl State {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Opening, Self::Waiting, Self::Login, Self::Active];

    /// The word for status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Waiting => "waiting",
            Self::Login => "login",
            Self::Active => "active",
        }
    }
}

/// Bytes that one session has passed on. Only its own thread adds, so adding is a load and a store.
#[derive(Debug, Default)]
pub struct Moved {
    to_node: AtomicU64,
    to_client: AtomicU64,
}

impl Moved {
    /// `bytes` more went to the node.
    pub fn add_to_node(&self, bytes: u64) {
        add(&self.to_node, bytes);
    }

    /// `bytes` more went to the client.
    pub fn add_to_client(&self, bytes: u64) {
        add(&self.to_client, bytes);
    }

    /// Bytes passed on so far, to the node and to the client.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.to_node.load(Ordering::Relaxed), self.to_client.load(Ordering::Relaxed))
    }
}

fn add(sum: &AtomicU64, bytes: u64) {
    sum.store(sum.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
}

/// Somebody has ended the session by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed;

impl Card {
    /// The card of a connection that has just been accepted, and is served by `task`, the only one it ever has.
    #[must_use]
    pub fn new(
        id: SessionId,
        listener: &Arc<config::Listener>,
        client: SocketAddr,
        accepted: Instant,
        task: Waker,
    ) -> Self {
        Self {
            id,
            listener: Arc::clone(listener),
            client,
            accepted,
            moved: Moved::default(),
            said: Mutex::default(),
            state: AtomicU8::new(State::Opening as u8),
            is_killed: AtomicBool::new(false),
            is_to_move: AtomicBool::new(false),
            task,
            swept_bytes: AtomicU64::new(0),
            quiet_since: AtomicU32::new(0),
        }
    }

    /// It has been served elsewhere until now: this was learnt of it there, and so many bytes were passed on.
    pub(super) fn take_up(&self, said: Said, (to_node, to_client): (u64, u64)) {
        *self.said() = said;
        self.moved.add_to_node(to_node);
        self.moved.add_to_client(to_client);
        self.swept_bytes.store(to_node.wrapping_add(to_client), Ordering::Relaxed);
    }

    /// What has been learnt of it.
    pub fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it has come.
    #[must_use]
    pub fn state(&self) -> State {
        let state = self.state.load(Ordering::Relaxed);
        State::ALL.into_iter().find(|known| *known as u8 == state).unwrap_or(State::Opening)
    }

    /// It has come so far.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Ends the session as soon as its thread gets round to it; whether nobody had done so before.
    pub fn kill(&self) -> bool {
        let is_first = !self.is_killed.swap(true, Ordering::Relaxed);
        self.task.wake_by_ref();
        is_first
    }

    /// Whether somebody has ended it. The session asks each time it is woken.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Relaxed)
    }

    /// Asks the session to go on in another process, as soon as its thread gets round to it.
    pub fn ask_to_move(&self) {
        self.is_to_move.store(true, Ordering::Relaxed);
        self.task.wake_by_ref();
    }

    /// Whether it has been asked to, and does not stay. The session asks each time it is woken.
    #[must_use]
    pub fn is_to_move(&self) -> bool {
        self.is_to_move.load(Ordering::Relaxed)
    }

    /// It stays.
    pub(super) fn stay(&self) {
        self.is_to_move.store(false, Ordering::Relaxed);
    }

    /// Drives `step` to its end, unless the session is killed before that. Cancel safe if `step` is.
    ///
    /// # Errors
    /// It was killed; `step` has been dropped.
    pub async fn unless_killed<T>(&self, step: impl Future<Output = T>) -> Result<T, Killed> {
        let mut step = pin!(step);
        poll_fn(|cx| if self.is_killed() { Poll::Ready(Err(Killed)) } else { step.as_mut().poll(cx).map(Ok) })
            .await
    }

    /// Notes whether it has passed on anything since it was last swept; `now` is in seconds since a moment that is the same for
    /// all sweeps. So nobody looks at a clock for a packet.
    pub(super) fn sweep(&self, now: u32) {
        let (to_node, to_client) = self.moved.bytes();
        let bytes = to_node.wrapping_add(to_client);
        if self.swept_bytes.swap(bytes, Ordering::Relaxed) != bytes {
            self.quiet_since.store(now, Ordering::Relaxed);
        }
    }

    /// How long nothing has been passed on, as far as sweeps can tell, which began at `epoch`.
    #[must_use]
    pub(super) fn idle(&self, epoch: Instant) -> Duration {
        let quiet_since = epoch + Duration::from_secs(self.quiet_since.load(Ordering::Relaxed).into());
        quiet_since.max(self.accepted).elapsed()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::id::SessionIds;
    use crate::config::Config;

    /// A card of a session that nobody serves.
    pub(crate) fn card(ids: &SessionIds) -> Card {
        let config = Config::from_yaml("nodes: [{addr: 'a:1', role: primary}]", "test", &|_| None).unwrap();
        let client = "127.0.0.1:1".parse().unwrap();
        Card::new(ids.next(), &config.listeners[0], client, Instant::now(), Waker::noop().clone())
    }

    #[test]
    fn states_come_back_as_they_were() {
        let card = card(&SessionIds::default());
        for state in State::ALL {
            card.set_state(state);
            assert_eq!(card.state(), state);
        }
    }

    #[tokio::test]
    async fn who_is_killed_is_woken_and_ends_even_if_that_came_before() {
        let ids = SessionIds::default();
        let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let card = Card { task, ..card(&ids) };
        let waits = card.unless_killed(std::future::pending::<()>());
        let (ended, is_first) = tokio::join!(waits, async { card.kill() });
        assert_eq!((ended, is_first), (Err(Killed), true));
        assert!(!card.kill());
        assert_eq!(card.unless_killed(async {}).await, Err(Killed));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_idle_since_the_last_sweep_that_found_it_busy() {
        let epoch = Instant::now();
        let later = async |seconds| tokio::time::advance(Duration::from_secs(seconds)).await;
        later(100).await;
        let card = card(&SessionIds::default());
        later(3).await;
        assert_eq!(card.idle(epoch).as_secs(), 3, "since it came");
        card.moved.add_to_node(1);
        card.sweep(103);
        assert_eq!(card.idle(epoch).as_secs(), 0);
        later(5).await;
        card.sweep(108);
        assert_eq!(card.idle(epoch).as_secs(), 5);
        card.moved.add_to_client(1);
        card.sweep(108);
        assert_eq!(card.idle(epoch).as_secs(), 0);
    }
}
