//! The body of an answer on its way to the client, and everything that must last as long as it does.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::front::account::Account;
use crate::front::admit::Turn;
use crate::front::cache::Keeping;
use crate::front::group::Chosen;
use crate::front::upload::Patience;
use crate::front::upstream::link::Link;

/// The body of an answer.
pub struct Answer {
    content: Content,
    /// `None` for one that another task accounts for.
    account: Option<Box<Account>>,
}

enum Content {
    /// All of it is here.
    Whole(Bytes),
    /// It is still coming.
    Passing(Box<Passing>),
}

/// An answer that comes from an upstream.
pub struct Passing {
    incoming: Incoming,
    /// The connection it comes by; `None` once it has been given back.
    link: Option<Link>,
    worker: usize,
    chosen: Chosen,
    patience: Patience,
    /// Shown what passes, to store it.
    keeping: Option<Keeping>,
    _turn: Option<Turn>,
}

/// Why an answer could not be passed on to its end.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// The upstream broke off.
    #[error("the upstream broke off within its answer")]
    Upstream(#[source] hyper::Error),
    /// It made too long a pause.
    #[error("the upstream sent no more of its answer in time")]
    Silent,
}

impl Passing {
    /// The answer that comes by `link`, for the worker with this number.
    #[must_use]
    pub fn new(
        incoming: Incoming,
        link: Link,
        worker: usize,
        chosen: Chosen,
        turn: Option<Turn>,
        timeout: Duration,
    ) -> Self {
        Self {
            incoming,
            link: Some(link),
            worker,
            chosen,
            patience: Patience::new(timeout),
            keeping: None,
            _turn: turn,
        }
    }

    /// Has it stored when it is complete.
    pub fn keep(&mut self, keeping: Keeping) {
        self.keeping = Some(keeping);
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        // The connection moves only when it is polled; and asking for a piece may let it move once more.
        for _ in 0..2 {
            if let Some(link) = &mut self.link {
                link.drive(cx);
            }
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.patience.renew();
                    self.show(&frame);
                    if self.incoming.is_end_stream() {
                        self.give_back();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.link = None;
                    return Poll::Ready(Some(Err(Cut::Upstream(error))));
                }
                Poll::Ready(None) => {
                    self.give_back();
                    return Poll::Ready(None);
                }
                Poll::Pending => {}
            }
        }
        if self.patience.is_over(cx) {
            self.link = None;
            return Poll::Ready(Some(Err(Cut::Silent)));
        }
        Poll::Pending
    }

    fn show(&mut self, frame: &Frame<Bytes>) {
        if let (Some(keeping), Some(piece)) = (&mut self.keeping, frame.data_ref())
            && !keeping.add(piece)
        {
            self.keeping = None;
        }
    }

    /// The answer is complete: it is stored, and its connection is free for the next.
    fn give_back(&mut self) {
        if let Some(keeping) = self.keeping.take() {
            keeping.finish();
        }
        if let Some(link) = self.link.take() {
            self.chosen.instance.keep_link(self.worker, link);
        }
    }

    /// Throws the answer away, and keeps its connection if the rest of it is already here.
    pub fn discard(mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(_))) = self.poll_piece(&mut cx) {}
    }
}

impl Answer {
    /// An answer of which everything is here.
    #[must_use]
    pub fn whole(bytes: Bytes, mut account: Box<Account>) -> Self {
        account.set_whole();
        Self { content: Content::Whole(bytes), account: Some(account) }
    }

    /// The answer that begins another protocol, which is accounted for where that is spoken.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { content: Content::Whole(Bytes::new()), account: None }
    }

    /// An answer that is still coming.
    #[must_use]
    pub fn passing(mut passing: Passing, mut account: Option<Box<Account>>) -> Self {
        if passing.incoming.is_end_stream() {
            passing.give_back();
            if let Some(account) = &mut account {
                account.set_whole();
            }
        }
        Self { content: Content::Passing(Box::new(passing)), account }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Self { content, account } = &mut *self;
        match content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => {
                if let Some(account) = account {
                    account.add_bytes(bytes.len());
                }
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Content::Passing(passing) => {
                let polled = passing.poll_piece(cx);
                let (bytes, is_end) = match &polled {
                    Poll::Ready(None) => (0, true),
                    Poll::Ready(Some(Ok(frame))) => {
                        (frame.data_ref().map_or(0, Bytes::len), passing.incoming.is_end_stream())
                    }
                    Poll::Ready(Some(Err(_))) | Poll::Pending => (0, false),
                };
                if let Some(account) = account {
                    account.add_bytes(bytes);
                    if is_end {
                        account.set_whole();
                    }
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Passing(passing) => passing.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Content::Passing(passing) => passing.incoming.size_hint(),
        }
    }
}
