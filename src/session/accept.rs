//! Where a listener's connections are counted as they come.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::net::accept::Door;
use crate::session::shared::{Listener, Shared};
use crate::telemetry::labels::Rejection;

/// The door of whichever listener has the address now.
#[derive(Debug)]
pub struct ListenerDoor {
    /// Where its counters are.
    pub shared: Arc<Shared>,
    /// Whose connections come here.
    pub listener: ArcSwap<Listener>,
}

impl ListenerDoor {
    fn number(&self) -> usize {
        self.listener.load().index
    }
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
        self.shared.metrics.listener(self.number()).accept();
    }

    fn turned_away(&self) {
        self.shared.metrics.listener(self.number()).reject(Rejection::Limit);
    }

    fn failed(&self) {
        self.shared.metrics.listener(self.number()).accept_error();
    }
}
