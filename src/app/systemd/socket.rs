//! Where systemd listens. A word that it does not take is lost, and pgsplit waits for it no longer than a moment: it may be
//! systemd that hangs.

use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::net::UnixDatagram;
use tokio::time::timeout;
use tracing::warn;

/// How long it may take to take a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// `NOTIFY_SOCKET`.
#[derive(Debug)]
pub(super) struct Socket {
    addr: SocketAddr,
    /// Whether the log has said that it does not listen.
    has_failed: AtomicBool,
}

impl Socket {
    /// The one that the environment names.
    pub(super) fn of_process() -> Option<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        match address(&name) {
            Ok(addr) => Some(Self::at(addr)),
            Err(error) => {
                warn!(socket = ?name, %error, "systemd_not_told");
                None
            }
        }
    }

    pub(super) fn at(addr: SocketAddr) -> Self {
        Self { addr, has_failed: AtomicBool::new(false) }
    }

    /// Says these things in one message. Not cancel safe: it may have been said.
    pub(super) async fn tell(&self, states: &[NotifyState<'_>]) {
        let mut message = String::new();
        for state in states {
            let _ = writeln!(message, "{state}");
        }
        let sent = timeout(PATIENCE, self.send(message.as_bytes())).await;
        if let Err(error) = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            warn!(socket = ?self.addr, %error, "systemd_not_told");
        }
    }

    #[cfg(test)]
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Each time anew: whoever listens may have been replaced.
    async fn send(&self, message: &[u8]) -> io::Result<()> {
        let socket = StdDatagram::unbound()?;
        socket.connect_addr(&self.addr)?;
        socket.set_nonblocking(true)?;
        UnixDatagram::from_std(socket)?.send(message).await.map(drop)
    }
}

/// A path, or after an `@` a name that is in no file system.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
    }
}
