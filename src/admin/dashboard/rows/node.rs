//! A node's row.

use std::time::SystemTime;

use maud::{Markup, html};

use super::{Share, pill, tone};
use crate::admin::dashboard::words::{self, UNKNOWN};
use crate::admin::view::{CheckView, NodeView};

/// A node's row.
#[derive(Debug, Default)]
pub(in crate::admin::dashboard) struct NodeCells {
    name: String,
    /// Its cluster, where there are several.
    cluster: String,
    addr: String,
    state: String,
    tone: &'static str,
    /// `up for`, where `state` says what is wanted of it; else `for`.
    lasting: String,
    since: String,
    role: String,
    /// Its version, and what else is to be known of it.
    aside: String,
    lag: String,
    weight: String,
    sessions: Share,
    new: String,
    p99: String,
    check: CheckCells,
}

/// The last check of a node.
#[derive(Debug, Default)]
struct CheckCells {
    summary: String,
    tone: &'static str,
    /// Name, time and what was found, of each step.
    steps: Vec<[String; 3]>,
}

impl NodeCells {
    pub(in crate::admin::dashboard) fn of(node: &NodeView, several: bool, now: SystemTime) -> Self {
        let is_held = 0.0 < node.held_back_s;
        let state = if is_held { "held back" } else { node.state };
        let mut aside: Vec<String> =
            node.server_version.iter().map(|version| version_in_short(version)).collect();
        aside.extend(node.backup.then(|| "backup".to_owned()));
        // That of a node that is down is one it had.
        let is_of_now = node.health != "down";
        let lag = node.lag_seconds.map(|seconds| format!("{seconds:.1} s"));
        let lag = lag.or_else(|| node.lag_bytes.map(words::bytes)).filter(|_| is_of_now);
        Self {
            name: node.name.clone(),
            cluster: if several { node.cluster.clone() } else { String::new() },
            addr: node.at.clone(),
            state: state.replace('_', " "),
            tone: if is_held { "warn" } else { tone(node.state) },
            lasting: if node.admin == "ready" { "for".to_owned() } else { format!("{} for", node.health) },
            since: words::since(&node.since, now),
            role: if node.superseded { "old primary" } else { node.role.unwrap_or("unknown") }.to_owned(),
            aside: aside.join(", "),
            lag: lag.unwrap_or_else(|| UNKNOWN.to_owned()),
            weight: if node.weight == node.weight_in_file {
                node.weight.to_string()
            } else {
                format!("{} (file: {})", node.weight, node.weight_in_file)
            },
            sessions: Share::new(node.sessions, node.limit),
            new: words::rate(node.new_per_second),
            p99: node.connect_p99_seconds.map_or_else(|| UNKNOWN.to_owned(), words::span),
            check: node.check.as_ref().map_or_else(CheckCells::none, CheckCells::of),
        }
    }

    pub(in crate::admin::dashboard) fn row(&self) -> Markup {
        html! {
            tr data-key={ (self.cluster) "/" (self.name) } data-tone=(self.tone) {
                th scope="row" data-label="Node" {
                    span.name data-f="name" { (self.name) } " " span.aside data-f="cluster" { (self.cluster) }
                    span.under data-f="addr" { (self.addr) }
                }
                td data-label="Health" {
                    (pill(self.tone, &self.state))
                    span.under { span data-f="lasting" { (self.lasting) } " " span data-f="since" { (self.since) } }
                }
                td data-label="Role" {
                    span data-f="role" { (self.role) } span.under data-f="aside" { (self.aside) }
                }
                td.number data-label="Lag" data-f="lag" { (self.lag) }
                td.number data-label="Weight" data-f="weight" { (self.weight) }
                td.number data-label="Sessions" { (self.sessions.markup()) }
                td.number data-label="New/s" data-f="new" { (self.new) }
                td.number data-label="Connect p99" data-f="p99" { (self.p99) }
                td.check data-label="Last check" data-tone=(self.check.tone) { (self.check.markup()) }
                td.action { button type="button" data-do="change" aria-label={ "Change " (self.name) } { "Change…" } }
            }
        }
    }
}

impl CheckCells {
    fn none() -> Self {
        Self { summary: "not yet".to_owned(), ..Self::default() }
    }

    fn of(check: &CheckView) -> Self {
        let took = words::span(check.duration_seconds);
        let error = check.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        let summary = if check.ok {
            format!("ok in {took}{error}")
        } else {
            format!("{} failed after {took}{error}", check.step)
        };
        let steps = check
            .steps
            .iter()
            .map(|step| [step.name.to_owned(), words::span(step.seconds), step.found.clone()]);
        Self { summary, tone: if check.ok { "ok" } else { "bad" }, steps: steps.collect() }
    }

    fn markup(&self) -> Markup {
        html! {
            details {
                summary data-f="check" { (self.summary) }
                ol.steps {
                    @for [name, took, found] in &self.steps {
                        li { b { (name) } " " i { (took) } " " span { (found) } }
                    }
                }
            }
        }
    }
}

/// The first word of what a server says of itself: `15.20 (Debian 15.20-1)`.
fn version_in_short(version: &str) -> String {
    format!("PostgreSQL {}", version.split(' ').next().unwrap_or(version))
}
