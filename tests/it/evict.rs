//! Sessions that are open on a node when something becomes the matter with it: who must go, who stays, and what they are
//! told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::net::SocketAddr;

use crate::support::balancer::Balancer;
use crate::support::client::{connect, value, which_node};
use crate::support::cluster::{Cluster, config_for, gates, shared};
use crate::support::gate::{Gate, Mode};
use crate::support::postgres::{Postgres, Settings, Stop};
use crate::support::process::{Signal, children, signal};
use crate::support::wait::wait_until;
use crate::support::wire::{ServerError, Wire, query, startup};
use crate::tools::whole;

/// A session that is logged in and says nothing.
async fn session(addr: SocketAddr) -> Wire {
    let mut wire = Wire::connect(addr).await.unwrap();
    wire.login("app", "postgres").await.unwrap().unwrap();
    wire
}

/// What the session is told when it is ended: the error that comes next, and then the end.
async fn told(wire: &mut Wire) -> ServerError {
    let message = wire.message().await.unwrap().expect("words before the end");
    let error = message.error().unwrap_or_else(|| panic!("{message:?}"));
    assert_eq!(wire.message().await.unwrap().map(|message| message.tag), None);
    error
}

/// Whether a query is answered on it.
async fn answers(wire: &mut Wire) -> bool {
    if wire.send(&query("select 1")).await.is_err() {
        return false;
    }
    loop {
        match wire.message().await {
            Ok(Some(message)) if message.tag == b'Z' => return true,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return false,
        }
    }
}

/// The same configuration, but before sessions are cut it is listened for seconds whether any of them hears from the server: who
/// is to be heard may not get to run all the time.
fn listening_long(config: &str) -> String {
    config.replace("fast_interval: 100ms", "fast_interval: 2s").replace("timeout: 500ms", "timeout: 3s")
}

async fn ended(balancer: &Balancer, end: &str) -> i64 {
    whole(balancer.metric(&format!("pgsplit_sessions_total{{end=\"{end}\"}}")).await)
}

#[tokio::test]
async fn sessions_on_a_frozen_server_are_told_in_words() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&cluster.config()).await;
    balancer.wait_ready().await;
    let mut idle = session(balancer.ro()).await;
    let mut waiting = session(balancer.ro()).await;
    let mut elsewhere = session(balancer.rw()).await;
    waiting.send(&query("select pg_sleep(60)")).await.unwrap();
    wait_until("the query to run", async || {
        let running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'";
        cluster.standby(0).value(running).await == "1"
    })
    .await;
    cluster.standby(0).sigstop();
    for wire in [&mut idle, &mut waiting] {
        let error = told(wire).await;
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P01"));
        assert_eq!(error.message, "terminating connection because node \"n1\" is down");
    }
    let line = balancer.wait_log("session_end", |line| line["end"] == "node_down").await;
    assert_eq!((&line["node"], &line["end_code"]), (&"n1".into(), &"DD".into()), "{line}");
    wait_until("both to be counted", async || ended(&balancer, "node_down").await == 2).await;
    assert!(answers(&mut elsewhere).await, "no session on another node is touched");
    cluster.standby(0).sigcont();
}

#[tokio::test]
async fn sessions_are_told_when_packets_vanish() {
    let cluster = shared().await;
    let gates = gates(cluster).await;
    let balancer = Balancer::start(&config_for(gates.iter().map(Gate::addr))).await;
    balancer.wait_ready().await;
    let mut idle = session(balancer.rw()).await;
    gates[0].set(Mode::Drop).await;
    assert_eq!(told(&mut idle).await.code, "57P01");
}

#[tokio::test]
async fn a_stopped_postmaster_costs_no_session_that_is_served() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&listening_long(&cluster.config())).await;
    balancer.wait_ready().await;
    let mut busy = session(balancer.ro()).await;
    let mut idle = session(balancer.ro()).await;
    // Its children go on, and nobody is let in any more: checks get no answer.
    signal(cluster.standby(0).pid(), Signal::STOP);
    wait_until("it to be down", async || {
        assert!(answers(&mut busy).await);
        balancer.node("n1").await["health"] == "down"
    })
    .await;
    let checks = "pgsplit_node_checks_total{node=\"n1\",result=\"failed\"}";
    let before = balancer.metric(checks).await;
    wait_until("a few more checks to fail", async || {
        assert!(answers(&mut busy).await);
        before + 5.0 < balancer.metric(checks).await
    })
    .await;
    assert!(answers(&mut idle).await, "as long as anybody hears from the server, nobody on it is cut");
    assert_eq!(ended(&balancer, "node_down").await, 0);
    // Frozen with its children, it is another matter.
    for pid in children(cluster.standby(0).pid()) {
        signal(pid, Signal::STOP);
    }
    assert_eq!(told(&mut idle).await.code, "57P01");
    cluster.standby(0).sigcont();
}

#[tokio::test]
async fn a_port_that_refuses_costs_no_session_that_is_served() {
    let cluster = shared().await;
    let gates = gates(cluster).await;
    let balancer = Balancer::start(&listening_long(&config_for(gates.iter().map(Gate::addr)))).await;
    balancer.wait_ready().await;
    let mut busy = session(balancer.rw()).await;
    let mut idle = session(balancer.rw()).await;
    gates[0].set(Mode::Refuse).await;
    // Refused like a check, and it counts like one: the node is down before a second check could tell.
    let mut another = Wire::connect(balancer.rw()).await.unwrap();
    another.send(&startup(&[("user", "app"), ("database", "postgres")])).await.unwrap();
    wait_until("it to be down", async || {
        assert!(answers(&mut busy).await);
        balancer.node("n0").await["health"] == "down"
    })
    .await;
    let checks = "pgsplit_node_checks_total{node=\"n0\",result=\"failed\"}";
    let before = balancer.metric(checks).await;
    wait_until("a few more checks to fail", async || {
        assert!(answers(&mut busy).await);
        before + 5.0 < balancer.metric(checks).await
    })
    .await;
    assert!(answers(&mut idle).await);
    assert_eq!(ended(&balancer, "node_down").await, 0);
}

#[tokio::test]
async fn a_server_that_takes_nobody_new_keeps_its_sessions() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&cluster.config()).await;
    balancer.wait_ready().await;
    let mut reader = session(balancer.ro()).await;
    // Waits for its sessions, and tells everybody else 57P03.
    cluster.standby(0).tell_to_stop(Stop::Smart);
    balancer.wait_health("n1", "down").await;
    let checks = "pgsplit_node_checks_total{node=\"n1\",result=\"failed\"}";
    let before = balancer.metric(checks).await;
    wait_until("a few more checks to fail", async || before + 5.0 < balancer.metric(checks).await).await;
    assert!(answers(&mut reader).await);
    drop(reader);
    cluster.standby(0).stop(Stop::Smart).await;
}

#[tokio::test]
async fn who_writes_must_leave_a_primary_that_has_been_replaced() {
    let cluster = Cluster::start(2, Settings::default()).await;
    let yaml = cluster.config()
        + "listeners:\n  - {name: rw, bind: \"BALANCER:6432\", target: primary}\n  - {name: ro, bind: \"BALANCER:6433\", target: any, balance: first}\n";
    let balancer = Balancer::start(&yaml).await;
    balancer.wait_ready().await;
    let mut writer = session(balancer.rw()).await;
    let mut in_transaction = session(balancer.rw()).await;
    in_transaction.send(&query("begin")).await.unwrap();
    while in_transaction.message().await.unwrap().unwrap().tag != b'Z' {}
    let mut reader = session(balancer.ro()).await;
    // It lives on, and what is written there from now on is lost.
    cluster.fail_over_to(1).await;
    for wire in [&mut writer, &mut in_transaction] {
        let error = told(wire).await;
        assert_eq!(error.code, "57P01");
        assert_eq!(error.message, "terminating connection because node \"n0\" is no longer the primary");
    }
    assert!(answers(&mut reader).await, "who only reads stays");
    wait_until("both to be counted", async || ended(&balancer, "demoted").await == 2).await;
    let client = connect(balancer.rw()).await.unwrap();
    assert_eq!(which_node(&client).await.unwrap(), cluster.node(1).addr().ip());
}

#[tokio::test]
async fn with_drain_a_session_leaves_between_two_transactions() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&(cluster.config() + "sessions: {on_demote: drain}\n")).await;
    balancer.wait_ready().await;
    let mut idle = session(balancer.rw()).await;
    let busy = connect(balancer.rw()).await.unwrap();
    value(&busy, "begin; create table t (n int); select 1").await.unwrap();
    cluster.fail_over_to(1).await;
    assert_eq!(told(&mut idle).await.code, "57P01");
    for n in 0..3 {
        value(&busy, &format!("insert into t values ({n}) returning n")).await.unwrap();
    }
    wait_until("the idle one to be counted", async || ended(&balancer, "demoted").await == 1).await;
    value(&busy, "commit; select 1").await.unwrap();
    wait_until("it to leave", async || ended(&balancer, "demoted").await == 2).await;
    assert_eq!(cluster.node(0).value("select count(*) from t").await, "3", "the transaction was not cut");
}

/// `select 1`, again and again, until that is not answered; how often it was.
async fn busy(addr: SocketAddr) -> (u64, Wire) {
    let mut wire = session(addr).await;
    let mut answered = 0;
    loop {
        wire.send(&query("select 1")).await.unwrap();
        loop {
            let message = wire.message().await.unwrap().expect("words before the end");
            match message.tag {
                b'Z' => break,
                b'E' => {
                    assert_eq!(message.error().unwrap().code, "57P01");
                    return (answered, wire);
                }
                _ => {}
            }
        }
        answered += 1;
    }
}

#[tokio::test]
async fn with_drain_a_session_that_never_rests_leaves_as_well() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&(cluster.config() + "sessions: {on_demote: drain}\n")).await;
    balancer.wait_ready().await;
    let mut sessions = tokio::task::JoinSet::new();
    sessions.spawn(busy(balancer.rw()));
    wait_until("it to be there", async || {
        ended(&balancer, "client").await == 0
            && 0.5 < balancer.metric("pgsplit_sessions_active{listener=\"rw\"}").await
    })
    .await;
    cluster.fail_over_to(1).await;
    let (answered, _wire) = sessions.join_next().await.unwrap().unwrap();
    assert!(0 < answered);
    wait_until("it to be counted", async || ended(&balancer, "demoted").await == 1).await;
}

#[tokio::test]
async fn with_drain_a_query_that_speaks_before_it_works_is_not_cut() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&(cluster.config() + "sessions: {on_demote: drain}\n")).await;
    balancer.wait_ready().await;
    let mut wire = session(balancer.rw()).await;
    // Its notice is there at once, its answer in four seconds.
    wire.send(&query("do $$ begin raise notice 'wait'; perform pg_sleep(4); end $$")).await.unwrap();
    while wire.message().await.unwrap().unwrap().tag != b'N' {}
    cluster.fail_over_to(1).await;
    let mut tags = Vec::new();
    while let Some(message) = wire.message().await.unwrap() {
        tags.push(char::from(message.tag));
    }
    assert_eq!(tags.iter().collect::<String>(), "CZE", "its answer, and then the word of its end");
}

#[tokio::test]
async fn through_tls_a_session_is_ended_without_a_word_and_not_drained() {
    let cluster = Cluster::start(1, Settings::default().tls()).await;
    let balancer = Balancer::start(&(cluster.config() + "sessions: {on_demote: drain}\n")).await;
    balancer.wait_ready().await;
    let conninfo = crate::tools::conninfo(balancer.ro(), "sslmode=require");
    let mut psql = crate::tools::psql_command(&conninfo, "select pg_sleep(60)");
    psql.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let psql = psql.spawn().unwrap();
    wait_until("the query to run", async || {
        let running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'";
        cluster.standby(0).value(running).await == "1"
    })
    .await;
    cluster.standby(0).sigstop();
    let waiting = tokio::task::spawn_blocking(move || psql.wait_with_output());
    let output = waiting.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !said.contains("57P01") && !said.contains("is down"), "{said}");
    wait_until("it to be counted", async || ended(&balancer, "node_down").await == 1).await;
    cluster.standby(0).sigcont();
}

#[tokio::test]
async fn with_keep_nobody_is_cut() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer =
        Balancer::start(&(cluster.config() + "sessions: {on_down: keep, on_demote: keep}\n")).await;
    balancer.wait_ready().await;
    let (mut writer, mut reader) = (session(balancer.rw()).await, session(balancer.ro()).await);
    cluster.standby(0).sigstop();
    balancer.wait_health("n1", "down").await;
    cluster.standby(0).sigcont();
    assert!(answers(&mut reader).await, "it only slept");
    cluster.fail_over_to(1).await;
    balancer.wait_role("n1", "primary").await;
    wait_until("the old one to be seen", async || balancer.node("n0").await["superseded"] == true).await;
    assert!(answers(&mut writer).await);
}

#[tokio::test]
async fn a_laggards_sessions_stay_unless_the_file_says_otherwise() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let config = cluster.config().replace("check:\n", "check:\n  max_lag: 1KiB\n");
    let keeping = Balancer::start(&config).await;
    let draining = Balancer::start(&(config + "sessions: {on_lag: drain}\n")).await;
    keeping.wait_ready().await;
    draining.wait_ready().await;
    let (mut kept, mut drained) = (session(keeping.ro()).await, session(draining.ro()).await);
    cluster.standby(0).sql("select pg_wal_replay_pause()").await;
    cluster.primary().sql("create table t as select generate_series(1, 10000)").await;
    let error = told(&mut drained).await;
    assert_eq!(error.message, "terminating connection because node \"n1\" is too far behind");
    keeping.wait_log("node_lag", |_| true).await;
    assert!(answers(&mut kept).await);
}

#[tokio::test]
async fn who_copies_or_replicates_must_leave_a_replaced_primary_too() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&cluster.config()).await;
    balancer.wait_ready().await;
    cluster.primary().sql("create table t (n int); grant all on t to app").await;
    let mut copy = session(balancer.rw()).await;
    copy.send(&query("copy t from stdin")).await.unwrap();
    while copy.message().await.unwrap().unwrap().tag != b'G' {}
    let mut walsender = Wire::connect(balancer.rw()).await.unwrap();
    let replication = [("user", "postgres"), ("database", "postgres"), ("replication", "database")];
    walsender.send(&startup(&replication)).await.unwrap();
    walsender.logged_in().await.unwrap().unwrap();
    let from = cluster.primary().value("select pg_current_wal_flush_lsn()").await;
    walsender.send(&query(&format!("START_REPLICATION {from}"))).await.unwrap();
    let first = walsender.message().await.unwrap().unwrap();
    assert_eq!(first.tag, b'W', "{:?}", first.error());
    cluster.fail_over_to(1).await;
    assert_eq!(told(&mut copy).await.code, "57P01");
    loop {
        let message = walsender.message().await.unwrap().expect("words before the end");
        match message.error() {
            Some(error) if message.tag == b'E' => break assert_eq!(error.code, "57P01"),
            _ => assert_eq!(message.tag, b'd', "{message:?}"),
        }
    }
}

#[tokio::test]
async fn nobody_is_told_in_the_middle_of_a_message() {
    let cluster = shared().await;
    let gate = Gate::start(cluster.node(0).addr()).await;
    let balancer = Balancer::start(&config_for([gate.addr()])).await;
    balancer.wait_ready().await;
    let mut wire = session(balancer.rw()).await;
    // So much that it cannot all be under way, and one message.
    wire.send(&query("select repeat('x', 200000000)")).await.unwrap();
    wire.exactly(1_000_000).await.unwrap();
    gate.set(Mode::Drop).await;
    let rest = wire.rest().await.unwrap_or_default();
    assert!(
        rest.iter().filter(|&&byte| byte != b'x').count() == 0,
        "{:?}",
        &rest[rest.len().saturating_sub(99)..]
    );
    wait_until("it to be counted", async || ended(&balancer, "node_down").await == 1).await;
}

#[tokio::test]
async fn sessions_that_outlast_a_drain_end_between_transactions() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer =
        Balancer::start(&(config_for([server.addr()]) + "runtime: {drain_timeout: 100ms}\n")).await;
    balancer.wait_ready().await;
    let mut idle = session(balancer.rw()).await;
    let busy = connect(balancer.rw()).await.unwrap();
    value(&busy, "begin; create table t (n int); select 1").await.unwrap();
    balancer.signal(Signal::TERM);
    let error = told(&mut idle).await;
    assert_eq!(error.message, "terminating connection because this balancer is shutting down");
    value(&busy, "insert into t values (1) returning n").await.unwrap();
    value(&busy, "commit; select 1").await.unwrap();
    assert!(balancer.wait_exit(std::time::Duration::from_secs(20)).await.success());
    assert_eq!(server.value("select count(*) from t").await, "1");
}
