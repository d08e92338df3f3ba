//! The only place of the suite that lets time pass: until something is true.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::Instant;

const POLL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);

/// What a condition may answer: `true`, `Some` or `Ok` end the wait.
pub trait Answer {
    /// What the wait returns.
    type Found;

    /// The find, or what to say about the state that was seen instead.
    fn found(self) -> Result<Self::Found, Option<String>>;
}

impl Answer for bool {
    type Found = ();

    fn found(self) -> Result<(), Option<String>> {
        if self { Ok(()) } else { Err(None) }
    }
}

impl<T> Answer for Option<T> {
    type Found = T;

    fn found(self) -> Result<T, Option<String>> {
        self.ok_or(None)
    }
}

impl<T, E: Debug> Answer for Result<T, E> {
    type Found = T;

    fn found(self) -> Result<T, Option<String>> {
        self.map_err(|state| Some(format!("{state:?}")))
    }
}

/// Asks until the answer is yes; after 20 s it panics with `what` and the last state, when there is one.
pub async fn wait_until<A: Answer>(what: &str, condition: impl AsyncFnMut() -> A) -> A::Found {
    wait_at_most(PATIENCE, what, condition).await
}

/// [`wait_until`] with its own patience.
pub async fn wait_at_most<A: Answer>(
    patience: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> A,
) -> A::Found {
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < patience {
        // A condition that hangs must not hang the test.
        let left = patience.saturating_sub(start.elapsed());
        match tokio::time::timeout(left, condition()).await.map(Answer::found) {
            Ok(Ok(found)) => return found,
            Ok(Err(state)) => last = state.or(last),
            Err(_) => break,
        }
        tokio::time::sleep(POLL).await;
    }
    let last = last.map(|state| format!(" Last seen: {state}")).unwrap_or_default();
    panic!("waited {patience:?} for {what}.{last}");
}
