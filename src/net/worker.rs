//! One thread, one single-threaded runtime, its share of the connections.
//!
//! Connections are few, long and unequal, so spreading them by a hash of their address (`SO_REUSEPORT`) would load
//! one core and leave another idle: each connection goes to the worker with the fewest.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::task::TaskTracker;

use crate::net::descriptors::Held;
use crate::net::silent::Silent;

/// Connections a worker may be behind with before the accept loop waits for it.
const HANDOVER: usize = 1024;

/// A timer that is due before all others wakes the thread through the kernel, even when the thread itself has set it: a
/// write, and a wait for that write. A new connection sets several, so while they come a timer that does nothing is due
/// before all of theirs.
const SOON: Duration = Duration::from_millis(250);
/// For how long after the latest connection another one is expected.
const BUSY: Duration = Duration::from_secs(2);

/// A connection as the accept loop hands it over.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, registered with no runtime yet.
    pub stream: std::net::TcpStream,
    /// Who connected.
    pub peer: SocketAddr,
    /// Place of its listener or front in the configuration.
    pub door: usize,
    /// When.
    pub at: Instant,
    /// Its share of the process's descriptors.
    pub descriptor: Held,
    /// To be dropped when it has said what it wants.
    pub silent: Silent,
    /// Its worker's.
    pub served: Served,
}

/// The accept loop's end of a worker.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    connections: Arc<AtomicUsize>,
    sender: mpsc::Sender<Box<Accepted>>,
}

impl WorkerHandle {
    /// Connections it has now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// One more, for as long as the guard lives.
    pub fn serve(&self) -> Served {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Served(Arc::clone(&self.connections))
    }

    /// Hands a connection over. Cancel safe: one that was not handed over is closed.
    pub async fn take(&self, accepted: Box<Accepted>) {
        // Only a worker that has ended takes none.
        let _ = self.sender.send(accepted).await;
    }
}

/// Starts a worker whose thread has this name and that runs `serve` for each connection, all on this one thread.
/// It ends when all handles are gone and its last connection has ended.
///
/// # Errors
/// When the system has no more threads or descriptors.
pub fn start<Life>(
    name: String,
    serve: impl Fn(Box<Accepted>) -> Life + Send + 'static,
) -> io::Result<(WorkerHandle, JoinHandle<()>)>
where
    Life: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, mut receiver) = mpsc::channel(HANDOVER);
    let handle = WorkerHandle { connections: Arc::default(), sender };
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        runtime.block_on(async {
            let lives = TaskTracker::new();
            let (mut soon, mut latest) = (interval(SOON), None::<Instant>);
            soon.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    accepted = receiver.recv() => {
                        let Some(accepted) = accepted else { break };
                        latest = Some(accepted.at);
                        lives.spawn(serve(accepted));
                    }
                    _ = soon.tick(), if latest.is_some_and(|at| at.elapsed() < BUSY) => {}
                }
            }
            lives.close();
            lives.wait().await;
        });
    })?;
    Ok((handle, thread))
}

/// A connection counts among its worker's for as long as this lives.
#[derive(Debug)]
pub struct Served(Arc<AtomicUsize>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
