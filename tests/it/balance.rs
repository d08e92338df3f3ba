//! How one of several fitting nodes is chosen, and what happens when places run out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::balancer::Balancer;
use crate::support::client::{connect, value, which_node};
use crate::support::cluster::{Cluster, gates, patient, quick_checks, shared};
use crate::support::gate::{Gate, Mode};
use crate::support::postgres::Postgres;
use crate::support::wait::wait_until;
use crate::support::wire::{FakeNode, Wire, terminate};

/// One listener to all nodes.
fn one(balance: &str) -> String {
    format!("listeners: [{{name: all, bind: \"BALANCER:7000\", target: any, balance: {balance}}}]\n")
}

/// Nodes with weights, `n0` first.
fn weighted(addrs: impl IntoIterator<Item = SocketAddr>, weights: &[u16]) -> String {
    let nodes = addrs.into_iter().zip(weights).enumerate();
    let line = |(i, (addr, weight))| format!("  - {{name: n{i}, addr: \"{addr}\", weight: {weight}}}\n");
    patient(&("nodes:\n".to_owned() + &nodes.map(line).collect::<String>() + &quick_checks()), "")
}

/// A ready balancer over the shared cluster.
async fn balanced(cluster: &Cluster, balance: &str, weights: &[u16]) -> Balancer {
    let addrs = cluster.nodes().iter().map(Postgres::addr);
    let balancer = Balancer::start(&(weighted(addrs, weights) + &one(balance))).await;
    balancer.wait_ready().await;
    balancer
}

/// A session that is logged in.
async fn session(addr: SocketAddr) -> Wire {
    logged_in(Wire::connect(addr).await.unwrap()).await
}

async fn logged_in(mut wire: Wire) -> Wire {
    wire.login("app", "postgres").await.unwrap().unwrap();
    wire
}

/// Says good-bye and waits until the node has, so that the session is over.
async fn end(mut wire: Wire) {
    wire.send(&terminate()).await.unwrap();
    wire.rest().await.unwrap();
}

/// A figure of every node, `n0` first.
async fn of_nodes(balancer: &Balancer, name: &str) -> [f64; 3] {
    let metrics = balancer.metrics().await;
    [0, 1, 2].map(|i| crate::support::balancer::sum(&metrics, &format!("{name}{{node=\"n{i}\"}}")))
}

#[track_caller]
fn assert_counts(counts: [f64; 3], expected: [f64; 3]) {
    assert!(counts.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.5), "{counts:?}, not {expected:?}");
}

#[tokio::test]
async fn roundrobin_is_exact_over_a_run_whatever_runs_at_once() {
    let cluster = shared().await;
    let balancer = balanced(cluster, "roundrobin", &[1, 2, 3]).await;
    let addr = balancer.at(7000);
    let mut clients = JoinSet::new();
    for _ in 0..6 {
        clients.spawn(async move {
            for _ in 0..100 {
                end(session(addr).await).await;
            }
        });
    }
    clients.join_all().await;
    wait_until("all sessions to be counted", async || {
        let counts = of_nodes(&balancer, "pgsplit_sessions_total").await;
        if 599.5 < counts.iter().sum::<f64>() { Ok(()) } else { Err(counts) }
    })
    .await;
    assert_counts(of_nodes(&balancer, "pgsplit_sessions_total").await, [100.0, 200.0, 300.0]);
    assert!(balancer.metric("pgsplit_redispatches_total").await < 0.5, "{}", balancer.err());
}

#[tokio::test]
async fn leastconn_fills_by_weight_and_refills_what_empties() {
    let cluster = shared().await;
    let balancer = balanced(cluster, "leastconn", &[1, 2, 3]).await;
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(connect(balancer.at(7000)).await.unwrap());
    }
    assert_counts(of_nodes(&balancer, "pgsplit_sessions_active").await, [5.0, 10.0, 15.0]);

    let emptied = cluster.node(1).addr().ip();
    let mut left = Vec::new();
    for client in clients {
        if which_node(&client).await.unwrap() != emptied {
            left.push(client);
        }
    }
    wait_until("the sessions to end", async || {
        let counts = of_nodes(&balancer, "pgsplit_node_sessions_active").await;
        if counts[1] < 0.5 { Ok(()) } else { Err(counts) }
    })
    .await;
    for _ in 0..10 {
        let client = connect(balancer.at(7000)).await.unwrap();
        assert_eq!(which_node(&client).await.unwrap(), emptied);
        left.push(client);
    }
}

#[tokio::test]
async fn random_takes_the_better_of_two() {
    let cluster = shared().await;
    let balancer = balanced(cluster, "random", &[100, 100, 100]).await;
    let mut sessions = Vec::new();
    for _ in 0..90 {
        sessions.push(session(balancer.at(7000)).await);
    }
    let counts = of_nodes(&balancer, "pgsplit_sessions_active").await;
    assert!(counts.iter().all(|count| (22.0..38.0).contains(count)), "{counts:?}");
}

#[tokio::test]
async fn first_stays_with_the_first_that_lives() {
    let cluster = shared().await;
    let gates = gates(cluster).await;
    let config = weighted(gates.iter().map(Gate::addr), &[100, 100, 100]) + &one("first");
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let landing = async || {
        let mut nodes = BTreeSet::new();
        for _ in 0..5 {
            let client = connect(balancer.at(7000)).await.unwrap();
            nodes.insert(cluster.name_of(which_node(&client).await.unwrap()).unwrap());
        }
        nodes.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(landing().await, ["n0"]);
    gates[0].set(Mode::Refuse).await;
    assert_eq!(landing().await, ["n1"]);
    gates[0].set(Mode::Pass).await;
    wait_until("a good look at n0", async || balancer.node("n0").await["state"] == "up").await;
    assert_eq!(landing().await, ["n0"]);
}

#[tokio::test]
async fn source_keeps_every_client_where_it_was() {
    let cluster = shared().await;
    let gates = gates(cluster).await;
    let config = weighted(gates.iter().map(Gate::addr), &[100, 100, 100]) + &one("source");
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let landings = async || {
        let mut nodes = BTreeMap::new();
        for last in 1..=24 {
            let source = Ipv4Addr::new(127, 77, 7, last);
            let mut wire = logged_in(Wire::connect_from(source, balancer.at(7000)).await.unwrap()).await;
            let answer = wire.query("select host(inet_server_addr())").await.unwrap();
            let row = answer.into_iter().find(|message| message.tag == b'D').unwrap();
            let ip = String::from_utf8(row.body[6..].to_vec()).unwrap();
            nodes.insert(last, cluster.name_of(ip.parse().unwrap()).unwrap());
        }
        nodes
    };
    let before = landings().await;
    assert_eq!(before.values().collect::<BTreeSet<_>>().len(), 3, "{before:?}");
    assert_eq!(landings().await, before);

    gates[2].set(Mode::Refuse).await;
    balancer.wait_health("n2", "down").await;
    for (client, node) in landings().await {
        let was = &before[&client];
        assert!(node == *was || was == "n2", "client {client} was moved from {was} to {node}");
        assert_ne!(node, "n2");
    }
}

#[tokio::test]
async fn a_full_node_makes_sessions_wait_and_a_freed_place_is_taken_at_once() {
    let cluster = shared().await;
    let addr = cluster.node(0).addr();
    let nodes = format!("nodes: [{{name: n0, addr: \"{addr}\", max_connections: 2}}]\n");
    let balancer = Balancer::start(&(nodes + &quick_checks())).await;
    balancer.wait_ready().await;
    let first = session(balancer.rw()).await;
    let second = session(balancer.ro()).await;

    let rw = balancer.rw();
    let waiting = tokio::task::JoinSet::from_iter([async move { session(rw).await }]);
    wait_until("the third to wait", async || balancer.status().await["listeners"][0]["waiting"] == 1).await;
    assert_eq!(balancer.node("n0").await["sessions"], 2);

    let freed = Instant::now();
    end(second).await;
    let mut third = waiting.join_all().await.remove(0);
    assert!(freed.elapsed() < Duration::from_secs(3), "{:?}", freed.elapsed());
    assert_eq!(third.query("select 1").await.unwrap().len(), 4);
    assert_eq!(balancer.status().await["listeners"][0]["waiting"], 0);
    assert_eq!(balancer.node("n0").await["sessions"], 2);
    drop(first);
}

#[tokio::test]
async fn a_wait_for_a_place_ends_with_a_message_that_says_so() {
    let node = FakeNode::healthy(false).await;
    let nodes = format!(
        "nodes: [{{name: n0, addr: \"{}\", max_connections: 1}}]\nsessions: {{queue_timeout: 300ms}}\n",
        node.addr()
    );
    let balancer = Balancer::start(&(nodes + &quick_checks())).await;
    balancer.wait_ready().await;
    let _first = session(balancer.rw()).await;
    let mut second = Wire::connect(balancer.rw()).await.unwrap();
    let error = second.login("app", "postgres").await.unwrap().unwrap_err();
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P03"));
    assert!(error.message.contains("for a free place on listener \"rw\""), "{error:?}");
    drop(second);
    let rejected = "pgsplit_connections_rejected_total{listener=\"rw\",reason=\"queue_timeout\"}";
    wait_until("it to be counted", async || (balancer.metric(rejected).await - 1.0).abs() < 0.1).await;
}

#[tokio::test]
async fn a_full_listener_refuses_and_says_so() {
    let cluster = shared().await;
    let config = cluster.config()
        + "listeners: [{name: rw, bind: \"BALANCER:6432\", max_connections: 2}, \
           {name: ro, bind: \"BALANCER:6433\", target: prefer-standby}]\n";
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let first = connect(balancer.rw()).await.unwrap();
    let second = session(balancer.rw()).await;
    let mut third = Wire::connect(balancer.rw()).await.unwrap();
    let error = third.login("app", "postgres").await.unwrap().unwrap_err();
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "53300"));
    assert_eq!(error.message, "too many connections on listener \"rw\" (limit 2)");
    // The other listener and the sessions that are there do not mind.
    connect(balancer.ro()).await.unwrap();
    assert_eq!(value(&first, "select 1").await.unwrap(), "1");

    end(second).await;
    wait_until("a place to be free", async || {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.login("app", "postgres").await.unwrap()
    })
    .await;
    let rejected = "pgsplit_connections_rejected_total{listener=\"rw\",reason=\"limit\"}";
    drop(third);
    wait_until("it to be counted", async || 0.5 < balancer.metric(rejected).await).await;
}
