//! What turned out not to be kept: nobody should wait for it ("hit for pass").

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::flight::Goal;

/// How long it is remembered. An answer that may be kept after all is kept in the meantime too.
pub(super) const REMEMBERED: Duration = Duration::from_secs(10);

/// How many are remembered.
const MOST: usize = 4096;

/// Goals whose last answer was not kept. Only their digests: a client that asks for long and strange URLs fills no
/// memory. Goals that share one are at worst fetched several times at once.
#[derive(Debug)]
pub(super) struct Passes {
    until: Cache<u64, Instant>,
    hasher: RandomState,
}

impl Passes {
    pub(super) fn new() -> Self {
        Self { until: Cache::new(MOST), hasher: RandomState::new() }
    }

    /// From now on nobody waits for it, for a while.
    pub(super) fn remember(&self, goal: &Goal) {
        self.until.insert(self.hasher.hash_one(goal), Instant::now() + REMEMBERED);
    }

    /// Whether it is one of those.
    pub(super) fn remembers(&self, goal: &Goal) -> bool {
        self.until.get(&self.hasher.hash_one(goal)).is_some_and(|until| Instant::now() < until)
    }
}
