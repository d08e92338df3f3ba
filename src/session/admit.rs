//! Is there room on the listener? Asked only once a client has said what it wants: a cancel request needs no
//! place, or nobody could stop the query that keeps the place taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::net::descriptors::Held;
use crate::session::error::SessionError;
use crate::session::shared::{Listener, Shared};

/// One place on a listener, and the descriptor for a node; given back on `Drop`.
#[derive(Debug)]
pub struct Permit {
    sessions: Arc<AtomicU32>,
    _descriptor: Held,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The place of a session that has had it in another process: it is not turned away.
#[must_use]
pub fn admit_moved(shared: &Shared, listener: &Listener) -> Permit {
    listener.sessions.fetch_add(1, Ordering::Relaxed);
    Permit { sessions: Arc::clone(&listener.sessions), _descriptor: shared.descriptors.for_moved() }
}

/// Takes a place.
///
/// # Errors
/// [`SessionError::Limit`] when all are taken, [`SessionError::Descriptors`] when the process has no more.
pub fn admit(shared: &Shared, listener: &Listener) -> Result<Permit, SessionError> {
    let out_of_descriptors = || SessionError::Descriptors { limit: shared.descriptors.limit() };
    let descriptor = shared.descriptors.for_node().ok_or_else(out_of_descriptors)?;
    let limit = listener.config.max_connections.get();
    let add = |now: u32| (now < limit).then(|| now.saturating_add(1));
    match listener.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
        Ok(_) => Ok(Permit { sessions: Arc::clone(&listener.sessions), _descriptor: descriptor }),
        Err(_) => Err(SessionError::Limit { listener: listener.config.name.clone(), limit }),
    }
}
