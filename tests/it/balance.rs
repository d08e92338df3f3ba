//! How sessions are spread over the nodes that fit, and what limits do.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::balancer::Balancer;
use crate::support::client::{background, connect};
use crate::support::postgres::{Postgres, Settings};
use crate::support::wait::wait_until;
use crate::support::wire::{FakeNode, Wire};
use crate::tools::{conninfo, psql, with_listener};

/// Sessions that are opened and closed one after the other, and how many each node got.
async fn spread(balancer: &Balancer, sessions: usize, nodes: usize) -> Vec<u64> {
    for _ in 0..sessions {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.login("u", "d").await.unwrap().unwrap();
        wire.finish().await.unwrap();
    }
    let mut counts = Vec::new();
    for node in 0..nodes {
        let count = wait_until("all sessions to be counted", async || {
            let text = balancer.metrics().await;
            let ended = crate::support::balancer::sum(&text, "pgsplit_sessions_total");
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let all = (ended - sessions as f64).abs() < 0.5;
            all.then(|| {
                crate::support::balancer::sum(&text, &format!("pgsplit_sessions_total{{node=\"n{node}\"}}"))
            })
        })
        .await;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small whole numbers")]
        counts.push(count as u64);
    }
    counts
}

async fn three() -> Vec<FakeNode> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(FakeNode::healthy(true).await);
    }
    nodes
}

#[tokio::test]
async fn weights_are_exact_over_a_run() {
    let nodes = three().await;
    for balance in ["roundrobin", "leastconn"] {
        let mut config =
            with_listener(nodes.iter().map(FakeNode::addr), &format!("target: any, balance: {balance}"), "");
        for (node, weight) in [1, 2, 3].iter().enumerate() {
            config =
                config.replacen(&format!("name: n{node}"), &format!("weight: {weight}, name: n{node}"), 1);
        }
        let balancer = Balancer::start(&config).await;
        balancer.wait_ready().await;
        for node in ["n0", "n1", "n2"] {
            balancer.wait_health(node, "up").await;
        }
        assert_eq!(spread(&balancer, 300, 3).await.iter().sum::<u64>(), 300);
        if balance == "roundrobin" {
            assert_eq!(spread_shares(&balancer).await, [50, 100, 150]);
        }
    }
}

async fn spread_shares(balancer: &Balancer) -> Vec<u64> {
    let text = balancer.metrics().await;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small whole numbers")]
    (0..3)
        .map(|node| {
            crate::support::balancer::sum(&text, &format!("pgsplit_sessions_total{{node=\"n{node}\"}}"))
                as u64
        })
        .collect()
}

#[tokio::test]
async fn first_random_and_source_do_what_they_say() {
    let nodes = three().await;
    for (balance, expected) in [("first", Some(vec![30, 0, 0])), ("source", None), ("random", None)] {
        let config =
            with_listener(nodes.iter().map(FakeNode::addr), &format!("target: any, balance: {balance}"), "");
        let balancer = Balancer::start(&config).await;
        balancer.wait_ready().await;
        for node in ["n0", "n1", "n2"] {
            balancer.wait_health(node, "up").await;
        }
        let counts = spread(&balancer, 30, 3).await;
        match (balance, expected) {
            (_, Some(expected)) => assert_eq!(counts, expected),
            ("source", None) => {
                assert_eq!(counts.iter().max(), Some(&30), "one client, one node: {counts:?}");
            }
            (_, None) => assert!(counts.iter().all(|&count| 0 < count), "{counts:?}"),
        }
    }
}

#[tokio::test]
async fn leastconn_counts_the_sessions_that_are_open() {
    let nodes = three().await;
    let config = with_listener(nodes.iter().map(FakeNode::addr), "target: any, balance: leastconn", "");
    let balancer = Balancer::start(&config).await;
    for node in ["n0", "n1", "n2"] {
        balancer.wait_health(node, "up").await;
    }
    let mut open = Vec::new();
    for _ in 0..9 {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.login("u", "d").await.unwrap().unwrap();
        open.push(wire);
    }
    for node in 0..3 {
        assert_eq!(balancer.node(&format!("n{node}")).await["sessions"], 3);
    }
}

#[tokio::test]
async fn a_session_waits_for_a_place_on_its_node_and_takes_it_when_one_is_free() {
    let node = Postgres::start_new(Settings::default()).await;
    let config = format!(
        "nodes: [{{addr: \"{}\", name: n0, role: primary, max_connections: 1}}]\ncheck: {{interval: 1h}}\nsessions: \
         {{queue_timeout: 20s}}\n",
        node.addr()
    );
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let first = connect(balancer.rw()).await.unwrap();
    let waiting = background().spawn(connect(balancer.rw()));
    wait_until("a session that waits", async || balancer.status().await["listeners"][0]["waiting"] == 1)
        .await;
    assert!(!waiting.is_finished());
    drop(first);
    waiting.await.unwrap().unwrap();
    wait_until("nobody to wait", async || balancer.status().await["listeners"][0]["waiting"] == 0).await;
}

#[tokio::test]
async fn a_full_listener_says_so_at_once() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&format!(
        "nodes: [{{addr: \"{}\", name: n0}}]\ncheck: {{interval: 200ms}}\nlisteners: [{{name: all, bind: \
         \"BALANCER:6432\", target: any, max_connections: 1}}]\n",
        node.addr()
    ))
    .await;
    balancer.wait_ready().await;
    let _first = connect(balancer.rw()).await.unwrap();
    let said = psql(&conninfo(balancer.rw(), "sslmode=disable"), "select 1").await.unwrap_err();
    assert!(said.contains("FATAL:  too many connections on listener \"all\" (limit 1)"), "{said}");
}
