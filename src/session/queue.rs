//! A line of sessions: first come, first served.
//!
//! Only who is first in line looks for a node, so that one that comes to fit is not fought over by all who wait; the rest
//! sleep. Who has found one *steps aside* for the next, but keeps its place until its session has begun: should the node
//! refuse it, it looks on beside the line, for it has been first before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// The line before one listener.
#[derive(Debug, Default)]
pub struct Queue {
    line: Mutex<Line>,
    /// Those who stand in it, so that a session that comes need not take the lock to see that there is none.
    standing: AtomicUsize,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    places: BTreeMap<u64, Stand>,
}

#[derive(Debug)]
struct Stand {
    since: Instant,
    is_aside: bool,
    turn: Arc<Notify>,
}

/// A place in the line; left on `Drop`.
#[derive(Debug)]
pub struct Ticket<'q> {
    queue: &'q Queue,
    number: u64,
    since: Instant,
    turn: Arc<Notify>,
}

impl Queue {
    /// Goes to the end of the line; `None` when there are `limit` in it already.
    pub fn enter(&self, limit: Option<u32>) -> Option<Ticket<'_>> {
        let mut line = self.lock();
        let is_full = |limit: u32| usize::try_from(limit).is_ok_and(|limit| limit <= line.places.len());
        if limit.is_some_and(is_full) {
            return None;
        }
        let (number, since, turn) = (line.next, Instant::now(), Arc::<Notify>::default());
        line.next += 1;
        line.places.insert(number, Stand { since, is_aside: false, turn: Arc::clone(&turn) });
        self.count(true);
        Some(Ticket { queue: self, number, since, turn })
    }

    /// Whether somebody stands in line.
    #[must_use]
    pub fn has_standing(&self) -> bool {
        0 < self.standing.load(Ordering::Relaxed)
    }

    /// How many have a place in it, and since when the first of them does.
    #[must_use]
    pub fn summary(&self) -> (usize, Option<Instant>) {
        let line = self.lock();
        (line.places.len(), line.places.values().next().map(|stand| stand.since))
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more stands in line, or one fewer.
    fn count(&self, is_one_more: bool) {
        if is_one_more {
            self.standing.fetch_add(1, Ordering::Relaxed);
        } else {
            self.standing.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Line {
    fn call_first(&self) {
        if let Some((_, stand)) = self.first() {
            stand.turn.notify_one();
        }
    }

    fn first(&self) -> Option<(u64, &Stand)> {
        self.places.iter().find(|(_, stand)| !stand.is_aside).map(|(number, stand)| (*number, stand))
    }
}

impl Ticket<'_> {
    /// When it was taken.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// Resolves when nobody who came earlier stands in line. Cancel safe.
    pub async fn turn(&self) {
        while !self.is_first() {
            self.turn.notified().await;
        }
    }

    fn is_first(&self) -> bool {
        self.queue.lock().first().is_some_and(|(number, _)| number == self.number)
    }

    /// Lets the next one come.
    pub fn step_aside(&self) {
        let mut line = self.queue.lock();
        if let Some(stand) = line.places.get_mut(&self.number)
            && !std::mem::replace(&mut stand.is_aside, true)
        {
            self.queue.count(false);
        }
        line.call_first();
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut line = self.queue.lock();
        if line.places.remove(&self.number).is_some_and(|stand| !stand.is_aside) {
            self.queue.count(false);
        }
        line.call_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn is_called(ticket: &Ticket<'_>) -> bool {
        use futures_util::FutureExt;
        ticket.turn().now_or_never().is_some()
    }

    #[tokio::test]
    async fn first_come_first_served() {
        let queue = Queue::default();
        let [a, b, c] = [(); 3].map(|()| queue.enter(None).unwrap());
        assert_eq!([&a, &b, &c].map(is_called), [true, false, false]);
        drop(b);
        assert!(!is_called(&c));
        drop(a);
        assert!(is_called(&c));
        drop(c);
        assert!(!queue.has_standing());
    }

    #[tokio::test]
    async fn who_steps_aside_keeps_its_place_and_is_in_nobodys_way() {
        let queue = Queue::default();
        let [a, b] = [(); 2].map(|()| queue.enter(None).unwrap());
        a.step_aside();
        assert!(is_called(&b));
        b.step_aside();
        assert!(!queue.has_standing());
        assert_eq!(queue.summary().0, 2, "those on their way still have their places");
        let c = queue.enter(None).unwrap();
        assert!(is_called(&c));
    }

    #[tokio::test]
    async fn who_sleeps_is_woken_when_the_last_one_before_it_leaves() {
        let queue = Arc::new(Queue::default());
        let (a, b) = (queue.enter(None).unwrap(), queue.enter(None).unwrap());
        let (theirs, (woken, seen)) = (Arc::clone(&queue), tokio::sync::oneshot::channel());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            theirs.enter(None).unwrap().turn().await;
            let _ = woken.send(());
        });
        while queue.summary().0 < 3 {
            tokio::task::yield_now().await;
        }
        drop(b);
        a.step_aside();
        tokio::time::timeout(Duration::from_secs(10), seen).await.unwrap().unwrap();
        tasks.join_next().await.unwrap().unwrap();
    }

    #[test]
    fn only_as_many_as_it_holds_stand_in_it() {
        let queue = Queue::default();
        let first = queue.enter(Some(1)).unwrap();
        assert!(queue.enter(Some(1)).is_none());
        first.step_aside();
        assert!(queue.enter(Some(1)).is_none(), "it may be back");
        assert!(queue.enter(None).is_some());
        drop(first);
        assert!(queue.enter(Some(1)).is_some());
    }
}
