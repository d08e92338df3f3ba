//! Listening sockets whose connections belong to no runtime yet, so that they can be handed to any worker.

use std::io;
use std::net::{SocketAddr, TcpStream};

use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait to be accepted; the system may cap it (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// A bound, listening socket.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Listening {
    /// Binds `addr`; port 0 lets the system choose. A restart may bind at once (`SO_REUSEADDR`).
    ///
    /// # Errors
    /// What the system said, most often that the address is in use or not this machine's.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        Ok(Self { listener, addr })
    }

    /// The address with the port the system chose.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The next connection, non-blocking and registered with no runtime. Cancel safe.
    ///
    /// # Errors
    /// What the system said; see [`is_peer_gone`] for those that are no trouble.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((stream.into_std()?, peer))
    }
}

/// Whether an accept failed only because that one client had already left.
#[must_use]
pub fn is_peer_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, NotConnected, PermissionDenied};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | NotConnected | PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[tokio::test]
    async fn what_is_accepted_is_non_blocking() {
        let listening = Listening::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = TcpStream::connect(listening.addr()).unwrap();
        let (mut accepted, peer) = listening.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(accepted.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
