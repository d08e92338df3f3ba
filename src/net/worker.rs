//! One thread, one single-threaded runtime, its share of the connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::task::TaskTracker;

use crate::net::descriptors::Held;
use crate::net::listen::Listening;
use crate::net::roll_call::Answering;
use crate::net::silent::Silent;

/// Connections a worker may be behind with before accept loops wait for it.
const HANDOVER: usize = 1024;

/// A timer that is due before all others wakes the thread through the kernel, even when the thread itself has set it: a
/// write, and a wait for that write. A new connection sets several, so while they come a timer that does nothing is due
/// before all of theirs.
const SOON: Duration = Duration::from_millis(250);
/// For how long after the latest connection another one is expected.
const BUSY: Duration = Duration::from_secs(2);

/// A connection as an accept loop hands it over.
#[derive(Debug)]
pub struct Accepted<To> {
    /// The socket, registered with no runtime yet.
    pub stream: std::net::TcpStream,
    /// Who connected.
    pub peer: SocketAddr,
    /// What it is served by: its listener, or front.
    pub to: To,
    /// When.
    pub at: Instant,
    /// Its share of the process's descriptors.
    pub descriptor: Held,
    /// To be dropped when it has said what it wants.
    pub silent: Silent,
    /// Its worker's.
    pub served: Served,
}

/// The accept loops' end of a worker.
#[derive(Debug)]
pub struct WorkerHandle<To> {
    connections: Arc<AtomicUsize>,
    sender: mpsc::Sender<Box<Accepted<To>>>,
    runtime: Handle,
    lives: TaskTracker,
}

impl<To> WorkerHandle<To> {
    /// Connections it has now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// One more, for as long as the guard lives.
    #[must_use]
    pub fn serve(&self) -> Served {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Served(Arc::clone(&self.connections))
    }

    /// Lets the worker wait for what comes to `socket`.
    ///
    /// # Errors
    /// The system has no room for one more.
    pub(super) fn listen(&self, socket: TcpListener) -> io::Result<Listening> {
        let _there = self.runtime.enter();
        Listening::new(socket)
    }

    /// Runs `accepting` on the worker's thread.
    pub(super) fn run(&self, accepting: impl Future<Output = ()> + Send + 'static) {
        drop(self.lives.spawn_on(accepting, &self.runtime));
    }

    /// Hands a connection over. Cancel safe: one that was not handed over is closed.
    pub async fn take(&self, accepted: Box<Accepted<To>>) {
        // Only a worker that has ended takes none.
        let _ = self.sender.send(accepted).await;
    }
}

/// A worker that has no thread yet.
#[derive(Debug)]
pub(super) struct Worker<To> {
    runtime: Startable,
    lives: TaskTracker,
    connections: mpsc::Receiver<Box<Accepted<To>>>,
}

impl<To: Send + 'static> Worker<To> {
    /// A worker, and how to reach it.
    pub(super) fn new() -> io::Result<(WorkerHandle<To>, Self)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, connections) = mpsc::channel(HANDOVER);
        let lives = TaskTracker::new();
        let handle = WorkerHandle {
            connections: Arc::default(),
            sender,
            runtime: runtime.handle().clone(),
            lives: lives.clone(),
        };
        Ok((handle, Self { runtime: Startable(Some(runtime)), lives, connections }))
    }

    /// Runs `serve` for each connection, and what the handles are given, all on one thread with this name, which is
    /// `answering` meanwhile. It ends when all handles are gone and its last connection has ended.
    pub(super) fn start<Life>(
        mut self,
        name: String,
        answering: Answering,
        serve: impl Fn(Box<Accepted<To>>) -> Life + Send + 'static,
    ) -> io::Result<JoinHandle<()>>
    where
        Life: Future<Output = ()> + Send + 'static,
    {
        std::thread::Builder::new().name(name).spawn(move || {
            let Some(runtime) = self.runtime.0.take() else { return };
            runtime.block_on(answering.beside(async {
                let lives = self.lives;
                let (mut soon, mut latest) = (interval(SOON), None::<Instant>);
                soon.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        biased;
                        accepted = self.connections.recv() => {
                            let Some(accepted) = accepted else { break };
                            latest = Some(accepted.at);
                            // What is spawned is moved several times, and a connection's life is large.
                            lives.spawn(Box::pin(serve(accepted)));
                        }
                        _ = soon.tick(), if latest.is_some_and(|at| at.elapsed() < BUSY) => {}
                    }
                }
                lives.close();
                lives.wait().await;
            }));
        })
    }
}

/// A runtime on its way to its thread. Should it not get there, for want of threads or of descriptors for the next one, it ends
/// without waiting for what runs in it: it may be dropped by a task of another runtime, which must not wait.
#[derive(Debug)]
struct Startable(Option<Runtime>);

impl Drop for Startable {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A connection counts among its worker's for as long as this lives.
#[derive(Debug)]
pub struct Served(Arc<AtomicUsize>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As when the descriptors do not suffice for all workers of a front that a reload adds.
    #[tokio::test]
    async fn one_that_never_starts_can_be_dropped_by_a_task() {
        let (handle, worker) = Worker::<()>::new().unwrap();
        drop(worker);
        assert!(handle.sender.is_closed());
    }
}
