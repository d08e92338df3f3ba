//! Is there room for one more request? Those beyond the limit wait, bounded in number and in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::config::http::Limits;
use crate::front::refusal::Refusal;
use crate::telemetry::count::Counted;
use crate::telemetry::front::FrontMetrics;

/// A front's turns, and those who wait.
#[derive(Debug)]
pub struct Turns {
    free: Arc<Semaphore>,
    waiting: Arc<AtomicU32>,
    queue_size: u32,
}

/// A request's turn; given back on `Drop`.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

/// A place in the queue; given back on `Drop`.
#[derive(Debug)]
pub struct Waiting {
    waiting: Arc<AtomicU32>,
    _counted: Counted,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Turns {
    /// As many as the front allows.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let most = usize::try_from(limits.max_in_flight.get()).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            waiting: Arc::default(),
            queue_size: limits.queue_size,
        }
    }

    /// A turn, first come first served, by `deadline`. Cancel safe.
    ///
    /// # Errors
    /// [`Refusal::QueueFull`] and [`Refusal::QueueTimeout`].
    pub async fn take(&self, metrics: &FrontMetrics, deadline: Instant) -> Result<Turn, Refusal> {
        let turn = |permit| Turn { _permit: permit, _counted: metrics.in_flight_guard() };
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(turn(permit));
        }
        let _waiting = self.wait(metrics)?;
        match timeout_at(deadline, Arc::clone(&self.free).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(turn(permit)),
            Ok(Err(_)) | Err(_) => Err(Refusal::QueueTimeout),
        }
    }

    /// A place among those who wait, for whatever.
    ///
    /// # Errors
    /// [`Refusal::QueueFull`].
    pub fn wait(&self, metrics: &FrontMetrics) -> Result<Waiting, Refusal> {
        let add = |now: u32| (now < self.queue_size).then(|| now.saturating_add(1));
        match self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => Ok(Waiting { waiting: Arc::clone(&self.waiting), _counted: metrics.waiting_guard() }),
            Err(_) => Err(Refusal::QueueFull),
        }
    }
}
