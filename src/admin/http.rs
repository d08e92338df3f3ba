//! The HTTP fronts as the status shows them.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::view::time;
use crate::front::shared::Front;
use crate::front::upstream::Member;
use crate::front::upstream::check::Outcome;

/// One front.
#[derive(Debug, Serialize)]
pub(super) struct FrontView {
    pub(super) name: String,
    pub(super) bind: String,
    pub(super) ready: bool,
    /// Why it cannot serve everything.
    pub(super) troubles: Vec<String>,
    /// The listener its services depend on.
    pub(super) listener: Option<String>,
    pub(super) connections: u64,
    pub(super) requests: u64,
    pub(super) waiting: u64,
    pub(super) accepted_total: u64,
    pub(super) rejected_total: u64,
    pub(super) groups: Vec<GroupView>,
}

#[derive(Debug, Serialize)]
pub(super) struct GroupView {
    pub(super) name: String,
    pub(super) balance: &'static str,
    pub(super) upstreams: Vec<UpstreamView>,
}

#[derive(Debug, Serialize)]
pub(super) struct UpstreamView {
    pub(super) upstream: String,
    pub(super) addr: String,
    pub(super) health: &'static str,
    pub(super) weight: u16,
    pub(super) backup: bool,
    pub(super) requests: u32,
    pub(super) requests_total: u64,
    pub(super) limit: Option<u32>,
    pub(super) since: String,
    /// What the last check found; `null` before the first, or without checks.
    pub(super) check: Option<String>,
}

impl FrontView {
    pub(super) fn of(front: &Front) -> Self {
        let troubles = front.troubles();
        Self {
            name: front.config.name.clone(),
            bind: front.addr.to_string(),
            ready: troubles.is_empty(),
            troubles,
            listener: front.database.as_ref().map(|database| database.listener.clone()),
            connections: front.metrics.connections(),
            requests: front.metrics.in_flight(),
            waiting: front.metrics.waiting(),
            accepted_total: front.metrics.accepted(),
            rejected_total: front.metrics.rejected(),
            groups: front
                .groups
                .iter()
                .map(|group| GroupView {
                    name: group.config.name.clone(),
                    balance: group.config.balance.as_str(),
                    upstreams: {
                        let is_checked = group.config.check.is_some();
                        let standing = group.standing();
                        standing.members.iter().map(|m| UpstreamView::of(m, is_checked)).collect()
                    },
                })
                .collect(),
        }
    }

    /// The same for a person with a terminal.
    pub(super) fn in_words(&self, out: &mut String) {
        let state = if self.ready { "ready".to_owned() } else { self.troubles.join("; ") };
        let _ = writeln!(
            out,
            "\nHTTP {}  {}  {} connections  {} requests  {} waiting  {state}",
            self.name, self.bind, self.connections, self.requests, self.waiting
        );
        let _ = writeln!(
            out,
            "{:<16} {:<22} {:<22} {:<10} {:>8}  CHECK",
            "GROUP", "UPSTREAM", "ADDRESS", "HEALTH", "REQUESTS"
        );
        for (group, u) in self.groups.iter().flat_map(|g| g.upstreams.iter().map(move |u| (&g.name, u))) {
            let check = u.check.as_deref().unwrap_or("not yet");
            let _ = writeln!(
                out,
                "{group:<16} {:<22} {:<22} {:<10} {:>8}  {check}",
                u.upstream, u.addr, u.health, u.requests
            );
        }
    }
}

impl UpstreamView {
    fn of(member: &Member, is_checked: bool) -> Self {
        let instance = &member.instance;
        let check = member.last.as_ref().map(|look| {
            let ms = look.took.as_secs_f64() * 1e3;
            match &look.outcome {
                Outcome::Good(status) => format!("answered {status} ({ms:.1} ms)"),
                Outcome::Bad(error) | Outcome::NotMade(error) => format!("{error} ({ms:.1} ms)"),
            }
        });
        Self {
            upstream: instance.config.addr.to_string(),
            addr: instance.addr.to_string(),
            health: member.state(),
            weight: instance.config.weight,
            backup: instance.config.backup,
            requests: instance.load.sessions(),
            requests_total: instance.requests.load(Ordering::Relaxed),
            limit: instance.config.max_connections.map(std::num::NonZeroU32::get),
            since: time(member.since),
            check: if is_checked { check } else { Some("off".to_owned()) },
        }
    }
}
