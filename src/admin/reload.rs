//! The configuration loaded again, over `POST /api/v1/reload`: asked for here, done by whoever runs the process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::refusal::Refusal;
use super::reply::{Answer, json};
use crate::config::diff::Diff;
use crate::telemetry::labels::ReloadResult;

/// Somebody wants the configuration loaded again.
#[derive(Debug)]
pub struct Reload {
    /// Who: `signal`, `file`, `api`.
    pub by: &'static str,
    /// Where the outcome goes. Nobody need be there to hear it.
    pub answer: oneshot::Sender<Arc<Reloaded>>,
}

/// What became of a reload.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// When.
    pub at: SystemTime,
    /// Who wanted it.
    pub by: &'static str,
    /// What is different, or why it was refused and nothing is.
    pub outcome: Result<Diff, Refused>,
}

/// Why a reload was refused. What was in force before still is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no file to load: what pgsplit was started with instead.
    NoFile(String),
    /// Everything that is wrong, one line for each fault, and the files with secrets that it names beside those in force. No
    /// secret is among it.
    Faults(Vec<String>, Vec<PathBuf>),
}

impl Reloaded {
    /// How it counts.
    #[must_use]
    pub fn result(&self) -> ReloadResult {
        match &self.outcome {
            Ok(diff) if diff.is_applied() => ReloadResult::Applied,
            Ok(_) => ReloadResult::Unchanged,
            Err(_) => ReloadResult::Failed,
        }
    }

    /// Why it was refused, in one line; `None`: it was not.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        match &self.outcome {
            Ok(_) => None,
            Err(refused @ Refused::NoFile(_)) => Some(refused.told().to_string()),
            Err(Refused::Faults(faults, _)) => Some(faults.join("; ")),
        }
    }
}

/// Asks for reloads, and knows what became of the last one. One is done at a time.
#[derive(Clone, Debug)]
pub struct Reloads {
    asking: mpsc::Sender<Reload>,
    last: Arc<ArcSwapOption<Reloaded>>,
}

impl Reloads {
    /// The two ends: who asks, and who does it.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Reload>) {
        // Who asks waits for its turn.
        let (asking, asked) = mpsc::channel(1);
        (Self { asking, last: Arc::default() }, asked)
    }

    /// Has the configuration loaded again for `by`; what became of it, or `None`: pgsplit is stopping.
    ///
    /// Cancel safe: what was asked for is done all the same, or not at all.
    pub async fn reload(&self, by: &'static str) -> Option<Arc<Reloaded>> {
        let (answer, done) = oneshot::channel();
        self.asking.send(Reload { by, answer }).await.ok()?;
        done.await.ok()
    }

    /// What became of the last one; `None`: there was none.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Reloaded>> {
        self.last.load_full()
    }

    /// Notes what became of one.
    pub fn note(&self, reloaded: &Arc<Reloaded>) {
        self.last.store(Some(Arc::clone(reloaded)));
    }
}

/// What is answered when it is done.
#[derive(Debug, Serialize)]
struct Done<'a> {
    result: &'static str,
    changes: &'a Diff,
}

/// Reloads for who may ask for it.
///
/// # Errors
/// It was refused, or pgsplit is stopping.
pub(super) async fn answer(reloads: &Reloads) -> Result<Answer, Refusal> {
    let reloaded = reloads.reload("api").await.ok_or(Refusal::Stopping)?;
    match &reloaded.outcome {
        Ok(changes) => Ok(json(StatusCode::OK, &Done { result: reloaded.result().as_str(), changes })),
        Err(refused) => Err(refused.told()),
    }
}

impl Refused {
    /// As who asked for it is told.
    fn told(&self) -> Refusal {
        match self {
            Self::NoFile(origin) => Refusal::NoFile(origin.clone()),
            Self::Faults(faults, _) => Refusal::Faults(faults.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_hears_what_became_of_it() {
        let (reloads, mut asked) = Reloads::channel();
        let doing = async {
            let Reload { by, answer } = asked.recv().await.unwrap();
            let outcome = Err(Refused::Faults(vec!["a".to_owned(), "b".to_owned()], Vec::new()));
            answer.send(Arc::new(Reloaded { at: SystemTime::now(), by, outcome })).unwrap();
        };
        let (reloaded, ()) = tokio::join!(reloads.reload("signal"), doing);
        let reloaded = reloaded.unwrap();
        assert_eq!((reloaded.by, reloaded.result()), ("signal", ReloadResult::Failed));
        assert_eq!(reloaded.error().as_deref(), Some("a; b"));
        assert!(reloads.last().is_none());
        reloads.note(&reloaded);
        assert!(reloads.last().is_some());
    }

    #[tokio::test]
    async fn nobody_waits_for_a_process_that_stops() {
        let (reloads, asked) = Reloads::channel();
        drop(asked);
        assert!(reloads.reload("file").await.is_none());
        assert_eq!(answer(&reloads).await.unwrap_err(), Refusal::Stopping);
    }
}
