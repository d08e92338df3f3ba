//! Messages from a server that is not trusted.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::base::text::escaped;
use crate::pg::backend::take_message;

/// One conversation with a server.
pub(super) struct Conversation {
    pub(super) stream: TcpStream,
    pub(super) received: BytesMut,
}

impl Conversation {
    /// The server's next message.
    pub(super) async fn message(&mut self) -> io::Result<(u8, Bytes)> {
        loop {
            match take_message(&mut self.received) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(_) if self.received.starts_with(b"HTTP/") => {
                    let line = self.received[..].split(|&b| b == b'\r').next().unwrap_or_default();
                    let text = format!("speaks HTTP, not PostgreSQL (\"{}\")", escaped(line, 40));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "closed the connection without an answer",
                ));
            }
        }
    }
}
