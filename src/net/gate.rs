//! Whether connections are accepted: one word for all who listen.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;

/// What the gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Who comes is accepted.
    Open,
    /// Nobody is accepted; the sockets stay open, and the system keeps who comes.
    Shut,
    /// Somebody else has the sockets, and they are closed here.
    Left,
}

/// A gate before all listening sockets of the process.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<Word>>);

/// One listener's look at the gate.
#[derive(Debug)]
pub struct GateWatch(watch::Receiver<Word>);

impl Gate {
    /// A gate.
    #[must_use]
    pub fn new(word: Word) -> Self {
        Self(Arc::new(watch::Sender::new(word)))
    }

    /// It is this from now on.
    pub fn set(&self, word: Word) {
        self.0.send_replace(word);
    }

    /// What it is.
    #[must_use]
    pub fn now(&self) -> Word {
        *self.0.borrow()
    }

    /// A look at it.
    #[must_use]
    pub fn watch(&self) -> GateWatch {
        GateWatch(self.0.subscribe())
    }
}

impl GateWatch {
    /// Begins `step` when the gate is open, and anew when it was shut meanwhile; `None`: it was left. What a step gives is
    /// never lost: it is looked at the gate before, not after. Cancel safe if `step` is.
    pub async fn pass<Step: Future>(&mut self, step: impl Fn() -> Step) -> Option<Step::Output> {
        loop {
            if self.until(|word| word != Word::Shut).await == Word::Left {
                return None;
            }
            tokio::select! {
                biased;
                _ = self.until(|word| word != Word::Open) => {}
                done = step() => return Some(done),
            }
        }
    }

    async fn until(&mut self, fits: impl Fn(Word) -> bool) -> Word {
        let word = self.0.wait_for(|word| fits(*word)).await.map(|word| *word);
        match word {
            Ok(word) => word,
            // Nobody is left to change it.
            Err(_) => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn nobody_passes_while_it_is_shut() {
        let gate = Gate::new(Word::Shut);
        let mut watch = gate.watch();
        let mut passes = async || timeout(Duration::from_secs(1), watch.pass(|| ready(1))).await;
        assert!(passes().await.is_err());
        gate.set(Word::Open);
        assert_eq!((passes().await, passes().await), (Ok(Some(1)), Ok(Some(1))));
        gate.set(Word::Shut);
        assert!(passes().await.is_err());
        gate.set(Word::Left);
        assert_eq!(passes().await, Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_somebody_is_called_back_when_it_is_shut() {
        let gate = Gate::new(Word::Open);
        let (mut watch, (sender, receiver)) = (gate.watch(), tokio::sync::mpsc::channel(1));
        let receiver = tokio::sync::Mutex::new(receiver);
        let mut passing = tokio::task::JoinSet::new();
        passing.spawn(async move { watch.pass(|| async { receiver.lock().await.recv().await }).await });
        tokio::task::yield_now().await;
        gate.set(Word::Shut);
        tokio::task::yield_now().await;
        sender.send(7).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(passing.try_join_next().is_none());
        gate.set(Word::Open);
        assert_eq!(passing.join_next().await.unwrap().unwrap(), Some(Some(7)));
    }
}
