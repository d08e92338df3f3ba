//! What the connections of one worker share: somebody who looks at all of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::front::caller::{Caller, Order};
use crate::front::pulse::{Overdue, Pulse};
use crate::front::shared::{Front, Fronts};
use crate::telemetry::labels::HttpRejection;

/// How often connections are looked at while they are to end.
const STOP_INTERVAL: Duration = Duration::from_millis(200);

/// So long a client of a front that is gone may be silent.
const LINGER: Duration = Duration::from_secs(3);
/// How often they are looked at where no front says so.
const LONGEST: Duration = Duration::from_secs(1);

/// What the connections of one worker share.
#[derive(Debug)]
pub struct Desk {
    /// The worker's number.
    pub index: usize,
    fronts: Arc<Fronts>,
    /// No new requests from then on.
    stop: CancellationToken,
    /// Everything ends then.
    kill: CancellationToken,
    callers: Mutex<Vec<(Arc<Front>, Arc<Caller>)>>,
    is_guarded: AtomicBool,
    guards: TaskTracker,
}

impl Desk {
    /// The desk of the worker with this number.
    #[must_use]
    pub fn new(
        index: usize,
        fronts: &Arc<Fronts>,
        stop: &CancellationToken,
        kill: &CancellationToken,
    ) -> Self {
        Self {
            index,
            fronts: Arc::clone(fronts),
            stop: stop.clone(),
            kill: kill.clone(),
            callers: Mutex::default(),
            is_guarded: AtomicBool::new(false),
            guards: TaskTracker::new(),
        }
    }

    /// Takes a connection's place among those that are looked at.
    #[must_use]
    pub fn enter(self: &Arc<Self>, front: &Arc<Front>, caller: &Arc<Caller>) -> Seat {
        let entry = (Arc::clone(front), Arc::clone(caller));
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        // By the first connection, as only now there is a runtime to do it on.
        if !self.is_guarded.swap(true, Ordering::Relaxed) {
            self.guards.spawn(Arc::clone(self).guard());
        }
        Seat { desk: Arc::clone(self), caller: Arc::clone(caller) }
    }

    /// Looks at all connections now and then: one timer for all of them, and none of their requests ever touches it.
    async fn guard(self: Arc<Self>) {
        let (mut is_stopping, mut changes) = (false, self.fronts.changes());
        loop {
            let interval = self.interval(is_stopping);
            tokio::select! {
                () = sleep(interval) => {}
                _ = changes.changed() => {}
                () = self.stop.cancelled(), if !is_stopping => is_stopping = true,
                () = self.kill.cancelled() => {}
            }
            let callers: Vec<_> = self.callers.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for (front, caller) in callers {
                if self.kill.is_cancelled() {
                    caller.tell(Order::End);
                } else if let Some(overdue) = caller.overdue(&front.config.limits) {
                    end_overdue(&front, &caller, overdue);
                } else if front.is_stopping.load(Ordering::Relaxed) && !is_stopping {
                    leave(&caller);
                } else if is_stopping {
                    // One that has had the time to, and has nothing to finish, may wait for a client that is silent.
                    let is_done = caller.order() == Order::Finish && caller.pulse.is_idle();
                    caller.tell(if is_done { Order::End } else { Order::Finish });
                }
            }
            if self.kill.is_cancelled() {
                return;
            }
        }
    }
}

impl Desk {
    /// How long until the connections are looked at again.
    fn interval(&self, is_stopping: bool) -> Duration {
        let callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let is_leaving =
            is_stopping || callers.iter().any(|(front, _)| front.is_stopping.load(Ordering::Relaxed));
        drop(callers);
        let fronts = self.fronts.now();
        let intervals = fronts.iter().map(|front| Pulse::interval(&front.config.limits));
        let interval = intervals.min().unwrap_or(LONGEST);
        if is_leaving { interval.min(STOP_INTERVAL) } else { interval }
    }
}

/// Ends a connection of a front that is gone, in no hurry. A client of HTTP/1 that sends its next request just as the
/// connection is closed would get no answer, so it is told with the answer to that; only who is silent is left.
fn leave(caller: &Caller) {
    let is_silent = caller.pulse.idle_for().is_some_and(|idle| LINGER < idle);
    match caller.order() {
        Order::GoOn if caller.pulse.is_http2() || is_silent => caller.tell(Order::Finish),
        Order::Finish if is_silent => caller.tell(Order::End),
        Order::GoOn | Order::Finish | Order::End => {}
    }
}

fn end_overdue(front: &Front, caller: &Caller, overdue: Overdue) {
    match overdue {
        Overdue::Idle if caller.order() == Order::GoOn => caller.tell(Order::Finish),
        Overdue::Idle => caller.tell(Order::End),
        Overdue::Head | Overdue::Reading => {
            if caller.order() != Order::End {
                front.metrics.reject(HttpRejection::Slow);
            }
            caller.tell(Order::End);
        }
    }
}

/// A connection's place among those that are looked at; left on `Drop`.
#[derive(Debug)]
pub struct Seat {
    desk: Arc<Desk>,
    caller: Arc<Caller>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut callers = self.desk.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = callers.iter().position(|(_, caller)| Arc::ptr_eq(caller, &self.caller)) {
            callers.swap_remove(at);
        }
    }
}
