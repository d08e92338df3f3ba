//! Builds the HTTP fronts: their groups under watch, their threads, their doors.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use crate::config::http::{self, Methods};
use crate::front::accept::FrontDoor;
use crate::front::admit::Turns;
use crate::front::budget::Budget;
use crate::front::cache::ResponseCache;
use crate::front::connection::converse;
use crate::front::database::Database;
use crate::front::desk::Desk;
use crate::front::group::Group;
use crate::front::shared::{Front, Fronts};
use crate::front::upstream::keeper::{self, Place};
use crate::net::crew::Crew;
use crate::net::listen::Sockets;
use crate::net::roll_call::RollCall;
use crate::session::shared::Shared;
use crate::telemetry::labels::HttpMethod;
use crate::telemetry::shape::FrontShape;

/// What fronts are built with.
pub(super) struct Ground<'a> {
    pub shared: &'a Arc<Shared>,
    pub tasks: &'a TaskTracker,
    pub end: &'a CancellationToken,
    pub threads: usize,
    pub roll: &'a RollCall,
}

/// Running fronts, in the order of the configuration, and their threads.
pub(super) type Started = (Arc<Fronts>, Vec<JoinHandle<()>>);

/// Starts every front of the configuration on these sockets, which are in its order.
pub(super) fn start(ground: &Ground<'_>, sockets: Vec<Sockets>) -> Result<Started, StartError> {
    let setup = ground.shared.setup();
    let built = setup.config.fronts.iter().zip(&sockets).enumerate();
    let fronts: Vec<_> =
        built.map(|(index, (front, socket))| Arc::new(build(ground, index, front, socket))).collect();
    let door = |front: &Arc<Front>| Arc::new(FrontDoor { front: ArcSwap::new(Arc::clone(front)) });
    // Threads of their own: a client that keeps one busy takes nothing from the database sessions.
    let crew = Crew {
        name: "http",
        workers: if fronts.is_empty() { 0 } else { ground.threads },
        doors: fronts.iter().map(door).zip(sockets).collect(),
        descriptors: ground.shared.descriptors.clone(),
        roll: ground.roll.clone(),
        stop: ground.shared.stop.clone(),
    };
    let (fronts, shared) = (Arc::new(Fronts::new(fronts)), ground.shared);
    let started = crew.start(|index| {
        let desk = Arc::new(Desk::new(index, &fronts, &shared.stop, &shared.kill));
        move |accepted| converse(Arc::clone(&desk), accepted)
    });
    Ok((fronts, started.map_err(StartError::Worker)?))
}

fn build(ground: &Ground<'_>, index: usize, config: &Arc<http::Front>, socket: &Sockets) -> Front {
    let shared = ground.shared;
    let setup = shared.setup();
    let metrics = Arc::clone(shared.metrics.front(index));
    let groups = config.groups.iter().enumerate().map(|(group, settings)| {
        let place = Place {
            front: Arc::clone(config),
            group,
            metrics: Arc::clone(&metrics),
            refresh: setup.config.dns.refresh,
            workers: ground.threads,
        };
        Group::new(settings.clone(), keeper::start(&place, settings, ground.tasks, ground.end))
    });
    let groups = groups.collect();
    let listener = config.listener.and_then(|listener| setup.listeners.get(listener));
    let database = listener.map(|listener| {
        let (name, target) = (listener.config.name.as_str(), listener.config.target);
        let current = listener.watched.current.clone();
        let (database, life) = Database::follow(&config.name, name, target, current, ground.end.clone());
        ground.tasks.spawn(life);
        database
    });
    Front {
        config: Arc::clone(config),
        log: setup.config.log.requests,
        addr: socket.addr(),
        groups,
        turns: Turns::new(&config.limits),
        budget: Budget::new(config.retries.budget, config.limits.max_in_flight.get()),
        cache: config.cache.as_ref().map(|settings| Arc::new(ResponseCache::new(settings))),
        database,
        metrics,
        descriptors: shared.descriptors.clone(),
        stop: shared.stop.clone(),
        is_stopping: AtomicBool::new(false),
        kill: shared.kill.clone(),
    }
}

/// What there is to count at a front.
pub(super) fn shape(front: &http::Front) -> FrontShape {
    let groups = front.groups.iter().map(|group| {
        let upstreams = group.upstreams.iter().map(|upstream| upstream.addr.to_string());
        (group.name.clone(), upstreams.collect())
    });
    let methods = match &front.methods {
        Methods::Any => HttpMethod::ALL.into(),
        Methods::Only(methods) => {
            let named = |method: &HttpMethod| methods.iter().any(|name| name == method.as_str());
            // What is refused is counted as well.
            HttpMethod::ALL.into_iter().filter(|m| named(m) || *m == HttpMethod::Other).collect()
        }
    };
    FrontShape { name: front.name.clone(), groups: groups.collect(), methods }
}
