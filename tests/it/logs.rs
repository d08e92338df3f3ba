//! What the log says, to whom it is safe to show it, and that it costs no session.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::address::Address;
use crate::support::balancer::Balancer;
use crate::support::client::{connect, value};
use crate::support::cluster::config_for;
use crate::support::gate::{Gate, Mode};
use crate::support::home;
use crate::support::postgres::{Postgres, Settings};
use crate::support::process::Signal;
use crate::support::wait::wait_until;
use crate::support::wire::{FakeNode, Wire, startup};

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
    let node = FakeNode::healthy(false).await;
    for format in ["json", "text"] {
        let yaml = config_for([node.addr()]) + &format!("log: {{format: {format}}}\n");
        let balancer = Balancer::start(&yaml).await;
        balancer.wait_ready().await;
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        let forged = "po\r\n{\"event\":\"forged\"}\x1b[31m\u{9b}31m\u{202e}";
        let long = "x".repeat(2000);
        let names = [("user", forged), ("database", &long), ("application_name", forged)];
        wire.send(&startup(&names)).await.unwrap();
        wire.logged_in().await.unwrap().unwrap();
        drop(wire);
        wait_until("the line", async || balancer.err().contains("session_end")).await;
        let log = balancer.err();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("session_end")).collect();
        assert_eq!(lines.len(), 1, "{log}");
        let strange = log.chars().find(|&c| c != '\n' && (c.is_control() || c == '\u{202e}'));
        assert_eq!(strange, None, "{log}");
        assert!(
            lines[0].contains("31m") && !lines[0].contains(&"x".repeat(64)),
            "escaped and cut: {}",
            lines[0]
        );
        if format == "json" {
            let line: Value = serde_json::from_str(lines[0]).unwrap();
            assert!(line["app"].as_str().unwrap().starts_with("po\\"), "{line}");
        }
    }
}

#[tokio::test]
async fn a_text_line_can_be_read_by_people() {
    let node = FakeNode::healthy(false).await;
    let yaml = config_for([node.addr()]) + "log: {format: text}\n";
    let balancer = Balancer::start(&yaml).await;
    balancer.wait_ready().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.login("app", "shop").await.unwrap().unwrap();
    drop(wire);
    wait_until("the line", async || balancer.err().contains("session_end")).await;
    let log = balancer.err();
    let line = log.lines().find(|line| line.contains("session_end")).unwrap();
    for part in
        [" INFO session_end ", " node=n0", " user=app", " database=shop", " end=client", " end_code=--"]
    {
        assert!(line.contains(part), "{part} in {line}");
    }
    // What is not known is left out, and the time comes first.
    assert!(!line.contains("sqlstate=") && line.starts_with("20"), "{line}");
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_err()), "{log}");
}

#[tokio::test]
async fn a_change_of_state_is_logged_with_its_cause() {
    let node = FakeNode::healthy(false).await;
    let gate = Gate::start(node.addr()).await;
    let balancer = Balancer::start(&config_for([gate.addr()])).await;
    balancer.wait_ready().await;
    let first = balancer.wait_log("node_state", |line| line["to"] == "up").await;
    assert_eq!((&first["node"], &first["from"]), (&"n0".into(), &"starting".into()), "{first}");
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.login("app", "shop").await.unwrap().unwrap();
    gate.set(Mode::Refuse).await;
    let down = balancer.wait_log("node_state", |line| line["to"] == "down").await;
    for (key, value) in [
        ("level", "warn"),
        ("node", "n0"),
        ("role", "primary"),
        ("seen_by", "check"),
        ("step", "connect"),
        ("error", "connection refused"),
    ] {
        assert_eq!(down[key], value, "{key}: {down}");
    }
    assert_eq!((&down["sessions"], &down["sqlstate"]), (&1.into(), &Value::Null), "{down}");
    gate.set(Mode::Pass).await;
    let fits = |line: &Value| line["to"] == "up" && line["from"] != "starting";
    let up = balancer.wait_log("node_state", fits).await;
    assert_eq!((&up["node"], &up["level"]), (&"n0".into(), &"info".into()), "{up}");
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

/// Reads are served; writes are refused at once, for want of the `primary`, with two lines for each session.
fn talkative(node: &FakeNode, primary: &Address) -> String {
    format!(
        "nodes: [{{name: n0, addr: \"{}\", role: standby}}, {{name: n1, addr: \"{}\", role: primary}}]\n\
         check: {{type: tcp, interval: 200ms}}\nsessions: {{queue_timeout: 0}}\nlog: {{sessions: both}}\n",
        node.addr(),
        primary.port(5432)
    )
}

async fn wait_serving(balancer: &Balancer) {
    wait_until("a node", async || {
        balancer.get("/readyz?listener=ro").await.is_ok_and(|(code, _)| code == 200)
    })
    .await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_costs_lines_and_no_session() {
    let node = FakeNode::healthy(true).await;
    let nobody = Address::claim();
    let (unread, stderr) = std::io::pipe().unwrap();
    let balancer = Balancer::launch_logging_to(stderr, &talkative(&node, &nobody), &[]);
    wait_serving(&balancer).await;
    let dropped = async || balancer.metric("pgsplit_log_lines_dropped_total").await;
    let mut sessions = 0;
    while dropped().await < 1.0 {
        let rw = balancer.rw();
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            clients.spawn(async move {
                for _ in 0..100 {
                    let mut wire = Wire::connect(rw).await.unwrap();
                    let error = wire.login("app", "shop").await.unwrap().unwrap_err();
                    assert_eq!(error.code, "57P03");
                }
            });
        }
        clients.join_all().await;
        sessions += 800;
        assert!(sessions < 20_000, "lines should have been dropped by now");
    }
    // A pipe, a queue of thousands of lines, and no more: the rest is lost, and nobody waited for it.
    let mut wire = Wire::connect(balancer.ro()).await.unwrap();
    wire.login("app", "shop").await.unwrap().unwrap();
    assert_eq!(wire.query("select 1").await.unwrap().len(), 2);
    drop(wire);
    balancer.signal(Signal::TERM);
    assert!(balancer.wait_exit(Duration::from_secs(15)).await.success());
    drop(unread);
}

#[tokio::test]
async fn a_closed_log_does_not_end_it() {
    let node = FakeNode::healthy(true).await;
    let nobody = Address::claim();
    let (closed, stderr) = std::io::pipe().unwrap();
    let balancer = Balancer::launch_logging_to(stderr, &talkative(&node, &nobody), &[]);
    wait_serving(&balancer).await;
    drop(closed);
    for _ in 0..20 {
        let mut wire = Wire::connect(balancer.ro()).await.unwrap();
        wire.login("app", "shop").await.unwrap().unwrap();
    }
    wait_until("lost lines to be counted", async || {
        0.5 < balancer.metric("pgsplit_log_lines_dropped_total").await
    })
    .await;
    balancer.signal(Signal::TERM);
    assert!(balancer.wait_exit(Duration::from_secs(15)).await.success());
}

/// All that can be seen of a balancer from outside.
async fn all_seen(balancer: &Balancer) -> Vec<String> {
    vec![
        balancer.err(),
        balancer.out(),
        balancer.metrics().await,
        balancer.status().await.to_string(),
        balancer.get("/").await.unwrap().1,
    ]
}

#[tokio::test]
async fn the_check_password_is_shown_nowhere() {
    const CANARY: &str = "canary-5ec2e7";
    let hba = ["host all plain all password", "host all all all scram-sha-256"];
    let node = Postgres::start_new(Settings::default().hba(&hba)).await;
    for role in ["plain", "hashed"] {
        node.sql(&format!("create role {role} login password '{CANARY}'")).await;
    }
    let pgpass = home::directory("pgpass").join("pgpass");
    std::fs::write(&pgpass, format!("*:*:*:hashed:{CANARY}\n")).unwrap();
    std::fs::set_permissions(&pgpass, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = pgpass.to_str().unwrap();
    let trace = "log: {level: trace, sessions: both}\n";
    let plain = config_for([node.addr()]).replace("user: lb_check", "user: plain");
    let in_file = plain.replace("password: pgsplit", &format!("password: \"{CANARY}\""));
    let hashed = config_for([node.addr()]).replace("user: lb_check", "user: hashed");
    let from_variable = hashed.replace("password: pgsplit", "password: \"${SECRET}\"");
    let from_pgpass = hashed.replace("  password: pgsplit\n", "");
    for (name, config, variables) in [
        ("file", in_file, vec![]),
        ("variable", from_variable, vec![("SECRET", CANARY)]),
        ("override", hashed.clone(), vec![("PGSPLIT_CHECK_PASSWORD", CANARY)]),
        ("pgpass", from_pgpass, vec![("PGPASSFILE", file)]),
    ] {
        let balancer = Balancer::start_with(&(config + trace), &variables).await;
        // The password is right, and so has been used.
        balancer.wait_role("n0", "primary").await;
        for text in all_seen(&balancer).await {
            assert!(!text.contains(CANARY), "{name}: {text}");
        }
    }
    // A wrong one is no reason to show it either.
    let wrong = config_for([node.addr()]).replace("password: pgsplit", &format!("password: {CANARY}x"));
    let balancer = Balancer::start(&(wrong + trace)).await;
    balancer
        .wait_log("check_warning", |line| line["error"].as_str().is_some_and(|e| e.contains("28P01")))
        .await;
    for text in all_seen(&balancer).await {
        assert!(!text.contains(CANARY), "{text}");
    }
}
