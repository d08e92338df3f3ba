//! From single looks at a node to a verdict: `rise` good ones in a row bring it up, `fall` bad ones down.

use std::num::NonZeroU32;

/// What is held true of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not looked at yet.
    Starting,
    /// Takes sessions.
    Up,
    /// Takes none.
    Down,
}

/// Turns observations into a verdict.
#[derive(Clone, Debug)]
pub struct Judge {
    rise: NonZeroU32,
    fall: NonZeroU32,
    verdict: Verdict,
    /// Observations in a row that speak against the verdict.
    against: u32,
}

impl Judge {
    /// A judge who has seen nothing.
    #[must_use]
    pub const fn new(rise: NonZeroU32, fall: NonZeroU32) -> Self {
        Self { rise, fall, verdict: Verdict::Starting, against: 0 }
    }

    /// Asks for so many from now on. What has been seen counts.
    pub const fn adjust(&mut self, rise: NonZeroU32, fall: NonZeroU32) {
        (self.rise, self.fall) = (rise, fall);
    }

    /// The same judge who has seen nothing.
    #[must_use]
    pub const fn anew(&self) -> Self {
        Self::new(self.rise, self.fall)
    }

    /// Takes one observation; answers with the new verdict when it changed.
    ///
    /// The first observation decides alone: at the start there is no verdict to defend, and a balancer that
    /// comes up should serve at once.
    pub fn observe(&mut self, good: bool) -> Option<Verdict> {
        let (needed, opposite) = match (self.verdict, good) {
            (Verdict::Starting, true) => (1, Verdict::Up),
            (Verdict::Starting, false) => (1, Verdict::Down),
            (Verdict::Up, false) => (self.fall.get(), Verdict::Down),
            (Verdict::Down, true) => (self.rise.get(), Verdict::Up),
            (Verdict::Up, true) | (Verdict::Down, false) => {
                self.against = 0;
                return None;
            }
        };
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.verdict = opposite;
        Some(opposite)
    }

    /// Takes one good observation that decides alone, however many `rise` asks for; answers with the new verdict when it
    /// changed.
    pub fn believe(&mut self) -> Option<Verdict> {
        self.against = 0;
        let before = std::mem::replace(&mut self.verdict, Verdict::Up);
        (before != Verdict::Up).then_some(Verdict::Up)
    }

    /// How many observations in a row speak against the verdict, and how many it takes.
    #[must_use]
    pub const fn progress(&self) -> (u32, u32) {
        let needed = match self.verdict {
            Verdict::Starting => 1,
            Verdict::Up => self.fall.get(),
            Verdict::Down => self.rise.get(),
        };
        (self.against, needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `+` and `-` to a judge with rise 2 and fall 3; answers with the changes it made, by place.
    fn changes(observations: &str) -> Vec<(usize, Verdict)> {
        let mut judge = Judge::new(NonZeroU32::new(2).unwrap(), NonZeroU32::new(3).unwrap());
        let good = observations.chars().map(|c| c == '+');
        good.enumerate().filter_map(|(at, good)| Some((at, judge.observe(good)?))).collect()
    }

    #[test]
    fn the_first_look_decides() {
        assert_eq!(changes("+"), [(0, Verdict::Up)]);
        assert_eq!(changes("-"), [(0, Verdict::Down)]);
    }

    #[test]
    fn only_a_full_row_changes_the_verdict() {
        assert_eq!(changes("+--+--+"), [(0, Verdict::Up)]);
        assert_eq!(changes("+---"), [(0, Verdict::Up), (3, Verdict::Down)]);
        assert_eq!(changes("-+-+-++"), [(0, Verdict::Down), (6, Verdict::Up)]);
        assert_eq!(changes("+---++"), [(0, Verdict::Up), (3, Verdict::Down), (5, Verdict::Up)]);
    }

    #[test]
    fn who_asks_for_less_counts_what_was_seen() {
        let n = |n| NonZeroU32::new(n).unwrap();
        let mut judge = Judge::new(n(2), n(5));
        judge.observe(true);
        (0..3).for_each(|_| assert_eq!(judge.observe(false), None));
        judge.adjust(n(2), n(2));
        assert_eq!(judge.progress(), (3, 2));
        assert_eq!(judge.observe(false), Some(Verdict::Down));
    }

    #[test]
    fn one_that_is_believed_decides_alone() {
        let mut judge = Judge::new(NonZeroU32::new(2).unwrap(), NonZeroU32::new(3).unwrap());
        assert_eq!(judge.believe(), Some(Verdict::Up));
        assert_eq!((judge.observe(false), judge.progress()), (None, (1, 3)));
        assert_eq!((judge.believe(), judge.progress()), (None, (0, 3)));
        (0..3).for_each(|_| _ = judge.observe(false));
        assert_eq!((judge.believe(), judge.progress()), (Some(Verdict::Up), (0, 3)));
    }

    proptest! {
        #[test]
        fn a_change_is_always_to_the_other_verdict(good in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut judge = Judge::new(NonZeroU32::new(2).unwrap(), NonZeroU32::new(3).unwrap());
            let mut row = 0;
            for (at, &now) in good.iter().enumerate() {
                row = if 0 < at && good[at - 1] == now { row + 1 } else { 1 };
                if let Some(verdict) = judge.observe(now) {
                    prop_assert_eq!(verdict == Verdict::Up, now);
                    let needed = if now { 2 } else { 3 };
                    prop_assert!(at == 0 || row >= needed);
                }
            }
        }
    }
}
