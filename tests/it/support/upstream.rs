//! A service behind an HTTP front: a real HTTP/1.1 server that answers as a test says and notes what it was asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::address::Address;
use super::client::background;

/// A body of any kind.
pub type AnswerBody = BoxBody<Bytes, io::Error>;
/// What an upstream answers.
pub type Answer = Response<AnswerBody>;

/// What checks ask for. It is answered apart from everything else, and not noted.
pub const HEALTH: &str = "/health";

/// What the upstream does with requests, and with new connections. A change holds for open connections as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Answers as its test says.
    Serve,
    /// Answers this status to everything but checks.
    Status(u16),
    /// Never answers, checks neither.
    Hang,
    /// Resets the connection when a request has come; checks are answered.
    Reset,
    /// Nothing listens, and connections that were open are reset.
    Refuse,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Path and query, or whatever stood there.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// What followed a chunked body.
    pub trailers: Option<HeaderMap>,
    /// The number of the connection it came on.
    pub connection: u64,
}

impl Seen {
    /// The values of a header, joined by `, `; empty without one.
    pub fn header(&self, name: &str) -> String {
        joined(&self.headers, name)
    }
}

/// The server. Dropping it resets its connections.
pub struct Upstream {
    _address: Address,
    addr: SocketAddr,
    shared: Arc<Shared>,
    listens: watch::Receiver<bool>,
    acceptor: JoinHandle<()>,
}

type Handler = Box<dyn Fn(Seen) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

struct Shared {
    handler: Handler,
    mode: watch::Sender<Mode>,
    health: AtomicU16,
    checks: AtomicU64,
    heads: AtomicU64,
    accepted: AtomicU64,
    open: AtomicU64,
    seen: Mutex<Vec<Seen>>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Upstream {
    /// A server whose answers are `answer`'s. That is called with complete requests.
    pub async fn start<A>(answer: impl Fn(Seen) -> A + Send + Sync + 'static) -> Self
    where
        A: Future<Output = Answer> + Send + 'static,
    {
        let address = Address::claim();
        let addr = address.port(8080);
        let shared = Arc::new(Shared {
            handler: Box::new(move |seen| Box::pin(answer(seen))),
            mode: watch::Sender::new(Mode::Serve),
            health: AtomicU16::new(200),
            checks: AtomicU64::new(0),
            heads: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
            seen: Mutex::default(),
        });
        let (listening, listens) = watch::channel(false);
        let acceptor = background().spawn(accept(addr, listening, Arc::clone(&shared)));
        let upstream = Self { _address: address, addr, shared, listens, acceptor };
        upstream.set(Mode::Serve).await;
        upstream
    }

    /// One that answers everything with 200 and `name`.
    pub async fn named(name: &'static str) -> Self {
        Self::start(move |_| async move { answer(200, name) }).await
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes what it does. On return it listens, or no longer does.
    pub async fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
        let should = mode != Mode::Refuse;
        self.listens.clone().wait_for(|&listens| listens == should).await.expect("the upstream runs");
    }

    /// What checks are answered from now on.
    pub fn set_health(&self, status: u16) {
        self.shared.health.store(status, Ordering::SeqCst);
    }

    /// Every complete request so far, but for checks.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The only complete request so far.
    pub fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// Requests so far whose head has come, checks not counted.
    pub fn heads(&self) -> u64 {
        self.shared.heads.load(Ordering::SeqCst)
    }

    /// Checks so far.
    pub fn checks(&self) -> u64 {
        self.shared.checks.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn accept(addr: SocketAddr, listening: watch::Sender<bool>, shared: Arc<Shared>) {
    let mut mode = shared.mode.subscribe();
    loop {
        if mode.wait_for(|mode| *mode != Mode::Refuse).await.is_err() {
            return;
        }
        let listener = TcpListener::bind(addr).await.expect("the upstream's own address");
        listening.send_replace(true);
        // Aborts the connections when the upstream refuses, or goes.
        let mut connections = JoinSet::new();
        loop {
            let stream = tokio::select! {
                _ = mode.wait_for(|mode| *mode == Mode::Refuse) => break,
                accepted = listener.accept() => accepted,
            };
            if let Ok((stream, _)) = stream {
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                connections.spawn(connection(stream, number, Arc::clone(&shared)));
            }
            while connections.try_join_next().is_some() {}
        }
        drop(listener);
        connections.shutdown().await;
        listening.send_replace(false);
    }
}

/// One more open connection until dropped.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn connection(stream: TcpStream, number: u64, shared: Arc<Shared>) {
    shared.open.fetch_add(1, Ordering::SeqCst);
    let open = Open(shared);
    let _ = stream.set_nodelay(true);
    // A connection that is dropped is reset; one that hyper ends was shut down in order before.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    let reset = Notify::new();
    let service = service_fn(|request| serve(request, number, &open.0, &reset));
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = serving => {}
        () = reset.notified() => {}
    }
}

async fn serve(
    request: Request<Incoming>,
    connection: u64,
    shared: &Shared,
    reset: &Notify,
) -> Result<Answer, hyper::Error> {
    let mode = *shared.mode.borrow();
    if request.uri().path() == HEALTH {
        shared.checks.fetch_add(1, Ordering::SeqCst);
        if mode == Mode::Hang {
            std::future::pending::<()>().await;
        }
        return Ok(answer(shared.health.load(Ordering::SeqCst), ""));
    }
    shared.heads.fetch_add(1, Ordering::SeqCst);
    let (head, body) = request.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned();
    let body = body.to_bytes();
    let target = head.uri.to_string();
    let seen = Seen { method: head.method, target, headers: head.headers, body, trailers, connection };
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen.clone());
    match mode {
        Mode::Serve | Mode::Refuse => {}
        Mode::Status(status) => return Ok(answer(status, "as told")),
        Mode::Hang => std::future::pending().await,
        Mode::Reset => {
            reset.notify_one();
            std::future::pending::<()>().await;
        }
    }
    Ok((shared.handler)(seen).await)
}

/// An answer with a status and a body of known length.
pub fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    Response::builder().status(status).body(full(body)).expect("a status")
}

/// An answer with status 200 and these headers.
pub fn answer_with(headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::builder();
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(full(body)).expect("valid headers")
}

/// A body of known length.
pub fn full(body: impl Into<Bytes>) -> AnswerBody {
    Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// The sender's end of a body that is written piece by piece; dropping it ends the body.
#[derive(Debug)]
pub struct Pen(mpsc::UnboundedSender<io::Result<Frame<Bytes>>>);

impl Pen {
    /// Writes a piece. Whether somebody still reads is not this one's concern.
    pub fn write(&self, piece: impl Into<Bytes>) {
        let _ = self.0.send(Ok(Frame::data(piece.into())));
    }

    /// Ends the body with trailers.
    pub fn trailers(self, trailers: HeaderMap) {
        let _ = self.0.send(Ok(Frame::trailers(trailers)));
    }

    /// Breaks the body off: the connection ends in the middle of it.
    pub fn break_off(self) {
        let _ = self.0.send(Err(io::ErrorKind::BrokenPipe.into()));
    }

    /// Whether nobody reads any more.
    pub fn is_unread(&self) -> bool {
        self.0.is_closed()
    }
}

/// A body of unknown length, so a chunked one, and the pen it is written with.
pub fn written() -> (Pen, AnswerBody) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Pen(sender), Written(receiver).boxed())
}

struct Written(mpsc::UnboundedReceiver<io::Result<Frame<Bytes>>>);

impl Body for Written {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context)
    }
}

/// A body in these pieces, so a chunked one.
pub fn chunked(pieces: impl IntoIterator<Item = Bytes>) -> AnswerBody {
    Pieces(pieces.into_iter().collect()).boxed()
}

struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

/// The values of a header, joined by `, `; empty without one.
pub fn joined(headers: &HeaderMap, name: &str) -> String {
    let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    values.collect::<Vec<_>>().join(", ")
}
