//! Builds everything, starts it, changes it when the configuration is loaded again, and ends it in order.
//!
//! `running` is what runs, and how it comes to run by another configuration: the start is its first change. `reloader`
//! makes the others, one at a time, for whoever asks: a signal, `watch`, the admin server. `upgrade` lets another process go
//! on with all of it.
//!
//! The end comes in order: the token `stop` ends accepting, the board `stage` asks sessions on a node to leave and then
//! ends them, the token `kill` ends whatever has not come that far, and `end` ends checks and the admin server, which go on
//! to the last so that a drain can be watched.

mod clusters;
mod doors;
mod fronts;
mod listeners;
mod reloader;
mod running;
mod systemd;
pub mod upgrade;
mod watch;

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::task;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admin::Admin;
use crate::admin::reload::Reloads;
use crate::admin::upgrade::Upgrades;
use crate::balance::judge::Verdict;
use crate::config::{self, Config};
use crate::front::shared::{Front, Fronts};
use crate::front::upstream::Standing;
use crate::net::descriptors::Descriptors;
use crate::net::discover::Refresh;
use crate::net::gate::{Gate, Word};
use crate::net::handed::Handed;
use crate::net::inherited::{Inherited, Place, Unfit};
use crate::net::roll_call::RollCall;
use crate::session::roster::{Roster, SWEEP_INTERVAL};
use crate::session::setup::Setup;
use crate::session::shared::{Shared, Stage};
use crate::telemetry::events::Events;
use crate::telemetry::metrics::{Metrics, UPKEEP_INTERVAL};
use crate::telemetry::shape::Shape;
use reloader::Reloader;
use running::{Ground, Lent, Running};
use systemd::Systemd;
use upgrade::child::Child;
use upgrade::heir::{Old, Quarters};
use upgrade::launch::Launch;
use upgrade::old::Predecessor;

/// How long sessions have, when the drain timeout is over, to come to the end of a transaction.
const LAST_CALL: Duration = Duration::from_secs(5);
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

impl StartError {
    /// With what the system said.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Bind { source, .. } | Self::Socket { source, .. } | Self::Worker(source) => {
                format!("{self}: {source}")
            }
            Self::Unfit(_) => self.to_string(),
        }
    }
}

/// Lets the log go by other settings from now on, or says what is wrong with them.
pub type SetLog = Box<dyn Fn(&config::Log) -> Result<(), String> + Send + Sync>;

/// What a balancer is started with, beside its configuration.
pub struct Outfit {
    /// Where the configuration came from.
    pub origin: String,
    /// The file that can be loaded again; `None`: it came from none.
    pub file: Option<PathBuf>,
    /// What there is to open.
    pub descriptors: Descriptors,
    /// Sockets that were bound before.
    pub inherited: Inherited,
    /// Changes the log.
    pub set_log: SetLog,
    /// How many lines of it were lost.
    pub log_drops: Box<dyn Fn() -> u64 + Send + Sync>,
    /// What it tells of the whole.
    pub events: Events,
    /// How another process like this one is started.
    pub launch: Launch,
    /// Sockets of the process whose place this one takes; `None`: it takes nobody's. It accepts nobody until it does.
    pub handed: Option<Handed>,
}

/// A running balancer.
#[derive(Debug)]
pub struct App {
    /// What sessions, admin and start screen look at.
    pub shared: Arc<Shared>,
    /// The HTTP fronts.
    pub fronts: Arc<Fronts>,
    reloads: Reloads,
    upgrades: Upgrades,
    /// Of a process that takes the place of another one, until it has it.
    quarters: Option<Quarters>,
    is_replaced: CancellationToken,
    is_to_stop: CancellationToken,
    /// The process whose place this one has taken.
    old: Option<Old>,
    /// Ends when nothing is accepted any more, with the threads whose connections go on, and the process that stops with this
    /// one.
    reloading: task::JoinHandle<(Vec<JoinHandle<()>>, Option<Child>)>,
    tasks: TaskTracker,
    end: CancellationToken,
    systemd: Systemd,
}

impl App {
    /// Binds what was not inherited, and starts everything. Nodes need not be there, nor their names resolve.
    ///
    /// Not cancel safe: what has been started stays.
    ///
    /// # Errors
    /// An address that cannot be bound, a socket that was handed over for nothing that is here, or a thread that cannot be
    /// started.
    pub async fn start(config: Config, outfit: Outfit) -> Result<Self, StartError> {
        let Outfit { origin, file, descriptors, inherited, set_log, log_drops, events, launch, mut handed } =
            outfit;
        let is_heir = handed.is_some();
        let threads = match config.runtime.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let metrics = Arc::new(Metrics::new(&empty_shape(threads)));
        metrics.set_log_drops(log_drops);
        let roster = Roster::new(threads);
        let setup = empty_setup(&config, &origin);
        let shared = Arc::new(Shared::new(setup, Arc::clone(&metrics), descriptors, roster));
        let (fronts, (reloads, asked)) = (Arc::new(Fronts::none()), Reloads::channel());
        let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
        let (systemd, roll) = (Systemd::of_process(!is_heir), RollCall::default());
        let (upgrades, upgrades_asked) = Upgrades::channel();
        let gate = Gate::new(if is_heir { Word::Shut } else { Word::Open });
        let ground = Ground {
            tasks: tasks.clone(),
            end: end.clone(),
            threads,
            roll: roll.clone(),
            refresh: Refresh::every(config.dns.refresh),
            requests: Arc::new(ArcSwap::from_pointee(config.log.requests)),
        };
        // Should the start fail later on, those that have started must not stay.
        let unless_started = shared.stop.clone().drop_guard();
        let asking = (reloads.clone(), upgrades.clone());
        let admin = Admin::new(Arc::clone(&shared), Arc::clone(&fronts), asking, events, gate.clone());
        tasks.spawn(end.clone().run_until_cancelled_owned(admin.clone().watch()));
        let running = Running::new(&shared, &fronts, admin, gate, ground);
        let mut running = running.map_err(StartError::Worker)?;
        let local = handed.as_mut().and_then(|handed| handed.take_local(local_path(&config)));
        let (lent, sockets) = if let Some(handed) = handed {
            (Lent::of(handed.lent()), handed.share_out(&places(&config)))
        } else {
            let sockets = inherited.share_out(&places(&config))?;
            (Lent::of(sockets.iter().map(Vec::as_slice)), sockets)
        };
        running.set_lent(lent);
        let prepared = running.prepare(&config, sockets, local)?;
        running.go_by(config, prepared).await;
        running.leave_lent();
        let (is_replaced, is_to_stop) = (CancellationToken::new(), CancellationToken::new());
        let quarters = is_heir.then(|| running.quarters(&systemd, &upgrades, &is_to_stop));
        tasks.spawn(end.clone().run_until_cancelled_owned(upkeep(metrics)));
        let reloader = Reloader {
            shared: Arc::clone(&shared),
            running,
            reloads: reloads.clone(),
            file,
            set_log,
            predecessor: Predecessor {
                shared: Arc::clone(&shared),
                upgrades: upgrades.clone(),
                launch,
                systemd: systemd.clone(),
            },
            is_replaced: is_replaced.clone(),
            tasks: tasks.clone(),
            watching: None,
            systemd: systemd.clone(),
        };
        let told = systemd.clone().keep_told(Arc::clone(&shared), Arc::clone(&fronts), roll);
        tasks.spawn(end.clone().run_until_cancelled_owned(told));
        tasks.spawn(end.clone().run_until_cancelled_owned(sweep(Arc::clone(&shared))));
        unless_started.disarm();
        let reloading = tasks.spawn(reloader.run(asked, upgrades_asked));
        Ok(Self {
            shared,
            fronts,
            reloads,
            upgrades,
            quarters,
            is_replaced,
            is_to_stop,
            old: None,
            reloading,
            tasks,
            end,
            systemd,
        })
    }

    /// Lets a new process take this one's place, and waits for nothing.
    pub fn upgrade(&self, by: &'static str) {
        let upgrades = self.upgrades.clone();
        self.tasks.spawn(async move { upgrades.upgrade(by, None).await });
    }

    /// Resolves when another process has this one's place, and it is to stop. Cancel safe.
    pub async fn replaced(&self) {
        self.is_replaced.cancelled().await;
    }

    /// Resolves when the process whose place this one was to take has been told to stop, and this one is to stop with it.
    /// Cancel safe.
    pub async fn told_to_stop(&self) {
        self.is_to_stop.cancelled().await;
    }

    /// Has the configuration loaded again for `by`, and waits for nothing.
    pub fn reload(&self, by: &'static str) {
        let reloads = self.reloads.clone();
        self.tasks.spawn(async move { reloads.reload(by).await });
    }

    /// Resolves when every node, and every upstream whose name leads somewhere, has been looked at once. Cancel safe.
    pub async fn first_checks(&self) {
        for cluster in &self.shared.setup().clusters {
            let mut current = cluster.current.clone();
            let all_seen =
                current.wait_for(|t| t.nodes.iter().all(|node| node.verdict != Verdict::Starting)).await;
            drop(all_seen);
        }
        groups_seen(&self.fronts.now()).await;
    }

    /// Tells systemd that clients may come, if it waits for that.
    pub async fn announce(&self) {
        self.systemd.is_ready(&self.shared, &self.fronts).await;
    }

    /// Drains and ends: no new sessions once the drain delay is over; those that run may end by themselves until the drain
    /// timeout, then they end between two transactions, and those that have not come to that in five seconds, or when `hurry` resolves,
    /// are cut. So long it stays for the other process of an upgrade, too, where that would be ended with this one. Not cancel
    /// safe.
    pub async fn stop(self, hurry: impl Future<Output = ()>) {
        self.systemd.is_stopping().await;
        let shared = self.shared;
        let (setup, fronts) = (shared.setup(), self.fronts.now());
        let sessions = || setup.listeners.iter().map(|listener| listener.active()).sum::<u32>();
        let requests = || fronts.iter().map(|front| front.metrics.in_flight()).sum::<u64>();
        let (mut delay, mut drain) = (setup.config.runtime.drain_delay, setup.config.runtime.drain_timeout);
        if self.is_replaced.is_cancelled() {
            // It has had its time.
            (delay, drain) = (Duration::ZERO, Duration::ZERO);
        }
        drop(self.quarters);
        info!(sessions = sessions(), requests = requests(), drain_s = drain.as_secs_f64(), "draining");
        shared.is_draining.store(true, Ordering::Relaxed);
        fronts.iter().for_each(|front| front.is_stopping.store(true, Ordering::Relaxed));
        let mut hurry = pin!(hurry);
        // Who comes now has not seen yet that it should go elsewhere.
        let is_hurried = !delay.is_zero() && timeout(delay, hurry.as_mut()).await.is_ok();
        shared.stop.cancel();
        let kill = shared.kill.clone();
        let (workers, mut other) = self.reloading.await.unwrap_or_default();
        let mut ended = task::spawn_blocking(move || {
            for worker in workers {
                drop(worker.join());
            }
        });
        let all_ended = async {
            let _ = (&mut ended).await;
            if let Some(child) = &mut other {
                child.end().await;
            }
            // It has a drain of its own, which systemd would cut short with the end of this one.
            if let Some(old) = self.old.as_ref().filter(|_| self.systemd.is_main()) {
                old.left().await;
            }
        };
        let last_call = async {
            sleep(drain).await;
            shared.stage.post(Stage::LastCall);
            sleep(LAST_CALL).await;
        };
        tokio::select! {
            () = all_ended => {}
            () = last_call => {}
            () = &mut hurry, if !is_hurried => {}
            () = ready(()), if is_hurried => {}
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
        if let Some(mut child) = other
            && child.ended(Duration::ZERO).await.is_none()
        {
            // It is at its drain, and hurries now.
            child.ask_to_end();
            if child.ended(CONTROL_END).await.is_none() {
                child.let_go().await;
            }
        }
        self.end.cancel();
        self.tasks.close();
        let _ = timeout(CONTROL_END, self.tasks.wait()).await;
        info!("stopped");
    }
}

/// Resolves when every upstream of these whose name leads somewhere has been looked at once. Cancel safe.
async fn groups_seen(fronts: &[Arc<Front>]) {
    for group in fronts.iter().flat_map(|front| &front.groups) {
        let mut current = group.current();
        let is_seen = |standing: &Arc<Standing>| {
            let members = &standing.members;
            !members.is_empty() && members.iter().all(|member| member.verdict != Verdict::Starting)
        };
        let all_seen = current.wait_for(is_seen).await;
        drop(all_seen);
    }
}

/// Who listens: listeners, fronts, admin.
fn places(config: &Config) -> Vec<Place<'_>> {
    let listeners = config.listeners.iter().map(|listener| (listener.name.as_str(), listener.bind));
    let fronts = config.fronts.iter().map(|front| (front.name.as_str(), front.bind));
    let admin = config.admin.iter().filter_map(|admin| Some((running::ADMIN, admin.bind?)));
    listeners.chain(fronts).chain(admin).map(|(name, bind)| Place { name, bind }).collect()
}

/// Where the admin server's Unix socket is to be.
fn local_path(config: &Config) -> Option<&Path> {
    config.admin.as_ref()?.socket.as_ref().map(|socket| socket.path.as_path())
}

/// What there is before the first configuration is in force: nothing to connect to.
fn empty_setup(config: &Config, origin: &str) -> Setup {
    let nothing = Config {
        clusters: Vec::new(),
        listeners: Vec::new(),
        fronts: Vec::new(),
        admin: None,
        ..config.clone()
    };
    Setup {
        config: Arc::new(nothing),
        origin: origin.into(),
        loaded_at: SystemTime::now(),
        clusters: Vec::new(),
        listeners: Vec::new(),
        admin: None,
    }
}

fn empty_shape(workers: usize) -> Shape {
    let version = env!("CARGO_PKG_VERSION");
    Shape { version, clusters: Vec::new(), listeners: Vec::new(), fronts: Vec::new(), workers }
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
