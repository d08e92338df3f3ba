//! What all requests of one front have in common, and which fronts there are.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::http;
use crate::front::admit::Turns;
use crate::front::budget::Budget;
use crate::front::cache::ResponseCache;
use crate::front::database::Database;
use crate::front::group::Group;
use crate::net::descriptors::Descriptors;
use crate::telemetry::front::FrontMetrics;

/// The fronts there are now, which a reload replaces.
#[derive(Debug)]
pub struct Fronts {
    now: ArcSwap<Vec<Arc<Front>>>,
    /// Wakes those who look at the connections of a front that is gone.
    changed: watch::Sender<()>,
}

impl Fronts {
    /// None yet.
    #[must_use]
    pub fn none() -> Self {
        Self { now: ArcSwap::default(), changed: watch::Sender::new(()) }
    }

    /// Those there are now, in the order of the configuration.
    #[must_use]
    pub fn now(&self) -> Arc<Vec<Arc<Front>>> {
        self.now.load_full()
    }

    /// There are these from now on. Connections of any other end when what they are at is done.
    pub fn replace(&self, fronts: Vec<Arc<Front>>) {
        let old = self.now.swap(Arc::new(fronts));
        let now = self.now();
        for front in old.iter().filter(|front| !now.iter().any(|other| Arc::ptr_eq(other, front))) {
            front.is_stopping.store(true, Ordering::Relaxed);
        }
        self.changed.send_replace(());
    }

    /// All connections end when what they are at is done: another process has the place of this one.
    pub fn leave(&self) {
        self.now().iter().for_each(|front| front.is_stopping.store(true, Ordering::Relaxed));
        self.changed.send_replace(());
    }

    /// Where it is seen that there are others.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// One front and what is going on there; built in `app`.
pub struct Front {
    /// What the file says.
    pub config: Arc<http::Front>,
    /// Which requests get a log line.
    pub log: Arc<ArcSwap<http::LogRequests>>,
    /// The address it is bound to, with the real port.
    pub addr: SocketAddr,
    /// In the order of the configuration.
    pub groups: Vec<Group>,
    /// The counters.
    pub metrics: Arc<FrontMetrics>,
    /// Whose turn it is.
    pub turns: Turns,
    /// How many retries there may be.
    pub budget: Budget,
    /// Stored answers.
    pub cache: Option<Arc<ResponseCache>>,
    /// The database its services depend on.
    pub database: Option<Database>,
    /// The process's file descriptors.
    pub descriptors: Descriptors,
    /// No new requests from now on, but for those that are on their way: the process stops, or another version of the front
    /// has taken its place, or none.
    pub is_stopping: AtomicBool,
    /// Everything ends now.
    pub kill: CancellationToken,
}

impl Front {
    /// Whether it can serve everything now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.groups.iter().all(Group::is_ready) && self.database.as_ref().is_none_or(Database::is_there)
    }

    /// Why it cannot serve everything now, in words; empty when it can.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let name = &self.config.name;
        let groups = self.groups.iter().filter(|group| !group.is_ready());
        let mut troubles: Vec<String> = groups
            .map(|group| format!("front \"{name}\" has no upstream for group \"{}\"", group.config.name))
            .collect();
        if let Some(database) = self.database.as_ref().filter(|database| !database.is_there()) {
            troubles.push(format!(
                "front \"{name}\" depends on listener \"{}\", which has no node",
                database.listener
            ));
        }
        troubles
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("name", &self.config.name).finish_non_exhaustive()
    }
}
