//! Nodes taken out of use by hand and put back, and weights that change while it runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::balancer::Balancer;
use crate::support::client::{connect, value, which_node};
use crate::support::cluster::{Cluster, config_for, gates, patient, shared};
use crate::support::gate::{Gate, Mode};
use crate::support::postgres::Settings;
use crate::support::wait::wait_until;
use crate::support::web::{Got, send};
use crate::support::wire::{Wire, query};

const TOKEN: &str = "canary-9a1f3b7c20";

/// A ready balancer that takes orders.
async fn start(config: &str) -> Balancer {
    let admin = format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\n");
    let balancer = Balancer::start(&(config.to_owned() + &admin)).await;
    balancer.wait_ready().await;
    balancer
}

/// All reads on the first standby that takes them.
const FIRST: &str = "\
listeners:
  - {name: rw, bind: \"BALANCER:6432\", target: primary}
  - {name: ro, bind: \"BALANCER:6433\", target: standby, balance: first}
";

async fn patch(balancer: &Balancer, name: &str, wanted: &Value) -> Got {
    let headers = [("authorization", format!("Bearer {TOKEN}"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    send(balancer.admin(), "PATCH", &format!("/api/v1/nodes/{name}"), &headers, wanted.to_string()).await
}

/// Gives an order that is carried out; the node after it.
async fn order(balancer: &Balancer, name: &str, wanted: &Value) -> Value {
    let got = patch(balancer, name, wanted).await;
    assert_eq!(got.status, 200, "{}", got.text());
    serde_json::from_str(&got.text()).unwrap()
}

/// Connects, asks one thing and leaves, again and again; where it was, as long as nothing goes wrong.
async fn reader(addr: SocketAddr, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Result<(), String> {
    while !stop.load(Ordering::Relaxed) {
        let client = connect(addr).await.map_err(|error| format!("connect: {error:?}"))?;
        which_node(&client).await.map_err(|error| format!("query: {error:?}"))?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[tokio::test]
async fn a_drain_under_load_fails_no_read_and_ends_sessions_between_transactions() {
    let cluster = shared().await;
    let balancer = start(&(patient(&cluster.config(), "") + FIRST)).await;
    let n1 = cluster.node(1).addr().ip();
    let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        readers.spawn(reader(balancer.ro(), Arc::clone(&stop), Arc::clone(&done)));
    }
    let more = async |n| {
        let before = done.load(Ordering::Relaxed);
        let what = format!("{n} more reads");
        wait_until(&what, async || before + n <= done.load(Ordering::Relaxed)).await;
    };
    let in_transaction = connect(balancer.ro()).await.unwrap();
    value(&in_transaction, "begin; select 1").await.unwrap();
    assert_eq!(which_node(&in_transaction).await.unwrap(), n1);
    let mut idle = Wire::connect(balancer.ro()).await.unwrap();
    idle.login("app", "postgres").await.unwrap().unwrap();
    more(20).await;
    let fresh = connect(balancer.ro()).await.unwrap();

    let node = order(&balancer, "n1", &json!({"admin": "drain"})).await;
    assert_eq!(which_node(&fresh).await.unwrap(), n1, "who has just come in has its first answer");
    drop(fresh);
    assert_eq!(
        (&node["admin"], &node["state"], &node["health"]),
        (&"drain".into(), &"drain".into(), &"up".into())
    );
    assert_eq!(node["notes"], json!([]));
    for _ in 0..5 {
        let new = connect(balancer.ro()).await.unwrap();
        assert_ne!(which_node(&new).await.unwrap(), n1, "as soon as it is answered");
    }
    let error = idle.message().await.unwrap().expect("words").error().expect("an error");
    assert_eq!(error.code, "57P01");
    assert_eq!(error.message, "terminating connection because node \"n1\" is being taken out of use");
    wait_until("only the transaction to be there", async || {
        let sessions = balancer.node("n1").await["sessions"].clone();
        if sessions == 1 { Ok(()) } else { Err(sessions) }
    })
    .await;
    assert_eq!(which_node(&in_transaction).await.unwrap(), n1, "it goes on");
    value(&in_transaction, "commit; select 1").await.unwrap();
    wait_until("nobody to be there", async || balancer.node("n1").await["sessions"] == 0).await;
    more(20).await;
    assert!(1.0 < balancer.metric("pgsplit_sessions_total{node=\"n1\",end=\"drain\"}").await);

    order(&balancer, "n1", &json!({"admin": "ready"})).await;
    wait_until("reads to be back", async || {
        let client = connect(balancer.ro()).await.unwrap();
        which_node(&client).await.unwrap() == n1
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = readers.join_next().await {
        assert_eq!(ended.unwrap(), Ok(()));
    }
    balancer.wait_log("node_admin", |line| line["to"] == "ready").await;
    let orders: Vec<_> =
        balancer.log_lines().into_iter().filter(|line| line["event"] == "node_admin").collect();
    let told: Vec<_> = orders.iter().map(|line| (&line["node"], &line["from"], &line["to"])).collect();
    let [n1, ready, drain] = ["n1", "ready", "drain"].map(Value::from);
    assert_eq!(told, [(&n1, &ready, &drain), (&n1, &drain, &ready)], "{orders:?}");
    let gone_bad =
        balancer.log_lines().into_iter().find(|line| line["event"] == "node_state" && line["to"] == "down");
    assert_eq!(gone_bad, None);
}

#[tokio::test]
async fn in_maint_nobody_looks_and_ready_begins_with_a_look() {
    let cluster = shared().await;
    let gates = gates(cluster).await;
    let balancer = start(&patient(&config_for(gates.iter().map(Gate::addr)), "")).await;
    let node = order(&balancer, "n1", &json!({"admin": "maint"})).await;
    assert_eq!(
        (&node["admin"], &node["state"], &node["health"]),
        (&"maint".into(), &"maint".into(), &"unknown".into())
    );
    let others_get = async |n| {
        let before = gates[2].connections();
        wait_until("looks at another node", async || before + n <= gates[2].connections()).await;
    };
    // One that was under way may still come.
    others_get(3).await;
    let before = gates[1].connections();
    gates[1].set(Mode::Refuse).await;
    others_get(6).await;
    gates[1].set(Mode::Pass).await;
    others_get(3).await;
    assert_eq!(gates[1].connections(), before, "nobody looks there");
    let node = balancer.node("n1").await;
    assert_eq!(
        (&node["state"], &node["health"], &node["role"]),
        (&"maint".into(), &"unknown".into(), &"standby".into())
    );
    assert!((balancer.metric("pgsplit_node_state{node=\"n1\",state=\"maint\"}").await - 1.0).abs() < 0.1);
    for _ in 0..4 {
        let client = connect(balancer.ro()).await.unwrap();
        assert_eq!(which_node(&client).await.unwrap(), cluster.node(2).addr().ip());
    }

    // It comes back to a server that is not there, and then is.
    gates[1].set(Mode::Refuse).await;
    order(&balancer, "n1", &json!({"admin": "ready"})).await;
    balancer.wait_health("n1", "down").await;
    gates[1].set(Mode::Pass).await;
    balancer.wait_health("n1", "up").await;
    assert!(before < gates[1].connections());
}

#[tokio::test]
async fn writes_wait_for_a_drained_primary_and_are_told_why_when_that_takes_long() {
    let cluster = shared().await;
    let balancer = start(&patient(&cluster.config(), ", queue_timeout: 3s")).await;
    let writer = connect(balancer.rw()).await.unwrap();
    let node = order(&balancer, "n0", &json!({"admin": "drain"})).await;
    assert_eq!(node["notes"], json!(["n0 is the only primary: writes wait until a promotion or `ready`"]));
    wait_until("the writer to be sent away", async || value(&writer, "select 1").await.is_err()).await;
    let mut late = Wire::connect(balancer.rw()).await.unwrap();
    let refused = late.login("app", "postgres").await.unwrap().unwrap_err();
    assert_eq!(refused.code, "57P03");
    assert!(
        refused.message.contains("no live primary for listener \"rw\": n0 in drain; n1 standby"),
        "{refused:?}"
    );
    assert_eq!(balancer.node("n0").await["role"], "primary", "it is known as what it is");

    let addr = balancer.rw();
    let mut waits = JoinSet::new();
    waits.spawn(async move { connect(addr).await });
    wait_until("it to wait", async || balancer.status().await["listeners"][0]["waiting"] == 1).await;
    order(&balancer, "n0", &json!({"admin": "ready"})).await;
    let client = waits.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(which_node(&client).await.unwrap(), cluster.node(0).addr().ip());
}

#[tokio::test]
async fn writes_that_wait_for_a_drained_primary_go_to_the_one_that_is_promoted() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = start(&patient(&cluster.config(), ", queue_timeout: 60s")).await;
    order(&balancer, "n0", &json!({"admin": "drain"})).await;
    let addr = balancer.rw();
    let mut waits = JoinSet::new();
    waits.spawn(async move { connect(addr).await });
    wait_until("it to wait", async || balancer.status().await["listeners"][0]["waiting"] == 1).await;
    cluster.fail_over_to(1).await;
    let client = waits.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(which_node(&client).await.unwrap(), cluster.node(1).addr().ip());
    order(&balancer, "n0", &json!({"admin": "ready"})).await;
    wait_until("the old one to be known", async || balancer.node("n0").await["superseded"] == true).await;
}

#[tokio::test]
async fn a_weight_shifts_the_share() {
    let cluster = shared().await;
    let listeners =
        "listeners: [{name: ro, bind: \"BALANCER:6433\", target: standby, balance: roundrobin}]\n";
    let balancer = start(&(patient(&cluster.config(), "") + listeners)).await;
    let share = async || {
        let mut of_n1 = 0;
        for _ in 0..40 {
            let client = connect(balancer.ro()).await.unwrap();
            of_n1 += u32::from(which_node(&client).await.unwrap() == cluster.node(1).addr().ip());
        }
        of_n1
    };
    assert_eq!(share().await, 20);
    let node = order(&balancer, "n1", &json!({"weight": 30})).await;
    assert_eq!((&node["weight"], &node["weight_in_file"]), (&30.into(), &100.into()));
    order(&balancer, "n2", &json!({"weight": 10})).await;
    assert_eq!(share().await, 30);
    order(&balancer, "n1", &json!({"weight": 0})).await;
    assert_eq!(share().await, 0);
    order(&balancer, "n1", &json!({"weight": null, "admin": "ready"})).await;
    order(&balancer, "n2", &json!({"weight": null})).await;
    assert!((balancer.metric("pgsplit_node_weight{node=\"n1\"}").await - 100.0).abs() < 0.1);
    balancer
        .wait_log("node_weight", |line| line["node"] == "n1" && line["to"] == 30 && line["by"] == "api")
        .await;
}

#[tokio::test]
async fn orders_want_the_token_and_a_node_that_is_there() {
    let cluster = shared().await;
    let balancer = start(&cluster.config()).await;
    let got = patch(&balancer, "n9", &json!({"admin": "drain"})).await;
    assert_eq!(got.status, 404);
    let said: Value = serde_json::from_str(&got.text()).unwrap();
    assert_eq!(said["error"], "no such node; there are n0, n1 and n2");
    let got = patch(&balancer, "n1", &json!({"weight": 257})).await;
    assert_eq!(got.status, 400, "{}", got.text());
    let got = patch(&balancer, "n1", &json!({"admin": "d".repeat(5000)})).await;
    assert_eq!(got.status, 413, "{}", got.text());
    let path = "/api/v1/nodes/n1";
    assert_eq!(send(balancer.admin(), "PATCH", path, &[], "{\"admin\": \"drain\"}").await.status, 401);
    assert_eq!(send(balancer.admin(), "POST", path, &[], "{\"admin\": \"drain\"}").await.status, 405);
    assert_eq!(balancer.node("n1").await["admin"], "ready");
}

#[tokio::test]
async fn with_keep_a_drain_leaves_sessions_alone() {
    let cluster = shared().await;
    let balancer = start(&(patient(&cluster.config(), ", on_drain: keep") + FIRST)).await;
    let mut stays = Wire::connect(balancer.ro()).await.unwrap();
    stays.login("app", "postgres").await.unwrap().unwrap();
    order(&balancer, "n1", &json!({"admin": "maint"})).await;
    let other = connect(balancer.ro()).await.unwrap();
    assert_eq!(which_node(&other).await.unwrap(), cluster.node(2).addr().ip());
    stays.send(&query("select 1")).await.unwrap();
    loop {
        match stays.message().await.unwrap().expect("an answer").tag {
            b'Z' => break,
            b'E' => panic!("it was ended"),
            _ => {}
        }
    }
    assert_eq!(balancer.node("n1").await["sessions"], 1);
}
