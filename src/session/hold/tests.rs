//! The line and the valve in time that passes by itself: thousands of random crowds before nodes that come and go.

use super::*;
use crate::balance::judge::Verdict;
use crate::balance::pick::Picker;
use crate::config::Config;
use crate::net::descriptors::Descriptors;
use crate::session::queue::Queue;
use crate::session::setup::Setup;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::shape::{ClusterShape, ListenerShape, Shape};
use crate::topology::keeper::{Life, Watched};
use crate::topology::order::{AdminState, Orders};
use crate::topology::outcome::Outcomes;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

const NODES: usize = 2;
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// Nobody logs in for longer: what a session may hold up others for.
const LONGEST_LOGIN: Duration = Duration::from_secs(1);

/// A listener before nodes without a server.
struct World {
    shared: Shared,
    listener: Arc<Listener>,
    nodes: watch::Sender<Arc<Topology>>,
    seed: u64,
    random: Mutex<fastrand::Rng>,
    came: Mutex<Vec<Came>>,
}

/// How one session's first wait ended.
struct Came {
    number: u32,
    waited: Duration,
    is_served: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let yaml = "nodes: [{addr: 'a:1', role: standby, max_connections: 12}, {addr: 'b:1', role: standby, max_connections: 12}]\n\
                    sessions: {queue_size: 30}\n\
                    listeners: [{name: ro, bind: '127.0.0.1:0', target: any}]";
        let config = Arc::new(Config::from_yaml(yaml, "test", &|_| None).unwrap());
        let (cluster, freed) = (Arc::clone(&config.clusters[0]), Arc::new(Notify::new()));
        let nodes = watch::Sender::new(Arc::new(Topology::starting(&cluster, &freed)));
        let watched = Watched {
            index: 0,
            current: nodes.subscribe(),
            outcomes: Outcomes::channel().0,
            freed,
            orders: Orders::nowhere(),
            life: Life::default(),
        };
        let shape = Shape {
            version: "",
            clusters: vec![ClusterShape { name: "main".into(), nodes: vec!["a".into(), "b".into()] }],
            listeners: vec![ListenerShape { name: "ro".into(), cluster: 0 }],
            fronts: Vec::new(),
            workers: 1,
        };
        let metrics = Arc::new(Metrics::new(&shape));
        let listener = Listener {
            index: 0,
            metrics: metrics.listener(0),
            config: Arc::clone(&config.listeners[0]),
            cluster,
            watched: watched.clone(),
            addr: config.listeners[0].bind,
            options: crate::net::options::Options::default(),
            picker: Mutex::new(Picker::new(config.listeners[0].balance, NODES, seed)),
            sessions: Arc::new(AtomicU32::new(0)),
            queue: Arc::<Queue>::default(),
            pause: watch::Sender::new(false),
            is_outdated: tokio_util::sync::CancellationToken::new(),
        };
        let listener = Arc::new(listener);
        let setup = Setup {
            config,
            origin: "test".into(),
            loaded_at: std::time::SystemTime::now(),
            clusters: vec![watched],
            listeners: vec![Arc::clone(&listener)],
            admin: None,
        };
        Self {
            shared: Shared::new(setup, metrics, Descriptors::of_process()),
            listener,
            nodes,
            seed,
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            came: Mutex::default(),
        }
    }

    fn listener(&self) -> &Listener {
        &self.listener
    }

    /// A number below `n`.
    fn below(&self, n: u64) -> u64 {
        self.random.lock().unwrap().u64(0..n)
    }

    fn millis(&self, most: u64) -> Duration {
        Duration::from_millis(self.below(most))
    }

    fn set_up(&self, node: usize, is_up: bool) {
        let mut topology = Topology::clone(&self.nodes.borrow());
        let node = &mut topology.nodes[node];
        let verdict = if is_up { Verdict::Up } else { Verdict::Down };
        if std::mem::replace(&mut node.verdict, verdict) != verdict {
            node.valve.narrow();
        }
        self.nodes.send_replace(Arc::new(topology));
    }

    /// That there is a node for who is first in line, and it goes on sleeping, must not be.
    async fn assert_nobody_sleeps(&self) {
        let has_node = || matches!(choose(self.listener(), Ipv4Addr::LOCALHOST.into(), &[]), Chosen::Node(_));
        for _ in 0..30 {
            if !self.listener().queue.has_standing() || self.listener().is_paused() || !has_node() {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("somebody sleeps though there is a node for it: repeat it with PGSPLIT_SEED={}", self.seed);
    }

    /// One client, from when it comes to when it has left; it waits once, or again where it is refused.
    async fn session(self: Arc<Self>, number: u32) {
        let listener = self.listener();
        let mut hold = Hold::new(&self.shared, listener);
        let patience = if self.below(5) == 0 { self.millis(3000) } else { Duration::from_secs(1000) };
        let mut tried = Vec::new();
        let mut is_first = true;
        loop {
            let began = Instant::now();
            let placed = hold.place(Ipv4Addr::LOCALHOST.into(), sleep(patience), &mut tried).await;
            if std::mem::take(&mut is_first) {
                let (waited, is_served) = (began.elapsed(), placed.is_ok());
                self.came.lock().unwrap().push(Came { number, waited, is_served });
            }
            let Ok(choice) = placed else {
                drop(hold);
                self.assert_nobody_sleeps().await;
                return;
            };
            let node = &self.nodes.borrow().nodes[choice.id.place].clone();
            assert!(node.load.sessions() <= 12);
            assert!(node.verdict == Verdict::Up || !self.nodes.borrow().nodes[choice.id.place].is_up());
            if self.below(8) == 0 {
                tried.push(choice.id);
                continue;
            }
            sleep(self.millis(u64::try_from(LONGEST_LOGIN.as_millis()).unwrap())).await;
            drop(hold);
            if self.below(8) != 0 {
                choice.pass.succeed();
            }
            sleep(self.millis(500)).await;
            drop(choice.place);
            return;
        }
    }
}

/// One crowd and what happens to it; the world when everybody has left.
async fn crowd(seed: u64) -> Arc<World> {
    let world = Arc::new(World::new(seed));
    let mut sessions = JoinSet::new();
    let is_calm = world.below(2) == 0;
    (0..NODES).for_each(|node| world.set_up(node, is_calm));
    let mut number = 0;
    for _ in 0..world.below(30) {
        for _ in 0..world.below(20) {
            sessions.spawn(Arc::clone(&world).session(number));
            number += 1;
            // In the order of their numbers.
            tokio::task::yield_now().await;
        }
        match world.below(6) {
            0 if !is_calm => world.set_up(0, world.below(2) == 0),
            1 if !is_calm => world.set_up(1, world.below(2) == 0),
            2 if !is_calm => drop(world.listener().pause.send_replace(world.below(2) == 0)),
            _ => sleep(world.millis(2000)).await,
        }
    }
    world.listener().pause.send_replace(false);
    (0..NODES).for_each(|node| world.set_up(node, true));
    sessions.join_all().await;
    world
}

#[tokio::test(start_paused = true)]
async fn whatever_the_crowd_each_is_served_in_turn_and_nothing_is_left_behind() {
    let first =
        std::env::var("PGSPLIT_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    for seed in (0..300).map(|n| first.wrapping_add(n)) {
        let world = crowd(seed).await;
        let again = format!("repeat it with PGSPLIT_SEED={seed}");
        assert_eq!(world.listener().waiting().0, 0, "{again}");
        assert!(!world.listener().queue.has_standing(), "{again}");
        for node in &world.nodes.borrow().nodes {
            assert_eq!(node.load.sessions(), 0, "{again}");
            assert!(node.valve.is_idle(), "{again}");
        }
        let came = world.came.lock().unwrap();
        for Came { number, waited, is_served } in came.iter() {
            // Nobody is sent away late; longer waits only who is waiting for others to be logged in.
            assert!(*is_served || *waited <= QUEUE_TIMEOUT + LONGER, "{number} {waited:?}: {again}");
        }
        // Who had to wait was served after all who came before it and waited, too.
        let in_line = came.iter().filter(|came| came.is_served && !came.waited.is_zero());
        assert!(in_line.map(|came| came.number).is_sorted(), "{again}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_it_is_paused_nobody_is_let_in_and_then_all_are() {
    let world = Arc::new(World::new(1));
    (0..NODES).for_each(|node| world.set_up(node, true));
    world.listener().pause.send_replace(true);
    let mut sessions = JoinSet::new();
    for number in 0..10 {
        sessions.spawn(Arc::clone(&world).session(number));
        tokio::task::yield_now().await;
    }
    sleep(Duration::from_secs(5)).await;
    assert!(world.came.lock().unwrap().iter().all(|came| !came.is_served));
    assert!(0 < world.listener().waiting().0);
    world.listener().pause.send_replace(false);
    sessions.join_all().await;
    assert!(world.came.lock().unwrap().iter().any(|came| came.is_served));

    world.listener().pause.send_replace(true);
    let mut hold = Hold::new(&world.shared, world.listener());
    let refused = hold.place(Ipv4Addr::LOCALHOST.into(), std::future::pending(), &mut Vec::new()).await;
    assert_eq!(refused.unwrap_err().to_string(), "listener \"ro\" is paused");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_nodes_in_drain_is_told_so_and_let_in_when_one_is_ready() {
    let world = Arc::new(World::new(1));
    (0..NODES).for_each(|node| world.set_up(node, true));
    let set = |node: usize, admin: AdminState| {
        let mut topology = Topology::clone(&world.nodes.borrow());
        topology.nodes[node].admin = admin;
        world.nodes.send_replace(Arc::new(topology));
    };
    set(0, AdminState::Drain);
    set(1, AdminState::Maint);
    let mut hold = Hold::new(&world.shared, world.listener());
    let began = Instant::now();
    let refused = hold.place(Ipv4Addr::LOCALHOST.into(), std::future::pending(), &mut Vec::new()).await;
    let said = refused.unwrap_err().to_string();
    assert_eq!(said, "no live node for listener \"ro\": a in drain; b in maint");
    assert_eq!(began.elapsed(), QUEUE_TIMEOUT);
    drop(hold);

    let mut waits = JoinSet::new();
    let theirs = Arc::clone(&world);
    waits.spawn(async move {
        let mut hold = Hold::new(&theirs.shared, theirs.listener());
        hold.place(Ipv4Addr::LOCALHOST.into(), std::future::pending(), &mut Vec::new()).await.unwrap().id
    });
    sleep(Duration::from_secs(5)).await;
    assert!(waits.try_join_next().is_none());
    set(0, AdminState::Ready);
    assert_eq!(waits.join_next().await.unwrap().unwrap(), NodeId::first(0));
}
