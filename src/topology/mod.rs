//! The control side: what is held true of every node, and how that comes about.
//!
//! One [`watcher`] task a node looks at it again and again ([`check`]) and reports to the [`keeper`], the only
//! writer, which judges what it is told and publishes an immutable [`Topology`]. Sessions read that
//! ([`choose`]) and tell the keeper what they met on the way ([`outcome`]).
//!
//! # Invariants
//!
//! - Health and role are two things: a node that is not what a listener wants is not therefore down.
//! - A node that is full (53300) is not down: it gets no new session, and keeps those it has.
//! - What people want of a node (its admin state) is a third thing, and changes neither: see [`order`].
//! - One slow node delays nobody's check but its own.
//! - What is told of a node that is gone is never taken for news of the one that has its place now.

pub mod check;
pub mod choose;
pub mod keeper;
pub mod order;
pub mod outcome;
pub mod scram;
pub mod trouble;
pub mod watcher;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::balance::judge::Verdict;
use crate::balance::load::{Load, Wakes};
use crate::balance::valve::Valve;
use crate::base::board::Board;
use crate::base::id::NodeId;
use crate::base::role::Role;
use crate::config;
use crate::telemetry::labels::NodeState;
use check::{Outcome, Report, patroni};
use order::AdminState;
use trouble::{Trouble, Troubles};

/// What is held true of one cluster at one moment.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// The nodes that are there. In the order of the file, the addresses of one name in the order of their places.
    pub nodes: Vec<Node>,
    /// The cluster's primary, which takes the writes; of several, the one that `keeper::succession` has settled on.
    pub primary: Option<NodeId>,
    /// Nodes that are no longer there, for as long as sessions on them go on.
    pub departed: Vec<Departed>,
}

/// A node that is no longer there: its name does not lead to its address any more, or the file does not have it.
#[derive(Clone, Debug)]
pub struct Departed {
    /// Which one it was.
    pub id: NodeId,
    /// Where it is, if it still is.
    pub addrs: Arc<[SocketAddr]>,
    /// Its sessions now.
    pub load: Arc<Load>,
}

/// The place where the current [`Topology`] of a cluster is found.
pub type Current = watch::Receiver<Arc<Topology>>;

/// What is held true of one node at one moment.
#[derive(Clone, Debug)]
pub struct Node {
    /// Which one it is.
    pub id: NodeId,
    /// What the file says of it. A further address of a name has a name of its own there: `db/2`.
    pub config: Arc<config::Node>,
    /// Whether it is to be used.
    pub admin: AdminState,
    /// Since when.
    pub admin_since: SystemTime,
    /// Its share of new sessions, 0 to 256; that of the file, unless somebody has set another one.
    pub weight: u16,
    /// Its only address, where each address of a name is a node of its own.
    pub only_at: Option<SocketAddr>,
    /// Its sessions now; the same object in every snapshot.
    pub load: Arc<Load>,
    /// How many of them may log in at a time; the same object in every snapshot.
    pub valve: Arc<Valve>,
    /// What is the matter with it, for the sessions that are on it.
    pub troubles: Troubles,
    /// Where its name led when it last led anywhere.
    pub addrs: Arc<[SocketAddr]>,
    /// Whether it is alive.
    pub verdict: Verdict,
    /// Observations in a row against the verdict, and how many it takes.
    pub progress: (u32, u32),
    /// Until when it gets no new sessions because it said it was full.
    pub full_until: Option<Instant>,
    /// Until when it is on probation, because it came and went: see [`flapping`](crate::balance::flapping).
    pub held_until: Option<Instant>,
    /// What it is, as far as known; while it is down, what it was.
    pub role: Option<KnownRole>,
    /// Whether it is an old primary, whose place another one has taken. It gets no session, not even for reads.
    pub is_superseded: bool,
    /// Whether its sessions are read-only by default.
    pub read_only: Option<bool>,
    /// How far it is behind.
    pub lag: Lag,
    /// Whether that is more than allowed.
    pub is_lagging: bool,
    /// What its Patroni said last.
    pub patroni: Option<patroni::Said>,
    /// The server's version, when a login told it.
    pub version: Option<String>,
    /// When the verdict last changed.
    pub since: SystemTime,
    /// The latest check.
    pub last_check: Option<Arc<Report>>,
}

/// A role and how it was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownRole {
    /// The role.
    pub role: Role,
    /// How it was learnt.
    pub from: RoleSource,
}

/// How a role was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleSource {
    /// Written in the file; wins over everything.
    File,
    /// A check logged in.
    Check,
    /// A client logged in and the server said so.
    Client,
}

impl RoleSource {
    /// The word for status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Check => "check",
            Self::Client => "client",
        }
    }
}

/// How far a standby is behind, as far as it may be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    /// Age of the last transaction it replayed; zero when it has replayed all there is.
    pub time: Option<Duration>,
    /// Bytes of write-ahead log that the primary has written and it has not replayed.
    pub bytes: Option<u64>,
}

impl Topology {
    /// All unknown, as before the first check.
    #[must_use]
    pub fn starting(cluster: &config::Cluster, freed: &Arc<Notify>) -> Self {
        let nodes = cluster.nodes.iter().enumerate();
        let nodes = nodes.map(|(at, config)| Node::starting(NodeId::first(at), config, Arc::clone(freed)));
        Self { nodes: nodes.collect(), ..Self::default() }
    }

    /// Nodes that are alive and take writes; more than one is trouble.
    pub fn living_primaries(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_up() && node.role() == Some(Role::Primary))
    }

    /// The cluster's primary.
    #[must_use]
    pub fn primary(&self) -> Option<&Node> {
        self.node(self.primary?)
    }

    /// That node, if it is still there.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

impl Node {
    fn starting(id: NodeId, config: &Arc<config::Node>, freed: Arc<Notify>) -> Self {
        Self {
            id,
            config: Arc::clone(config),
            admin: AdminState::Ready,
            admin_since: SystemTime::now(),
            weight: config.weight,
            only_at: None,
            load: Arc::new(Load::new(Arc::clone(&freed), Wakes::All)),
            valve: Arc::new(Valve::new(freed)),
            troubles: Board::new(Trouble::default()),
            addrs: Arc::new([]),
            verdict: Verdict::Starting,
            progress: (0, 1),
            full_until: None,
            held_until: None,
            role: config.role.map(|role| KnownRole { role, from: RoleSource::File }),
            is_superseded: false,
            read_only: None,
            lag: Lag::default(),
            is_lagging: false,
            patroni: None,
            version: None,
            since: SystemTime::now(),
            last_check: None,
        }
    }

    /// Where it is, for a person.
    #[must_use]
    pub fn place_in_words(&self) -> String {
        self.only_at.map_or_else(|| self.config.addr.to_string(), |addr| addr.to_string())
    }

    /// Its role, however learnt.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.role.map(|known| known.role)
    }

    /// Whether it is alive.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.verdict == Verdict::Up
    }

    /// Whether what was seen of it last was bad, though not often enough yet to call it down.
    #[must_use]
    pub fn is_going_down(&self) -> bool {
        self.is_up() && 0 < self.progress.0
    }

    /// Whether it is alive and nothing speaks against that.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.is_up() && !self.is_going_down()
    }

    /// Whether it has said, a moment ago, that it takes no more sessions.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether it is a standby that is not to be read from, by a tag of its Patroni. As a primary it takes all that comes.
    #[must_use]
    pub fn is_kept_from_reads(&self) -> bool {
        self.role() != Some(Role::Primary) && self.patroni.as_ref().is_some_and(|said| said.noloadbalance)
    }

    /// How long it is still on probation: it gets no session then that another node could have.
    #[must_use]
    pub fn held_back(&self) -> Option<Duration> {
        let left = self.held_until?.saturating_duration_since(Instant::now());
        (self.is_up() && !left.is_zero()).then_some(left)
    }

    /// Whether nobody has taken it out of use.
    #[must_use]
    pub fn is_in_service(&self) -> bool {
        self.admin == AdminState::Ready
    }

    /// Whether nobody looks at it, as somebody has said.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.admin == AdminState::Maint
    }

    /// Whether it is to get sessions at all, as far as people have a say in it.
    #[must_use]
    pub fn is_of_use(&self) -> bool {
        self.is_in_service() && 0 < self.weight
    }

    /// Whether it has fewer sessions than the file allows.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.config.max_connections.is_none_or(|limit| self.load.sessions() < limit.get())
    }

    /// Its state in one word, for metrics and status: what people want of it, and if they want it used, its health.
    #[must_use]
    pub fn state(&self) -> NodeState {
        match self.admin {
            AdminState::Ready => self.health(),
            AdminState::Drain => NodeState::Drain,
            AdminState::Maint => NodeState::Maint,
        }
    }

    /// Its health in one word, whatever people want of it.
    #[must_use]
    pub fn health(&self) -> NodeState {
        match (self.verdict, self.progress) {
            (Verdict::Starting, _) => NodeState::Starting,
            (Verdict::Up, _) if self.is_full() => NodeState::Full,
            (Verdict::Up, (0, _)) => NodeState::Up,
            (Verdict::Up, _) => NodeState::GoingDown,
            (Verdict::Down, (0, _)) => NodeState::Down,
            (Verdict::Down, _) => NodeState::GoingUp,
        }
    }

    /// Why it is not used, or what it is, in a few words for a person: `down 12s (connection refused)`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let name = &self.config.name;
        let role = self.role().map_or("role unknown", Role::as_str);
        match self.verdict {
            _ if !self.is_in_service() => format!("{name} in {}", self.admin.as_str()),
            Verdict::Starting => format!("{name} not checked yet"),
            Verdict::Up if self.weight == 0 => format!("{name} has weight 0"),
            Verdict::Up if self.is_kept_from_reads() => format!("{name} {role}, tag noloadbalance"),
            Verdict::Up if self.is_full() => format!("{name} {role}, full"),
            Verdict::Up if !self.has_room() => format!("{name} {role}, all its places taken"),
            Verdict::Up if self.is_superseded => format!("{name} old primary, another has taken its place"),
            Verdict::Up if self.is_going_down() => format!("{name} {role}, failing"),
            Verdict::Up if self.held_back().is_some() => format!("{name} {role}, held back"),
            Verdict::Up if self.is_lagging => format!("{name} {role}, lagging"),
            Verdict::Up => format!("{name} {role}"),
            Verdict::Down => {
                let seconds = self.since.elapsed().unwrap_or_default().as_secs();
                match self.last_check.as_deref().map(|report| &report.outcome) {
                    Some(Outcome::Failed(failure)) => format!("{name} down {seconds}s ({})", failure.text),
                    _ => format!("{name} down {seconds}s"),
                }
            }
        }
    }
}
