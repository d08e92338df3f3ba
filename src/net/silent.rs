//! Clients that have connected and not yet said what they want. They may take their time for as long as nobody else
//! needs their place.
//!
//! Whoever opens connections and says nothing costs a descriptor each and no other effort ("slow loris"). Without this
//! he could hold all that clients may have for as long as a slow client is given.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// One client that is silent so far; to be dropped when it has spoken.
#[derive(Debug)]
pub struct Silent {
    since: Instant,
    ousted: Arc<Notify>,
}

impl Silent {
    /// Resolves when its place is wanted by others; says how long it was silent, in whole milliseconds. Cancel safe.
    pub async fn ousted(&self) -> Duration {
        self.ousted.notified().await;
        let silent = self.since.elapsed();
        silent.saturating_sub(Duration::from_nanos(u64::from(silent.subsec_nanos() % 1_000_000)))
    }
}

/// All of them, the longest silent first.
#[derive(Debug, Default)]
pub(super) struct Silents(Mutex<VecDeque<(Instant, Weak<Notify>)>>);

impl Silents {
    /// One more.
    pub(super) fn add(&self) -> Silent {
        let (since, ousted) = (Instant::now(), Arc::<Notify>::default());
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have spoken leave from here. Who is silent stands before them for a bounded time, so the queue
        // is as long as the connections of that time.
        while queue.front().is_some_and(|(_, first)| first.strong_count() == 0) {
            queue.pop_front();
        }
        queue.push_back((since, Arc::downgrade(&ousted)));
        Silent { since, ousted }
    }

    /// Tells those that have been silent for longer than `patience` to go.
    pub(super) fn oust(&self, patience: Duration) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while queue.front().is_some_and(|(since, _)| patience < since.elapsed()) {
            if let Some(silent) = queue.pop_front().and_then(|(_, silent)| silent.upgrade()) {
                silent.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use tokio::time::{advance, timeout};

    async fn is_ousted(silent: &Silent) -> bool {
        timeout(Duration::ZERO, pin!(silent.ousted())).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_silent_go_first() {
        let all = Silents::default();
        let first = all.add();
        advance(Duration::from_secs(3)).await;
        let second = all.add();
        all.oust(Duration::from_secs(2));
        assert!(!is_ousted(&second).await);
        assert_eq!(first.ousted().await, Duration::from_secs(3));
        advance(Duration::from_secs(3)).await;
        all.oust(Duration::from_secs(2));
        assert!(is_ousted(&second).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_spoken_is_forgotten() {
        let all = Silents::default();
        for _ in 0..1000 {
            drop(all.add());
        }
        assert_eq!(all.0.lock().unwrap().len(), 1);
    }
}
