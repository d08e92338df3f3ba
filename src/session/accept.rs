//! Where a listener's connections are counted as they come.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::net::accept::Door;
use crate::session::shared::Listener;
use crate::telemetry::labels::Rejection;

/// The door of whichever listener has the address now.
#[derive(Debug)]
pub struct ListenerDoor {
    /// Whose connections come here.
    pub listener: ArcSwap<Listener>,
}

impl Door for ListenerDoor {
    type To = Arc<Listener>;

    fn name(&self) -> String {
        self.listener.load().config.name.clone()
    }

    fn leads_to(&self) -> Arc<Listener> {
        self.listener.load_full()
    }

    fn accepted(&self) {
        self.listener.load().metrics.accept();
    }

    fn turned_away(&self) {
        self.listener.load().metrics.reject(Rejection::Limit);
    }

    fn failed(&self) {
        self.listener.load().metrics.accept_error();
    }
}
