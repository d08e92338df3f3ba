//! Listening sockets that the process whose place this one takes has handed over, each for one place.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::net::inherited::Place;

/// Sockets that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Handed {
    sockets: Vec<(Spot, Vec<TcpListener>)>,
    /// The admin server's Unix socket.
    local: Option<(PathBuf, UnixListener)>,
}

/// Who listened there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spot {
    /// Its name in the file.
    pub name: String,
    /// The address that the file has; its port may be 0.
    pub bind: SocketAddr,
    /// Whether its sockets are somebody else's as well, such as systemd's. A process that does not know says nothing.
    #[serde(default)]
    pub is_lent: bool,
}

impl Handed {
    /// More sockets of a place.
    pub fn add(&mut self, spot: Spot, sockets: impl IntoIterator<Item = TcpListener>) {
        match self.sockets.iter_mut().find(|(known, _)| *known == spot) {
            Some((_, known)) => known.extend(sockets),
            None => self.sockets.push((spot, sockets.into_iter().collect())),
        }
    }

    /// The admin server's Unix socket, whose file this is.
    pub fn add_local(&mut self, path: PathBuf, socket: UnixListener) {
        self.local = Some((path, socket));
    }

    /// That socket, if it is the one with this file.
    pub fn take_local(&mut self, path: Option<&Path>) -> Option<UnixListener> {
        self.local.take_if(|(known, _)| Some(known.as_path()) == path).map(|(_, socket)| socket)
    }

    /// The sockets of each place that are somebody else's as well.
    pub fn lent(&self) -> impl Iterator<Item = &[TcpListener]> {
        self.sockets.iter().filter(|(spot, _)| spot.is_lent).map(|(_, sockets)| sockets.as_slice())
    }

    /// The sockets of each place, in the order of `places`: those of who had its name and wanted its address, else, unless
    /// the system is to choose the port, of whoever wanted it. A place without a socket is to be bound; a socket without a
    /// place is closed.
    #[must_use]
    pub fn share_out(mut self, places: &[Place<'_>]) -> Vec<Vec<TcpListener>> {
        let own = |place: &Place<'_>, spot: &Spot| spot.name == place.name && spot.bind == place.bind;
        let same = |place: &Place<'_>, spot: &Spot| spot.bind == place.bind && place.bind.port() != 0;
        let mut shares: Vec<_> = places.iter().map(|place| self.take(|spot| own(place, spot))).collect();
        for (share, place) in shares.iter_mut().zip(places) {
            if share.is_empty() {
                *share = self.take(|spot| same(place, spot));
            }
        }
        shares
    }

    fn take(&mut self, fits: impl Fn(&Spot) -> bool) -> Vec<TcpListener> {
        let at = self.sockets.iter().position(|(spot, _)| fits(spot));
        at.map(|at| self.sockets.swap_remove(at).1).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_go_to_who_has_the_name_or_else_the_address() {
        let socket = || TcpListener::bind("127.0.0.1:0").unwrap();
        let spot = |name: &str, bind: &str| Spot {
            name: name.to_owned(),
            bind: bind.parse().unwrap(),
            is_lent: name == "ro",
        };
        let mut handed = Handed::default();
        handed.add(spot("rw", "127.0.0.1:1"), [socket()]);
        handed.add(spot("ro", "127.0.0.1:2"), [socket(), socket()]);
        handed.add(spot("ro", "127.0.0.1:2"), [socket()]);
        handed.add(spot("any", "127.0.0.1:0"), [socket()]);
        handed.add(spot("gone", "127.0.0.1:9"), [socket()]);
        assert_eq!(handed.lent().map(<[_]>::len).collect::<Vec<_>>(), [3]);
        let places = [
            ("other", "127.0.0.1:1"),
            ("rw", "127.0.0.1:3"),
            ("ro", "127.0.0.1:2"),
            ("new", "127.0.0.1:0"),
            ("any", "127.0.0.1:0"),
        ];
        let places = places.map(|(name, bind)| Place { name, bind: bind.parse().unwrap() });
        let shares: Vec<_> = handed.share_out(&places).iter().map(Vec::len).collect();
        assert_eq!(shares, [1, 0, 3, 0, 1], "a port that the system chose belongs to its name");
    }

    #[test]
    fn a_socket_in_the_file_system_goes_to_who_wants_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let mut handed = Handed::default();
        handed.add_local(path.clone(), UnixListener::bind(&path).unwrap());
        assert!(handed.take_local(None).is_none() && handed.take_local(Some(dir.path())).is_none());
        assert!(handed.take_local(Some(&path)).is_some() && handed.take_local(Some(&path)).is_none());
    }
}
