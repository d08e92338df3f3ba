//! Whether this process got to run while a look waited for its answer.
//!
//! On a machine with far more to do than it can, the answer may be there in time and the process that is to read it not. What
//! was not heard then says nothing of the node, and must not cost anybody's session.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How often a look that waits asks to be run.
const TICK: Duration = Duration::from_millis(50);
/// A look that was kept from running for half of its time has not listened. A check is a handful of steps: to miss its time by
/// its own fault each has to be late by more than three ticks, which is far more than half.
const PART: u32 = 2;

/// For how long a look was kept from running. Pure: it is told what time it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lateness {
    due: Instant,
    late: Duration,
}

impl Lateness {
    /// Of a look that begins.
    fn from(now: Instant) -> Self {
        Self { due: now + TICK, late: Duration::ZERO }
    }

    /// It runs, and asks for the next time.
    fn runs(&mut self, now: Instant) {
        self.late += now.saturating_duration_since(self.due);
        self.due = now + TICK;
    }

    /// Whether that excuses one that may take as long as `timeout` for having heard nothing.
    pub(super) fn excuses(&self, timeout: Duration) -> bool {
        timeout / PART <= self.late
    }
}

/// Drives `step` to its end, and measures. Cancel safe if `step` is.
pub(super) async fn measured<T>(step: impl Future<Output = T>) -> (T, Lateness) {
    let mut lateness = Lateness::from(Instant::now());
    let mut step = pin!(step);
    loop {
        tokio::select! {
            biased;
            done = &mut step => {
                lateness.runs(Instant::now());
                return (done, lateness);
            }
            () = sleep_until(lateness.due) => lateness.runs(Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{advance, sleep};
    use tokio_util::task::TaskTracker;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn many_short_delays_are_one_long_one() {
        let mut now = Instant::now();
        let mut lateness = Lateness::from(now);
        for _ in 0..10 {
            now += TICK + 50 * MS;
            lateness.runs(now);
        }
        assert_eq!(lateness.late, 500 * MS);
        assert!(lateness.excuses(1000 * MS) && !lateness.excuses(1100 * MS));
    }

    #[test]
    fn a_look_that_ends_before_it_is_due_is_not_late() {
        let now = Instant::now();
        let mut lateness = Lateness::from(now);
        lateness.runs(now + 49 * MS);
        assert_eq!(lateness.late, Duration::ZERO);
        assert!(!lateness.excuses(MS));
    }

    #[tokio::test(start_paused = true)]
    async fn who_runs_when_it_asks_to_is_not_late() {
        let ((), lateness) = measured(sleep(3000 * MS)).await;
        assert!(lateness.late < 100 * MS, "no more than the clock is coarse: {lateness:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_run_is_late_also_when_the_end_comes_at_once() {
        let tasks = TaskTracker::new();
        let task = tasks.spawn(measured(sleep(3000 * MS)));
        tokio::task::yield_now().await;
        advance(3010 * MS).await;
        let ((), lateness) = task.await.unwrap();
        assert!(2900 * MS < lateness.late, "{lateness:?}");
    }
}
