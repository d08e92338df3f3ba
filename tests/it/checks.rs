//! What the checks find, and what they cost others: nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::balancer::Balancer;
use crate::support::client::{PASSWORD, config, connect, connect_with, value, which_node};
use crate::support::cluster::{Cluster, config_for, quick_checks, shared};
use crate::support::gate::{Gate, Mode};
use crate::support::postgres::{Postgres, Settings, Stop};
use crate::support::wait::{wait_at_most, wait_until};
use crate::support::wire::{FakeNode, Wire, login_answer, message};

/// No check comes by itself after the first.
const ONE_CHECK: &str =
    "check: {user: lb_check, interval: 1h, fast_interval: 1h, down_interval: 1h, timeout: 2s, fall: 2}\n";
const ANY: &str = "listeners: [{name: any, bind: \"BALANCER:7000\", target: any, balance: roundrobin}]\n";

/// Several clusters of one node each, of the same name, with their checks.
fn clusters(parts: &[(&str, SocketAddr, &str)]) -> String {
    let mut text = "clusters:\n".to_owned();
    let mut listeners = "listeners:\n".to_owned();
    for (i, (name, addr, check)) in parts.iter().enumerate() {
        let _ = writeln!(
            text,
            "  {name}: {{nodes: [{{name: {name}, addr: \"{addr}\"}}], check: {{interval: 100ms, {check}}}}}"
        );
        let port = 7000 + i;
        let _ = writeln!(
            listeners,
            "  - {{name: {name}, bind: \"BALANCER:{port}\", target: any, cluster: {name}}}"
        );
    }
    text + &listeners
}

/// How often a node has been looked at.
async fn checks(balancer: &Balancer, node: &str) -> f64 {
    balancer.metric(&format!("pgsplit_node_checks_total{{node=\"{node}\"}}")).await
}

/// Waits until a check that began after this call has ended.
async fn one_more_check(balancer: &Balancer, node: &str) {
    let enough = checks(balancer, node).await + 1.5;
    wait_until("two more checks", async || enough < checks(balancer, node).await).await;
}

/// The error of a node's last check.
async fn error(balancer: &Balancer, node: &str) -> String {
    balancer.node(node).await["check"]["error"].as_str().unwrap_or_default().to_owned()
}

/// Waits until a node is in a state.
async fn wait_state(balancer: &Balancer, node: &str, state: &str) {
    wait_until(&format!("{node} to be {state}"), async || {
        let node = balancer.node(node).await;
        if node["state"] == state { Ok(()) } else { Err(node) }
    })
    .await;
}

#[tokio::test]
async fn a_startup_check_needs_no_credentials() {
    let mut server = Postgres::start_new(Settings::default().tls()).await;
    let known = "type: startup";
    let unknown = "type: startup, dbname: nowhere";
    let config = clusters(&[("known", server.addr(), known), ("unknown", server.addr(), unknown)]);
    let balancer = Balancer::start(&config).await;
    for (line, says) in [
        ("host all all all trust", ["", "3D000 database \"nowhere\" does not exist"]),
        ("host all all all scram-sha-256", ["", ""]),
        ("hostssl all all all scram-sha-256", ["28000 no pg_hba.conf entry", "28000 no pg_hba.conf entry"]),
        ("host all all all reject", ["28000 pg_hba.conf rejects", "28000 pg_hba.conf rejects"]),
    ] {
        server.set_hba(&[line]).await;
        for (node, says) in ["known", "unknown"].into_iter().zip(says) {
            one_more_check(&balancer, node).await;
            let seen = balancer.node(node).await;
            assert_eq!(
                (&seen["health"], &seen["check"]["ok"]),
                (&"up".into(), &true.into()),
                "{line}: {seen}"
            );
            let error = seen["check"]["error"].as_str().unwrap_or_default();
            assert!(error.starts_with(says) && error.is_empty() == says.is_empty(), "{line}: {seen}");
        }
    }
}

#[tokio::test]
async fn a_login_check_logs_in_by_every_method() {
    let hba = ["trust", "password", "md5", "scram-sha-256"].map(|method| {
        let user = method.split('-').next().unwrap();
        format!("host all check_{user} all {method}")
    });
    let hba: Vec<&str> = hba.iter().map(String::as_str).collect();
    let server = Postgres::start_new(Settings::default().auth("trust").hba(&hba)).await;
    for (user, kind) in [
        ("trust", "scram-sha-256"),
        ("password", "scram-sha-256"),
        ("md5", "md5"),
        ("scram", "scram-sha-256"),
    ] {
        let role = format!("create role check_{user} login password '{PASSWORD}'");
        server.sql(&format!("set password_encryption = '{kind}'; {role}")).await;
    }
    let addr = server.addr();
    let methods = ["trust", "password", "md5", "scram"];
    let checks = methods.map(|user| format!("user: check_{user}, password: {PASSWORD}"));
    let parts: Vec<_> = methods.iter().zip(&checks).map(|(&name, check)| (name, addr, &**check)).collect();
    let balancer = Balancer::start(&clusters(&parts)).await;
    for name in methods {
        balancer.wait_role(name, "primary").await;
        let node = balancer.node(name).await;
        assert_eq!((&node["health"], &node["role_from"]), (&"up".into(), &"check".into()), "{node}");
        assert!(node["server_version"].is_string() && node["check"]["error"].is_null(), "{node}");
    }
}

#[tokio::test]
async fn a_check_that_may_not_log_in_leaves_the_node_up_with_its_role_unknown() {
    let hba =
        ["host all lb_check all scram-sha-256", "host all app all md5", "host all postgres all password"];
    let server = Postgres::start_new(Settings::default().hba(&hba)).await;
    let addr = server.addr();
    let parts = [
        ("scram", addr, "user: lb_check, password: wrong"),
        ("md5", addr, "user: app, password: wrong"),
        ("plain", addr, "user: postgres, password: wrong"),
        ("none", addr, "user: lb_check"),
        ("nobody", addr, "user: somebody, password: wrong"),
    ];
    let balancer = Balancer::start(&clusters(&parts)).await;
    for (name, ..) in parts {
        let warning = balancer.wait_log("check_warning", |line| line["node"] == name).await;
        let text = warning["error"].as_str().unwrap();
        let expected = match name {
            "none" => "the server asks for a password and none is configured",
            "nobody" => "28000 no pg_hba.conf entry for host",
            _ => "28P01 password authentication failed for user",
        };
        assert!(text.starts_with(expected), "{name}: {warning}");
        let node = balancer.node(name).await;
        assert_eq!((&node["health"], &node["role"]), (&"up".into(), &serde_json::Value::Null), "{node}");
        one_more_check(&balancer, name).await;
    }
    let warnings = balancer.log_lines().iter().filter(|line| line["event"] == "check_warning").count();
    assert_eq!(warnings, parts.len(), "the same warning is logged once:\n{}", balancer.err());
}

#[tokio::test]
async fn a_server_that_takes_no_sessions_yet_is_down_in_its_words() {
    let cluster = shared().await;
    // Without hot standby it answers 57P03 as long as it follows its primary.
    let starting = Postgres::reserve(Settings::default().max_connections(400).option("hot_standby", "off"));
    starting.create_standby_of(cluster.primary()).await;
    starting.launch();
    let login = config_for([starting.addr(), cluster.node(1).addr()]);
    let balancer = Balancer::start(&login).await;
    wait_until("its words", async || {
        let node = balancer.node("n0").await;
        let text = error(&balancer, "n0").await;
        let expected = node["health"] == "down"
            && node["check"]["sqlstate"] == "57P03"
            && text.starts_with("the database system is");
        if expected { Ok(()) } else { Err(node) }
    })
    .await;
    balancer.wait_health("n1", "up").await;
    let client = connect(balancer.ro()).await.unwrap();
    assert_eq!(which_node(&client).await.unwrap(), cluster.node(1).addr().ip());
}

#[tokio::test]
async fn a_full_server_is_not_down_keeps_its_sessions_and_gets_no_new_ones() {
    let cluster = shared().await;
    let server = Postgres::start_new(Settings::default().max_connections(8)).await;
    let nodes = config_for([server.addr(), cluster.node(1).addr()]);
    let first = "listeners: [{name: first, bind: \"BALANCER:7000\", target: any, balance: first}]\n";
    let balancer = Balancer::start(&(nodes + first)).await;
    balancer.wait_ready().await;
    let as_app = |addr| {
        let mut config = config(addr);
        config.user("app");
        config
    };
    let open = connect_with(as_app(balancer.at(7000))).await.unwrap();
    assert_eq!(which_node(&open).await.unwrap(), server.addr().ip());

    // Three of the eight places are for superusers; one is taken by the session above.
    let mut others = Vec::new();
    wait_until("all places to be taken", async || {
        others.extend(connect_with(as_app(server.addr())).await.ok());
        others.len() == 4
    })
    .await;
    wait_state(&balancer, "n0", "full").await;
    let node = balancer.node("n0").await;
    assert_eq!((&node["health"], &node["check"]["sqlstate"]), (&"up".into(), &"53300".into()), "{node}");
    assert_eq!(value(&open, "select 1").await.unwrap(), "1");
    for _ in 0..5 {
        let client = connect_with(as_app(balancer.at(7000))).await.unwrap();
        assert_eq!(which_node(&client).await.unwrap(), cluster.node(1).addr().ip());
    }
    assert!((balancer.metric("pgsplit_node_state{node=\"n0\",state=\"full\"}").await - 1.0).abs() < 0.1);
    assert!(balancer.metric("pgsplit_node_state_changes_total{to=\"down\"}").await < 0.1);

    others.clear();
    wait_state(&balancer, "n0", "up").await;
    let client = connect_with(as_app(balancer.at(7000))).await.unwrap();
    assert_eq!(which_node(&client).await.unwrap(), server.addr().ip());
}

#[tokio::test]
async fn a_server_without_any_place_left_is_full_without_credentials_too() {
    let server = Postgres::start_new(Settings::default().max_connections(5)).await;
    let other = FakeNode::healthy(true).await;
    let nodes = format!(
        "nodes: [{{name: n0, addr: \"{}\", role: standby}}, {{name: n1, addr: \"{}\", role: primary}}]\n",
        server.addr(),
        other.addr()
    );
    let check = "check: {type: startup, interval: 100ms, fast_interval: 100ms}\n";
    let balancer = Balancer::start(&(nodes + check)).await;
    balancer.wait_health("n0", "up").await;
    // Superusers may take the last places.
    let mut others = Vec::new();
    wait_until("all places to be taken", async || {
        others.extend(connect(server.addr()).await.ok());
        others.len() == 5
    })
    .await;
    wait_state(&balancer, "n0", "full").await;
    let node = balancer.node("n0").await;
    assert_eq!(node["health"], "up");
    assert_eq!(error(&balancer, "n0").await, "sorry, too many clients already");
    let mut wire = Wire::connect(balancer.ro()).await.unwrap();
    wire.login("app", "postgres").await.unwrap().unwrap();
    assert_eq!(balancer.node("n1").await["sessions"], 1);
    others.clear();
    wait_state(&balancer, "n0", "up").await;
    let client = connect(balancer.ro()).await.unwrap();
    assert_eq!(which_node(&client).await.unwrap(), server.addr().ip());
}

/// Answers every connection with the same bytes, whatever is asked.
async fn says(bytes: Vec<u8>) -> FakeNode {
    let bytes = Arc::new(bytes);
    FakeNode::start(move |mut wire| {
        let bytes = Arc::clone(&bytes);
        async move {
            let _ = wire.startup_packet().await;
            let _ = wire.send(&bytes).await;
            let _ = wire.rest().await;
        }
    })
    .await
}

/// Asks for more hash rounds than anybody has time for.
async fn greedy() -> FakeNode {
    FakeNode::start(|mut wire| async move {
        let _ = wire.startup_packet().await;
        let _ = wire.send(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")).await;
        let Ok(Some(first)) = wire.message().await else { return };
        let text = String::from_utf8_lossy(&first.body).into_owned();
        let nonce = text.rsplit_once("r=").map_or("", |(_, nonce)| nonce);
        let answer = format!("\0\0\0\x0br={nonce}more,s=c2FsdHNhbHRzYWx0,i=2000000000");
        let _ = wire.send(&message(b'R', answer.as_bytes())).await;
        let _ = wire.rest().await;
    })
    .await
}

/// Sends a good answer, a byte a second.
async fn slow() -> FakeNode {
    FakeNode::start(|mut wire| async move {
        let _ = wire.startup_packet().await;
        for byte in login_answer(1, &[0; 4], false).chunks(1) {
            if wire.send(byte).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await
}

/// Claims 2 GB and begins to send them.
async fn boastful() -> FakeNode {
    FakeNode::start(|mut wire| async move {
        let _ = wire.startup_packet().await;
        let _ = wire.send(b"R\x7f\xff\xff\xff").await;
        while wire.send(&[b'x'; 8192]).await.is_ok() {}
    })
    .await
}

#[tokio::test]
async fn what_is_no_server_is_down_in_clear_words_and_costs_nothing() {
    let cluster = shared().await;
    let http = says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec()).await;
    let (slow, boastful, greedy) = (slow().await, boastful().await, greedy().await);
    let silent = FakeNode::start(|mut wire| async move {
        let _ = wire.rest().await;
    })
    .await;
    let gone = Gate::start(cluster.node(0).addr()).await;
    gone.set(Mode::Refuse).await;
    let wordless = says(message(b'E', b"\0")).await;
    let mute = FakeNode::start(|mut wire| async move { drop(wire.startup_packet().await) }).await;
    let fakes = [&http, &slow, &boastful, &greedy, &silent, &wordless, &mute].map(FakeNode::addr);
    let fakes = fakes.into_iter().chain([gone.addr()]);
    let nodes = [cluster.node(0).addr()].into_iter().chain(fakes);
    let balancer = Balancer::start(&config_for(nodes).replace("interval: 200ms", "interval: 50ms")).await;
    balancer.wait_health("n0", "up").await;
    let memory = balancer.metric("process_resident_memory_bytes").await;
    for (name, step, expected) in [
        ("n1", "startup", "speaks HTTP, not PostgreSQL, on port 5432 (got \"HTTP/1.1 400 Bad Request\")"),
        ("n2", "startup", "no answer within 500ms"),
        ("n3", "startup", "not a PostgreSQL message"),
        ("n5", "startup", "no answer within 500ms"),
        ("n6", "startup", "error without a message"),
        ("n7", "startup", "closed the connection without an answer"),
        ("n8", "connect", "connection refused"),
    ] {
        balancer.wait_health(name, "down").await;
        let check = balancer.node(name).await["check"].clone();
        assert_eq!((check["step"].as_str(), check["error"].as_str()), (Some(step), Some(expected)), "{name}");
    }
    // It asks for a password as a server does, so it may be one.
    let warning = balancer.wait_log("check_warning", |line| line["node"] == "n4").await;
    assert!(warning["error"].as_str().unwrap().contains("2000000000 SCRAM iterations"), "{warning}");
    assert!(balancer.node("n4").await["role"].is_null());

    // Nothing delays the one good node, and nothing piles up: it took 80 s and more, did each check wait for the silent ones.
    let before = checks(&balancer, "n0").await;
    wait_at_most(Duration::from_secs(60), "80 checks of the good node", async || {
        before + 79.5 < checks(&balancer, "n0").await
    })
    .await;
    let grown = balancer.metric("process_resident_memory_bytes").await - memory;
    assert!(grown < 16e6, "{grown} bytes more");
    connect(balancer.rw()).await.unwrap();
}

#[tokio::test]
async fn a_restarting_server_is_up_again_by_itself() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&config_for([node.addr()])).await;
    balancer.wait_health("n0", "up").await;
    node.stop(Stop::Immediate).await;
    balancer.wait_health("n0", "down").await;
    let line = balancer.wait_log("node_state", |line| line["to"] == "down").await;
    assert_eq!((&line["error"], &line["step"]), (&"connection refused".into(), &"connect".into()), "{line}");
    node.start().await;
    balancer.wait_health("n0", "up").await;
    connect(balancer.rw()).await.unwrap();
}

#[tokio::test]
async fn a_primary_that_is_awaited_is_up_after_one_good_check() {
    let cluster = shared().await;
    let (primary, standby) =
        (Gate::start(cluster.node(0).addr()).await, Gate::start(cluster.node(1).addr()).await);
    let nodes = [primary.addr(), standby.addr(), cluster.node(2).addr()];
    let balancer = Balancer::start(&config_for(nodes).replace("rise: 2", "rise: 1000")).await;
    balancer.wait_ready().await;
    for gate in [&primary, &standby] {
        gate.set(Mode::Refuse).await;
    }
    for node in ["n0", "n1"] {
        balancer.wait_health(node, "down").await;
    }
    for gate in [&primary, &standby] {
        gate.set(Mode::Pass).await;
    }
    balancer.wait_health("n0", "up").await;
    let client = connect(balancer.rw()).await.unwrap();
    assert_eq!(which_node(&client).await.unwrap(), cluster.node(0).addr().ip());
    one_more_check(&balancer, "n1").await;
    assert_eq!(balancer.node("n1").await["state"], "going_up", "there is another standby");
}

#[tokio::test]
async fn a_promotion_is_seen_within_a_check_interval() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&cluster.config()).await;
    balancer.wait_ready().await;
    cluster.node(1).promote().await;
    let promoted = Instant::now();
    balancer.wait_role("n1", "primary").await;
    // An interval of 200 ms, and room for a busy machine.
    assert!(promoted.elapsed() < Duration::from_secs(2), "{:?}", promoted.elapsed());
    balancer.wait_log("node_role", |line| line["node"] == "n1" && line["to"] == "primary").await;
}

#[tokio::test]
async fn a_standby_too_far_behind_gets_no_reads_until_it_has_caught_up() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let config = cluster.config() + "  max_lag: 100KiB\n";
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let landing = async || {
        let client = connect(balancer.ro()).await.unwrap();
        cluster.name_of(which_node(&client).await.unwrap()).unwrap()
    };
    cluster.primary().sql("create table t as select 1 as n").await;
    cluster.wait_replayed().await;
    assert_eq!(landing().await, "n1");

    cluster.standby(0).sql("select pg_wal_replay_pause()").await;
    cluster.primary().sql("insert into t select generate_series(1, 20000)").await;
    wait_until("the lag to be seen", async || {
        let node = balancer.node("n1").await;
        let bytes = node["lag_bytes"].as_u64().unwrap_or_default();
        let seconds = node["lag_seconds"].as_f64().unwrap_or_default();
        if 500_000 < bytes && 0.0 < seconds { Ok(()) } else { Err(node) }
    })
    .await;
    balancer.wait_log("node_lag", |line| line["node"] == "n1" && line["lagging"] == true).await;
    assert_eq!(landing().await, "n0");
    assert!(500_000.0 < balancer.metric("pgsplit_node_lag_bytes{node=\"n1\"}").await);
    assert!(0.0 < balancer.metric("pgsplit_node_lag_seconds{node=\"n1\"}").await);
    assert_eq!(balancer.node("n1").await["health"], "up");

    // The other way to put the limit.
    let in_time = cluster.config() + "  max_lag: 100ms\n";
    let timed = Balancer::start(&in_time).await;
    timed.wait_health("n0", "up").await;
    timed.wait_log("node_lag", |line| line["node"] == "n1" && line["lagging"] == true).await;
    let client = connect(timed.ro()).await.unwrap();
    assert_eq!(which_node(&client).await.unwrap(), cluster.node(0).addr().ip());

    cluster.standby(0).sql("select pg_wal_replay_resume()").await;
    timed.wait_log("node_lag", |line| line["node"] == "n1" && line["lagging"] == false).await;
    balancer.wait_log("node_lag", |line| line["node"] == "n1" && line["lagging"] == false).await;
    assert_eq!(landing().await, "n1");
    let node = balancer.node("n1").await;
    assert_eq!((&node["lag_bytes"], &node["lag_seconds"]), (&0.into(), &0.0.into()), "{node}");
}

#[tokio::test]
async fn no_check_leaves_a_line_in_the_servers_log() {
    let hba = ["host all lb_check all trust", "host all all all scram-sha-256"];
    let server = Postgres::start_new(Settings::default().tls().hba(&hba)).await;
    let addr = server.addr();
    let before = server.log();
    let password = format!("user: app, password: {PASSWORD}");
    let parts = [
        ("tcp", addr, "type: tcp"),
        ("startup-trust", addr, "type: startup, user: lb_check"),
        ("startup-scram", addr, "type: startup"),
        ("login-trust", addr, "user: lb_check"),
        ("login-scram", addr, &password),
        ("login-without-password", addr, "user: app"),
    ];
    // A check that is given up leaves a line, and the machine may be busy.
    let balancer = Balancer::start(&clusters(&parts).replace("100ms", "30ms, timeout: 10s")).await;
    for (name, ..) in parts {
        wait_until("30 checks", async || 30.0 < checks(&balancer, name).await).await;
        assert_eq!(balancer.node(name).await["health"], "up");
    }
    assert_eq!(server.log().strip_prefix(&before), Some(""), "the server has something to say");
}

#[tokio::test]
async fn it_starts_with_no_node_there_and_serves_when_one_comes() {
    let server = Postgres::reserve(Settings::default());
    let ghost = "nodes: [{name: ghost, addr: \"ghost.invalid:5432\"},";
    let config = format!("{ghost} {{name: n0, addr: \"{}\"}}]\n{}", server.addr(), quick_checks());
    let balancer = Balancer::start(&(config + "sessions: {queue_timeout: 1m}\n")).await;
    balancer.wait_health("n0", "down").await;
    balancer.wait_health("ghost", "down").await;
    assert_eq!(balancer.node("ghost").await["check"]["step"], "resolve");
    assert!(balancer.out().contains("postgres://"), "{}", balancer.out());

    let rw = balancer.rw();
    let waiting = tokio::task::JoinSet::from_iter([async move {
        let mut wire = Wire::connect(rw).await.unwrap();
        wire.login("app", "postgres").await
    }]);
    wait_until("a client to wait", async || balancer.status().await["listeners"][0]["waiting"] == 1).await;
    server.create().await;
    server.start().await;
    waiting.join_all().await.remove(0).unwrap().unwrap();
    connect(balancer.ro()).await.unwrap();
}

#[tokio::test]
async fn refused_sessions_take_a_node_out_before_its_next_check() {
    let cluster = shared().await;
    let gate = Gate::start(cluster.node(0).addr()).await;
    let nodes = config_for([gate.addr(), cluster.node(1).addr()]);
    let nodes = nodes.split("check:").next().unwrap();
    let balancer = Balancer::start(&format!("{nodes}{ONE_CHECK}{ANY}")).await;
    balancer.wait_ready().await;
    gate.set(Mode::Refuse).await;
    for _ in 0..4 {
        connect(balancer.at(7000)).await.unwrap();
    }
    balancer.wait_health("n0", "down").await;
    let line = balancer.wait_log("node_state", |line| line["to"] == "down").await;
    assert_eq!((&line["node"], &line["error"]), (&"n0".into(), &"connection refused".into()), "{line}");
    assert!(0.5 < balancer.metric("pgsplit_redispatches_total{reason=\"connect\"}").await);
}

/// A server that shows whichever role it has now.
async fn changing(in_recovery: &Arc<AtomicBool>) -> FakeNode {
    let in_recovery = Arc::clone(in_recovery);
    FakeNode::start(move |mut wire| {
        let standby = in_recovery.load(Ordering::SeqCst);
        async move {
            let _ = wire.startup_packet().await;
            let _ = wire.send(&login_answer(1, &[0; 4], standby)).await;
            while let Ok(Some(asked)) = wire.message().await {
                if asked.tag == b'Q' {
                    let _ = wire.send(b"I\0\0\0\x04Z\0\0\0\x05I").await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_role_seen_in_a_clients_login_is_believed_at_once() {
    let in_recovery = Arc::new(AtomicBool::new(true));
    let node = changing(&in_recovery).await;
    let nodes = format!("nodes: [{{name: n0, addr: \"{}\"}}]\n", node.addr());
    let balancer = Balancer::start(&(nodes + ONE_CHECK + ANY)).await;
    balancer.wait_role("n0", "standby").await;
    in_recovery.store(false, Ordering::SeqCst);
    let mut wire = Wire::connect(balancer.at(7000)).await.unwrap();
    wire.login("app", "postgres").await.unwrap().unwrap();
    balancer.wait_role("n0", "primary").await;
    assert_eq!(balancer.node("n0").await["role_from"], "client");
    balancer.wait_log("node_role", |line| line["to"] == "primary" && line["seen_by"] == "client").await;
    assert!(checks(&balancer, "n0").await < 1.5);
}

#[tokio::test]
async fn with_passive_off_only_checks_are_believed() {
    let cluster = shared().await;
    let gate = Gate::start(cluster.node(0).addr()).await;
    let in_recovery = Arc::new(AtomicBool::new(true));
    let node = changing(&in_recovery).await;
    let nodes = config_for([gate.addr(), node.addr()]);
    let nodes = nodes.split("check:").next().unwrap();
    let checks_off = ONE_CHECK.replace("fall: 2", "fall: 2, passive: false");
    let balancer = Balancer::start(&format!("{nodes}{checks_off}{ANY}")).await;
    balancer.wait_ready().await;
    gate.set(Mode::Refuse).await;
    in_recovery.store(false, Ordering::SeqCst);
    for _ in 0..6 {
        // Every other one meets the gate first and goes on.
        let mut wire = Wire::connect(balancer.at(7000)).await.unwrap();
        wire.login("app", "postgres").await.unwrap().unwrap();
    }
    assert!(2.5 < balancer.metric("pgsplit_redispatches_total{reason=\"connect\"}").await);
    assert_eq!(balancer.node("n0").await["state"], "up");
    assert_eq!(balancer.node("n1").await["role"], "standby");
}

#[tokio::test]
async fn a_frozen_node_does_not_delay_the_others() {
    let cluster = shared().await;
    let gate = Gate::start(cluster.node(1).addr()).await;
    let config = config_for([cluster.node(0).addr(), gate.addr(), cluster.node(2).addr()]);
    let config = config.replace("interval: 200ms", "interval: 50ms");
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    // 40 times 10 s, did each wait for the frozen one.
    let patient = Balancer::start(&config.replace("timeout: 500ms", "timeout: 10s")).await;
    patient.wait_ready().await;
    gate.set(Mode::Freeze).await;
    balancer.wait_health("n1", "down").await;
    assert_eq!(error(&balancer, "n1").await, "no answer within 500ms");
    let before = checks(&patient, "n0").await;
    wait_at_most(Duration::from_secs(60), "40 checks of a healthy node", async || {
        before + 39.5 < checks(&patient, "n0").await
    })
    .await;
    connect(balancer.rw()).await.unwrap();
    connect(balancer.ro()).await.unwrap();

    gate.set(Mode::Pass).await;
    balancer.wait_health("n1", "up").await;
}

/// Takes the node away and lets it come back, so many times.
async fn comes_and_goes(balancer: &Balancer, node: &str, gate: &Gate, times: usize) {
    for _ in 0..times {
        gate.set(Mode::Refuse).await;
        balancer.wait_health(node, "down").await;
        gate.set(Mode::Pass).await;
        balancer.wait_health(node, "up").await;
    }
}

#[tokio::test]
async fn a_standby_that_comes_and_goes_is_held_back_and_seldom_spoken_of() {
    let cluster = shared().await;
    let gate = Gate::start(cluster.node(1).addr()).await;
    let config = config_for([cluster.node(0).addr(), gate.addr(), cluster.node(2).addr()]);
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    comes_and_goes(&balancer, "n1", &gate, 5).await;
    let node = balancer.node("n1").await;
    assert!(node["health"] == "up" && 4.0 < node["held_back_s"].as_f64().unwrap(), "{node}");
    assert!((balancer.metric("pgsplit_node_held_back{node=\"n1\"}").await - 1.0).abs() < 0.1);
    assert!(balancer.metric("pgsplit_node_held_back{node=\"n2\"}").await < 0.1);
    let mut open = Vec::new();
    for _ in 0..10 {
        let client = connect(balancer.ro()).await.unwrap();
        assert_eq!(which_node(&client).await.unwrap(), cluster.node(2).addr().ip());
        open.push(client);
    }
    let lines = balancer.log_lines();
    let said =
        |event: &str| lines.iter().filter(|line| line["event"] == event && line["node"] == "n1").count();
    // The start and the first three of ten changes.
    assert_eq!((said("node_state"), said("node_flapping")), (4, 1), "{}", balancer.err());
    let line = balancer.wait_log("node_flapping", |_| true).await;
    assert_eq!(
        (&line["level"], &line["changes"], &line["held_back_s"]),
        (&"warn".into(), &3.into(), &1.into()),
        "{line}"
    );

    wait_until("its probation to end", async || {
        let client = connect(balancer.ro()).await.unwrap();
        which_node(&client).await.unwrap() == cluster.node(1).addr().ip()
    })
    .await;
}

#[tokio::test]
async fn the_only_primary_is_used_at_once_however_often_it_goes() {
    let cluster = shared().await;
    let gate = Gate::start(cluster.node(0).addr()).await;
    let config = config_for([gate.addr(), cluster.node(1).addr()]);
    let balancer = Balancer::start(&(config + "sessions: {queue_timeout: 0}\n")).await;
    balancer.wait_ready().await;
    for _ in 0..5 {
        comes_and_goes(&balancer, "n0", &gate, 1).await;
        connect(balancer.rw()).await.unwrap();
    }
    let node = balancer.node("n0").await;
    assert!(1.0 < node["held_back_s"].as_f64().unwrap(), "{node}");
}

#[tokio::test]
async fn a_server_that_is_slow_to_hang_up_is_up() {
    let node = FakeNode::start(|mut wire| async move {
        let _ = wire.startup_packet().await;
        let _ = wire.send(&login_answer(1, &[0; 4], false)).await;
        while let Ok(Some(asked)) = wire.message().await {
            if asked.tag == b'Q' {
                let _ = wire.send(b"I\0\0\0\x04Z\0\0\0\x05I").await;
            } else {
                // Longer than a check may take.
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    })
    .await;
    let balancer = Balancer::start(&config_for([node.addr()])).await;
    balancer.wait_role("n0", "primary").await;
    one_more_check(&balancer, "n0").await;
    assert!(
        balancer.metric("pgsplit_node_checks_total{result=\"failed\"}").await < 0.5,
        "{}",
        balancer.err()
    );
}

#[tokio::test]
async fn a_node_that_changes_is_looked_at_again_soon() {
    let bad = Arc::new(AtomicBool::new(false));
    let (behaves, first_bad, second_bad) = (Arc::clone(&bad), AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    let times = Arc::new((first_bad, second_bad));
    let seen = Arc::clone(&times);
    let node = FakeNode::start(move |mut wire| {
        let (bad, seen) = (behaves.load(Ordering::SeqCst), Arc::clone(&seen));
        async move {
            if !bad {
                let _ = wire.startup_packet().await;
                let _ = wire.send(&login_answer(1, &[0; 4], false)).await;
                let _ = wire.rest().await;
                return;
            }
            let now = u64::try_from(start.elapsed().as_millis()).unwrap();
            if seen.0.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                let _ = seen.1.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
            }
        }
    })
    .await;
    let check = "check: {type: startup, interval: 2s, fast_interval: 50ms, down_interval: 50ms, fall: 3}\n";
    let nodes = format!("nodes: [{{name: n0, addr: \"{}\"}}]\n", node.addr());
    let balancer = Balancer::start(&(nodes + check + ANY)).await;
    balancer.wait_health("n0", "up").await;
    bad.store(true, Ordering::SeqCst);
    balancer.wait_health("n0", "down").await;
    let gap = times.1.load(Ordering::SeqCst) - times.0.load(Ordering::SeqCst);
    assert!(gap < 1000, "{gap} ms from the first bad check to the second, not about 50");
}

/// How many addresses `localhost` has is up to the machine; the IPv4 one comes first, and here only it is served.
#[tokio::test]
async fn an_address_of_a_name_is_a_node_like_any_other() {
    let server = Postgres::start_new(Settings::default()).await;
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, node) = (door.local_addr().unwrap(), server.addr());
    let mut passing = tokio::task::JoinSet::from_iter([async move {
        let mut sessions = tokio::task::JoinSet::new();
        while let Ok((mut client, _)) = door.accept().await {
            sessions.spawn(async move {
                if let Ok(mut server) = tokio::net::TcpStream::connect(node).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    }]);
    let nodes = format!("nodes: [{{addr: \"localhost:{}\"}}]\n", addr.port());
    let config = nodes + &quick_checks() + "dns: {refresh: 200ms, all_addresses: true}\n";
    let balancer = Balancer::start(&config).await;
    balancer.wait_role("localhost", "primary").await;
    let found = balancer.wait_log("node_found", |line| line["node"] == "localhost").await;
    assert_eq!(found["addr"], addr.to_string());
    let seen = balancer.node("localhost").await;
    assert_eq!(
        (&seen["ip"], &seen["addr"]),
        (&"127.0.0.1".into(), &format!("localhost:{}", addr.port()).into())
    );
    let client = connect(balancer.rw()).await.unwrap();
    assert_eq!(value(&client, "select 1").await.unwrap(), "1");
    assert!(
        (balancer.metric("pgsplit_sessions_active{listener=\"rw\",node=\"localhost\"}").await - 1.0).abs()
            < 0.1
    );
    drop(client);
    let ended = balancer.wait_log("session_end", |_| true).await;
    assert_eq!(
        (&ended["node"], &ended["node_addr"]),
        (&"localhost".into(), &addr.to_string().into()),
        "{ended}"
    );
    passing.abort_all();
}
