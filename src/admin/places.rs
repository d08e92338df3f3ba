//! Places for callers of the admin server: so many at a time. When there is none left, who comes still gets one, and who has
//! waited for nothing longest makes way, so that nobody can keep others out by coming first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::follow::Seats;
use super::guard::Peer;
use crate::base::seldom::Seldom;

/// Who has said something, or was answered, within so long makes way after all who have not: the rest of its request may be on
/// its way, or of its answer.
const BREATH: Duration = Duration::from_secs(1);
/// Nobody makes way sooner than this, for each place there is: the first bytes of who came in a burst may be on their way. So
/// 1600 a second are let in, however many places there are.
const GRACE: Duration = Duration::from_micros(625);
/// How often it is looked again whether somebody can make way, while all are being answered.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is said at most that there is no place left.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// All places of one way in.
#[derive(Debug)]
pub(super) struct Places {
    /// How many there are, and as many again for those that follow.
    connections: usize,
    free: Arc<Semaphore>,
    followers: Seats,
    /// Who has one, the longest first; and some who have left.
    taken: VecDeque<Weak<Caller>>,
    crowded: Seldom,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) peer: Peer,
    pub(super) followers: Seats,
    /// Its place among those that do not follow, while it does not.
    place: Mutex<Option<OwnedSemaphorePermit>>,
    state: Mutex<State>,
    /// Another one needs its place.
    pub(super) makes_way: CancellationToken,
}

/// What a caller does, and since when.
#[derive(Clone, Copy, Debug)]
enum State {
    /// It has said nothing yet.
    Silent(Instant),
    /// It has said a part of a request.
    Asking(Instant),
    /// It waits for an answer.
    Waiting,
    /// It was given one. That may be on its way still.
    Answered(Instant),
}

impl Places {
    pub(super) fn new(connections: usize) -> Self {
        let (free, followers) = (Arc::new(Semaphore::new(connections)), Seats::new(connections));
        Self { connections, free, followers, taken: VecDeque::new(), crowded: Seldom::default() }
    }

    /// A place for `peer`: almost at once, or as soon as one of all callers has its answer. Cancel safe.
    pub(super) async fn take(&mut self, peer: Peer) -> Option<Arc<Caller>> {
        let place = loop {
            let look = if self.free.available_permits() == 0 { self.make_way() } else { None };
            if let Ok(place) = timeout(look.unwrap_or(LOOK), Arc::clone(&self.free).acquire_owned()).await {
                break place.ok()?;
            }
        };
        let caller = Arc::new(Caller {
            peer,
            followers: self.followers.clone(),
            place: Mutex::new(Some(place)),
            state: Mutex::new(State::Silent(Instant::now())),
            makes_way: CancellationToken::new(),
        });
        self.taken.retain(|caller| 0 < caller.strong_count());
        self.taken.push_back(Arc::downgrade(&caller));
        Some(caller)
    }

    /// Ends one that waits for no answer, or says how long it is to be waited for that. It need not have been idle for long: it is
    /// it or who comes now.
    fn make_way(&mut self) -> Option<Duration> {
        let idle = self.taken.iter().filter_map(|caller| {
            let caller = caller.upgrade()?;
            let turn = caller.state().turn()?;
            Some((turn, caller))
                .filter(|(_, caller)| !caller.is_following() && !caller.makes_way.is_cancelled())
        });
        let grace = GRACE * u32::try_from(self.connections).unwrap_or(u32::MAX);
        let (mut first, mut early) = (None, None::<Duration>);
        for (turn, caller) in idle {
            let left = grace.saturating_sub(turn.1.elapsed());
            if !left.is_zero() {
                early = Some(early.map_or(left, |early| early.min(left)));
            } else if first.as_ref().is_none_or(|(before, _)| turn < *before) {
                first = Some((turn, caller));
            }
        }
        let Some((_, first)) = first else { return early };
        first.makes_way.cancel();
        if let Some(repeated) = self.crowded.again(SAY_AGAIN) {
            let hint = "who came first makes way for who comes now; whoever need not reach the admin address should not";
            warn!(connections = self.connections, repeated, hint, "admin_crowded");
        }
        None
    }
}

impl State {
    /// Whose is the least makes way first; `None`: for nobody.
    fn turn(self) -> Option<(bool, Instant)> {
        match self {
            Self::Silent(since) => Some((false, since)),
            Self::Asking(since) | Self::Answered(since) => Some((since.elapsed() < BREATH, since)),
            Self::Waiting => None,
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

    /// Something has come from it. How long it takes for a request counts from the first byte of that.
    pub(super) fn heard(&self) {
        let mut state = self.state();
        if matches!(*state, State::Silent(_) | State::Answered(_)) {
            *state = State::Asking(Instant::now());
        }
    }

    /// Resolves as `answer` does; meanwhile it makes way for nobody.
    pub(super) async fn while_answered<Answer: Future>(&self, answer: Answer) -> Answer::Output {
        *self.state() = State::Waiting;
        let answer = answer.await;
        *self.state() = State::Answered(Instant::now());
        answer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use tokio::time::advance;

    const CONNECTIONS: usize = 8;

    /// So many callers, one after another.
    async fn come(places: &mut Places, many: usize) -> VecDeque<Arc<Caller>> {
        let mut callers = VecDeque::new();
        for _ in 0..many {
            advance(Duration::from_millis(1)).await;
            callers.push_back(places.take(Peer::Local(None)).await.unwrap());
        }
        callers
    }

    /// Which of `callers` makes way for one more.
    async fn makes_way(places: &mut Places, callers: &VecDeque<Arc<Caller>>) -> Option<usize> {
        advance(GRACE * u32::try_from(CONNECTIONS).unwrap()).await;
        let before: Vec<_> = callers.iter().map(|caller| caller.makes_way.is_cancelled()).collect();
        places.make_way();
        (0..callers.len()).find(|&at| callers[at].makes_way.is_cancelled() && !before[at])
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_waits_for_nobody_who_is_silent() {
        let mut places = Places::new(CONNECTIONS);
        let mut callers = come(&mut places, CONNECTIONS).await;
        let began = Instant::now();
        for _ in 0..CONNECTIONS * 10 {
            let first = callers.pop_front().unwrap();
            let leaves = async move { first.makes_way.cancelled().await };
            let (next, ()) = tokio::join!(places.take(Peer::Local(None)), leaves);
            callers.push_back(next.unwrap());
        }
        // The clock of the test goes by whole milliseconds.
        assert!(began.elapsed() <= Duration::from_millis(2) * 10 * u32::try_from(CONNECTIONS).unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_just_spoken_goes_after_the_silent_and_who_is_answered_stays() {
        let mut places = Places::new(CONNECTIONS);
        let callers = come(&mut places, 5).await;
        callers[0].heard();
        callers[1].while_answered(ready(())).await;
        let mut answer = Box::pin(callers[2].while_answered(pending::<()>()));
        assert!(timeout(Duration::ZERO, &mut answer).await.is_err());
        callers[2].heard();
        let mut order = Vec::new();
        while let Some(next) = makes_way(&mut places, &callers).await {
            order.push(next);
        }
        assert_eq!(order, [3, 4, 0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_request_protects_nobody_for_long() {
        let mut places = Places::new(CONNECTIONS);
        let first = come(&mut places, 1).await;
        first[0].heard();
        advance(BREATH / 2).await;
        first[0].heard();
        let callers = first.into_iter().chain(come(&mut places, 1).await).collect();
        advance(BREATH / 2).await;
        assert_eq!(makes_way(&mut places, &callers).await, Some(0));
    }
}
