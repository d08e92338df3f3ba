//! How busy a node is.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// Sessions on one node now, over all listeners. Kept across snapshots.
#[derive(Debug)]
pub struct Load {
    sessions: AtomicU32,
    freed: Arc<Notify>,
    wakes: Wakes,
}

/// Whom a free place is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakes {
    /// All who wait: not every one can use every place.
    All,
    /// The one that has waited longest: any of them can. Thousands may wait, and only one will get it.
    One,
}

impl Load {
    /// No sessions yet. Who waits on `freed` is told when a place becomes free.
    #[must_use]
    pub const fn new(freed: Arc<Notify>, wakes: Wakes) -> Self {
        Self { sessions: AtomicU32::new(0), freed, wakes }
    }

    /// Sessions now.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Takes a place for as long as the returned guard lives; `None` when `limit` places are taken.
    #[must_use]
    pub fn enter(self: &Arc<Self>, limit: Option<NonZeroU32>) -> Option<Place> {
        let limit = limit.map_or(u32::MAX, NonZeroU32::get);
        let add = |now: u32| (now < limit).then(|| now.saturating_add(1));
        self.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Place(Arc::clone(self)))
    }
}

/// One session's place on a node.
#[derive(Debug)]
pub struct Place(Arc<Load>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
        match self.0.wakes {
            Wakes::All => self.0.freed.notify_waiters(),
            Wakes::One => self.0.freed.notify_one(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back() {
        let load = Arc::new(Load::new(Arc::default(), Wakes::All));
        let place = load.enter(NonZeroU32::new(1)).unwrap();
        assert!(load.enter(NonZeroU32::new(1)).is_none());
        assert_eq!(load.sessions(), 1);
        drop(place);
        assert_eq!(load.sessions(), 0);
        assert!(load.enter(NonZeroU32::new(1)).is_some());
    }
}
