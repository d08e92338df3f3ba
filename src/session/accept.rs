//! Accepts, counts, hands over; waits for nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::net::listen::{Listening, is_peer_gone};
use crate::session::Accepted;
use crate::session::shared::Shared;
use crate::session::worker::WorkerHandle;

/// How long to wait when the system is out of descriptors or memory: until some connection closes there is
/// nothing to do, and trying at once again would burn a core.
const PAUSE: Duration = Duration::from_millis(100);
/// The same trouble is logged this often at most.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Accepts connections of one listener until the process stops.
pub async fn accept(shared: Arc<Shared>, listener: usize, listening: Listening, workers: Vec<WorkerHandle>) {
    let mut said: Option<Instant> = None;
    while let Some(accepted) = shared.stop.run_until_cancelled(listening.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                shared.metrics.listener(listener).accept();
                let accepted = Accepted { stream, peer, listener, at: Instant::now() };
                if let Some(worker) = workers.iter().min_by_key(|worker| worker.connections()) {
                    worker.take(accepted).await;
                }
            }
            Err(error) if is_peer_gone(&error) => debug!(%error, "client_left_before_accept"),
            Err(error) => {
                shared.metrics.listener(listener).accept_error();
                if said.is_none_or(|at| SAY_AGAIN < at.elapsed()) {
                    said = Some(Instant::now());
                    let name = shared.listeners.get(listener).map_or("", |l| l.config.name.as_str());
                    warn!(listener = name, error = %error, hint = "raise the limit of open files (LimitNOFILE=)", "accept_failed");
                }
                sleep(PAUSE).await;
            }
        }
    }
}
