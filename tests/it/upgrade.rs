//! An upgrade: a new process takes the place of the one that runs, with its sockets and its sessions.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_postgres::{Client, NoTls};

use crate::api::{check, local};
use crate::counters::both_sides;
use crate::support::balancer::{Balancer, binary};
use crate::support::client::{background, connect, rows, value};
use crate::support::cluster::{Cluster, shared};
use crate::support::home;
use crate::support::postgres::{Postgres, Settings};
use crate::support::process::{Signal, signal};
use crate::support::raw::Raw;
use crate::support::upstream::Upstream;
use crate::support::wait::{wait_at_most, wait_until};
use crate::support::web::{send, try_get};
use crate::support::wire::Wire;
use crate::tools::{conninfo, output, program, whole};

const TOKEN: &str = "canary-38c1f0a9e5";
pub(crate) const PID: &str = "select pg_backend_pid()";

pub(crate) fn with_token(config: &str) -> String {
    format!("{config}admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\n")
}

/// A balancer over the shared servers.
pub(crate) async fn start(more: &str) -> Balancer {
    let balancer = Balancer::start(&with_token(&(shared().await.config() + more))).await;
    balancer.wait_ready().await;
    balancer
}

pub(crate) async fn post(balancer: &Balancer, path: &str) -> (u16, Value) {
    let token = format!("Bearer {TOKEN}");
    let got = send(balancer.admin(), "POST", path, &[("authorization", &token)], "").await;
    (got.status, serde_json::from_str(&got.text()).unwrap_or_else(|_| panic!("{}", got.text())))
}

/// Upgrades, and waits until the old process has gone; what was answered.
pub(crate) async fn upgrade(balancer: &Balancer) -> Value {
    let old = balancer.pid();
    let (status, done) = post(balancer, "/api/v1/upgrade").await;
    assert_eq!(status, 200, "{done}");
    let new = u32::try_from(done["pid"].as_u64().unwrap()).unwrap();
    assert_ne!(new, old);
    balancer.succeeded_by(new);
    wait_gone(old).await;
    done
}

pub(crate) async fn wait_gone(pid: u32) {
    wait_at_most(Duration::from_secs(30), "the old process to leave", async || is_gone(pid)).await;
}

/// Whether a process has ended, be it a zombie still.
pub(crate) fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// Logs in, asks one thing and leaves.
pub(crate) async fn comes(addr: SocketAddr) -> Result<String, String> {
    let client = connect(addr).await.map_err(|error| format!("{error:?}"))?;
    value(&client, "select 1").await.map_err(|error| format!("{error:?}"))
}

async fn wait_active(balancer: &Balancer, n: i64) {
    wait_until(&format!("{n} sessions"), async || {
        let active = whole(balancer.metric("pgsplit_sessions_active").await);
        if active == n { Ok(()) } else { Err(active) }
    })
    .await;
}

#[tokio::test]
async fn sessions_of_all_kinds_go_on_through_two_upgrades() {
    let balancer = start("").await;
    let idle = connect(balancer.rw()).await.unwrap();
    let idle_pid = value(&idle, PID).await.unwrap();
    let prepared = idle.prepare("select $1::int + 1").await.unwrap();
    rows(&idle, "create temp table mine as select 7 as n").await.unwrap();
    let busy = connect(balancer.rw()).await.unwrap();
    rows(&busy, "begin").await.unwrap();
    let txid = value(&busy, "select txid_current()").await.unwrap();
    let reads = connect(balancer.ro()).await.unwrap();
    let reads_pid = value(&reads, PID).await.unwrap();
    let mut listens = Wire::connect(balancer.rw()).await.unwrap();
    listens.login("postgres", "postgres").await.unwrap().unwrap();
    listens.query("listen upgraded").await.unwrap();

    let done = upgrade(&balancer).await;
    assert_eq!((&done["moved"], &done["stayed"]), (&json!(4), &json!(0)), "{done}");
    assert_eq!(value(&busy, "select txid_current()").await.unwrap(), txid);

    let old = balancer.pid();
    let mut command = Command::new(binary());
    command.args(["upgrade", "-c"]).arg(balancer.config_path());
    let ended = output(command).await;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success() && said.ends_with("  4 sessions went over\n"), "{ended:?}");
    let pid = said.split(['=', ' ', ',']).skip_while(|word| *word != "process").nth(1).unwrap();
    balancer.succeeded_by(pid.parse().unwrap());
    balancer.wait_log("upgrade_done", |line| line["side"] == "new" && line["by"] == "cli").await;
    wait_gone(old).await;

    assert_eq!(value(&idle, PID).await.unwrap(), idle_pid);
    assert_eq!(value(&idle, "select n from mine").await.unwrap(), "7");
    assert_eq!(idle.query_one(&prepared, &[&41_i32]).await.unwrap().get::<_, i32>(0), 42);
    rows(&busy, "commit").await.unwrap();
    assert_eq!(value(&reads, PID).await.unwrap(), reads_pid);
    rows(&idle, "notify upgraded, 'still here'").await.unwrap();
    let news = listens.message().await.unwrap().unwrap();
    assert!(news.tag == b'A' && news.body.windows(10).any(|part| part == b"still here"), "{news:?}");
    assert_eq!(comes(balancer.rw()).await.as_deref(), Ok("1"));
}

/// Sends rows into a table of its own until told to stop; whether all of them are there.
async fn copy_in(client: &Client, stop: &AtomicBool) {
    rows(client, "create temp table arrived (n bigint)").await.unwrap();
    let mut sink = Box::pin(client.copy_in::<_, bytes::Bytes>("copy arrived from stdin").await.unwrap());
    // Always some more, and not all that the machine can do: others test here, too.
    let (mut n, mut pace) = (0_u64, interval(Duration::from_millis(2)));
    while !stop.load(Ordering::Relaxed) {
        let block: Vec<String> = (1..=2_000).map(|row| format!("{}\n", n + row)).collect();
        n += 2_000;
        sink.send(block.concat().into()).await.unwrap();
        pace.tick().await;
    }
    sink.as_mut().finish().await.unwrap();
    let found = value(client, "select count(*) || ' ' || coalesce(sum(n), 0) from arrived").await.unwrap();
    assert_eq!(found, format!("{n} {}", n * (n + 1) / 2));
}

/// Reads more rows than fit into all buffers, of which it takes the first and then waits.
async fn copy_out(client: Client, rows: u64, begun: oneshot::Sender<()>, go_on: oneshot::Receiver<()>) {
    let sql = format!("copy (select n, repeat('x', 100) from generate_series(1, {rows}) n) to stdout");
    let mut stream = Box::pin(client.copy_out(&sql).await.unwrap());
    let (mut last, mut waits) = (0, Some((begun, go_on)));
    while let Some(row) = stream.next().await {
        let row = row.unwrap();
        let (n, rest) = std::str::from_utf8(&row).unwrap().split_once('\t').unwrap();
        assert!(rest.len() == 101 && n.parse() == Ok(last + 1), "{n} after {last}");
        last += 1;
        if let Some((begun, go_on)) = waits.take() {
            begun.send(()).unwrap();
            go_on.await.unwrap();
        }
    }
    assert_eq!(last, rows);
}

#[tokio::test]
async fn a_copy_in_either_direction_loses_nothing() {
    let balancer = start("").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (into, from) = (connect(balancer.rw()).await.unwrap(), connect(balancer.rw()).await.unwrap());
    let ((begun, begins), (go_on, goes_on)) = (oneshot::channel(), oneshot::channel());
    let out = background().spawn(copy_out(from, 200_000, begun, goes_on));
    let sent = background().spawn({
        let stop = Arc::clone(&stop);
        async move { copy_in(&into, &stop).await }
    });
    begins.await.unwrap();
    for _ in 0..2 {
        let done = upgrade(&balancer).await;
        assert_eq!(done["moved"], 2, "{done}");
    }
    go_on.send(()).unwrap();
    // A byte that is lost would be waited for in vain.
    timeout(Duration::from_secs(60), out).await.unwrap().unwrap();
    stop.store(true, Ordering::Relaxed);
    sent.await.unwrap();
}

#[tokio::test]
async fn what_is_encrypted_goes_on() {
    let server = Postgres::start_new(Settings::default().tls()).await;
    let nodes =
        format!("nodes: [{{name: n0, addr: \"{}\", role: primary}}]\ncheck: {{type: tcp}}\n", server.addr());
    let balancer = Balancer::start(&with_token(&nodes)).await;
    balancer.wait_ready().await;
    let mut psql = program("psql");
    psql.args(["-XAtqw", "-d", &conninfo(balancer.rw(), "sslmode=require")]);
    let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut ask, mut lines) =
        (psql.stdin.take().unwrap(), BufReader::new(psql.stdout.take().unwrap()).lines());
    let mut answer = |sql: &str| {
        writeln!(ask, "{sql};").unwrap();
        lines.next().unwrap().unwrap()
    };
    let who = "select pid, ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let before = answer(who);
    assert!(before.ends_with("|t"), "{before}");
    let done = upgrade(&balancer).await;
    assert_eq!(done["moved"], 1, "{done}");
    assert_eq!(answer(who), before);
    drop(ask);
    assert!(psql.wait().unwrap().success());
    let line = balancer.wait_log("session_end", |line| line["tls"] == "passthrough").await;
    assert_eq!((&line["end"], &line["node"]), (&json!("client"), &json!("n0")), "{line}");
}

#[tokio::test]
async fn a_load_does_not_notice_three_upgrades_in_a_row() {
    let cluster = Cluster::start(0, Settings::default()).await;
    let balancer = Balancer::start(&with_token(&cluster.config())).await;
    balancer.wait_ready().await;
    let mut fill = program("pgbench");
    fill.args(["-i", "-q", "-s", "1", &conninfo(cluster.primary().addr(), "")]);
    assert!(output(fill).await.status.success());
    let mut load = program("pgbench");
    load.args(["-S", "-c", "8", "-j", "1", "-T", "600", "-n", "--progress=1"]);
    load.arg(conninfo(balancer.rw(), "")).stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut load = load.spawn().unwrap();
    wait_active(&balancer, 8).await;
    for _ in 0..3 {
        let done = upgrade(&balancer).await;
        assert_eq!((&done["moved"], &done["stayed"]), (&json!(8), &json!(0)), "{done}");
        let before = whole(balancer.metric("pgsplit_bytes_total").await);
        wait_until("the load to go on", async || {
            before + 100_000 < whole(balancer.metric("pgsplit_bytes_total").await)
        })
        .await;
        assert!(load.try_wait().unwrap().is_none(), "the load has ended");
    }
    // It ends as if its time were over, and says what has failed.
    signal(load.id(), Signal::ALARM);
    let ended = load.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("number of failed transactions: 0 ("), "{said}");
    assert!(!said.contains("error") && !said.contains("aborted"), "{said}");
    // pgbench has looked at its tables first, by one session more.
    let ends = wait_until("nine lines", async || {
        let lines = balancer.log_lines();
        let ends: Vec<_> = lines.into_iter().filter(|line| line["event"] == "session_end").collect();
        if ends.len() == 9 { Ok(ends) } else { Err(ends.len()) }
    })
    .await;
    assert!(ends.iter().all(|line| line["end"] == "client"), "{ends:?}");
}

#[tokio::test]
async fn queries_can_be_cancelled_after_the_upgrade() {
    let balancer = start("").await;
    let client = connect(balancer.rw()).await.unwrap();
    let token = client.cancel_token();
    let sleeping = background().spawn(async move {
        let slept = rows(&client, "select pg_sleep(100) /* to be cancelled after an upgrade */").await;
        (slept, client)
    });
    let primary = shared().await.primary();
    let sql = "select count(*) from pg_stat_activity where query like '%cancelled after an upgrade */' \
               and state = 'active' and pid <> pg_backend_pid()";
    wait_until("it to sleep", async || primary.value(sql).await == "1").await;
    upgrade(&balancer).await;
    token.cancel_query(NoTls).await.unwrap();
    let (slept, client) = sleeping.await.unwrap();
    assert_eq!(slept.unwrap_err().code().unwrap().code(), "57014");
    assert_eq!(value(&client, "select 1").await.unwrap(), "1");
    wait_until("the request to be counted", async || {
        let routed = balancer.metric("pgsplit_cancel_requests_total{result=\"routed\"}").await;
        if whole(routed) == 1 { Ok(()) } else { Err(routed) }
    })
    .await;
}

#[tokio::test]
async fn who_comes_in_any_moment_is_served() {
    let upstream = Upstream::named("web").await;
    let front =
        format!("http: {{bind: \"BALANCER:8080\", upstreams: [\"{}\"], check: off}}\n", upstream.addr());
    let config = shared().await.config() + &front;
    let balancer = Balancer::start(&with_token(&config)).await;
    balancer.wait_ready().await;
    let (stop, rw, http) = (Arc::new(AtomicBool::new(false)), balancer.rw(), balancer.front());
    let mut clients = JoinSet::new();
    for _ in 0..3 {
        let stop = Arc::clone(&stop);
        let comes_again = async move {
            let mut served = 0;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(comes(rw).await, Ok("1".to_owned()));
                let got = try_get(http, "/").await;
                assert_eq!(got.as_ref().map(|got| got.status), Ok(200), "{got:?}");
                served += 1;
            }
            served
        };
        clients.spawn_on(comes_again, background().handle());
    }
    for _ in 0..2 {
        upgrade(&balancer).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(served) = clients.join_next().await {
        assert!(3 < served.unwrap());
    }
}

#[tokio::test]
async fn a_session_has_one_number_one_line_and_all_its_bytes() {
    let balancer = start("log: {sessions: both}\n").await;
    let client = connect(balancer.rw()).await.unwrap();
    value(&client, "select repeat('x', 100000)").await.unwrap();
    let before = balancer.get("/api/v1/sessions").await.unwrap().1;
    let before: Value = serde_json::from_str(&before).unwrap();
    let done = upgrade(&balancer).await;
    assert_eq!(done["moved"], 1);
    let document: Value =
        serde_json::from_str(&balancer.get("/api/v1/openapi.json").await.unwrap().1).unwrap();
    check(&done, &document["components"]["schemas"]["Upgraded"], &document, "upgrade");
    for side in ["old", "new"] {
        let line = balancer.wait_log("upgrade_done", |line| line["side"] == side).await;
        assert_eq!((&line["sessions"], &line["stayed"]), (&json!(1), &json!(0)), "{line}");
    }
    let after: Value = serde_json::from_str(&balancer.get("/api/v1/sessions").await.unwrap().1).unwrap();
    for key in
        ["id", "listener", "client", "user", "database", "application", "node", "state", "to_client_bytes"]
    {
        assert_eq!(after["sessions"][0][key], before["sessions"][0][key], "{key}: {after}");
    }
    assert_eq!(whole(balancer.metric("pgsplit_connections_accepted_total{listener=\"rw\"}").await), 1);
    value(&client, "select repeat('x', 100000)").await.unwrap();
    let status = balancer.status().await;
    assert_eq!(status["listeners"][0]["sessions"], 1, "{status}");
    assert_eq!((&status["upgrade"]["last"], &status["upgrade"]["last_by"]), (&json!("done"), &json!("api")));
    drop(client);
    let end = balancer.wait_log("session_end", |line| line["app"] == "it" && line["listener"] == "rw").await;
    assert!(200_000 < end["to_client_bytes"].as_u64().unwrap(), "{end}");
    assert_eq!((&end["end"], &end["user"]), (&json!("client"), &json!("postgres")), "{end}");
    assert_eq!(end["id"], after["sessions"][0]["id"]);
    wait_active(&balancer, 0).await;
    assert_eq!(whole(balancer.metric("pgsplit_sessions_total{end=\"client\"}").await), 1);
    assert_eq!(whole(balancer.metric("pgsplit_upgrades_total{result=\"done\"}").await), 1);
    let (accepted, counted) = both_sides(&balancer.metrics().await);
    assert_eq!((accepted, counted), (1, 1));
    // Numbers go on above those of the old process.
    drop(connect(balancer.rw()).await.unwrap());
    let number = |line: &Value| u64::from_str_radix(&line["id"].as_str().unwrap()[2..], 16).unwrap();
    let other = balancer.wait_log("session_end", |line| line["id"] != end["id"]).await;
    assert!(number(&end) < number(&other), "{other}");
    let lines = balancer.log_lines();
    let count = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!((count("session_start"), count("session_end")), (2, 2), "{lines:?}");
    assert!(!balancer.err().contains(TOKEN));
}

#[tokio::test]
async fn what_was_set_by_hand_stays_so_and_who_waits_with_the_old_process_follows() {
    let socket = home::directory("socket").join("admin.sock");
    let config = shared().await.config() + "sessions: {queue_timeout: 1m}\n";
    let admin =
        format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}, socket: \"{}\"}}\n", socket.display());
    let balancer = Balancer::start(&(config + &admin)).await;
    balancer.wait_ready().await;
    assert_eq!(post(&balancer, "/api/v1/listeners/rw/pause").await.0, 200);
    for (name, wanted) in [("n1", "{\"admin\": \"maint\"}"), ("n2", "{\"weight\": 7}")] {
        let token = format!("Bearer {TOKEN}");
        let path = format!("/api/v1/nodes/{name}");
        let got = send(balancer.admin(), "PATCH", &path, &[("authorization", &token)], wanted).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    let waits = background().spawn(comes(balancer.rw()));
    wait_until("it to wait", async || balancer.status().await["listeners"][0]["waiting"] == 1).await;

    let old = balancer.pid();
    let mut follows = Raw::connect(balancer.admin()).await.unwrap();
    follows.send("GET /api/v1/events?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    follows.until(b"retry").await.unwrap();
    balancer.signal(Signal::USR2);
    let line = balancer.wait_log("upgrade_done", |line| line["side"] == "old").await;
    assert_eq!((&line["by"], &line["open"]), (&json!("signal"), &json!(1)), "{line}");
    balancer.succeeded_by(u32::try_from(line["pid"].as_u64().unwrap()).unwrap());
    balancer.wait_log("upgrade_done", |line| line["side"] == "new").await;
    let status = balancer.status().await;
    assert_eq!(
        (&status["listeners"][0]["paused"], &status["listeners"][1]["paused"]),
        (&json!(true), &json!(false))
    );
    assert_eq!((&status["nodes"][1]["admin"], &status["nodes"][2]["weight"]), (&json!("maint"), &json!(7)));
    follows.closed().await;
    assert!(!is_gone(old) && !waits.is_finished(), "it waits where it came");

    // The socket in the file system leads to the new one.
    let (code, resumed) = local(&socket, "POST", "/api/v1/listeners/rw/resume").await;
    assert_eq!((code, &resumed["paused"]), (200, &json!(false)), "{resumed}");
    assert_eq!(waits.await.unwrap().as_deref(), Ok("1"));
    wait_gone(old).await;
    assert!(socket.exists(), "the old one has left it alone");
    assert_eq!(local(&socket, "GET", "/api/v1/status").await.0, 200);
}
