//! Random lives of a cluster: servers die, come back, are promoted and demoted, checks and sessions tell of it late or not at
//! all, and what must always be true is asked after each piece of news.
//!
//! A failure names its seed; `PGSPLIT_SEED=…` begins with it.

use super::*;
use crate::base::role::Target;
use crate::topology::check::Lineage;
use crate::topology::choose::fitting;
use crate::topology::order::{AdminState, By, Order};
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Mutex;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

const SCHEDULES: u64 = 2000;
const EVENTS: usize = 60;
const SHAPES: [&str; 5] = [
    THREE,
    "{nodes: [a:1, b:1], check: {user: u, fall: 1, rise: 1}}",
    "{nodes: [a:1], check: {user: u}}",
    "{nodes: [a:1, {addr: b:1, weight: 0}, c:1], check: {user: u}}",
    "{nodes: [{addr: a:1, role: primary}, {addr: b:1, role: standby}, c:1], check: {user: u}}",
];
/// Of `node_state` and `node_flapping`, for each node in any minute.
const LINES_A_MINUTE: usize = 7;

/// A server as it really is.
#[derive(Clone, Debug)]
struct Server {
    lives: bool,
    role: Role,
    timeline: u32,
    starts: u64,
    /// Its last checks that failed, in a row.
    failed: u32,
}

/// A cluster as it really is, and what is held true of it.
struct World {
    seed: u64,
    random: fastrand::Rng,
    servers: Vec<Server>,
    has_timelines: bool,
    /// Every look succeeds or fails, and none is about something else.
    is_calm: bool,
    keeper: Keeper,
}

/// The lines about the state of a node, by its name.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<HashMap<String, Vec<Instant>>>>);

impl World {
    fn new(seed: u64, cluster: &Arc<config::Cluster>, metrics: &Arc<Metrics>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let server = |role| Server { lives: true, role, timeline: 1, starts: 0, failed: 0 };
        let mut servers = vec![server(Role::Standby); cluster.nodes.len()];
        servers[0].role = Role::Primary;
        let has_timelines = random.bool();
        Self { seed, random, servers, has_timelines, is_calm: false, keeper: keeper_of(cluster, metrics) }
    }

    /// Something happens to a server.
    fn happens(&mut self, at: usize) {
        let latest = self.servers.iter().map(|server| server.timeline).max().unwrap();
        let server = &mut self.servers[at];
        match self.random.u8(0..8) {
            0..=2 => server.lives = false,
            3..=4 => server.lives = true,
            5 => (server.lives, server.starts) = (true, server.starts + 1),
            6 => {
                if server.role == Role::Standby {
                    // Two that are promoted beside each other may be on the same one.
                    server.timeline = (latest + u32::from(self.random.bool())).max(server.timeline + 1);
                }
                server.role = Role::Primary;
            }
            _ => (server.role, server.timeline, server.starts) = (Role::Standby, latest, server.starts + 1),
        }
    }

    /// A check of a server ends.
    fn is_checked(&mut self, at: usize) {
        if !self.is_calm && self.random.u8(0..20) == 0 {
            self.keeper.report(at, Outcome::NotMade("no descriptor".into()));
            return;
        }
        let server = &mut self.servers[at];
        if !server.lives {
            server.failed += u32::from(!self.keeper.node(at).rests());
            self.keeper.fails(at);
            return;
        }
        server.failed = 0;
        if !self.is_calm && self.random.u8(0..20) == 0 {
            self.keeper.report(at, Outcome::Full("sorry".into()));
            return;
        }
        let lineage = Lineage { system: 7, timeline: server.timeline };
        let facts = Facts {
            role: Some(server.role),
            lineage: Some(lineage).filter(|_| self.has_timelines && server.role == Role::Primary),
            started: Some(Duration::from_secs(server.starts)),
            is_ready: true,
            ..Facts::default()
        };
        self.keeper.report(at, Outcome::Up(facts));
    }

    /// A session meets a server.
    fn is_met(&mut self, at: usize) {
        let server = &self.servers[at];
        let met = match (server.lives, self.random.u8(0..4)) {
            (true, 0) => Met::Full("sorry".into()),
            (true, 1) => Met::Failure("reset".into()),
            (true, _) => Met::Role { in_recovery: server.role == Role::Standby },
            (false, 0) => Met::Silence,
            (false, 1) => Met::NotNow("starting up".into()),
            (false, _) => Met::Failure("refused".into()),
        };
        self.keeper.apply_met(self.keeper.id(at), &met);
        self.keeper.publish();
    }

    /// Somebody wants something of a node.
    fn is_administered(&mut self, at: usize, admin: AdminState) {
        if admin == AdminState::Maint {
            self.servers[at].failed = 0;
        }
        let by = By { way: "api", client: String::new() };
        let name = self.keeper.node(at).config.name.clone();
        self.keeper.obey(&name, &Order { admin: Some(admin), weight: None, by }).unwrap();
    }

    /// A server comes and goes.
    fn flaps(&mut self, at: usize) {
        for _ in 0..self.random.u8(2..20) {
            for lives in [false, true] {
                self.servers[at].lives = lives;
                (0..4).for_each(|_| self.is_checked(at));
                self.holds();
            }
        }
    }

    /// What is always true.
    #[track_caller]
    fn holds(&self) {
        let (seed, topology) = (self.seed, self.keeper.publish.borrow().clone());
        let takes_writes = fitting(&topology, Target::Primary, |_| true);
        assert!(takes_writes.len() <= 1, "seed {seed}: several take writes");
        if let Some(primary) = topology.primary() {
            let is_one = primary.is_up() && primary.role() == Some(Role::Primary);
            assert!(is_one && !primary.is_superseded, "seed {seed}: {} is the primary", primary.in_words());
        } else {
            let vain = topology.living_primaries().find(|node| !node.is_superseded);
            assert!(vain.is_none(), "seed {seed}: {} could be it", vain.unwrap().in_words());
        }
        let old = fitting(&topology, Target::Any, |node| node.is_superseded);
        assert!(old.is_empty(), "seed {seed}: an old primary gets sessions");
        let out = fitting(&topology, Target::Any, |node| !node.is_in_service());
        assert!(out.is_empty(), "seed {seed}: a node that is out of use gets sessions");
        let fall = self.keeper.cluster.check.fall.get();
        for (node, server) in topology.nodes.iter().zip(&self.servers) {
            assert!(server.failed < fall || !node.is_up(), "seed {seed}: {} is up", node.in_words());
        }
    }

    /// Nothing happens any more, and everybody is looked at.
    async fn calms_down(&mut self) {
        self.is_calm = true;
        for at in 0..self.servers.len() {
            self.is_administered(at, AdminState::Ready);
            self.holds();
        }
        // Longer than any probation in all.
        for seconds in [0, 0, 0, 20, 20] {
            advance(Duration::from_secs(seconds)).await;
            for at in 0..self.servers.len() {
                self.is_checked(at);
                self.holds();
            }
        }
        for at in 0..self.servers.len() {
            let server = self.servers[at].clone();
            let node = self.keeper.node(at);
            let is_well = node.verdict == Verdict::Up && node.held_back().is_none();
            assert_eq!(is_well, server.lives, "seed {}: {} is {server:?}", self.seed, node.in_words());
        }
        let primary = self.keeper.writes_go_to().map(|at| self.servers[at].timeline);
        let is_free = |node: &Arc<config::Node>| node.role.is_none() && 0 < node.weight;
        let is_free = self.has_timelines && self.keeper.cluster.nodes.iter().all(is_free);
        if let Some(primary) = primary.filter(|_| is_free) {
            let is_primary = |server: &&Server| server.lives && server.role == Role::Primary;
            let latest = self.servers.iter().filter(is_primary).map(|server| server.timeline).max();
            assert_eq!(latest, Some(primary), "seed {}: writes go to an earlier timeline", self.seed);
        }
    }
}

#[tokio::test(start_paused = true)]
#[expect(clippy::print_stdout, reason = "shown when it fails")]
async fn whatever_happens_what_must_be_true_is_true() {
    let first = std::env::var("PGSPLIT_SEED").ok().and_then(|seed| seed.parse().ok());
    let first = first.unwrap_or_else(|| fastrand::u64(..1 << 40));
    println!("seeds from {first}");
    let shapes = SHAPES.map(cluster);
    for seed in first..first + SCHEDULES {
        let (shape, metrics) = &shapes[usize::try_from(seed).unwrap() % SHAPES.len()];
        let lines = Lines::default();
        let _heard = tracing::subscriber::set_default(lines.clone());
        let mut world = World::new(seed, shape, metrics);
        for _ in 0..EVENTS {
            let at = world.random.usize(..world.servers.len());
            match world.random.u8(0..11) {
                10 => {
                    let admin = AdminState::ALL[world.random.usize(..3)];
                    world.is_administered(at, admin);
                }
                0..=1 => world.happens(at),
                2..=6 => world.is_checked(at),
                7 => world.is_met(at),
                _ => advance(Duration::from_millis(world.random.u64(1..1500))).await,
            }
            world.holds();
        }
        if seed % 4 == 0 {
            world.flaps(0);
        }
        world.calms_down().await;
        lines.are_few(seed);
    }
}

impl Lines {
    fn are_few(&self, seed: u64) {
        for (node, times) in self.0.lock().unwrap().iter() {
            for (at, from) in times.iter().enumerate() {
                let within =
                    times[at..].iter().filter(|time| **time - *from < Duration::from_secs(60)).count();
                assert!(within <= LINES_A_MINUTE, "seed {seed}: {within} lines about {node} in a minute");
            }
        }
    }
}

/// What a line says, and of whom.
#[derive(Default)]
struct Line {
    event: String,
    node: String,
    from: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "node" => value.clone_into(&mut self.node),
            "from" => value.clone_into(&mut self.from),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.event = format!("{value:?}");
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        // That a node is there, or is back after somebody has said so, is no change.
        if ["node_state", "node_flapping"].contains(&line.event.as_str()) && line.from != "starting" {
            self.0.lock().unwrap().entry(line.node).or_default().push(Instant::now());
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
