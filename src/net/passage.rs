//! Messages between two processes of one machine, with file descriptors in them.
//!
//! A Unix socket carries bytes, and beside some of them descriptors (`SCM_RIGHTS`, `unix(7)`). A message is a length, the
//! number of its descriptors, and its bytes; the descriptors go with the first of these.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// As many descriptors as Linux lets go with one message: `SCM_MAX_FD` of `include/net/scm.h`.
pub const DESCRIPTORS_MAX: usize = 253;
/// The longest message.
const LENGTH_MAX: usize = 4 * 1024 * 1024;
/// Length and number of descriptors.
const HEADER: usize = 6;
/// Descriptors of messages that are not here as a whole yet; one message has no more than half of them.
const DESCRIPTORS_KEPT: usize = 2 * DESCRIPTORS_MAX;
/// What is read at once.
const CHUNK: usize = 8 * 1024;

/// What comes through.
#[derive(Debug)]
pub struct Message {
    /// The bytes.
    pub bytes: Bytes,
    /// The descriptors. They are not passed on to programs that this process starts.
    pub descriptors: Vec<OwnedFd>,
}

/// The end that is written to.
#[derive(Debug)]
pub struct Sender(Arc<UnixStream>);

/// The end that is read from.
#[derive(Debug)]
pub struct Receiver {
    stream: Arc<UnixStream>,
    bytes: BytesMut,
    descriptors: VecDeque<OwnedFd>,
}

/// Both ends of one side.
///
/// # Errors
/// The system has no room for one more.
pub fn open(stream: StdStream) -> io::Result<(Sender, Receiver)> {
    stream.set_nonblocking(true)?;
    let stream = Arc::new(UnixStream::from_std(stream)?);
    let receiver =
        Receiver { stream: Arc::clone(&stream), bytes: BytesMut::new(), descriptors: VecDeque::new() };
    Ok((Sender(stream), receiver))
}

/// Sends a message without descriptors, and waits as long as that takes: for who has no runtime.
///
/// # Errors
/// What the system said, most often that the other side is gone.
pub fn send_blocking(mut stream: &StdStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(&frame(bytes, 0)?)
}

impl Sender {
    /// Sends a message. The descriptors stay open here.
    ///
    /// Not cancel safe: half of it may have been sent.
    ///
    /// # Errors
    /// What the system said, most often that the other side is gone; or the message is too large.
    pub async fn send(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let frame = frame(bytes, descriptors.len())?;
        let mut rest = frame.as_slice();
        let mut beside = descriptors;
        while !rest.is_empty() {
            let sent = self.0.async_io(Interest::WRITABLE, || self.try_send(rest, beside)).await?;
            rest = rest.get(sent..).unwrap_or_default();
            beside = &[];
        }
        Ok(())
    }

    /// Sends no more: the other side receives what has been sent, and then that this is all.
    pub fn close(&self) {
        // It fails where nobody is left to be told.
        let _ = shutdown(&*self.0, Shutdown::Write);
    }

    fn try_send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(too_large());
        }
        Ok(sendmsg(&*self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::empty())?)
    }
}

impl Receiver {
    /// The next message; `None`: the other side has closed, and there is none.
    ///
    /// Cancel safe: what has come of a message is kept.
    ///
    /// # Errors
    /// What the system said, or that what came is no message.
    pub async fn receive(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let (stream, descriptors) = (&self.stream, &mut self.descriptors);
            let mut chunk = [0; CHUNK];
            let came =
                stream.async_io(Interest::READABLE, || try_receive(stream, &mut chunk, descriptors)).await?;
            if came == 0 {
                let is_between = self.bytes.is_empty() && self.descriptors.is_empty();
                return if is_between { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            self.bytes.extend_from_slice(chunk.get(..came).unwrap_or_default());
        }
    }

    /// A message that is here as a whole.
    fn take(&mut self) -> io::Result<Option<Message>> {
        let Some((header, rest)) = self.bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let mut numbers = &header[..];
        let length = usize::try_from(numbers.try_get_u32().map_err(|_| too_large())?).unwrap_or(usize::MAX);
        let descriptors = usize::from(numbers.try_get_u16().map_err(|_| too_large())?);
        if LENGTH_MAX < length || DESCRIPTORS_MAX < descriptors {
            return Err(too_large());
        }
        if rest.len() < length {
            return Ok(None);
        }
        if self.descriptors.len() < descriptors {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors are missing"));
        }
        self.bytes.advance(HEADER);
        let bytes = self.bytes.split_to(length).freeze();
        Ok(Some(Message { bytes, descriptors: self.descriptors.drain(..descriptors).collect() }))
    }
}

fn try_receive(
    stream: &UnixStream,
    chunk: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    const FLAGS: RecvFlags = RecvFlags::CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    const FLAGS: RecvFlags = RecvFlags::empty();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(chunk)], &mut control, FLAGS)?;
    if DESCRIPTORS_KEPT < descriptors.len() {
        return Err(too_large());
    }
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no descriptor is left for what was sent"));
    }
    Ok(received.bytes)
}

fn frame(bytes: &[u8], descriptors: usize) -> io::Result<Vec<u8>> {
    if LENGTH_MAX < bytes.len() || DESCRIPTORS_MAX < descriptors {
        return Err(too_large());
    }
    let length = u32::try_from(bytes.len()).map_err(|_| too_large())?;
    let descriptors = u16::try_from(descriptors).map_err(|_| too_large())?;
    Ok([&length.to_be_bytes()[..], &descriptors.to_be_bytes(), bytes].concat())
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message is too large")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    fn both() -> ((Sender, Receiver), (Sender, Receiver)) {
        let (a, b) = StdStream::pair().unwrap();
        (open(a).unwrap(), open(b).unwrap())
    }

    #[tokio::test]
    async fn messages_arrive_in_order_with_what_they_carry() {
        let ((mut to, _), (_, mut from)) = both();
        let (mut kept, given) = StdStream::pair().unwrap();
        let long: Vec<u8> = (0..=255).cycle().take(700_000).collect();
        let sending = async {
            to.send(b"first", &[]).await.unwrap();
            to.send(&long, &[given.as_fd(), given.as_fd()]).await.unwrap();
            to.send(b"", &vec![given.as_fd(); DESCRIPTORS_MAX]).await.unwrap();
            drop((to, given));
        };
        let receiving = async {
            let mut next = async || from.receive().await.unwrap();
            let first = next().await.unwrap();
            assert_eq!((&first.bytes[..], first.descriptors.len()), (&b"first"[..], 0));
            let mut second = next().await.unwrap();
            assert!(second.bytes == long && second.descriptors.len() == 2);
            let mut stream = StdStream::from(second.descriptors.remove(0));
            stream.write_all(b"through").unwrap();
            assert_eq!(next().await.unwrap().descriptors.len(), DESCRIPTORS_MAX);
            assert!(next().await.is_none());
        };
        tokio::join!(sending, receiving);
        let mut through = Vec::new();
        kept.read_to_end(&mut through).unwrap();
        assert_eq!(through, b"through", "and all copies are closed");
    }

    #[tokio::test]
    async fn what_is_no_message_is_an_error() {
        let (a, mut b) = StdStream::pair().unwrap();
        let (_, mut from) = open(a).unwrap();
        b.write_all(&[255; 6]).unwrap();
        assert_eq!(from.receive().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (a, mut b) = StdStream::pair().unwrap();
        let (_, mut from) = open(a).unwrap();
        b.write_all(&frame(b"x", 1).unwrap()).unwrap();
        assert_eq!(from.receive().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (a, mut b) = StdStream::pair().unwrap();
        let (_, mut from) = open(a).unwrap();
        b.write_all(&frame(b"half", 0).unwrap()[..8]).unwrap();
        drop(b);
        assert_eq!(from.receive().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn who_has_no_runtime_is_understood_as_well() {
        let (a, b) = StdStream::pair().unwrap();
        send_blocking(&a, b"no").unwrap();
        drop(a);
        let (mut to, mut from) = open(b).unwrap();
        assert_eq!(&from.receive().await.unwrap().unwrap().bytes[..], b"no");
        assert!(from.receive().await.unwrap().is_none());
        assert!(to.send(b"x", &[]).await.is_err());
    }
}
