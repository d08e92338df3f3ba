//! Places for callers of the admin server: so many at a time. When there is none left, who has been idle longest makes way, so that
//! nobody can keep others out by coming first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::follow::FOLLOWERS;
use super::guard::Peer;
use crate::base::seldom::Seldom;

/// Connections at a time by each way in, beside those that follow.
const CONNECTIONS: usize = 32;
/// Who has been idle for less does not make way: its request may be on its way.
const BREATH: Duration = Duration::from_secs(1);
/// How often it is looked whether somebody has been idle for so long.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is said at most that there is no place left.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// All places of one way in.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    /// Who has one, the longest first; and some who have left.
    taken: VecDeque<Weak<Caller>>,
    crowded: Seldom,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) peer: Peer,
    pub(super) followers: Arc<Semaphore>,
    /// Its place among those that do not follow, while it does not.
    place: Mutex<Option<OwnedSemaphorePermit>>,
    /// Since when it has had no answer to wait for.
    idle_since: Mutex<Option<Instant>>,
    /// Another one needs its place.
    pub(super) makes_way: CancellationToken,
}

impl Places {
    pub(super) fn new() -> Self {
        let [free, followers] = [CONNECTIONS, FOLLOWERS].map(|most| Arc::new(Semaphore::new(most)));
        Self { free, followers, taken: VecDeque::new(), crowded: Seldom::default() }
    }

    /// A place for `peer`, once there is one. Cancel safe.
    pub(super) async fn take(&mut self, peer: Peer) -> Option<Arc<Caller>> {
        let place = loop {
            if self.free.available_permits() == 0 {
                self.make_way();
            }
            if let Ok(place) = timeout(LOOK, Arc::clone(&self.free).acquire_owned()).await {
                break place.ok()?;
            }
        };
        let caller = Arc::new(Caller {
            peer,
            followers: Arc::clone(&self.followers),
            place: Mutex::new(Some(place)),
            idle_since: Mutex::new(Some(Instant::now())),
            makes_way: CancellationToken::new(),
        });
        self.taken.retain(|caller| 0 < caller.strong_count());
        self.taken.push_back(Arc::downgrade(&caller));
        Some(caller)
    }

    /// Ends who has been idle longest.
    fn make_way(&mut self) {
        let idle = self.taken.iter().filter_map(|caller| {
            let caller = caller.upgrade()?;
            let since = *caller.idle_since();
            Some((since?, caller))
                .filter(|(_, caller)| !caller.is_following() && !caller.makes_way.is_cancelled())
        });
        let Some((since, longest)) = idle.min_by_key(|(since, _)| *since) else { return };
        if since.elapsed() < BREATH {
            return;
        }
        longest.makes_way.cancel();
        if let Some(repeated) = self.crowded.again(SAY_AGAIN) {
            let hint = "who came first makes way for who comes now; whoever need not reach the admin address should not";
            warn!(connections = CONNECTIONS, repeated, hint, "admin_crowded");
        }
    }
}

impl Caller {
    /// From now on it is one of those who follow, and leaves its place among the others.
    pub(super) fn follows(&self) {
        drop(self.place.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(super) fn is_following(&self) -> bool {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Resolves as `answer` does; meanwhile it makes way for nobody.
    pub(super) async fn while_answered<Answer: Future>(&self, answer: Answer) -> Answer::Output {
        *self.idle_since() = None;
        let answer = answer.await;
        *self.idle_since() = Some(Instant::now());
        answer
    }

    fn idle_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
