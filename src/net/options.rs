//! What every connection gets, on both sides.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Options of one TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Probes on a silent connection: idle time, interval, count.
    pub keepalive: Option<(Duration, Duration, u32)>,
    /// Sent data that is not acknowledged, or not taken, for this long ends the connection. Linux only.
    pub user_timeout: Option<Duration>,
}

impl Options {
    /// Applies them to `stream`, and `TCP_NODELAY`: a balancer must not hold back small packets.
    ///
    /// # Errors
    /// What the system said, most often that the peer has already gone.
    pub fn apply(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        if let Some((idle, interval, count)) = self.keepalive {
            let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(count);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(self.user_timeout)?;
        Ok(())
    }
}
