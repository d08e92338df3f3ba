//! What every connection gets, on both sides.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Options of one TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Probes on a silent connection: idle time, interval, count.
    pub keepalive: Option<(Duration, Duration, u32)>,
    /// Sent data that is not acknowledged, or not taken, for this long ends the connection. Linux only.
    pub user_timeout: Option<Duration>,
}

impl Options {
    /// Applies them to `socket`, and `TCP_NODELAY`: a balancer must not hold back small packets. What a listening socket
    /// has its connections inherit.
    ///
    /// # Errors
    /// What the system said, most often that the peer has already gone.
    pub fn apply(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(socket);
        socket.set_tcp_nodelay(true)?;
        if let Some((idle, interval, count)) = self.keepalive {
            let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(count);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        #[cfg(target_os = "linux")]
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
    }

    /// The same on a socket that may have had others: what is off here is switched off there.
    ///
    /// # Errors
    /// What the system said.
    pub fn replace(&self, socket: &impl AsFd) -> io::Result<()> {
        let known = SockRef::from(socket);
        known.set_keepalive(false)?;
        #[cfg(target_os = "linux")]
        known.set_tcp_user_timeout(None)?;
        self.apply(socket)
    }
}
