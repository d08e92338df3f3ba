//! All sessions there are, by their cards. Each worker has a list of its own, locked when a session of it begins or ends and when
//! somebody looks in.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use crate::base::id::SessionId;
use crate::session::card::Card;

/// How often [`Roster::sweep`] wants to be called.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// All sessions.
#[derive(Debug)]
pub struct Roster {
    lists: Vec<List>,
    epoch: Instant,
}

/// Those of one worker; aligned so that two of them do not meet in a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct List(Mutex<Slab<Arc<Card>>>);

/// A session's place in the list; it leaves on `Drop`.
#[derive(Debug)]
pub struct Listed<'r> {
    list: &'r List,
    place: usize,
    card: Arc<Card>,
}

impl Roster {
    /// No session yet, for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let lists = std::iter::repeat_with(List::default).take(workers.max(1)).collect();
        Self { lists, epoch: Instant::now() }
    }

    /// A session of the worker with this number begins.
    pub fn enter(&self, worker: usize, card: Card) -> Option<Listed<'_>> {
        let list = self.lists.get(worker).or(self.lists.first())?;
        let card = Arc::new(card);
        let place = list.lock().insert(Arc::clone(&card));
        Some(Listed { list, place, card })
    }

    /// All there are now, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Card>> {
        let mut all = Vec::new();
        for list in &self.lists {
            all.extend(list.lock().iter().map(|(_, card)| Arc::clone(card)));
        }
        all
    }

    /// The one with this number.
    #[must_use]
    pub fn find(&self, id: SessionId) -> Option<Arc<Card>> {
        let find =
            |list: &List| list.lock().iter().find(|(_, card)| card.id == id).map(|(_, c)| Arc::clone(c));
        self.lists.iter().find_map(find)
    }

    /// Notes which of them are idle.
    pub fn sweep(&self) {
        let now = u32::try_from(self.epoch.elapsed().as_secs()).unwrap_or(u32::MAX);
        for list in &self.lists {
            list.lock().iter().for_each(|(_, card)| card.sweep(now));
        }
    }

    /// How long a session has passed on nothing, to about [`SWEEP_INTERVAL`].
    #[must_use]
    pub fn idle(&self, card: &Card) -> Duration {
        card.idle(self.epoch)
    }
}

impl List {
    fn lock(&self) -> MutexGuard<'_, Slab<Arc<Card>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Listed<'_> {
    type Target = Card;

    fn deref(&self) -> &Card {
        &self.card
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        drop(self.list.lock().try_remove(self.place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::SessionIds;
    use crate::session::card::tests::card;

    #[test]
    fn who_comes_is_found_until_it_leaves() {
        let (roster, ids) = (Roster::new(2), SessionIds::default());
        let one = roster.enter(0, card(&ids)).unwrap();
        let two = roster.enter(1, card(&ids)).unwrap();
        let three = roster.enter(7, card(&ids)).unwrap();
        let mut all: Vec<_> = roster.all().iter().map(|card| card.id.to_string()).collect();
        all.sort();
        assert_eq!(all, ["s-1", "s-2", "s-3"]);
        assert!(roster.find(two.id).is_some_and(|found| Arc::ptr_eq(&found, &two.card)));
        let id = two.id;
        drop((one, two));
        assert!(roster.find(id).is_none());
        assert_eq!(roster.all().len(), 1);
        drop(three);
        assert!(roster.all().is_empty());
    }
}
