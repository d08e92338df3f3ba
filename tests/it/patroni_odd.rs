//! Checks that ask a Patroni: what is made of answers that a real one seldom gives. The servers are real ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::support::address::Address;
use crate::support::balancer::Balancer;
use crate::support::client::{PASSWORD, connect, value, which_node};
use crate::support::cluster::Cluster;
use crate::support::gate::{Gate, Mode};
use crate::support::postgres::{Postgres, Settings};
use crate::support::raw::RawUpstream;
use crate::support::wait::wait_until;

/// As Patroni 3.0.2 answers for a primary; the timeline is to be filled in.
const PRIMARY: &str = r#"{"state": "running", "postmaster_start_time": "2026-11-30 12:43:57.164665+00:00", "role":
    "master", "server_version": 150018, "xlog": {"location": 67108864}, "timeline": TIMELINE, "dcs_last_seen": 1796042643,
    "database_system_identifier": "7713944373706849749", "patroni": {"version": "3.0.2", "scope": "demo"}}"#;
/// The same for a standby, an hour behind by its own clock.
const STANDBY: &str = r#"{"state": "starting", "postmaster_start_time": "2026-11-30 12:44:02.217169+00:00", "role":
    "replica", "server_version": 150018, "xlog": {"received_location": 67108864, "replayed_location": 67108800,
    "replayed_timestamp": "2026-11-30 11:44:04+00:00", "paused": false}, "timeline": 3, "dcs_last_seen": 1796042643,
    "database_system_identifier": "7713944373706849749", "patroni": {"version": "3.0.2", "scope": "demo"}}"#;

/// Who has no password learns nothing; others are told the role even with a startup packet.
fn closed() -> Settings {
    Settings::default().auth("scram-sha-256")
}

/// An answer as Patroni writes it: in HTTP/1.0, up to the end of the connection.
fn answer(status: &str, document: &str) -> String {
    format!(
        "HTTP/1.0 {status}\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\nDate: Mon, 30 Nov 2026 12:44:04 GMT\r\n\
         Content-Type: application/json\r\n\r\n{document}"
    )
}

async fn patroni(document: &str) -> RawUpstream {
    RawUpstream::answering_once(answer("200 OK", document)).await
}

/// One cluster of one node for each Patroni, all beside the same server, each with a listener on a port of its own.
fn clusters(server: SocketAddr, patronis: &[(&str, SocketAddr)], check: &str) -> String {
    let (mut text, mut listeners) = ("clusters:\n".to_owned(), "listeners:\n".to_owned());
    for (i, (name, patroni)) in patronis.iter().enumerate() {
        let node = format!("{{name: {name}, addr: \"{server}\", patroni: \"{patroni}\"}}");
        let _ = writeln!(
            text,
            "  {name}: {{nodes: [{node}], check: {{type: patroni, interval: 100ms, {check}}}}}"
        );
        let port = 7000 + i;
        let _ = writeln!(
            listeners,
            "  - {{name: {name}, bind: \"BALANCER:{port}\", target: any, cluster: {name}}}"
        );
    }
    text + &listeners
}

/// Says `head`, then `piece` again and again.
async fn endless(head: &'static str, piece: String, pause: Duration) -> RawUpstream {
    let piece = Arc::<str>::from(piece);
    RawUpstream::start(move |mut raw| {
        let piece = Arc::clone(&piece);
        async move {
            let _ = raw.head().await;
            let _ = raw.send(head).await;
            while raw.send(&*piece).await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn who_is_no_patroni_is_named_and_costs_nothing_and_the_server_stays_up() {
    let postgres = Postgres::start_new(closed()).await;
    let server = postgres.addr();
    let nobody = Address::claim();
    let missing =
        RawUpstream::answering_once("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone").await;
    let other = patroni("{\"status\": \"UP\"}").await;
    let shell = RawUpstream::answering_once("SSH-2.0-OpenSSH_9.2\r\n").await;
    let mute = RawUpstream::answering_once("").await;
    let cut = RawUpstream::answering_once("HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{\"state\":").await;
    let large = endless("HTTP/1.1 200 OK\r\n\r\n", "{\"a\": 1, ".repeat(1000), Duration::ZERO).await;
    let long = endless("HTTP/1.1 200 OK\r\n", "X-More: 1\r\n".repeat(1000), Duration::ZERO).await;
    let slow = endless("HTTP/1.1 200 OK\r\n\r\n", " ".to_owned(), Duration::from_millis(50)).await;
    let patronis = [
        ("nobody", nobody.port(8008), "connection refused"),
        (
            "missing",
            missing.addr(),
            "answers 404, but not as Patroni does (expected ident at line 1 column 2)",
        ),
        (
            "other",
            other.addr(),
            "answers 200, but not as Patroni does (missing field `state` at line 1 column 16)",
        ),
        ("shell", shell.addr(), "no answer in HTTP (TLS, or something else, may be there)"),
        ("mute", mute.addr(), "no answer in HTTP (TLS, or something else, may be there)"),
        ("cut", cut.addr(), "broke off in the middle of its answer"),
        ("large", large.addr(), "answers 200 and more than 256 KiB: this is not Patroni"),
        ("long", long.addr(), "no answer in HTTP (TLS, or something else, may be there)"),
        ("slow", slow.addr(), "no answer within 2s"),
    ];
    let config = clusters(server, &patronis.map(|(name, addr, _)| (name, addr)), "timeout: 2s");
    let balancer = Balancer::start(&config).await;
    let memory = balancer.metric("process_resident_memory_bytes").await;
    for (name, addr, says) in patronis {
        let warning = balancer.wait_log("check_warning", |line| line["node"] == name).await;
        let expected = format!("Patroni at {addr}: {says}; its role is the one that was last known");
        assert_eq!(warning["error"], *expected, "{name}");
        let node = balancer.node(name).await;
        assert_eq!((&node["health"], &node["role"]), (&"up".into(), &serde_json::Value::Null), "{node}");
        assert_eq!(
            (&node["check"]["step"], &node["check"]["ok"]),
            (&"patroni".into(), &true.into()),
            "{node}"
        );
    }
    for (name, ..) in patronis {
        let series = format!("pgsplit_node_checks_total{{node=\"{name}\"}}");
        wait_until("some checks more", async || balancer.metric(&series).await > 4.5).await;
    }
    let grown = balancer.metric("process_resident_memory_bytes").await - memory;
    assert!(grown < 16e6, "{grown} bytes more");
    let warnings = balancer.log_lines().iter().filter(|line| line["event"] == "check_warning").count();
    assert_eq!(warnings, patronis.len(), "the same warning is logged once:\n{}", balancer.err());

    // While nobody says what it is, a client that logs in sees it.
    assert_eq!(value(&connect(balancer.at(7000)).await.unwrap(), "select 1").await.unwrap(), "1");
    balancer.wait_role("nobody", "primary").await;
    assert_eq!(balancer.node("nobody").await["role_from"], "client");
}

#[tokio::test]
async fn the_role_does_not_depend_on_the_status_of_the_answer() {
    let cluster = Cluster::start(1, closed()).await;
    let standby = RawUpstream::answering_once(answer("503 Service Unavailable", STANDBY)).await;
    let node = format!("{{name: n0, addr: \"{}\", patroni: \"{}\"}}", cluster.node(1).addr(), standby.addr());
    let balancer = Balancer::start(&format!(
        "nodes: [{node}]\ncheck: {{type: patroni, interval: 100ms, max_lag: 30m}}\n"
    ))
    .await;
    balancer.wait_role("n0", "standby").await;
    let node = balancer.node("n0").await;
    assert_eq!((&node["role_from"], &node["server_version"]), (&"check".into(), &"15.18".into()), "{node}");
    assert_eq!(node["lag_seconds"], 3600.0, "by the clock of the server's host: {node}");
    assert_eq!(
        (&node["patroni"]["state"], &node["patroni"]["timeline"]),
        (&"starting".into(), &3.into()),
        "{node}"
    );
    balancer.wait_log("node_lag", |line| line["node"] == "n0" && line["lagging"] == true).await;
    let asked = standby.text();
    assert!(
        asked.starts_with("GET /health HTTP/1.1\r\n") && asked.contains("user-agent: pgsplit-check"),
        "{asked}"
    );
}

#[tokio::test]
async fn a_server_that_is_gone_is_down_whatever_patroni_says_and_at_once() {
    let postgres = Postgres::start_new(closed()).await;
    let server = Gate::start(postgres.addr()).await;
    let says_running = patroni(&PRIMARY.replace("TIMELINE", "3")).await;
    let says_nothing = RawUpstream::start(|mut raw| async move { drop(raw.rest().await) }).await;
    let patronis = [("running", says_running.addr()), ("silent", says_nothing.addr())];
    server.set(Mode::Refuse).await;
    // Longer than the test waits.
    let balancer = Balancer::start(&clusters(server.addr(), &patronis, "timeout: 1m")).await;
    for (name, says) in
        [("running", "connection refused; Patroni says primary, running"), ("silent", "connection refused")]
    {
        balancer.wait_health(name, "down").await;
        let check = balancer.node(name).await["check"].clone();
        assert_eq!((&check["step"], &check["error"]), (&"connect".into(), &says.into()), "{check}");
    }
    server.set(Mode::Pass).await;
    balancer.wait_health("running", "up").await;
}

#[tokio::test]
async fn with_a_user_the_server_says_what_it_is_while_patroni_does_not() {
    let cluster = Cluster::start(1, closed()).await;
    let nobody = Address::claim();
    let check = format!("timeout: 10s, user: lb_check, password: {PASSWORD}");
    let config = clusters(cluster.node(1).addr(), &[("n1", nobody.port(8008))], &check);
    let balancer = Balancer::start(&config).await;
    balancer.wait_role("n1", "standby").await;
    let node = balancer.node("n1").await;
    assert_eq!((&node["role_from"], &node["health"]), (&"check".into(), &"up".into()), "{node}");
    let says = format!("Patroni at {}: connection refused; its server says what it is", nobody.port(8008));
    assert_eq!(node["check"]["error"], *says, "{node}");
    assert!(node["server_version"].is_string(), "{node}");
}

#[tokio::test]
async fn of_two_primaries_the_one_on_the_later_timeline_gets_the_writes() {
    let (before, after) =
        (Postgres::start_new(closed()).await, Postgres::start_new(Settings::default()).await);
    let [older, newer] =
        [patroni(&PRIMARY.replace("TIMELINE", "3")).await, patroni(&PRIMARY.replace("TIMELINE", "4")).await];
    let nodes = [(before.addr(), &older), (after.addr(), &newer)];
    let nodes = nodes.map(|(addr, patroni)| format!("{{addr: \"{addr}\", patroni: \"{}\"}}", patroni.addr()));
    let config =
        format!("nodes: [{}]\ncheck: {{type: patroni, interval: 100ms, timeout: 10s}}\n", nodes.join(", "));
    let balancer = Balancer::start(&config).await;
    let name = before.addr().ip().to_string();
    wait_until("the older one to be known", async || balancer.node(&name).await["superseded"] == true).await;
    for listener in [balancer.rw(), balancer.ro()] {
        let client = connect(listener).await.unwrap();
        assert_eq!(which_node(&client).await.unwrap(), after.addr().ip());
    }
}

#[tokio::test]
async fn who_takes_a_web_server_for_a_node_is_told_what_to_write() {
    let web = RawUpstream::start(|mut raw| async move {
        let _ = raw.send("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        drop(raw.rest().await);
    })
    .await;
    let config = format!(
        "nodes: [{{name: n0, addr: \"{}\", role: primary}}]\ncheck: {{interval: 100ms}}\n",
        web.addr()
    );
    let balancer = Balancer::start(&config).await;
    balancer.wait_health("n0", "down").await;
    let (addr, ip) = (web.addr(), web.addr().ip());
    let port = addr.port();
    let says = format!(
        "speaks HTTP, not PostgreSQL, on port {port} (got \"HTTP/1.1 400 Bad Request\"): is this the Patroni API? \
         use patroni: {addr} and addr: {ip}:5432"
    );
    assert_eq!(balancer.node("n0").await["check"]["error"], *says);
}
