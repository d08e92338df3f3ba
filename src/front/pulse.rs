//! When something last moved on a client's connection, noted without a timer, and what has taken too long.
//!
//! A timer for each request would cost more than the request's parsing. So its times are only written down, and one
//! timer a worker ([`desk`](crate::front::desk)) looks at those of all connections now and then.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::http::Limits;

/// What a connection is doing, and since when.
#[derive(Debug)]
pub struct Pulse {
    born: Instant,
    /// Requests that are being answered.
    requests: AtomicU32,
    /// Milliseconds after birth, and 1 more; 0: not now.
    head_since: AtomicU64,
    idle_since: AtomicU64,
    blocked_since: AtomicU64,
    is_http2: AtomicBool,
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// The rest of a request's head.
    Head,
    /// The next request.
    Idle,
    /// Reading the answer.
    Reading,
}

impl Pulse {
    /// A connection that has just been accepted: its first request's head is awaited.
    #[must_use]
    pub fn new() -> Self {
        Self {
            born: Instant::now(),
            requests: AtomicU32::new(0),
            head_since: AtomicU64::new(1),
            idle_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            is_http2: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// A part of a head is here.
    pub fn head_begun(&self) {
        if self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A whole head is here.
    pub fn head_complete(&self) {
        self.head_since.store(0, Ordering::Relaxed);
        self.idle_since.store(0, Ordering::Relaxed);
    }

    /// It speaks HTTP/2, where heads are the library's affair.
    pub fn set_http2(&self) {
        self.head_since.store(0, Ordering::Relaxed);
        self.idle_since.store(self.now(), Ordering::Relaxed);
        self.is_http2.store(true, Ordering::Relaxed);
    }

    /// Whether it speaks HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// How long the next request has been awaited; `None`: it is not, or it would be the first.
    #[must_use]
    pub fn idle_for(&self) -> Option<Duration> {
        let since = self.idle_since.load(Ordering::Relaxed);
        (since != 0 && self.is_idle()).then(|| Duration::from_millis(self.now().saturating_sub(since)))
    }

    /// A piece of an answer was written, or could not be.
    pub fn written(&self, all: bool) {
        if all {
            if self.blocked_since.load(Ordering::Relaxed) != 0 {
                self.blocked_since.store(0, Ordering::Relaxed);
                // The library has long let go of an answer that it still writes: only now the client is idle.
                if self.requests.load(Ordering::Relaxed) == 0 {
                    self.idle_since.store(self.now(), Ordering::Relaxed);
                }
            }
        } else if self.blocked_since.load(Ordering::Relaxed) == 0 {
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A request is being answered.
    pub fn request_begun(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.idle_since.store(0, Ordering::Relaxed);
    }

    /// It has been.
    pub fn request_ended(&self) {
        if self.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Whether no request is being answered, and nothing of an answer is left to be written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0 && self.blocked_since.load(Ordering::Relaxed) == 0
    }

    /// What has taken longer than it may.
    #[must_use]
    pub fn overdue(&self, limits: &Limits) -> Option<Overdue> {
        let is_over = |since: &AtomicU64, limit: Duration| {
            let since = since.load(Ordering::Relaxed);
            since != 0 && limit.as_millis() < u128::from(self.now().saturating_sub(since))
        };
        if is_over(&self.blocked_since, limits.body_timeout) {
            Some(Overdue::Reading)
        } else if is_over(&self.head_since, limits.header_timeout) && self.is_idle() {
            Some(Overdue::Head)
        } else if is_over(&self.idle_since, limits.idle_timeout) && self.is_idle() {
            Some(Overdue::Idle)
        } else {
            None
        }
    }

    /// How often to look.
    #[must_use]
    pub fn interval(limits: &Limits) -> Duration {
        let least = limits.header_timeout.min(limits.idle_timeout).min(limits.body_timeout);
        (least / 2).max(Duration::from_millis(50))
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

/// An answer that waits for its reader: with HTTP/2 a stream can stand still while its connection does not.
#[derive(Debug)]
pub struct Stall {
    born: Instant,
    /// Milliseconds after birth, and 1 more, since when a piece has been out and no other was asked for; 0: not now.
    since: AtomicU64,
}

impl Stall {
    /// An answer whose first piece has not been asked for.
    #[must_use]
    pub fn new() -> Self {
        Self { born: Instant::now(), since: AtomicU64::new(1) }
    }

    /// The next piece is asked for.
    pub fn asked(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// A piece was given.
    pub fn given(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(now.saturating_add(1), Ordering::Relaxed);
    }

    /// Whether that is longer ago than `limit`.
    #[must_use]
    pub fn is_over(&self, limit: Duration) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        let now = self.born.elapsed().as_millis() + 1;
        since != 0 && limit.as_millis() < now.saturating_sub(u128::from(since))
    }
}

impl Default for Stall {
    fn default() -> Self {
        Self::new()
    }
}
