//! What runs, and how it comes to run by another configuration. The start is the first of these changes.
//!
//! A change has two parts. [`Running::prepare`] does all that may fail, which is to listen where nobody listens yet; it can be
//! dropped, and nothing has changed. [`Running::go_by`] cannot fail. What is the same in both configurations is not touched:
//! its sockets, counters and sessions do not notice.

mod hand_over;
mod lent;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::doors::{Entrance, Opened, Wanted, bind, keep, ready};
use super::{StartError, clusters, fronts, groups_seen, listeners};
use crate::admin::{Admin, Way};
use crate::config::http::LogRequests;
use crate::config::{AdminSocket, Config};
use crate::front;
use crate::front::accept::FrontDoor;
use crate::front::connection::converse;
use crate::front::desk as http_desk;
use crate::front::shared::{Front, Fronts};
use crate::net::crew::{Closing, Crew, OpenDoor};
use crate::net::discover::Refresh;
use crate::net::gate::Gate;
use crate::net::listen::{Listening, Sockets};
use crate::net::local::LocalSocket;
use crate::net::options::Options;
use crate::net::roll_call::RollCall;
use crate::session;
use crate::session::accept::ListenerDoor;
use crate::session::desk::Desk;
use crate::session::setup::Setup;
use crate::session::shared::{Listener, Shared};
pub(super) use lent::Lent;

/// A reader at the admin address who is gone, or takes nothing, is left after this.
const ADMIN_OPTIONS: Options = Options { keepalive: None, user_timeout: Some(Duration::from_secs(30)) };
/// What the place of the admin server's socket is called.
pub(super) const ADMIN: &str = "admin";
/// A new front takes the place of an old one when it has looked at its upstreams, or after so long.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// What everything is built on.
pub(super) struct Ground {
    pub tasks: TaskTracker,
    pub end: CancellationToken,
    pub threads: usize,
    /// Asks threads whether they still answer.
    pub roll: RollCall,
    /// How often names are looked up.
    pub refresh: Refresh,
    /// Which requests get a log line.
    pub requests: Arc<ArcSwap<LogRequests>>,
}

/// What runs.
pub(super) struct Running {
    shared: Arc<Shared>,
    fronts: Arc<Fronts>,
    ground: Ground,
    admin: Admin,
    sessions: Crew<Arc<Listener>>,
    /// Only there once there was a front: a client that keeps one busy takes nothing from the database sessions.
    http: Option<Crew<Arc<Front>>>,
    listener_doors: Vec<Opened<ListenerDoor>>,
    front_doors: Vec<Opened<FrontDoor>>,
    admin_server: Option<AdminServer>,
    local_server: Option<LocalServer>,
    /// Left by the change before, and by others before that: their sockets may be open for a moment yet.
    closing: Vec<Closing>,
    /// The same of the admin server.
    admin_left: Option<SocketAddr>,
    lent: Lent,
    workers: Vec<JoinHandle<()>>,
    gate: Gate,
    desks: Arc<[Arc<Desk>]>,
}

/// Where the admin server listens.
struct AdminServer {
    bind: SocketAddr,
    addr: SocketAddr,
    listening: Arc<Listening>,
    end: CancellationToken,
}

/// The same of its Unix socket.
struct LocalServer {
    path: PathBuf,
    socket: Arc<LocalSocket>,
    end: CancellationToken,
}

/// All that a change needs and that may not be to be had.
pub(super) struct Prepared {
    listeners: Vec<Entrance>,
    fronts: Vec<Entrance>,
    admin: AdminEntrance<(SocketAddr, Listening)>,
    local: AdminEntrance<LocalSocket>,
}

enum AdminEntrance<New> {
    Kept,
    New(New),
    Closed,
}

impl Running {
    /// Starts the threads. Nothing is listened on yet.
    pub(super) fn new(
        shared: &Arc<Shared>,
        fronts: &Arc<Fronts>,
        admin: Admin,
        gate: Gate,
        ground: Ground,
    ) -> io::Result<Self> {
        let serving = Arc::clone(shared);
        let desks: Arc<[_]> = (0..ground.threads).map(|index| Arc::new(Desk::new(index))).collect();
        let (sessions, workers) = Crew::start(
            "worker",
            ground.threads,
            shared.descriptors.clone(),
            &ground.roll,
            (gate.clone(), shared.stop.clone()),
            |index| {
                let desk = desks.get(index).map_or_else(|| Arc::new(Desk::new(index)), Arc::clone);
                let shared = Arc::clone(&serving);
                move |accepted| session::serve(Arc::clone(&shared), Arc::clone(&desk), accepted)
            },
        )?;
        Ok(Self {
            shared: Arc::clone(shared),
            fronts: Arc::clone(fronts),
            ground,
            admin,
            sessions,
            http: None,
            listener_doors: Vec::new(),
            front_doors: Vec::new(),
            admin_server: None,
            local_server: None,
            closing: Vec::new(),
            admin_left: None,
            lent: Lent::default(),
            workers,
            gate,
            desks,
        })
    }

    /// The threads, each of which ends when its last connection has; nothing can be changed any more.
    pub(super) fn into_workers(self) -> Vec<JoinHandle<()>> {
        self.workers
    }

    /// Listens wherever `config` wants it and nobody does yet, on sockets that were handed over where there are any: `handed`
    /// has those of the listeners, the fronts and the admin server, in this order, and `local` is the one of that in the file
    /// system. Nobody is accepted there before [`Running::go_by`].
    ///
    /// # Errors
    /// An address that cannot be bound, or a thread that cannot be started. Then nothing is listened on that was not before.
    pub(super) fn prepare(
        &mut self,
        config: &Config,
        handed: Vec<Vec<TcpListener>>,
        handed_local: Option<UnixListener>,
    ) -> Result<Prepared, StartError> {
        let listeners: Vec<_> = config
            .listeners
            .iter()
            .map(|listener| Wanted {
                name: &listener.name,
                bind: listener.bind,
                options: listeners::options(listeners::cluster_of(config, listener)),
            })
            .collect();
        let options = front::connection::OPTIONS;
        let fronts: Vec<_> = config
            .fronts
            .iter()
            .map(|front| Wanted { name: &front.name, bind: front.bind, options })
            .collect();
        let listeners_kept = keep(&known(&self.listener_doors), &listeners);
        let fronts_kept = keep(&known(&self.front_doors), &fronts);
        let admin = config.admin.as_ref().and_then(|admin| admin.bind);
        let local = config.admin.as_ref().and_then(|admin| admin.socket.as_ref());
        let is_admin_kept = self.admin_server.as_ref().map(|server| server.bind) == admin;

        let mut leaving = not_kept(&self.listener_doors, &listeners_kept);
        leaving.extend(not_kept(&self.front_doors, &fronts_kept));
        leaving.extend(self.admin_server.as_ref().filter(|_| !is_admin_kept).map(|server| server.addr));
        leaving.extend(self.closing.iter().map(Closing::addr));
        leaving.extend(self.admin_left);

        if !fronts.is_empty() && self.http.is_none() {
            self.start_http().map_err(StartError::Worker)?;
        }
        let (threads, mut handed) = (self.ground.threads, handed.into_iter());
        let mut bind = |what: &str, wanted: &Wanted<'_>, threads| {
            bind(what, wanted, threads, &leaving, handed.next().unwrap_or_default())
        };
        let prepared = Prepared {
            listeners: entrances(&self.sessions, &listeners, &listeners_kept, |wanted| {
                bind("listener", wanted, threads)
            })?,
            fronts: match &self.http {
                Some(http) => {
                    entrances(http, &fronts, &fronts_kept, |wanted| bind("HTTP front", wanted, threads))?
                }
                None => Vec::new(),
            },
            admin: match admin {
                _ if is_admin_kept => AdminEntrance::Kept,
                None => AdminEntrance::Closed,
                Some(addr) => admin_entrance(addr, |wanted| bind("admin", wanted, 1))?,
            },
            local: match local {
                Some(socket)
                    if self.local_server.as_ref().is_some_and(|server| server.path == socket.path) =>
                {
                    AdminEntrance::Kept
                }
                Some(socket) => {
                    bind_local(socket, handed_local)?.map_or(AdminEntrance::Closed, AdminEntrance::New)
                }
                None => AdminEntrance::Closed,
            },
        };
        Ok(prepared)
    }

    fn start_http(&mut self) -> io::Result<()> {
        let (shared, fronts) = (&self.shared, &self.fronts);
        let (crew, workers) = Crew::start(
            "http",
            self.ground.threads,
            shared.descriptors.clone(),
            &self.ground.roll,
            (self.gate.clone(), shared.stop.clone()),
            |index| {
                let desk = Arc::new(http_desk::Desk::new(index, fronts, &shared.stop, &shared.kill));
                move |accepted| converse(Arc::clone(&desk), accepted)
            },
        )?;
        self.workers.extend(workers);
        self.http = Some(crew);
        Ok(())
    }

    /// Goes by `config` from now on. Comes back when all of it is in force.
    ///
    /// Not cancel safe.
    pub(super) async fn go_by(&mut self, config: Config, prepared: Prepared) {
        let Prepared { listeners, fronts, admin, local } = prepared;
        let (old, config) = (self.shared.setup(), Arc::new(config));
        self.closing.retain(Closing::is_open);
        self.admin_left = None;
        self.ground.refresh.set(config.dns.refresh);
        self.ground.requests.store(Arc::new(config.log.requests));

        let clusters = clusters::of(&self.ground, &self.shared, &old, &config).await;
        let setup = Setup {
            listeners: self.listener_versions(&old, &config, &clusters, &listeners),
            clusters,
            origin: Arc::clone(&old.origin),
            loaded_at: SystemTime::now(),
            admin: match &admin {
                AdminEntrance::Kept => self.admin_server.as_ref().map(|server| server.addr),
                AdminEntrance::New((addr, _)) => Some(*addr),
                AdminEntrance::Closed => None,
            },
            config,
        };
        self.shared.replace_setup(setup);
        let setup = self.shared.setup();
        self.open_listeners(&setup, listeners);
        self.serve_admin(&setup, admin);
        self.serve_local(local);
        clusters::leave(&old, &setup).await;
        self.change_fronts(&old, &setup, fronts).await;
        self.count_own();
    }

    fn listener_versions(
        &self,
        old: &Setup,
        config: &Arc<Config>,
        clusters: &[crate::topology::keeper::Watched],
        entrances: &[Entrance],
    ) -> Vec<Arc<Listener>> {
        let listeners = config.listeners.iter().zip(entrances);
        let version = |(listener, entrance): (&Arc<crate::config::Listener>, &Entrance)| {
            let watched = clusters.get(listener.cluster)?;
            let addr = addr_of(entrance, &self.listener_doors)?;
            Some(listeners::version(&self.shared, old, (config, listener), watched, addr))
        };
        listeners.filter_map(version).collect()
    }

    /// Lets the doors lead to the listeners of this setup: those that are kept, and new ones. The others are closed.
    fn open_listeners(&mut self, setup: &Setup, entrances: Vec<Entrance>) {
        let mut before: Vec<_> = std::mem::take(&mut self.listener_doors).into_iter().map(Some).collect();
        for (listener, entrance) in setup.listeners.iter().zip(entrances) {
            let (name, bind) = (listener.config.name.clone(), listener.config.bind);
            match entrance {
                Entrance::Kept(place) => {
                    let Some(opened) = before.get_mut(place).and_then(Option::take) else { continue };
                    let was = opened.door.listener.swap(Arc::clone(listener));
                    if was.options != listener.options
                        && let Err(error) = opened.open.set_options(listener.options)
                    {
                        warn!(listener = name, %error, "socket_options_not_set");
                    }
                    self.listener_doors.push(Opened { name, bind, ..opened });
                }
                Entrance::New(ready) => {
                    let door = Arc::new(ListenerDoor { listener: ArcSwap::new(Arc::clone(listener)) });
                    let open = self.sessions.open(&door, ready);
                    self.listener_doors.push(Opened { name, bind, door, open });
                }
            }
        }
        for left in before.into_iter().flatten() {
            self.closing.push(left.open.close());
        }
    }

    fn serve_admin(&mut self, setup: &Setup, entrance: AdminEntrance<(SocketAddr, Listening)>) {
        if matches!(entrance, AdminEntrance::Kept) {
            return;
        }
        if let Some(server) = self.admin_server.take() {
            self.admin_left = Some(server.addr);
            server.end.cancel();
        }
        let bind = setup.config.admin.as_ref().and_then(|admin| admin.bind);
        if let (AdminEntrance::New((addr, listening)), Some(bind)) = (entrance, bind) {
            let (listening, end) = (Arc::new(listening), self.ground.end.child_token());
            let way = Way::Address(Arc::clone(&listening));
            self.ground.tasks.spawn(self.admin.clone().serve(way, end.clone()));
            self.admin_server = Some(AdminServer { bind, addr, listening, end });
        }
    }

    fn serve_local(&mut self, entrance: AdminEntrance<LocalSocket>) {
        if matches!(entrance, AdminEntrance::Kept) {
            return;
        }
        if let Some(server) = self.local_server.take() {
            server.end.cancel();
        }
        if let AdminEntrance::New(socket) = entrance {
            let (path, end) = (socket.path().to_owned(), self.ground.end.child_token());
            let (socket, admin) = (Arc::new(socket), self.admin.clone());
            self.ground.tasks.spawn(admin.serve(Way::Socket(Arc::clone(&socket)), end.clone()));
            self.local_server = Some(LocalServer { path, socket, end });
        }
    }

    /// The same with the fronts. One that takes the place of another looks at its upstreams first, so that no request waits
    /// for that.
    async fn change_fronts(&mut self, old: &Setup, new: &Setup, entrances: Vec<Entrance>) {
        let before = self.fronts.now();
        let change = fronts::Change { shared: &self.shared, before: &before, old, new };
        let mut all = Vec::new();
        for (config, entrance) in new.config.fronts.iter().zip(&entrances) {
            let Some(addr) = addr_of(entrance, &self.front_doors) else { continue };
            all.push(change.version(&self.ground, config, addr));
        }
        let takes_over = |front: &&Arc<Front>| {
            before.iter().any(|other| other.addr == front.addr && !Arc::ptr_eq(other, front))
        };
        let fresh: Vec<_> = all.iter().filter(takes_over).cloned().collect();
        tokio::select! {
            _ = timeout(FIRST_LOOK, groups_seen(&fresh)) => {}
            () = self.shared.stop.cancelled() => {}
        }
        let mut doors: Vec<_> = std::mem::take(&mut self.front_doors).into_iter().map(Some).collect();
        for (front, entrance) in all.iter().zip(entrances) {
            let (name, bind) = (front.config.name.clone(), front.config.bind);
            match (entrance, &self.http) {
                (Entrance::Kept(place), _) => {
                    let Some(opened) = doors.get_mut(place).and_then(Option::take) else { continue };
                    opened.door.front.store(Arc::clone(front));
                    self.front_doors.push(Opened { name, bind, ..opened });
                }
                (Entrance::New(ready), Some(http)) => {
                    let door = Arc::new(FrontDoor { front: ArcSwap::new(Arc::clone(front)) });
                    let open = http.open(&door, ready);
                    self.front_doors.push(Opened { name, bind, door, open });
                }
                (Entrance::New(_), None) => {}
            }
        }
        for left in doors.into_iter().flatten() {
            self.closing.push(left.open.close());
        }
        self.fronts.replace(all);
    }

    /// Some of the sockets that were handed over are somebody else's as well.
    pub(super) fn set_lent(&mut self, lent: Lent) {
        self.lent = lent;
    }

    /// Tells of those that a change of the configuration has left.
    pub(super) fn leave_lent(&mut self) {
        let listeners = self.listener_doors.iter().map(|opened| opened.open.addr());
        let fronts = self.front_doors.iter().map(|opened| opened.open.addr());
        let admin = self.admin_server.iter().map(|server| server.addr);
        self.lent.leave(&listeners.chain(fronts).chain(admin).collect::<Vec<_>>());
    }

    /// Leaves room for what the process itself has open.
    fn count_own(&self) {
        let listeners = self.listener_doors.iter().map(|opened| opened.open.sockets());
        let fronts = self.front_doors.iter().map(|opened| opened.open.sockets());
        self.shared.descriptors.set_own(self.workers.len(), listeners.chain(fronts).sum());
    }
}

fn admin_entrance(
    addr: SocketAddr,
    bind: impl FnOnce(&Wanted<'_>) -> Result<Sockets, StartError>,
) -> Result<AdminEntrance<(SocketAddr, Listening)>, StartError> {
    let wanted = Wanted { name: "", bind: addr, options: ADMIN_OPTIONS };
    let sockets = bind(&wanted)?;
    let bound = sockets.addr();
    let error = |source| StartError::Bind { addr, what: "admin".to_owned(), source };
    let socket = sockets.into_each().next().ok_or_else(|| error(io::ErrorKind::NotFound.into()))?;
    Ok(AdminEntrance::New((bound, Listening::new(socket).map_err(error)?)))
}

/// The admin server's Unix socket, the one that was handed over or a new one; `None`: nobody asked for one, and it cannot be
/// made.
fn bind_local(socket: &AdminSocket, handed: Option<UnixListener>) -> Result<Option<LocalSocket>, StartError> {
    let path = &socket.path;
    if let Some(Ok(socket)) = handed.map(|handed| LocalSocket::handed(handed, path)) {
        return Ok(Some(socket));
    }
    if socket.is_default
        && let Some(dir) = path.parent()
    {
        // Where there is none for it, it is made, if that can be.
        let _ = std::fs::create_dir(dir);
    }
    match LocalSocket::bind(path) {
        Ok(made) => Ok(Some(made)),
        Err(error) if socket.is_default => {
            info!(path = %path.display(), %error, "admin_socket_left_out");
            Ok(None)
        }
        Err(source) => Err(StartError::Socket { path: path.clone(), source }),
    }
}

fn known<D>(doors: &[Opened<D>]) -> Vec<(&str, SocketAddr)> {
    doors.iter().map(|opened| (opened.name.as_str(), opened.bind)).collect()
}

/// Where the doors that nobody goes on with are.
fn not_kept<D>(doors: &[Opened<D>], kept: &[Option<usize>]) -> Vec<SocketAddr> {
    let doors = doors.iter().enumerate().filter(|(place, _)| !kept.contains(&Some(*place)));
    doors.map(|(_, opened)| opened.open.addr()).collect()
}

fn addr_of<D>(entrance: &Entrance, doors: &[Opened<D>]) -> Option<SocketAddr> {
    match entrance {
        Entrance::Kept(place) => doors.get(*place).map(|opened: &Opened<D>| OpenDoor::addr(&opened.open)),
        Entrance::New(ready) => Some(ready.addr()),
    }
}

fn entrances<To: Send + 'static>(
    crew: &Crew<To>,
    wanted: &[Wanted<'_>],
    kept: &[Option<usize>],
    mut bind: impl FnMut(&Wanted<'_>) -> Result<Sockets, StartError>,
) -> Result<Vec<Entrance>, StartError> {
    let entrance = |(wanted, kept): (&Wanted<'_>, &Option<usize>)| match kept {
        Some(place) => Ok(Entrance::Kept(*place)),
        None => Ok(Entrance::New(ready(crew, bind(wanted)?)?)),
    };
    wanted.iter().zip(kept).map(entrance).collect()
}
