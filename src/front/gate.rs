//! What stands between a client's socket and the HTTP library: reads each request's head along, and notes when
//! something moves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::front::framing::{Follows, examine, head_len};
use crate::front::pulse::Pulse;

/// How long a client may take to close its side after we have closed ours,
const FAREWELL: Duration = Duration::from_secs(1);
/// and how many pieces of what it still sends are read meanwhile.
const FAREWELL_PIECES: u32 = 256;

/// A client's socket, with an eye on what it sends.
#[derive(Debug)]
pub struct Gate {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    expects: Expects,
    max_header: usize,
    /// Our side is closed: until when the client may close its own, and how much is read of what it still sends.
    farewell: Option<(Pin<Box<Sleep>>, u32)>,
}

/// What the next byte belongs to.
#[derive(Debug)]
enum Expects {
    /// A head, of which this has come.
    Head(Vec<u8>),
    /// A body that has so many bytes left.
    Body(u64),
    /// Something that is not looked at: a body in chunks or another protocol, after which the connection is closed, or
    /// HTTP/2.
    Anything,
    /// Nothing: what came was refused.
    Nothing,
}

impl Gate {
    /// A gate before HTTP/1.1.
    #[must_use]
    pub const fn new(stream: TcpStream, pulse: Arc<Pulse>, max_header: usize) -> Self {
        Self { stream, pulse, expects: Expects::Head(Vec::new()), max_header, farewell: None }
    }

    /// One that only notes when something moves.
    #[must_use]
    pub const fn open(stream: TcpStream, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse, expects: Expects::Anything, max_header: 0, farewell: None }
    }

    /// Looks at `fresh`, which has just come. What must not be read further is overwritten with zero bytes, which are an
    /// error in every part of a head.
    fn inspect(&mut self, fresh: &mut [u8]) {
        let mut at = 0;
        while at < fresh.len() {
            let Some(rest) = fresh.get(at..) else { return };
            match &mut self.expects {
                Expects::Anything => return,
                Expects::Nothing => return spoil(fresh.get_mut(at..)),
                Expects::Body(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= u64::try_from(taken).unwrap_or(*left);
                    at += taken;
                    if *left == 0 {
                        self.expects = Expects::Head(Vec::new());
                    }
                }
                Expects::Head(earlier) => {
                    let begun = earlier.len();
                    let found = if begun == 0 {
                        head_len(rest, 0).map(|len| (len, rest.get(..len).map(examine)))
                    } else {
                        earlier.extend_from_slice(rest);
                        head_len(earlier, begun).map(|len| (len - begun, earlier.get(..len).map(examine)))
                    };
                    let Some((taken, Some(examined))) = found else {
                        if begun == 0 {
                            earlier.extend_from_slice(rest);
                        }
                        // An empty line between two requests begins none.
                        if !rest.iter().all(|byte| matches!(byte, b'\r' | b'\n')) || begun != 0 {
                            self.pulse.head_begun();
                        }
                        if self.max_header < earlier.len() {
                            // The library finds its end too far away, and answers 431.
                            self.expects = Expects::Nothing;
                            overwrite_end(fresh, b"\r\n\r\n");
                        }
                        return;
                    };
                    self.expects = match examined {
                        Ok(Follows::Nothing) => Expects::Head(Vec::new()),
                        Ok(Follows::Body(length)) => Expects::Body(length),
                        Ok(Follows::Anything) => Expects::Anything,
                        Err(_) => Expects::Nothing,
                    };
                    if matches!(self.expects, Expects::Nothing) {
                        return spoil(fresh.get_mut(at..));
                    }
                    self.pulse.head_complete();
                    at += taken;
                }
            }
        }
    }
}

/// Ends what was refused like a head: only then the library looks at it, finds it wrong, and says so to the client.
fn end_head(buf: &mut ReadBuf<'_>, before: usize) {
    const END: &[u8] = b"\0\r\n\r\n";
    if END.len() <= buf.remaining() {
        buf.put_slice(END);
    } else if let Some(fresh) = buf.filled_mut().get_mut(before..) {
        overwrite_end(fresh, END);
    }
}

fn spoil(bytes: Option<&mut [u8]>) {
    if let Some(bytes) = bytes {
        bytes.fill(0);
    }
}

fn overwrite_end(bytes: &mut [u8], end: &[u8]) {
    let from = bytes.len().saturating_sub(end.len());
    for (byte, new) in bytes.iter_mut().skip(from).zip(end) {
        *byte = *new;
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = &mut *self;
        if matches!(gate.expects, Expects::Nothing) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut gate.stream).poll_read(cx, buf);
        if polled.is_ready()
            && let Some(fresh) = buf.filled_mut().get_mut(before..)
        {
            gate.inspect(fresh);
            if matches!(gate.expects, Expects::Nothing) {
                end_head(buf, before);
            }
        }
        polled
    }
}

impl AsyncWrite for Gate {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.pulse.written(polled.is_ready());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.pulse.written(polled.is_ready());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = &mut *self;
        if gate.farewell.is_none() {
            std::task::ready!(Pin::new(&mut gate.stream).poll_shutdown(cx))?;
        }
        // Closing a socket with unread bytes resets it, which can take our last words from a client that still sends.
        let (until, left) = gate.farewell.get_or_insert_with(|| (Box::pin(sleep(FAREWELL)), FAREWELL_PIECES));
        let mut bin = [0; 4096];
        while 0 < *left {
            *left -= 1;
            let mut piece = ReadBuf::new(&mut bin);
            match Pin::new(&mut gate.stream).poll_read(cx, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return until.as_mut().poll(cx).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}
