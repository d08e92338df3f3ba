//! How long something took of late, in few bytes: counted by magnitude, forgotten after a minute or two.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// How often `RecentTimes::turn` wants to be called.
pub const TURN_INTERVAL: Duration = Duration::from_secs(60);

/// Each doubling is cut into so many steps: a time is known to a fifth.
const STEPS: usize = 4;
/// Microseconds from 1 to beyond a minute.
const BUCKETS: usize = 27 * STEPS;

/// Times of the present minute and of the one before it.
#[derive(Debug)]
pub(super) struct RecentTimes {
    minutes: [Minute; 2],
    present: AtomicUsize,
}

#[derive(Debug)]
struct Minute([AtomicU32; BUCKETS]);

impl Default for RecentTimes {
    fn default() -> Self {
        Self { minutes: std::array::from_fn(|_| Minute::default()), present: AtomicUsize::new(0) }
    }
}

impl Default for Minute {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

impl RecentTimes {
    /// Something took so long.
    pub(super) fn record(&self, took: Duration) {
        let minute = self.minutes.get(self.present.load(Ordering::Relaxed));
        if let Some(bucket) = minute.and_then(|minute| minute.0.get(bucket_of(took))) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A minute is over.
    pub(super) fn turn(&self) {
        let next = 1 - self.present.load(Ordering::Relaxed).min(1);
        if let Some(minute) = self.minutes.get(next) {
            minute.0.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
        }
        self.present.store(next, Ordering::Relaxed);
    }

    /// What all but one of a hundred took at most; `None` when there was nothing.
    pub(super) fn p99(&self) -> Option<Duration> {
        let [one, other] = &self.minutes;
        let counts = one.0.iter().zip(&other.0);
        let counts: Vec<u64> = counts
            .map(|(a, b)| u64::from(a.load(Ordering::Relaxed)) + u64::from(b.load(Ordering::Relaxed)))
            .collect();
        let all: u64 = counts.iter().sum();
        let wanted = all - all / 100;
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            0 < wanted && wanted <= seen
        })?;
        Some(end_of(bucket))
    }
}

fn bucket_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let doublings = micros.ilog2();
    // The two bits behind the first one say in which quarter of its doubling it lies.
    let quarter = if doublings < 2 { micros << (2 - doublings) } else { micros >> (doublings - 2) } & 3;
    let bucket = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    (bucket(doublings.into()) * STEPS + bucket(quarter)).min(BUCKETS - 1)
}

/// The longest time of a bucket, of which the last one has all that is longer.
fn end_of(bucket: usize) -> Duration {
    let (doublings, quarter) = (bucket / STEPS, bucket % STEPS);
    let quarters = u64::try_from(quarter).unwrap_or(0) + 5;
    Duration::from_micros(((quarters << doublings) / 4).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_time_is_known_to_a_quarter(micros in 4u64..67_000_000) {
            let took = Duration::from_micros(micros);
            let known = end_of(bucket_of(took));
            prop_assert!(took <= known && known.as_secs_f64() <= took.as_secs_f64() * 1.26, "{took:?} {known:?}");
        }

        #[test]
        fn any_time_has_a_bucket(seconds in any::<u64>()) {
            prop_assert!(bucket_of(Duration::from_secs(seconds)) < BUCKETS);
        }
    }

    #[test]
    fn one_of_a_hundred_may_be_longer_and_all_is_forgotten() {
        let times = RecentTimes::default();
        assert_eq!(times.p99(), None);
        (0..99).for_each(|_| times.record(Duration::from_millis(1)));
        times.record(Duration::from_secs(3));
        assert!(times.p99().unwrap() < Duration::from_micros(1300));
        times.record(Duration::from_secs(3));
        assert!(Duration::from_secs(3) <= times.p99().unwrap());
        times.turn();
        times.record(Duration::from_secs(3));
        assert!(Duration::from_secs(3) <= times.p99().unwrap());
        times.turn();
        assert!(times.p99().is_some());
        times.turn();
        assert_eq!(times.p99(), None);
    }
}
