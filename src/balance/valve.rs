//! How many sessions may log in to a node at a time.
//!
//! A login costs a server a new process and a cold cache. When a node comes back, or becomes the primary, all who were cut
//! and all who waited want one at once, and a server that has just started is knocked over by them. So logins pass one
//! another's turn: few at first, one more for each that succeeds. A fast server opens its valve in a moment, a slow one as
//! slowly as it must; no rate has to be guessed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Notify;

/// Logins that a node which has just come up is trusted with.
const NARROW: u32 = 8;
/// Logins at a time that no server of today's size is troubled by. More of them only take each other's processor.
const WIDE: u32 = 64;

/// Counts the logins that are going on at one node. Kept across snapshots.
#[derive(Debug)]
pub struct Valve {
    logins: AtomicU32,
    width: AtomicU32,
    /// Who waits is told when a login has ended.
    freed: Arc<Notify>,
}

impl Valve {
    /// A narrow one.
    #[must_use]
    pub const fn new(freed: Arc<Notify>) -> Self {
        Self { logins: AtomicU32::new(0), width: AtomicU32::new(NARROW), freed }
    }

    /// Whether one more login would pass now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.logins.load(Ordering::Relaxed) < self.width.load(Ordering::Relaxed)
    }

    /// Lets one login pass, if it may; it counts as long as the pass lives.
    #[must_use]
    pub fn pass(self: &Arc<Self>) -> Option<Pass> {
        let width = self.width.load(Ordering::Relaxed);
        let add = |now: u32| (now < width).then(|| now.saturating_add(1));
        self.logins.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        let (is_counted, is_over) = (AtomicBool::new(true), AtomicBool::new(false));
        Some(Pass { valve: Arc::clone(self), is_counted, is_over })
    }

    /// Whether nobody logs in.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.logins.load(Ordering::Relaxed) == 0
    }

    /// The node has changed: few at a time again.
    pub fn narrow(&self) {
        self.width.store(NARROW, Ordering::Relaxed);
    }
}

/// A login that is going on. It counts while the server has to do something for it.
#[derive(Debug)]
pub struct Pass {
    valve: Arc<Valve>,
    is_counted: AtomicBool,
    is_over: AtomicBool,
}

impl Pass {
    /// The login has succeeded: one more may go on beside those that do.
    pub fn succeed(&self) {
        let widen = |width: u32| (width < WIDE).then(|| width.saturating_add(1));
        let _ = self.valve.width.fetch_update(Ordering::Relaxed, Ordering::Relaxed, widen);
    }

    /// The server waits for the client.
    pub fn rest(&self) {
        if self.is_counted.swap(false, Ordering::Relaxed) {
            self.valve.logins.fetch_sub(1, Ordering::Relaxed);
            self.valve.freed.notify_waiters();
        }
    }

    /// The server goes on with it, however many it has beside it.
    pub fn go_on(&self) {
        if !self.is_over.load(Ordering::Relaxed) && !self.is_counted.swap(true, Ordering::Relaxed) {
            self.valve.logins.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The login takes long, and no longer counts.
    pub fn give_back(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.rest();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(valve: &Arc<Valve>) -> Vec<Pass> {
        std::iter::from_fn(|| valve.pass()).collect()
    }

    #[test]
    fn it_opens_with_each_login_that_succeeds_and_no_further_than_wide() {
        let valve = Arc::new(Valve::new(Arc::default()));
        let first = all(&valve);
        assert_eq!(first.len(), 8);
        assert!(!valve.is_open());
        first.iter().for_each(Pass::succeed);
        drop(first);
        assert_eq!(all(&valve).len(), 16);
        for _ in 0..10 {
            all(&valve).iter().for_each(Pass::succeed);
        }
        assert_eq!(all(&valve).len(), 64);
    }

    #[test]
    fn a_login_that_fails_opens_nothing_and_takes_no_place() {
        let valve = Arc::new(Valve::new(Arc::default()));
        drop(all(&valve));
        assert_eq!(all(&valve).len(), 8);
    }

    #[test]
    fn a_login_that_takes_long_holds_nobody_up_and_opens_it_all_the_same() {
        let valve = Arc::new(Valve::new(Arc::default()));
        let slow = all(&valve);
        slow.iter().for_each(Pass::give_back);
        slow.iter().for_each(Pass::go_on);
        assert_eq!(all(&valve).len(), 8);
        slow.iter().for_each(Pass::succeed);
        assert_eq!(all(&valve).len(), 16);
    }

    #[test]
    fn a_login_counts_while_the_server_is_at_work() {
        let valve = Arc::new(Valve::new(Arc::default()));
        let logins = all(&valve);
        logins.iter().for_each(Pass::rest);
        let others = all(&valve);
        assert_eq!(others.len(), 8);
        logins.iter().for_each(Pass::go_on);
        drop(others);
        assert!(!valve.is_open());
        drop(logins);
        assert!(valve.is_idle());
    }

    #[test]
    fn a_node_that_has_changed_gets_few_again_while_the_old_ones_end() {
        let valve = Arc::new(Valve::new(Arc::default()));
        (0..20).filter_map(|_| valve.pass()).for_each(|pass| pass.succeed());
        let many = all(&valve);
        assert_eq!(many.len(), 28);
        valve.narrow();
        assert!(valve.pass().is_none());
        drop(many);
        assert_eq!(all(&valve).len(), 8);
    }
}
