//! Is there room for one more request? Those beyond the limit wait, bounded in number and in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::config::http::Limits;
use crate::front::account::Account;
use crate::front::refusal::Refusal;
use crate::front::shared::Front;
use crate::telemetry::count::Counted;
use crate::telemetry::front::FrontMetrics;

/// Lets a request go on: when it is its turn, and the database that its services depend on is there.
///
/// Cancel safe.
///
/// # Errors
/// [`Refusal::QueueFull`], [`Refusal::QueueTimeout`], [`Refusal::Database`].
pub async fn admit(front: &Front, account: &mut Account, deadline: Instant) -> Result<Turn, Refusal> {
    if let Some(database) = front.database.as_ref().filter(|database| !database.is_there()) {
        let _waiting = front.turns.wait(&front.metrics)?;
        let begun = Instant::now();
        let is_there = database.wait(deadline).await;
        account.add_queue(begun.elapsed());
        if !is_there {
            return Err(Refusal::Database(database.listener.clone()));
        }
    }
    if let Some(turn) = front.turns.try_take(&front.metrics) {
        return Ok(turn);
    }
    let begun = Instant::now();
    let turn = front.turns.take(&front.metrics, deadline).await;
    account.add_queue(begun.elapsed());
    turn
}

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

    /// A turn, if one is free.
    fn try_take(&self, metrics: &FrontMetrics) -> Option<Turn> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(Turn { _permit: permit, _counted: metrics.in_flight_guard() })
    }

    /// A turn, first come first served, by `deadline`.
    async fn take(&self, metrics: &FrontMetrics, deadline: Instant) -> Result<Turn, Refusal> {
        let _waiting = self.wait(metrics)?;
        match timeout_at(deadline, Arc::clone(&self.free).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit, _counted: metrics.in_flight_guard() }),
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
