//! A session that finds no node: it waits, and is told why when none comes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::balancer::Balancer;
use crate::support::cluster::{config_for, gates, shared};
use crate::support::gate::{Gate, Mode};
use crate::support::postgres::{Postgres, Settings};
use crate::support::process::Signal;
use crate::support::wait::wait_until;
use crate::support::wire::{Login, ServerError, Wire, startup};
use crate::tools::{conninfo, output, program, psql};

/// How many wait on the listener `rw`.
async fn waiting(balancer: &Balancer) -> u64 {
    balancer.status().await["listeners"][0]["waiting"].as_u64().unwrap()
}

async fn wait_waiting(balancer: &Balancer, n: u64) {
    wait_until(&format!("{n} sessions to wait"), async || {
        let now = waiting(balancer).await;
        if now == n { Ok(()) } else { Err(now) }
    })
    .await;
}

/// A balancer without a node that listens anywhere.
async fn deserted(sessions: &str) -> (Postgres, Balancer) {
    let server = Postgres::reserve(Settings::default());
    let config = format!("{}sessions: {{{sessions}}}\n", config_for([server.addr()]));
    let balancer = Balancer::start(&config).await;
    balancer.wait_health("n0", "down").await;
    (server, balancer)
}

/// Tries to log in, in the background.
fn try_login(addr: SocketAddr) -> JoinSet<Result<Login, ServerError>> {
    JoinSet::from_iter([async move {
        let mut wire = Wire::connect(addr).await.unwrap();
        wire.login("app", "postgres").await.unwrap()
    }])
}

#[tokio::test]
async fn a_session_waits_and_is_let_in_when_a_node_comes() {
    let cluster = shared().await;
    let gates = gates(cluster).await;
    gates[0].set(Mode::Refuse).await;
    let balancer = Balancer::start(&config_for(gates.iter().map(Gate::addr))).await;
    balancer.wait_health("n0", "down").await;
    let session = try_login(balancer.rw());
    wait_waiting(&balancer, 1).await;
    let oldest = "pgsplit_queue_oldest_wait_seconds{listener=\"rw\"}";
    wait_until("its wait to be seen", async || 0.1 < balancer.metric(oldest).await).await;
    assert!((balancer.metric("pgsplit_sessions_waiting{listener=\"rw\"}").await - 1.0).abs() < 0.1);

    gates[0].set(Mode::Pass).await;
    session.join_all().await.remove(0).unwrap();
    wait_waiting(&balancer, 0).await;
    let line = balancer.wait_log("session_end", |line| line["listener"] == "rw").await;
    assert!(0.1 < line["queue_s"].as_f64().unwrap(), "{line}");
    assert!(0.5 < balancer.metric("pgsplit_queue_wait_seconds_count{listener=\"rw\"}").await);
}

#[tokio::test]
async fn who_has_waited_long_enough_is_told_why_and_what_still_works() {
    let cluster = shared().await;
    let gates = gates(cluster).await;
    let config = config_for(gates.iter().map(Gate::addr)) + "sessions: {queue_timeout: 400ms}\n";
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    gates[0].set(Mode::Refuse).await;
    balancer.wait_health("n0", "down").await;
    let start = Instant::now();
    let error = try_login(balancer.rw()).join_all().await.remove(0).unwrap_err();
    assert!(Duration::from_millis(400) <= start.elapsed(), "{:?}", start.elapsed());
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P03"));
    let text = &error.message;
    assert!(text.starts_with("no live primary for listener \"rw\": n0 down "), "{text}");
    assert!(text.ends_with("s (connection refused); n1 standby; n2 standby"), "{text}");
    assert_eq!(error.hint, "Listener \"ro\" on port 6433 still works.");
    let rejected = "pgsplit_connections_rejected_total{listener=\"rw\",reason=\"no_node\"}";
    wait_until("it to be counted", async || 0.5 < balancer.metric(rejected).await).await;

    // With nothing left there is nothing to recommend.
    gates[1].set(Mode::Refuse).await;
    gates[2].set(Mode::Refuse).await;
    balancer.wait_health("n1", "down").await;
    balancer.wait_health("n2", "down").await;
    let error = try_login(balancer.rw()).join_all().await.remove(0).unwrap_err();
    assert_eq!((error.code.as_str(), error.hint.as_str()), ("57P03", ""));
    let error = try_login(balancer.ro()).join_all().await.remove(0).unwrap_err();
    assert!(error.message.starts_with("no live node for listener \"ro\": "), "{error:?}");
}

#[tokio::test]
async fn libpq_goes_on_to_the_next_balancer() {
    let (_server, lost) = deserted("queue_timeout: 100ms").await;
    let good = Balancer::start(&shared().await.config()).await;
    good.wait_ready().await;
    let rejected = "pgsplit_connections_rejected_total{reason=\"no_node\"}";
    for (sslmode, refused) in [("disable", 0.5), ("prefer", 2.5)] {
        let url = format!("postgres://postgres@{},{}/postgres?sslmode={sslmode}", lost.rw(), good.rw());
        assert_eq!(psql(&url, "select 'here'").await, Ok("here".to_owned()), "{sslmode}");
        wait_until("the first to have refused it", async || refused < lost.metric(rejected).await).await;
        // Alone it refuses in words a person can read.
        let said = psql(&conninfo(lost.rw(), &format!("sslmode={sslmode}")), "select 1").await.unwrap_err();
        assert!(said.contains("FATAL:  no live primary for listener \"rw\": n0 down "), "{sslmode}: {said}");
    }
}

#[tokio::test]
async fn pg_isready_says_rejecting() {
    let cluster = shared().await;
    let gates = gates(cluster).await;
    let config = config_for(gates.iter().map(Gate::addr)) + "sessions: {queue_timeout: 0}\n";
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    gates[0].set(Mode::Refuse).await;
    balancer.wait_health("n0", "down").await;
    for (addr, code, word) in
        [(balancer.rw(), 1, "rejecting connections"), (balancer.ro(), 0, "accepting connections")]
    {
        let (host, port) = (addr.ip().to_string(), addr.port().to_string());
        let mut command = program("pg_isready");
        command.args(["-h", &host, "-p", &port, "-t", "15"]);
        let output = output(command).await;
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!((output.status.code(), said.trim().ends_with(word)), (Some(code), true), "{output:?}");
    }
}

#[tokio::test]
async fn only_as_many_wait_as_the_queue_holds() {
    let (_server, balancer) = deserted("queue_size: 2, queue_timeout: 1m").await;
    let _first = try_login(balancer.rw());
    let _second = try_login(balancer.rw());
    wait_waiting(&balancer, 2).await;
    let error = try_login(balancer.rw()).join_all().await.remove(0).unwrap_err();
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P03"));
    assert!(error.message.starts_with("2 sessions wait already: no live primary for"), "{error:?}");
    // Each listener has its own queue.
    let _third = try_login(balancer.ro());
    let ro = async || balancer.status().await["listeners"][1]["waiting"].as_u64().unwrap();
    wait_until("one to wait on the other listener", async || ro().await == 1).await;
    assert_eq!(waiting(&balancer).await, 2);
    let rejected = "pgsplit_connections_rejected_total{listener=\"rw\",reason=\"queue_full\"}";
    wait_until("it to be counted", async || 0.5 < balancer.metric(rejected).await).await;
}

#[tokio::test]
async fn a_queue_timeout_of_0_refuses_at_once() {
    let (_server, balancer) = deserted("queue_timeout: 0").await;
    let error = try_login(balancer.rw()).join_all().await.remove(0).unwrap_err();
    assert_eq!(error.code, "57P03");
    assert!(balancer.metric("pgsplit_queue_wait_seconds_count{listener=\"rw\"}").await < 0.5);
}

#[tokio::test]
async fn who_leaves_while_waiting_leaves_the_queue() {
    let (_server, balancer) = deserted("queue_timeout: 1m").await;
    let mut sessions: Vec<_> = (0..3).map(|_| try_login(balancer.rw())).collect();
    wait_waiting(&balancer, 3).await;
    sessions.pop();
    wait_waiting(&balancer, 2).await;
    // A reset is a way to leave as well.
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.send(&startup(&[("user", "app")])).await.unwrap();
    wait_waiting(&balancer, 3).await;
    wire.reset();
    wait_waiting(&balancer, 2).await;
    sessions.clear();
    wait_waiting(&balancer, 0).await;
    wait_until("all to be counted as left", async || {
        let left = balancer.metric("pgsplit_connections_left_total{listener=\"rw\"}").await;
        if (left - 4.0).abs() < 0.5 { Ok(()) } else { Err(left) }
    })
    .await;
    assert!(balancer.metric("pgsplit_connections_opening").await < 0.5);
}

#[tokio::test]
async fn who_waits_is_told_when_the_balancer_stops() {
    let (_server, balancer) = deserted("queue_timeout: 1m").await;
    let session = try_login(balancer.rw());
    wait_waiting(&balancer, 1).await;
    balancer.signal(Signal::TERM);
    let error = session.join_all().await.remove(0).unwrap_err();
    assert_eq!((error.code.as_str(), error.message.as_str()), ("57P01", "this balancer is shutting down"));
    assert!(balancer.wait_exit(Duration::from_secs(20)).await.success());
}
