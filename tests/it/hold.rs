//! No node fits: the wait for one, its bounds, and what the client is told at its end.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::balancer::Balancer;
use crate::support::client::{background, connect, value};
use crate::support::cluster::{Cluster, config_for};
use crate::support::postgres::{Postgres, Settings, Stop};
use crate::support::wait::wait_until;
use crate::support::wire::{Wire, startup};
use crate::tools::{conninfo, output, program, psql};

#[tokio::test]
async fn a_session_that_comes_before_its_node_waits_and_is_let_in() {
    let node = Postgres::reserve(Settings::default());
    let balancer = Balancer::start(&config_for([node.addr()])).await;
    balancer.wait_health("n0", "down").await;
    let waiting = background().spawn(connect(balancer.rw()));
    wait_until("a session that waits", async || balancer.status().await["listeners"][0]["waiting"] == 1)
        .await;
    node.create().await;
    node.start().await;
    let client = waiting.await.unwrap().unwrap();
    assert_eq!(value(&client, "select 7").await.unwrap(), "7");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_waited_for_too() {
    let node = Postgres::start_new(Settings::default()).await;
    let config = config_for([node.addr()])
        .replace("nodes:\n", "nodes:\n  - {name: ghost, addr: \"no-such-host.invalid:5432\"}\n");
    let balancer = Balancer::start(&config).await;
    balancer.wait_health("ghost", "down").await;
    value(&connect(balancer.rw()).await.unwrap(), "select 1").await.unwrap();
}

#[tokio::test]
async fn at_the_end_of_its_wait_a_client_is_told_what_is_the_matter_and_what_still_works() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let config = cluster.config() + "sessions: {queue_timeout: 300ms}\n";
    let balancer = Balancer::start(&config).await;
    balancer.wait_health("n1", "up").await;
    balancer.wait_health("n0", "up").await;
    cluster.primary().kill9().await;
    balancer.wait_health("n0", "down").await;
    for sslmode in ["disable", "prefer"] {
        let said =
            psql(&conninfo(balancer.rw(), &format!("sslmode={sslmode}")), "select 1").await.unwrap_err();
        assert!(said.contains("FATAL:  no live primary for listener \"rw\": n0 down "), "{said}");
        assert!(said.contains("(connection refused), n1 standby"), "{said}");
        assert!(
            said.contains(&format!("HINT:  Listener \"ro\" on port {} still works.", balancer.ro().port())),
            "{said}"
        );
    }
    let mut isready = program("pg_isready");
    isready.args(["-h", &balancer.rw().ip().to_string(), "-p", &balancer.rw().port().to_string()]);
    let isready = output(isready).await;
    assert_eq!(isready.status.code(), Some(1), "pg_isready: rejecting");
    let rejected = "pgsplit_connections_rejected_total{listener=\"rw\",reason=\"no_node\"}";
    assert!(2.0 <= balancer.metric(rejected).await);
}

#[tokio::test]
async fn libpq_goes_on_to_the_next_balancer() {
    let node = Postgres::start_new(Settings::default()).await;
    let nowhere = Postgres::reserve(Settings::default());
    let without =
        Balancer::start(&(config_for([nowhere.addr()]) + "sessions: {queue_timeout: 100ms}\n")).await;
    let with = Balancer::start(&config_for([node.addr()])).await;
    with.wait_ready().await;
    let hosts = format!(
        "host={},{} port={},{} user=postgres password=pgsplit dbname=postgres sslmode=disable",
        without.rw().ip(),
        with.rw().ip(),
        without.rw().port(),
        with.rw().port()
    );
    assert_eq!(psql(&hosts, "select 5").await.unwrap(), "5");
}

#[tokio::test]
async fn only_so_many_may_wait_and_a_client_that_leaves_makes_room() {
    let nowhere = Postgres::reserve(Settings::default());
    let config = config_for([nowhere.addr()]) + "sessions: {queue_timeout: 60s, queue_size: 1}\n";
    let balancer = Balancer::start(&config).await;
    balancer.wait_health("n0", "down").await;
    let mut first = Wire::connect(balancer.rw()).await.unwrap();
    first.send(&startup(&[("user", "u")])).await.unwrap();
    let waiting = async |n: i64| {
        wait_until("the queue", async || balancer.status().await["listeners"][0]["waiting"] == n).await;
    };
    waiting(1).await;
    let said = psql(&conninfo(balancer.rw(), "sslmode=disable"), "select 1").await.unwrap_err();
    assert!(said.contains("FATAL:  1 sessions wait already"), "{said}");
    drop(first);
    waiting(0).await;
    assert!(0.5 < balancer.metric("pgsplit_connections_left_total{listener=\"rw\"}").await);
}

#[tokio::test]
async fn with_a_queue_timeout_of_0_nobody_waits() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&(config_for([node.addr()]) + "sessions: {queue_timeout: 0}\n")).await;
    balancer.wait_ready().await;
    node.stop(Stop::Fast).await;
    let said = psql(&conninfo(balancer.rw(), "sslmode=disable"), "select 1").await.unwrap_err();
    assert!(said.contains("no live primary"), "{said}");
    assert_eq!(
        balancer.metric("pgsplit_queue_wait_seconds_count{listener=\"rw\"}").await.to_bits(),
        0.0_f64.to_bits()
    );
}
