//! The stored answers, and the bound on their bytes.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::entry::Entry;
use super::key::Key;

/// Most answers of one key. A service whose `Vary` names what every client says differently would else fill the
/// cache with one page.
const VARIANTS: usize = 32;

/// Most parts of the cache with a lock each.
const SHARDS: u64 = 16;

/// A part must have room for so many answers of the largest size, lest some large ones are never kept.
const LARGEST_IN_SHARD: u64 = 8;

/// What is guessed for the size of an answer, in bytes; it decides only how long the cache remembers what it has
/// dropped.
const TYPICAL: u64 = 8 << 10;

/// Counters of invalidations. Keys share them; then now and then an answer is not kept that might have been.
const EPOCHS: usize = 4096;

/// How often a key, or one that shares its counter, has been invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch(u64);

/// What is stored for a request.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The answer that fits it.
    pub(super) entry: Option<Arc<Entry>>,
    /// Shared by the requests that would get the same answer, as far as is known.
    pub(super) variant: u64,
}

impl Found {
    /// Whether nothing has changed since `before`.
    pub(super) fn is_as(&self, before: &Self) -> bool {
        match (&self.entry, &before.entry) {
            (Some(entry), Some(before)) => Arc::ptr_eq(entry, before),
            (None, None) => self.variant == before.variant,
            _ => false,
        }
    }
}

/// Stored answers by key.
#[derive(Debug)]
pub(super) struct Store {
    cache: Cache<Key, Arc<Variants>, Weight>,
    answers: Arc<AtomicU64>,
    /// What one key may take, in bytes, unless it is a single answer.
    share: u64,
    /// Held while the answers of a key are changed: they are read, changed and written back.
    changing: Mutex<()>,
    epochs: Box<[AtomicU64]>,
    hasher: RandomState,
}

/// All answers of one key, the newest first. Counted while it lives.
#[derive(Debug)]
struct Variants {
    entries: Vec<Arc<Entry>>,
    weight: u64,
    answers: Arc<AtomicU64>,
}

impl Drop for Variants {
    fn drop(&mut self) {
        self.answers.fetch_sub(self.entries.len() as u64, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug)]
struct Weight;

impl Weighter<Key, Arc<Variants>> for Weight {
    fn weight(&self, _: &Key, variants: &Arc<Variants>) -> u64 {
        variants.weight
    }
}

impl Store {
    /// Room for `size` bytes of answers of up to `largest` each.
    pub(super) fn new(size: u64, largest: u64) -> Self {
        let shards = size / largest.max(1).saturating_mul(LARGEST_IN_SHARD);
        let shards = 1_u64 << shards.clamp(1, SHARDS).ilog2();
        let builder = OptionsBuilder::new()
            .shards(usize::try_from(shards).unwrap_or(1))
            .estimated_items_capacity(usize::try_from(size / TYPICAL).unwrap_or(usize::MAX))
            // The library rounds the part of each shard up.
            .weight_capacity(size - size % shards)
            .build();
        let lifecycle = DefaultLifecycle::default();
        let cache = match builder {
            Ok(options) => Cache::with_options(options, Weight, DefaultHashBuilder::default(), lifecycle),
            Err(_) => Cache::with(0, size, Weight, DefaultHashBuilder::default(), lifecycle),
        };
        Self {
            share: cache.shard_capacity() / 2,
            cache,
            answers: Arc::default(),
            changing: Mutex::default(),
            epochs: (0..EPOCHS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// What there is for a request with these headers.
    pub(super) fn find(&self, key: &Key, request: &HeaderMap, cookies: bool) -> Found {
        let Some(variants) = self.cache.get(key) else { return Found::default() };
        let fits = |entry: &&Arc<Entry>| entry.selecting.fits(request) && (entry.terms.public || !cookies);
        Found {
            entry: variants.entries.iter().find(fits).cloned(),
            variant: variants.entries.first().map_or(0, |newest| newest.selecting.digest(request)),
        }
    }

    /// To be asked for before an answer is fetched, and shown when it is kept.
    pub(super) fn epoch(&self, key: &Key) -> Epoch {
        Epoch(self.counter(key).map_or(0, |counter| counter.load(Ordering::SeqCst)))
    }

    /// Keeps an answer, in place of `former` and of any for the same requests; not if the key has been invalidated
    /// since `epoch`, nor if a newer one has come in the meantime.
    pub(super) fn keep(&self, key: &Key, entry: Entry, former: Option<&Arc<Entry>>, epoch: Epoch) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.epoch(key) != epoch {
            return;
        }
        let old = self.cache.peek(key);
        let old = old.as_ref().map_or(&[][..], |variants| &variants.entries);
        let is_same = |other: &Arc<Entry>| other.selecting == entry.selecting;
        if old.iter().any(|other| is_same(other) && entry.received < other.received) {
            return;
        }
        let stay =
            |other: &&Arc<Entry>| !is_same(other) && former.is_none_or(|former| !Arc::ptr_eq(other, former));
        let others: Vec<_> = old.iter().filter(stay).cloned().collect();
        self.put(key, std::iter::once(Arc::new(entry)).chain(others));
    }

    /// Forgets this answer.
    pub(super) fn forget(&self, key: &Key, entry: &Arc<Entry>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(old) = self.cache.peek(key) else { return };
        self.put(key, old.entries.iter().filter(|other| !Arc::ptr_eq(other, entry)).cloned());
    }

    /// Forgets all answers of a key, and those that are being fetched.
    pub(super) fn invalidate(&self, key: &Key) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = self.counter(key) {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        self.cache.remove(key);
    }

    /// What all answers count for, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// How many answers there are.
    pub(super) fn entries(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Writes the answers of a key back, as many as may stay.
    fn put(&self, key: &Key, entries: impl Iterator<Item = Arc<Entry>>) {
        let mut weight = 0_u64;
        let mut fits = |entry: &Arc<Entry>| {
            let is_first = weight == 0;
            weight = weight.saturating_add(entry.weight);
            is_first || weight <= self.share
        };
        let entries: Vec<_> = entries.take(VARIANTS).take_while(&mut fits).collect();
        if entries.is_empty() {
            self.cache.remove(key);
            return;
        }
        let weight = entries.iter().map(|entry| entry.weight).fold(0, u64::saturating_add);
        self.answers.fetch_add(entries.len() as u64, Ordering::Relaxed);
        let variants = Variants { entries, weight, answers: Arc::clone(&self.answers) };
        self.cache.insert(key.clone(), Arc::new(variants));
    }

    fn counter(&self, key: &Key) -> Option<&AtomicU64> {
        let hash = usize::try_from(self.hasher.hash_one(key) % EPOCHS as u64).ok()?;
        self.epochs.get(hash)
    }
}
