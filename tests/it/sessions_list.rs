//! Sessions as others see them, and ended by hand in whatever they are doing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_postgres::NoTls;

use crate::support::balancer::Balancer;
use crate::support::client::{background, config, connect, value};
use crate::support::cluster::{config_for, shared};
use crate::support::postgres::{Postgres, Settings};
use crate::support::wait::wait_until;
use crate::support::web::{Got, send};
use crate::support::wire::{Wire, query, ssl_request, startup};

const TOKEN: &str = "canary-5d0c7715a2";
const KILLED: &str = "terminating connection by the administrator's command";

fn admin() -> String {
    format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\n")
}

/// A balancer over the shared servers. Who has said nothing yet is let be for as long as a busy machine may need.
async fn start() -> Balancer {
    let patience = "sessions: {startup_timeout: 2m}\n";
    let balancer = Balancer::start(&(shared().await.config() + patience + &admin())).await;
    balancer.wait_ready().await;
    balancer
}

/// The sessions that a query finds, and how many there are.
async fn list(balancer: &Balancer, query: &str) -> (Vec<Value>, u64) {
    let (status, body) = balancer.get(&format!("/api/v1/sessions?{query}")).await.unwrap();
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    (answer["sessions"].as_array().unwrap().clone(), answer["total"].as_u64().unwrap())
}

/// The only session, once it is in this state.
async fn in_state(balancer: &Balancer, state: &str) -> Value {
    wait_until(&format!("one session, {state}"), async || {
        let (sessions, _) = list(balancer, "").await;
        match sessions.as_slice() {
            [one] if one["state"] == state => Ok(one.clone()),
            _ => Err(sessions),
        }
    })
    .await
}

async fn change(balancer: &Balancer, method: &str, path: &str) -> Got {
    let headers = [("authorization", "Bearer canary-5d0c7715a2")];
    send(balancer.admin(), method, &format!("/api/v1/{path}"), &headers, "").await
}

async fn kill(balancer: &Balancer, session: &Value) {
    let got = change(balancer, "DELETE", &format!("sessions/{}", session["id"].as_str().unwrap())).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert_eq!(serde_json::from_str::<Value>(&got.text()).unwrap()["id"], session["id"]);
}

/// That a client is told that it was ended by hand, and nothing more comes.
async fn assert_told(wire: &mut Wire) {
    loop {
        let message = wire.message().await.unwrap().expect("words before the end");
        if let Some(error) = message.error() {
            assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P01"));
            assert_eq!(error.message, KILLED);
            break;
        }
    }
    assert!(wire.message().await.unwrap().is_none());
}

/// That no session is left, on either side, and how the log says that the last one ended.
async fn assert_gone(balancer: &Balancer, end: &str) {
    wait_until("no session to be left", async || match list(balancer, "").await {
        (_, 0) => Ok(()),
        (sessions, _) => Err(sessions),
    })
    .await;
    let line = balancer.wait_log("session_end", |line| line["end"] == end).await;
    let event = balancer.wait_log("session_killed", |event| event["id"] == line["id"]).await;
    assert_eq!((&event["by"], &event["level"]), (&"api".into(), &"info".into()));
}

#[tokio::test]
async fn a_session_is_listed_with_all_that_is_known_of_it() {
    let balancer = start().await;
    let mut settings = config(balancer.ro());
    settings.application_name("web \"<b>\u{7}'");
    let (client, connection) = settings.connect(NoTls).await.unwrap();
    let connection = background().spawn(connection);
    client.simple_query("select repeat('x', 10000)").await.unwrap();
    // It is counted once it has been sent, and may be here before.
    let session = wait_until("all to be counted", async || {
        let session = in_state(&balancer, "active").await;
        if 10_000 < session["to_client_bytes"].as_u64().unwrap() { Ok(session) } else { Err(session) }
    })
    .await;
    assert_eq!((&session["listener"], &session["tls"]), (&"ro".into(), &"none".into()));
    assert_eq!((&session["user"], &session["database"]), (&"postgres".into(), &"postgres".into()));
    // A server shows what is not plain ASCII as `?` or escaped; what is left of it stays text.
    let application = session["application"].as_str().unwrap();
    assert!(application.starts_with("web \"<b>") && !application.contains('\u{7}'), "{application}");
    assert!(session["client"].as_str().unwrap().starts_with("127."), "{session}");
    assert!(session["role"] == "standby" && session["node"].as_str().unwrap().starts_with('n'), "{session}");
    assert!(0 < session["to_node_bytes"].as_u64().unwrap(), "{session}");
    // It is idle once nobody says anything, and not when somebody does.
    let idle = async || in_state(&balancer, "active").await["idle_seconds"].as_f64().unwrap();
    wait_until("it to be idle", async || {
        let idle = idle().await;
        if 3.0 < idle { Ok(()) } else { Err(idle) }
    })
    .await;
    wait_until("it to be busy", async || {
        client.simple_query("select 1").await.unwrap();
        let idle = idle().await;
        if idle < 2.5 { Ok(()) } else { Err(idle) }
    })
    .await;
    drop(client);
    connection.await.unwrap().unwrap();
    wait_until(
        "it to leave",
        async || if list(&balancer, "").await.1 == 0 { Ok(()) } else { Err("it is there") },
    )
    .await;
}

#[tokio::test]
async fn sessions_are_looked_for_by_what_they_are_and_shown_in_an_order() {
    let balancer = start().await;
    let (one, _two) = (connect(balancer.rw()).await.unwrap(), connect(balancer.ro()).await.unwrap());
    let mut odd = Wire::connect(balancer.rw()).await.unwrap();
    odd.send(&startup(&[("user", "a&b=\"<i>\u{1b}[31m"), ("database", "x y")])).await.unwrap();
    let refused = odd.logged_in().await;
    assert!(refused.is_err() || refused.unwrap().is_err());
    drop(odd);
    let silent = TcpStream::connect(balancer.rw()).await.unwrap();
    wait_until("all to be there", async || {
        let (_, total) = list(&balancer, "").await;
        let (_, active) = list(&balancer, "state=active").await;
        if (total, active) == (3, 2) { Ok(()) } else { Err((total, active)) }
    })
    .await;
    value(&one, "select repeat('x', 100000)").await.unwrap();
    for (query, expected) in [
        ("listener=rw", 2),
        ("listener=ro", 1),
        ("listener=r", 0),
        ("node=n0", 1),
        ("node=n0&listener=ro", 0),
        ("user=postgres", 2),
        ("user=Postgres", 0),
        ("database=postgres&state=active", 2),
        ("state=opening", 1),
        ("client=127.0.0.1", 3),
        ("client=10.0.0.1", 0),
        ("older_than=1h", 0),
        ("idle_for=1h", 0),
        ("older_than=0", 3),
        ("user=", 3),
    ] {
        let (sessions, total) = list(&balancer, query).await;
        assert_eq!((sessions.len(), total), (expected, u64::try_from(expected).unwrap()), "{query}");
    }
    let addr = silent.local_addr().unwrap();
    let (found, _) = list(&balancer, &format!("client={addr}")).await;
    assert_eq!((found.len(), &found[0]["user"]), (1, &Value::Null));
    let ids = async |query| -> Vec<String> {
        list(&balancer, query).await.0.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    let by_age = ids("").await;
    let mut turned = ids("sort=age&order=asc").await;
    turned.reverse();
    assert_eq!(by_age, turned);
    wait_until("the one with most to be the first", async || {
        let (most, total) = list(&balancer, "sort=bytes&limit=1").await;
        assert_eq!((most.len(), total), (1, 3));
        if 100_000 < most[0]["to_client_bytes"].as_u64().unwrap() { Ok(()) } else { Err(most) }
    })
    .await;
}

#[tokio::test]
async fn names_that_mean_harm_are_shown_and_found_and_do_none() {
    let server = Postgres::start_new(Settings::default()).await;
    let evil = "a'\"<script>alert(1)</script>\u{1b}[31m\nx&\u{202e}";
    server.sql(&format!("create role \"{}\" login", evil.replace('"', "\"\""))).await;
    let balancer = Balancer::start(&(config_for([server.addr()]) + &admin())).await;
    balancer.wait_ready().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.login(evil, "postgres").await.unwrap().unwrap();
    let session = in_state(&balancer, "active").await;
    assert_eq!(session["user"], "a'\"<script>alert(1)</script>\\x1b[31m\\x0ax&\\xe2\\x80\\xae");
    let (_, body) = balancer.get("/api/v1/sessions").await.unwrap();
    assert!(!body.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{body}");
    // As it is shown, and as it is.
    for name in [session["user"].as_str().unwrap(), evil] {
        let query = percent_encode(name.as_bytes(), NON_ALPHANUMERIC);
        assert_eq!(list(&balancer, &format!("user={query}")).await.1, 1, "{name}");
    }
    kill(&balancer, &session).await;
    assert_told(&mut wire).await;
    assert_gone(&balancer, "killed").await;
    let (_, events) = balancer.get("/api/v1/events").await.unwrap();
    assert!(
        events.contains("session_killed") && !events.chars().any(|c| c != '\n' && c.is_control()),
        "{events}"
    );
}

#[tokio::test]
async fn an_idle_session_is_told_and_its_server_rid_of_it() {
    let balancer = start().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    let login = wire.login("postgres", "postgres").await.unwrap().unwrap();
    kill(&balancer, &in_state(&balancer, "active").await).await;
    assert_told(&mut wire).await;
    assert_gone(&balancer, "killed").await;
    let gone = format!("select count(*) from pg_stat_activity where pid = {}", login.key.0);
    wait_until("the server's process to end", async || {
        let left = shared().await.primary().value(&gone).await;
        if left == "0" { Ok(()) } else { Err(left) }
    })
    .await;
    let killed = balancer.metric("pgsplit_sessions_total{listener=\"rw\",node=\"n0\",end=\"killed\"}").await;
    assert!(0.5 < killed, "{killed}");
}

#[tokio::test]
async fn one_that_has_said_nothing_yet_is_ended_too() {
    let balancer = start().await;
    let mut silent = TcpStream::connect(balancer.rw()).await.unwrap();
    kill(&balancer, &in_state(&balancer, "opening").await).await;
    let mut said = Vec::new();
    silent.read_to_end(&mut said).await.unwrap();
    assert!(said.starts_with(b"E") && String::from_utf8_lossy(&said).contains(KILLED));
    assert_gone(&balancer, "killed").await;
    let series = "pgsplit_connections_rejected_total{listener=\"rw\",reason=\"killed\"}";
    assert!(0.5 < balancer.metric(series).await);
    assert!(balancer.metric("pgsplit_connections_opening").await < 0.5);
}

#[tokio::test]
async fn one_that_waits_leaves_the_line() {
    let balancer = start().await;
    assert_eq!(change(&balancer, "POST", "listeners/rw/pause").await.status, 200);
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.send(&startup(&[("user", "postgres")])).await.unwrap();
    kill(&balancer, &in_state(&balancer, "waiting").await).await;
    assert_told(&mut wire).await;
    assert_gone(&balancer, "killed").await;
    assert_eq!(balancer.status().await["listeners"][0]["waiting"], 0);
}

#[tokio::test]
async fn one_in_the_middle_of_its_login_is_ended() {
    let server = Postgres::start_new(
        Settings::default().hba(&["host all app all scram-sha-256", "host all all all trust"]),
    )
    .await;
    let balancer = Balancer::start(&(config_for([server.addr()]) + &admin())).await;
    balancer.wait_ready().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.send(&startup(&[("user", "app"), ("database", "postgres")])).await.unwrap();
    assert_eq!(wire.message().await.unwrap().unwrap().tag, b'R');
    kill(&balancer, &in_state(&balancer, "login").await).await;
    assert_told(&mut wire).await;
    assert_gone(&balancer, "killed").await;
}

#[tokio::test]
async fn one_in_the_middle_of_copying_out_is_cut() {
    let balancer = start().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.login("postgres", "postgres").await.unwrap().unwrap();
    // More than all buffers on the way hold.
    let copy = "copy (select repeat('x', 1000) from generate_series(1, 100000)) to stdout";
    wire.send(&query(copy)).await.unwrap();
    assert_eq!(wire.message().await.unwrap().unwrap().tag, b'H');
    kill(&balancer, &in_state(&balancer, "active").await).await;
    // Whole messages to the end: rows, and perhaps the words.
    while let Ok(Some(message)) = wire.message().await {
        assert!(matches!(message.tag, b'd' | b'E'), "{}", message.tag);
    }
    assert_gone(&balancer, "killed").await;
}

#[tokio::test]
async fn one_that_copies_in_or_computes_is_ended_at_once() {
    let balancer = start().await;
    for sql in ["copy pg_temp.t from stdin", "select pg_sleep(600)"] {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.login("postgres", "postgres").await.unwrap().unwrap();
        wire.query("create temp table t (x text)").await.unwrap();
        wire.send(&query(sql)).await.unwrap();
        if sql.starts_with("copy") {
            assert_eq!(wire.message().await.unwrap().unwrap().tag, b'G');
        }
        kill(&balancer, &in_state(&balancer, "active").await).await;
        assert_told(&mut wire).await;
        assert_gone(&balancer, "killed").await;
    }
}

#[tokio::test]
async fn an_encrypted_one_is_just_closed() {
    let server = Postgres::start_new(Settings::default().tls()).await;
    let balancer = Balancer::start(&(config_for([server.addr()]) + &admin())).await;
    balancer.wait_ready().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.send(&ssl_request()).await.unwrap();
    assert_eq!(wire.byte().await.unwrap(), Some(b'S'));
    let session = in_state(&balancer, "login").await;
    assert_eq!((&session["tls"], &session["user"]), (&"passthrough".into(), &Value::Null));
    kill(&balancer, &session).await;
    assert_eq!(wire.rest().await.unwrap(), b"", "no plain word of ours within what is encrypted");
    assert_gone(&balancer, "killed").await;
}

#[tokio::test]
async fn many_are_ended_by_what_they_have_in_common_and_the_others_stay() {
    let balancer = start().await;
    let stays = connect(balancer.ro()).await.unwrap();
    let mut wires = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.login("postgres", "postgres").await.unwrap().unwrap();
        wires.push(wire);
    }
    assert_eq!(list(&balancer, "listener=rw").await.1, 20);
    let got = change(&balancer, "DELETE", "sessions?listener=rw&older_than=1h").await;
    assert_eq!((got.status, got.text()), (200, "{\n  \"killed\": 0\n}\n".into()));
    let got = change(&balancer, "DELETE", "sessions?listener=rw&node=n0").await;
    assert_eq!((got.status, got.text()), (200, "{\n  \"killed\": 20\n}\n".into()));
    for mut wire in wires {
        assert_told(&mut wire).await;
    }
    assert_eq!(value(&stays, "select 1").await.unwrap(), "1");
    wait_until("the others to be left", async || {
        let total = list(&balancer, "").await.1;
        if total == 1 { Ok(()) } else { Err(total) }
    })
    .await;
}

#[tokio::test]
async fn thousands_are_listed_and_ended() {
    const MANY: usize = 5000;
    let balancer = start().await;
    let mut silent = Vec::new();
    for _ in 0..MANY {
        silent.push(TcpStream::connect(balancer.rw()).await.unwrap());
    }
    wait_until("all to be there", async || {
        let (sessions, total) = list(&balancer, "limit=10000&sort=idle").await;
        assert_eq!(sessions.len(), usize::try_from(total).unwrap());
        if sessions.len() == MANY { Ok(()) } else { Err(total) }
    })
    .await;
    assert_eq!(list(&balancer, "").await.0.len(), 100);
    let got = change(&balancer, "DELETE", "sessions?state=opening").await;
    assert_eq!(got.text(), format!("{{\n  \"killed\": {MANY}\n}}\n"));
    wait_until("all to have gone", async || {
        let total = list(&balancer, "").await.1;
        if total == 0 { Ok(()) } else { Err(total) }
    })
    .await;
    drop(silent);
    // So many push nothing else out of the events.
    let event = balancer.wait_log("sessions_killed", |_| true).await;
    assert_eq!(
        (&event["killed"], &event["state"], &event["node"]),
        (&MANY.into(), &"opening".into(), &Value::Null)
    );
    let (_, body) = balancer.get("/api/v1/events?limit=1000").await.unwrap();
    assert!(body.contains("\"started\""), "{body}");
    assert!(tokio::time::timeout(Duration::from_secs(20), connect(balancer.rw())).await.unwrap().is_ok());
}
