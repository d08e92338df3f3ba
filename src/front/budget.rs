//! How many retries there may be: when everything is slow or broken, trying everything twice makes it worse.

use std::sync::atomic::{AtomicI64, Ordering};

/// What one retry costs. A request earns a few of these: as many as retries are allowed for each hundred.
const RETRY: i64 = 100;
/// Retries that are there at the start, and never have to be earned.
const RESERVE: i64 = 10;

/// Retries that may still be made. Shared by all requests of a front.
#[derive(Debug)]
pub struct Budget {
    percent: Option<i64>,
    left: AtomicI64,
    most: i64,
}

impl Budget {
    /// A budget of so many retries for each hundred requests; `None`: no limit. At most `most` are saved up: enough
    /// to try again everything that was under way when an upstream died.
    #[must_use]
    pub fn new(percent: Option<u32>, most: u32) -> Self {
        let most = i64::from(most).max(RESERVE) * RETRY;
        Self { percent: percent.map(i64::from), left: AtomicI64::new(RESERVE * RETRY), most }
    }

    /// A request has come.
    pub fn earn(&self) {
        if let Some(percent) = self.percent
            && self.left.load(Ordering::Relaxed) < self.most
        {
            self.left.fetch_add(percent, Ordering::Relaxed);
        }
    }

    /// Whether one more retry may be made; then it counts as made.
    pub fn spend(&self) -> bool {
        if self.percent.is_none() {
            return true;
        }
        let take = |left: i64| (RETRY <= left).then(|| left - RETRY);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_requests() {
        let budget = Budget::new(Some(20), 2000);
        let mut retries = 0;
        for _ in 0..1000 {
            budget.earn();
            retries += u32::from(budget.spend());
        }
        assert_eq!(retries, 210);
    }

    #[test]
    fn not_more_is_saved_than_can_be_under_way() {
        let budget = Budget::new(Some(20), 50);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..1000).filter(|_| budget.spend()).count(), 50);
    }

    #[test]
    fn no_limit_is_no_limit() {
        let budget = Budget::new(None, 0);
        assert!((0..1000).all(|_| budget.spend()));
    }
}
