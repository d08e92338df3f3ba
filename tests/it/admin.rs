//! The admin address: metrics, health, readiness, status.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::balancer::Balancer;
use crate::support::client::connect;
use crate::support::cluster::{Cluster, config_for};
use crate::support::postgres::{Postgres, Settings, Stop};

#[tokio::test]
async fn metrics_are_prometheus_text_and_all_there_from_the_start() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&cluster.config()).await;
    balancer.wait_ready().await;
    connect(balancer.rw()).await.unwrap();
    let text = balancer.metrics().await;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(series.starts_with("pgsplit_") || series.starts_with("process_"), "{line}");
        assert!(series.contains('{') == series.ends_with('}'), "{line}");
    }
    let docs = include_str!("../../docs/metrics.md");
    for row in docs.lines().filter(|line| line.starts_with("| `pgsplit_")) {
        let name = row.split('`').nth(1).unwrap();
        let kind = row.split('|').nth(2).unwrap().trim();
        let maybe_absent = row.contains("*Absent*") || row.contains("*absent*");
        assert!(maybe_absent || text.contains(&format!("# TYPE {name} {kind}")), "{name} {kind}");
    }
}

#[tokio::test]
async fn readiness_follows_the_nodes_and_health_does_not() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&config_for([node.addr()])).await;
    balancer.wait_ready().await;
    assert_eq!(balancer.get("/readyz").await.unwrap(), (200, "ready\n".into()));
    assert_eq!(balancer.get("/readyz?listener=rw").await.unwrap().0, 200);
    assert_eq!(balancer.get("/readyz?listener=xx").await.unwrap().0, 404);
    node.stop(Stop::Fast).await;
    balancer.wait_health("n0", "down").await;
    let (code, said) = balancer.get("/readyz").await.unwrap();
    assert_eq!((code, said.contains("listener \"rw\" has no node")), (503, true), "{said}");
    assert_eq!(balancer.get("/healthz").await.unwrap(), (200, "ok\n".into()));
    assert_eq!(balancer.get("/nothing").await.unwrap().0, 404);
    assert!(balancer.get("/").await.unwrap().1.contains("NODE"));
}

#[tokio::test]
async fn status_tells_everything_of_listeners_and_nodes() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&cluster.config()).await;
    balancer.wait_health("n1", "up").await;
    let _client = connect(balancer.ro()).await.unwrap();
    let status = balancer.status().await;
    assert_eq!(status["listeners"][1]["sessions"], 1);
    assert_eq!(status["listeners"][1]["target"], "prefer-standby");
    let node = &status["nodes"][1];
    for key in
        ["name", "addr", "ip", "health", "state", "role", "role_from", "weight", "sessions", "since", "check"]
    {
        assert!(!node[key].is_null(), "{key}: {node}");
    }
    assert_eq!(
        (&node["role"], &node["sessions"], &node["check"]["ok"]),
        (&"standby".into(), &1.into(), &true.into())
    );
}

#[tokio::test]
async fn nothing_can_be_changed_and_slow_readers_hold_nobody_up() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&config_for([node.addr()])).await;
    balancer.wait_ready().await;
    let mut post = TcpStream::connect(balancer.admin()).await.unwrap();
    post.write_all(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    post.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 405 ") && answer.to_lowercase().contains("allow: get, head"),
        "{answer}"
    );
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(balancer.admin()).await.unwrap();
        stream.write_all(b"GET /metrics HTT").await.unwrap();
        slow.push(stream);
    }
    connect(balancer.rw()).await.unwrap();
    assert_eq!(balancer.get("/healthz").await.unwrap().0, 200, "after the slow ones have been closed");
}
