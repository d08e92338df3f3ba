//! Messages from a server that is not trusted.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::base::text::escaped;
use crate::config::NodeAddr;
use crate::pg::backend::take_message;

/// One conversation with a server.
pub(super) struct Conversation<'a> {
    pub(super) stream: TcpStream,
    pub(super) received: BytesMut,
    /// Where the server should be, as the file says.
    pub(super) addr: &'a NodeAddr,
}

impl Conversation<'_> {
    /// The server's next message.
    pub(super) async fn message(&mut self) -> io::Result<(u8, Bytes)> {
        loop {
            match take_message(&mut self.received) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(_) if self.received.starts_with(b"HTTP/") => {
                    let line = self.received[..].split(|&b| b == b'\r').next().unwrap_or_default();
                    let (port, hint) = (self.addr.port, is_this_patroni(self.addr));
                    let line = escaped(line, 40);
                    let text = format!("speaks HTTP, not PostgreSQL, on port {port} (got \"{line}\"){hint}");
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

/// What more to say of a node that is no server, but may be what stands beside one.
pub(super) fn is_this_patroni(addr: &NodeAddr) -> String {
    let server = NodeAddr { port: 5432, ..addr.clone() };
    if *addr == server {
        return String::new();
    }
    format!(": is this the Patroni API? use patroni: {addr} and addr: {server}")
}
