//! Whether connections are accepted: one word for all who listen.

use std::sync::Arc;

use tokio::sync::watch;

/// A gate before all listening sockets of the process. While it is shut nobody is accepted; the sockets stay open, and the
/// system keeps who comes.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

/// One listener's look at the gate.
#[derive(Debug)]
pub struct GateWatch(watch::Receiver<bool>);

impl Gate {
    /// An open one, or one that is shut.
    #[must_use]
    pub fn new(is_open: bool) -> Self {
        Self(Arc::new(watch::Sender::new(is_open)))
    }

    /// Opens or shuts it.
    pub fn set_open(&self, is_open: bool) {
        self.0.send_replace(is_open);
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    /// A look at it.
    #[must_use]
    pub fn watch(&self) -> GateWatch {
        GateWatch(self.0.subscribe())
    }
}

impl GateWatch {
    /// Begins `step` when the gate is open, and anew when it was shut meanwhile. What a step gives is never lost: it is looked
    /// at the gate before, not after. Cancel safe if `step` is.
    pub async fn pass<Step: Future>(&mut self, step: impl Fn() -> Step) -> Step::Output {
        loop {
            self.until(true).await;
            tokio::select! {
                biased;
                () = self.until(false) => {}
                done = step() => return done,
            }
        }
    }

    /// Resolves when the gate is open, or shut.
    async fn until(&mut self, is_open: bool) {
        // Who listens holds no gate: when the last one is gone, it stays as it was left.
        if self.0.wait_for(|now| *now == is_open).await.is_err() && *self.0.borrow() != is_open {
            std::future::pending().await
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
        let gate = Gate::new(false);
        let mut watch = gate.watch();
        let mut passes = async || timeout(Duration::from_secs(1), watch.pass(|| ready(1))).await.is_ok();
        assert!(!passes().await);
        gate.set_open(true);
        assert!(passes().await && passes().await && gate.is_open());
        gate.set_open(false);
        assert!(!passes().await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_somebody_is_called_back_when_it_is_shut() {
        let gate = Gate::new(true);
        let (mut watch, (sender, receiver)) = (gate.watch(), tokio::sync::mpsc::channel(1));
        let receiver = tokio::sync::Mutex::new(receiver);
        let passing =
            tokio::spawn(async move { watch.pass(|| async { receiver.lock().await.recv().await }).await });
        tokio::task::yield_now().await;
        gate.set_open(false);
        tokio::task::yield_now().await;
        sender.send(7).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!passing.is_finished());
        gate.set_open(true);
        assert_eq!(passing.await.unwrap(), Some(7));
    }
}
