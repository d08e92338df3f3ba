//! An ordinary HTTP client, and configurations of a front.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;

use super::balancer::{Balancer, find};
use super::client::background;
use super::upstream::{AnswerBody, full, joined};
use super::wait::wait_until;

/// No answer of a test takes longer: more than the longest of our own time limits.
const PATIENCE: Duration = Duration::from_secs(45);
/// What requests of [`get`] name as their host.
pub const HOST: &str = "front.test";
/// Where the admin server of a test listens.
const ADMIN_PORT: u16 = 8404;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Got {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// What followed the body.
    pub trailers: Option<HeaderMap>,
}

impl Got {
    /// The values of a header, joined by `, `; empty without one.
    pub fn header(&self, name: &str) -> String {
        joined(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    async fn of(answer: Response<Incoming>) -> Result<Self, String> {
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| format!("{error:?}"))?;
        let trailers = body.trailers().cloned();
        Ok(Self { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes(), trailers })
    }
}

/// One connection of a client.
#[derive(Clone, Debug)]
pub enum Speaks {
    /// HTTP/1.1 is spoken on it.
    One(Arc<Mutex<http1::SendRequest<AnswerBody>>>),
    /// HTTP/2 is spoken on it, by any number at a time.
    Two(http2::SendRequest<AnswerBody>),
}

/// A client on one connection.
#[derive(Clone, Debug)]
pub struct Web(Speaks);

impl Web {
    /// Connects.
    pub async fn connect(addr: SocketAddr) -> Result<Self, String> {
        let connecting = background().spawn(async move {
            Self::of(TcpStream::connect(addr).await.map_err(|error| error.to_string())?).await
        });
        connecting.await.expect("connecting does not panic")
    }

    /// Connects from another address of this machine.
    pub async fn connect_from(from: Ipv4Addr, addr: SocketAddr) -> Result<Self, String> {
        let connecting = background().spawn(async move {
            let socket = TcpSocket::new_v4().map_err(|error| error.to_string())?;
            socket.bind((from, 0).into()).map_err(|error| error.to_string())?;
            let stream = socket.connect(addr).await.map_err(|error| error.to_string())?;
            Self::of(stream).await
        });
        connecting.await.expect("connecting does not panic")
    }

    async fn of(stream: TcpStream) -> Result<Self, String> {
        let _ = stream.set_nodelay(true);
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        background().spawn(connection);
        Ok(Self(Speaks::One(Arc::new(Mutex::new(sender)))))
    }

    /// Connects and speaks HTTP/2 from the first byte.
    pub async fn connect_h2(addr: SocketAddr) -> Result<Self, String> {
        let connecting = background().spawn(async move {
            let stream = TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
            let _ = stream.set_nodelay(true);
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let (sender, connection) = handshake.await.map_err(|error| error.to_string())?;
            background().spawn(connection);
            Ok(Self(Speaks::Two(sender)))
        });
        connecting.await.expect("connecting does not panic")
    }

    /// Sends a request and returns the answer with its body still to come.
    pub async fn begin(&self, request: Request<AnswerBody>) -> Result<Response<Incoming>, String> {
        let exchange = async {
            match &self.0 {
                Speaks::One(sender) => {
                    let mut sender = sender.lock().await;
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Speaks::Two(sender) => {
                    let mut sender = sender.clone();
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| "no answer".to_owned())?;
        answer.map_err(|error| format!("{error:?}"))
    }

    /// Sends a request and returns the whole answer.
    pub async fn send(&self, request: Request<AnswerBody>) -> Result<Got, String> {
        let answer = self.begin(request).await?;
        tokio::time::timeout(PATIENCE, Got::of(answer))
            .await
            .map_err(|_| "no end of the answer".to_owned())?
    }

    /// GETs a path.
    pub async fn get(&self, path: &str) -> Result<Got, String> {
        let host = match &self.0 {
            Speaks::One(_) => String::new(),
            Speaks::Two(_) => format!("http://{HOST}"),
        };
        let mut request = Request::get(host + path);
        if matches!(self.0, Speaks::One(_)) {
            request = request.header("host", HOST);
        }
        self.send(request.body(full("")).expect("a valid request")).await
    }
}

/// GETs a path on a connection of its own.
pub async fn try_get(addr: SocketAddr, path: &str) -> Result<Got, String> {
    Web::connect(addr).await?.get(path).await
}

/// The same for an answer that must come.
pub async fn get(addr: SocketAddr, path: &str) -> Got {
    try_get(addr, path).await.expect("an answer")
}

/// GETs a path with more headers on a connection of its own.
pub async fn get_with(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Got {
    send(addr, "GET", path, headers, "").await
}

/// Sends any request on a connection of its own. A `host` among the headers takes the place of the usual one.
pub async fn send(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Got {
    let own = addr.to_string();
    let mut headers = headers.to_vec();
    // The admin server answers to no name that could lead elsewhere.
    if addr.port() == ADMIN_PORT && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        headers.push(("host", &own));
    }
    let request = request(method, path, &headers, full(body));
    Web::connect(addr).await.expect("the front listens").send(request).await.expect("an answer")
}

/// A request of HTTP/1.1.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: AnswerBody) -> Request<AnswerBody> {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", HOST);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).expect("a valid request")
}

/// A configuration with one front at [`Balancer::front`] over `upstreams`. `more` are further lines of the front.
/// Without a `check:` among them nothing is checked and everything counts as up.
pub fn front(upstreams: &[SocketAddr], more: &str) -> String {
    let upstreams: Vec<_> = upstreams.iter().map(|addr| format!("\"{addr}\"")).collect();
    front_of(&format!("upstreams: [{}]\n{more}", upstreams.join(", ")))
}

/// The same with other words about the upstreams.
pub fn front_of(lines: &str) -> String {
    let mut text = "nodes: [{addr: \"BALANCER:1\", role: primary}]\nlog: {requests: all}\n".to_owned();
    text.push_str("http:\n  bind: \"BALANCER:8080\"\n");
    if !lines.lines().any(|line| line.starts_with("check:") || line.starts_with("groups:")) {
        text.push_str("  check: off\n");
    }
    for line in lines.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// Checks that see a change at once.
pub const QUICK: &str =
    "check: {path: /health, interval: 200ms, fast_interval: 50ms, timeout: 500ms, rise: 2, fall: 2}\n";

impl Balancer {
    /// Its HTTP front.
    pub fn front(&self) -> SocketAddr {
        self.at(8080)
    }

    /// Starts with a front and waits until that takes connections.
    pub async fn start_front(config: &str) -> Self {
        let balancer = Self::start(config).await;
        wait_until("the front to listen", async || TcpStream::connect(balancer.front()).await.map(drop))
            .await;
        balancer
    }

    /// Waits until an upstream is up, or down.
    pub async fn wait_upstream(&self, addr: SocketAddr, up: bool) {
        wait_until(&format!("{addr} to be {}", if up { "up" } else { "down" }), async || {
            let metrics = self.metrics().await;
            let value = find(&metrics, &format!("pgsplit_http_upstream_up{{upstream=\"{addr}\"}}"));
            let is = value.map(|value| value > 0.5);
            if is == Some(up) { Ok(()) } else { Err(value) }
        })
        .await;
    }

    /// The log lines about requests so far.
    pub fn requests(&self) -> Vec<serde_json::Value> {
        self.log_lines().into_iter().filter(|line| line["event"] == "request").collect()
    }
}
