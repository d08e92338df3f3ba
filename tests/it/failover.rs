//! Servers that are stopped, killed and promoted under load.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::support::balancer::Balancer;
use crate::support::client::{connect, value, which_node};
use crate::support::cluster::{Cluster, patient};
use crate::support::postgres::{Settings, Stop};
use crate::support::process::Signal;
use crate::support::wait::wait_until;

#[tokio::test]
async fn writes_go_on_once_a_standby_is_promoted() {
    let cluster = Cluster::start(2, Settings::default()).await;
    let balancer = Balancer::start(&(cluster.config() + "sessions: {queue_timeout: 1m}\n")).await;
    balancer.wait_ready().await;
    let before = connect(balancer.rw()).await.unwrap();
    value(&before, "create table t (n int); insert into t values (1) returning n").await.unwrap();
    cluster.wait_replayed().await;

    cluster.primary().kill9().await;
    value(&before, "select 1").await.unwrap_err();
    // Waits for a primary, and is let in without knowing why it took so long.
    let rw = balancer.rw();
    let writer = JoinSet::from_iter([async move {
        let client = connect(rw).await.unwrap();
        value(&client, "insert into t values (2) returning n").await.unwrap()
    }]);
    wait_until("the writer to wait", async || balancer.status().await["listeners"][0]["waiting"] == 1).await;
    let reader = connect(balancer.ro()).await.unwrap();
    assert_eq!(value(&reader, "select count(*) from t").await.unwrap(), "1");

    cluster.fail_over_to(1).await;
    assert_eq!(writer.join_all().await, ["2"]);
    let after = connect(balancer.rw()).await.unwrap();
    assert_eq!(which_node(&after).await.unwrap(), cluster.node(1).addr().ip());
    assert_eq!(value(&after, "select count(*) from t").await.unwrap(), "2");
}

#[tokio::test]
async fn an_old_primary_that_comes_back_gets_no_session() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&cluster.config()).await;
    balancer.wait_ready().await;
    cluster.primary().kill9().await;
    // A promotion faster than the checks would be two primaries for a moment, too.
    balancer.wait_health("n0", "down").await;
    cluster.fail_over_to(1).await;
    balancer.wait_role("n1", "primary").await;

    cluster.node(0).start().await;
    let line = balancer.wait_log("two_primaries", |_| true).await;
    assert_eq!((&line["nodes"], &line["writes_go_to"]), (&"n0, n1".into(), &"n1".into()), "{line}");
    assert_eq!(line["old"], "n0", "{line}");
    assert!((balancer.metric("pgsplit_node_superseded{node=\"n0\"}").await - 1.0).abs() < 0.1);
    assert!(balancer.metric("pgsplit_node_superseded{node=\"n1\"}").await < 0.1);
    assert!((balancer.metric("pgsplit_primaries").await - 2.0).abs() < 0.1);
    assert_eq!(balancer.status().await["primaries"]["main"], 2);
    for _ in 0..10 {
        let client = connect(balancer.rw()).await.unwrap();
        assert_eq!(which_node(&client).await.unwrap(), cluster.node(1).addr().ip());
    }

    // That the proper one is restarted beside it is no news of the other one.
    cluster.node(1).kill9().await;
    balancer.wait_health("n1", "down").await;
    cluster.node(1).start().await;
    balancer.wait_health("n1", "up").await;
    more_checks(&balancer, &["n0", "n1"]).await;
    assert_eq!(said(&balancer, "two_primaries"), 1, "{}", balancer.err());

    // Made a standby of the new primary, it is welcome again.
    cluster.node(0).stop(Stop::Fast).await;
    cluster.node(0).recreate_standby_of(cluster.node(1)).await;
    balancer.wait_role("n0", "standby").await;
    balancer.wait_health("n0", "up").await;
    // It has come and gone twice, so it is held back for a moment.
    wait_until("reads to go there", async || {
        let client = connect(balancer.ro()).await.unwrap();
        which_node(&client).await.unwrap() == cluster.node(0).addr().ip()
    })
    .await;
    assert!((balancer.metric("pgsplit_primaries").await - 1.0).abs() < 0.1);
    assert!(balancer.metric("pgsplit_node_superseded").await < 0.1);
}

/// How many log lines have this event.
fn said(balancer: &Balancer, event: &str) -> usize {
    balancer.log_lines().iter().filter(|line| line["event"] == event).count()
}

/// Waits until each of the nodes has been looked at three times more.
async fn more_checks(balancer: &Balancer, nodes: &[&str]) {
    for node in nodes {
        let series = format!("pgsplit_node_checks_total{{node=\"{node}\"}}");
        let enough = balancer.metric(&series).await + 2.5;
        wait_until("more checks", async || enough < balancer.metric(&series).await).await;
    }
}

#[tokio::test]
async fn a_promotion_takes_effect_beside_a_primary_that_lives() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&cluster.config()).await;
    balancer.wait_ready().await;
    cluster.fail_over_to(1).await;
    let changed = balancer.wait_log("primary_changed", |_| true).await;
    assert_eq!((&changed["node"], &changed["before"]), (&"n1".into(), &"n0".into()), "{changed}");
    balancer.wait_log("primary_superseded", |line| line["node"] == "n0" && line["level"] == "warn").await;
    assert_eq!(balancer.node("n0").await["health"], "up");
    for listener in [balancer.rw(), balancer.ro()] {
        let client = connect(listener).await.unwrap();
        assert_eq!(which_node(&client).await.unwrap(), cluster.node(1).addr().ip());
    }
}

#[tokio::test]
async fn a_primary_that_was_restarted_unseen_does_not_outlive_a_promotion() {
    let cluster = Cluster::start(1, Settings::default()).await;
    // Then nobody can read a timeline.
    cluster.primary().sql("revoke execute on function pg_control_system() from public").await;
    cluster.wait_replayed().await;
    let balancer = Balancer::start(&patient(&cluster.config(), "")).await;
    balancer.wait_ready().await;
    balancer.signal(Signal::STOP);
    cluster.node(0).stop(Stop::Fast).await;
    cluster.node(1).promote().await;
    cluster.node(0).start().await;
    balancer.signal(Signal::CONT);
    balancer.wait_log("primary_changed", |line| line["node"] == "n1").await;
    let client = connect(balancer.rw()).await.unwrap();
    assert_eq!(which_node(&client).await.unwrap(), cluster.node(1).addr().ip());
    assert_eq!(balancer.node("n0").await["superseded"], true);
}

#[tokio::test]
async fn an_old_primary_does_not_inherit_when_the_new_one_is_away() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&(cluster.config() + "sessions: {queue_timeout: 200ms}\n")).await;
    balancer.wait_ready().await;
    cluster.primary().kill9().await;
    balancer.wait_health("n0", "down").await;
    cluster.fail_over_to(1).await;
    balancer.wait_role("n1", "primary").await;
    cluster.node(1).kill9().await;
    balancer.wait_health("n1", "down").await;

    cluster.node(0).start().await;
    balancer.wait_health("n0", "up").await;
    for listener in [balancer.rw(), balancer.ro()] {
        let error = connect(listener).await.unwrap_err();
        let error = error.as_db_error().unwrap().message();
        assert!(error.contains("n0 old primary, another has taken its place"), "{error}");
    }
    assert_eq!(balancer.node("n0").await["superseded"], true);
    cluster.node(1).start().await;
    balancer.wait_health("n1", "up").await;
    let client = connect(balancer.rw()).await.unwrap();
    assert_eq!(which_node(&client).await.unwrap(), cluster.node(1).addr().ip());

    // Somebody who has just come has not seen any of this, and knows by the timeline.
    let newcomer = Balancer::start(&cluster.config()).await;
    wait_until("it to see", async || newcomer.node("n0").await["superseded"] == true).await;
    let client = connect(newcomer.rw()).await.unwrap();
    assert_eq!(which_node(&client).await.unwrap(), cluster.node(1).addr().ip());

    // Made anew from the new primary, stopped and promoted in a moment in which nobody looked.
    balancer.signal(Signal::STOP);
    cluster.node(0).stop(Stop::Fast).await;
    cluster.node(0).recreate_standby_of(cluster.node(1)).await;
    cluster.node(1).kill9().await;
    cluster.node(0).promote().await;
    balancer.signal(Signal::CONT);
    wait_until("it to be welcome again", async || connect(balancer.rw()).await.map(drop)).await;
}

/// What readers met.
#[derive(Debug, Default)]
struct Tally {
    read: AtomicU64,
    /// Logged in, then the server was taken away in the middle.
    cut: AtomicU64,
}

/// Opens session after session, each for one read, until told to stop. That a session cannot be opened is a failure.
async fn read(addr: std::net::SocketAddr, tally: Arc<Tally>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        let counter = match connect(addr).await {
            Ok(client) if value(&client, "select 1").await.is_ok() => &tally.read,
            Ok(_) => &tally.cut,
            // The server was told to stop, or was killed, between its yes to the password and its being ready.
            Err(error) if error.code().is_some_and(|code| code.code() == "57P01") => &tally.cut,
            Err(error) if error.is_closed() => &tally.cut,
            Err(error) => panic!("a read failed: {error:?}"),
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn reads_never_fail_while_standbys_stop_and_start() {
    let cluster = Cluster::start(2, Settings::default()).await;
    let balancer = Balancer::start(&cluster.config()).await;
    balancer.wait_ready().await;
    let (tally, stop) = (Arc::<Tally>::default(), Arc::<AtomicBool>::default());
    let readers: JoinSet<_> =
        (0..3).map(|_| read(balancer.ro(), Arc::clone(&tally), Arc::clone(&stop))).collect();
    let more_reads = async || {
        let enough = tally.read.load(Ordering::SeqCst) + 100;
        wait_until("100 more reads", async || enough <= tally.read.load(Ordering::SeqCst)).await;
    };
    more_reads().await;
    // Told to stop when its sessions have ended, a server refuses new ones and cuts nobody.
    cluster.node(1).tell_to_stop(Stop::Smart);
    more_reads().await;
    cluster.node(1).stop(Stop::Smart).await;
    assert_eq!(tally.cut.load(Ordering::SeqCst), 0);
    cluster.node(1).start().await;
    balancer.wait_health("n1", "up").await;
    for how in [Stop::Fast, Stop::Immediate] {
        cluster.node(1).stop(how).await;
        more_reads().await;
        cluster.node(1).start().await;
        balancer.wait_health("n1", "up").await;
        more_reads().await;
    }
    cluster.node(2).kill9().await;
    more_reads().await;
    // One after the other, until the primary is alone.
    cluster.node(1).stop(Stop::Fast).await;
    more_reads().await;
    cluster.node(2).start().await;
    balancer.wait_health("n2", "up").await;
    more_reads().await;
    stop.store(true, Ordering::SeqCst);
    readers.join_all().await;
    // At each of the four stops each of the three readers may have been in the middle of a session.
    assert!(tally.cut.load(Ordering::SeqCst) <= 12, "{tally:?}");
    assert!(balancer.metric("pgsplit_connections_rejected_total").await < 0.5, "{}", balancer.err());
}
