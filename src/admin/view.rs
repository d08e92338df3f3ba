//! The status as others see it: `/api/v1/status`, its parts, and the same in words.
//!
//! Seconds are decimals, bytes integers, times RFC 3339 in UTC, the unknown is `null`. Within v1 fields are only
//! ever added.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::history::{History, HistoryView, TotalsView};
use super::http::FrontView;
use super::reload::Reloads;
use super::verdict::{self, Going};
use crate::balance::judge::Verdict;
use crate::base::role::Role;
use crate::front::shared::Front;
use crate::pg::sqlstate;
use crate::session::place::is_there_another;
use crate::session::setup::Setup;
use crate::session::shared::{Listener, Shared};
use crate::topology::Node;
use crate::topology::check::patroni::Said;
use crate::topology::check::{Outcome, Report};

/// Everything, at one moment.
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    uptime_seconds: f64,
    ready: bool,
    draining: bool,
    /// Where writes and reads go, and what is wrong, in a sentence or two.
    verdict: String,
    config: ConfigView,
    totals: TotalsView,
    listeners: Vec<ListenerView>,
    nodes: Vec<NodeView>,
    /// Living primaries of each cluster.
    primaries: BTreeMap<String, usize>,
    http: Vec<FrontView>,
    /// Five minutes, second by second; `null` where it is left out because it was sent before.
    history: Option<HistoryView>,
}

/// The listeners alone.
#[derive(Debug, Serialize)]
pub(super) struct Listeners {
    listeners: Vec<ListenerView>,
}

/// The nodes alone.
#[derive(Debug, Serialize)]
pub(super) struct Nodes {
    nodes: Vec<NodeView>,
}

/// The HTTP fronts alone.
#[derive(Debug, Serialize)]
pub(super) struct Http {
    http: Vec<FrontView>,
}

/// What the views are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub shared: &'a Shared,
    pub setup: &'a Setup,
    pub fronts: &'a [Arc<Front>],
    pub reloads: &'a Reloads,
    pub history: &'a History,
    pub started: SystemTime,
}

#[derive(Debug, Serialize)]
struct ConfigView {
    path: String,
    /// When what is in force was read.
    loaded_at: String,
    /// Of what is in force; `null` when it came from no file.
    sha256: Option<String>,
    /// When it was last to be loaded again.
    last_reload_at: Option<String>,
    /// Who wanted that: `signal`, `file` or `api`.
    last_reload_by: Option<&'static str>,
    /// `applied`, `unchanged` or `failed`.
    last_reload: Option<&'static str>,
    /// Why the last reload failed; `null`: it did not.
    last_error: Option<String>,
}

/// One listener.
#[derive(Debug, Serialize)]
pub(super) struct ListenerView {
    name: String,
    bind: String,
    cluster: String,
    target: &'static str,
    balance: &'static str,
    ready: bool,
    /// Whether new sessions wait until somebody resumes it. That says nothing about `ready`.
    paused: bool,
    sessions: u32,
    waiting: usize,
    oldest_wait_seconds: f64,
    limit: u32,
    accepted_total: u64,
    rejected_total: u64,
    /// Of late, connections accepted.
    new_per_second: f64,
    /// Names of the nodes that new sessions go to now; none: they wait.
    new_sessions_go_to: Vec<String>,
    /// Why there.
    why: String,
}

/// One node.
#[derive(Debug, Serialize)]
pub(super) struct NodeView {
    name: String,
    cluster: String,
    addr: String,
    /// Where it is, in words: `addr`, or the one address of a name that is this node.
    #[serde(skip)]
    shown: String,
    ip: Option<String>,
    health: &'static str,
    state: &'static str,
    /// What is wanted of it: ready, drain or maint.
    admin: &'static str,
    admin_since: String,
    role: Option<&'static str>,
    /// An old primary, whose place another one has taken.
    superseded: bool,
    /// How long it still gets no session that another node could have, because it came and went; 0: it is not held back.
    held_back_s: f64,
    role_from: Option<&'static str>,
    lag_seconds: Option<f64>,
    lag_bytes: Option<u64>,
    server_version: Option<String>,
    patroni: Option<PatroniView>,
    weight: u16,
    /// That of the file; `weight` is another one when somebody has said so.
    weight_in_file: u16,
    backup: bool,
    sessions: u32,
    /// Of late, sessions that have reached it.
    new_per_second: f64,
    /// What all but one of a hundred connects of the last minute or two took at most.
    connect_p99_seconds: Option<f64>,
    limit: Option<u32>,
    since: String,
    check: Option<CheckView>,
}

/// What the Patroni beside a node said last.
#[derive(Debug, Serialize)]
struct PatroniView {
    state: String,
    timeline: Option<u32>,
    /// Patroni has been told to leave the cluster alone.
    paused: bool,
    /// It is not to be read from while it is a standby.
    noloadbalance: bool,
}

#[derive(Debug, Serialize)]
struct CheckView {
    ok: bool,
    at: String,
    step: &'static str,
    error: Option<String>,
    sqlstate: Option<String>,
    duration_seconds: f64,
    /// Observations in a row against the present health.
    against: u32,
    /// How many of them it takes.
    needed: u32,
    /// What was done, in order; of a check that failed, the last one failed.
    steps: Vec<StepView>,
}

#[derive(Debug, Serialize)]
struct StepView {
    name: &'static str,
    seconds: f64,
    /// What it brought, in a few words.
    found: String,
}

impl Seen<'_> {
    /// Everything; `with_history` also what was.
    pub(super) fn status(self, with_history: bool) -> Status {
        let Self { shared, setup, fronts, reloads, history, started } = self;
        let clusters = setup.config.clusters.iter().zip(&setup.clusters);
        let primaries = clusters.map(|(cluster, watched)| {
            (cluster.name.clone(), watched.current.borrow().living_primaries().count())
        });
        let draining = shared.is_draining();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: started.elapsed().unwrap_or_default().as_secs_f64(),
            ready: !draining
                && setup.listeners.iter().all(|listener| is_there_another(listener, &[]))
                && fronts.iter().all(|front| front.troubles().is_empty()),
            draining,
            verdict: verdict::in_words(shared, setup, fronts),
            config: ConfigView::of(setup, reloads),
            totals: history.totals(),
            listeners: self.listeners().listeners,
            nodes: self.nodes().nodes,
            primaries: primaries.collect(),
            http: self.http().http,
            history: with_history.then(|| history.all()),
        }
    }

    pub(super) fn listeners(self) -> Listeners {
        Listeners { listeners: self.setup.listeners.iter().map(|listener| self.listener(listener)).collect() }
    }

    pub(super) fn http(self) -> Http {
        Http { http: self.fronts.iter().map(|front| FrontView::of(front)).collect() }
    }

    pub(super) fn nodes(self) -> Nodes {
        let mut nodes = Vec::new();
        let clusters = self.setup.config.clusters.iter().zip(&self.setup.clusters).enumerate();
        for (index, (cluster, watched)) in clusters {
            let topology = Arc::clone(&watched.current.borrow());
            nodes.extend(topology.nodes.iter().map(|node| self.node(node, index, &cluster.name)));
        }
        Nodes { nodes }
    }

    pub(super) fn listener(self, listener: &Listener) -> ListenerView {
        let metrics = &listener.metrics;
        let (waiting, oldest) = listener.waiting();
        let Going { to, why } = verdict::going(listener);
        ListenerView {
            name: listener.config.name.clone(),
            bind: listener.addr.to_string(),
            cluster: listener.cluster.name.clone(),
            target: listener.config.target.as_str(),
            balance: listener.config.balance.as_str(),
            ready: is_there_another(listener, &[]),
            paused: listener.is_paused(),
            sessions: listener.active(),
            waiting,
            oldest_wait_seconds: oldest.map_or(0.0, |since| since.elapsed().as_secs_f64()),
            limit: listener.config.max_connections.get(),
            accepted_total: metrics.accepted(),
            rejected_total: metrics.rejected(),
            new_per_second: self.history.new_of_listener(listener.index),
            new_sessions_go_to: to,
            why,
        }
    }

    /// A node of the cluster at this place of the configuration.
    pub(super) fn node(self, node: &Node, index: usize, cluster: &str) -> NodeView {
        let metrics = self.shared.metrics.node(index, node.id);
        NodeView {
            name: node.config.name.clone(),
            cluster: cluster.to_owned(),
            addr: node.config.addr.to_string(),
            shown: node.place_in_words(),
            ip: node.addrs.first().map(|addr| addr.ip().to_string()),
            health: match node.verdict {
                Verdict::Starting => "unknown",
                Verdict::Up => "up",
                Verdict::Down => "down",
            },
            state: node.state().as_str(),
            admin: node.admin.as_str(),
            admin_since: time(node.admin_since),
            role: node.role().map(Role::as_str),
            superseded: node.is_superseded,
            held_back_s: node.held_back().unwrap_or_default().as_secs_f64(),
            role_from: node.role.map(|known| known.from.as_str()),
            lag_seconds: node.lag.time.map(|time| time.as_secs_f64()),
            lag_bytes: node.lag.bytes,
            server_version: node.version.clone(),
            patroni: node.patroni.as_ref().map(PatroniView::of),
            weight: node.weight,
            weight_in_file: node.config.weight,
            backup: node.config.backup,
            sessions: node.load.sessions(),
            new_per_second: self.history.new_of_node(index, node.id),
            connect_p99_seconds: metrics.connect_p99().map(|time| time.as_secs_f64()),
            limit: node.config.max_connections.map(std::num::NonZeroU32::get),
            since: time(node.since),
            check: node.last_check.as_deref().map(|report| CheckView::of(report, node.progress)),
        }
    }
}

impl Status {
    /// The same for a person with a terminal.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut out =
            format!("pgsplit {}  up {:.0}s  {}\n", self.version, self.uptime_seconds, self.config.path);
        let _ = writeln!(out, "\n{}", self.verdict);
        if let Some(error) = &self.config.last_error {
            let _ = writeln!(out, "the last reload failed, what was before stays in force: {error}");
        }
        if !self.listeners.is_empty() {
            self.databases_in_words(&mut out);
        }
        self.http.iter().for_each(|front| front.in_words(&mut out));
        out
    }

    fn databases_in_words(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n{:<10} {:<22} {:<15} {:>8} {:>8}  READY",
            "LISTENER", "BIND", "TARGET", "SESSIONS", "WAITING"
        );
        for l in &self.listeners {
            let ready = match (l.paused, l.ready) {
                (false, true) => "yes",
                (false, false) => "no node",
                (true, true) => "paused",
                (true, false) => "paused, no node",
            };
            let _ = writeln!(
                out,
                "{:<10} {:<22} {:<15} {:>8} {:>8}  {ready}",
                l.name, l.bind, l.target, l.sessions, l.waiting
            );
        }
        let wide = self.nodes.iter().map(|n| n.name.len()).fold(16, usize::max);
        let far = self.nodes.iter().map(|n| n.shown.len()).fold(22, usize::max);
        let _ = writeln!(
            out,
            "\n{:<wide$} {:<far$} {:<10} {:<11} {:>9} {:>8}  CHECK",
            "NODE", "ADDRESS", "HEALTH", "ROLE", "LAG", "SESSIONS"
        );
        for n in &self.nodes {
            let lag = n.lag_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"));
            let check = n.check.as_ref().map_or_else(|| "not yet".to_owned(), CheckView::in_words);
            let notes = n.patroni.as_ref().map(PatroniView::notes).unwrap_or_default();
            let role = if n.superseded { "old primary" } else { n.role.unwrap_or("unknown") };
            let state = if 0.0 < n.held_back_s { "held back" } else { n.state };
            let _ = writeln!(
                out,
                "{:<wide$} {:<far$} {state:<10} {role:<11} {lag:>9} {:>8}  {check}{notes}",
                n.name, n.shown, n.sessions
            );
        }
    }
}

impl ConfigView {
    fn of(setup: &Setup, reloads: &Reloads) -> Self {
        let last = reloads.last();
        Self {
            path: setup.origin.to_string(),
            loaded_at: time(setup.loaded_at),
            sha256: setup.config.read.sha256.clone(),
            last_reload_at: last.as_ref().map(|last| time(last.at)),
            last_reload_by: last.as_ref().map(|last| last.by),
            last_reload: last.as_ref().map(|last| last.result().as_str()),
            last_error: last.and_then(|last| last.error()),
        }
    }
}

impl PatroniView {
    fn of(said: &Said) -> Self {
        Self {
            state: said.state.clone(),
            timeline: said.timeline,
            paused: said.is_paused,
            noloadbalance: said.noloadbalance,
        }
    }

    /// What people should know who look at the node; mostly nothing.
    fn notes(&self) -> String {
        let notes = [(self.noloadbalance, ", noloadbalance"), (self.paused, ", Patroni paused")];
        notes.into_iter().filter(|(is_so, _)| *is_so).map(|(_, words)| words).collect()
    }
}

impl CheckView {
    fn of(report: &Report, (against, needed): (u32, u32)) -> Self {
        let (ok, error, sqlstate) = match &report.outcome {
            Outcome::Up(facts) => (true, facts.warning.clone(), None),
            Outcome::Full(text) => {
                (true, Some(text.clone()), Some(sqlstate::TOO_MANY_CONNECTIONS.to_owned()))
            }
            Outcome::Failed(failure) => (false, Some(failure.text.clone()), failure.sqlstate.clone()),
            Outcome::NotMade(text) => (false, Some(text.clone()), None),
        };
        let step = report.steps.last().map_or("", |step| step.name);
        let duration_seconds = report.took.as_secs_f64();
        let steps = report.steps.iter().map(|step| StepView {
            name: step.name,
            seconds: step.took.as_secs_f64(),
            found: step.found.clone(),
        });
        let steps = steps.collect();
        Self { ok, at: time(report.at), step, error, sqlstate, duration_seconds, against, needed, steps }
    }

    fn in_words(&self) -> String {
        let result = if self.ok { "ok" } else { "failed" };
        let error = self.error.as_deref().map(|error| format!(" ({error})")).unwrap_or_default();
        format!("{} {result} {:.1} ms{error}", self.step, self.duration_seconds * 1e3)
    }
}

pub(super) fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
