//! Latencies in buckets: their number does not matter, and a percentile is right to 2 %.

use std::time::Duration;

/// Below this many microseconds each has a bucket; above, each doubling has half as many.
const EXACT: u64 = 128;
const HALF: u64 = EXACT / 2;

#[derive(Clone, Default)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Histogram {
    pub(crate) fn add(&mut self, latency: Duration) {
        let index = bucket(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        if self.buckets.len() <= index {
            self.buckets.resize(index + 1, 0);
        }
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket += 1;
        }
        self.count += 1;
        self.max = self.max.max(latency);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (ours, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *ours += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The latency that `percent` of all do not exceed; none without any.
    pub(crate) fn percentile(&self, percent: u64) -> Option<Duration> {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let reached = |&count: &u64| {
            seen += count;
            seen >= rank
        };
        let index = self.buckets.iter().position(reached)?;
        Some(Duration::from_micros(top(index as u64)).min(self.max))
    }

    pub(crate) fn max(&self) -> Option<Duration> {
        (self.count > 0).then_some(self.max)
    }
}

fn bucket(micros: u64) -> usize {
    let index = if micros < EXACT {
        micros
    } else {
        let doublings = u64::from(micros.ilog2() - EXACT.ilog2());
        EXACT + doublings * HALF + (micros >> (doublings + 1)) - HALF
    };
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The longest latency of a bucket.
fn top(index: u64) -> u64 {
    if index < EXACT {
        return index;
    }
    let (doublings, within) = ((index - EXACT) / HALF, (index - EXACT) % HALF);
    ((within + HALF + 1) << (doublings + 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::{Histogram, bucket, top};
    use std::time::Duration;

    #[test]
    fn buckets_are_narrow_and_in_order() {
        let mut last = 0;
        for micros in (0..5000).chain((13..40).map(|power| (1 << power) + 12_345)) {
            let index = bucket(micros);
            assert!(index == last || index == last + 1 || micros >= 5000, "{micros}");
            let top = top(index as u64);
            assert!(top >= micros && top - micros <= micros / 60, "{micros} is in the bucket to {top}");
            last = index;
        }
        assert!(bucket(u64::MAX) < 4000);
    }

    #[test]
    fn percentiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), None);
        (1..=100).for_each(|micros| histogram.add(Duration::from_micros(micros)));
        assert_eq!(histogram.percentile(50), Some(Duration::from_micros(50)));
        assert_eq!(histogram.percentile(99), Some(Duration::from_micros(99)));
        let mut other = Histogram::default();
        other.add(Duration::from_secs(3));
        histogram.merge(&other);
        assert_eq!(histogram.percentile(100), Some(Duration::from_secs(3)));
        assert_eq!(histogram.max(), Some(Duration::from_secs(3)));
    }
}
