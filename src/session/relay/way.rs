//! One direction of a session: what is read from one side goes to the other, and what that does not take is kept.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One direction.
#[derive(Debug)]
pub(super) struct Way {
    /// Read and not yet taken by the other side; owns memory only while there is something.
    pub(super) kept: BytesMut,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    Open,
    /// The source has said good-bye and ended; the other side will end, too, or else be told.
    Leaving,
    /// The source has ended; the other side is told once it has taken what is kept.
    Ending,
    /// The sink has gone; what the source sends is thrown away until it ends.
    Discarding,
    Ended,
}

/// What one step of one direction brought.
pub(super) enum Step {
    Moved,
    Waiting,
    /// The source has ended just now.
    SourceEnded,
    Ended,
}

/// Whose connection broke.
pub(super) enum Broken {
    Source,
    Sink,
}

impl Way {
    pub(super) fn new(kept: BytesMut) -> Self {
        // An empty rest still holds the memory of the whole packet it was cut from.
        let kept = if kept.is_empty() { BytesMut::new() } else { kept };
        Self { kept, state: State::Open }
    }

    /// Moves what can be moved at once; the number is of bytes that the sink took.
    pub(super) fn step(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
        scratch: &mut [u8],
        see: impl FnOnce(&[u8]),
    ) -> Result<(Step, u64), Broken> {
        if !self.kept.is_empty() {
            return match Pin::new(sink).poll_write(cx, &self.kept) {
                Poll::Pending => Ok((Step::Waiting, 0)),
                Poll::Ready(Ok(n)) => {
                    self.kept.advance(n);
                    if self.kept.is_empty() {
                        self.kept = BytesMut::new();
                    }
                    Ok((Step::Moved, count(n)))
                }
                Poll::Ready(Err(_)) => Err(Broken::Sink),
            };
        }
        match self.state {
            State::Ended => Ok((Step::Ended, 0)),
            State::Leaving => Ok((Step::Waiting, 0)),
            State::Ending => match Pin::new(sink).poll_shutdown(cx) {
                Poll::Pending => Ok((Step::Waiting, 0)),
                // A sink that has gone already need not be told.
                Poll::Ready(_) => {
                    self.state = State::Ended;
                    Ok((Step::Moved, 0))
                }
            },
            State::Open | State::Discarding => {
                let mut read = ReadBuf::new(scratch);
                match Pin::new(source).poll_read(cx, &mut read) {
                    Poll::Pending => return Ok((Step::Waiting, 0)),
                    Poll::Ready(Err(_)) => return Err(Broken::Source),
                    Poll::Ready(Ok(())) => {}
                }
                let bytes = read.filled();
                if bytes.is_empty() {
                    let is_told = self.state == State::Open;
                    self.state = if is_told { State::Ending } else { State::Ended };
                    return Ok((Step::SourceEnded, 0));
                }
                if self.state == State::Discarding {
                    return Ok((Step::Moved, 0));
                }
                see(bytes);
                let taken = match Pin::new(sink).poll_write(cx, bytes) {
                    Poll::Pending => 0,
                    Poll::Ready(Ok(n)) => n,
                    Poll::Ready(Err(_)) => return Err(Broken::Sink),
                };
                self.kept.extend_from_slice(bytes.get(taken..).unwrap_or_default());
                Ok((Step::Moved, count(taken)))
            }
        }
    }

    /// Whether its source has ended, and all it said has been taken.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Leaving | State::Ending | State::Ended)
    }

    /// The sink takes nothing more.
    pub(super) fn discard(&mut self) {
        self.kept = BytesMut::new();
        self.state = State::Discarding;
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
