//! Where an upstream's name leads, asked again and again: containers and pods come and go under one name.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::NodeAddr;
use crate::front::upstream::keeper::News;
use crate::net::dial::{io_text, resolve};

/// Longest time for one lookup.
const LOOKUP: Duration = Duration::from_secs(5);

/// Looks `addr` up until `stop`, and tells the keeper each time. While the resolver fails, nothing is told: the last
/// addresses stay.
pub async fn discover(
    upstream: usize,
    addr: NodeAddr,
    refresh: Duration,
    news: mpsc::Sender<News>,
    stop: CancellationToken,
) {
    let told = |addrs| news.send(News::Found { upstream, addrs });
    if let Ok(ip) = addr.host.parse::<IpAddr>() {
        let _ = told(vec![SocketAddr::new(ip, addr.port)]).await;
        return;
    }
    let life = async {
        let mut failed = false;
        loop {
            match resolve(&addr.host, addr.port, Instant::now() + LOOKUP).await {
                Ok(mut addrs) => {
                    failed = false;
                    addrs.sort_unstable();
                    addrs.dedup();
                    if told(addrs).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    // Said once, not every few seconds.
                    if !std::mem::replace(&mut failed, true) {
                        let hint = "the addresses it last led to stay in use";
                        warn!(upstream = %addr, error = io_text(&error), hint, "upstream_lookup_failed");
                    }
                }
            }
            sleep(refresh.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        }
    };
    stop.run_until_cancelled(life).await;
}
