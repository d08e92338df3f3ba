//! What the log says, to whom it is safe to show it, and that it costs no session.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::process::Stdio;

use crate::support::balancer::{Balancer, sum};
use crate::support::client::{config, connect, connect_with, value};
use crate::support::cluster::config_for;
use crate::support::postgres::{Postgres, Settings};
use crate::support::wait::wait_until;
use crate::support::wire::Wire;

#[tokio::test]
async fn a_session_leaves_one_line_with_all_that_was_learnt() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&config_for([node.addr()])).await;
    balancer.wait_ready().await;
    let client = connect(balancer.rw()).await.unwrap();
    value(&client, "select 1").await.unwrap();
    drop(client);
    let line = balancer.wait_log("session_end", |_| true).await;
    for key in [
        "ts",
        "level",
        "id",
        "listener",
        "client",
        "node",
        "node_addr",
        "role",
        "user",
        "database",
        "app",
        "tls",
        "queue_s",
        "connect_s",
        "login_s",
        "duration_s",
        "to_node_bytes",
        "to_client_bytes",
        "end",
        "end_code",
        "sqlstate",
        "redispatches",
        "redispatch_reasons",
        "active_listener",
        "active_node",
    ] {
        assert!(line.get(key).is_some(), "{key}: {line}");
    }
    assert_eq!(
        (&line["node"], &line["role"], &line["user"]),
        (&"n0".into(), &"primary".into(), &"postgres".into())
    );
    assert_eq!((&line["end"], &line["end_code"]), (&"client".into(), &"--".into()));
    assert!(0 < line["to_client_bytes"].as_u64().unwrap());
}

#[tokio::test]
async fn hostile_names_stay_on_their_line() {
    let node = Postgres::start_new(Settings::default()).await;
    for format in ["json", "text"] {
        let yaml = config_for([node.addr()]) + &format!("log: {{format: {format}}}\n");
        let balancer = Balancer::start(&yaml).await;
        wait_until("readiness", async || balancer.get("/readyz").await.is_ok_and(|(code, _)| code == 200))
            .await;
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        let _ = wire.login("po\n{\"event\":\"forged\"}\x1b[31m", "d").await;
        drop(wire);
        wait_until("the line", async || balancer.err().contains("session_end")).await;
        let log = balancer.err();
        assert!(!log.contains('\x1b'), "{log}");
        assert!(!log.lines().any(|line| line.starts_with("{\"event\":\"forged\"")), "{log}");
    }
}

#[tokio::test]
async fn sessions_are_logged_as_the_file_says() {
    let node = Postgres::start_new(Settings::default()).await;
    for (sessions, normal, starts) in [("off", 0, 0), ("errors", 0, 0), ("end", 1, 0), ("both", 1, 1)] {
        let yaml = config_for([node.addr()]) + &format!("log: {{sessions: {sessions}}}\n");
        let balancer = Balancer::start(&yaml).await;
        balancer.wait_ready().await;
        drop(connect(balancer.rw()).await.unwrap());
        wait_until("the session to be counted", async || {
            0.5 < balancer.metric("pgsplit_sessions_total{listener=\"rw\"}").await
        })
        .await;
        // A session that fails is in all logs but "off", and shows that the lines before it have been written.
        if sessions != "off" {
            let mut wire = Wire::connect(balancer.rw()).await.unwrap();
            let _ = wire.login("no-such-role", "d").await;
            drop(wire);
            balancer.wait_log("session_end", |line| line["user"] == "no-such-role").await;
        }
        let count = |event: &str| {
            let lines = balancer.log_lines();
            lines.iter().filter(|line| line["event"] == event && line["user"] != "no-such-role").count()
        };
        assert_eq!(count("session_end"), normal, "{sessions}");
        assert_eq!(count("session_start"), if starts == 0 { 0 } else { 2 }, "{sessions}");
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_costs_lines_and_no_session() {
    let node = Postgres::start_new(Settings::default().max_connections(50)).await;
    let quiet = Balancer::start(&config_for([node.addr()])).await;
    quiet.wait_ready().await;
    // A second process of the same binary, with a pipe that is never read.
    let address = crate::support::address::Address::claim();
    let (rw, admin) = (address.port(6432), address.port(8404));
    let path = quiet.config_path().with_file_name("unread.yaml");
    let yaml = format!(
        "nodes: [{{addr: \"{}\", role: primary}}]\ncheck: {{interval: 1h}}\nlisteners: [{{name: rw, bind: \"{rw}\"}}]\nadmin: \
         {{bind: \"{admin}\"}}\nlog: {{sessions: both}}\n",
        node.addr()
    );
    std::fs::write(&path, yaml).unwrap();
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_pgsplit"))
        .args(["run".as_ref(), path.as_os_str()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let get = async |path| crate::support::balancer::get(admin, path).await;
    wait_until("the second process", async || get("/readyz").await.is_ok_and(|(code, _)| code == 200)).await;
    let dropped = async || sum(&get("/metrics").await.unwrap().1, "pgsplit_log_lines_dropped_total");
    let mut sessions = 0;
    while dropped().await < 1.0 {
        for _ in 0..200 {
            // No role of this name: short, and worth two lines.
            let mut wire = Wire::connect(rw).await.unwrap();
            let said = wire.login("nobody", "d").await.unwrap();
            assert!(said.is_err());
        }
        sessions += 200;
        assert!(sessions < 20_000, "lines should have been dropped by now");
    }
    value(&connect_with(config(rw)).await.unwrap(), "select 1").await.unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
}

#[tokio::test]
async fn the_check_password_is_shown_nowhere() {
    const CANARY: &str = "canary-5ec2e7";
    let node = Postgres::start_new(Settings::default().auth("scram-sha-256")).await;
    let yaml = config_for([node.addr()]).replace("password: pgsplit", &format!("password: {CANARY}"));
    let balancer = Balancer::start(&(yaml + "log: {level: trace}\n")).await;
    balancer.wait_health("n0", "up").await;
    let seen = [
        balancer.err(),
        balancer.out(),
        balancer.metrics().await,
        balancer.status().await.to_string(),
        balancer.get("/").await.unwrap().1,
    ];
    assert!(seen.iter().all(|text| !text.contains(CANARY)));
    assert!(seen[0].contains("28P01"), "the password was wrong, and used");
}
