//! What the keeper knows of one node: what is published, and what must be remembered beside that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use tracing::{info, warn};

use crate::balance::flapping::Flapping;
use crate::balance::judge::{Judge, Verdict};
use crate::base::id::NodeId;
use crate::base::role::Role;
use crate::config::{self, Check, MaxLag};
use crate::telemetry::labels::NodeState;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::node::NodeMetrics;
use crate::topology::check::{Facts, Lineage};
use crate::topology::keeper::chatter::{Chatter, Say};
use crate::topology::keeper::rivals::Rivalry;
use crate::topology::order::AdminState;
use crate::topology::trouble::Trouble;
use crate::topology::{KnownRole, Lag, Node, RoleSource};

/// How long a node that said 53300 gets no new sessions, unless a check finds room before.
pub(super) const FULL_FOR: Duration = Duration::from_secs(1);

/// One node in the keeper's books.
pub(super) struct Record {
    /// What is published.
    pub(super) node: Node,
    /// Asks its watcher for a look at once.
    pub(super) hurry: Arc<Notify>,
    /// Log position the node reported last.
    pub(super) lsn: Option<u64>,
    judge: Judge,
    flapping: Flapping,
    full_for: Duration,
    pub(super) metrics: Arc<NodeMetrics>,
    /// Ends its checks when the record goes.
    pub(super) watched: Option<DropGuard>,
    /// The state that was counted last.
    noted: NodeState,
    /// The health that was seen last.
    seen: NodeState,
    /// The health that was logged last.
    told: NodeState,
    chatter: Chatter,
    /// The warning that was logged last, so that it is logged once.
    pub(super) warning: Option<String>,
    /// Why the last check was not made, if it was not: logged once, and no matter of the node's.
    not_made: Option<String>,
    /// The lag was too much at the last check.
    over_lag: bool,
    /// Until when its down time has been counted.
    down_counted: Option<Instant>,
    /// Since when it has been seen as a living primary.
    pub(super) primary_since: Option<Instant>,
    /// When it was seen that it is a primary now and was a standby before.
    pub(super) promoted: Option<Instant>,
    /// When it was last seen as a standby.
    pub(super) standby_seen: Option<Instant>,
    /// When it was last found to have been away, down or restarted between two checks, since it was last a standby.
    pub(super) away: Option<Instant>,
    /// When its server process began, by the server's own clock.
    started: Option<Duration>,
    /// Whether it lives beside the cluster's primary.
    pub(super) rivalry: Rivalry,
    /// When it last passed a check.
    pub(super) passed: Option<Instant>,
    /// Where its history stood when it was last seen as a primary.
    pub(super) lineage: Option<Lineage>,
    silence: Silence,
}

/// What sessions are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    /// What has got better.
    Better,
    /// All there is.
    All,
}

/// Whether a node that fails its checks says anything at all.
#[derive(Debug, Default)]
struct Silence {
    /// Since when checks have heard nothing at all from where the server is.
    since: Option<Instant>,
    /// Bytes its sessions had from it at the last check, if that failed.
    heard: Option<u64>,
    /// When they were last seen to have had more.
    heard_at: Option<Instant>,
}

/// What decided an observation, for the log.
pub(super) struct Cause<'a> {
    /// `check` or `session`.
    pub(super) seen_by: &'static str,
    /// In which step.
    pub(super) step: &'a str,
    /// What went wrong.
    pub(super) error: Option<&'a str>,
    /// With which code.
    pub(super) sqlstate: Option<&'a str>,
}

impl Record {
    /// A node nothing is known of.
    pub(super) fn new(node: Node, check: &Check, cluster: usize, metrics: &Arc<Metrics>) -> Self {
        Self {
            noted: node.state(),
            seen: node.health(),
            told: node.health(),
            chatter: Chatter::default(),
            metrics: metrics.node(cluster, node.id),
            node,
            hurry: Arc::default(),
            lsn: None,
            judge: Judge::new(check.rise, check.fall),
            flapping: Flapping::default(),
            full_for: full_for(check),
            watched: None,
            warning: None,
            not_made: None,
            over_lag: false,
            down_counted: None,
            primary_since: None,
            promoted: None,
            standby_seen: None,
            away: None,
            started: None,
            rivalry: Rivalry::None,
            passed: None,
            lineage: None,
            silence: Silence::default(),
        }
    }

    /// Takes what another version of the file says of the node, and of checks. What is known stays known. It is not watched
    /// any more when that is done otherwise from now on.
    pub(super) fn reconfigure(&mut self, config: &Arc<config::Node>, check: &Check, looks_differ: bool) {
        let before = std::mem::replace(&mut self.node.config, Arc::clone(config));
        // One that was set by hand stays as long as the file does not say something new.
        if before.weight != config.weight {
            self.node.weight = config.weight;
        }
        match (config.role, self.node.role) {
            (Some(role), _) if before.role != config.role => _ = self.take_role(role, RoleSource::File),
            // Believed until somebody looks.
            (None, Some(KnownRole { role, from: RoleSource::File })) => {
                self.node.role = Some(KnownRole { role, from: RoleSource::Check });
            }
            _ => {}
        }
        self.judge.adjust(check.rise, check.fall);
        self.node.progress = self.judge.progress();
        self.full_for = full_for(check);
        if looks_differ || before.password != config.password {
            self.watched = None;
        }
    }

    /// From now on it is this address of its name, or all of them. Somebody has to watch it anew if that is a change.
    pub(super) fn set_only_at(&mut self, addr: Option<SocketAddr>) {
        if std::mem::replace(&mut self.node.only_at, addr) != addr {
            self.watched = None;
            if let Some(addr) = addr {
                self.node.addrs = [addr].into();
            }
        }
    }

    /// Lets the judge hear one observation.
    pub(super) fn observe(&mut self, good: bool, cause: &Cause<'_>) {
        let changed = self.judge.observe(good);
        self.judged(changed, cause);
    }

    /// The same with a good one, which decides alone when there is nobody else who could do what this node can.
    pub(super) fn observe_good(&mut self, is_needed: bool, cause: &Cause<'_>) {
        let changed = if is_needed { self.judge.believe() } else { self.judge.observe(true) };
        self.judged(changed, cause);
    }

    fn judged(&mut self, changed: Option<Verdict>, cause: &Cause<'_>) {
        self.count_down_time();
        self.node.progress = self.judge.progress();
        if let Some(verdict) = changed {
            let (before, now) = (std::mem::replace(&mut self.node.verdict, verdict), Instant::now());
            if before == Verdict::Up {
                self.flapping.fell(now);
            }
            self.node.held_until = if verdict == Verdict::Up { self.flapping.rose(now) } else { None };
            self.node.since = SystemTime::now();
            self.down_counted = (verdict == Verdict::Down).then(Instant::now);
            // Those who wait for it come one by one, not all in the moment in which it can be reached again.
            self.node.valve.narrow();
            if verdict == Verdict::Down {
                self.node.full_until = None;
                self.primary_since = None;
                self.away = Some(Instant::now());
            } else if self.node.role() == Some(Role::Primary) {
                self.primary_since.get_or_insert_with(Instant::now);
            }
        }
        self.note(cause);
    }

    fn count_down_time(&mut self) {
        if let Some(counted) = &mut self.down_counted {
            let now = Instant::now();
            self.metrics.down_for(now - std::mem::replace(counted, now));
        }
    }

    /// The node is no longer there: ends its checks.
    pub(super) fn leave(&mut self) {
        self.count_down_time();
        self.watched = None;
    }

    /// What is wanted of the node from now on. Who puts it into maint has not to wait for the last check; to be watched
    /// again after that is for the caller.
    pub(super) fn set_admin(&mut self, admin: AdminState) {
        let before = std::mem::replace(&mut self.node.admin, admin);
        self.node.admin_since = SystemTime::now();
        match (before, admin) {
            (_, AdminState::Maint) => self.rest(),
            // Those who waited for it come one by one.
            (AdminState::Drain, AdminState::Ready) => self.node.valve.narrow(),
            _ => {}
        }
        self.count_state();
    }

    /// Ends its checks and forgets what they have taught of its health: the next one is the first. What it was stays known,
    /// as of a node that is down.
    fn rest(&mut self) {
        self.leave();
        self.judge = self.judge.anew();
        self.node.verdict = Verdict::Starting;
        self.node.progress = self.judge.progress();
        self.node.since = SystemTime::now();
        (self.node.full_until, self.node.held_until, self.flapping) = (None, None, Flapping::default());
        (self.node.lag, self.node.is_lagging, self.over_lag) = (Lag::default(), false, false);
        (self.down_counted, self.primary_since, self.promoted, self.passed) = (None, None, None, None);
        self.away = Some(Instant::now());
        self.silence = Silence::default();
        (self.seen, self.told, self.warning) = (NodeState::Starting, NodeState::Starting, None);
    }

    /// Takes in whether a check heard anything from where the node is, and how many bytes its sessions have had from it in all.
    ///
    /// A postmaster that is stopped or swamped answers no check, while its sessions go on being served: they must not be
    /// cut for what does not concern them.
    pub(super) fn listen(&mut self, shows_life: bool, heard: u64) {
        let before = if shows_life { None } else { self.silence.heard };
        if before.is_some_and(|before| before < heard) {
            self.silence.heard_at = Some(Instant::now());
        }
        self.silence.since =
            if shows_life { None } else { self.silence.since.or_else(|| Some(Instant::now())) };
        self.silence.heard = (!shows_life).then_some(heard);
    }

    /// What is the matter with the node. Nobody knows that its sessions hear nothing before that has been listened to for
    /// `at_least`; what they have heard counts for `patience`.
    pub(super) fn trouble(&self, primary: Option<NodeId>, at_least: Duration, patience: Duration) -> Trouble {
        let Self { node, silence, .. } = self;
        let is_heard = silence.heard_at.is_some_and(|at| at.elapsed() < patience);
        let is_silent = silence.since.is_some_and(|since| at_least <= since.elapsed()) && !is_heard;
        // Of two that could both take the writes, one that is drained is not therefore wrong.
        let is_passed_over = node.is_in_service() && primary.is_some_and(|primary| primary != node.id);
        Trouble {
            is_unreachable: node.verdict == Verdict::Down && is_silent,
            is_demoted: node.is_superseded || node.role() == Some(Role::Standby) || is_passed_over,
            is_lagging: node.is_lagging,
            is_leaving: false,
            is_draining: !node.is_in_service(),
        }
    }

    /// Tells the node's sessions what is the matter with it, when that is news to them.
    pub(super) fn tell_sessions(&self, trouble: Trouble, what: Tell) {
        let troubles = &self.node.troubles;
        troubles.post(if what == Tell::Better { troubles.now().and(trouble) } else { trouble });
    }

    /// The node has said that it is full, or has shown that it is not.
    pub(super) fn set_full(&mut self, is_full: bool) {
        self.node.full_until = is_full.then(|| Instant::now() + self.full_for);
    }

    /// Counts a change of state, and logs one of health unless it only leads up to one, or there are too many.
    pub(super) fn note(&mut self, cause: &Cause<'_>) {
        self.count_state();
        let health = self.node.health();
        let before = std::mem::replace(&mut self.seen, health);
        let now = Instant::now();
        if settled(before) != settled(health) {
            // That a node is there at all is no change.
            let say = if before == NodeState::Starting { Say::Change } else { self.chatter.changed(now) };
            if say != Say::Nothing {
                self.say_health(None, cause);
            }
            if let Say::ChangeAndFlapping(changes) = say {
                let (node, held) = (self.node.config.name.as_str(), self.flapping.probation().as_secs());
                warn!(node, changes, held_back_s = held, "node_flapping");
            }
        }
        if let Some(changes) = self.chatter.overdue(now) {
            self.say_health(Some(changes), cause);
        }
    }

    fn count_state(&mut self) {
        let state = self.node.state();
        if std::mem::replace(&mut self.noted, state) != state {
            self.metrics.state_change(state);
        }
    }

    /// Logs the health; `changes` is how many led to it that were not logged.
    fn say_health(&mut self, changes: Option<u32>, cause: &Cause<'_>) {
        let now = settled(self.node.health());
        let (from, to) = (std::mem::replace(&mut self.told, now).as_str(), now.as_str());
        let sessions = self.node.load.sessions();
        let (node, role) = (self.node.config.name.as_str(), self.node.role().map_or("unknown", Role::as_str));
        let Cause { seen_by, step, error, sqlstate } = *cause;
        if now == NodeState::Up {
            info!(node, from, to, role, seen_by, step, changes, "node_state");
        } else if self.node.is_in_service() {
            warn!(node, from, to, role, seen_by, step, error, sqlstate, sessions, changes, "node_state");
        } else {
            // It was to be expected.
            info!(node, from, to, role, seen_by, step, error, sqlstate, sessions, changes, "node_state");
        }
    }

    /// Believes a role, unless the file says which one it is; whether that was news.
    pub(super) fn set_role(&mut self, role: Role, from: RoleSource) -> bool {
        if self.node.role.is_some_and(|known| known.from == RoleSource::File) {
            return false;
        }
        self.take_role(role, from)
    }

    fn take_role(&mut self, role: Role, from: RoleSource) -> bool {
        let node = &mut self.node;
        let before = node.role();
        node.role = Some(KnownRole { role, from });
        if role == Role::Standby {
            self.standby_seen = Some(Instant::now());
        }
        if from == RoleSource::File {
            node.is_superseded = false;
        }
        if before == Some(role) {
            return false;
        }
        if role == Role::Primary {
            node.valve.narrow();
        }
        self.primary_since = (role == Role::Primary && node.is_up()).then(Instant::now);
        self.promoted = (role == Role::Primary && before == Some(Role::Standby)).then(Instant::now);
        if role == Role::Standby {
            (node.is_superseded, self.away, self.lineage) = (false, None, None);
        }
        // What was late as a standby says nothing of a primary.
        (node.lag, node.is_lagging, self.over_lag) = (Lag::default(), false, false);
        let was = before.map_or("unknown", Role::as_str);
        let (name, from) = (node.config.name.as_str(), from.as_str());
        info!(node = name, from = was, to = role.as_str(), seen_by = from, "node_role");
        true
    }

    /// Takes in what a check has found; `written` is what the primary had written at its own last check.
    pub(super) fn learn(&mut self, facts: &Facts, written: Option<u64>, max_lag: Option<MaxLag>) {
        let before = self.node.role();
        if let Some(role) = facts.role {
            self.set_role(role, RoleSource::Check);
        }
        let is_restarted = self.started.zip(facts.started).is_some_and(|(before, now)| before != now);
        if is_restarted && before == Some(Role::Primary) && self.node.role() == before {
            self.away = Some(Instant::now());
        }
        self.started = facts.started.or(self.started);
        self.lsn = facts.lsn;
        self.lineage = facts.lineage.or(self.lineage);
        let node = &mut self.node;
        node.read_only = facts.read_only.or(node.read_only);
        if facts.version.is_some() {
            node.version.clone_from(&facts.version);
        }
        if let Some(said) = &facts.patroni {
            let before = node.patroni.replace(said.clone()).is_some_and(|before| before.noloadbalance);
            if before != said.noloadbalance {
                let (name, noloadbalance) = (node.config.name.as_str(), said.noloadbalance);
                info!(node = name, noloadbalance, "patroni_noloadbalance");
            }
        }
        node.lag = if node.role() == Some(Role::Standby) { lag(facts, written) } else { Lag::default() };
        let Lag { time, bytes } = node.lag;
        let over = match max_lag {
            None => false,
            Some(MaxLag::Time(max)) => time.is_some_and(|time| max < time),
            Some(MaxLag::Bytes(max)) => bytes.is_some_and(|bytes| max < bytes),
        };
        // Two checks in a row either way: one late record must not move sessions about.
        let is_lagging = if over == self.over_lag { over } else { node.is_lagging };
        self.over_lag = over;
        if std::mem::replace(&mut node.is_lagging, is_lagging) != is_lagging {
            let (name, seconds) = (node.config.name.as_str(), time.map(|time| time.as_secs_f64()));
            warn!(node = name, lagging = is_lagging, lag_seconds = seconds, lag_bytes = bytes, "node_lag");
        }
    }

    /// Logs why a check was not made, when that is news; `None`: one was made.
    pub(super) fn not_made(&mut self, why: Option<&str>) {
        if let Some(error) = why.filter(|_| why != self.not_made.as_deref()) {
            warn!(node = self.node.config.name.as_str(), error, "check_not_made");
        }
        self.not_made = why.map(str::to_owned);
    }

    /// Logs a warning when it is another one than the last.
    pub(super) fn warn_once(&mut self, warning: Option<&str>) {
        if warning == self.warning.as_deref() {
            return;
        }
        if let Some(error) = warning {
            warn!(node = self.node.config.name.as_str(), error, "check_warning");
        }
        self.warning = warning.map(str::to_owned);
    }
}

fn full_for(check: &Check) -> Duration {
    FULL_FOR.max(check.fast_interval * 2)
}

/// The state a node is in while it goes to another one.
const fn settled(state: NodeState) -> NodeState {
    match state {
        NodeState::GoingDown => NodeState::Up,
        NodeState::GoingUp => NodeState::Down,
        state => state,
    }
}

/// A standby that has replayed all that its primary had written is not behind, however old the last transaction
/// is: an idle primary makes nobody late.
fn lag(facts: &Facts, written: Option<u64>) -> Lag {
    let bytes = written.zip(facts.lsn).map(|(written, replayed)| written.saturating_sub(replayed));
    let time = if bytes == Some(0) { Some(Duration::ZERO) } else { facts.replay_age };
    Lag { time, bytes }
}
