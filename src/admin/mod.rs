//! The admin address: metrics for Prometheus, health and readiness for whoever asks, status as JSON and as text.
//!
//! Everything here only reads but `pause`, `reload` and `change_node`, which want a POST or PATCH and a token. A slow or hostile reader costs one of a few
//! connections and no session.

mod change_node;
pub mod http;
pub mod now;
mod pause;
pub mod reload;
pub mod upgrade;
pub mod view;

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::front::shared::Fronts;
use crate::net::gate::Gate;
use crate::net::listen::{Listening, is_peer_gone};
use crate::session::place::is_there_another;
use crate::session::shared::Shared;
use pause::{Change, may_change};
use reload::Reloads;
use upgrade::Upgrades;
use view::Status;

/// Connections at a time; more wait in the backlog.
const CONNECTIONS: usize = 32;
/// A connection that has not sent its headers by then is closed.
const HEADERS: Duration = Duration::from_secs(5);
/// The longest life of one connection.
const CONNECTION: Duration = Duration::from_secs(60);
/// After an accept that failed for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

type Answer = Response<Full<Bytes>>;

/// The admin server.
#[derive(Clone, Debug)]
pub struct Admin {
    shared: Arc<Shared>,
    fronts: Arc<Fronts>,
    reloads: Reloads,
    upgrades: Upgrades,
    gate: Gate,
    started: SystemTime,
}

impl Admin {
    /// A server that shows `shared` and `fronts`, asks `reloads` for a reload and `upgrades` for an upgrade, and accepts
    /// nobody while `gate` is shut.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        fronts: Arc<Fronts>,
        (reloads, upgrades): (Reloads, Upgrades),
        gate: Gate,
    ) -> Self {
        Self { shared, fronts, reloads, upgrades, gate, started: SystemTime::now() }
    }

    /// Serves until `end`.
    pub async fn serve(self, listening: Arc<Listening>, end: CancellationToken) {
        let mut watch = self.gate.watch();
        let connections = TaskTracker::new();
        let free = Arc::new(Semaphore::new(CONNECTIONS));
        let accepting = async {
            while let Ok(permit) = Arc::clone(&free).acquire_owned().await {
                match watch.pass(|| listening.accept()).await {
                    Ok((stream, peer)) => {
                        let admin = self.clone();
                        connections.spawn(end.clone().run_until_cancelled_owned(async move {
                            let _permit = permit;
                            let _ = timeout(CONNECTION, admin.converse(stream, peer)).await;
                        }));
                    }
                    Err(error) if is_peer_gone(&error) => {}
                    Err(error) => {
                        warn!(error = %error, "admin_accept_failed");
                        sleep(PAUSE).await;
                    }
                }
            }
        };
        end.run_until_cancelled(accepting).await;
        connections.close();
        connections.wait().await;
    }

    async fn converse(self, stream: std::net::TcpStream, peer: SocketAddr) {
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let service = service_fn(|request: Request<Incoming>| {
            let admin = self.clone();
            async move { Ok::<_, Infallible>(admin.answer(request, peer).await) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(16 * 1024);
        // An error here is a client that left or sent no HTTP: its own affair.
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        if let Some(node) = change_node::node_of(request.uri().path()).map(Cow::into_owned) {
            return match *request.method() {
                Method::PATCH => change_node::change(&self.shared, &node, request, peer).await,
                _ => not_allowed("PATCH", "only PATCH here\n"),
            };
        }
        let (method, path) = (request.method(), request.uri().path());
        if path == "/api/v1/reload" {
            return self.reload(&request).await;
        }
        if path == "/api/v1/upgrade" {
            return self.upgrade(request).await;
        }
        if let Some(change) = Change::of(path) {
            return match *method {
                Method::POST => change.answer(&self.shared, &self.fronts.now(), request.headers(), peer),
                _ => not_allowed("POST", "only POST here\n"),
            };
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return not_allowed("GET, HEAD", "only GET and HEAD here\n");
        }
        match path {
            "/" => text(StatusCode::OK, self.status().in_words()),
            "/metrics" => {
                let body = self.shared.metrics.render(&now::now(&self.shared, &self.fronts.now()));
                typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
            }
            "/healthz" => text(StatusCode::OK, "ok\n".into()),
            "/readyz" => self.readiness(request.uri().query()),
            "/api/v1/status" => json(StatusCode::OK, &self.status()),
            _ => {
                let known = "no such page; there are /, /metrics, /healthz, /readyz and /api/v1/status\n";
                text(StatusCode::NOT_FOUND, known.into())
            }
        }
    }

    async fn reload(&self, request: &Request<Incoming>) -> Answer {
        if *request.method() != Method::POST {
            return not_allowed("POST", "only POST here\n");
        }
        if let Err(refusal) = may_change(&self.shared, request.headers()) {
            return *refusal;
        }
        reload::answer(&self.reloads).await
    }

    async fn upgrade(&self, request: Request<Incoming>) -> Answer {
        if *request.method() != Method::POST {
            return not_allowed("POST", "only POST here\n");
        }
        if let Err(refusal) = may_change(&self.shared, request.headers()) {
            return *refusal;
        }
        upgrade::answer(&self.upgrades, request).await
    }

    fn status(&self) -> Status {
        Status::of(&self.shared, &self.fronts.now(), &self.reloads, self.started)
    }

    /// 200 when every listener has a node and every front can serve, or the one that is asked for.
    fn readiness(&self, query: Option<&str>) -> Answer {
        let asked = |key: &str| query?.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let (asked, asked_front) = (asked("listener"), asked("front"));
        let mut missing = String::new();
        let mut found = false;
        for listener in &self.shared.setup().listeners {
            let name = &listener.config.name;
            if asked.is_some_and(|asked| asked != name) || (asked.is_none() && asked_front.is_some()) {
                continue;
            }
            found = true;
            if !is_there_another(listener, &[]) {
                let _ = writeln!(missing, "listener \"{name}\" has no node");
            }
        }
        for front in self.fronts.now().iter() {
            let name = &front.config.name;
            if asked_front.is_some_and(|asked| asked != name) || (asked_front.is_none() && asked.is_some()) {
                continue;
            }
            found = true;
            for trouble in front.troubles() {
                let _ = writeln!(missing, "{trouble}");
            }
        }
        if self.shared.is_draining() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".into());
        }
        match (found, missing.is_empty()) {
            (false, _) => text(StatusCode::NOT_FOUND, "no such listener or front\n".into()),
            (true, true) => text(StatusCode::OK, "ready\n".into()),
            (true, false) => text(StatusCode::SERVICE_UNAVAILABLE, missing),
        }
    }
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_string_pretty(body).unwrap_or_default() + "\n";
    typed(status, "application/json", body)
}

fn not_allowed(allow: &'static str, body: &str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, body.to_owned());
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

fn text(status: StatusCode, body: String) -> Answer {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
