//! Another process in the place of this one, over `POST /api/v1/upgrade`: asked for here, done by whoever runs the process.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use http_body_util::BodyExt;
use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::warn;

use super::query::Query;
use super::refusal::Refusal;
use super::reply::{Answer, json};
use super::view::time;
use crate::telemetry::labels::UpgradeResult;

/// How long a new process may take to be ready, when nobody says.
const WAIT: Duration = Duration::from_secs(30);
/// The longest that can be said: who asks is answered while the connection may last.
const WAIT_MOST: u64 = 50;

/// Somebody wants a new process to take this one's place.
#[derive(Debug)]
pub struct Upgrade {
    /// Who: `signal`, `cli`, `dashboard`, `api`.
    pub by: &'static str,
    /// How long the new process may take to be ready.
    pub wait: Duration,
    /// Where the outcome goes. Nobody need be there to hear it.
    pub answer: oneshot::Sender<Told>,
    /// Nobody else gets a turn while this is there.
    pub turn: OwnedSemaphorePermit,
}

/// What became of an upgrade, for who has asked.
#[derive(Debug)]
pub struct Told {
    /// What: in words, if this process goes on.
    pub outcome: Result<Upgraded, String>,
    /// Dropped once that has been passed on.
    pub passing: oneshot::Sender<()>,
}

/// What became of an upgrade that was done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Upgraded {
    /// The new process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Sessions that go on there.
    pub moved: u64,
    /// Sessions that it did not take, and that end here.
    pub stayed: usize,
    /// Connections that are left here: those sessions, HTTP connections, and sessions that have no node yet, which move once they
    /// have logged in.
    pub open: usize,
    /// How long it took.
    pub seconds: f64,
}

/// Why an upgrade is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// Another one is not over.
    #[error("an upgrade is under way")]
    UnderWay,
    /// Nobody is left to do it.
    #[error("pgsplit is stopping")]
    Stopping,
}

/// Asks for upgrades, and knows what became of the last one. One is done at a time.
#[derive(Clone, Debug)]
pub struct Upgrades {
    asking: mpsc::Sender<Upgrade>,
    turn: Arc<Semaphore>,
    last: Arc<ArcSwapOption<Last>>,
}

/// The last upgrade that this process had a part in.
#[derive(Debug)]
pub struct Last {
    /// When.
    pub at: SystemTime,
    /// Who wanted it.
    pub by: &'static str,
    /// Why it failed; `None`: it did not, and this is the new process.
    pub error: Option<String>,
}

/// The same, as others see it.
#[derive(Debug, Default, Serialize)]
pub(super) struct LastView {
    last_at: Option<String>,
    last_by: Option<&'static str>,
    last: Option<&'static str>,
    pub(super) last_error: Option<String>,
}

impl Upgrades {
    /// The two ends: who asks, and who does it.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Upgrade>) {
        let (asking, asked) = mpsc::channel(1);
        (Self { asking, turn: Arc::new(Semaphore::new(1)), last: Arc::default() }, asked)
    }

    /// The turn of an upgrade: as long as it is there, there is no other one.
    ///
    /// # Errors
    /// There is one.
    pub fn turn(&self) -> Result<OwnedSemaphorePermit, NotNow> {
        Arc::clone(&self.turn).try_acquire_owned().map_err(|_| NotNow::UnderWay)
    }

    /// Lets a new process, which may take so long to be ready, take this one's place; what became of it.
    ///
    /// Cancel safe: what was asked for is done all the same, or not at all.
    ///
    /// # Errors
    /// Not now.
    pub async fn upgrade(&self, by: &'static str, wait: Option<Duration>) -> Result<Told, NotNow> {
        let asked = async {
            let turn = self.turn()?;
            let (answer, told) = oneshot::channel();
            let upgrade = Upgrade { by, wait: wait.unwrap_or(WAIT), answer, turn };
            self.asking.send(upgrade).await.map_err(|_| NotNow::Stopping)?;
            told.await.map_err(|_| NotNow::Stopping)
        };
        let told = asked.await;
        if let Err(why) = &told {
            warn!(by, error = %why, "upgrade_refused");
        }
        told
    }

    /// What became of the last one.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Last>> {
        self.last.load_full()
    }

    /// Notes what became of one.
    pub fn note(&self, by: &'static str, error: Option<String>) {
        self.last.store(Some(Arc::new(Last { at: SystemTime::now(), by, error })));
    }
}

impl LastView {
    pub(super) fn of(upgrades: &Upgrades) -> Self {
        let Some(last) = upgrades.last() else { return Self::default() };
        let result = if last.error.is_none() { UpgradeResult::Done } else { UpgradeResult::Failed };
        Self {
            last_at: Some(time(last.at)),
            last_by: Some(last.by),
            last: Some(result.as_str()),
            last_error: last.error.clone(),
        }
    }
}

/// Upgrades for who may ask for it.
///
/// # Errors
/// The query cannot be understood, or it did not come to that.
pub(super) async fn answer(
    upgrades: &Upgrades,
    by: &'static str,
    query: &Query<'_>,
) -> Result<Answer, Refusal> {
    let wait = query.get("wait", &format!("a number of seconds, 1 to {WAIT_MOST}"), |text| {
        let seconds: u64 = text.parse().ok()?;
        (1..=WAIT_MOST).contains(&seconds).then(|| Duration::from_secs(seconds))
    })?;
    let Told { outcome, passing } = upgrades.upgrade(by, wait).await?;
    let done = outcome.map_err(Refusal::UpgradeFailed)?;
    // Who has asked is told by a process that ends: it waits for this.
    Ok(json(StatusCode::OK, &done).map(|body| {
        let passed_on = move |frame| {
            let _ = &passing;
            frame
        };
        body.map_frame(passed_on).boxed_unsync()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_is_one_at_a_time_and_who_asks_hears_what_became_of_it() {
        let (upgrades, mut asked) = Upgrades::channel();
        let doing = async {
            let Upgrade { answer, turn, .. } = asked.recv().await.unwrap();
            assert_eq!(upgrades.upgrade("signal", None).await.unwrap_err(), NotNow::UnderWay);
            drop(turn);
            let (passing, passed_on) = oneshot::channel();
            answer.send(Told { outcome: Err("no".to_owned()), passing }).unwrap();
            Some(passed_on)
        };
        let query = Query::read(Some("wait=3"), &["wait"]).unwrap();
        let (refused, passed_on) = tokio::join!(answer(&upgrades, "api", &query), doing);
        let refused = refused.unwrap_err();
        assert_eq!(refused, Refusal::UpgradeFailed("no".to_owned()));
        assert!(passed_on.unwrap().await.is_err());
        drop(asked);
        let refused = answer(&upgrades, "api", &query).await.unwrap_err();
        assert_eq!(refused, Refusal::Upgrade(NotNow::Stopping));
        for wrong in ["0", "51", "x"] {
            let query = format!("wait={wrong}");
            let query = Query::read(Some(&query), &["wait"]).unwrap();
            assert_eq!(answer(&upgrades, "api", &query).await.unwrap_err().status(), StatusCode::BAD_REQUEST);
        }
    }

    #[tokio::test]
    async fn who_is_told_has_it_when_the_answer_has_been_taken() {
        let (upgrades, mut asked) = Upgrades::channel();
        let doing = async {
            let Upgrade { answer, .. } = asked.recv().await.unwrap();
            let (passing, passed_on) = oneshot::channel();
            let done = Upgraded { pid: 7, version: "1".into(), moved: 2, stayed: 0, open: 1, seconds: 0.5 };
            answer.send(Told { outcome: Ok(done), passing }).unwrap();
            Some(passed_on)
        };
        let query = Query::read(None, &["wait"]).unwrap();
        let (answered, passed_on) = tokio::join!(answer(&upgrades, "api", &query), doing);
        let mut passed_on = passed_on.unwrap();
        let body = answered.unwrap().into_body();
        assert_eq!(passed_on.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        let said = body.collect().await.unwrap().to_bytes();
        assert!(said.windows(8).any(|part| part == b"\"pid\": 7"), "{said:?}");
        assert!(passed_on.await.is_err());
    }
}
