//! One client's connection: which protocol it speaks, its requests, and what ends it.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::config::http::{Limits, LogRequests};
use crate::front::forward::Client;
use crate::front::gate::Gate;
use crate::front::pulse::{Overdue, Pulse, Stall};
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
/// So many requests that a client broke off itself end its connection, if they are most of them.
const RESETS: u32 = 200;
/// How often connections are looked at while the process stops.
const STOP_INTERVAL: Duration = Duration::from_millis(200);
/// Silence before the first probe, from one to the next, and how many unanswered ones end a connection.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 3);
/// Most of an answer that is in memory on its way out.
const BUFFER: usize = 128 * 1024;
/// Least that the library takes.
const BUFFER_LEAST: usize = 8192;

/// What the requests of one connection share.
#[derive(Debug)]
pub struct Caller {
    /// Who it is.
    pub client: Client,
    /// Answers that are being read by HTTP/2, each at its own pace.
    stalls: Mutex<Vec<Arc<Stall>>>,
    /// When something last moved.
    pub pulse: Arc<Pulse>,
    /// Requests so far, and those that the client broke off.
    requests: AtomicU32,
    resets: AtomicU32,
    order: AtomicU8,
    waker: OnceLock<Waker>,
    /// What its requests have begun and that outlives them.
    pub tasks: TaskTracker,
    /// Ends them, when the connection is to end at once.
    pub cut: CancellationToken,
}

/// What a connection is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    GoOn = 0,
    /// Finish what runs, and begin nothing new.
    Finish = 1,
    /// End at once.
    End = 2,
}

impl Caller {
    fn new(client: Client) -> Self {
        Self {
            client,
            stalls: Mutex::default(),
            pulse: Arc::default(),
            requests: AtomicU32::new(0),
            resets: AtomicU32::new(0),
            order: AtomicU8::new(0),
            waker: OnceLock::new(),
            tasks: TaskTracker::new(),
            cut: CancellationToken::new(),
        }
    }

    fn order(&self) -> Order {
        match self.order.load(Ordering::Relaxed) {
            0 => Order::GoOn,
            1 => Order::Finish,
            _ => Order::End,
        }
    }

    /// Orders it, unless it has a sharper order.
    fn tell(&self, order: Order) {
        if order as u8 <= self.order.fetch_max(order as u8, Ordering::Relaxed) {
            return;
        }
        if order == Order::End {
            self.cut.cancel();
        }
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Notes one more answer that is read at its own pace; gone with [`Caller::forget`].
    pub fn note(&self, stall: &Arc<Stall>) {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(stall));
    }

    /// It is over.
    pub fn forget(&self, stall: &Arc<Stall>) {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, stall));
    }

    fn overdue(&self, limits: &Limits) -> Option<Overdue> {
        let stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stalled = stalls.iter().any(|stall| stall.is_over(limits.body_timeout));
        if is_stalled { Some(Overdue::Reading) } else { self.pulse.overdue(limits) }
    }

    /// One of its requests is over; whether the client itself broke it off.
    pub fn request_ended(&self, is_reset: bool) {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if is_reset {
            let resets = self.resets.fetch_add(1, Ordering::Relaxed) + 1;
            if RESETS < resets && requests / 2 < resets {
                self.tell(Order::End);
            }
        }
        self.pulse.request_ended();
    }

    fn is_flooding(&self) -> bool {
        RESETS < self.resets.load(Ordering::Relaxed)
    }
}

/// What the connections of one worker share.
#[derive(Debug)]
pub struct Desk {
    /// The worker's number.
    pub index: usize,
    fronts: Vec<Arc<Front>>,
    callers: Mutex<Vec<(usize, Arc<Caller>)>>,
    is_guarded: AtomicBool,
    guards: TaskTracker,
}

impl Desk {
    /// The desk of the worker with this number.
    #[must_use]
    pub fn new(index: usize, fronts: Vec<Arc<Front>>) -> Self {
        Self {
            index,
            fronts,
            callers: Mutex::default(),
            is_guarded: AtomicBool::new(false),
            guards: TaskTracker::new(),
        }
    }

    fn enter(self: &Arc<Self>, door: usize, caller: &Arc<Caller>) -> Seat {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).push((door, Arc::clone(caller)));
        // By the first connection, as only now there is a runtime to do it on.
        if !self.is_guarded.swap(true, Ordering::Relaxed) {
            self.guards.spawn(Arc::clone(self).guard());
        }
        Seat { desk: Arc::clone(self), caller: Arc::clone(caller) }
    }

    /// Looks at all connections now and then: one timer for all of them, and none of their requests ever touches it.
    async fn guard(self: Arc<Self>) {
        let Some(first) = self.fronts.first() else { return };
        let (stop, kill) = (first.stop.clone(), first.kill.clone());
        let intervals = self.fronts.iter().map(|front| Pulse::interval(&front.config.limits));
        let interval = intervals.min().unwrap_or(Duration::from_secs(1));
        let mut is_stopping = false;
        loop {
            tokio::select! {
                () = sleep(if is_stopping { interval.min(STOP_INTERVAL) } else { interval }) => {}
                () = stop.cancelled(), if !is_stopping => is_stopping = true,
                () = kill.cancelled() => {}
            }
            let callers: Vec<_> = self.callers.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for (door, caller) in callers {
                let Some(front) = self.fronts.get(door) else { continue };
                if kill.is_cancelled() {
                    caller.tell(Order::End);
                } else if let Some(overdue) = caller.overdue(&front.config.limits) {
                    end_overdue(front, &caller, overdue);
                } else if is_stopping {
                    // One that has had the time to, and has nothing to finish, may wait for a client that is silent.
                    let is_done = caller.order() == Order::Finish && caller.pulse.is_idle();
                    caller.tell(if is_done { Order::End } else { Order::Finish });
                }
            }
            if kill.is_cancelled() {
                return;
            }
        }
    }
}

fn end_overdue(front: &Front, caller: &Caller, overdue: Overdue) {
    match overdue {
        Overdue::Idle if caller.order() == Order::GoOn => caller.tell(Order::Finish),
        Overdue::Idle => caller.tell(Order::End),
        Overdue::Head | Overdue::Reading => {
            if caller.order() != Order::End {
                front.metrics.reject(HttpRejection::Slow);
            }
            caller.tell(Order::End);
        }
    }
}

/// A connection's place among those that are looked at; left on `Drop`.
struct Seat {
    desk: Arc<Desk>,
    caller: Arc<Caller>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut callers = self.desk.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = callers.iter().position(|(_, caller)| Arc::ptr_eq(caller, &self.caller)) {
            callers.swap_remove(at);
        }
    }
}

/// Serves one connection to its end.
pub async fn converse(desk: Arc<Desk>, accepted: Accepted) {
    let Some(front) = desk.fronts.get(accepted.door).cloned() else { return };
    let _descriptor = accepted.descriptor;
    let _counted = front.metrics.connection_guard();
    let Ok(stream) = TcpStream::from_std(accepted.stream) else { return };
    if u64::from(front.config.limits.max_connections.get()) < front.metrics.connections() {
        return turn_away(&front, stream).await;
    }
    let options = Options { keepalive: Some(KEEPALIVE), user_timeout: None };
    if options.apply(&stream).is_err() {
        return;
    }
    let caller = Arc::new(Caller::new(Client::new(accepted.peer, &front.config)));
    let _seat = desk.enter(accepted.door, &caller);
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

impl Caller {
    /// Does something for as long as there is no order to finish. Cancel safe if `what` is.
    async fn obey<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = pin!(what);
        std::future::poll_fn(|cx| match self.heed(cx.waker()) {
            Order::GoOn => what.as_mut().poll(cx).map(Some),
            Order::Finish | Order::End => Poll::Ready(None),
        })
        .await
    }

    /// The order of the hour; later ones wake `waker`, which is the same for the whole life of a connection's task.
    fn heed(&self, waker: &Waker) -> Order {
        self.waker.get_or_init(|| waker.clone());
        self.order()
    }
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
    if front.log != LogRequests::Off {
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
