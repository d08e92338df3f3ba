//! Sockets that somebody else holds as well, systemd above all. Closed here they stay open there: who connects waits for an
//! answer that nobody gives.

use std::net::{SocketAddr, TcpListener};

use tracing::warn;

/// Where they listen; those of one place together.
#[derive(Debug, Default)]
pub(in crate::app) struct Lent(Vec<Vec<SocketAddr>>);

impl Lent {
    /// The sockets that were handed over for each place.
    pub(in crate::app) fn of<'s>(places: impl IntoIterator<Item = &'s [TcpListener]>) -> Self {
        let addrs =
            |sockets: &[TcpListener]| sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        Self(places.into_iter().filter(|sockets| !sockets.is_empty()).map(addrs).collect())
    }

    /// Whether the sockets of whoever listens here, where the first of them is, are such.
    pub(super) fn has(&self, addr: SocketAddr) -> bool {
        self.0.iter().any(|place| place.first() == Some(&addr))
    }

    /// Says once of each that nobody here listens there any more; `open` is where somebody does.
    pub(super) fn leave(&mut self, open: &[SocketAddr]) {
        for addr in self.take_left(open) {
            let hint = "whoever handed this socket over, such as systemd, keeps it open, and who connects there waits in \
                        vain: change the socket unit too, and restart both";
            warn!(%addr, hint, "socket_left_open");
        }
    }

    fn take_left(&mut self, open: &[SocketAddr]) -> Vec<SocketAddr> {
        let is_left = |place: &mut Vec<SocketAddr>| place.first().is_some_and(|addr| !open.contains(addr));
        self.0.extract_if(.., is_left).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_once() {
        let [a, b, c]: [SocketAddr; 3] = [1, 2, 3].map(|port| ([127, 0, 0, 1], port).into());
        let mut lent = Lent(vec![vec![a, b], vec![c]]);
        assert!(lent.has(a) && lent.has(c) && !lent.has(b));
        assert_eq!(lent.take_left(&[c, a]), []);
        assert_eq!(lent.take_left(&[c]), [a, b], "all of a place");
        assert_eq!(lent.take_left(&[c]), []);
        assert!(!lent.has(a) && lent.has(c));
    }
}
