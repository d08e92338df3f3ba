//! Thousands of sessions at a time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::latency::Latency;
use crate::sessions::Session;

/// What each asks.
const QUERY: &str = "select 1";
/// Logins at a time of those who are in no hurry.
const AT_A_TIME: usize = 32;
/// Queries each second to a crowd that is to be kept alive.
const MURMUR: Duration = Duration::from_millis(5);

/// What those who came at once met.
#[derive(Debug, Default)]
pub(crate) struct Storm {
    pub(crate) served: u64,
    pub(crate) failed: u64,
    /// The first error.
    pub(crate) error: Option<String>,
    /// From connecting to the end of the login.
    pub(crate) logins: Option<Latency>,
}

/// All connect at once, log in, ask and leave.
pub(crate) async fn storm(addr: SocketAddr, clients: u32) -> Storm {
    let mut visits = JoinSet::new();
    for _ in 0..clients {
        visits.spawn(visit(addr));
    }
    let mut storm = Storm::default();
    let mut took = Vec::new();
    while let Some(done) = visits.join_next().await {
        match done.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(login) => {
                storm.served += 1;
                took.extend(u64::try_from(login.as_micros()));
            }
            Err(error) => {
                storm.failed += 1;
                storm.error.get_or_insert(error);
            }
        }
    }
    storm.logins = Latency::of(took);
    storm
}

/// Returns how long the login took.
async fn visit(addr: SocketAddr) -> Result<Duration, String> {
    let start = Instant::now();
    let mut session = Session::open(addr).await?;
    let login = start.elapsed();
    session.query(QUERY).await?;
    session.leave().await;
    Ok(login)
}

/// Sessions that are kept.
pub(crate) struct Crowd {
    sessions: Vec<Session>,
}

impl Crowd {
    /// Each has asked once: PgBouncer gives a client a session of the node only then.
    pub(crate) async fn gather(addr: SocketAddr, size: u32) -> Result<Self, String> {
        let mut logins = JoinSet::new();
        let mut sessions = Vec::new();
        let mut left = size;
        loop {
            while left > 0 && logins.len() < AT_A_TIME {
                left -= 1;
                logins.spawn(async move {
                    let mut session = Session::open(addr).await?;
                    session.query(QUERY).await?;
                    Ok::<_, String>(session)
                });
            }
            let Some(session) = logins.join_next().await else { return Ok(Self { sessions }) };
            let session = session.map_err(|error| error.to_string())?;
            let number = sessions.len() + 1;
            sessions.push(session.map_err(|error| format!("session {number} of {size}: {error}"))?);
        }
    }

    /// Asks one after another, again and again, for a while, then each once more. Returns how many answered whenever
    /// they were asked, and the first error of the others.
    pub(crate) async fn murmur(&mut self, time: Duration) -> (usize, Option<String>) {
        let start = Instant::now();
        let mut pace = interval(MURMUR);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost = Lost::default();
        while start.elapsed() < time && lost.numbers.len() < self.sessions.len() {
            for (number, session) in self.sessions.iter_mut().enumerate() {
                pace.tick().await;
                lost.ask(number, session).await;
                if start.elapsed() >= time {
                    break;
                }
            }
        }
        for (number, session) in self.sessions.iter_mut().enumerate() {
            lost.ask(number, session).await;
        }
        (self.sessions.len() - lost.numbers.len(), lost.error)
    }

    /// All say good-bye.
    pub(crate) async fn leave(self) {
        let mut farewells = JoinSet::new();
        for session in self.sessions {
            farewells.spawn(session.leave());
        }
        farewells.join_all().await;
    }
}

/// Sessions that once gave no answer.
#[derive(Default)]
struct Lost {
    numbers: BTreeSet<usize>,
    error: Option<String>,
}

impl Lost {
    async fn ask(&mut self, number: usize, session: &mut Session) {
        if self.numbers.contains(&number) {
            return;
        }
        if let Err(error) = session.query(QUERY).await {
            self.numbers.insert(number);
            self.error.get_or_insert(error);
        }
    }
}
