//! Listening sockets whose connections belong to no runtime yet, so that they can be handed to any worker.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpSocket;

use crate::net::options::Options;

/// Connections that wait to be accepted; the system may cap it (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// A bound, listening socket.
#[derive(Debug)]
pub struct Listening {
    listener: AsyncFd<TcpListener>,
    addr: SocketAddr,
}

impl Listening {
    /// Binds `addr`; port 0 lets the system choose. A restart may bind at once (`SO_REUSEADDR`). Connections inherit
    /// `options`.
    ///
    /// # Errors
    /// What the system said, most often that the address is in use or not this machine's.
    pub fn bind(addr: SocketAddr, options: Options) -> io::Result<Self> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        options.apply(&socket)?;
        let listener = socket.listen(BACKLOG)?.into_std()?;
        let addr = listener.local_addr()?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of types that do not keep their descriptor"
        )]
        let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
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
        // Not the runtime's own listener: it would make the connection known to this thread's runtime, too.
        let (stream, peer) = self.listener.async_io(Interest::READABLE, TcpListener::accept).await?;
        stream.set_nonblocking(true)?;
        Ok((stream, peer))
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
    use socket2::SockRef;
    use std::io::Read;
    use std::time::Duration;

    #[tokio::test]
    async fn what_is_accepted_is_non_blocking_and_has_the_options_of_the_listener() {
        let keepalive = Some((Duration::from_secs(61), Duration::from_secs(7), 4));
        let options = Options { keepalive, user_timeout: Some(Duration::from_secs(9)) };
        let listening = Listening::bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
        let client = TcpStream::connect(listening.addr()).unwrap();
        let (mut accepted, peer) = listening.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(accepted.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(61));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(9)));
    }
}
