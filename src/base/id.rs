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

    /// From what [`fmt::Display`] makes of it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("s-")?;
        // The standard library takes a sign as well.
        let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        are_digits.then(|| u64::from_str_radix(digits, 16).ok()).flatten().map(Self)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_above_those_of_another_process_and_never_below_ones_own() {
        let ids = SessionIds::default();
        ids.begin_above(7);
        assert_eq!((ids.next(), ids.last()), (SessionId::from_number(8), 8));
        ids.begin_above(3);
        assert_eq!(ids.next().number(), 9);
    }

    #[test]
    fn a_sessions_number_reads_back() {
        let ids = SessionIds(AtomicU64::new(0x1f3a8));
        let id = ids.next();
        assert_eq!((id.to_string().as_str(), SessionId::parse("s-1f3a9")), ("s-1f3a9", Some(id)));
        assert_eq!(SessionId::parse("s-ffffffffffffffff"), Some(SessionId(u64::MAX)));
        for wrong in
            ["", "s-", "1f", "s-+1", "s--1", "s-1 ", "s-g", "S-1", "s-10000000000000000", "s-1/..", "s-é"]
        {
            assert_eq!(SessionId::parse(wrong), None, "{wrong}");
        }
    }
}
