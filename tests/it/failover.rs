//! The promise: stop any one database and no read fails; and writes follow a promotion, never an old primary.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use crate::support::balancer::Balancer;
use crate::support::client::{connect, value, which_node};
use crate::support::cluster::Cluster;
use crate::support::postgres::{Settings, Stop};
use crate::support::wait::wait_until;

/// Reads on a fresh session each, until told to stop; how many there were. Each must succeed.
async fn read_until(balancer: &Balancer, stop: impl Future<Output = ()>) -> u32 {
    let mut reads = 0;
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return reads,
            client = connect(balancer.ro()) => {
                let client = client.expect("no read may fail");
                value(&client, "select 1").await.expect("no read may fail");
                reads += 1;
            }
        }
    }
}

#[tokio::test]
async fn no_read_fails_while_a_standby_stops_and_comes_back() {
    let cluster = Cluster::start(2, Settings::default()).await;
    let balancer = Balancer::start(&cluster.config()).await;
    for node in ["n0", "n1", "n2"] {
        balancer.wait_health(node, "up").await;
    }
    // A server that stops cuts the read that is on it; one that refuses new sessions cuts nobody.
    let script = async {
        for _ in 0..2 {
            cluster.standby(0).tell_to_stop(Stop::Smart);
            balancer.wait_health("n1", "down").await;
            cluster.standby(0).stop(Stop::Smart).await;
            cluster.standby(0).start().await;
            balancer.wait_health("n1", "up").await;
        }
    };
    assert!(10 < read_until(&balancer, script).await);
}

#[tokio::test]
async fn writes_follow_a_promotion_and_never_an_old_primary_that_returns() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&cluster.config()).await;
    balancer.wait_health("n0", "up").await;
    balancer.wait_health("n1", "up").await;
    cluster.primary().kill9().await;
    balancer.wait_health("n0", "down").await;
    cluster.standby(0).promote().await;
    let client = connect(balancer.rw()).await.unwrap();
    value(&client, "create table t (); select 1").await.unwrap();
    assert_eq!(which_node(&client).await.unwrap(), cluster.standby(0).addr().ip());

    cluster.primary().start().await;
    let line = balancer.wait_log("two_primaries", |_| true).await;
    assert_eq!(line["writes_go_to"], "n1");
    wait_until("the second primary in the metrics", async || {
        1.5 < balancer.metric("pgsplit_primaries{cluster=\"main\"}").await
    })
    .await;
    for _ in 0..5 {
        let client = connect(balancer.rw()).await.unwrap();
        assert_eq!(which_node(&client).await.unwrap(), cluster.standby(0).addr().ip());
    }
}
