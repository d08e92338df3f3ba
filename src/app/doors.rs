//! Which door a listener or front of another configuration goes on with, and which must be opened. Pure but for the binding.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::StartError;
use crate::net::crew::{Crew, OpenDoor, Ready};
use crate::net::listen::Sockets;
use crate::net::options::Options;

/// A door, and what it was opened for.
pub(super) struct Opened<D> {
    /// The name of whose connections come here.
    pub name: String,
    /// The address as the file has it: its port may be 0.
    pub bind: SocketAddr,
    pub door: Arc<D>,
    pub open: OpenDoor,
}

/// The door of a listener or front of the configuration that is to come.
pub(super) enum Entrance {
    /// The open one in this place of the list.
    Kept(usize),
    /// A new one, which is ready.
    New(Ready),
}

/// What is to be listened on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'c> {
    pub name: &'c str,
    pub bind: SocketAddr,
    pub options: Options,
}

/// For each of `wanted` the place in `open` of the door it goes on with: its own, or one with the same address that
/// belonged to another name.
pub(super) fn keep(open: &[(&str, SocketAddr)], wanted: &[Wanted<'_>]) -> Vec<Option<usize>> {
    let own = |wanted: &Wanted<'_>| open.iter().position(|known| *known == (wanted.name, wanted.bind));
    let mut kept: Vec<Option<usize>> = wanted.iter().map(own).collect();
    for (at, wanted) in wanted.iter().enumerate() {
        // What the system has chosen for one is no address of another.
        if kept.get(at).is_none_or(Option::is_some) || wanted.bind.port() == 0 {
            continue;
        }
        let free = |(place, (_, bind)): (usize, &(&str, SocketAddr))| {
            (*bind == wanted.bind && !kept.contains(&Some(place))).then_some(place)
        };
        let found = open.iter().enumerate().find_map(free);
        if let Some(slot) = kept.get_mut(at) {
            *slot = found;
        }
    }
    kept
}

/// Binds what must be new, or takes the sockets that were handed over for it. `leaving` are addresses that this process
/// listens on and will not any more.
///
/// # Errors
/// The first address that cannot be bound; nothing is listened on then that was not before.
pub(super) fn bind(
    what: &str,
    wanted: &Wanted<'_>,
    threads: usize,
    leaving: &[SocketAddr],
    handed: Vec<TcpListener>,
) -> Result<Sockets, StartError> {
    let Wanted { name, bind: addr, options } = *wanted;
    let opened = if handed.is_empty() {
        Sockets::bind(addr, options, threads)
    } else {
        Sockets::inherited(handed, options)
    };
    let bound = match opened {
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse && leaving.iter().any(|own| overlap(*own, addr)) =>
        {
            Sockets::bind_beside(addr, options, threads)
        }
        bound => bound,
    };
    let what = if name.is_empty() { what.to_owned() } else { format!("{what} \"{name}\"") };
    bound.map_err(|source| StartError::Bind { addr, what, source })
}

/// Lets `crew` wait at these sockets.
pub(super) fn ready<To: Send + 'static>(crew: &Crew<To>, sockets: Sockets) -> Result<Ready, StartError> {
    crew.ready(sockets).map_err(StartError::Worker)
}

/// Whether whoever listens on one is in the way of the other.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    // `[::]` takes what comes to addresses of IPv4 as well, unless the system is set otherwise.
    let covers =
        |all: SocketAddr, one: SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    a.port() == b.port() && (a.ip() == b.ip() || covers(a, b) || covers(b, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[track_caller]
    fn check(open: &[(&str, &str)], wanted: &[(&str, &str)], expected: &[Option<usize>]) {
        let open: Vec<_> = open.iter().map(|(name, bind)| (*name, addr(bind))).collect();
        let options = Options::default();
        let wanted: Vec<_> =
            wanted.iter().map(|(name, bind)| Wanted { name, bind: addr(bind), options }).collect();
        assert_eq!(keep(&open, &wanted), expected);
    }

    const RW: (&str, &str) = ("rw", "127.0.0.1:6432");
    const RO: (&str, &str) = ("ro", "127.0.0.1:6433");

    #[test]
    fn who_listens_everywhere_is_in_the_way_of_all() {
        let overlap = |a, b| overlap(addr(a), addr(b));
        assert!(overlap("127.0.0.1:1", "127.0.0.1:1") && !overlap("127.0.0.1:1", "127.0.0.2:1"));
        assert!(overlap("0.0.0.0:1", "127.0.0.1:1") && !overlap("0.0.0.0:1", "127.0.0.1:2"));
        assert!(
            overlap("127.0.0.1:1", "[::]:1")
                && overlap("[::]:1", "0.0.0.0:1")
                && overlap("[::1]:1", "[::]:1")
        );
        assert!(!overlap("0.0.0.0:1", "[::1]:1"));
    }

    #[test]
    fn who_stays_keeps_its_door_wherever_it_stands() {
        check(&[RW, RO], &[RO, RW], &[Some(1), Some(0)]);
        check(&[RW, RO], &[RO], &[Some(1)]);
        check(&[], &[RW], &[None]);
    }

    #[test]
    fn an_address_goes_over_to_another_name() {
        check(&[RW, RO], &[("main", RW.1), RO], &[Some(0), Some(1)]);
        check(&[RW, RO], &[("rw", RO.1), ("ro", RW.1)], &[Some(1), Some(0)]);
        check(&[RW], &[("rw", RO.1)], &[None]);
    }

    #[test]
    fn a_port_that_the_system_chose_belongs_to_its_name() {
        let (a, b) = (("a", "127.0.0.1:0"), ("b", "127.0.0.1:0"));
        check(&[a, b], &[b, a], &[Some(1), Some(0)]);
        check(&[a], &[b], &[None]);
    }

    #[test]
    fn addresses_overlap_where_one_stands_for_all() {
        for (a, b, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("0.0.0.0:1", "127.0.0.1:2", false),
            ("0.0.0.0:1", "[::1]:1", false),
        ] {
            assert_eq!(
                (overlap(addr(a), addr(b)), overlap(addr(b), addr(a))),
                (expected, expected),
                "{a} {b}"
            );
        }
    }
}
