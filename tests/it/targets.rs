//! Which node a listener's target leads to.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::support::balancer::Balancer;
use crate::support::client::{connect, which_node};
use crate::support::cluster::{Cluster, config_for, gates, patient, quick_checks, shared};
use crate::support::gate::{Gate, Mode};
use crate::support::postgres::{Postgres, Settings};
use crate::support::wait::wait_until;
use crate::support::wire::Wire;

/// One listener for each target; a client that finds no node is told at once.
const SIX: &str = "\
listeners:
  - {name: any, bind: \"BALANCER:7000\", target: any, balance: roundrobin}
  - {name: primary, bind: \"BALANCER:7001\", target: primary}
  - {name: standby, bind: \"BALANCER:7002\", target: standby, balance: roundrobin}
  - {name: prefer, bind: \"BALANCER:7003\", target: prefer-standby, balance: roundrobin}
  - {name: write, bind: \"BALANCER:7004\", target: read-write}
  - {name: read, bind: \"BALANCER:7005\", target_session_attrs: read-only, balance: roundrobin}
";
const ANY: u16 = 7000;
const PRIMARY: u16 = 7001;
const STANDBY: u16 = 7002;
const PREFER: u16 = 7003;
const WRITE: u16 = 7004;
const READ: u16 = 7005;

fn with_six(nodes: &str) -> String {
    patient(nodes, ", queue_timeout: 0") + SIX
}

/// Where six new sessions in a row end up.
async fn landings(cluster: &Cluster, addr: SocketAddr) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for _ in 0..6 {
        let client = connect(addr).await.unwrap();
        let ip = which_node(&client).await.unwrap();
        names.insert(cluster.name_of(ip).unwrap_or_else(|| ip.to_string()));
    }
    names
}

/// SQLSTATE of the refusal.
async fn refusal(addr: SocketAddr) -> String {
    let mut wire = Wire::connect(addr).await.unwrap();
    wire.login("postgres", "postgres").await.unwrap().unwrap_err().code
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// A balancer over gates in front of the shared cluster, with a listener for each target.
async fn six(cluster: &Cluster) -> (Vec<Gate>, Balancer) {
    let gates = gates(cluster).await;
    let balancer = Balancer::start(&with_six(&config_for(gates.iter().map(Gate::addr)))).await;
    balancer.wait_ready().await;
    (gates, balancer)
}

#[tokio::test]
async fn each_target_leads_where_libpq_would_go() {
    let cluster = shared().await;
    let (_gates, balancer) = six(cluster).await;
    for (port, expected) in [
        (ANY, names(["n0", "n1", "n2"])),
        (PRIMARY, names(["n0"])),
        (STANDBY, names(["n1", "n2"])),
        (PREFER, names(["n1", "n2"])),
        (WRITE, names(["n0"])),
        (READ, names(["n1", "n2"])),
    ] {
        assert_eq!(landings(cluster, balancer.at(port)).await, expected, "port {port}");
    }
}

#[tokio::test]
async fn a_primary_that_is_read_only_by_default_takes_reads_and_no_writes() {
    let settings = Settings::default().option("default_transaction_read_only", "on");
    let server = Postgres::start_new(settings).await;
    let balancer = Balancer::start(&with_six(&config_for([server.addr()]))).await;
    balancer.wait_role("n0", "primary").await;
    for port in [ANY, PRIMARY, PREFER, READ] {
        connect(balancer.at(port)).await.unwrap_or_else(|error| panic!("port {port}: {error}"));
    }
    for port in [STANDBY, WRITE] {
        assert_eq!(refusal(balancer.at(port)).await, "57P03", "port {port}");
    }
}

#[tokio::test]
async fn reads_fall_back_to_the_primary_and_come_home() {
    let cluster = shared().await;
    let (gates, balancer) = six(cluster).await;

    gates[1].set(Mode::Refuse).await;
    assert_eq!(landings(cluster, balancer.at(PREFER)).await, names(["n2"]));

    gates[2].set(Mode::Refuse).await;
    assert_eq!(landings(cluster, balancer.at(PREFER)).await, names(["n0"]));
    balancer.wait_health("n1", "down").await;
    balancer.wait_health("n2", "down").await;
    assert!((balancer.metric("pgsplit_reads_on_primary{listener=\"prefer\"}").await - 1.0).abs() < 0.1);
    for port in [STANDBY, READ] {
        assert_eq!(refusal(balancer.at(port)).await, "57P03", "port {port}");
    }
    assert_eq!(landings(cluster, balancer.at(WRITE)).await, names(["n0"]));

    gates[1].set(Mode::Pass).await;
    gates[2].set(Mode::Pass).await;
    balancer.wait_health("n1", "up").await;
    balancer.wait_health("n2", "up").await;
    assert_eq!(landings(cluster, balancer.at(PREFER)).await, names(["n1", "n2"]));
    assert!(balancer.metric("pgsplit_reads_on_primary{listener=\"prefer\"}").await < 0.1);
}

#[tokio::test]
async fn a_primary_that_is_down_takes_no_writes_and_reads_go_on() {
    let cluster = shared().await;
    let (gates, balancer) = six(cluster).await;
    gates[0].set(Mode::Refuse).await;
    for port in [PRIMARY, WRITE] {
        assert_eq!(refusal(balancer.at(port)).await, "57P03", "port {port}");
    }
    for port in [ANY, STANDBY, PREFER, READ] {
        assert_eq!(landings(cluster, balancer.at(port)).await, names(["n1", "n2"]), "port {port}");
    }
}

#[tokio::test]
async fn a_backup_serves_only_when_no_other_standby_does() {
    let cluster = shared().await;
    let gates = gates(cluster).await;
    let [n0, n1, n2] = [0, 1, 2].map(|i: usize| gates[i].addr());
    let nodes = format!(
        "nodes:\n  - {{name: n0, addr: \"{n0}\"}}\n  - {{name: n1, addr: \"{n1}\", backup: true}}\n  \
         - {{name: n2, addr: \"{n2}\"}}\n"
    );
    let balancer = Balancer::start(&with_six(&(nodes + &quick_checks()))).await;
    balancer.wait_ready().await;
    assert_eq!(landings(cluster, balancer.at(PREFER)).await, names(["n2"]));
    assert_eq!(landings(cluster, balancer.at(ANY)).await, names(["n0", "n2"]));

    gates[2].set(Mode::Refuse).await;
    assert_eq!(landings(cluster, balancer.at(PREFER)).await, names(["n1"]));
    assert_eq!(landings(cluster, balancer.at(ANY)).await, names(["n0"]));

    gates[2].set(Mode::Pass).await;
    balancer.wait_health("n2", "up").await;
    assert_eq!(landings(cluster, balancer.at(PREFER)).await, names(["n2"]));
}

#[tokio::test]
async fn a_node_of_weight_0_is_up_and_gets_no_session() {
    let cluster = shared().await;
    let [n0, n1] = [0, 1].map(|i| cluster.node(i).addr());
    let nodes =
        format!("nodes:\n  - {{name: n0, addr: \"{n0}\"}}\n  - {{name: n1, addr: \"{n1}\", weight: 0}}\n");
    let balancer = Balancer::start(&with_six(&(nodes + &quick_checks()))).await;
    balancer.wait_role("n0", "primary").await;
    balancer.wait_role("n1", "standby").await;
    assert_eq!(landings(cluster, balancer.at(ANY)).await, names(["n0"]));
    assert_eq!(landings(cluster, balancer.at(PREFER)).await, names(["n0"]));
    assert_eq!(refusal(balancer.at(STANDBY)).await, "57P03");
    assert_eq!(balancer.node("n1").await["health"], "up");
}

#[tokio::test]
async fn a_logical_replica_written_as_replica_serves_reads_and_never_writes() {
    let cluster = shared().await;
    let gate = Gate::start(cluster.node(0).addr()).await;
    // Not in recovery, like every logical replica.
    let logical = Postgres::start_new(Settings::default()).await;
    let nodes = format!(
        "nodes:\n  - {{name: n0, addr: \"{}\"}}\n  - {{name: n1, addr: \"{}\", role: replica}}\n",
        gate.addr(),
        logical.addr()
    );
    let balancer = Balancer::start(&with_six(&(nodes + &quick_checks()))).await;
    balancer.wait_ready().await;
    let ip = logical.addr().ip().to_string();
    for port in [PRIMARY, WRITE] {
        assert_eq!(landings(cluster, balancer.at(port)).await, names(["n0"]), "port {port}");
    }
    for port in [STANDBY, PREFER, READ] {
        assert_eq!(landings(cluster, balancer.at(port)).await, names([&ip]), "port {port}");
    }
    // What clients are told in their logins changes nothing either.
    let node = balancer.node("n1").await;
    assert_eq!((node["role"].as_str(), node["role_from"].as_str()), (Some("standby"), Some("file")));

    gate.set(Mode::Refuse).await;
    for port in [PRIMARY, WRITE] {
        assert_eq!(refusal(balancer.at(port)).await, "57P03", "port {port}");
    }
    assert!(balancer.log_lines().iter().all(|line| line["event"] != "two_primaries"), "{}", balancer.err());
}

#[tokio::test]
async fn two_clusters_in_one_file_do_not_mix() {
    let cluster = shared().await;
    let other = Postgres::start_new(Settings::default()).await;
    let [n0, n1] = [0, 1].map(|i| cluster.node(i).addr());
    let checks = quick_checks().replace('\n', "\n    ");
    let config = format!(
        "clusters:\n  main:\n    nodes: [\"{n0}\", \"{n1}\"]\n    {checks}\n  logs:\n    \
         nodes: [{{name: logs, addr: \"{}\"}}]\n    {checks}\n\
         listeners:\n  - {{name: rw, bind: \"BALANCER:6432\"}}\n  \
         - {{name: ro, bind: \"BALANCER:6433\", target: prefer-standby}}\n  \
         - {{name: logs, bind: \"BALANCER:6434\", cluster: logs}}\n",
        other.addr()
    );
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let ip = other.addr().ip().to_string();
    assert_eq!(landings(cluster, balancer.rw()).await, names(["n0"]));
    assert_eq!(landings(cluster, balancer.ro()).await, names(["n1"]));
    assert_eq!(landings(cluster, balancer.at(6434)).await, names([&ip]));
    for name in ["main", "logs"] {
        let series = format!("pgsplit_primaries{{cluster=\"{name}\"}}");
        wait_until("one primary in each cluster", async || {
            (balancer.metric(&series).await - 1.0).abs() < 0.1
        })
        .await;
    }
    let status = balancer.status().await;
    assert_eq!((&status["primaries"]["main"], &status["primaries"]["logs"]), (&1.into(), &1.into()));
}

#[tokio::test]
async fn what_clients_are_told_in_their_logins_is_enough_to_know_the_roles() {
    let cluster = shared().await;
    // The checks only connect, and no role is written: nothing but clients can tell.
    let nodes = cluster.config().replace("  user: lb_check\n  password: pgsplit\n", "  type: tcp\n");
    let any = "listeners: [{name: any, bind: \"BALANCER:7000\", target: any, balance: roundrobin}]\n";
    let balancer = Balancer::start(&(patient(&nodes, "") + any)).await;
    for name in ["n0", "n1", "n2"] {
        balancer.wait_health(name, "up").await;
        assert!(balancer.node(name).await["role"].is_null());
    }
    landings(cluster, balancer.at(ANY)).await;
    for (name, role) in [("n0", "primary"), ("n1", "standby"), ("n2", "standby")] {
        balancer.wait_role(name, role).await;
        assert_eq!(balancer.node(name).await["role_from"], "client");
    }
}
