//! A node that comes and goes: after each further fall its next rise counts for less. Pure: it is told what time it is.

use std::time::Duration;

use tokio::time::Instant;

/// The first probation: as long as a few checks that fail would take to show.
const FIRST: Duration = Duration::from_secs(1);
/// The longest one. A node that is well again should not be idle for long, and by then it costs clients little: who is sent
/// to a node that is gone is sent on to the next.
const MOST: Duration = Duration::from_secs(30);
/// Up for so long beyond its probation, a node has shown that it is well: a fall after that is the first.
const MEMORY: Duration = Duration::from_secs(60);

/// What is remembered of a node's falls.
#[derive(Clone, Debug, Default)]
pub struct Flapping {
    /// Within memory.
    falls: u32,
    /// When it rose last, or when its probation after that ends.
    steady_from: Option<Instant>,
}

impl Flapping {
    /// It was up and is down.
    pub fn fell(&mut self, now: Instant) {
        let steady = self.steady_from.take().map(|from| now.saturating_duration_since(from));
        if steady.is_some_and(|steady| MEMORY <= steady) {
            self.falls = 0;
        }
        self.falls = self.falls.saturating_add(1);
    }

    /// It is up; until when it is on probation, if it is.
    pub fn rose(&mut self, now: Instant) -> Option<Instant> {
        let probation = self.probation();
        self.steady_from = Some(now + probation);
        (!probation.is_zero()).then_some(now + probation)
    }

    /// How long its last or next rise puts it on probation.
    #[must_use]
    pub fn probation(&self) -> Duration {
        match self.falls {
            0 | 1 => Duration::ZERO,
            falls => FIRST.saturating_mul(1 << (falls - 2).min(16)).min(MOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Falls after `up`, rises a second later; answers with its probation in seconds.
    fn falls_after(flapping: &mut Flapping, now: &mut Instant, up: u64) -> u64 {
        *now += Duration::from_secs(up);
        flapping.fell(*now);
        *now += Duration::from_secs(1);
        flapping.rose(*now).map_or(0, |until| (until - *now).as_secs())
    }

    #[test]
    fn each_fall_within_memory_doubles_the_probation() {
        let (mut flapping, mut now) = (Flapping::default(), Instant::now());
        assert_eq!(flapping.rose(now), None);
        let held: Vec<_> = (0..100).map(|_| falls_after(&mut flapping, &mut now, 3)).collect();
        assert_eq!(held[..8], [0, 1, 2, 4, 8, 16, 30, 30]);
        assert!(held[8..].iter().all(|&held| held == 30));
    }

    #[test]
    fn who_has_been_well_for_long_begins_anew() {
        let (mut flapping, mut now) = (Flapping::default(), Instant::now());
        flapping.rose(now);
        assert_eq!([5, 5, 5].map(|up| falls_after(&mut flapping, &mut now, up)), [0, 1, 2]);
        assert_eq!(falls_after(&mut flapping, &mut now, 61), 4, "2 s of them were probation");
        assert_eq!(falls_after(&mut flapping, &mut now, 64), 0);
        assert_eq!(falls_after(&mut flapping, &mut now, 5), 1);
    }

    #[test]
    fn time_spent_down_is_not_forgotten() {
        let (mut flapping, mut now) = (Flapping::default(), Instant::now());
        flapping.rose(now);
        falls_after(&mut flapping, &mut now, 5);
        now += Duration::from_secs(5);
        flapping.fell(now);
        now += Duration::from_secs(3600);
        assert_eq!(flapping.rose(now), Some(now + FIRST));
    }
}
