//! The clients: those that keep a session, those that connect afresh, those that only listen; and what they met.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error};

use crate::support::client::{config, connect_with, value};
use crate::support::wire::Wire;

/// Where those that keep a session begin. On `n1`, to which things are done, there are fewer sessions than on the other
/// standby then: by number of sessions it is the first choice for fresh ones, for each proxy alike.
const KEEPERS: [(Side, usize); 6] =
    [(Side::Ro, 1), (Side::Ro, 2), (Side::Ro, 2), (Side::Rw, 0), (Side::Rw, 0), (Side::Rw, 0)];
/// To get a session on a certain node.
const TRIES: usize = 10;
const KEEP_PACE: Duration = Duration::from_millis(20);
/// From one fresh connection to the next, and from a failed connection of a keeper to its next.
const FRESH_PACE: Duration = Duration::from_millis(200);
/// For a fresh connection with its statement.
const PATIENCE: Duration = Duration::from_secs(30);
/// Sessions that only listen, on each listener.
const IDLE: usize = 2;

/// Where the writers write.
pub(crate) const TABLE: &str = "create table writes (id bigint primary key); grant all on writes to app";
const READ: &str = "select host(inet_server_addr())";

/// One of the two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Ro,
    Rw,
}

/// A connection with its first statement; or a statement of a kept session that was answered with an error.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) side: Side,
    pub(crate) begun: Instant,
    /// `None`: not yet.
    pub(crate) end: Option<(Instant, Result<(), Failure>)>,
}

/// Why an attempt failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) text: String,
    /// The login was complete.
    pub(crate) logged_in: bool,
    /// The session ended, rather than answer.
    pub(crate) session_over: bool,
}

impl Failure {
    fn new(error: &Error, logged_in: bool) -> Self {
        let code = error.code().map(SqlState::code);
        let session_over = code.is_none_or(|code| code.starts_with("57P"));
        let text = match (error.as_db_error(), std::error::Error::source(error)) {
            (Some(db), _) => format!("{}: {}", db.code().code(), db.message()),
            (None, Some(source)) => format!("{error}: {source}"),
            (None, None) => error.to_string(),
        };
        Self { text, logged_in, session_over }
    }
}

/// The end of a session that somebody wanted to keep.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) side: Side,
    /// `None`: an address that is no node's.
    pub(crate) node: Option<usize>,
    pub(crate) at: Instant,
    pub(crate) how: String,
    /// It only listened.
    pub(crate) idle: bool,
}

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acked {
    pub(crate) id: u64,
    pub(crate) node: Option<usize>,
    pub(crate) at: Instant,
}

/// All that the clients met.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    attempts: Mutex<Vec<Attempt>>,
    cuts: Mutex<Vec<Cut>>,
    acked: Mutex<Vec<Acked>>,
    /// Nodes of the sessions that only listen, told or not.
    idle: Mutex<Vec<(Side, Option<usize>)>>,
}

impl Diary {
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        lock(&self.attempts).clone()
    }

    pub(crate) fn cuts(&self) -> Vec<Cut> {
        lock(&self.cuts).clone()
    }

    pub(crate) fn acked(&self) -> Vec<Acked> {
        lock(&self.acked).clone()
    }

    pub(crate) fn idle(&self) -> Vec<(Side, Option<usize>)> {
        lock(&self.idle).clone()
    }

    fn begin(&self, side: Side) -> usize {
        let mut attempts = lock(&self.attempts);
        attempts.push(Attempt { side, begun: Instant::now(), end: None });
        attempts.len() - 1
    }

    fn end(&self, attempt: usize, result: Result<(), Failure>) {
        if let Some(attempt) = lock(&self.attempts).get_mut(attempt) {
            attempt.end = Some((Instant::now(), result));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running clients. Dropping it ends them.
pub(crate) struct Load {
    pub(crate) diary: Arc<Diary>,
    _tasks: JoinSet<()>,
}

impl Load {
    /// Starts all clients. Returns when those that only listen have their sessions: on `ro`, one on each of two nodes.
    pub(crate) async fn start(rw: SocketAddr, ro: SocketAddr, nodes: &[IpAddr]) -> Result<Self, String> {
        let diary = Arc::<Diary>::default();
        let clients = Arc::new(Clients {
            rw,
            ro,
            nodes: nodes.to_vec(),
            diary: Arc::clone(&diary),
            next_id: AtomicU64::new(1),
        });
        let mut tasks = JoinSet::new();
        for side in [Side::Ro, Side::Rw] {
            let mut found = Vec::new();
            for _ in 0..8 {
                let (wire, node) =
                    clients.idle(side).await.map_err(|error| format!("an idle session: {error}"))?;
                if found.len() < IDLE && (side == Side::Rw || !found.iter().any(|&(_, known)| known == node))
                {
                    found.push((wire, node));
                }
            }
            for (wire, node) in found {
                lock(&diary.idle).push((side, node));
                tasks.spawn(Arc::clone(&clients).listen(side, wire, node));
            }
        }
        let mut kept = Vec::new();
        for (side, node) in KEEPERS {
            let session = clients.on(side, node).await;
            kept.push((side, session.ok_or_else(|| format!("no session on n{node} through {side:?}"))?));
        }
        for (side, session) in kept {
            tasks.spawn(Arc::clone(&clients).keep(side, session));
        }
        for side in [Side::Ro, Side::Rw] {
            tasks.spawn(Arc::clone(&clients).connect_again_and_again(side));
        }
        Ok(Self { diary, _tasks: tasks })
    }
}

/// A client and the node that answered it at first.
type Session = (Client, Option<usize>);

struct Clients {
    rw: SocketAddr,
    ro: SocketAddr,
    nodes: Vec<IpAddr>,
    diary: Arc<Diary>,
    next_id: AtomicU64,
}

impl Clients {
    fn addr(&self, side: Side) -> SocketAddr {
        match side {
            Side::Ro => self.ro,
            Side::Rw => self.rw,
        }
    }

    fn node_of(&self, ip: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.to_string() == ip)
    }

    /// A session on this very node; those that led elsewhere are kept open meanwhile.
    async fn on(&self, side: Side, node: usize) -> Option<Session> {
        let mut others = Vec::new();
        for _ in 0..TRIES {
            let session = self.fresh(side).await?;
            if session.1 == Some(node) {
                return Some(session);
            }
            others.push(session);
        }
        None
    }

    async fn keep(self: Arc<Self>, side: Side, first: Session) {
        let mut session = Some(first);
        loop {
            let Some((client, node)) = session.take() else {
                session = self.fresh(side).await;
                if session.is_none() {
                    sleep(FRESH_PACE).await;
                }
                continue;
            };
            loop {
                sleep(KEEP_PACE).await;
                let begun = Instant::now();
                let Err(error) = self.operate(side, &client).await else { continue };
                let failure = Failure::new(&error, true);
                let at = Instant::now();
                if failure.session_over {
                    lock(&self.diary.cuts).push(Cut { side, node, at, how: failure.text, idle: false });
                } else {
                    let end = Some((at, Err(failure)));
                    lock(&self.diary.attempts).push(Attempt { side, begun, end });
                }
                break;
            }
        }
    }

    async fn connect_again_and_again(self: Arc<Self>, side: Side) {
        let mut pace = interval(FRESH_PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connections = JoinSet::new();
        loop {
            pace.tick().await;
            let clients = Arc::clone(&self);
            connections.spawn(async move { drop(clients.fresh(side).await) });
            while connections.try_join_next().is_some() {}
        }
    }

    /// Connects, logs in and does one thing.
    async fn fresh(&self, side: Side) -> Option<Session> {
        let attempt = self.diary.begin(side);
        let mut logged_in = false;
        let work = async {
            let client =
                connect_with(self.config(side)).await.map_err(|error| Failure::new(&error, false))?;
            logged_in = true;
            let node = self.operate(side, &client).await.map_err(|error| Failure::new(&error, true))?;
            Ok((client, node))
        };
        let done = timeout(PATIENCE, work).await;
        let (found, result) = match done {
            Ok(Ok(found)) => (Some(found), Ok(())),
            Ok(Err(failure)) => (None, Err(failure)),
            Err(_) => {
                let text = format!("nothing for {} s", PATIENCE.as_secs());
                (None, Err(Failure { text, logged_in, session_over: logged_in }))
            }
        };
        self.diary.end(attempt, result);
        found
    }

    /// A read or a write, and the node that did it.
    async fn operate(&self, side: Side, client: &Client) -> Result<Option<usize>, Error> {
        if side == Side::Ro {
            return Ok(self.node_of(&value(client, READ).await?));
        }
        let id = self.next_id.fetch_add(1, Relaxed);
        let sql = format!("insert into writes values ({id}) returning host(inet_server_addr())");
        let node = self.node_of(&value(client, &sql).await?);
        lock(&self.diary.acked).push(Acked { id, node, at: Instant::now() });
        Ok(node)
    }

    fn config(&self, side: Side) -> Config {
        app(self.addr(side))
    }

    async fn idle(&self, side: Side) -> std::io::Result<(Wire, Option<usize>)> {
        let mut wire = Wire::connect(self.addr(side)).await?;
        let refused = |error: crate::support::wire::ServerError| std::io::Error::other(error.message);
        wire.login("app", "postgres").await?.map_err(refused)?;
        let messages = wire.query(READ).await?;
        let row = messages.iter().find(|message| message.tag == b'D');
        // Number of fields and length of the first, then the text.
        let text = row.and_then(|row| row.body.get(6..)).unwrap_or_default();
        let node = self.node_of(&String::from_utf8_lossy(text));
        Ok((wire, node))
    }

    async fn listen(self: Arc<Self>, side: Side, mut wire: Wire, node: Option<usize>) {
        let how = loop {
            match wire.message().await {
                // Changes of parameters are no end.
                Ok(Some(message)) => match message.error() {
                    Some(error) if message.tag == b'E' => break format!("{} {}", error.severity, error.code),
                    _ => {}
                },
                Ok(None) => break "close".to_owned(),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {}
                Err(_) => break "reset".to_owned(),
            }
        };
        lock(&self.diary.cuts).push(Cut { side, node, at: Instant::now(), how, idle: true });
    }
}

/// An ordinary role, so that a full server refuses it.
pub(crate) fn app(addr: SocketAddr) -> Config {
    let mut config = config(addr);
    config.user("app").application_name("load").connect_timeout(PATIENCE);
    config
}
