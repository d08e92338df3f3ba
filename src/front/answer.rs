//! The body of an answer on its way to the client, and everything that must last as long as it does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::front::account::Account;
use crate::front::admit::Turn;
use crate::front::cache::Keeping;
use crate::front::caller::Caller;
use crate::front::group::Chosen;
use crate::front::pulse::Stall;
use crate::front::shared::Front;
use crate::front::upload::Patience;
use crate::front::upstream::link::Link;

/// Pieces of an answer that are read for nothing: more would cost more than a new connection.
const DISCARD: u32 = 8;

/// The body of an answer.
pub struct Answer {
    content: Content,
    /// `None` for one that another task accounts for.
    account: Option<Box<Account>>,
    /// Where its reader's pace is noted, for HTTP/2.
    reader: Option<Reader>,
}

/// Who reads an answer, and when a piece was last asked for.
struct Reader {
    caller: Arc<Caller>,
    stall: Arc<Stall>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.caller.forget(&self.stall);
    }
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
    /// Where a failure is told: the front, and the group's place in it.
    home: Option<(Arc<Front>, usize)>,
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
            home: None,
            chosen,
            patience: Patience::new(timeout),
            keeping: None,
            _turn: turn,
        }
    }

    /// Says where a failure within the answer is told.
    pub fn tell(&mut self, front: &Arc<Front>, group: usize) {
        self.home = Some((Arc::clone(front), group));
    }

    fn failed(&mut self, error: &str) {
        self.link = None;
        if let Some((front, group)) = self.home.take()
            && let Some(group) = front.groups.get(group)
        {
            group.failed(&self.chosen.instance, false, error);
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
                    self.failed("broke off within its answer");
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
            self.failed("made too long a pause within its answer");
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
        for _ in 0..DISCARD {
            if !matches!(self.poll_piece(&mut cx), Poll::Ready(Some(Ok(_)))) {
                return;
            }
        }
    }
}

impl Answer {
    /// An answer of which everything is here.
    #[must_use]
    pub fn whole(bytes: Bytes, mut account: Box<Account>) -> Self {
        account.set_whole();
        Self { content: Content::Whole(bytes), account: Some(account), reader: None }
    }

    /// The answer that begins another protocol, which is accounted for where that is spoken.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { content: Content::Whole(Bytes::new()), account: None, reader: None }
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
        Self { content: Content::Passing(Box::new(passing)), account, reader: None }
    }

    /// Has the pace of its reader noted: one that does not read must not keep an upstream for ever.
    #[must_use]
    pub fn read_by(mut self, caller: &Arc<Caller>) -> Self {
        let stall = Arc::<Stall>::default();
        caller.note(&stall);
        self.reader = Some(Reader { caller: Arc::clone(caller), stall });
        self
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Self { content, account, reader } = &mut *self;
        if let Some(reader) = reader {
            reader.stall.asked();
        }
        let polled = match content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => {
                if let Some(account) = account {
                    account.add_bytes(bytes.len());
                }
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Content::Passing(passing) => {
                let polled = passing.poll_piece(cx);
                if let (Some(account), Poll::Ready(Some(Err(_)))) = (&mut *account, &polled) {
                    account.set_broken();
                }
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
        };
        if let (Some(reader), Poll::Ready(_)) = (reader, &polled) {
            reader.stall.given();
        }
        polled
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
