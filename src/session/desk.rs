//! What the sessions of one worker share.

use std::sync::{Arc, Mutex};

use crate::session::names::Latest;

/// What is read at once, and so the most that is kept for a reader that is slow. Larger reads saved nothing measurable in
/// the relay of COPY streams.
const SCRATCH: usize = 32 * 1024;

/// What the sessions of one worker share.
#[derive(Debug)]
pub struct Desk {
    /// The worker's number.
    pub index: usize,
    /// What clients call themselves.
    pub names: Latest,
    scratch: Scratch,
}

/// The one buffer all sessions of a worker read into. Only ever locked for one step of one session, on one
/// thread: nobody waits for it.
pub type Scratch = Arc<Mutex<Box<[u8]>>>;

impl Desk {
    /// The desk of the worker with this number.
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self {
            index,
            names: Latest::default(),
            scratch: Arc::new(Mutex::new(vec![0; SCRATCH].into_boxed_slice())),
        }
    }

    /// The buffer.
    #[must_use]
    pub fn scratch(&self) -> Scratch {
        Arc::clone(&self.scratch)
    }
}
