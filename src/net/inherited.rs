//! Listening sockets that were bound before this process began, and handed over to it: by systemd, whose socket units
//! keep an address open while pgsplit restarts, or by whoever does the same (`LISTEN_FDS`, `sd_listen_fds(3)`).

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::SockRef;

use crate::base::text::{NAME_MAX, escaped};

/// Sockets that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Handed>,
}

/// One of them.
#[derive(Debug)]
struct Handed {
    /// `FileDescriptorName=` of its unit, else the name of the unit.
    name: String,
    addr: SocketAddr,
    socket: TcpListener,
}

/// Where somebody is to listen.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// A name that a socket may have been given for it.
    pub name: &'a str,
    /// The address that it asks for.
    pub bind: SocketAddr,
}

/// A socket that cannot be used. Trying again does not help.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Not a socket, not TCP, or connected already.
    #[error(
        "descriptor {number} (\"{name}\"), which was handed over, is no TCP socket that listens: a socket unit for pgsplit has \
         ListenStream= with a port, or an address and a port, and no Accept=yes"
    )]
    Kind {
        /// The descriptor.
        number: usize,
        /// What it is called.
        name: String,
    },
    /// Nobody is to listen there.
    #[error(
        "the socket \"{name}\" on {addr} was handed over, and nothing here has that name or address; there are {places}. Give \
         its unit FileDescriptorName= with one of these names, or remove it"
    )]
    Unknown {
        /// What it is called.
        name: String,
        /// Where it listens.
        addr: SocketAddr,
        /// The names and addresses that are known.
        places: String,
    },
    /// The system did not say where it listens, or did not let it be set up.
    #[error("the socket \"{name}\", which was handed over, cannot be used")]
    System {
        /// What it is called.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Inherited {
    /// What the environment tells of; nothing, where it tells of none or speaks to another process. To be called before
    /// there is a second thread: it takes the variables away, so that no child believes that they are meant for it.
    ///
    /// # Errors
    /// Something is no TCP socket that listens.
    pub fn of_process() -> Result<Self, Unfit> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut handed = ListenFd::from_env();
        let mut names = names.split(':');
        let sockets = (0..handed.len()).map(|index| {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
            let name = escaped(name.as_bytes(), NAME_MAX);
            let listens = |socket: &TcpListener| SockRef::from(socket).is_listener().unwrap_or(false);
            match handed.take_tcp_listener(index) {
                Ok(Some(socket)) if listens(&socket) => Handed::new(name, socket),
                // The first descriptor after the three that every process has.
                _ => Err(Unfit::Kind { number: index + 3, name }),
            }
        });
        Ok(Self { sockets: sockets.collect::<Result<_, _>>()? })
    }

    /// The sockets of each place, in the order of `places`: those that have its name, and of the others, whose name means
    /// nothing here, those that have its address. A place without a socket is to be bound.
    ///
    /// # Errors
    /// A socket fits none of them.
    pub fn share_out(self, places: &[Place<'_>]) -> Result<Vec<Vec<TcpListener>>, Unfit> {
        let mut shares: Vec<Vec<TcpListener>> = places.iter().map(|_| Vec::new()).collect();
        for Handed { name, addr, socket } in self.sockets {
            let named = || places.iter().position(|place| place.name == name);
            let share = named().or_else(|| places.iter().position(|place| is_same(place.bind, addr)));
            match share.and_then(|index| shares.get_mut(index)) {
                Some(share) => share.push(socket),
                None => return Err(Unfit::Unknown { name, addr, places: in_words(places) }),
            }
        }
        Ok(shares)
    }
}

impl Handed {
    fn new(name: String, socket: TcpListener) -> Result<Self, Unfit> {
        match socket.local_addr() {
            Ok(addr) => Ok(Self { name, addr, socket }),
            Err(source) => Err(Unfit::System { name, source }),
        }
    }
}

/// `ListenStream=6432` is every address of both kinds, and `*:6432` in our file every one of IPv4.
fn is_same(bind: SocketAddr, addr: SocketAddr) -> bool {
    bind == addr || (bind.port() == addr.port() && bind.ip().is_unspecified() && addr.ip().is_unspecified())
}

fn in_words(places: &[Place<'_>]) -> String {
    let words = |place: &Place<'_>| format!("\"{}\" ({})", place.name, place.bind);
    let words: Vec<_> = places.iter().map(words).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(name: &str, bind: &str) -> Handed {
        Handed::new(name.to_owned(), TcpListener::bind(bind).unwrap()).unwrap()
    }

    /// Where each place listens then; the places are `rw`, `ro` and `admin` on the ports of the first two and on 1.
    fn share_out(
        sockets: Vec<Handed>,
        rw: SocketAddr,
        ro: SocketAddr,
    ) -> Result<Vec<Vec<SocketAddr>>, Unfit> {
        let admin = "127.0.0.1:1".parse().unwrap();
        let places = [("rw", rw), ("ro", ro), ("admin", admin)].map(|(name, bind)| Place { name, bind });
        let shares = Inherited { sockets }.share_out(&places)?;
        let addrs =
            |share: Vec<TcpListener>| share.iter().map(|socket| socket.local_addr().unwrap()).collect();
        Ok(shares.into_iter().map(addrs).collect())
    }

    #[test]
    fn a_socket_goes_where_its_name_says_and_else_where_its_address_does() {
        let sockets = [
            handed("ro", "127.0.0.1:0"),
            handed("pgsplit.socket", "127.0.0.1:0"),
            handed("ro", "127.0.0.1:0"),
        ];
        let [first, second, third] = [0, 1, 2].map(|index: usize| sockets[index].addr);
        // `ro` asks for the address of the second; a name comes first.
        let shares = share_out(sockets.into(), first, second).unwrap();
        assert_eq!(shares, [vec![], vec![first, second, third], vec![]]);
        assert_eq!(share_out(Vec::new(), first, second).unwrap(), [vec![], vec![], vec![]]);
    }

    #[test]
    fn every_address_of_both_kinds_is_every_address() {
        let socket = handed("pgsplit.socket", "0.0.0.0:0");
        let addr = socket.addr;
        let all_of_v6 = SocketAddr::new("::".parse().unwrap(), addr.port());
        let other: SocketAddr = "127.0.0.1:2".parse().unwrap();
        assert_eq!(share_out(vec![socket], other, all_of_v6).unwrap(), [vec![], vec![addr], vec![]]);
        let one_of_them = SocketAddr::new("127.0.0.1".parse().unwrap(), addr.port());
        assert!(!is_same(one_of_them, addr));
    }

    #[test]
    fn a_socket_for_nobody_is_a_fault_that_says_what_there_is() {
        let socket = handed("web", "127.0.0.1:0");
        let (addr, bind) = (socket.addr, "127.0.0.1:6432".parse().unwrap());
        let fault = share_out(vec![socket], bind, bind).unwrap_err().to_string();
        for part in
            [&format!("\"web\" on {addr}"), "\"rw\" (127.0.0.1:6432)", "\"admin\"", "FileDescriptorName="]
        {
            assert!(fault.contains(part), "{part} in {fault}");
        }
    }
}
