//! The support itself: what the other tests rely on holds.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use tokio::time::Instant;

use crate::support::balancer::sum;
use crate::support::client::{config, connect, connect_with, value, which_node};
use crate::support::cluster::Cluster;
use crate::support::gate::{Direction, Gate, Mode};
use crate::support::postgres::{Postgres, Settings, Stop};
use crate::support::wait::{wait_at_most, wait_until};
use crate::support::wire::{FakeNode, Wire, ssl_request, terminate};

#[tokio::test]
async fn a_cluster_streams_and_fails_over() {
    let cluster = Cluster::start(2, Settings::default()).await;
    cluster.primary().sql("create table t as select 1 as n").await;
    cluster.wait_replayed().await;
    assert_eq!(cluster.standby(1).value("select n from t").await, "1");
    assert!(cluster.standby(0).in_recovery().await);

    cluster.primary().kill9().await;
    connect(cluster.node(0).addr()).await.unwrap_err();
    cluster.fail_over_to(1).await;
    assert!(!cluster.node(1).in_recovery().await);
    cluster.primary().sql("insert into t values (2)").await;
    cluster.wait_replayed().await;
    assert_eq!(cluster.node(2).value("select count(*) from t").await, "2");

    cluster.node(0).recreate_standby_of(cluster.primary()).await;
    cluster.wait_replayed().await;
    assert_eq!(cluster.node(0).value("select count(*) from t").await, "2");
}

#[tokio::test]
async fn a_server_stops_and_starts_at_the_same_address() {
    let server = Postgres::start_new(Settings::default()).await;
    let client = connect(server.addr()).await.unwrap();
    assert_eq!(which_node(&client).await.unwrap(), server.addr().ip());

    server.restart(Stop::Fast).await;
    value(&client, "select 1").await.unwrap_err();
    server.kill9().await;
    server.start().await;
    server.restart(Stop::Immediate).await;
    server.stop(Stop::Smart).await;
    assert!(!server.is_running());
    assert!(server.log().contains("was not properly shut down"), "{}", server.log());
}

#[tokio::test]
async fn a_frozen_server_goes_on_where_it_was() {
    let server = Postgres::start_new(Settings::default()).await;
    let client = connect(server.addr()).await.unwrap();
    server.sigstop();
    let query = value(&client, "select 7");
    tokio::pin!(query);
    tokio::time::timeout(Duration::from_millis(100), &mut query).await.unwrap_err();
    server.sigcont();
    assert_eq!(query.await.unwrap(), "7");
}

#[tokio::test]
async fn servers_ask_for_what_they_are_told_to() {
    let settings = Settings::default().tls().auth("scram-sha-256").max_connections(12);
    let mut server = Postgres::start_new(settings).await;
    assert_eq!(server.value("show max_connections").await, "12");
    connect(server.addr()).await.unwrap();
    let mut wrong = config(server.addr());
    wrong.password("wrong");
    let refused = connect_with(wrong).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "28P01");

    let mut wire = Wire::connect(server.addr()).await.unwrap();
    wire.send(&ssl_request()).await.unwrap();
    assert_eq!(wire.byte().await.unwrap(), Some(b'S'));

    for (line, works) in [
        ("host all all all reject", false),
        ("hostssl all all all trust", false),
        ("host all all all trust", true),
    ] {
        server.set_hba(&[line]).await;
        assert_eq!(connect(server.addr()).await.is_ok(), works, "{line}");
    }

    let md5 = Postgres::start_new(Settings::default().auth("md5")).await;
    connect(md5.addr()).await.unwrap();
    let secret = md5.value("select rolpassword from pg_authid where rolname = 'app'").await;
    assert!(secret.starts_with("md5"), "{secret}");
}

#[tokio::test]
async fn a_gate_breaks_what_it_is_told_to() {
    let server = Postgres::start_new(Settings::default()).await;
    let gate = Gate::start(server.addr()).await;
    let client = connect(gate.addr()).await.unwrap();
    assert_eq!((gate.connections(), gate.open()), (1, 1));
    assert!(gate.bytes(Direction::ToNode) > 50 && gate.bytes(Direction::ToClient) > 200);

    gate.set(Mode::Refuse).await;
    connect(gate.addr()).await.unwrap_err();
    assert_eq!(value(&client, "select 1").await.unwrap(), "1");

    gate.set(Mode::Freeze).await;
    let (query, new) = (value(&client, "select 2"), connect(gate.addr()));
    tokio::pin!(query, new);
    let both = async { tokio::join!(&mut query, &mut new) };
    tokio::time::timeout(Duration::from_millis(100), both).await.unwrap_err();
    gate.set(Mode::Pass).await;
    assert_eq!(query.await.unwrap(), "2");
    new.await.unwrap();

    gate.set(Mode::Delay(Duration::from_millis(40))).await;
    let start = Instant::now();
    value(&client, "select 3").await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(80), "{:?}", start.elapsed());

    gate.set(Mode::Slice(3)).await;
    assert_eq!(value(&client, "select repeat('x', 1000)").await.unwrap().len(), 1000);

    gate.set(Mode::Drop).await;
    let swallowed = tokio::time::timeout(Duration::from_millis(100), value(&client, "select 4")).await;
    swallowed.unwrap_err();
    gate.set(Mode::Reset).await;
    wait_until("the client to see the reset", async || client.is_closed()).await;
    connect(gate.addr()).await.unwrap_err();
    wait_until("no connection to be open", async || gate.open() == 0).await;
}

#[tokio::test]
async fn a_gate_cuts_after_the_byte_it_is_told_to() {
    let node = FakeNode::healthy(false).await;
    let gate = Gate::start(node.addr()).await;
    gate.set(Mode::Cut(Direction::ToClient, 10)).await;
    let mut wire = Wire::connect(gate.addr()).await.unwrap();
    wire.send(&crate::support::wire::startup(&[("user", "u")])).await.unwrap();
    assert_eq!(wire.rest().await.unwrap().len(), 10);
}

#[tokio::test]
async fn a_fake_node_follows_its_script() {
    let node = FakeNode::healthy(true).await;
    let mut wire = Wire::connect(node.addr()).await.unwrap();
    let login = wire.login("u", "d").await.unwrap().unwrap();
    assert!(login.parameters.contains(&("in_hot_standby".into(), "on".into())), "{login:?}");
    assert_eq!(wire.query("select 1").await.unwrap().len(), 2);
    wire.send(&terminate()).await.unwrap();
    assert_eq!(wire.message().await.unwrap(), None);

    let full = FakeNode::start(|mut wire| async move {
        let _ = wire.startup_packet().await;
        let _ = wire
            .send(&crate::support::wire::error("FATAL", "53300", "sorry, too many clients already"))
            .await;
    })
    .await;
    let mut wire = Wire::connect(full.addr()).await.unwrap();
    assert_eq!(wire.login("u", "d").await.unwrap().unwrap_err().code, "53300");
    assert_eq!(full.connections(), 1);
}

#[test]
fn metrics_are_found_by_part_of_their_labels() {
    let text = "# HELP a_total x\na_total{node=\"n0\",end=\"client\"} 3\na_total{node=\"n1\",end=\"client\"} 4\nb 1\n";
    assert!((sum(text, "a_total{end=\"client\"}") - 7.0).abs() < f64::EPSILON);
    assert!((sum(text, "a_total{end=\"client\",node=\"n1\"}") - 4.0).abs() < f64::EPSILON);
    assert!(sum(text, "a_total{node=\"n\"}").abs() < f64::EPSILON);
    assert!((sum(text, "b") - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
#[should_panic(expected = "for the moon. Last seen: \"cheese\"")]
async fn a_wait_that_fails_says_what_for() {
    wait_at_most(Duration::from_millis(50), "the moon", async || Err::<(), _>("cheese")).await;
}
