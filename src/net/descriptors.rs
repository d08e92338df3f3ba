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

/// Kept out of sessions' reach: a quarter of the limit, but no more than this,
const RESERVE_MOST: u64 = 200;
/// and no less than this.
const RESERVE_LEAST: u64 = 64;
/// As many of the process's own the reserve has room for: more of them are set aside beside it.
const OWN_USUAL: u64 = 40;
/// What the runtime of a thread takes.
const RUNTIME: usize = 3;

/// So long a client may be silent once half of what clients may take is taken. An honest one speaks at once: this is
/// ten round trips to the other side of the world.
const PATIENCE: Duration = Duration::from_secs(2);
/// And so long once nothing is left for another session: it is this client or the next, which will not be silent.
const LAST_PATIENCE: Duration = Duration::from_millis(100);

/// What there is, and how much of it connections hold.
#[derive(Clone, Debug)]
pub struct Descriptors {
    limit: u64,
    /// What the process's own threads and listening sockets take of it, more than usual.
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
        Self { limit, own: Arc::default(), held: Arc::default(), silents: Arc::default() }
    }

    /// The process has so many threads that serve now, and so many sockets that listen.
    pub fn set_own(&self, threads: usize, sockets: usize) {
        let own = u64::try_from(threads * RUNTIME + sockets).unwrap_or(u64::MAX);
        self.own.store(own.saturating_sub(OWN_USUAL).min(self.limit / 2), Ordering::Relaxed);
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

    /// For a client that has just connected. It may still be refused in words, so it may take half the reserve.
    #[must_use]
    pub fn for_client(&self) -> Option<(Held, Silent)> {
        let most = self.for_sessions() + self.reserve() / 2;
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
        (self.limit - self.reserve()).saturating_sub(self.own.load(Ordering::Relaxed))
    }

    fn reserve(&self) -> u64 {
        (self.limit / 4).clamp(RESERVE_LEAST, RESERVE_MOST).min(self.limit / 2)
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
        let all = Descriptors::new(100);
        let sessions: Vec<_> = std::iter::from_fn(|| Some((all.for_client()?, all.for_node()?))).collect();
        assert_eq!((sessions.len(), all.sessions()), (25, 25));
        let refused: Vec<_> = std::iter::from_fn(|| all.for_client()).collect();
        assert_eq!(refused.len(), 25, "clients that can be told why they are refused");
        drop((sessions, refused));
        assert_eq!(all.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_silent_make_room_when_there_is_little() {
        let all = Descriptors::new(100);
        let (_held, silent) = all.for_client().unwrap();
        let ousted = async || tokio::time::timeout(Duration::ZERO, silent.ousted()).await.is_ok();
        let few: Vec<_> = std::iter::repeat_with(|| all.for_client()).take(35).collect();
        tokio::time::advance(PATIENCE * 5).await;
        let more = all.for_client();
        assert!(!ousted().await, "{} and {}: nobody is short of anything", few.len(), more.is_some());
        let _enough = all.for_client();
        assert!(ousted().await);
    }

    #[tokio::test(start_paused = true)]
    async fn with_nothing_left_the_silent_go_sooner() {
        let all = Descriptors::new(100);
        let silent: Vec<_> = std::iter::repeat_with(|| all.for_client().unwrap()).take(50).collect();
        let ousted =
            async |at: usize| tokio::time::timeout(Duration::ZERO, silent[at].1.ousted()).await.is_ok();
        assert!(all.for_node().is_none() && !ousted(0).await, "it has only just come");
        tokio::time::advance(LAST_PATIENCE * 2).await;
        assert!(all.for_node().is_none() && ousted(0).await && ousted(49).await);
    }

    #[test]
    fn a_usual_limit_holds_what_it_should() {
        assert_eq!(Descriptors::new(20_000).sessions(), 9_900);
        let all = Descriptors::new(20_000);
        all.set_own(8, 16);
        assert_eq!(all.sessions(), 9_900);
        // With many threads, each of which listens everywhere.
        all.set_own(128, 256);
        assert_eq!(all.clone().sessions(), 9_900 - 300);
    }
}
