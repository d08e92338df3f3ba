//! The page's frame: what stands where. The rows of its tables are in [`super::rows`].

use std::sync::Arc;
use std::time::SystemTime;

use maud::{DOCTYPE, Markup, html};

use super::files::{SCRIPT, STYLE};
use super::rows::{self, EventCells, FrontCells, ListenerCells, NodeCells, SessionCells};
use super::{EVENTS, SESSIONS, dialogs, spark, words};
use crate::admin::sessions::List;
use crate::admin::view::{Status, time};
use crate::telemetry::events::Event;

/// A browser asks for one of its own unless the page has one.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' \
                    height='16' rx='4' fill='%231f5fbf'/%3E%3Cpath d='M3 8h4l5-4M7 8l5 4' fill='none' stroke='white' \
                    stroke-width='2' stroke-linecap='round'/%3E%3C/svg%3E";

/// What stands in that column.
const P99: &str =
    "pgsplit_node_connect_duration_seconds: what 99 of 100 connects of the last minutes took at most";

/// What is on the page.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) struct Page<'a> {
    pub status: &'a Status,
    /// The latest, the oldest first.
    pub events: &'a [Arc<Event>],
    /// The number of the latest of all.
    pub last_event: u64,
    pub sessions: &'a List,
}

/// A card: a figure, and how it was of late.
struct Card<'a> {
    key: &'static str,
    title: &'static str,
    metric: &'static str,
    value: String,
    figures: &'a [u64],
}

impl Page<'_> {
    /// All of it.
    pub(super) fn render(&self) -> String {
        let Self { status, .. } = self;
        let now = SystemTime::now();
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (condition(status.condition)) " · pgsplit" }
                    link rel="icon" href=(ICON);
                    link rel="stylesheet" href=(STYLE.link());
                    script type="module" src=(SCRIPT.link()) {}
                }
                body data-last-event=(self.last_event) data-sessions=(SESSIONS) data-events=(EVENTS)
                    data-version=(status.version) {
                    a.skip href="#nodes" { "Skip to the nodes" }
                    (self.header(now))
                    main {
                        (self.verdict())
                        (self.cards())
                        (self.nodes(now))
                        (self.listeners())
                        (self.fronts(now))
                        (self.events())
                        (self.sessions())
                        (self.config(now))
                    }
                    (footer())
                    (dialogs::markup())
                    (templates())
                }
            }
        };
        page.into_string()
    }

    fn header(&self, now: SystemTime) -> Markup {
        let Self { status, .. } = self;
        html! {
            header.top {
                h1 { "pgsplit" }
                p.about {
                    span { "version " (status.version) }
                    span { "up " span #uptime { (words::age(status.uptime_seconds)) } }
                    span.path { (status.config.path) }
                }
                p #news .news data-tone="off" {
                    "as of " time datetime=(time(now)) { (words::hour(&time(now))) } " UTC"
                    noscript { "; without JavaScript the page stays as it is" }
                }
            }
        }
    }

    fn verdict(&self) -> Markup {
        let Self { status, .. } = self;
        html! {
            section #top .verdict aria-label="Verdict" data-condition=(status.condition) {
                p #condition .condition { (condition(status.condition)) }
                p #verdict { (status.verdict) }
                p #reload-fault .fault hidden[status.config.last_error.is_none()] {
                    "The last reload failed, and what was before stays in force: "
                    span #reload-error { (status.config.last_error.as_deref().unwrap_or_default()) }
                }
            }
            // Told again only when it is another one, not when a node has been down for one more second.
            p #spoken .unseen role="status" aria-live="polite" {}
        }
    }

    fn cards(&self) -> Markup {
        let Self { status, .. } = self;
        let totals = &status.totals;
        let history = status.history.as_ref();
        let of = |get: fn(&crate::admin::history::HistoryView) -> &Vec<u64>| -> &[u64] {
            history.map(|history| get(history).as_slice()).unwrap_or_default()
        };
        let moved: Vec<u64> = of(|history| &history.to_client_bytes)
            .iter()
            .zip(of(|history| &history.to_node_bytes))
            .map(|(a, b)| a.saturating_add(*b))
            .collect();
        let bytes = totals.to_client_bytes_per_second.saturating_add(totals.to_node_bytes_per_second);
        let cards = [
            Card {
                key: "sessions",
                title: "Sessions",
                metric: "pgsplit_sessions_active",
                value: words::count(totals.sessions),
                figures: of(|history| &history.sessions),
            },
            Card {
                key: "waiting",
                title: "Waiting",
                metric: "pgsplit_sessions_waiting",
                value: words::count(totals.waiting),
                figures: of(|history| &history.waiting),
            },
            Card {
                key: "new",
                title: "New/s",
                metric: "pgsplit_connections_accepted_total",
                value: words::count(totals.new_per_second),
                figures: of(|history| &history.new),
            },
            Card {
                key: "rejected",
                title: "Rejected/s",
                metric: "pgsplit_connections_rejected_total",
                value: words::count(totals.rejected_per_second),
                figures: of(|history| &history.rejected),
            },
            Card {
                key: "bytes",
                title: "Bytes/s",
                metric: "pgsplit_bytes_total",
                value: words::bytes(bytes),
                figures: &moved,
            },
        ];
        html! {
            section aria-label="Figures of the last five minutes" {
                dl.cards { @for card in &cards { (card.render()) } }
            }
        }
    }

    fn nodes(&self, now: SystemTime) -> Markup {
        let several = self
            .status
            .nodes
            .windows(2)
            .any(|pair| pair.first().map(|n| &n.cluster) != pair.last().map(|n| &n.cluster));
        html! {
            section #nodes aria-labelledby="nodes-title" hidden[self.status.nodes.is_empty()] {
                h2 #nodes-title { "Nodes" }
                div.scroll {
                    table.fold aria-labelledby="nodes-title" {
                        thead { tr {
                            (head("Node", "The name in the file, and the address"))
                            (head("Health", "pgsplit_node_state"))
                            (head("Role", "pgsplit_node_role"))
                            (head("Lag", "pgsplit_node_lag_seconds"))
                            (head("Weight", "pgsplit_node_weight"))
                            (head("Sessions", "pgsplit_node_sessions_active"))
                            (head("New/s", "pgsplit_sessions_total"))
                            (head("Connect p99", P99))
                            (head("Last check", "pgsplit_node_check_duration_seconds"))
                            th scope="col" { span.unseen { "Actions" } }
                        } }
                        tbody #nodes-rows {
                            @for node in &self.status.nodes { (NodeCells::of(node, several, now).row()) }
                        }
                    }
                }
            }
        }
    }

    fn listeners(&self) -> Markup {
        html! {
            section #listeners aria-labelledby="listeners-title" hidden[self.status.listeners.is_empty()] {
                h2 #listeners-title { "Listeners" }
                div.scroll {
                    table.fold aria-labelledby="listeners-title" {
                        thead { tr {
                            (head("Listener", "The name in the file, and the address"))
                            (head("State", "pgsplit_listener_ready and pgsplit_listener_paused"))
                            (head("Target", ""))
                            (head("New sessions go to", ""))
                            (head("Sessions", "pgsplit_sessions_active"))
                            (head("Waiting", "pgsplit_sessions_waiting"))
                            (head("Oldest wait", "pgsplit_queue_oldest_wait_seconds"))
                            (head("New/s", "pgsplit_connections_accepted_total"))
                            (head("Rejected", "pgsplit_connections_rejected_total"))
                            th scope="col" { span.unseen { "Actions" } }
                        } }
                        tbody #listeners-rows {
                            @for listener in &self.status.listeners { (ListenerCells::of(listener).row()) }
                        }
                    }
                }
            }
        }
    }

    fn fronts(&self, now: SystemTime) -> Markup {
        html! {
            section #http aria-labelledby="http-title" hidden[self.status.http.is_empty()] {
                h2 #http-title { "HTTP fronts" }
                div #fronts { @for front in &self.status.http { (FrontCells::of(front, now).block()) } }
            }
        }
    }

    fn events(&self) -> Markup {
        html! {
            section #events aria-labelledby="events-title" {
                div.bar-of-tools {
                    h2 #events-title { "Events" }
                    label { "Level " select #events-level {
                        option value="" { "all" }
                        option value="warn" { "warnings and errors" }
                        option value="error" { "errors" }
                    } }
                    label { "About " select #events-about {
                        option value="" { "everything" }
                        @for node in &self.status.nodes { option value=(node.name) { (node.name) } }
                    } }
                }
                div.scroll.tall tabindex="0" role="group" aria-labelledby="events-title" {
                    table.fold.events aria-labelledby="events-title" {
                        thead { tr {
                            (head("Time", "In UTC")) (head("Level", "")) (head("About", ""))
                            (head("What", "The event's name in the log")) (head("Details", ""))
                        } }
                        tbody #events-rows { @for event in self.events.iter().rev() { (EventCells::of(event).row()) } }
                    }
                }
                p #events-none .none hidden[!self.events.is_empty()] { "Nothing has happened yet." }
            }
        }
    }

    fn sessions(&self) -> Markup {
        let shown = self.sessions.sessions.len();
        let more = self.sessions.total.saturating_sub(shown);
        html! {
            section #sessions aria-labelledby="sessions-title" {
                div.bar-of-tools {
                    h2 #sessions-title { "Sessions" }
                    label { "Find " input #sessions-find type="search" autocomplete="off" spellcheck="false"
                        placeholder="user, database, application, client, node" maxlength="100"; }
                    p #sessions-total { (total(shown, self.sessions.total)) }
                }
                div.scroll.tall tabindex="0" role="group" aria-labelledby="sessions-title" {
                    table.fold aria-labelledby="sessions-title" {
                        thead { tr {
                            (head("Session", "")) (head("Client", "")) (head("User", "")) (head("Database", ""))
                            (head("Application", "application_name, as the client says it"))
                            (head("Listener", "")) (head("Node", "")) (head("State", ""))
                            (sorter("Age", "age", true)) (sorter("Idle", "idle", false)) (sorter("Bytes", "bytes", false))
                            th scope="col" { span.unseen { "Actions" } }
                        } }
                        tbody #sessions-rows {
                            @for session in &self.sessions.sessions { (SessionCells::of(session).row()) }
                        }
                    }
                }
                p #sessions-more .none hidden[more == 0] { (rest(more)) }
                p #sessions-fault .fault role="status" hidden {}
            }
        }
    }

    fn config(&self, now: SystemTime) -> Markup {
        let config = &self.status.config;
        html! {
            section #config aria-labelledby="config-title" {
                h2 #config-title { "Configuration" }
                p { "In force for " time #loaded datetime=(config.loaded_at) { (words::since(&config.loaded_at, now)) }
                    ", from " span.path { (config.path) } "." }
                details #effective {
                    summary { "What is in force, with every default; secrets are masked" }
                    pre #effective-text tabindex="0" aria-label="Effective configuration" { "…" }
                    noscript { p { a href="/api/v1/config" { "/api/v1/config" } " has it as JSON." } }
                }
            }
        }
    }
}

impl Card<'_> {
    fn render(&self) -> Markup {
        let most = self.figures.iter().copied().max().unwrap_or(0);
        let most = if self.key == "bytes" { words::bytes(most) } else { words::count(most) };
        html! {
            div.card data-card=(self.key) {
                dt { abbr title=(self.metric) { (self.title) } }
                dd.figure data-f="value" { (self.value) }
                dd.trace {
                    svg viewBox={ "0 0 " (spark::WIDTH) " " (spark::HEIGHT) } preserveAspectRatio="none"
                        aria-hidden="true" focusable="false" {
                        path.area d=(spark::area(self.figures)) {}
                        path.line d=(spark::line(self.figures)) {}
                    }
                    span.most { "at most " span data-f="most" { (most) } " in 5 min" }
                }
            }
        }
    }
}

/// How things are, in a few words.
pub(super) fn condition(condition: &str) -> &'static str {
    match condition {
        "ok" => "All is well",
        "degraded" => "Everything is served, but not all is well",
        "stopping" => "Stopping",
        _ => "Not everything is served",
    }
}

/// How many sessions there are.
fn total(shown: usize, total: usize) -> String {
    if shown < total {
        format!("{} of {}", words::many(shown), words::many(total))
    } else {
        words::many(total)
    }
}

/// How many there are beside those that are shown.
fn rest(more: usize) -> String {
    format!("and {} more: look for some by name above, or ask `pgsplit sessions`.", words::many(more))
}

/// The head of a column; `metric` says where its figures are otherwise, or what they are.
fn head(title: &str, metric: &str) -> Markup {
    html! { th scope="col" { @if metric.is_empty() { (title) } @else { abbr title=(metric) { (title) } } } }
}

/// The head of a column that sessions can be sorted by.
fn sorter(title: &str, by: &str, is_now: bool) -> Markup {
    html! {
        th scope="col" aria-sort=(if is_now { "descending" } else { "none" }) {
            button.sort type="button" data-sort=(by) { (title) }
        }
    }
}

fn footer() -> Markup {
    html! {
        footer {
            nav aria-label="Elsewhere" {
                a href="/metrics" { "Metrics" } a href="/api/v1/status" { "Status as JSON" }
                a href="/api/v1/openapi.json" { "API" } a href="/readyz" { "Readiness" }
            }
        }
    }
}

/// Empty rows, for what comes later.
fn templates() -> Markup {
    html! {
        template #node-row { (NodeCells::default().row()) }
        template #listener-row { (ListenerCells::default().row()) }
        template #front-block { (FrontCells::default().block()) }
        template #upstream-row { (rows::UpstreamCells::default().row()) }
        template #event-row { (EventCells::default().row()) }
        template #session-row { (SessionCells::default().row()) }
    }
}
