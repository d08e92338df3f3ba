//! What a look at a node finds, and what it leaves behind.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use serde_json::Value;

use crate::support::balancer::Balancer;
use crate::support::client::{connect, which_node};
use crate::support::cluster::{Cluster, config_for};
use crate::support::gate::{Gate, Mode};
use crate::support::postgres::{Postgres, Settings, Stop};
use crate::support::wait::{wait_at_most, wait_until};
use crate::support::wire::{FakeNode, error, message};

/// One node under checks of this kind, `check:` completed by `more`.
fn knocking(node: std::net::SocketAddr, more: &str) -> String {
    format!(
        "nodes: [{{addr: \"{node}\", name: n0, role: primary}}]\ncheck: {{interval: 100ms, timeout: 1s, fast_interval: \
         100ms, down_interval: 100ms, {more}}}\nsessions: {{queue_timeout: 300ms}}\n"
    )
}

/// What the latest check of `n0` found, once `fits`.
async fn found(balancer: &Balancer, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, async || {
        let node = balancer.node("n0").await;
        fits(&node).then_some(node)
    })
    .await
}

#[tokio::test]
async fn any_answer_of_a_living_server_is_up_without_credentials() {
    for (hba, tls) in [
        ("host all all all trust", false),
        ("host all all all scram-sha-256", false),
        ("host all all all md5", false),
        ("host all all all reject", false),
        ("hostssl all all all scram-sha-256", true),
    ] {
        let settings = if tls { Settings::default().tls() } else { Settings::default() };
        let node = Postgres::start_new(settings.hba(&[hba])).await;
        let balancer = Balancer::start(&knocking(node.addr(), "type: startup")).await;
        found(&balancer, hba, |node| node["health"] == "up").await;
    }
}

#[tokio::test]
async fn a_login_passes_every_password_method_and_learns_the_role() {
    for method in ["trust", "password", "md5", "scram-sha-256"] {
        let node = Postgres::start_new(Settings::default().auth(method)).await;
        let config = format!(
            "nodes: [{{addr: \"{}\", name: n0}}]\ncheck: {{user: lb_check, password: pgsplit, interval: 100ms}}\n",
            node.addr()
        );
        let balancer = Balancer::start(&config).await;
        let seen = found(&balancer, method, |node| node["role"] == "primary").await;
        assert_eq!(seen["role_from"], "check");
        assert!(seen["server_version"].is_string());
    }
}

#[tokio::test]
async fn a_wrong_password_leaves_the_node_up_and_says_what_to_mend() {
    let node = Postgres::start_new(Settings::default().auth("scram-sha-256")).await;
    let config = format!(
        "nodes: [{{addr: \"{}\", name: n0}}]\ncheck: {{user: lb_check, password: canary-wrong, interval: 100ms}}\n",
        node.addr()
    );
    let balancer = Balancer::start(&config).await;
    let seen = found(&balancer, "the node to be up", |node| node["health"] == "up").await;
    assert_eq!(seen["role"], Value::Null);
    let line = balancer.wait_log("check_warning", |_| true).await;
    assert!(line["error"].as_str().unwrap().contains("28P01 password authentication failed"), "{line}");
    assert!(!balancer.err().contains("canary-wrong"));
}

#[tokio::test]
async fn checks_leave_no_line_in_the_servers_log() {
    for (kind, method) in [
        ("tcp", "trust"),
        ("startup", "trust"),
        ("startup", "scram-sha-256"),
        ("login", "trust"),
        ("login", "scram-sha-256"),
    ] {
        let node = Postgres::start_new(Settings::default().auth(method)).await;
        let user = if kind == "login" { "user: lb_check, password: pgsplit, " } else { "" };
        let before = node.log();
        let balancer = Balancer::start(&knocking(node.addr(), &format!("{user}type: {kind}"))).await;
        wait_until("ten checks", async || {
            10.0 <= balancer.metric("pgsplit_node_checks_total{node=\"n0\",result=\"up\"}").await
        })
        .await;
        drop(balancer);
        let added = node.log().replacen(&before, "", 1);
        assert!(!added.contains("LOG:  ") && !added.contains("FATAL:  "), "{kind} {method}:\n{added}");
    }
}

#[tokio::test]
async fn a_full_node_keeps_its_sessions_and_gets_no_new_ones() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let small = Postgres::start_new(Settings::default().max_connections(8)).await;
    let nodes = config_for([small.addr(), cluster.primary().addr()]);
    let listeners = "listeners:\n  - {name: all, bind: \"BALANCER:6432\", target: any, balance: first}\nsessions: {queue_timeout: 5s}\n";
    let balancer = Balancer::start(&(nodes + listeners)).await;
    balancer.wait_health("n0", "up").await;
    balancer.wait_health("n1", "up").await;
    let mut on_small = Vec::new();
    loop {
        let client = connect(balancer.rw()).await.unwrap();
        if which_node(&client).await.unwrap() != small.addr().ip() {
            break;
        }
        on_small.push(client);
    }
    found(&balancer, "the node to be full", |node| node["state"] == "full").await;
    assert_eq!(balancer.node("n0").await["health"], "up");
    for client in &on_small {
        which_node(client).await.unwrap();
    }
    assert!(4 <= on_small.len(), "{}", on_small.len());
    drop(on_small);
    found(&balancer, "room again", |node| node["state"] == "up").await;
}

#[tokio::test]
async fn hostile_nodes_are_down_with_their_reason_and_disturb_nobody() {
    let good = Postgres::start_new(Settings::default()).await;
    let starting = error("FATAL", "57P03", "the database system is starting up");
    let greedy = [message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("the database system is starting up", starting),
        ("speaks HTTP, not PostgreSQL", b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n".to_vec()),
        ("not a PostgreSQL message", b"R\x7f\xff\xff\xff".to_vec()),
        ("no answer within 1s", b"R".to_vec()),
        ("closed the connection without an answer", Vec::new()),
        ("error without a message", message(b'E', b"\0")),
    ];
    for (reason, answer) in cases {
        let keep_open = answer == b"R";
        let node = FakeNode::start(move |mut wire| {
            let answer = answer.clone();
            async move {
                if wire.first_packet().await.is_ok() && wire.send(&answer).await.is_ok() && keep_open {
                    let _ = wire.byte().await;
                }
            }
        })
        .await;
        let nodes = format!(
            "nodes:\n  - {{name: n0, addr: \"{}\", role: primary}}\n  - {{name: good, addr: \"{}\", role: replica}}\ncheck: \
             {{interval: 100ms, timeout: 1s, down_interval: 100ms, fast_interval: 100ms}}\n",
            node.addr(),
            good.addr()
        );
        let balancer = Balancer::start(&nodes).await;
        let seen = found(&balancer, reason, |node| {
            node["check"]["error"].as_str().is_some_and(|e| e.contains(reason))
        })
        .await;
        assert_eq!(seen["health"], "down", "{seen}");
        let checks = "pgsplit_node_checks_total{node=\"good\",result=\"up\"}";
        let before = balancer.metric(checks).await;
        wait_at_most(Duration::from_secs(3), "the other node's checks to go on", async || {
            before + 5.0 <= balancer.metric(checks).await
        })
        .await;
    }

    // A server that asks for two thousand million rounds of hashing lives, and costs nothing.
    let node = FakeNode::start(move |mut wire| {
        let greedy = greedy.clone();
        async move {
            let Ok(_) = wire.first_packet().await else { return };
            let _ = wire.send(&greedy).await;
            let Ok(Some(_)) = wire.message().await else { return };
            let _ = wire.send(&message(b'R', b"\0\0\0\x0br=x,s=YQ==,i=2000000000")).await;
            let _ = wire.byte().await;
        }
    })
    .await;
    let balancer = Balancer::start(&knocking(node.addr(), "user: u, password: p, type: login")).await;
    let line = balancer.wait_log("check_warning", |_| true).await;
    assert!(line["error"].as_str().unwrap().contains("iterations"), "{line}");
}

#[tokio::test]
async fn one_frozen_node_does_not_delay_the_others() {
    let (a, b) =
        (Postgres::start_new(Settings::default()).await, Postgres::start_new(Settings::default()).await);
    let gate = Gate::start(a.addr()).await;
    let config = format!(
        "nodes:\n  - {{name: n0, addr: \"{}\", role: primary}}\n  - {{name: n1, addr: \"{}\", role: replica}}\ncheck: \
         {{interval: 100ms, timeout: 5s}}\n",
        gate.addr(),
        b.addr()
    );
    let balancer = Balancer::start(&config).await;
    balancer.wait_health("n0", "up").await;
    gate.set(Mode::Freeze).await;
    let checks = "pgsplit_node_checks_total{node=\"n1\",result=\"up\"}";
    let before = balancer.metric(checks).await;
    wait_at_most(
        Duration::from_secs(4),
        "ten checks of the other node within one of the frozen",
        async || before + 10.0 <= balancer.metric(checks).await,
    )
    .await;
}

#[tokio::test]
async fn sessions_take_a_dead_node_out_before_its_next_check() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let slow = cluster
        .config()
        .replace("interval: 200ms", "interval: 1h")
        .replace("down_interval: 100ms", "down_interval: 1h");
    let balancer = Balancer::start(&slow).await;
    balancer.wait_health("n1", "up").await;
    cluster.standby(0).kill9().await;
    for _ in 0..3 {
        connect(balancer.ro()).await.unwrap();
    }
    balancer.wait_health("n1", "down").await;
}

#[tokio::test]
async fn lag_is_seen_and_a_laggard_gets_no_new_sessions() {
    let cluster = Cluster::start(2, Settings::default()).await;
    let config = cluster.config() + "  max_lag: 1MiB\n";
    let balancer = Balancer::start(&config).await;
    for node in ["n0", "n1", "n2"] {
        balancer.wait_health(node, "up").await;
    }
    cluster.primary().sql("create table t (x text)").await;
    cluster.wait_replayed().await;
    cluster.standby(0).sql("select pg_wal_replay_pause()").await;
    cluster.primary().sql("insert into t select repeat('x', 1000) from generate_series(1, 20000)").await;
    wait_until("the lag to be seen", async || {
        1_000_000.0 < balancer.metric("pgsplit_node_lag_bytes{node=\"n1\"}").await
    })
    .await;
    balancer.wait_log("node_lag", |line| line["node"] == "n1" && line["lagging"] == true).await;
    for _ in 0..4 {
        let client = connect(balancer.ro()).await.unwrap();
        assert_eq!(which_node(&client).await.unwrap(), cluster.standby(1).addr().ip());
    }
    cluster.standby(0).sql("select pg_wal_replay_resume()").await;
    balancer.wait_log("node_lag", |line| line["node"] == "n1" && line["lagging"] == false).await;
}

#[tokio::test]
async fn a_restarting_server_is_up_again_by_itself() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&config_for([node.addr()])).await;
    balancer.wait_health("n0", "up").await;
    node.stop(Stop::Immediate).await;
    balancer.wait_health("n0", "down").await;
    let line = balancer.wait_log("node_state", |line| line["to"] == "down").await;
    assert_eq!(
        (line["error"].as_str(), line["step"].as_str()),
        (Some("connection refused"), Some("connect"))
    );
    node.start().await;
    balancer.wait_health("n0", "up").await;
    connect(balancer.rw()).await.unwrap();
}
