//! Accepts, counts, hands over; waits for nothing else. Every worker does, for itself and, when it has more than another,
//! for that one.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::base::seldom::Seldom;
use crate::net::descriptors::Descriptors;
use crate::net::gate::{Gate, Word};
use crate::net::listen::{BACKLOG, Listening, is_peer_gone};
use crate::net::worker::{Accepted, WorkerHandle};

/// How long to wait when the system is out of descriptors or memory: until some connection closes there is
/// nothing to do, and trying at once again would burn a core.
const PAUSE: Duration = Duration::from_millis(100);
/// Trouble is logged this often at most.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Whose connections are accepted, and where they are counted.
pub trait Door: Send + Sync + 'static {
    /// What its connections are served by.
    type To: Send + 'static;
    /// Its name, for the log.
    fn name(&self) -> String;
    /// What a connection that comes now is served by.
    fn leads_to(&self) -> Self::To;
    /// A connection was accepted.
    fn accepted(&self);
    /// One was closed at once because there is no descriptor for it.
    fn turned_away(&self);
    /// An accept call failed.
    fn failed(&self);
}

/// A door as all the accept loops of it share it.
pub(super) struct Doorway<D> {
    door: Arc<D>,
    trouble: Mutex<Seldom>,
}

impl<D: Door> Doorway<D> {
    pub(super) fn new(door: Arc<D>) -> Self {
        Self { door, trouble: Mutex::default() }
    }

    /// Says that accepting is in trouble, now and then.
    fn complain(&self, error: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repeated) = trouble.again(SAY_AGAIN) {
            let hint = "raise the limit of open files (LimitNOFILE=) or lower max_connections";
            warn!(listener = self.door.name(), error, repeated, hint, "accept_failed");
        }
    }
}

/// Accepts connections of one door until `closed`, on one of `workers`, while `gate` is open; what has come to the system until
/// then is served.
pub(super) async fn accept<D: Door>(
    doorway: Arc<Doorway<D>>,
    listening: Arc<Listening>,
    descriptors: Descriptors,
    workers: Workers<D::To>,
    (gate, closed): (Gate, CancellationToken),
) {
    let mut closing = pin!(closed.cancelled());
    let mut watch = gate.watch();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = watch.pass(|| listening.accept()) => accepted,
        };
        let Some(accepted) = accepted else { return };
        doorway.take(accepted, &descriptors, &workers).await;
    }
    // Who comes to a gate that is shut comes to another process.
    if gate.now() != Word::Open {
        return;
    }
    for _ in 0..BACKLOG {
        let Some(accepted) = listening.accept_at_once() else { return };
        doorway.take(accepted, &descriptors, &workers).await;
    }
}

impl<D: Door> Doorway<D> {
    /// Gives what an accept call brought to a worker.
    async fn take(
        &self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        descriptors: &Descriptors,
        workers: &Workers<D::To>,
    ) {
        match accepted {
            Ok((stream, peer)) => {
                self.door.accepted();
                let Some((descriptor, silent)) = descriptors.for_client() else {
                    self.door.turned_away();
                    self.complain("no file descriptor is left for another client");
                    return;
                };
                if let Some(worker) = workers.next() {
                    let (to, at, served) = (self.door.leads_to(), Instant::now(), worker.serve());
                    worker
                        .take(Box::new(Accepted { stream, peer, to, at, descriptor, silent, served }))
                        .await;
                }
            }
            Err(error) if is_peer_gone(&error) => debug!(%error, "client_left_before_accept"),
            Err(error) => {
                self.door.failed();
                self.complain(&error.to_string());
                sleep(PAUSE).await;
            }
        }
    }
}

/// All workers, and on which of them this is.
#[derive(Debug)]
pub(super) struct Workers<To> {
    pub(super) all: Arc<[WorkerHandle<To>]>,
    pub(super) here: usize,
}

impl<To> Workers<To> {
    /// Who serves the next connection.
    ///
    /// Connections are few, long and unequal, and the system spreads them by a hash of their addresses: left at that, one
    /// core would be busy and another idle. So it is the worker with the fewest. But a connection that stays on its thread
    /// is cheaper than one that another thread must be woken for, so among many one more makes no difference.
    fn next(&self) -> Option<&WorkerHandle<To>> {
        let fewest = self.all.iter().min_by_key(|worker| worker.connections())?;
        let enough = fewest.connections() + fewest.connections() / 16;
        self.all.get(self.here).filter(|here| here.connections() <= enough).or(Some(fewest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::worker::Worker;

    #[test]
    fn a_connection_stays_where_it_came_unless_another_worker_has_fewer() {
        let (all, _running): (Vec<_>, Vec<_>) = (0..3).map(|_| Worker::<()>::new().unwrap()).unzip();
        let workers = Workers { all: all.into(), here: 1 };
        let mut served = Vec::new();
        let mut next = |before: [usize; 3]| {
            served.clear();
            for (worker, connections) in workers.all.iter().zip(before) {
                served.extend((0..connections).map(|_| worker.serve()));
            }
            let next = workers.next().unwrap();
            workers.all.iter().position(|worker| std::ptr::eq(worker, next)).unwrap()
        };
        assert_eq!(next([0, 0, 0]), 1);
        assert_eq!(next([0, 1, 0]), 0, "of few connections each counts");
        assert_eq!(next([3, 3, 2]), 2);
        assert_eq!(next([16, 17, 16]), 1, "of many one more does not");
        assert_eq!(next([16, 18, 17]), 0);
    }
}
