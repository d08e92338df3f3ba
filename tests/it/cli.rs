//! The command line, as a person meets it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::process::{Command, Output};
use std::time::Duration;

use crate::support::address::Address;
use crate::support::balancer::Balancer;
use crate::support::client::{connect, value};
use crate::support::cluster::{Cluster, config_for};
use crate::support::postgres::{Postgres, Settings};
use crate::support::process::{Signal, signal};
use crate::support::wait::wait_until;
use crate::tools::output;

const BINARY: &str = env!("CARGO_BIN_EXE_pgsplit");

async fn pgsplit(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(BINARY);
    command.args(args).env_clear().envs(env.iter().copied()).current_dir(std::env::temp_dir());
    let Output { status, stdout, stderr } = output(command).await;
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

fn file(name: &str, text: &str) -> String {
    let dir = crate::support::home::directory("cli");
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn check_shows_every_fault_with_its_place_and_no_secret() {
    let good = file("good.yaml", "nodes: [{addr: db1, role: primary}]\n");
    let (code, said) = pgsplit(&["check", &good], &[]).await;
    assert_eq!((code, said.contains("ok (1 node and 2 listeners)")), (Some(0), true), "{said}");
    let bad = file(
        "bad.yaml",
        "nodes:\n  - {addr: db1, rol: primary}\ncheck: {user: u, password: canary-1, intervall: 2s, timeout: 3}\n",
    );
    let (code, said) = pgsplit(&["check", &bad], &[]).await;
    assert_eq!(code, Some(78));
    for part in [
        "bad.yaml:2:",
        "did you mean `role`?",
        "bad.yaml:3:",
        "did you mean `interval`?",
        "did you mean 3s or 3ms?",
    ] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    assert!(!said.contains("canary"), "{said}");
    let (code, said) = pgsplit(&["check", "/nonexistent/file.yaml"], &[]).await;
    assert_eq!((code, said.contains("cannot read /nonexistent/file.yaml")), (Some(78), true), "{said}");
}

#[tokio::test]
async fn check_connect_looks_at_every_node() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let path = file("connect.yaml", &cluster.config());
    let (code, said) = pgsplit(&["check", &path, "--connect"], &[]).await;
    assert_eq!((code, said.contains("up, standby, PostgreSQL ")), (Some(0), true), "{said}");
    cluster.standby(0).kill9().await;
    let (code, said) = pgsplit(&["check", &path, "--connect"], &[]).await;
    assert_eq!((code, said.contains("down: connect: connection refused")), (Some(1), true), "{said}");
}

#[tokio::test]
async fn probe_shows_each_step_and_ends_like_pg_isready() {
    let node = Postgres::start_new(Settings::default().tls().auth("scram-sha-256")).await;
    let addr = node.addr().to_string();
    let (code, said) = pgsplit(&["probe", &addr, "--user", "lb_check"], &[("PGPASSWORD", "pgsplit")]).await;
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "resolve",
        "connect",
        "tls",
        "offered",
        "scram-sha-256",
        "primary, PostgreSQL ",
        "accepting connections, primary",
    ] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    let (code, said) = pgsplit(&["probe", &addr], &[]).await;
    assert_eq!((code, said.contains("accepting connections")), (Some(0), true), "{said}");
    node.kill9().await;
    let (code, said) = pgsplit(&["probe", &addr], &[]).await;
    assert_eq!((code, said.contains("no answer: connect: connection refused")), (Some(2), true), "{said}");
    let (code, _) = pgsplit(&["probe", "db:port"], &[]).await;
    assert_eq!(code, Some(3));
    let refusing = crate::support::wire::FakeNode::start(|mut wire| async move {
        let _ = wire.first_packet().await;
        let _ = wire
            .send(&crate::support::wire::error("FATAL", "57P03", "the database system is starting up"))
            .await;
    })
    .await;
    let (code, said) = pgsplit(&["probe", &refusing.addr().to_string()], &[]).await;
    assert_eq!(
        (code, said.contains("rejecting connections: startup: 57P03 the database system")),
        (Some(1), true),
        "{said}"
    );
}

#[tokio::test]
async fn a_url_or_nodes_are_a_whole_configuration() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let (a, b) = (cluster.primary().addr(), cluster.standby(0).addr());
    let url = format!("postgres://lb_check:pgsplit@{a},{b}/postgres");
    let (node_a, node_b) = (a.to_string(), b.to_string());
    for args in [vec!["run", "--from-url", &url], vec!["run", "--node", &node_a, "--node", &node_b]] {
        let address = Address::claim();
        let ip = address.ip().to_string();
        let mut process = Command::new(BINARY)
            .args(&args)
            .env_clear()
            .envs([("PGSPLIT_BIND", ip.as_str()), ("PGUSER", "lb_check"), ("PGPASSWORD", "pgsplit")])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let at = |port| std::net::SocketAddr::new(address.ip().into(), port);
        wait_until("both listeners to serve", async || {
            let writer = connect(at(6432)).await.ok()?;
            let reader = connect(at(6433)).await.ok()?;
            let writes = value(&writer, "select pg_is_in_recovery()").await.ok()?;
            let reads = value(&reader, "select pg_is_in_recovery()").await.ok()?;
            (writes == "f" && reads == "t").then_some(())
        })
        .await;
        signal(process.id(), Signal::KILL);
        process.wait().unwrap();
    }
}

#[tokio::test]
async fn sigterm_drains_and_a_second_one_cuts() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&(config_for([node.addr()]) + "runtime: {drain_timeout: 1h}\n")).await;
    balancer.wait_ready().await;
    let client = connect(balancer.rw()).await.unwrap();
    balancer.signal(Signal::HUP);
    balancer.wait_log("reload_not_supported", |_| true).await;
    balancer.signal(Signal::TERM);
    balancer.wait_log("draining", |line| line["sessions"] == 1).await;
    assert!(connect(balancer.rw()).await.is_err(), "no new session");
    assert_eq!(value(&client, "select 9").await.unwrap(), "9", "the old one goes on");
    assert_eq!(balancer.get("/readyz").await.unwrap(), (503, "draining\n".into()));
    balancer.signal(Signal::TERM);
    let status = balancer.wait_exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
    let line = balancer.wait_log("session_end", |_| true).await;
    assert_eq!((&line["end"], &line["end_code"]), (&"drain".into(), &"KD".into()));
    assert!(0 < line["to_client_bytes"].as_u64().unwrap());
}

#[tokio::test]
async fn it_ends_by_itself_when_the_last_session_has_gone() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&config_for([node.addr()])).await;
    balancer.wait_ready().await;
    let client = connect(balancer.rw()).await.unwrap();
    balancer.signal(Signal::TERM);
    balancer.wait_log("draining", |_| true).await;
    drop(client);
    assert_eq!(balancer.wait_exit(Duration::from_secs(10)).await.code(), Some(0));
}

#[tokio::test]
async fn an_address_in_use_is_said_with_a_hint() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&config_for([node.addr()])).await;
    balancer.wait_ready().await;
    let path = balancer.config_path().display().to_string();
    let (code, said) = pgsplit(&["run", &path], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("cannot bind") && said.contains("listener \"rw\"") && said.contains("ss -ltnp"),
        "{said}"
    );
}

#[tokio::test]
async fn every_verb_has_an_example_and_completions_work() {
    for verb in ["run", "check", "probe", "completions"] {
        let (code, said) = pgsplit(&[verb, "--help"], &[]).await;
        assert_eq!((code, said.contains("Example")), (Some(0), true), "{said}");
    }
    let (code, script) = pgsplit(&["completions", "bash"], &[]).await;
    assert_eq!((code, script.contains("_pgsplit()")), (Some(0), true));
    let (code, said) = pgsplit(&["--version"], &[]).await;
    assert_eq!((code, said.starts_with("pgsplit ")), (Some(0), true), "{said}");
    assert_eq!(pgsplit(&["walk"], &[]).await.0, Some(2));
}

#[tokio::test]
async fn the_file_at_the_top_runs_as_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config.yaml");
    let (code, said) = pgsplit(&["check", path], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    let address = Address::claim();
    let ip = address.ip().to_string();
    let mut process = Command::new(BINARY)
        .args(["run", path])
        .env_clear()
        .env("PGSPLIT_BIND", &ip)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let admin = std::net::SocketAddr::new(address.ip().into(), 8404);
    wait_until("the process to answer", async || {
        crate::support::balancer::get(admin, "/healthz").await.is_ok_and(|(code, _)| code == 200)
    })
    .await;
    signal(process.id(), Signal::TERM);
    assert_eq!(process.wait().unwrap().code(), Some(0));
}
