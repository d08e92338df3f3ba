//! Where a listener's connections are counted as they come.

use std::sync::Arc;

use crate::net::accept::Door;
use crate::session::shared::Shared;
use crate::telemetry::labels::Rejection;

/// One listener's door.
#[derive(Debug)]
pub struct ListenerDoor {
    /// Where its counters are.
    pub shared: Arc<Shared>,
    /// Place in the configuration.
    pub listener: usize,
}

impl Door for ListenerDoor {
    fn name(&self) -> &str {
        self.shared.listeners.get(self.listener).map_or("", |listener| &listener.config.name)
    }

    fn index(&self) -> usize {
        self.listener
    }

    fn accepted(&self) {
        self.shared.metrics.listener(self.listener).accept();
    }

    fn turned_away(&self) {
        self.shared.metrics.listener(self.listener).reject(Rejection::Limit);
    }

    fn failed(&self) {
        self.shared.metrics.listener(self.listener).accept_error();
    }
}
