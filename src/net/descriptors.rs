//! The file descriptors of the process, shared out so that sessions never take the last one.
//!
//! When descriptors run out everything breaks at once: accepting spins, checks fail and healthy nodes look dead.
//! So connections are counted against the limit, and a part of it is kept for checks, admin, cancel requests
//! and logs. When they get scarce, clients that have not yet said what they want make room for those that will.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::net::silent::{Silent, Silents};

/// Kept for checks, the admin address, cancel requests and files: a fifth of the limit, but no more than this.
const KEPT_MOST: u64 = 110;
/// Beside it, for clients that are told why they are refused: a tenth of the limit, but no more than this.
const REFUSING_MOST: u64 = 50;
/// What is set aside for the process's own at least.
const OWN_LEAST: u64 = 40;
/// What the process has open before it has a thread that serves or a socket that listens for clients: its standard streams, the
/// runtime of its main thread, the admin address and its socket, signals, the watch on its file.
const BASE: usize = 18;
/// What the runtime of a thread takes.
const RUNTIME: usize = 4;
/// Connections to each admin way, its address and its socket, and as many that follow there. One way that is crowded leaves
/// checks what they need; whoever may reach the socket is trusted.
const ADMIN_LEAST: u64 = 4;
const ADMIN_MOST: u64 = 32;

/// So long a client may be silent once half of what clients may take is taken. An honest one speaks at once: this is
/// ten round trips to the other side of the world.
const PATIENCE: Duration = Duration::from_secs(2);
/// And so long once nothing is left for another session: it is this client or the next, which will not be silent.
const LAST_PATIENCE: Duration = Duration::from_millis(100);

/// What there is, and how much of it connections hold.
#[derive(Clone, Debug)]
pub struct Descriptors {
    limit: u64,
    /// What the process's own threads and listening sockets take of it.
    own: Arc<AtomicU64>,
    held: Arc<AtomicU64>,
    silents: Arc<Silents>,
}

/// One descriptor's worth, given back on `Drop`.
#[derive(Debug)]
pub struct Held(Arc<AtomicU64>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Descriptors {
    /// All the process may have: raises the soft limit of open files to the hard one.
    #[must_use]
    pub fn of_process() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let limit = if raised.is_ok() { maximum } else { current };
        Self::new(limit.unwrap_or(u64::MAX))
    }

    fn new(limit: u64) -> Self {
        let descriptors = Self { limit, own: Arc::default(), held: Arc::default(), silents: Arc::default() };
        descriptors.set_own(0, 0);
        descriptors
    }

    /// The process has so many threads that serve now, and so many sockets that listen.
    pub fn set_own(&self, threads: usize, sockets: usize) {
        let own = u64::try_from(BASE + threads * RUNTIME + sockets).unwrap_or(u64::MAX);
        self.own.store(own.max(OWN_LEAST).min(self.limit / 4 * 3), Ordering::Relaxed);
    }

    /// The limit of open files.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Sessions that can be held: each takes one descriptor for the client and one for the node.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.for_sessions() / 2
    }

    /// How many may be connected to the admin server by each way in, and as many again that follow.
    #[must_use]
    pub fn for_admin(&self) -> usize {
        usize::try_from((self.limit / 32).clamp(ADMIN_LEAST, ADMIN_MOST)).unwrap_or(usize::MAX)
    }

    /// For a client that has just connected. It may still be refused in words, for which there is some room beside that of sessions.
    #[must_use]
    pub fn for_client(&self) -> Option<(Held, Silent)> {
        let most = self.for_clients();
        let now = self.held.load(Ordering::Relaxed);
        if self.for_sessions() <= now {
            self.silents.oust(LAST_PATIENCE);
        } else if most / 2 <= now {
            self.silents.oust(PATIENCE);
        }
        Some((self.take(most)?, self.silents.add()))
    }

    /// For the node of an admitted session.
    #[must_use]
    pub fn for_node(&self) -> Option<Held> {
        let taken = self.take(self.for_sessions());
        if taken.is_none() {
            self.silents.oust(LAST_PATIENCE);
        }
        taken
    }

    /// For the client or the node of a session that is there already, whether or not there is room: it comes from another
    /// process, which ends.
    #[must_use]
    pub fn for_moved(&self) -> Held {
        self.held.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(&self.held))
    }

    fn for_sessions(&self) -> u64 {
        self.for_clients().saturating_sub((self.limit / 10).min(REFUSING_MOST))
    }

    /// What all clients, and the nodes and upstreams they have, may take together.
    fn for_clients(&self) -> u64 {
        let kept = (self.limit / 5).min(KEPT_MOST);
        self.limit.saturating_sub(kept).saturating_sub(self.own.load(Ordering::Relaxed))
    }

    fn take(&self, most: u64) -> Option<Held> {
        let add = |held: u64| (held < most).then(|| held.saturating_add(1));
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Held(Arc::clone(&self.held)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_leave_the_reserve_alone() {
        let all = Descriptors::new(200);
        let sessions: Vec<_> = std::iter::from_fn(|| Some((all.for_client()?, all.for_node()?))).collect();
        assert_eq!((sessions.len(), all.sessions()), (50, 50));
        let refused: Vec<_> = std::iter::from_fn(|| all.for_client()).collect();
        assert_eq!(refused.len(), 20, "clients that can be told why they are refused");
        drop((sessions, refused));
        assert_eq!(all.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn whatever_clients_take_the_process_and_the_admin_address_have_theirs() {
        for (limit, threads, sockets) in
            [(64, 2, 4), (256, 2, 6), (256, 16, 48), (1024, 64, 192), (20_000, 64, 192)]
        {
            let all = Descriptors::new(limit);
            all.set_own(threads, sockets);
            let clients: Vec<_> = std::iter::from_fn(|| all.for_client()).collect();
            let left = usize::try_from(limit).unwrap() - clients.len() - BASE - threads * RUNTIME - sockets;
            assert!(0 < all.sessions() && 2 * all.for_admin() + 4 <= left, "{limit}: {left} are left");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_silent_make_room_when_there_is_little() {
        let all = Descriptors::new(160);
        let (_held, silent) = all.for_client().unwrap();
        let ousted = async || tokio::time::timeout(Duration::ZERO, silent.ousted()).await.is_ok();
        let few: Vec<_> = std::iter::repeat_with(|| all.for_client()).take(42).collect();
        tokio::time::advance(PATIENCE * 5).await;
        let more = all.for_client();
        assert!(!ousted().await, "{} and {}: nobody is short of anything", few.len(), more.is_some());
        let _enough = all.for_client();
        assert!(ousted().await);
    }

    #[tokio::test(start_paused = true)]
    async fn with_nothing_left_the_silent_go_sooner() {
        let all = Descriptors::new(160);
        let silent: Vec<_> = std::iter::repeat_with(|| all.for_client().unwrap()).take(72).collect();
        let ousted =
            async |at: usize| tokio::time::timeout(Duration::ZERO, silent[at].1.ousted()).await.is_ok();
        assert!(all.for_node().is_none() && !ousted(0).await, "it has only just come");
        tokio::time::advance(LAST_PATIENCE * 2).await;
        assert!(all.for_node().is_none() && ousted(0).await && ousted(71).await);
    }

    #[test]
    fn a_usual_limit_holds_what_it_should() {
        assert_eq!(Descriptors::new(20_000).sessions(), 9_900);
        assert_eq!(Descriptors::new(1024).sessions(), 412);
        let all = Descriptors::new(20_000);
        all.set_own(2, 6);
        assert_eq!(all.sessions(), 9_900);
        // With many threads, each of which listens everywhere.
        all.set_own(128, 256);
        assert_eq!(all.clone().sessions(), 9_900 - 373);
    }
}
