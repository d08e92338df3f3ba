//! Accepts, counts, hands over; waits for nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::net::listen::{Listening, is_peer_gone};
use crate::session::Accepted;
use crate::session::shared::Shared;
use crate::session::worker::WorkerHandle;
use crate::telemetry::labels::Rejection;

/// How long to wait when the system is out of descriptors or memory: until some connection closes there is
/// nothing to do, and trying at once again would burn a core.
const PAUSE: Duration = Duration::from_millis(100);
/// Trouble is logged this often at most.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Accepts connections of one listener until the process stops.
pub async fn accept(shared: Arc<Shared>, listener: usize, listening: Listening, workers: Vec<WorkerHandle>) {
    let mut trouble = Trouble::default();
    while let Some(accepted) = shared.stop.run_until_cancelled(listening.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                shared.metrics.listener(listener).accept();
                let Some(descriptor) = shared.descriptors.for_client() else {
                    shared.metrics.listener(listener).reject(Rejection::Limit);
                    trouble.say(&shared, listener, "no file descriptor is left for another client");
                    continue;
                };
                let accepted = Accepted { stream, peer, listener, at: Instant::now(), descriptor };
                if let Some(worker) = workers.iter().min_by_key(|worker| worker.connections()) {
                    worker.take(accepted).await;
                }
            }
            Err(error) if is_peer_gone(&error) => debug!(%error, "client_left_before_accept"),
            Err(error) => {
                shared.metrics.listener(listener).accept_error();
                trouble.say(&shared, listener, &error.to_string());
                sleep(PAUSE).await;
            }
        }
    }
}

/// Says that accepting is in trouble, now and then.
#[derive(Debug, Default)]
struct Trouble {
    said: Option<Instant>,
    unsaid: u64,
}

impl Trouble {
    fn say(&mut self, shared: &Shared, listener: usize, error: &str) {
        if self.said.is_some_and(|at| at.elapsed() < SAY_AGAIN) {
            self.unsaid += 1;
            return;
        }
        self.said = Some(Instant::now());
        let repeated = std::mem::take(&mut self.unsaid);
        let name = shared.listeners.get(listener).map_or("", |listener| listener.config.name.as_str());
        let hint = "raise the limit of open files (LimitNOFILE=) or lower max_connections";
        warn!(listener = name, error, repeated, hint, "accept_failed");
    }
}
