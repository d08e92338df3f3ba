//! How much is said of a node whose state changes again and again. Pure: it is told what time it is.

use std::time::Duration;

use tokio::time::Instant;

/// So many changes
const MANY: usize = 3;
/// within this time are flapping; and so often is a word said of a node that does not stop.
const MINUTE: Duration = Duration::from_secs(60);
/// Without a change for so long, a node is steady again. Then at most three lines a minute tell of one that stops and begins.
const STEADY: Duration = Duration::from_secs(20);

/// What has been said of a node, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Chatter {
    /// When its state changed, the last few times.
    changes: [Option<Instant>; MANY],
    /// When it was last said that it flaps.
    announced: Option<Instant>,
    silence: Option<Silence>,
}

/// A time in which changes are counted and not told.
#[derive(Clone, Debug)]
struct Silence {
    /// When the last line was written.
    since: Instant,
    unsaid: u32,
}

/// What to say of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// The change.
    Change,
    /// The change, and that no more of them will be told for now: there were so many within a minute.
    ChangeAndFlapping(usize),
    /// Nothing.
    Nothing,
}

impl Chatter {
    /// The state has changed.
    pub(super) fn changed(&mut self, now: Instant) -> Say {
        self.changes.rotate_left(1);
        if let Some(last) = self.changes.last_mut() {
            *last = Some(now);
        }
        if let Some(silence) = &mut self.silence {
            silence.unsaid = silence.unsaid.saturating_add(1);
            return Say::Nothing;
        }
        if self.changes.iter().any(|at| at.is_none_or(|at| MINUTE < now - at)) {
            return Say::Change;
        }
        let is_known = self.announced.is_some_and(|at| now - at < MINUTE);
        self.silence = Some(Silence { since: now, unsaid: u32::from(is_known) });
        if is_known {
            return Say::Nothing;
        }
        self.announced = Some(now);
        Say::ChangeAndFlapping(MANY)
    }

    /// How many changes are to be told now, in one line: once the node is steady, or a minute has passed. To be asked
    /// again and again.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<u32> {
        let silence = self.silence.as_mut()?;
        let is_steady = self.changes.last()?.is_none_or(|last| STEADY <= now - last);
        if !is_steady && now - silence.since < MINUTE {
            return None;
        }
        silence.since = now;
        let unsaid = std::mem::take(&mut silence.unsaid);
        if is_steady {
            self.silence = None;
        }
        (0 < unsaid).then_some(unsaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written of a node that changes at these seconds, asked each second until `end`.
    fn lines(changes: impl Fn(u64) -> bool, end: u64) -> Vec<(u64, String)> {
        let (mut chatter, start) = (Chatter::default(), Instant::now());
        let mut lines = Vec::new();
        for second in 0..end {
            let now = start + Duration::from_secs(second);
            if changes(second) {
                let say = chatter.changed(now);
                lines.extend((say != Say::Nothing).then(|| (second, format!("{say:?}"))));
            }
            lines.extend(chatter.overdue(now).map(|unsaid| (second, unsaid.to_string())));
        }
        lines
    }

    fn shown(lines: &[(u64, String)]) -> Vec<(u64, &str)> {
        lines.iter().map(|(at, line)| (*at, line.as_str())).collect()
    }

    #[test]
    fn the_third_change_in_a_minute_is_the_last_that_is_told() {
        let all = lines(|second| [0, 5, 70, 75].contains(&second), 200);
        assert_eq!(shown(&all), [(0, "Change"), (5, "Change"), (70, "Change"), (75, "Change")]);
        let all = lines(|second| second < 10, 200);
        assert_eq!(shown(&all), [(0, "Change"), (1, "Change"), (2, "ChangeAndFlapping(3)"), (29, "7")]);
        let all = lines(|second| !(3..100).contains(&second), 110);
        assert_eq!(all.len(), 6, "steady in between: {all:?}");
    }

    #[test]
    fn one_that_does_not_stop_is_told_of_once_a_minute() {
        let all = lines(|second| second % 4 == 0, 200);
        assert_eq!(shown(&all)[3..], [(68, "15"), (128, "15"), (188, "15")]);
    }

    #[test]
    fn whatever_it_does_there_are_few_lines_a_minute() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut is_busy = false;
            let changes: Vec<bool> = (0..3600)
                .map(|_| {
                    is_busy ^= random.u8(0..20) == 0;
                    is_busy && random.bool()
                })
                .collect();
            let all = lines(|second| changes[usize::try_from(second).unwrap()], 3600);
            for (at, _) in &all {
                let within = all.iter().filter(|(other, _)| (*at..at + 60).contains(other)).count();
                assert!(within <= 7, "seed {seed}: {within} lines from second {at}");
            }
        }
    }
}
