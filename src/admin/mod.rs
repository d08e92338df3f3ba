//! The admin server: metrics for Prometheus, health and readiness for whoever asks, and the API, which tells everything and
//! takes orders. On an address and on a Unix socket, by the same code.
//!
//! A request goes through `route`, which knows what there is, and `guard`, which knows who may. What it changes it changes
//! by the means that everything else has too: here nothing is decided.
//!
//! # Invariants
//!
//! - Nothing changes without the socket or the token, nor for a page of another origin.
//! - A slow or hostile reader costs one of a few connections for a bounded time, and no session.
//! - What a client has said about itself is shown as it is nowhere: neither by JSON nor in words can it drive a terminal.

mod change_node;
mod dashboard;
mod follow;
mod guard;
mod history;
pub mod http;
pub mod now;
mod patience;
mod pause;
mod places;
mod query;
mod ready;
pub mod refusal;
pub mod reload;
mod reply;
mod route;
mod sessions;
pub mod upgrade;
pub(crate) mod verdict;
pub mod view;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::base::seldom::Seldom;
use crate::config::show::show;
use crate::front::shared::{Front, Fronts};
use crate::net::gate::{Gate, Word};
use crate::net::listen::{Listening, is_peer_gone};
use crate::net::local::LocalSocket;
use crate::session::setup::Setup;
use crate::session::shared::Shared;
use crate::telemetry::events::{Event, Events, KEPT};
use crate::telemetry::recent::TURN_INTERVAL;
use follow::Statuses;
use guard::{Asker, Peer};
use history::History;
use patience::Patience;
use places::{Caller, Places};
use query::Query;
use ready::missing;
use refusal::Refusal;
use reload::Reloads;
use reply::{Answer, json, text, typed};
use route::Action;
use upgrade::Upgrades;
use view::{Seen, Status};

/// A connection that has not sent its headers by then is closed.
const HEADERS: Duration = Duration::from_secs(5);
/// The longest life of one connection that does not follow.
const CONNECTION: Duration = Duration::from_secs(60);
/// A connection that takes nothing of what it asked for is closed after this.
const STUCK: Duration = Duration::from_secs(20);
/// An answer that is under way when a connection is to end has so long to come to its own.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// After an accept that failed for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Which is said this often at most.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// Events that are told of unless more are asked for.
const USUAL_EVENTS: usize = 100;
/// What can be asked for, for programs that want to know.
const OPENAPI: &str = include_str!("openapi.json");

/// The admin server; a handle, all of which are for the same one.
#[derive(Clone, Debug)]
pub struct Admin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    fronts: Arc<Fronts>,
    reloads: Reloads,
    upgrades: Upgrades,
    gate: Gate,
    started: SystemTime,
    events: Events,
    history: History,
    statuses: Statuses,
}

/// Where requests come from.
#[derive(Debug)]
pub enum Way {
    /// An address.
    Address(Arc<Listening>),
    /// A file.
    Socket(Arc<LocalSocket>),
}

/// Who has come by one.
enum Visitor {
    Address(std::net::TcpStream, SocketAddr),
    Socket(UnixStream),
}

impl Visitor {
    fn peer(&self) -> Peer {
        match self {
            Self::Address(_, peer) => Peer::Address(*peer),
            Self::Socket(stream) => Peer::local(stream.peer_cred().ok()),
        }
    }
}

impl Admin {
    /// A server that shows `shared` and `fronts`, and what `events` tell; it asks `reloads` for a reload and `upgrades` for an
    /// upgrade, and accepts nobody while `gate` is shut.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        fronts: Arc<Fronts>,
        (reloads, upgrades): (Reloads, Upgrades),
        events: Events,
        gate: Gate,
    ) -> Self {
        Self(Arc::new(Inner {
            shared,
            fronts,
            reloads,
            upgrades,
            gate,
            started: SystemTime::now(),
            events,
            history: History::default(),
            statuses: Statuses::default(),
        }))
    }

    /// Looks at everything once a second, for those who ask what was. Cancel safe; ends with its future.
    pub async fn watch(self) {
        let (mut tick, mut turn) = (interval(history::STEP), interval(TURN_INTERVAL));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    self.0.history.sample(&self.0.shared);
                    if self.0.statuses.has_followers() {
                        let (setup, fronts) = (self.0.shared.setup(), self.0.fronts.now());
                        self.0.statuses.publish(&self.seen(&setup, &fronts).status(false));
                    }
                }
                _ = turn.tick() => self.0.shared.metrics.turn(),
            }
        }
    }

    /// Serves who comes by `way` until `end`.
    pub async fn serve(self, way: Way, end: CancellationToken) {
        let connections = TaskTracker::new();
        let mut places = Places::new(self.0.shared.descriptors.for_admin());
        let mut failed = Seldom::default();
        let mut watch = self.0.gate.watch();
        let accepting = async {
            while let Some(accepted) = watch.pass(|| way.accept()).await {
                match accepted {
                    Ok(visitor) => {
                        let Some(caller) = places.take(visitor.peer()).await else { break };
                        if let Ok(conversation) = self.talk(visitor, caller, &end) {
                            connections.spawn(conversation);
                        }
                        // What it has said already is heard before the next one is let in, for which the silent make way.
                        yield_now().await;
                    }
                    Err(error) if is_peer_gone(&error) => {}
                    Err(error) => {
                        if let Some(repeated) = failed.again(SAY_AGAIN) {
                            let hint = "raise the limit of open files (LimitNOFILE=)";
                            warn!(%error, repeated, hint, "admin_accept_failed");
                        }
                        sleep(PAUSE).await;
                    }
                }
            }
        };
        end.run_until_cancelled(accepting).await;
        // The socket's file goes now, unless somebody else has it: nobody is served there any more.
        drop(way);
        connections.close();
        connections.wait().await;
    }

    fn talk(
        &self,
        visitor: Visitor,
        caller: Arc<Caller>,
        end: &CancellationToken,
    ) -> io::Result<Pin<Box<dyn Future<Output = ()> + Send>>> {
        Ok(match visitor {
            Visitor::Address(stream, _) => {
                Box::pin(self.clone().converse(TcpStream::from_std(stream)?, caller, end.clone()))
            }
            Visitor::Socket(stream) => Box::pin(self.clone().converse(stream, caller, end.clone())),
        })
    }

    /// Until `end`, or as long as one may take; an answer that is under way then is still given.
    async fn converse(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        caller: Arc<Caller>,
        end: CancellationToken,
    ) {
        let (admin, caller) = (&self, &*caller);
        let service = service_fn(move |request: Request<Incoming>| async move {
            Ok::<_, Infallible>(caller.while_answered(admin.answer(request, caller)).await)
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(16 * 1024);
        let stream = Patience::new(stream, STUCK, move || caller.heard());
        let mut conversation = pin!(http.serve_connection(TokioIo::new(stream), service));
        let expiry = async {
            sleep(CONNECTION).await;
            if caller.is_following() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            // An error here is a client that left or sent no HTTP: its own affair.
            _ = conversation.as_mut() => return,
            () = caller.makes_way.cancelled() => return,
            () = expiry => {}
            () = end.cancelled() => {}
        }
        if !caller.is_following() {
            conversation.as_mut().graceful_shutdown();
            let _ = timeout(LAST_ANSWER, caller.makes_way.run_until_cancelled(conversation)).await;
        }
    }

    async fn answer(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        let (head, body) = request.into_parts();
        let answer = self.try_to_answer(&head, body, caller).await;
        answer.unwrap_or_else(|refusal| refusal.answer(route::is_api(head.uri.path())))
    }

    async fn try_to_answer(&self, head: &Parts, body: Incoming, caller: &Caller) -> Result<Answer, Refusal> {
        let Parts { uri, method, headers, .. } = head;
        let (route, part) = route::find(uri.path())?;
        let (shared, setup, fronts) = (&self.0.shared, self.0.shared.setup(), self.0.fronts.now());
        let admin = setup.config.admin.as_ref().ok_or(Refusal::Off)?;
        if !route.is_for_any_host {
            guard::may_ask(admin, caller.peer, uri, headers)?;
        }
        let action = route.action(method)?;
        if !method.is_safe() {
            guard::may_change(admin, caller.peer, headers)?;
            if self.0.gate.now() != Word::Open {
                return Err(Refusal::Replaced);
            }
        }
        let asker = Asker { by: guard::by(headers), peer: &caller.peer };
        let (query, seen) = (uri.query(), self.seen(&setup, &fronts));
        Ok(match action {
            Action::Page if dashboard::is_for_a_browser(headers) => self.dashboard(&seen.status(true))?,
            Action::Page => text(StatusCode::OK, seen.status(false).in_words()),
            Action::Script => dashboard::files::SCRIPT.answer(query, headers),
            Action::Style => dashboard::files::STYLE.answer(query, headers),
            Action::Metrics => {
                let body = shared.metrics.render(&now::now(shared, &fronts));
                typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
            }
            Action::Health => text(StatusCode::OK, "ok\n".into()),
            Action::Readiness => self.readiness(query)?,
            Action::Status => {
                let query = Query::read(query, &["history"])?;
                let with_history = query.get("history", YES_OR_NO, yes_or_no)?;
                json(StatusCode::OK, &seen.status(with_history.unwrap_or(true)))
            }
            Action::Listeners => json(StatusCode::OK, &seen.listeners()),
            Action::Pause => pause::set(seen, &part, true, &asker)?,
            Action::Resume => pause::set(seen, &part, false, &asker)?,
            Action::Nodes => json(StatusCode::OK, &seen.nodes()),
            Action::ChangeNode => change_node::change(seen, &part, body, &asker).await?,
            Action::Http => json(StatusCode::OK, &seen.http()),
            Action::Sessions => sessions::list(&shared.roster, query)?,
            Action::Kill => sessions::kill(&shared.roster, &part, &asker)?,
            Action::KillMany => sessions::kill_many(&shared.roster, query, &asker)?,
            Action::Events => {
                self.events(&Query::read(query, &["since", "limit", "node", "follow"])?, headers, caller)?
            }
            Action::Stream => {
                let query = Query::read(query, &["since"])?;
                let statuses = (&self.0.statuses, &seen.status(true));
                let answer = follow::stream(&self.0.events, &query, headers, statuses, &caller.followers)?;
                caller.follows();
                answer
            }
            Action::Reload => reload::answer(&self.0.reloads).await?,
            Action::Upgrade => {
                upgrade::answer(&self.0.upgrades, asker.by, &Query::read(query, &["wait"])?).await?
            }
            Action::Config => json(StatusCode::OK, &show(&setup.config)),
            Action::OpenApi => typed(StatusCode::OK, "application/json", OPENAPI.to_owned()),
        })
    }

    fn dashboard(&self, status: &Status) -> Result<Answer, Refusal> {
        let Inner { shared, events, .. } = &*self.0;
        // What comes after this number, the page is told of when it listens.
        let last_event = events.last_id();
        let events = events.since(0, dashboard::EVENTS, |event| event.id <= last_event);
        let sessions = sessions::find(&shared.roster, Some(&format!("limit={}", dashboard::SESSIONS)))?;
        Ok(dashboard::answer(dashboard::Page { status, events: &events, last_event, sessions: &sessions }))
    }

    fn events(&self, query: &Query<'_>, headers: &HeaderMap, caller: &Caller) -> Result<Answer, Refusal> {
        let (events, node) = (&self.0.events, query.text("node"));
        let follow = query.get("follow", YES_OR_NO, yes_or_no)?;
        if follow == Some(true) {
            let answer = follow::events(events, query, headers, &caller.followers)?;
            caller.follows();
            return Ok(answer);
        }
        let limit = query.number("limit")?.unwrap_or(USUAL_EVENTS).min(KEPT);
        let since = query.number("since")?.unwrap_or(0);
        let last_id = events.last_id();
        let events = events.since(since, limit, |event: &Event| follow::is_about(event, node));
        let events: Vec<&Event> = events.iter().map(|event| &**event).collect();
        Ok(json(StatusCode::OK, &serde_json::json!({ "events": events, "last_id": last_id })))
    }

    fn seen<'a>(&'a self, setup: &'a Setup, fronts: &'a [Arc<Front>]) -> Seen<'a> {
        let Inner { shared, reloads, upgrades, history, started, .. } = &*self.0;
        Seen { shared, setup, fronts, reloads, upgrades, history, started: *started }
    }

    /// 200 when every listener has a node and every front can serve, or the one that is asked for.
    fn readiness(&self, query: Option<&str>) -> Result<Answer, Refusal> {
        let query = Query::read(query, &["listener", "front"])?;
        let Inner { shared, fronts, .. } = &*self.0;
        let missing = missing(&shared.setup(), &fronts.now(), query.text("listener"), query.text("front"));
        Ok(match missing {
            _ if shared.is_draining() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".into()),
            None => text(StatusCode::NOT_FOUND, "no such listener or front\n".into()),
            Some(missing) if missing.is_empty() => text(StatusCode::OK, "ready\n".into()),
            Some(missing) => text(StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n"),
        })
    }
}

/// What [`yes_or_no`] reads.
const YES_OR_NO: &str = "0 or 1";

fn yes_or_no(text: &str) -> Option<bool> {
    match text {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

impl Way {
    async fn accept(&self) -> io::Result<Visitor> {
        match self {
            Self::Address(listening) => {
                listening.accept().await.map(|(stream, peer)| Visitor::Address(stream, peer))
            }
            Self::Socket(socket) => socket.accept().await.map(Visitor::Socket),
        }
    }
}
