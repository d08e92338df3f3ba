//! A small value on a board: many tasks look at it all the time, and are woken when it changes.
//!
//! A `watch` channel does that too, but the future that waits for a change is part of its task, some 200 bytes of it,
//! and here every session waits for as long as it lives. A look costs one load; to be woken takes a waker in the
//! board's list.

use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// What fits on a board.
pub trait Small: Copy {
    /// As one byte.
    fn to_bits(self) -> u8;
    /// From what [`Small::to_bits`] made.
    fn from_bits(bits: u8) -> Self;
}

/// A value, and who is to be woken when it changes.
#[derive(Debug)]
pub struct Board<T> {
    bits: AtomicU8,
    watchers: Mutex<Slab<Waker>>,
    shows: PhantomData<T>,
}

impl<T: Small> Board<T> {
    /// A board that shows `value`.
    #[must_use]
    pub fn new(value: T) -> Arc<Self> {
        Arc::new(Self {
            bits: AtomicU8::new(value.to_bits()),
            watchers: Mutex::default(),
            shows: PhantomData,
        })
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> T {
        T::from_bits(self.bits.load(Ordering::Relaxed))
    }

    /// Shows `value`, and wakes all who watch when that is news.
    pub fn post(&self, value: T) {
        let bits = value.to_bits();
        if self.bits.swap(bits, Ordering::Relaxed) != bits {
            // Who takes a place in the list after this looks after this, too: the lock orders them.
            let watchers: Vec<_> = self.watchers().iter().map(|(_, watcher)| watcher.clone()).collect();
            // Outside it, as there may be thousands, and sessions that begin and end need the list.
            watchers.into_iter().for_each(Waker::wake);
        }
    }

    /// A task's look at the board.
    #[must_use]
    pub fn watch(self: &Arc<Self>) -> Watch<T> {
        Watch { board: Arc::clone(self), seen: 0, place: None }
    }

    fn watchers(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a list, in few bytes: there are two for each session.
#[derive(Clone, Copy, Debug)]
struct Place(NonZeroU32);

impl Place {
    fn new(index: usize) -> Option<Self> {
        u32::try_from(index + 1).ok().and_then(NonZeroU32::new).map(Self)
    }

    fn index(self) -> usize {
        usize::try_from(self.0.get() - 1).unwrap_or(usize::MAX)
    }
}

/// One task's look at a board.
#[derive(Debug)]
pub struct Watch<T: Small> {
    board: Arc<Board<T>>,
    seen: u8,
    /// In the list of those to wake; from the first time that it was asked for news.
    place: Option<Place>,
}

impl<T: Small> Watch<T> {
    /// What the board shows.
    #[must_use]
    pub fn now(&self) -> T {
        self.board.now()
    }

    /// Ready the first time, and then when the board shows something else than when it was last asked. The task that
    /// asks first is the one that is woken, from then on: a watch does not move from task to task.
    pub fn poll_news(&mut self, cx: &Context<'_>) -> Poll<()> {
        let is_first = self.place.is_none();
        if is_first {
            self.place = Place::new(self.board.watchers().insert(cx.waker().clone()));
        }
        let bits = self.board.bits.load(Ordering::Relaxed);
        let is_news = std::mem::replace(&mut self.seen, bits) != bits;
        if is_first || is_news { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<T: Small> Drop for Watch<T> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            drop(self.board.watchers().try_remove(place.index()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::task::JoinSet;

    impl Small for u8 {
        fn to_bits(self) -> u8 {
            self
        }

        fn from_bits(bits: u8) -> Self {
            bits
        }
    }

    #[tokio::test]
    async fn who_watches_is_woken_for_news_and_only_for_news() {
        let board = Board::new(0_u8);
        let mut watch = board.watch();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            poll_fn(|cx| watch.poll_news(cx)).await;
            assert_eq!(watch.now(), 0, "what is there at first is news");
            poll_fn(|cx| watch.poll_news(cx)).await;
            watch.now()
        });
        tokio::task::yield_now().await;
        board.post(0);
        tokio::task::yield_now().await;
        assert!(tasks.try_join_next().is_none());
        board.post(7);
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), 7);
        assert!(board.watchers().is_empty(), "who has gone is not woken");
    }

    #[test]
    fn no_change_is_missed_whoever_is_first() {
        for _ in 0..300 {
            let board = Board::new(0_u8);
            let mut watch = board.watch();
            let poster = std::thread::spawn({
                let board = Arc::clone(&board);
                move || board.post(1)
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let news = async {
                while watch.now() == 0 {
                    poll_fn(|cx| watch.poll_news(cx)).await;
                }
            };
            let heard = async { tokio::time::timeout(Duration::from_secs(30), news).await };
            assert!(runtime.block_on(heard).is_ok());
            poster.join().unwrap();
        }
    }
}
