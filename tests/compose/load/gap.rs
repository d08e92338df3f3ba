//! The longest time without a good answer.

use std::time::Duration;

/// Times are counted from the start of the program.
#[derive(Clone, Copy)]
pub(crate) struct Gap {
    last: Duration,
    longest: Duration,
    closed: bool,
}

impl Gap {
    pub(crate) fn begin(at: Duration) -> Self {
        Self { last: at, longest: Duration::ZERO, closed: false }
    }

    /// A good answer came.
    pub(crate) fn answer(&mut self, at: Duration) {
        if !self.closed {
            self.longest = self.longest.max(at.saturating_sub(self.last));
            self.last = self.last.max(at);
        }
    }

    /// Nothing that comes later matters.
    pub(crate) fn close(&mut self, at: Duration) {
        self.answer(at);
        self.closed = true;
    }

    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::Gap;
    use std::time::Duration;

    fn longest(begin: u64, answers: &[u64], end: u64) -> u64 {
        let ms = Duration::from_millis;
        let mut gap = Gap::begin(ms(begin));
        for &at in answers {
            gap.answer(ms(at));
        }
        gap.close(ms(end));
        gap.answer(ms(end + 1_000_000));
        u64::try_from(gap.longest().as_millis()).expect("short")
    }

    #[test]
    fn borders_count() {
        assert_eq!(longest(100, &[400, 450], 500), 300, "until the first answer");
        assert_eq!(longest(100, &[110, 300, 310], 350), 190, "between answers");
        assert_eq!(longest(100, &[110, 120], 420), 300, "after the last answer");
        assert_eq!(longest(100, &[], 420), 320, "no answer at all");
    }
}
