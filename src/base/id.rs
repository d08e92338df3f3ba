//! Names of things that exist more than once.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of a session, unique within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// As a number, for another process.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The session that had this number in another process.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s-{:x}", self.0)
    }
}

/// Gives out [`SessionId`]s, 1 first.
#[derive(Debug, Default)]
pub struct SessionIds(AtomicU64);

impl SessionIds {
    /// The last number that was given out.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Gives out only numbers above this one from now on.
    pub fn begin_above(&self, number: u64) {
        self.0.fetch_max(number, Ordering::Relaxed);
    }

    /// The next number.
    pub fn next(&self) -> SessionId {
        SessionId(self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }
}

/// A node, for as long as it is there. What is learnt of one that is gone is not taken for news of the one that
/// has its place now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Place in its cluster's list. The list only ever grows; a place that has become free is used again.
    pub place: usize,
    /// How many have had the place before.
    pub life: u32,
}

impl NodeId {
    /// The first one in this place.
    #[must_use]
    pub const fn first(place: usize) -> Self {
        Self { place, life: 0 }
    }
}
