//! An HTTP front, and the rows of its upstreams.

use std::time::SystemTime;

use maud::{Markup, html};

use super::{Share, pill, tone};
use crate::admin::dashboard::words;
use crate::admin::http::{FrontView, UpstreamView};

/// An HTTP front.
#[derive(Debug, Default)]
pub(in crate::admin::dashboard) struct FrontCells {
    name: String,
    bind: String,
    state: String,
    tone: &'static str,
    figures: String,
    upstreams: Vec<UpstreamCells>,
}

/// The row of an HTTP front's upstream.
#[derive(Debug, Default)]
pub(in crate::admin::dashboard) struct UpstreamCells {
    key: String,
    group: String,
    upstream: String,
    addr: String,
    state: String,
    tone: &'static str,
    since: String,
    weight: String,
    requests: Share,
    total: String,
    check: String,
}

impl FrontCells {
    pub(in crate::admin::dashboard) fn of(front: &FrontView, now: SystemTime) -> Self {
        let upstreams = front.groups.iter().flat_map(|group| {
            group.upstreams.iter().map(move |upstream| UpstreamCells::of(&group.name, upstream, now))
        });
        Self {
            name: front.name.clone(),
            bind: front.bind.clone(),
            state: if front.ready { "ready".to_owned() } else { front.troubles.join("; ") },
            tone: if front.ready { "ok" } else { "bad" },
            figures: format!(
                "{} connections, {} requests, {} waiting, {} rejected since the start",
                words::count(front.connections),
                words::count(front.requests),
                words::count(front.waiting),
                words::count(front.rejected_total)
            ),
            upstreams: upstreams.collect(),
        }
    }

    pub(in crate::admin::dashboard) fn block(&self) -> Markup {
        html! {
            div.front data-key=(self.name) {
                h3 {
                    span data-f="name" { (self.name) } " " span.aside data-f="bind" { (self.bind) } " "
                    (pill(self.tone, &self.state))
                }
                p.aside data-f="figures" { (self.figures) }
                div.scroll {
                    table.fold aria-label="Upstreams" {
                        thead { tr {
                            th scope="col" { "Upstream" } th scope="col" { "Group" }
                            th scope="col" { abbr title="pgsplit_http_upstream_up" { "Health" } }
                            th scope="col" { "Weight" }
                            th scope="col" { abbr title="pgsplit_http_upstream_requests_active" { "Requests" } }
                            th scope="col" { abbr title="pgsplit_http_upstream_requests_total" { "Total" } }
                            th scope="col" { "Last check" }
                        } }
                        tbody { @for upstream in &self.upstreams { (upstream.row()) } }
                    }
                }
            }
        }
    }
}

impl UpstreamCells {
    fn of(group: &str, upstream: &UpstreamView, now: SystemTime) -> Self {
        Self {
            key: format!("{group} {} {}", upstream.upstream, upstream.addr),
            group: group.to_owned(),
            upstream: upstream.upstream.clone(),
            addr: if upstream.upstream == upstream.addr { String::new() } else { upstream.addr.clone() },
            state: upstream.health.replace('_', " "),
            tone: tone(upstream.health),
            since: words::since(&upstream.since, now),
            weight: format!("{}{}", upstream.weight, if upstream.backup { ", backup" } else { "" }),
            requests: Share::new(upstream.requests, upstream.limit),
            total: words::count(upstream.requests_total),
            check: upstream.check.clone().unwrap_or_else(|| "not yet".to_owned()),
        }
    }

    pub(in crate::admin::dashboard) fn row(&self) -> Markup {
        html! {
            tr data-key=(self.key) data-tone=(self.tone) {
                th scope="row" data-label="Upstream" {
                    span.name data-f="upstream" { (self.upstream) } span.under data-f="addr" { (self.addr) }
                }
                td data-label="Group" data-f="group" { (self.group) }
                td data-label="Health" {
                    (pill(self.tone, &self.state)) span.under { "for " span data-f="since" { (self.since) } }
                }
                td.number data-label="Weight" data-f="weight" { (self.weight) }
                td.number data-label="Requests" { (self.requests.markup()) }
                td.number data-label="Total" data-f="total" { (self.total) }
                td.check data-label="Last check" data-f="check" { (self.check) }
            }
        }
    }
}
