//! Logging in through pgsplit: what the client and the node say to each other stays between them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::balancer::Balancer;
use crate::support::client::{PASSWORD, config, connect, connect_with, value};
use crate::support::cluster::Cluster;
use crate::support::postgres::{Postgres, Settings};
use crate::support::wait::wait_until;
use crate::support::wire::{FakeNode, Wire, error, login_answer, message, startup_of, terminate};
use crate::tools::{conninfo, in_order, psql, whole};

#[tokio::test]
async fn every_method_of_authentication_passes() {
    for method in ["trust", "password", "md5", "scram-sha-256"] {
        let server = Postgres::start_new(Settings::default().auth(method)).await;
        let balancer = Balancer::start(&in_order([server.addr()], "")).await;
        balancer.wait_ready().await;
        let client = connect(balancer.rw()).await.unwrap_or_else(|error| panic!("{method}: {error}"));
        assert_eq!(value(&client, "select current_user").await.unwrap(), "postgres");
        let answer = psql(&conninfo(balancer.rw(), "user=app dbname=template1"), "select current_user").await;
        assert_eq!(answer.as_deref(), Ok("app"), "{method}");
        if method != "trust" {
            let mut wrong = config(balancer.rw());
            wrong.password("wrong");
            let refused = connect_with(wrong).await.unwrap_err();
            assert_eq!(refused.code().unwrap().code(), "28P01", "{method}");
        }
    }
}

#[tokio::test]
async fn a_wrong_password_is_tried_on_one_node_only() {
    let settings = Settings::default().auth("scram-sha-256");
    let servers = [Postgres::start_new(settings.clone()).await, Postgres::start_new(settings.clone()).await];
    let balancer = Balancer::start(&in_order(servers.iter().map(Postgres::addr), "")).await;
    balancer.wait_ready().await;
    let mut wrong = config(balancer.rw());
    wrong.password("wrong");
    let refused = connect_with(wrong).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "28P01");
    let line = balancer.wait_log("session_end", |line| line["sqlstate"] == "28P01").await;
    assert_eq!((&line["node"], &line["redispatches"]), (&"n0".into(), &0.into()), "{line}");
    let failed = |server: &Postgres| server.log().matches("password authentication failed").count();
    wait_until("the failure in the server's log", async || failed(&servers[0]) == 1).await;
    // The second server has logged everything there is by the time it has served somebody.
    servers[1].sql("select 1").await;
    assert_eq!(failed(&servers[1]), 0);
    let errors = "pgsplit_node_startup_errors_total{sqlstate=\"28P01\"}";
    assert_eq!(whole(balancer.metric(errors).await), 1);
    assert_eq!(whole(balancer.metric("pgsplit_redispatches_total").await), 0);
}

/// `NegotiateProtocolVersion`: 3.0, and one option that is not known.
fn negotiate() -> Vec<u8> {
    message(b'v', &[&0x0003_0000_u32.to_be_bytes()[..], &1_u32.to_be_bytes(), b"_pq_.x\0"].concat())
}

#[tokio::test]
async fn the_version_is_negotiated_once() {
    // The first node says a version and refuses, the second says it and goes on, each byte on its own.
    let mut nodes = Vec::new();
    for rest in
        [error("FATAL", "57P03", "the database system is starting up"), login_answer(7, &[0, 0, 0, 1], true)]
    {
        let answer = [negotiate(), rest].concat();
        let node = FakeNode::start(move |mut wire| {
            let answer = answer.clone();
            async move {
                if wire.startup_packet().await.is_ok() {
                    let _ = wire.send_bytewise(&answer).await;
                    let _ = wire.message().await;
                }
            }
        })
        .await;
        nodes.push(node);
    }
    let balancer = Balancer::start(&in_order(nodes.iter().map(FakeNode::addr), "")).await;
    balancer.wait_ready().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.send(&startup_of(0x0003_0002, &[("user", "u"), ("_pq_.x", "y")])).await.unwrap();
    let whole_login = [negotiate(), login_answer(7, &[0, 0, 0, 1], true)].concat();
    assert_eq!(wire.exactly(whole_login.len()).await.unwrap(), whole_login);
}

#[tokio::test]
async fn a_real_server_negotiates_once_too() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&in_order([server.addr()], "")).await;
    balancer.wait_ready().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.send(&startup_of(0x0003_0063, &[("user", "postgres")])).await.unwrap();
    let mut tags = String::new();
    while !tags.ends_with('Z') {
        tags.push(char::from(wire.message().await.unwrap().unwrap().tag));
    }
    assert!(tags.starts_with("vR"), "{tags}");
    assert_eq!(tags.matches('v').count(), 1, "{tags}");
}

#[tokio::test]
async fn the_log_says_whose_session_it_was_and_where() {
    let cluster = Cluster::start(1, Settings::default().auth("scram-sha-256")).await;
    let balancer = Balancer::start(&cluster.config()).await;
    balancer.wait_ready().await;
    for (addr, listener, node, role) in
        [(balancer.rw(), "rw", "n0", "primary"), (balancer.ro(), "ro", "n1", "standby")]
    {
        let mut wanted = config(addr);
        wanted.user("app").dbname("template1").application_name("billing\n\u{1b}[31m").password(PASSWORD);
        let client = connect_with(wanted).await.unwrap();
        value(&client, "select 1").await.unwrap();
        drop(client);
        let line = balancer.wait_log("session_end", |line| line["listener"] == listener).await;
        let node_addr = cluster.nodes().iter().map(|node| node.addr().to_string());
        let node_addr = node_addr.zip(["n0", "n1"]).find(|(_, name)| *name == node).unwrap().0;
        for (field, expected) in [
            ("user", "app"),
            ("database", "template1"),
            ("node", node),
            ("node_addr", &node_addr),
            ("role", role),
            ("tls", "none"),
            ("end", "client"),
            ("end_code", "--"),
        ] {
            assert_eq!(line[field], expected, "{field} in {line}");
        }
        let app = line["app"].as_str().unwrap();
        assert!(app.starts_with("billing") && !app.contains(['\n', '\u{1b}']), "{line}");
        let (login, all) = (line["login_s"].as_f64().unwrap(), line["duration_s"].as_f64().unwrap());
        assert!(0.0 < login && login <= all, "{line}");
        assert!(line["to_node_bytes"].as_u64() > Some(50), "{line}");
        assert!(line["to_client_bytes"].as_u64() > Some(200), "{line}");
    }
}

#[tokio::test]
async fn a_name_that_is_left_out_is_what_a_server_makes_of_it() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&in_order([server.addr()], "")).await;
    balancer.wait_ready().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    let packet = startup_of(0x0003_0000, &[("user", "nobody"), ("user", "postgres"), ("database", "")]);
    wire.send(&packet).await.unwrap();
    wire.logged_in().await.unwrap().unwrap();
    let rows = wire.query("select current_user, current_database()").await.unwrap();
    assert_eq!(rows[1].body, b"\0\x02\0\0\0\x08postgres\0\0\0\x08postgres");
    wire.send(&terminate()).await.unwrap();
    drop(wire);
    let line = balancer.wait_log("session_end", |_| true).await;
    assert_eq!((&line["user"], &line["database"]), (&"postgres".into(), &"postgres".into()), "{line}");
    assert!(line["app"].is_null() || line["app"] == "", "{line}");
}
