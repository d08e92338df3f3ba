//! Is there room on the listener? Asked only once a client has said what it wants: a cancel request needs no
//! place, or nobody could stop the query that keeps the place taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::session::error::SessionError;
use crate::session::shared::Listener;

/// One place on a listener, given back on `Drop`.
#[derive(Debug)]
pub struct Permit(Arc<AtomicU32>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a place.
///
/// # Errors
/// [`SessionError::Limit`] when all are taken.
pub fn admit(listener: &Listener) -> Result<Permit, SessionError> {
    let limit = listener.config.max_connections.get();
    let add = |now: u32| (now < limit).then(|| now.saturating_add(1));
    match listener.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
        Ok(_) => Ok(Permit(Arc::clone(&listener.sessions))),
        Err(_) => Err(SessionError::Limit { listener: listener.config.name.clone(), limit }),
    }
}
