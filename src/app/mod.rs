//! Builds everything once, starts it, and ends it in order.
//!
//! The end comes in order: the token `stop` ends accepting, the board `stage` asks sessions on a node to leave and then
//! ends them, the token `kill` ends whatever has not come that far, and `end` ends checks and the admin server, which go on
//! to the last so that a drain can be watched.

mod fronts;
mod systemd;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admin::{Admin, Way};
use crate::balance::judge::Verdict;
use crate::balance::pick::Picker;
use crate::config::{self, Config};
use crate::front::upstream::Standing;
use crate::front::{self, shared::Fronts};
use crate::net::crew::Crew;
use crate::net::descriptors::Descriptors;
use crate::net::inherited::{Inherited, Place, Unfit};
use crate::net::listen::{Listening, Sockets};
use crate::net::local::LocalSocket;
use crate::net::options::Options;
use crate::net::roll_call::RollCall;
use crate::session;
use crate::session::accept::ListenerDoor;
use crate::session::desk::Desk;
use crate::session::queue::Queue;
use crate::session::roster::{Roster, SWEEP_INTERVAL};
use crate::session::setup::Setup;
use crate::session::shared::{Listener, Shared, Stage};
use crate::telemetry::events::Events;
use crate::telemetry::metrics::{Metrics, UPKEEP_INTERVAL};
use crate::telemetry::shape::{ClusterShape, ListenerShape, Shape};
use crate::topology::keeper::{self, Watched};
use systemd::Systemd;

/// How long sessions have, when the drain timeout is over, to come to the end of a transaction.
const LAST_CALL: Duration = Duration::from_secs(5);
/// A reader at the admin address who is gone, or takes nothing, is left after this.
const ADMIN_OPTIONS: Options = Options { keepalive: None, user_timeout: Some(Duration::from_secs(30)) };
/// How long control tasks may take to end.
const CONTROL_END: Duration = Duration::from_secs(2);

/// Why pgsplit did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("cannot bind {addr} for {what}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// `listener "rw"`, `admin`.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A socket was handed over that cannot be used.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The Unix socket of the admin server could not be made.
    #[error("cannot make the admin socket {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No more threads, or descriptors.
    #[error("cannot start a worker thread")]
    Worker(#[source] io::Error),
}

/// A running balancer.
#[derive(Debug)]
pub struct App {
    /// What sessions, admin and start screen look at.
    pub shared: Arc<Shared>,
    /// The HTTP fronts.
    pub fronts: Arc<Fronts>,
    workers: Vec<JoinHandle<()>>,
    tasks: TaskTracker,
    end: CancellationToken,
    systemd: Systemd,
}

impl App {
    /// Binds what was not `inherited`, and starts everything. Nodes need not be there, nor their names resolve.
    ///
    /// Not cancel safe: what has been started stays.
    ///
    /// # Errors
    /// An address that cannot be bound, a socket that was handed over for nothing that is here, or a thread that cannot be
    /// started.
    pub fn start(
        config: Config,
        origin: &str,
        descriptors: Descriptors,
        inherited: Inherited,
        log_drops: impl Fn() -> u64 + Send + Sync + 'static,
        events: Events,
    ) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let threads = match config.runtime.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let metrics = Arc::new(Metrics::new(&shape(&config, threads)));
        metrics.set_log_drops(log_drops);

        // In the order in which they are taken below.
        let mut handed = inherited.share_out(&places(&config))?.into_iter();
        let mut sockets = Vec::new();
        for listener in &config.listeners {
            let options = options(cluster_of(&config, listener));
            let what = || format!("listener \"{}\"", listener.name);
            sockets.push(open(handed.next(), listener.bind, options, threads, what)?);
        }
        let mut http_sockets = Vec::new();
        for front in &config.fronts {
            let what = || format!("HTTP front \"{}\"", front.name);
            http_sockets.push(open(handed.next(), front.bind, front::connection::OPTIONS, threads, what)?);
        }
        let admin_bind = config.admin.as_ref().and_then(|admin| admin.bind);
        let admin_socket = admin_bind
            .map(|addr| open(handed.next(), addr, ADMIN_OPTIONS, 1, || "admin".to_owned()))
            .transpose()?;
        let local_socket = match config.admin.as_ref().and_then(|admin| admin.socket.as_ref()) {
            Some(socket) => bind_local(socket)?,
            None => None,
        };

        let own_threads = if http_sockets.is_empty() { threads } else { threads * 2 };
        let own_sockets = sockets.iter().chain(&http_sockets).map(Sockets::count).sum();

        let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
        let clusters: Vec<_> = config
            .clusters
            .iter()
            .enumerate()
            .map(|(index, cluster)| keeper::start(cluster, index, config.dns, &metrics, &tasks, &end))
            .collect();
        let listeners = config.listeners.iter().zip(&sockets).enumerate();
        let listeners: Vec<_> = listeners
            .filter_map(|(index, (listener, socket))| {
                let watched = clusters.get(listener.cluster)?.clone();
                Some(Arc::new(build_listener(&config, index, listener, watched, socket.addr())))
            })
            .collect();
        let setup = Setup {
            config: Arc::clone(&config),
            origin: origin.into(),
            loaded_at: SystemTime::now(),
            clusters,
            listeners: listeners.clone(),
            admin: admin_socket.as_ref().map(Sockets::addr),
        };
        let descriptors = descriptors.with_own(own_threads, own_sockets);
        let shared = Arc::new(Shared::new(setup, Arc::clone(&metrics), descriptors, Roster::new(threads)));

        let roll = RollCall::default();
        let door = |listener| {
            Arc::new(ListenerDoor { shared: Arc::clone(&shared), listener: ArcSwap::new(listener) })
        };
        let crew = Crew {
            name: "worker",
            workers: threads,
            doors: listeners.into_iter().map(door).zip(sockets).collect(),
            descriptors: shared.descriptors.clone(),
            roll: roll.clone(),
            stop: shared.stop.clone(),
        };
        // Should the start fail later on, those that have started must not stay.
        let unless_started = shared.stop.clone().drop_guard();
        let started = crew.start(|index| {
            let (shared, desk) = (Arc::clone(&shared), Arc::new(Desk::new(index)));
            move |accepted| session::serve(Arc::clone(&shared), Arc::clone(&desk), accepted)
        });
        let mut workers = started.map_err(StartError::Worker)?;
        let ground = fronts::Ground { shared: &shared, tasks: &tasks, end: &end, threads, roll: &roll };
        let (fronts, http_workers) = fronts::start(&ground, http_sockets)?;
        workers.extend(http_workers);
        let admin = Admin::new(Arc::clone(&shared), Arc::clone(&fronts), events);
        let admin_socket = admin_socket.and_then(|sockets| sockets.into_each().next());
        if let (Some(socket), Some(addr)) = (admin_socket, admin_bind) {
            let bind_error = |source| StartError::Bind { addr, what: "admin".to_owned(), source };
            let listening = Listening::new(socket).map_err(bind_error)?;
            tasks.spawn(admin.clone().serve(Way::Address(listening), end.clone()));
        }
        if let Some(socket) = local_socket {
            tasks.spawn(admin.clone().serve(Way::Socket(socket), end.clone()));
        }
        if config.admin.is_some() {
            tasks.spawn(end.clone().run_until_cancelled_owned(admin.watch()));
        }
        tasks.spawn(end.clone().run_until_cancelled_owned(upkeep(metrics)));
        let systemd = Systemd::of_process();
        let told = systemd.clone().keep_told(Arc::clone(&shared), Arc::clone(&fronts), roll);
        tasks.spawn(end.clone().run_until_cancelled_owned(told));
        tasks.spawn(end.clone().run_until_cancelled_owned(sweep(Arc::clone(&shared))));
        unless_started.disarm();
        Ok(Self { shared, fronts, workers, tasks, end, systemd })
    }

    /// Resolves when every node, and every upstream whose name leads somewhere, has been looked at once. Cancel safe.
    pub async fn first_checks(&self) {
        for cluster in &self.shared.setup().clusters {
            let mut current = cluster.current.clone();
            let all_seen =
                current.wait_for(|t| t.nodes.iter().all(|node| node.verdict != Verdict::Starting)).await;
            drop(all_seen);
        }
        for group in self.fronts.now().iter().flat_map(|front| &front.groups) {
            let mut current = group.current();
            let is_seen = |standing: &Arc<Standing>| {
                let members = &standing.members;
                !members.is_empty() && members.iter().all(|member| member.verdict != Verdict::Starting)
            };
            let all_seen = current.wait_for(is_seen).await;
            drop(all_seen);
        }
    }

    /// Tells systemd that clients may come, if it waits for that.
    pub async fn announce(&self) {
        self.systemd.is_ready(&self.shared, &self.fronts).await;
    }

    /// Lets systemd know that `reload` is a reload.
    pub async fn while_reloading<Reload: Future>(&self, reload: Reload) -> Reload::Output {
        self.systemd.while_reloading(reload).await
    }

    /// Drains and ends: no new sessions from now on; those that run may end by themselves until the drain timeout, then
    /// they end between two transactions, and those that have not come to that in five seconds, or when `hurry` resolves,
    /// are cut. Not cancel safe.
    pub async fn stop(self, hurry: impl Future<Output = ()>) {
        self.systemd.is_stopping().await;
        let shared = self.shared;
        let (setup, fronts) = (shared.setup(), self.fronts.now());
        let sessions = || setup.listeners.iter().map(|listener| listener.active()).sum::<u32>();
        let requests = || fronts.iter().map(|front| front.metrics.in_flight()).sum::<u64>();
        let drain = setup.config.runtime.drain_timeout;
        info!(sessions = sessions(), requests = requests(), drain_s = drain.as_secs_f64(), "draining");
        fronts.iter().for_each(|front| front.is_stopping.store(true, Ordering::Relaxed));
        shared.stop.cancel();
        let kill = shared.kill.clone();
        let mut ended = tokio::task::spawn_blocking(move || {
            self.workers.into_iter().for_each(|worker| drop(worker.join()));
        });
        let last_call = async {
            sleep(drain).await;
            shared.stage.post(Stage::LastCall);
            sleep(LAST_CALL).await;
        };
        tokio::select! {
            _ = &mut ended => {}
            () = last_call => {}
            () = hurry => {}
        }
        // Asked before they are cut: they may be gone a moment later.
        let (sessions, requests) = (sessions(), requests());
        let are_left = !ended.is_finished();
        shared.stage.post(Stage::Over);
        kill.cancel();
        if are_left {
            warn!(sessions, requests, "sessions_cut");
            let _ = timeout(CONTROL_END, ended).await;
        }
        self.end.cancel();
        self.tasks.close();
        let _ = timeout(CONTROL_END, self.tasks.wait()).await;
        info!("stopped");
    }
}

/// Who listens: listeners, fronts, admin.
fn places(config: &Config) -> Vec<Place<'_>> {
    let listeners = config.listeners.iter().map(|listener| (listener.name.as_str(), listener.bind));
    let fronts = config.fronts.iter().map(|front| (front.name.as_str(), front.bind));
    let admin = config.admin.iter().filter_map(|admin| Some(("admin", admin.bind?)));
    listeners.chain(fronts).chain(admin).map(|(name, bind)| Place { name, bind }).collect()
}

/// Takes the sockets that were handed over, or binds `addr`.
fn open(
    handed: Option<Vec<TcpListener>>,
    addr: SocketAddr,
    options: Options,
    threads: usize,
    what: impl FnOnce() -> String,
) -> Result<Sockets, StartError> {
    let sockets = match handed.filter(|handed| !handed.is_empty()) {
        Some(handed) => Sockets::inherited(handed, options),
        None => Sockets::bind(addr, options, threads),
    };
    sockets.map_err(|source| StartError::Bind { addr, what: what(), source })
}

/// The admin server's Unix socket; `None`: nobody asked for one, and it cannot be made.
fn bind_local(socket: &config::AdminSocket) -> Result<Option<LocalSocket>, StartError> {
    let path = &socket.path;
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

fn cluster_of<'a>(config: &'a Config, listener: &config::Listener) -> &'a Arc<config::Cluster> {
    let cluster = config.clusters.get(listener.cluster);
    cluster.unwrap_or_else(|| unreachable!("a checked listener names a cluster that exists"))
}

fn options(cluster: &config::Cluster) -> Options {
    let sessions = &cluster.sessions;
    Options {
        keepalive: sessions.keepalive.map(|keepalive| (keepalive.idle, keepalive.interval, keepalive.count)),
        user_timeout: sessions.tcp_user_timeout,
    }
}

fn build_listener(
    config: &Config,
    index: usize,
    listener: &Arc<config::Listener>,
    watched: Watched,
    addr: SocketAddr,
) -> Listener {
    let nodes = watched.current.borrow().nodes.len();
    let cluster = Arc::clone(cluster_of(config, listener));
    Listener {
        index,
        config: Arc::clone(listener),
        options: options(&cluster),
        cluster,
        watched,
        addr,
        picker: Mutex::new(Picker::new(listener.balance, nodes, fastrand::u64(..))),
        sessions: Arc::new(AtomicU32::new(0)),
        queue: Arc::<Queue>::default(),
        pause: watch::Sender::new(false),
    }
}

fn shape(config: &Config, workers: usize) -> Shape {
    let clusters = config.clusters.iter().map(|cluster| ClusterShape {
        name: cluster.name.clone(),
        nodes: cluster.nodes.iter().map(|node| node.name.clone()).collect(),
    });
    let listeners = config.listeners.iter().map(|listener| ListenerShape {
        name: listener.name.clone(),
        cluster: listener.cluster,
        limit: u64::from(listener.max_connections.get()),
    });
    let version = env!("CARGO_PKG_VERSION");
    Shape {
        version,
        clusters: clusters.collect(),
        listeners: listeners.collect(),
        fronts: config.fronts.iter().map(|front| fronts::shape(front)).collect(),
        workers,
    }
}

async fn sweep(shared: Arc<Shared>) {
    let mut tick = interval(SWEEP_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        shared.roster.sweep();
    }
}

async fn upkeep(metrics: Arc<Metrics>) {
    let mut tick = interval(UPKEEP_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        metrics.run_upkeep();
    }
}
