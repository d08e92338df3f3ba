//! Where a front's connections are counted as they come.

use std::sync::Arc;

use crate::front::shared::Front;
use crate::net::accept::Door;
use crate::telemetry::labels::HttpRejection;

/// One front's door.
#[derive(Debug)]
pub struct FrontDoor {
    /// Where its counters are.
    pub front: Arc<Front>,
    /// Place in the configuration.
    pub index: usize,
}

impl Door for FrontDoor {
    fn name(&self) -> &str {
        &self.front.config.name
    }

    fn index(&self) -> usize {
        self.index
    }

    fn accepted(&self) {
        self.front.metrics.accept();
    }

    fn turned_away(&self) {
        self.front.metrics.reject(HttpRejection::Connections);
    }

    fn failed(&self) {
        self.front.metrics.accept_error();
    }
}
