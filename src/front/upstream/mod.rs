//! The upstreams of a group: where they are, how they fare, and connections to them.
//!
//! [`follow`](crate::net::discover::follow) looks their names up again and again, [`check`] asks each address how it
//! is, and [`keeper`], the only writer, publishes the [`Standing`] of all. Requests read that, and tell the keeper what
//! they met.

pub mod check;
pub mod keeper;
pub mod link;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::balance::judge::Verdict;
use crate::balance::load::{Load, Wakes};
use crate::config::http::Upstream;
use check::Look;
use link::Link;

/// A connection that has not been used for so long is closed: many servers close theirs after a minute, and a
/// request sent at that moment is lost.
const LINK_IDLE: Duration = Duration::from_secs(30);
/// Connections that a worker keeps to one upstream while nobody uses them.
const LINKS: usize = 512;

/// One address of an upstream. The same object for as long as its name leads there.
#[derive(Debug)]
pub struct Instance {
    /// What the picker keeps its turn by; unique among those that are there.
    pub slot: usize,
    /// Place of its upstream in the group.
    pub upstream: usize,
    /// What the file says of it.
    pub config: Upstream,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Requests on it now.
    pub load: Arc<Load>,
    /// Requests sent to it so far.
    pub requests: AtomicU64,
    /// Requests in a row that failed.
    failures: AtomicU32,
    /// Whether its last check failed.
    is_suspect: AtomicBool,
    /// Tells all who wait for an answer of it that it became suspect.
    suspicion: Notify,
    /// Asks for a check at once.
    pub hurry: Notify,
    /// Connections that nobody uses, by worker.
    idle: Vec<Mutex<Vec<Link>>>,
}

impl Instance {
    fn new(
        slot: usize,
        upstream: usize,
        config: &Upstream,
        addr: SocketAddr,
        freed: Arc<Notify>,
        workers: usize,
    ) -> Self {
        Self {
            slot,
            upstream,
            config: config.clone(),
            addr,
            load: Arc::new(Load::new(freed, Wakes::One)),
            requests: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            is_suspect: AtomicBool::new(false),
            suspicion: Notify::new(),
            hurry: Notify::new(),
            idle: std::iter::repeat_with(Mutex::default).take(workers).collect(),
        }
    }

    /// A connection that this worker has kept and that its upstream has not closed.
    #[must_use]
    pub fn take_link(&self, worker: usize) -> Option<Link> {
        let kept = self.idle.get(worker)?;
        loop {
            // The one used last is the one least likely to have been closed.
            let mut link = kept.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if link.is_usable() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection for the next request of this worker. Whether it can be used again is seen then.
    pub fn keep_link(&self, worker: usize, mut link: Link) {
        if self.is_suspect() || !link.may_be_kept() {
            return;
        }
        link.idle_since = Instant::now();
        if let Some(kept) = self.idle.get(worker) {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < LINKS {
                kept.push(link);
            }
        }
    }

    /// Closes connections that nobody has used for long, or that the upstream has closed.
    fn sweep(&self) {
        for kept in &self.idle {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain_mut(|link| link.idle_since.elapsed() < LINK_IDLE && link.is_usable());
        }
    }

    /// Closes all that nobody uses.
    fn close_idle(&self) {
        for kept in &self.idle {
            kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// A request was answered well.
    pub fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A request failed; how many have in a row.
    pub fn failed(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Whether its last check failed.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Acquire)
    }

    fn set_suspect(&self, is_suspect: bool) {
        self.is_suspect.store(is_suspect, Ordering::Release);
        if is_suspect {
            self.suspicion.notify_waiters();
            self.close_idle();
        }
    }

    /// Resolves when it is suspect. Cancel safe.
    pub async fn suspected(&self) {
        let notified = self.suspicion.notified();
        if !self.is_suspect() {
            notified.await;
        }
    }
}

/// What is held true of a group's upstreams at one moment.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Every address there is.
    pub members: Vec<Member>,
}

/// The place where the current [`Standing`] of a group is found.
pub type Current = watch::Receiver<Arc<Standing>>;

/// What is held true of one address at one moment.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which one.
    pub instance: Arc<Instance>,
    /// Whether it is alive.
    pub verdict: Verdict,
    /// Checks in a row against the verdict, and how many it takes.
    pub progress: (u32, u32),
    /// Until when it gets no requests because some failed.
    pub ejected_until: Option<Instant>,
    /// When the verdict last changed.
    pub since: SystemTime,
    /// The latest check.
    pub last: Option<Look>,
}

impl Member {
    /// Whether it was put aside, and still is.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejected_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether it gets new requests, as far as its health goes.
    #[must_use]
    pub fn takes_new(&self) -> bool {
        self.verdict == Verdict::Up && 0 < self.instance.config.weight && !self.is_ejected()
    }

    /// Its state in one word.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (self.verdict, self.progress) {
            (Verdict::Starting, _) => "starting",
            (Verdict::Up, _) if self.is_ejected() => "ejected",
            (Verdict::Up, (0, _)) => "up",
            (Verdict::Up, _) => "going_down",
            (Verdict::Down, (0, _)) => "down",
            (Verdict::Down, _) => "going_up",
        }
    }
}
