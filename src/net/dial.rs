//! Reaching a node: name to addresses, addresses to a connection, all within one deadline.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use crate::base::text::escaped;

/// The addresses of `host`. Cancel safe.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] at the deadline, else what the resolver said; never an empty list.
pub async fn resolve(host: &str, port: u16, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    let addrs = timeout_at(deadline, lookup_host((host, port))).await.map_err(|_| timed_out("resolve"))??;
    let addrs: Vec<_> = addrs.collect();
    if addrs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addrs)
}

/// A connection to the first of `addrs` that takes one, and which that was. Cancel safe: a connection half made
/// is closed.
///
/// # Errors
/// What the last address answered that was asked at all; [`io::ErrorKind::TimedOut`] when it did not.
pub async fn connect(addrs: &[SocketAddr], deadline: Instant) -> io::Result<(TcpStream, SocketAddr)> {
    let mut last: Option<io::Error> = None;
    for (at, &addr) in addrs.iter().enumerate() {
        // Each address gets its share of the time: one that swallows everything must not use up the others'.
        let left = u32::try_from(addrs.len() - at).unwrap_or(u32::MAX);
        let now = Instant::now();
        let share = now + deadline.saturating_duration_since(now) / left;
        let error = match timeout_at(share, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) if addr.ip().is_loopback() && is_self_connected(&stream, addr) => {
                io::ErrorKind::ConnectionRefused.into()
            }
            Ok(Ok(stream)) => return Ok((stream, addr)),
            Ok(Err(error)) => error,
            Err(_) => timed_out("connect"),
        };
        // What an address said is worth more than that this machine could not ask another: an address of a family
        // that is switched off here, for one.
        if last.is_none() || !is_own_fault(&error) {
            last = Some(error);
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address is known")))
}

/// Whether it was this machine that failed: out of descriptors, memory or ports. Says nothing of the peer.
#[must_use]
pub fn is_own_fault(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const OWN: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| OWN.contains(&errno))
}

/// Whether what this machine lacked was a descriptor.
#[must_use]
pub fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// The error in a few words for a person: without the operating system's number.
#[must_use]
pub fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "host unreachable".to_owned(),
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            escaped(text.as_bytes(), 200)
        }
    }
}

/// A loopback connect to a port nobody listens on can, by TCP's simultaneous open, reach itself when the
/// system picks that very port as the source.
fn is_self_connected(stream: &TcpStream, peer: SocketAddr) -> bool {
    stream.local_addr().is_ok_and(|local| local == peer)
}

fn timed_out(step: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer to {step} in time"))
}
