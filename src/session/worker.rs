//! One thread, one single-threaded runtime, its share of the sessions.
//!
//! Sessions are few, long and unequal, so spreading them by a hash of their address (`SO_REUSEPORT`) would load
//! one core and leave another idle: each connection goes to the worker with the fewest.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::session::shared::Shared;
use crate::session::{Accepted, serve};

/// Connections a worker may be behind with before the accept loop waits for it.
const HANDOVER: usize = 1024;
/// What is read at once. Larger reads saved nothing measurable in the relay of COPY streams.
const SCRATCH: usize = 64 * 1024;

/// What the sessions of one worker share.
#[derive(Debug)]
pub struct Desk {
    /// The worker's number.
    pub index: usize,
    scratch: Scratch,
    connections: Arc<AtomicUsize>,
}

/// The one buffer all sessions of a worker read into. Only ever locked for one step of one session, on one
/// thread: nobody waits for it.
pub type Scratch = Arc<Mutex<Box<[u8]>>>;

impl Desk {
    /// The buffer.
    #[must_use]
    pub fn scratch(&self) -> Scratch {
        Arc::clone(&self.scratch)
    }
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

    /// Hands a connection over. Cancel safe: a connection not handed over is closed.
    pub async fn take(&self, accepted: Accepted) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        if self.sender.send(accepted).await.is_err() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Starts worker `index`. It ends when all handles are gone and its last session has ended.
///
/// # Errors
/// When the system has no more threads or descriptors.
pub fn start(index: usize, shared: Arc<Shared>) -> io::Result<(WorkerHandle, JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, mut receiver) = mpsc::channel(HANDOVER);
    let connections = Arc::new(AtomicUsize::new(0));
    let scratch = Arc::new(Mutex::new(vec![0; SCRATCH].into_boxed_slice()));
    let desk = Arc::new(Desk { index, scratch, connections: Arc::clone(&connections) });
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        runtime.block_on(async {
            let sessions = TaskTracker::new();
            while let Some(accepted) = receiver.recv().await {
                let leave = Leave(Arc::clone(&desk.connections));
                let life = serve(Arc::clone(&shared), Arc::clone(&desk), accepted);
                sessions.spawn(async move {
                    let _leave = leave;
                    life.await;
                });
            }
            sessions.close();
            sessions.wait().await;
        });
    })?;
    Ok((WorkerHandle { connections, sender }, thread))
}

struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
