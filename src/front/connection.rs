//! One client's connection: which protocol it speaks, its requests, and what ends it.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info};

use crate::config::http::LogRequests;
use crate::front::caller::{Caller, Order};
use crate::front::desk::Desk;
use crate::front::forward::Client;
use crate::front::gate::Gate;
use crate::front::serve;
use crate::front::shared::Front;
use crate::net::options::Options;
use crate::net::worker::Accepted;
use crate::telemetry::labels::HttpRejection;

/// What a client that knows the server to speak HTTP/2 begins with. See RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Between two looks at the beginning of a connection that may be the preface; doubled each time,
const PEEK_PAUSE: Duration = Duration::from_millis(5);
/// up to this.
const PEEK_PAUSE_MOST: Duration = Duration::from_millis(500);
/// How long it may take to say that there is no room.
const TURN_AWAY: Duration = Duration::from_millis(5);
/// Streams at a time on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// Silence before the first probe, from one to the next, and how many unanswered ones end a connection.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 3);
/// What clients' sockets inherit.
pub const OPTIONS: Options = Options { keepalive: Some(KEEPALIVE), user_timeout: None };
/// Most of an answer that is in memory on its way out.
const BUFFER: usize = 128 * 1024;
/// Least that the library takes.
const BUFFER_LEAST: usize = 8192;

/// Serves one connection to its end.
pub async fn converse(desk: Arc<Desk>, accepted: Box<Accepted<Arc<Front>>>) {
    let Accepted { stream, peer, to: front, descriptor, silent, served, .. } = *accepted;
    let _counted_by = (descriptor, served);
    // The pulse watches those that say nothing.
    drop(silent);
    let _counted = front.metrics.connection_guard();
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    if u64::from(front.config.limits.max_connections.get()) < front.metrics.connections() {
        return turn_away(&front, stream).await;
    }
    let caller = Arc::new(Caller::new(Client::new(peer, &front.config)));
    let _seat = desk.enter(&front, &caller);
    if front.kill.is_cancelled() {
        return;
    }
    let is_http2 = if front.config.http2 {
        // Who says nothing is sent away like who begins a head and does not end it.
        let Some(is_http2) = caller.obey(is_preface(&stream)).await else { return };
        is_http2
    } else {
        false
    };
    if is_http2 {
        speak_http2(&front, desk.index, &caller, stream).await;
    } else {
        speak_http1(&front, desk.index, &caller, stream).await;
    }
    caller.tasks.close();
    caller.tasks.wait().await;
    if caller.is_flooding() {
        front.metrics.reject(HttpRejection::Resets);
        debug!(front = front.config.name, client = %caller.client.addr, "http_reset_flood");
    }
}

/// Whether the client begins with the preface of HTTP/2. Reads nothing. Cancel safe.
async fn is_preface(stream: &TcpStream) -> bool {
    let mut begin = [0; PREFACE.len()];
    let mut pause = PEEK_PAUSE;
    loop {
        match stream.peek(&mut begin).await {
            Ok(0) | Err(_) => return false,
            Ok(len) if begin.get(..len) != PREFACE.get(..len) => return false,
            Ok(len) if len == PREFACE.len() => return true,
            // What is there already makes the socket readable: there is nothing to wait on but the clock.
            Ok(_) => {
                sleep(pause).await;
                pause = (pause * 2).min(PEEK_PAUSE_MOST);
            }
        }
    }
}

async fn speak_http1(front: &Arc<Front>, worker: usize, caller: &Arc<Caller>, stream: TcpStream) {
    let max_header = usize::try_from(front.config.limits.max_header).unwrap_or(BUFFER);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_header_size(max_header)
        .max_buf_size(BUFFER.max(max_header).max(BUFFER_LEAST));
    let gate = Gate::new(stream, Arc::clone(&caller.pulse), max_header);
    let service = service_fn(|request: Request<Incoming>| async {
        Ok::<_, Infallible>(serve(front, worker, caller, request).await)
    });
    let connection = builder.serve_connection(TokioIo::new(gate), service).with_upgrades();
    note(front, caller, drive(caller, connection, http1::UpgradeableConnection::graceful_shutdown).await);
}

async fn speak_http2(front: &Arc<Front>, worker: usize, caller: &Arc<Caller>, stream: TcpStream) {
    let max_header = u32::try_from(front.config.limits.max_header).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(max_header)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1 * KEEPALIVE.2);
    caller.pulse.set_http2();
    let gate = Gate::open(stream, Arc::clone(&caller.pulse));
    let service = service_fn(|request: Request<Incoming>| {
        let (front, caller) = (Arc::clone(front), Arc::clone(caller));
        async move { Ok::<_, Infallible>(serve(&front, worker, &caller, request).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(gate), service);
    note(front, caller, drive(caller, connection, http2::Connection::graceful_shutdown).await);
}

/// Serves a connection to its end, heeding orders.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    caller: &Caller,
    connection: C,
    finish: impl Fn(Pin<&mut C>),
) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    let mut is_finishing = false;
    std::future::poll_fn(|cx| {
        match caller.heed(cx.waker()) {
            Order::End => return Poll::Ready(Ok(())),
            Order::Finish if !is_finishing => {
                is_finishing = true;
                finish(connection.as_mut());
            }
            Order::Finish | Order::GoOn => {}
        }
        connection.as_mut().poll(cx)
    })
    .await
}

/// Counts and logs a connection that ended because of what its client sent: the library has answered it.
fn note(front: &Front, caller: &Caller, ended: hyper::Result<()>) {
    let Err(error) = ended else { return };
    let name = front.config.name.as_str();
    if !error.is_parse() {
        debug!(front = name, %error, "http_connection_ended");
        return;
    }
    let (refused, status) = if error.is_parse_too_large() {
        (HttpRejection::Header, 431)
    } else {
        (HttpRejection::BadRequest, 400)
    };
    front.metrics.reject(refused);
    if **front.log.load() != LogRequests::Off {
        let (client, refused) = (caller.client.addr, refused.as_str());
        info!(front = name, %client, status, refused, error = %error, "request_refused");
    }
}

/// Says in as few words as possible that there is no room, and closes.
async fn turn_away(front: &Front, mut stream: TcpStream) {
    const WORDS: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nx-pgsplit-reason: connections\r\n\
        content-length: 0\r\nconnection: close\r\n\r\n";
    front.metrics.reject(HttpRejection::Connections);
    let deadline = Instant::now() + TURN_AWAY;
    if let Ok(Ok(())) = timeout_at(deadline, stream.write_all(WORDS)).await {
        crate::net::peer::leave(stream).await;
    }
}
