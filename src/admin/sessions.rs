//! The sessions there are: looked for, and ended by hand.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use tracing::info;

use super::guard::Asker;
use super::query::Query;
use super::refusal::Refusal;
use super::reply::{Answer, json};
use crate::base::id::SessionId;
use crate::base::role::Role;
use crate::base::text::escaped;
use crate::base::units::parse_duration;
use crate::session::card::{Card, State};
use crate::session::roster::Roster;

/// By what sessions are chosen.
const FILTERS: [&str; 8] =
    ["listener", "node", "user", "database", "client", "state", "older_than", "idle_for"];
/// How they are looked for and shown.
const ORDERS: [&str; 4] = ["search", "sort", "order", "limit"];
/// So many are shown unless more are asked for,
const USUAL: usize = 100;
/// and never more than so many.
const MOST: usize = 10_000;

/// One session.
#[derive(Debug, Serialize)]
pub(super) struct SessionView {
    pub(super) id: String,
    pub(super) listener: String,
    pub(super) client: String,
    pub(super) user: Option<String>,
    pub(super) database: Option<String>,
    pub(super) application: Option<String>,
    pub(super) node: Option<String>,
    pub(super) node_addr: Option<String>,
    pub(super) role: Option<&'static str>,
    pub(super) state: &'static str,
    pub(super) tls: &'static str,
    pub(super) age_seconds: f64,
    /// To two seconds or so.
    pub(super) idle_seconds: f64,
    pub(super) to_node_bytes: u64,
    pub(super) to_client_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct List {
    pub(super) sessions: Vec<SessionView>,
    /// How many fit, also those that are not shown.
    pub(super) total: usize,
}

#[derive(Debug, Serialize)]
struct KilledView {
    killed: usize,
}

/// What a session must be to be chosen.
#[derive(Debug)]
struct Filter<'q> {
    listener: Option<&'q str>,
    node: Option<&'q str>,
    user: Option<&'q str>,
    database: Option<&'q str>,
    client: Option<Client>,
    state: Option<State>,
    older_than: Option<Duration>,
    idle_for: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum Client {
    Host(IpAddr),
    Socket(SocketAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Age,
    Idle,
    Bytes,
}

/// The sessions that a query asks for.
///
/// # Errors
/// The query cannot be understood.
pub(super) fn list(roster: &Roster, query: Option<&str>) -> Result<Answer, Refusal> {
    Ok(json(StatusCode::OK, &find(roster, query)?))
}

/// The same, for the page.
///
/// # Errors
/// The query cannot be understood.
pub(super) fn find(roster: &Roster, query: Option<&str>) -> Result<List, Refusal> {
    let query = Query::read(query, &[&FILTERS[..], &ORDERS].concat())?;
    let filter = Filter::of(&query)?;
    let sort = query.get("sort", "age, idle or bytes", |text| match text {
        "age" => Some(Sort::Age),
        "idle" => Some(Sort::Idle),
        "bytes" => Some(Sort::Bytes),
        _ => None,
    })?;
    let is_up = query.get("order", "asc or desc", |text| match text {
        "asc" => Some(true),
        "desc" => Some(false),
        _ => None,
    })?;
    let limit = query.number("limit")?.unwrap_or(USUAL).min(MOST);
    let mut found = filter.choose(roster);
    if let Some(text) = query.text("search") {
        let text = text.to_lowercase();
        found.retain(|card| SessionView::of(roster, card).has(&text));
    }
    let total = found.len();
    match sort.unwrap_or(Sort::Age) {
        Sort::Age => found.sort_by_key(|card| card.accepted),
        Sort::Idle => found.sort_by_cached_key(|card| std::cmp::Reverse(roster.idle(card))),
        Sort::Bytes => found.sort_by_cached_key(|card| std::cmp::Reverse(bytes(card))),
    }
    if is_up == Some(true) {
        found.reverse();
    }
    let sessions = found.iter().take(limit).map(|card| SessionView::of(roster, card)).collect();
    Ok(List { sessions, total })
}

/// Ends one session.
///
/// # Errors
/// There is none with this number.
pub(super) fn kill(roster: &Roster, id: &str, asker: &Asker<'_>) -> Result<Answer, Refusal> {
    let id = SessionId::parse(id).ok_or(Refusal::SessionId)?;
    let card = roster.find(id).ok_or(Refusal::NoSession(id))?;
    if card.kill() {
        let said = card.said().clone();
        let (node, names) = (said.node.as_ref(), said.names.as_deref());
        info!(
            id = card.id.to_string(),
            listener = card.listener.name.as_str(),
            client = %card.client,
            node = node.map(|node| node.config.name.as_str()),
            user = names.and_then(|names| names.user.as_deref()),
            by = asker.by,
            who = %asker.peer,
            "session_killed"
        );
    }
    Ok(json(StatusCode::OK, &SessionView::of(roster, &card)))
}

/// Ends all sessions that a query asks for.
///
/// # Errors
/// The query cannot be understood, or asks for all there are.
pub(super) fn kill_many(roster: &Roster, query: Option<&str>, asker: &Asker<'_>) -> Result<Answer, Refusal> {
    let query = Query::read(query, &FILTERS)?;
    if FILTERS.iter().all(|filter| query.text(filter).is_none()) {
        return Err(Refusal::AllSessions { filters: FILTERS.join(", ") });
    }
    let found = Filter::of(&query)?.choose(roster);
    let killed = found.iter().filter(|card| card.kill()).count();
    // One event for all of them: each has a line of its own at its end, and thousands would push all other events out.
    info!(
        killed,
        listener = query.text("listener"),
        node = query.text("node"),
        user = query.text("user"),
        database = query.text("database"),
        from = query.text("client"),
        state = query.text("state"),
        older_than = query.text("older_than"),
        idle_for = query.text("idle_for"),
        by = asker.by,
        who = %asker.peer,
        "sessions_killed"
    );
    Ok(json(StatusCode::OK, &KilledView { killed }))
}

impl<'q> Filter<'q> {
    fn of(query: &'q Query<'_>) -> Result<Self, Refusal> {
        let time = |name| query.get(name, "a time such as 90s, 10m or 1h", |text| parse_duration(text).ok());
        Ok(Self {
            listener: query.text("listener"),
            node: query.text("node"),
            user: query.text("user"),
            database: query.text("database"),
            client: query.get("client", "an address such as 10.0.0.7 or 10.0.0.7:51344", |text| {
                let host = text.parse().ok().map(Client::Host);
                host.or_else(|| text.parse().ok().map(Client::Socket))
            })?,
            state: query.get("state", "opening, waiting, login or active", |text| {
                State::ALL.into_iter().find(|state| state.as_str() == text)
            })?,
            older_than: time("older_than")?,
            idle_for: time("idle_for")?,
        })
    }

    fn choose(&self, roster: &Roster) -> Vec<Arc<Card>> {
        let mut all = roster.all();
        all.retain(|card| self.fits(roster, card));
        all
    }

    fn fits(&self, roster: &Roster, card: &Card) -> bool {
        let is_from = |client: Client| match client {
            Client::Host(ip) => card.client.ip().to_canonical() == ip.to_canonical(),
            Client::Socket(addr) => card.client == addr,
        };
        if self.listener.is_some_and(|name| card.listener.name != name)
            || self.state.is_some_and(|state| card.state() != state)
            || self.older_than.is_some_and(|age| card.accepted.elapsed() <= age)
            || self.idle_for.is_some_and(|idle| roster.idle(card) < idle)
            || self.client.is_some_and(|client| !is_from(client))
        {
            return false;
        }
        if self.node.or(self.user).or(self.database).is_none() {
            return true;
        }
        let said = card.said();
        let node = said.node.as_ref().map(|node| node.config.name.as_str());
        let names = said.names.as_deref();
        // What is shown is looked for.
        let is_called = |wanted: Option<&str>, name: Option<&str>| {
            wanted.is_none_or(|wanted| name.is_some_and(|name| name == wanted || name == shown(wanted)))
        };
        self.node.is_none_or(|wanted| node == Some(wanted))
            && is_called(self.user, names.and_then(|names| names.user.as_deref()))
            && is_called(self.database, names.and_then(|names| names.database.as_deref()))
    }
}

/// A name as a session's card has it.
fn shown(name: &str) -> String {
    escaped(name.as_bytes(), crate::base::text::NAME_MAX)
}

fn bytes(card: &Card) -> u64 {
    let (to_node, to_client) = card.moved.bytes();
    to_node.saturating_add(to_client)
}

impl SessionView {
    /// Whether one of its names has this text in it, which is in lower case.
    fn has(&self, text: &str) -> bool {
        let names = [&self.user, &self.database, &self.application, &self.node, &self.node_addr];
        let names = names.into_iter().flatten().map(String::as_str);
        let mut all = names.chain([self.id.as_str(), &self.listener, &self.client, self.state]);
        all.any(|name| name.to_lowercase().contains(text))
    }

    fn of(roster: &Roster, card: &Card) -> Self {
        let said = card.said().clone();
        let (to_node_bytes, to_client_bytes) = card.moved.bytes();
        let name = |name: fn(&crate::session::names::Names) -> &Option<String>| {
            said.names.as_deref().and_then(|names| name(names).clone())
        };
        let node = said.node.as_ref();
        Self {
            id: card.id.to_string(),
            listener: card.listener.name.clone(),
            client: card.client.to_string(),
            user: name(|names| &names.user),
            database: name(|names| &names.database),
            application: name(|names| &names.application),
            node: node.map(|node| node.config.name.clone()),
            node_addr: node.map(|node| node.addr.to_string()),
            role: node.and_then(|node| node.role).map(Role::as_str),
            state: card.state().as_str(),
            tls: said.tls.as_str(),
            age_seconds: card.accepted.elapsed().as_secs_f64(),
            idle_seconds: roster.idle(card).as_secs_f64(),
            to_node_bytes,
            to_client_bytes,
        }
    }
}
