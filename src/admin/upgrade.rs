//! An upgrade, over `POST /api/v1/upgrade`: asked for here, done by whoever runs the process.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, json};

/// The longest question.
const QUESTION_MAX: usize = 8 * 1024;
/// How long a new process may take to be ready, when nobody says.
pub const WAIT: Duration = Duration::from_secs(30);
/// The longest that can be said.
const WAIT_MAX: u32 = 600;

/// Somebody wants a new process to take this one's place.
#[derive(Debug)]
pub struct Upgrade {
    /// Who: `signal`, `api`.
    pub by: &'static str,
    /// The program to start; `None`: what this process was started from.
    pub binary: Option<PathBuf>,
    /// How long it may take to be ready.
    pub wait: Duration,
    /// Where the outcome goes. Nobody need be there to hear it.
    pub answer: oneshot::Sender<Result<Upgraded, String>>,
}

/// What became of an upgrade.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Upgraded {
    /// The new process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Sessions that go on there.
    pub moved: u64,
    /// Sessions that it did not take.
    pub stayed: u64,
    /// Connections that end in the old process, those of these sessions among them, or move once they have logged in.
    pub open: usize,
    /// How long it took.
    pub seconds: f64,
}

/// Asks for upgrades. One is done at a time.
#[derive(Clone, Debug)]
pub struct Upgrades(mpsc::Sender<Upgrade>);

impl Upgrades {
    /// The two ends: who asks, and who does it.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Upgrade>) {
        let (asking, asked) = mpsc::channel(1);
        (Self(asking), asked)
    }

    /// Lets a new process take this one's place.
    ///
    /// Cancel safe: what was asked for is done all the same, or not at all.
    ///
    /// # Errors
    /// In words: this process goes on.
    pub async fn upgrade(
        &self,
        by: &'static str,
        binary: Option<PathBuf>,
        wait: Duration,
    ) -> Result<Upgraded, String> {
        let (answer, done) = oneshot::channel();
        let stopping = || "pgsplit is stopping".to_owned();
        self.0.send(Upgrade { by, binary, wait, answer }).await.map_err(|_| stopping())?;
        done.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// What may be asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Question {
    binary: Option<PathBuf>,
    wait_seconds: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Failed {
    error: String,
    hint: &'static str,
}

/// Upgrades for who may ask for it.
pub(super) async fn answer(upgrades: &Upgrades, request: Request<Incoming>) -> Answer {
    let question = match Limited::new(request.into_body(), QUESTION_MAX).collect().await {
        Ok(body) => understand(&body.to_bytes()),
        Err(error) => Err(error.to_string()),
    };
    let Question { binary, wait_seconds } = match question {
        Ok(question) => question,
        Err(error) => {
            let hint = "send nothing, or {\"binary\": \"/path\", \"wait_seconds\": 30}";
            return json(StatusCode::BAD_REQUEST, &Failed { error, hint });
        }
    };
    let wait = wait_seconds.map_or(WAIT, |seconds| Duration::from_secs(seconds.clamp(1, WAIT_MAX).into()));
    match upgrades.upgrade("api", binary, wait).await {
        Ok(done) => json(StatusCode::OK, &done),
        Err(error) => {
            let hint = "the log of pgsplit says more";
            json(StatusCode::INTERNAL_SERVER_ERROR, &Failed { error, hint })
        }
    }
}

fn understand(body: &[u8]) -> Result<Question, String> {
    if body.trim_ascii().is_empty() {
        return Ok(Question::default());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_may_be_empty_and_must_not_be_something_else() {
        assert!(understand(b" \n").unwrap().binary.is_none());
        let question = understand(br#"{"binary": "/usr/bin/pgsplit", "wait_seconds": 5}"#).unwrap();
        assert_eq!((question.binary, question.wait_seconds), (Some("/usr/bin/pgsplit".into()), Some(5)));
        assert!(understand(b"{\"wait\": 5}").is_err() && understand(b"[]x").is_err());
    }
}
