//! What runs, handed over to another process, and taken up from one.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{ADMIN, AdminServer, Running};
use crate::admin::upgrade::Upgrades;
use crate::app::systemd::Systemd;
use crate::app::upgrade::heir::Quarters;
use crate::front;
use crate::net::crew::Crew;
use crate::net::gate::{Gate, Word};
use crate::net::handed::Spot;

impl Running {
    /// The gate of all who listen.
    pub(in crate::app) const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What this process goes on with when it has another one's place.
    pub(in crate::app) fn quarters(
        &self,
        systemd: &Systemd,
        upgrades: &Upgrades,
        is_to_stop: &CancellationToken,
    ) -> Quarters {
        self.set_options();
        Quarters {
            crew: self.sessions.clone(),
            desks: Arc::clone(&self.desks),
            shared: Arc::clone(&self.shared),
            fronts: Arc::clone(&self.fronts),
            gate: self.gate.clone(),
            local: self.local_server.as_ref().map(|server| Arc::clone(&server.socket)),
            systemd: systemd.clone(),
            upgrades: upgrades.clone(),
            turn: upgrades.turn().ok(),
            is_to_stop: is_to_stop.clone(),
        }
    }

    /// Copies of all sockets that listen on an address, for another process.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub(in crate::app) fn sockets(&self) -> io::Result<Vec<(Spot, Vec<OwnedFd>)>> {
        let spot =
            |name: &str, bind, addr| Spot { name: name.to_owned(), bind, is_lent: self.lent.has(addr) };
        let listeners = self.listener_doors.iter();
        let listeners =
            listeners.map(|door| (spot(&door.name, door.bind, door.open.addr()), door.open.copies()));
        let fronts = self.front_doors.iter();
        let fronts = fronts.map(|door| (spot(&door.name, door.bind, door.open.addr()), door.open.copies()));
        let copy = |server: &AdminServer| server.listening.copy().map(|socket| vec![socket]);
        let admin = self.admin_server.iter();
        let admin = admin.map(|server| (spot(ADMIN, server.bind, server.addr), copy(server)));
        listeners.chain(fronts).chain(admin).map(|(spot, sockets)| Ok((spot, sockets?))).collect()
    }

    /// The same of the admin server's Unix socket, if it is there.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub(in crate::app) fn local_socket(&self) -> io::Result<Option<(PathBuf, OwnedFd)>> {
        let Some(server) = &self.local_server else { return Ok(None) };
        Ok(server.socket.copy()?.map(|socket| (server.path.clone(), socket)))
    }

    /// Sets the options of all sockets that listen, as another process may have set others.
    pub(in crate::app) fn set_options(&self) {
        let listeners = self.listener_doors.iter();
        let listeners = listeners.map(|door| door.open.set_options(door.door.listener.load().options));
        let fronts = self.front_doors.iter();
        let fronts = fronts.map(|door| door.open.set_options(front::connection::OPTIONS));
        for error in listeners.chain(fronts).filter_map(Result::err) {
            warn!(%error, "socket_options_not_set");
        }
    }

    /// Connections that are served here now, of all kinds but those of the admin server.
    pub(in crate::app) fn connections(&self) -> usize {
        self.sessions.connections() + self.http.as_ref().map_or(0, Crew::connections)
    }

    /// Another process has all sockets, and they are closed here; HTTP connections end when what they are at is done, and so
    /// do those of the admin server: who follows is to follow the other process.
    pub(in crate::app) fn leave(&mut self) {
        self.gate.set(Word::Left);
        self.listener_doors.clear();
        self.front_doors.clear();
        if let Some(server) = self.admin_server.take() {
            server.end.cancel();
        }
        if let Some(server) = self.local_server.take() {
            server.socket.set_ours(false);
            server.end.cancel();
        }
        self.fronts.leave();
    }
}
