//! The status as others see it: `/api/v1/status`, and the same in words.
//!
//! Seconds are decimals, bytes integers, times RFC 3339 in UTC, the unknown is `null`. Within v1 fields are only
//! ever added.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::http::FrontView;
use super::reload::Reloads;
use crate::balance::judge::Verdict;
use crate::base::role::Role;
use crate::front::shared::Front;
use crate::pg::sqlstate;
use crate::session::place::is_there_another;
use crate::session::setup::Setup;
use crate::session::shared::{Listener, Shared};
use crate::topology::Node;
use crate::topology::check::{Outcome, Report};

/// Everything, at one moment.
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    uptime_seconds: f64,
    ready: bool,
    draining: bool,
    config: ConfigView,
    listeners: Vec<ListenerView>,
    nodes: Vec<NodeView>,
    /// Living primaries of each cluster.
    primaries: BTreeMap<String, usize>,
    http: Vec<FrontView>,
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
    weight: u16,
    /// That of the file; `weight` is another one when somebody has said so.
    weight_in_file: u16,
    backup: bool,
    sessions: u32,
    limit: Option<u32>,
    since: String,
    check: Option<CheckView>,
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
}

impl Status {
    /// The status of a process that started then.
    #[must_use]
    pub fn of(shared: &Shared, fronts: &[Arc<Front>], reloads: &Reloads, started: SystemTime) -> Self {
        let setup = shared.setup();
        let mut nodes = Vec::new();
        let mut primaries = BTreeMap::new();
        for (cluster, watched) in setup.config.clusters.iter().zip(&setup.clusters) {
            let topology = watched.current.borrow();
            primaries.insert(cluster.name.clone(), topology.living_primaries().count());
            nodes.extend(topology.nodes.iter().map(|node| NodeView::of(node, &cluster.name)));
        }
        let draining = shared.is_draining();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: started.elapsed().unwrap_or_default().as_secs_f64(),
            ready: !draining
                && setup.listeners.iter().all(|listener| is_there_another(listener, &[]))
                && fronts.iter().all(|front| front.troubles().is_empty()),
            draining,
            config: ConfigView::of(&setup, reloads),
            listeners: setup.listeners.iter().map(|listener| ListenerView::of(listener)).collect(),
            nodes,
            primaries,
            http: fronts.iter().map(|front| FrontView::of(front)).collect(),
        }
    }

    /// The same for a person with a terminal.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut out =
            format!("pgsplit {}  up {:.0}s  {}\n", self.version, self.uptime_seconds, self.config.path);
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
            let role = if n.superseded { "old primary" } else { n.role.unwrap_or("unknown") };
            let state = if 0.0 < n.held_back_s { "held back" } else { n.state };
            let _ = writeln!(
                out,
                "{:<wide$} {:<far$} {state:<10} {role:<11} {lag:>9} {:>8}  {check}",
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

impl ListenerView {
    pub(super) fn of(listener: &Listener) -> Self {
        let metrics = &listener.metrics;
        let (waiting, oldest) = listener.waiting();
        Self {
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
        }
    }
}

impl NodeView {
    pub(super) fn of(node: &Node, cluster: &str) -> Self {
        Self {
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
            weight: node.weight,
            weight_in_file: node.config.weight,
            backup: node.config.backup,
            sessions: node.load.sessions(),
            limit: node.config.max_connections.map(std::num::NonZeroU32::get),
            since: time(node.since),
            check: node.last_check.as_deref().map(|report| CheckView::of(report, node.progress)),
        }
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
        Self { ok, at: time(report.at), step, error, sqlstate, duration_seconds, against, needed }
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
