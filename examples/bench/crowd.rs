//! Thousands of sessions at a time.

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

    /// Asks one after another, again and again, for a while; then each once more. Returns how many answered that.
    pub(crate) async fn murmur(&mut self, time: Duration) -> (usize, Option<String>) {
        let start = Instant::now();
        let mut pace = interval(MURMUR);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut error = None;
        let mut lost = std::collections::BTreeSet::new();
        let numbers = (0..self.sessions.len()).cycle();
        for number in numbers.take_while(|_| start.elapsed() < time) {
            pace.tick().await;
            let Some(session) = self.sessions.get_mut(number).filter(|_| !lost.contains(&number)) else {
                continue;
            };
            if let Err(cause) = session.query(QUERY).await {
                lost.insert(number);
                error.get_or_insert(cause);
            }
        }
        let mut alive = 0;
        for (number, session) in self.sessions.iter_mut().enumerate() {
            match session.query(QUERY).await {
                Ok(_) if !lost.contains(&number) => alive += 1,
                Ok(_) => {}
                Err(cause) => {
                    error.get_or_insert(cause);
                }
            }
        }
        (alive, error)
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
