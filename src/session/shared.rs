//! What all sessions of a process have in common: [`Shared`] for as long as it lives, and the current
//! [`Setup`], which a reload replaces.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::balance::pick::Picker;
use crate::base::board::{Board, Small};
use crate::base::id::SessionIds;
use crate::base::role::Target;
use crate::config::{self, Cluster, Sessions};
use crate::net::descriptors::Descriptors;
use crate::net::options::Options;
use crate::session::cancel::{CancelTable, SourceLimit, Turns};
use crate::session::departure::Departure;
use crate::session::queue::Queue;
use crate::session::roster::Roster;
use crate::session::setup::Setup;
use crate::telemetry::listener::ListenerMetrics;
use crate::telemetry::metrics::Metrics;
use crate::topology::keeper::Watched;

/// Everything a session needs that is not its own; built once, in `app`.
pub struct Shared {
    setup: ArcSwap<Setup>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The process's file descriptors.
    pub descriptors: Descriptors,
    /// Who may cancel what, and where.
    pub cancels: CancelTable,
    /// How many cancel requests nobody knows the key of one source may send.
    pub cancel_limit: SourceLimit,
    /// When each of them is sent to which node.
    pub cancel_turns: Turns,
    /// Numbers for sessions.
    pub ids: SessionIds,
    /// All of them.
    pub roster: Roster,
    /// Whether it is on its way to its end: it may still accept for a while.
    pub is_draining: AtomicBool,
    /// Nothing is accepted from now on, and nobody waits for a node any more.
    pub stop: CancellationToken,
    /// The way out for sessions that are to go on in another process, while there is one.
    pub departure: ArcSwapOption<Departure>,
    /// What is asked of sessions that are on a node.
    pub stage: Arc<Board<Stage>>,
    /// All that has not come that far ends now.
    pub kill: CancellationToken,
}

impl Shared {
    /// What a process that serves has in common; it begins with this setup.
    #[must_use]
    pub fn new(setup: Setup, metrics: Arc<Metrics>, descriptors: Descriptors, roster: Roster) -> Self {
        Self {
            setup: ArcSwap::from_pointee(setup),
            metrics,
            descriptors,
            cancels: CancelTable::default(),
            cancel_limit: SourceLimit::default(),
            cancel_turns: Turns::default(),
            ids: SessionIds::default(),
            roster,
            is_draining: AtomicBool::new(false),
            stop: CancellationToken::new(),
            departure: ArcSwapOption::empty(),
            stage: Board::new(Stage::Serving),
            kill: CancellationToken::new(),
        }
    }

    /// The current setup. Whoever needs several things of it asks once, so that they fit together. A session keeps its
    /// listener rather than this, which would live as long as it does.
    #[must_use]
    pub fn setup(&self) -> Arc<Setup> {
        self.setup.load_full()
    }

    /// Lets this one be the current setup. Listeners that it has in another version are told, so that who waits there goes on
    /// by the new rules.
    pub fn replace_setup(&self, setup: Setup) {
        let old = self.setup.swap(Arc::new(setup));
        let new = self.setup();
        for listener in &old.listeners {
            if !new.listeners.iter().any(|other| Arc::ptr_eq(other, listener)) {
                listener.is_outdated.cancel();
            }
            if !new.listeners.iter().any(|other| other.index == listener.index) {
                // Nobody could resume it any more.
                listener.set_paused(false);
            }
        }
    }

    /// Whether it is on its way to its end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }
}

/// How far the process is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It serves; sessions stay.
    Serving,
    /// Sessions on a node end between two transactions.
    LastCall,
    /// All sessions end now.
    Over,
}

impl Small for Stage {
    fn to_bits(self) -> u8 {
        match self {
            Self::Serving => 0,
            Self::LastCall => 1,
            Self::Over => 2,
        }
    }

    fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Serving,
            1 => Self::LastCall,
            _ => Self::Over,
        }
    }
}

/// One listener and what is going on there, by the rules of one configuration. Other versions of it share what is counted.
pub struct Listener {
    /// Its number, by which its counters are found; the same for as long as the process lives.
    pub index: usize,
    /// Its counters.
    pub metrics: Arc<ListenerMetrics>,
    /// What the file says.
    pub config: Arc<config::Listener>,
    /// The cluster its sessions go to.
    pub cluster: Arc<Cluster>,
    /// That cluster's state.
    pub watched: Watched,
    /// The address it is bound to, with the real port.
    pub addr: SocketAddr,
    /// Socket options of its sessions' nodes; those of clients are inherited from its own socket.
    pub options: Options,
    /// Whose turn it is.
    pub picker: Mutex<Picker>,
    /// Sessions now.
    pub sessions: Arc<AtomicU32>,
    /// Sessions that wait for a node.
    pub queue: Arc<Queue>,
    /// Whether somebody has paused it: sessions that come wait until it is resumed.
    pub pause: watch::Sender<bool>,
    /// Whether another version has taken its place, or it is gone.
    pub is_outdated: CancellationToken,
}

impl Listener {
    /// How its sessions are set up.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.cluster.sessions
    }

    /// Sessions now.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// How many sessions wait for a node, and since when the first of them does.
    #[must_use]
    pub fn waiting(&self) -> (usize, Option<tokio::time::Instant>) {
        self.queue.summary()
    }

    /// Whether new sessions wait until somebody says otherwise.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        *self.pause.borrow()
    }

    /// From now on new sessions wait, or those that wait are let in, in the order they came; open sessions go on either
    /// way. Whether that is a change.
    pub fn set_paused(&self, pause: bool) -> bool {
        self.pause.send_if_modified(|is_paused| std::mem::replace(is_paused, pause) != pause)
    }

    /// Whether its sessions are there to write.
    #[must_use]
    pub fn is_for_primary(&self) -> bool {
        matches!(self.config.target, Target::Primary | Target::ReadWrite)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("name", &self.config.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_fits_on_a_board() {
        for stage in [Stage::Serving, Stage::LastCall, Stage::Over] {
            assert_eq!(Stage::from_bits(stage.to_bits()), stage);
        }
    }
}
