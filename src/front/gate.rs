//! What stands between a client's socket and the HTTP library: reads each request's head along, and notes when
//! something moves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::front::framing::{Follows, examine, head_len};
use crate::front::pulse::Pulse;

/// A client's socket, with an eye on what it sends.
#[derive(Debug)]
pub struct Gate {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    expects: Expects,
    max_header: usize,
}

/// What the next byte belongs to.
#[derive(Debug)]
enum Expects {
    /// A head, of which this has come.
    Head(Vec<u8>),
    /// A body that has so many bytes left.
    Body(u64),
    /// Something that is not looked at: a body in chunks, after which the connection is closed; another protocol;
    /// HTTP/2.
    Anything,
    /// Nothing: what came was refused.
    Nothing,
}

impl Gate {
    /// A gate before HTTP/1.1.
    #[must_use]
    pub const fn new(stream: TcpStream, pulse: Arc<Pulse>, max_header: usize) -> Self {
        Self { stream, pulse, expects: Expects::Head(Vec::new()), max_header }
    }

    /// One that only notes when something moves.
    #[must_use]
    pub const fn open(stream: TcpStream, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse, expects: Expects::Anything, max_header: 0 }
    }

    /// Looks at `fresh`, which has just come. What must not be read further is overwritten with something that the
    /// library refuses whatever came before it.
    fn inspect(&mut self, fresh: &mut [u8]) {
        if self.pulse.is_upgraded() {
            self.expects = Expects::Anything;
        }
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
                        self.pulse.head_begun();
                        if self.max_header < earlier.len() {
                            // An end that the library finds too far away, and answers 431.
                            self.expects = Expects::Nothing;
                            overwrite_end(fresh, b"\r\n\r\n");
                        }
                        return;
                    };
                    self.expects = match examined {
                        Ok(Follows::Nothing) => Expects::Head(Vec::new()),
                        Ok(Follows::Body(length)) => Expects::Body(length),
                        Ok(Follows::Chunks) => Expects::Anything,
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

/// A zero byte is an error in every part of a head.
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
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
