//! One client's connection as its requests see it: who it is, when something last moved, and what it is told to do.

use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::http::Limits;
use crate::front::forward::Client;
use crate::front::pulse::{Overdue, Pulse, Stall};

/// So many requests that a client broke off itself end its connection, if they are most of them.
const RESETS: u32 = 200;

/// What the requests of one connection share.
#[derive(Debug)]
pub struct Caller {
    /// Who it is.
    pub client: Client,
    /// Answers that are being read by HTTP/2, each at its own pace.
    stalls: Mutex<Vec<Arc<Stall>>>,
    /// When something last moved.
    pub pulse: Arc<Pulse>,
    /// Requests so far, and those that the client broke off.
    requests: AtomicU32,
    resets: AtomicU32,
    order: AtomicU8,
    waker: OnceLock<Waker>,
    /// What its requests have begun and that outlives them.
    pub tasks: TaskTracker,
    /// Ends them, when the connection is to end at once.
    pub cut: CancellationToken,
}

/// What a connection is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Nothing.
    GoOn = 0,
    /// Finish what runs, and begin nothing new.
    Finish = 1,
    /// End at once.
    End = 2,
}

impl Caller {
    /// The caller of a new connection.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            stalls: Mutex::default(),
            pulse: Arc::default(),
            requests: AtomicU32::new(0),
            resets: AtomicU32::new(0),
            order: AtomicU8::new(0),
            waker: OnceLock::new(),
            tasks: TaskTracker::new(),
            cut: CancellationToken::new(),
        }
    }

    /// What it is told to do now.
    #[must_use]
    pub fn order(&self) -> Order {
        match self.order.load(Ordering::Relaxed) {
            0 => Order::GoOn,
            1 => Order::Finish,
            _ => Order::End,
        }
    }

    /// Orders it, unless it has a sharper order.
    pub fn tell(&self, order: Order) {
        if order as u8 <= self.order.fetch_max(order as u8, Ordering::Relaxed) {
            return;
        }
        if order == Order::End {
            self.cut.cancel();
        }
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Notes one more answer that is read at its own pace; gone with [`Caller::forget`].
    pub fn note(&self, stall: &Arc<Stall>) {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(stall));
    }

    /// It is over.
    pub fn forget(&self, stall: &Arc<Stall>) {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, stall));
    }

    /// What has taken longer than it may.
    #[must_use]
    pub fn overdue(&self, limits: &Limits) -> Option<Overdue> {
        let stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stalled = stalls.iter().any(|stall| stall.is_over(limits.body_timeout));
        if is_stalled { Some(Overdue::Reading) } else { self.pulse.overdue(limits) }
    }

    /// One of its requests is over; whether the client itself broke it off.
    pub fn request_ended(&self, is_reset: bool) {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if is_reset {
            let resets = self.resets.fetch_add(1, Ordering::Relaxed) + 1;
            if RESETS < resets && requests / 2 < resets {
                self.tell(Order::End);
            }
        }
        self.pulse.request_ended();
    }

    /// Whether the client has broken off more requests than anybody should.
    #[must_use]
    pub fn is_flooding(&self) -> bool {
        RESETS < self.resets.load(Ordering::Relaxed)
    }

    /// Does something for as long as there is no order to finish. Cancel safe if `what` is.
    pub async fn obey<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = pin!(what);
        std::future::poll_fn(|cx| match self.heed(cx.waker()) {
            Order::GoOn => what.as_mut().poll(cx).map(Some),
            Order::Finish | Order::End => Poll::Ready(None),
        })
        .await
    }

    /// The order of the hour; later ones wake `waker`, which is the same for the whole life of a connection's task.
    pub fn heed(&self, waker: &Waker) -> Order {
        self.waker.get_or_init(|| waker.clone());
        self.order()
    }
}
