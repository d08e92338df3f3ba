//! Which node a session of each target lands on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::support::balancer::Balancer;
use crate::support::client::{config, connect, connect_with, value, which_node};
use crate::support::cluster::{Cluster, config_for};
use crate::support::postgres::{Postgres, Settings, Stop};
use crate::support::wait::wait_until;

const TARGETS: [&str; 6] = ["any", "primary", "standby", "prefer-standby", "read-write", "read-only"];

/// The nodes of a cluster, and a listener for each target, from port 7000 on.
fn with_all_targets(nodes: &str, sessions: &str) -> String {
    let mut text = format!("{nodes}sessions: {{queue_timeout: {sessions}}}\nlisteners:\n");
    for (i, target) in TARGETS.iter().enumerate() {
        let _ = writeln!(
            text,
            "  - {{name: {target}, bind: \"BALANCER:{}\", target: {target}, balance: roundrobin}}",
            7000 + i
        );
    }
    text
}

/// The names of the nodes that six sessions of a target land on; empty: refused.
async fn landed(balancer: &Balancer, cluster: &Cluster, target: &str) -> BTreeSet<String> {
    let port = 7000 + u16::try_from(TARGETS.iter().position(|word| *word == target).unwrap()).unwrap();
    let mut names = BTreeSet::new();
    for _ in 0..6 {
        if let Ok(client) = connect(balancer.at(port)).await {
            names.insert(cluster.name_of(which_node(&client).await.unwrap()).unwrap());
        }
    }
    names
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[tokio::test]
async fn each_target_means_what_it_means_in_libpq() {
    let cluster = Cluster::start(2, Settings::default()).await;
    let balancer = Balancer::start(&with_all_targets(&cluster.config(), "0")).await;
    balancer.wait_ready().await;
    for name in ["n0", "n1", "n2"] {
        balancer.wait_health(name, "up").await;
    }
    for (target, expected) in [
        ("any", &["n0", "n1", "n2"][..]),
        ("primary", &["n0"]),
        ("read-write", &["n0"]),
        ("standby", &["n1", "n2"]),
        ("read-only", &["n1", "n2"]),
        ("prefer-standby", &["n1", "n2"]),
    ] {
        assert_eq!(landed(&balancer, &cluster, target).await, set(expected), "{target}");
    }

    cluster.primary().sql("alter system set default_transaction_read_only = on").await;
    cluster.primary().sql("select pg_reload_conf()").await;
    wait_until("a primary that is read-only by default to be no read-write target", async || {
        landed(&balancer, &cluster, "read-write").await.is_empty()
    })
    .await;
    assert_eq!(landed(&balancer, &cluster, "primary").await, set(&["n0"]));
    assert_eq!(landed(&balancer, &cluster, "read-only").await, set(&["n0", "n1", "n2"]));
}

#[tokio::test]
async fn reads_fall_back_to_the_primary_and_come_home() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&cluster.config()).await;
    balancer.wait_role("n1", "standby").await;
    balancer.wait_health("n1", "up").await;
    cluster.standby(0).stop(Stop::Fast).await;
    let client = connect(balancer.ro()).await.unwrap();
    assert_eq!(which_node(&client).await.unwrap(), cluster.primary().addr().ip());
    cluster.standby(0).start().await;
    wait_until("reads on the standby again", async || {
        let client = connect(balancer.ro()).await.unwrap();
        which_node(&client).await.unwrap() == cluster.standby(0).addr().ip()
    })
    .await;
}

#[tokio::test]
async fn a_backup_is_used_when_no_other_of_its_kind_is_left_and_weight_0_never() {
    let cluster = Cluster::start(2, Settings::default()).await;
    let nodes = cluster.config().replacen("name: n1", "backup: yes, name: n1", 1);
    let balancer = Balancer::start(&with_all_targets(&nodes, "0")).await;
    for name in ["n0", "n1", "n2"] {
        balancer.wait_health(name, "up").await;
    }
    assert_eq!(landed(&balancer, &cluster, "prefer-standby").await, set(&["n2"]));
    cluster.standby(1).stop(Stop::Fast).await;
    balancer.wait_health("n2", "down").await;
    assert_eq!(landed(&balancer, &cluster, "prefer-standby").await, set(&["n1"]));

    let nodes = cluster.config().replacen("name: n1", "weight: 0, name: n1", 1);
    let balancer = Balancer::start(&with_all_targets(&nodes, "0")).await;
    balancer.wait_health("n1", "up").await;
    assert_eq!(landed(&balancer, &cluster, "standby").await, set(&[]));
    assert_eq!(landed(&balancer, &cluster, "prefer-standby").await, set(&["n0"]));
}

#[tokio::test]
async fn a_logical_replica_is_a_standby_because_the_file_says_so() {
    let publisher = Postgres::start_new(Settings::default()).await;
    let subscriber = Postgres::start_new(Settings::default()).await;
    let nodes = config_for([publisher.addr(), subscriber.addr()]);
    let nodes = nodes.replacen("name: n0", "role: primary, name: n0", 1);
    let nodes = nodes.replacen("name: n1", "role: replica, name: n1", 1);
    let balancer = Balancer::start(&nodes).await;
    balancer.wait_health("n1", "up").await;
    balancer.wait_health("n0", "up").await;
    for _ in 0..4 {
        let writer = connect(balancer.rw()).await.unwrap();
        assert_eq!(which_node(&writer).await.unwrap(), publisher.addr().ip());
        let reader = connect(balancer.ro()).await.unwrap();
        assert_eq!(which_node(&reader).await.unwrap(), subscriber.addr().ip());
    }
    assert_eq!(balancer.node("n1").await["role_from"], "file");
}

#[tokio::test]
async fn two_clusters_in_one_file_do_not_mix() {
    let (a, b) =
        (Postgres::start_new(Settings::default()).await, Postgres::start_new(Settings::default()).await);
    let check = "check: {user: lb_check, password: pgsplit, interval: 200ms}";
    let balancer = Balancer::start(&format!(
        "clusters:\n  main:\n    nodes: [{{name: a, addr: \"{}\"}}]\n    {check}\n  logs:\n    nodes: [{{name: b, addr: \
         \"{}\"}}]\n    {check}\nlisteners:\n  - {{name: main-rw, bind: \"BALANCER:7000\", cluster: main, target: \
         primary}}\n  - {{name: logs-rw, bind: \"BALANCER:7001\", cluster: logs, target: primary}}\n",
        a.addr(),
        b.addr()
    ))
    .await;
    balancer.wait_ready().await;
    for (port, node) in [(7000, &a), (7001, &b)] {
        let client = connect(balancer.at(port)).await.unwrap();
        assert_eq!(which_node(&client).await.unwrap(), node.addr().ip());
    }
    assert_eq!(balancer.status().await["primaries"], serde_json::json!({"main": 1, "logs": 1}));
}

#[tokio::test]
async fn a_role_seen_in_a_clients_login_is_believed_at_once() {
    let cluster = Cluster::start(1, Settings::default()).await;
    // The checks only knock, and no role is written: nothing but clients can tell.
    let nodes = cluster.config().replace("  user: lb_check\n  password: pgsplit\n", "  type: tcp\n");
    let listeners =
        "listeners:\n  - {name: all, bind: \"BALANCER:7000\", target: any, balance: roundrobin}\n";
    let balancer = Balancer::start(&format!("{nodes}{listeners}")).await;
    balancer.wait_health("n0", "up").await;
    balancer.wait_health("n1", "up").await;
    for _ in 0..2 {
        // Only a login that can be read teaches anything.
        let client = connect_with(config(balancer.at(7000))).await.unwrap();
        value(&client, "select 1").await.unwrap();
    }
    balancer.wait_role("n0", "primary").await;
    balancer.wait_role("n1", "standby").await;
    assert_eq!(balancer.node("n0").await["role_from"], "client");
}
