//! Fetches under way that others wait for: one for each answer that is missing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::key::Key;
use super::store::Epoch;

/// What a fetch is for: requests that share it would get the same answer, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Goal {
    pub(super) key: Key,
    /// Those with cookies may not have what those without may.
    pub(super) cookies: bool,
    /// See [`Found::variant`](super::store::Found).
    pub(super) variant: u64,
}

/// How a fetch ended for those who wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// There is an answer: kept, if it may be.
    Landed,
    /// No upstream had one.
    Failed,
    /// Whoever fetched has left; another may.
    Abandoned,
    /// Not yet, but the wait is over.
    Late,
}

/// All fetches that one may wait for.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Goal, Flight>>);

#[derive(Debug)]
struct Flight {
    news: watch::Receiver<Option<End>>,
    /// Of its begin. Who comes after the key was invalidated must not get what was fetched before.
    epoch: Epoch,
}

/// What one who misses an answer does.
#[derive(Debug)]
pub(super) enum Turn {
    /// Fetches it, for others too.
    Lead(Lead),
    /// Waits for another's fetch.
    Wait(Wait),
}

/// A fetch that others may wait for. Abandoned when dropped, unless it has [ended](Lead::end).
#[derive(Debug)]
pub(super) struct Lead {
    flights: Arc<Flights>,
    goal: Goal,
    news: watch::Sender<Option<End>>,
    end: Option<End>,
}

/// A wait for another's fetch.
#[derive(Debug)]
pub(super) struct Wait(watch::Receiver<Option<End>>);

impl Flights {
    /// Joins the fetch for `goal`, or begins it.
    pub(super) fn turn(self: &Arc<Self>, goal: &Goal, epoch: Epoch) -> Turn {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(goal).filter(|flight| flight.epoch == epoch) {
            return Turn::Wait(Wait(flight.news.clone()));
        }
        let (news, receiver) = watch::channel(None);
        flights.insert(goal.clone(), Flight { news: receiver, epoch });
        Turn::Lead(Lead { flights: Arc::clone(self), goal: goal.clone(), news, end: None })
    }
}

impl Lead {
    /// Lets those who wait go on.
    pub(super) fn end(mut self, end: End) {
        self.end = Some(end);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_this = |flight: &Flight| flight.news.same_channel(&self.news.subscribe());
        if flights.get(&self.goal).is_some_and(is_this) {
            flights.remove(&self.goal);
        }
        drop(flights);
        self.news.send_replace(Some(self.end.unwrap_or(End::Abandoned)));
    }
}

impl Wait {
    /// Until the fetch has ended, at most until `deadline`. Cancel safe.
    pub(super) async fn end(mut self, deadline: Instant) -> End {
        match timeout_at(deadline, self.0.wait_for(Option::is_some)).await {
            Ok(Ok(end)) => end.unwrap_or(End::Abandoned),
            Ok(Err(_)) => End::Abandoned,
            Err(_) => End::Late,
        }
    }
}
