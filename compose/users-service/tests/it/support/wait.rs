//! The only place where time passes: until something is true.

use std::thread;
use std::time::{Duration, Instant};

/// Asks until there is something; after 20 s it panics with `what`.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        if let Some(found) = condition() {
            return found;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("waited 20 s for {what}");
}

/// The same for what is true or not.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}
