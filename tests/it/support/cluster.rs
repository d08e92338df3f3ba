//! A primary and its streaming standbys.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::OnceCell;

use super::client::PASSWORD;
use super::gate::Gate;
use super::postgres::{Postgres, Settings};
use super::wait::wait_until;

/// Servers named `n0`, `n1`, …, of which `n0` starts as the primary.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Postgres>,
    primary: AtomicUsize,
}

impl Cluster {
    /// A running primary with `standbys` standbys that have replayed all it has.
    pub async fn start(standbys: usize, settings: Settings) -> Self {
        let cluster = Self::reserve(standbys, &settings);
        cluster.launch().await;
        cluster
    }

    /// The addresses alone, for whoever must know them before the servers run.
    pub fn reserve(standbys: usize, settings: &Settings) -> Self {
        let nodes = (0..=standbys).map(|_| Postgres::reserve(settings.clone())).collect();
        Self { nodes, primary: AtomicUsize::new(0) }
    }

    /// Creates and starts what [`Self::reserve`] reserved.
    pub async fn launch(&self) {
        let primary = self.primary();
        primary.create().await;
        primary.start().await;
        at_once(self.standbys().map(|standby| async {
            standby.create_standby_of(primary).await;
            standby.start().await;
        }))
        .await;
        self.wait_replayed().await;
    }

    /// The present primary: `n0` until [`Self::fail_over_to`].
    pub fn primary(&self) -> &Postgres {
        &self.nodes[self.primary.load(Ordering::Relaxed)]
    }

    /// The `i`-th node that is not the primary.
    pub fn standby(&self, i: usize) -> &Postgres {
        self.standbys().nth(i).expect("a standby with this number")
    }

    /// All nodes but the primary, running or not.
    pub fn standbys(&self) -> impl Iterator<Item = &Postgres> {
        let primary = self.primary.load(Ordering::Relaxed);
        self.nodes.iter().enumerate().filter(move |&(i, _)| i != primary).map(|(_, node)| node)
    }

    /// All nodes, `n0` first.
    pub fn nodes(&self) -> &[Postgres] {
        &self.nodes
    }

    /// Node `n{i}`.
    pub fn node(&self, i: usize) -> &Postgres {
        &self.nodes[i]
    }

    /// The name of the node with this address.
    pub fn name_of(&self, ip: IpAddr) -> Option<String> {
        self.nodes.iter().position(|node| node.addr().ip() == ip).map(|i| format!("n{i}"))
    }

    /// Promotes node `n{i}` and points the other running nodes, except the old primary, to it.
    pub async fn fail_over_to(&self, i: usize) {
        let old = self.primary.load(Ordering::Relaxed);
        assert_ne!(i, old, "n{i} is the primary already");
        self.nodes[i].promote().await;
        self.primary.store(i, Ordering::Relaxed);
        for (other, node) in self.nodes.iter().enumerate() {
            if other != i && other != old && node.is_running() {
                node.follow(&self.nodes[i]).await;
            }
        }
    }

    /// Waits until every running standby has replayed what the primary has written by now.
    pub async fn wait_replayed(&self) {
        let written = self.primary().value("select pg_current_wal_lsn()").await;
        let replayed = format!("select pg_last_wal_replay_lsn() >= '{written}'");
        for standby in self.standbys().filter(|standby| standby.is_running()) {
            wait_until("the standbys to replay", async || standby.value(&replayed).await == "t").await;
        }
    }

    /// A configuration for [`super::balancer::Balancer::start`] over these nodes; see [`config_for`].
    pub fn config(&self) -> String {
        config_for(self.nodes.iter().map(Postgres::addr))
    }
}

/// A primary and two standbys for all who leave them as they are: nobody stops, promotes or fills them. What is to
/// break stands in front of them, as a gate. The watchdog ends them.
pub async fn shared() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER.get_or_init(|| Cluster::start(2, Settings::default().max_connections(400))).await
}

/// A gate in front of every node.
pub async fn gates(cluster: &Cluster) -> Vec<Gate> {
    let mut gates = Vec::new();
    for node in cluster.nodes() {
        gates.push(Gate::start(node.addr()).await);
    }
    gates
}

/// The `nodes:` and `check:` parts of a configuration, with checks short enough for tests. The balancer adds its
/// listeners when there are none. More top-level keys can be appended.
pub fn config_for(nodes: impl IntoIterator<Item = std::net::SocketAddr>) -> String {
    use std::fmt::Write;
    let mut text = "nodes:\n".to_owned();
    for (i, addr) in nodes.into_iter().enumerate() {
        let _ = writeln!(text, "  - {{name: n{i}, addr: \"{addr}\"}}");
    }
    text + &quick_checks()
}

/// The `check:` part alone, for those who write the nodes themselves.
pub fn quick_checks() -> String {
    format!(
        "check:\n  user: lb_check\n  password: {PASSWORD}\n  interval: 200ms\n  fast_interval: 100ms\n  \
         down_interval: 100ms\n  timeout: 500ms\n  rise: 2\n  fall: 2\n"
    )
}

/// The same configuration for a test in which a node must not be passed over because the machine is busy: nobody
/// there is frozen or silent, so checks and sessions can wait long for an answer. It has no `sessions:` of its own.
pub fn patient(config: &str, sessions: &str) -> String {
    let config = config.replace("timeout: 500ms", "timeout: 10s");
    format!("{config}sessions: {{answer_timeout: 10s, connect_timeout: 10s{sessions}}}\n")
}

/// Drives all futures to their end, side by side.
async fn at_once(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
