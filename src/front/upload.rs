//! The body of a request on its way to an upstream: bounded in size and in time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

/// The body of a request.
pub enum Upload {
    /// None.
    Empty,
    /// One that comes from the client.
    Stream(Box<Stream>),
}

/// A body that comes from the client.
pub struct Stream {
    incoming: Incoming,
    left: Option<u64>,
    patience: Patience,
    fate: Arc<Fate>,
}

/// What became of a body, for whoever has to explain the failure of its request.
#[derive(Debug)]
pub struct Fate {
    what: AtomicU8,
    bytes: AtomicU64,
    born: Instant,
    /// Milliseconds after birth, and 1 more, when its last piece was taken; 0: none was.
    last: AtomicU64,
}

/// Why a body came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It was longer than allowed.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// The client made too long a pause.
    #[error("the client sent no more of its body in time")]
    TooSlow,
    /// The client broke off, or framed it wrongly.
    #[error("the client broke off, or its body is malformed")]
    Client,
}

impl Fate {
    fn new() -> Self {
        Self {
            what: AtomicU8::new(0),
            bytes: AtomicU64::new(0),
            born: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    /// When its last piece was taken, if any was.
    #[must_use]
    pub fn last(&self) -> Option<Instant> {
        let after = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.born + Duration::from_millis(after))
    }

    fn took(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now.saturating_add(1), Ordering::Relaxed);
    }

    /// Why it came to nothing, if it did.
    #[must_use]
    pub fn broken(&self) -> Option<Broken> {
        match self.what.load(Ordering::Relaxed) {
            1 => Some(Broken::TooLarge),
            2 => Some(Broken::TooSlow),
            3 => Some(Broken::Client),
            _ => None,
        }
    }

    /// Bytes of it that came.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn note(&self, broken: Broken) -> Broken {
        let what = match broken {
            Broken::TooLarge => 1,
            Broken::TooSlow => 2,
            Broken::Client => 3,
        };
        self.what.store(what, Ordering::Relaxed);
        broken
    }
}

impl Upload {
    /// The body `incoming`, of at most `limit` bytes, without a pause longer than `timeout`.
    #[must_use]
    pub fn new(incoming: Incoming, limit: Option<u64>, timeout: Duration) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        let patience = Patience::new(timeout);
        Self::Stream(Box::new(Stream { incoming, left: limit, patience, fate: Arc::new(Fate::new()) }))
    }

    /// Where its fate can be seen, if there is one.
    #[must_use]
    pub fn fate(&self) -> Option<Arc<Fate>> {
        match self {
            Self::Empty => None,
            Self::Stream(stream) => Some(Arc::clone(&stream.fate)),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl Stream {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.patience.renew();
                let len =
                    frame.data_ref().map_or(0, |data| u64::try_from(data.remaining()).unwrap_or(u64::MAX));
                self.fate.took(len);
                match self.left.map(|left| left.checked_sub(len)) {
                    Some(None) => Poll::Ready(Some(Err(self.fate.note(Broken::TooLarge)))),
                    Some(left) => {
                        self.left = left;
                        Poll::Ready(Some(Ok(frame)))
                    }
                    None => Poll::Ready(Some(Ok(frame))),
                }
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(self.fate.note(Broken::Client)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if self.patience.is_over(cx) => {
                Poll::Ready(Some(Err(self.fate.note(Broken::TooSlow))))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Stream(stream) => stream.poll_piece(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(stream) => stream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(stream) => stream.incoming.size_hint(),
        }
    }
}

/// A pause within a body that has lasted too long, measured without touching a timer while pieces come.
#[derive(Debug)]
pub struct Patience {
    timeout: Duration,
    last: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// Patience for pauses of at most `timeout`.
    #[must_use]
    pub const fn new(timeout: Duration) -> Self {
        Self { timeout, last: None, alarm: None }
    }

    /// A piece has come.
    pub const fn renew(&mut self) {
        self.last = None;
    }

    /// Whether none has come for too long. Asked only when none is there.
    pub fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let last = *self.last.get_or_insert_with(Instant::now);
        let until = last + self.timeout;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        // One that was set for an earlier pause goes off too early, and is set anew then.
        while alarm.as_mut().poll(cx).is_ready() {
            if until <= Instant::now() {
                return true;
            }
            alarm.as_mut().reset(until);
        }
        false
    }
}
