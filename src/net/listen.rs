//! Listening sockets, one for each thread that accepts, and the connections that come there.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

#[cfg(target_os = "linux")]
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpSocket;
use tracing::warn;

use crate::net::options::Options;

/// Connections that wait to be accepted; the system may cap it (`net.core.somaxconn`).
pub(super) const BACKLOG: u32 = 4096;

/// The sockets that listen on one address. The system spreads new connections over them.
#[derive(Debug)]
pub struct Sockets {
    all: Vec<TcpListener>,
    addr: SocketAddr,
}

impl Sockets {
    /// Binds `addr`, for `threads` that accept; port 0 lets the system choose. A restart may bind at once
    /// (`SO_REUSEADDR`). Connections inherit `options`. There may be fewer sockets than threads, but there is one.
    ///
    /// # Errors
    /// What the system said, most often that the address is in use or not this machine's.
    pub fn bind(addr: SocketAddr, options: Options, threads: usize) -> io::Result<Self> {
        let first = socket_for(addr)?;
        // The first one shares with nobody until it listens, so an address that another pgsplit listens on is in use.
        first.bind(addr)?;
        Self::join(listen(first, options)?, options, threads)
    }

    /// Like [`Sockets::bind`], where this process listens on an address that overlaps with it and is about to be closed.
    /// Another process of the same user that lets others share its address would not be noticed.
    ///
    /// # Errors
    /// What the system said.
    pub fn bind_beside(addr: SocketAddr, options: Options, threads: usize) -> io::Result<Self> {
        let first = socket_for(addr)?;
        share(&first)?;
        first.bind(addr)?;
        Self::join(listen(first, options)?, options, threads)
    }

    /// This socket, and others beside it.
    fn join(first: TcpListener, options: Options, threads: usize) -> io::Result<Self> {
        let addr = first.local_addr()?;
        // From now on: a reload may have to listen beside it.
        share(&first)?;
        let mut all = vec![first];
        // Elsewhere the system does not spread connections over sockets that share an address.
        if cfg!(target_os = "linux")
            && 1 < threads
            && let Err(error) = join(&mut all, addr, options, threads)
        {
            warn!(%addr, %error, sockets = all.len(), "listening_with_fewer_sockets");
        }
        Ok(Self { all, addr })
    }

    /// Takes sockets that listen already and were handed over, instead of binding; there is at least one. Where they came
    /// from they stay open when these are closed, so no others are bound beside them: what waits to be accepted there
    /// would be lost with us. Connections inherit `options`.
    ///
    /// # Errors
    /// What the system said.
    pub fn inherited(all: Vec<TcpListener>, options: Options) -> io::Result<Self> {
        let first = all.first().ok_or(io::ErrorKind::NotFound)?;
        let addr = first.local_addr()?;
        for socket in &all {
            socket.set_nonblocking(true)?;
            options.apply(socket)?;
        }
        Ok(Self { all, addr })
    }

    /// The address with the port the system chose.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.all.len()
    }

    /// One for each thread, as many as there are.
    pub fn into_each(self) -> impl Iterator<Item = TcpListener> {
        self.all.into_iter()
    }
}

/// Lets more sockets listen where those in `all` do, until there are so many.
fn join(all: &mut Vec<TcpListener>, addr: SocketAddr, options: Options, threads: usize) -> io::Result<()> {
    while all.len() < threads {
        let socket = socket_for(addr)?;
        share(&socket)?;
        socket.bind(addr)?;
        all.push(listen(socket, options)?);
    }
    Ok(())
}

/// Lets other sockets of this user be bound to the same address, when they say so too.
fn share(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_reuse_port(true)
}

fn socket_for(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    Ok(socket)
}

fn listen(socket: TcpSocket, options: Options) -> io::Result<TcpListener> {
    options.apply(&socket)?;
    socket.listen(BACKLOG)?.into_std()
}

/// A listening socket of this thread.
#[derive(Debug)]
pub struct Listening {
    socket: AsyncFd<TcpListener>,
    /// Goes after the socket, so that who finds it gone knows that the socket is closed.
    open: Arc<()>,
}

impl Listening {
    /// Lets the runtime that this is called in wait for connections.
    ///
    /// # Errors
    /// The system has no room for one more.
    pub fn new(socket: TcpListener) -> io::Result<Self> {
        #[expect(deprecated, reason = "its successor is unsafe, for types that do not keep their descriptor")]
        let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
        Ok(Self { socket, open: Arc::default() })
    }

    /// What is there for as long as the socket is open.
    pub(super) fn is_open(&self) -> Weak<()> {
        Arc::downgrade(&self.open)
    }

    /// A copy of its socket.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn copy(&self) -> io::Result<OwnedFd> {
        self.socket.get_ref().as_fd().try_clone_to_owned()
    }

    /// Lets connections that come from now on inherit these, and no other.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_options(&self, options: Options) -> io::Result<()> {
        options.replace(self.socket.get_ref())
    }

    /// The next connection, non-blocking and registered with no runtime, so that it can be handed to any worker. Cancel
    /// safe.
    ///
    /// # Errors
    /// What the system said; see [`is_peer_gone`] for those that are no trouble.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        // Not the runtime's own listener: that would register the connection, with this thread's runtime.
        self.socket.async_io(Interest::READABLE, accept).await
    }
}

#[cfg(target_os = "linux")]
fn accept(socket: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (stream, peer) = acceptfrom_with(socket, flags)?;
    let peer = peer.map(SocketAddr::try_from).transpose()?;
    Ok((stream.into(), peer.ok_or(io::ErrorKind::NotConnected)?))
}

/// Elsewhere that takes two steps.
#[cfg(not(target_os = "linux"))]
fn accept(socket: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = socket.accept()?;
    stream.set_nonblocking(true)?;
    Ok((stream, peer))
}

impl Listening {
    /// A connection that is there already; `None`: there is none.
    pub(super) fn accept_at_once(&self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        let accepted = accept(self.socket.get_ref());
        (!accepted.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)).then_some(accepted)
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
    use std::time::Duration;
    use tokio::time::timeout;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[tokio::test]
    async fn what_is_accepted_is_non_blocking_and_has_the_options_of_the_listener() {
        let keepalive = Some((Duration::from_secs(61), Duration::from_secs(7), 4));
        let options = Options { keepalive, user_timeout: Some(Duration::from_secs(9)) };
        let sockets = Sockets::bind(any_port(), options, 1).unwrap();
        let client = TcpStream::connect(sockets.addr()).unwrap();
        let listening = Listening::new(sockets.into_each().next().unwrap()).unwrap();
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

    #[tokio::test]
    async fn what_was_handed_over_is_accepted_from_as_from_ones_own() {
        let socket = TcpListener::bind(any_port()).unwrap();
        let kept = socket.try_clone().unwrap();
        let sockets = Sockets::inherited(vec![socket], Options::default()).unwrap();
        assert_eq!((sockets.addr(), sockets.count()), (kept.local_addr().unwrap(), 1));
        let client = TcpStream::connect(sockets.addr()).unwrap();
        let listening = Listening::new(sockets.into_each().next().unwrap()).unwrap();
        let (accepted, peer) = listening.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(SockRef::from(&accepted).tcp_nodelay().unwrap());
        // Without us the address stays open.
        drop(listening);
        assert!(TcpStream::connect(kept.local_addr().unwrap()).is_ok());
        assert!(Sockets::inherited(Vec::new(), Options::default()).is_err());
    }

    #[tokio::test]
    async fn an_address_that_threads_share_is_in_use_for_another_pgsplit() {
        let sockets = Sockets::bind(any_port(), Options::default(), 3).unwrap();
        let again = Sockets::bind(sockets.addr(), Options::default(), 3);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_wider_address_can_be_listened_on_beside_the_one_that_goes() {
        for threads in [1, 3] {
            let old = Sockets::bind(any_port(), Options::default(), threads).unwrap();
            let wider = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), old.addr().port());
            assert!(Sockets::bind(wider, Options::default(), threads).is_err());
            let new = Sockets::bind_beside(wider, Options::default(), threads).unwrap();
            drop(old);
            let client = TcpStream::connect(("127.0.0.2", new.addr().port()));
            assert!(client.is_ok());
        }
    }

    #[tokio::test]
    async fn options_of_a_socket_that_listens_can_be_changed_and_taken_back() {
        let keepalive = Some((Duration::from_secs(61), Duration::from_secs(7), 4));
        let options = Options { keepalive, user_timeout: Some(Duration::from_secs(9)) };
        let sockets = Sockets::bind(any_port(), options, 1).unwrap();
        let addr = sockets.addr();
        let listening = Listening::new(sockets.into_each().next().unwrap()).unwrap();
        for options in [Options::default(), options] {
            listening.set_options(options).unwrap();
            let _client = TcpStream::connect(addr).unwrap();
            let (accepted, _) = listening.accept().await.unwrap();
            let socket = SockRef::from(&accepted);
            assert_eq!(socket.keepalive().unwrap(), options.keepalive.is_some());
            assert!(socket.tcp_nodelay().unwrap());
            #[cfg(target_os = "linux")]
            assert_eq!(socket.tcp_user_timeout().unwrap(), options.user_timeout);
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn connections_are_spread_over_the_sockets_and_none_is_lost() {
        let sockets = Sockets::bind(any_port(), Options::default(), 3).unwrap();
        let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(sockets.addr()).unwrap()).collect();
        let mut accepted = Vec::new();
        for socket in sockets.into_each() {
            let listening = Listening::new(socket).unwrap();
            let mut here = 0;
            while timeout(Duration::ZERO, listening.accept()).await.is_ok() {
                here += 1;
            }
            accepted.push(here);
        }
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
        assert!(accepted.len() == 3 && accepted.iter().all(|&here| 0 < here), "{accepted:?}");
    }
}
