//! Where a front's connections are counted as they come.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::front::shared::Front;
use crate::net::accept::Door;
use crate::telemetry::labels::HttpRejection;

/// The door of whichever front has the address now.
#[derive(Debug)]
pub struct FrontDoor {
    /// Whose connections come here.
    pub front: ArcSwap<Front>,
}

impl Door for FrontDoor {
    type To = Arc<Front>;

    fn name(&self) -> String {
        self.front.load().config.name.clone()
    }

    fn leads_to(&self) -> Arc<Front> {
        self.front.load_full()
    }

    fn accepted(&self) {
        self.front.load().metrics.accept();
    }

    fn turned_away(&self) {
        self.front.load().metrics.reject(HttpRejection::Connections);
    }

    fn failed(&self) {
        self.front.load().metrics.accept_error();
    }
}
