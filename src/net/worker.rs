//! One thread, one single-threaded runtime, its share of the connections.
//!
//! Connections are few, long and unequal, so spreading them by a hash of their address (`SO_REUSEPORT`) would load
//! one core and leave another idle: each connection goes to the worker with the fewest.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::net::descriptors::Held;
use crate::net::silent::Silent;

/// Connections a worker may be behind with before the accept loop waits for it.
const HANDOVER: usize = 1024;

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
}

/// The accept loop's end of a worker.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    connections: Arc<AtomicUsize>,
    sender: mpsc::Sender<Accepted>,
}

impl WorkerHandle {
    /// Connections it has now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Hands a connection over. Not cancel safe: the worker would count a connection that it never got.
    pub async fn take(&self, accepted: Accepted) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        if self.sender.send(accepted).await.is_err() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Starts a worker whose thread has this name and that runs `serve` for each connection, all on this one thread.
/// It ends when all handles are gone and its last connection has ended.
///
/// # Errors
/// When the system has no more threads or descriptors.
pub fn start<Life>(
    name: String,
    serve: impl Fn(Accepted) -> Life + Send + 'static,
) -> io::Result<(WorkerHandle, JoinHandle<()>)>
where
    Life: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, mut receiver) = mpsc::channel(HANDOVER);
    let connections = Arc::new(AtomicUsize::new(0));
    let handle = WorkerHandle { connections: Arc::clone(&connections), sender };
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        runtime.block_on(async {
            let lives = TaskTracker::new();
            while let Some(accepted) = receiver.recv().await {
                let leave = Leave(Arc::clone(&connections));
                let life = serve(accepted);
                lives.spawn(async move {
                    let _leave = leave;
                    life.await;
                });
            }
            lives.close();
            lives.wait().await;
        });
    })?;
    Ok((handle, thread))
}

struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
