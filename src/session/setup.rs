//! What a configuration is made into: what a reload replaces as a whole.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Config;
use crate::session::shared::Listener;
use crate::topology::keeper::Watched;

/// The clusters and listeners of one configuration. It never changes: a reload makes another one.
#[derive(Clone)]
pub struct Setup {
    /// The configuration.
    pub config: Arc<Config>,
    /// Where it came from: a file, or the flags that named nodes.
    pub origin: Arc<str>,
    /// When it was read.
    pub loaded_at: SystemTime,
    /// In the order of the configuration.
    pub clusters: Vec<Watched>,
    /// In the order of the configuration.
    pub listeners: Vec<Arc<Listener>>,
    /// Where the admin server listens.
    pub admin: Option<SocketAddr>,
}

impl Setup {
    /// The listener with this name.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| listener.config.name == name)
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("origin", &self.origin).finish_non_exhaustive()
    }
}
