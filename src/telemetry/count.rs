//! Figures that sessions count into and a scrape publishes. Counting is one relaxed atomic step, several times
//! cheaper than a handle of the metrics library; the handle is touched once per scrape.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge};

/// A counter.
pub(super) struct Count {
    value: AtomicU64,
    out: Counter,
}

impl Count {
    /// Starts at 0.
    pub(super) fn new(out: Counter) -> Self {
        Self { value: AtomicU64::new(0), out }
    }

    /// Counts one.
    pub(super) fn one(&self) {
        self.value.fetch_add(1, Ordering::Relaxed);
    }

    /// The count.
    pub(super) fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Shows the count to the next scrape.
    pub(super) fn publish(&self) {
        self.out.absolute(self.value());
    }
}

/// One counter for each value of a closed label set, by its `index()`.
pub(super) struct Counts<const N: usize>([Count; N]);

impl<const N: usize> Counts<N> {
    /// All start at 0.
    pub(super) fn new(out: [Counter; N]) -> Self {
        Self(out.map(Count::new))
    }

    /// Counts one for the value with this index.
    pub(super) fn one(&self, index: usize) {
        if let Some(count) = self.0.get(index) {
            count.one();
        }
    }

    /// The sum over all values.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(Count::value).sum()
    }

    /// Shows the counts to the next scrape.
    pub(super) fn publish(&self) {
        self.0.iter().for_each(Count::publish);
    }
}

/// A number of things that exist right now.
pub(super) struct Level {
    value: Arc<AtomicU64>,
    out: Gauge,
}

impl Level {
    /// Starts at 0.
    pub(super) fn new(out: Gauge) -> Self {
        Self { value: Arc::default(), out }
    }

    /// Counts one thing for as long as the guard lives.
    pub(super) fn enter(&self) -> Counted {
        self.value.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(&self.value))
    }

    /// The number now.
    pub(super) fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Shows the number to the next scrape.
    pub(super) fn publish(&self) {
        self.out.set(as_f64(self.value()));
    }
}

/// Keeps one thing counted until it is dropped.
#[derive(Debug)]
#[must_use = "a guard that is dropped at once counts nothing"]
pub struct Counted(Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Prometheus knows no integers.
#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53: 9 PB, or sessions beyond counting")]
pub(super) fn as_f64(value: u64) -> f64 {
    value as f64
}
