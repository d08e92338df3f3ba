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
use super::ready::missing;
use super::reload::Reloads;
use super::upgrade::{LastView, Upgrades};
use super::verdict::{self, Going};
use crate::balance::judge::Verdict;
use crate::base::role::Role;
use crate::config;
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
    pub(super) version: &'static str,
    pub(super) uptime_seconds: f64,
    pub(super) ready: bool,
    pub(super) draining: bool,
    /// How things are, in one word: `ok`, `degraded` (all is served, but not all is well), `failing` or `stopping`.
    pub(super) condition: &'static str,
    /// Where writes and reads go, and what is wrong, in a sentence or two.
    pub(super) verdict: String,
    pub(super) config: ConfigView,
    /// What became of the last upgrade.
    pub(super) upgrade: LastView,
    pub(super) totals: TotalsView,
    pub(super) listeners: Vec<ListenerView>,
    pub(super) nodes: Vec<NodeView>,
    /// Living primaries of each cluster.
    pub(super) primaries: BTreeMap<String, usize>,
    pub(super) http: Vec<FrontView>,
    /// Five minutes, second by second; `null` where it is left out because it was sent before.
    pub(super) history: Option<HistoryView>,
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
    pub upgrades: &'a Upgrades,
    pub history: &'a History,
    pub started: SystemTime,
}

#[derive(Debug, Serialize)]
pub(super) struct ConfigView {
    pub(super) path: String,
    /// When what is in force was read.
    pub(super) loaded_at: String,
    /// Of what is in force; `null` when it came from no file.
    pub(super) sha256: Option<String>,
    /// When it was last to be loaded again.
    pub(super) last_reload_at: Option<String>,
    /// Who wanted that: `signal`, `file` or `api`.
    pub(super) last_reload_by: Option<&'static str>,
    /// `applied`, `unchanged` or `failed`.
    pub(super) last_reload: Option<&'static str>,
    /// Why the last reload failed; `null`: it did not.
    pub(super) last_error: Option<String>,
}

/// One listener.
#[derive(Debug, Serialize)]
pub(super) struct ListenerView {
    pub(super) name: String,
    pub(super) bind: String,
    pub(super) cluster: String,
    pub(super) target: &'static str,
    pub(super) balance: &'static str,
    pub(super) ready: bool,
    /// Whether new sessions wait until somebody resumes it. That says nothing about `ready`.
    pub(super) paused: bool,
    pub(super) sessions: u32,
    pub(super) waiting: usize,
    pub(super) oldest_wait_seconds: f64,
    pub(super) limit: u32,
    pub(super) accepted_total: u64,
    pub(super) rejected_total: u64,
    /// Of late, connections accepted.
    pub(super) new_per_second: f64,
    /// Names of the nodes that new sessions go to now; none: they wait.
    pub(super) new_sessions_go_to: Vec<String>,
    /// Why there.
    pub(super) why: String,
}

/// One node.
#[derive(Debug, Serialize)]
pub(super) struct NodeView {
    pub(super) name: String,
    pub(super) cluster: String,
    pub(super) addr: String,
    /// Where it is, in words: `addr`, or the one address of a name that is this node.
    pub(super) at: String,
    pub(super) ip: Option<String>,
    pub(super) health: &'static str,
    pub(super) state: &'static str,
    /// What is wanted of it: ready, drain or maint.
    pub(super) admin: &'static str,
    pub(super) admin_since: String,
    /// What becomes of its sessions when it is drained: `keep`, `drain` or `close`.
    pub(super) on_drain: &'static str,
    pub(super) role: Option<&'static str>,
    /// An old primary, whose place another one has taken.
    pub(super) superseded: bool,
    /// How long it still gets no session that another node could have, because it came and went; 0: it is not held back.
    pub(super) held_back_s: f64,
    pub(super) role_from: Option<&'static str>,
    pub(super) lag_seconds: Option<f64>,
    pub(super) lag_bytes: Option<u64>,
    pub(super) server_version: Option<String>,
    pub(super) patroni: Option<PatroniView>,
    pub(super) weight: u16,
    /// That of the file; `weight` is another one when somebody has said so.
    pub(super) weight_in_file: u16,
    pub(super) backup: bool,
    pub(super) sessions: u32,
    /// Of late, sessions that have reached it.
    pub(super) new_per_second: f64,
    /// What all but one of a hundred connects of the last minute or two took at most.
    pub(super) connect_p99_seconds: Option<f64>,
    pub(super) limit: Option<u32>,
    pub(super) since: String,
    pub(super) check: Option<CheckView>,
}

/// What the Patroni beside a node said last.
#[derive(Debug, Serialize)]
pub(super) struct PatroniView {
    state: String,
    timeline: Option<u32>,
    /// Patroni has been told to leave the cluster alone.
    paused: bool,
    /// It is not to be read from while it is a standby.
    noloadbalance: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct CheckView {
    pub(super) ok: bool,
    pub(super) at: String,
    pub(super) step: &'static str,
    pub(super) error: Option<String>,
    pub(super) sqlstate: Option<String>,
    pub(super) duration_seconds: f64,
    /// Observations in a row against the present health.
    pub(super) against: u32,
    /// How many of them it takes.
    pub(super) needed: u32,
    /// What was done, in order; of a check that failed, the last one failed.
    pub(super) steps: Vec<StepView>,
}

#[derive(Debug, Serialize)]
pub(super) struct StepView {
    pub(super) name: &'static str,
    pub(super) seconds: f64,
    /// What it brought, in a few words.
    pub(super) found: String,
}

impl Seen<'_> {
    /// Everything; `with_history` also what was.
    pub(super) fn status(self, with_history: bool) -> Status {
        let Self { shared, setup, fronts, reloads, upgrades, history, started } = self;
        let clusters = setup.config.clusters.iter().zip(&setup.clusters);
        let primaries = clusters.map(|(cluster, watched)| {
            (cluster.name.clone(), watched.current.borrow().living_primaries().count())
        });
        let draining = shared.is_draining();
        let ready = !draining && missing(setup, fronts, None, None).is_some_and(|missing| missing.is_empty());
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: started.elapsed().unwrap_or_default().as_secs_f64(),
            ready,
            draining,
            condition: "",
            verdict: verdict::in_words(shared, setup, fronts),
            config: ConfigView::of(setup, reloads),
            upgrade: LastView::of(upgrades),
            totals: history.totals(),
            listeners: self.listeners().listeners,
            nodes: self.nodes().nodes,
            primaries: primaries.collect(),
            http: self.http().http,
            history: with_history.then(|| history.all()),
        };
        status.condition = status.in_one_word();
        status
    }

    pub(super) fn listeners(self) -> Listeners {
        Listeners { listeners: self.setup.listeners.iter().map(|listener| self.listener(listener)).collect() }
    }

    pub(super) fn http(self) -> Http {
        Http { http: self.fronts.iter().map(|front| FrontView::of(front)).collect() }
    }

    pub(super) fn nodes(self) -> Nodes {
        let mut nodes = Vec::new();
        for (cluster, watched) in self.setup.config.clusters.iter().zip(&self.setup.clusters) {
            let topology = Arc::clone(&watched.current.borrow());
            nodes.extend(topology.nodes.iter().map(|node| self.node(node, watched.index, cluster)));
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

    /// A node of the cluster, whose figures have this number.
    pub(super) fn node(self, node: &Node, number: usize, cluster: &config::Cluster) -> NodeView {
        let metrics = self.shared.metrics.node(number, node.id);
        NodeView {
            name: node.config.name.clone(),
            cluster: cluster.name.clone(),
            addr: node.config.addr.to_string(),
            at: node.place_in_words(),
            ip: node.addrs.first().map(|addr| addr.ip().to_string()),
            health: match node.verdict {
                Verdict::Starting => "unknown",
                Verdict::Up => "up",
                Verdict::Down => "down",
            },
            state: node.state().as_str(),
            admin: node.admin.as_str(),
            admin_since: time(node.admin_since),
            on_drain: cluster.sessions.on_drain.as_str(),
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
            new_per_second: self.history.new_of_node(number, node.id),
            connect_p99_seconds: metrics.connect_p99().map(|time| time.as_secs_f64()),
            limit: node.config.max_connections.map(std::num::NonZeroU32::get),
            since: time(node.since),
            check: node.last_check.as_deref().map(|report| CheckView::of(report, node.progress)),
        }
    }
}

impl Status {
    fn in_one_word(&self) -> &'static str {
        // Who has been taken out of use by hand is no fault.
        let is_well =
            |n: &NodeView| matches!(n.state, "drain" | "maint") || (n.state == "up" && n.is_of_full_use());
        let upstreams =
            || self.http.iter().flat_map(|front| &front.groups).flat_map(|group| &group.upstreams);
        if self.draining {
            "stopping"
        } else if !self.ready {
            "failing"
        } else if self.nodes.iter().all(is_well)
            && upstreams().all(|upstream| upstream.health == "up")
            && !self.listeners.iter().any(|listener| listener.paused)
        {
            "ok"
        } else {
            "degraded"
        }
    }

    /// The same for a person with a terminal.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut out =
            format!("pgsplit {}  up {:.0}s  {}\n", self.version, self.uptime_seconds, self.config.path);
        let _ = writeln!(out, "\n{}", self.verdict);
        if let Some(error) = &self.config.last_error {
            let _ = writeln!(out, "the last reload failed, what was before stays in force: {error}");
        }
        if let Some(error) = &self.upgrade.last_error {
            let _ = writeln!(out, "the last upgrade failed, this process goes on: {error}");
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
        let far = self.nodes.iter().map(|n| n.at.len()).fold(22, usize::max);
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
                n.name, n.at, n.sessions
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

impl NodeView {
    /// Whether nothing keeps a node that is up from its share of sessions.
    fn is_of_full_use(&self) -> bool {
        !self.superseded && self.held_back_s <= 0.0
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
