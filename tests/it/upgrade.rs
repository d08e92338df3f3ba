//! An upgrade: a new process takes the place of the one that runs, with its sockets and its sessions.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

use crate::support::balancer::{Balancer, binary};
use crate::support::client::{background, connect, rows, value};
use crate::support::cluster::{Cluster, shared};
use crate::support::postgres::{Postgres, Settings};
use crate::support::process::Signal;
use crate::support::upstream::Upstream;
use crate::support::wait::{wait_at_most, wait_until};
use crate::support::web::{front, send, try_get};
use crate::support::wire::Wire;
use crate::tools::{conninfo, output, program, psql_command, whole};

const TOKEN: &str = "canary-38c1f0a9e5";
const PID: &str = "select pg_backend_pid()";

fn with_token(config: &str) -> String {
    format!("{config}admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\n")
}

/// A balancer over the shared servers.
async fn start(more: &str) -> Balancer {
    let balancer = Balancer::start(&with_token(&(shared().await.config() + more))).await;
    balancer.wait_ready().await;
    balancer
}

async fn ask(balancer: &Balancer, body: &str) -> (u16, Value) {
    let token = format!("Bearer {TOKEN}");
    let got = send(balancer.admin(), "POST", "/api/v1/upgrade", &[("authorization", &token)], body.to_owned()).await;
    (got.status, serde_json::from_str(&got.text()).unwrap_or_else(|_| panic!("{}", got.text())))
}

/// Upgrades, and waits until the old process has gone; what was answered.
async fn upgrade(balancer: &Balancer) -> Value {
    let old = balancer.pid();
    let (status, done) = ask(balancer, "").await;
    assert_eq!(status, 200, "{done}");
    let new = u32::try_from(done["pid"].as_u64().unwrap()).unwrap();
    assert_ne!(new, old);
    balancer.succeeded_by(new);
    wait_at_most(Duration::from_secs(30), "the old process to leave", async || is_gone(old)).await;
    done
}

/// Whether a process has ended, be it a zombie still.
fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A program in place of a new version.
fn fake(name: &str, script: &str) -> PathBuf {
    let path = crate::support::home::directory("fake").join(name);
    fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn wait_active(balancer: &Balancer, n: i64) {
    wait_until(&format!("{n} sessions"), async || {
        let active = whole(balancer.metric("pgsplit_sessions_active").await);
        if active == n { Ok(()) } else { Err(active) }
    })
    .await;
}

#[tokio::test]
async fn sessions_of_all_kinds_go_on() {
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

    assert_eq!(value(&idle, PID).await.unwrap(), idle_pid);
    assert_eq!(value(&idle, "select n from mine").await.unwrap(), "7");
    assert_eq!(idle.query_one(&prepared, &[&41_i32]).await.unwrap().get::<_, i32>(0), 42);
    assert_eq!(value(&busy, "select txid_current()").await.unwrap(), txid);
    rows(&busy, "commit").await.unwrap();
    assert_eq!(value(&reads, PID).await.unwrap(), reads_pid);
    rows(&idle, "notify upgraded, 'still here'").await.unwrap();
    let news = listens.message().await.unwrap().unwrap();
    assert!(news.tag == b'A' && news.body.windows(10).any(|part| part == b"still here"), "{news:?}");
    let fresh = connect(balancer.rw()).await.unwrap();
    assert_eq!(value(&fresh, "select 1").await.unwrap(), "1");
}

/// Sends rows until told to stop; how many.
async fn copy_in(client: &Client, stop: &AtomicBool) -> u64 {
    let mut sink = Box::pin(client.copy_in::<_, bytes::Bytes>("copy arrived from stdin").await.unwrap());
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut block = String::new();
        for _ in 0..2_000 {
            n += 1;
            block += &format!("{n}\n");
        }
        sink.send(block.into()).await.unwrap();
    }
    sink.as_mut().finish().await.unwrap();
    n
}

/// Reads more rows than fit into all buffers, slowly at first; their number and their sum.
async fn copy_out(client: &Client, rows: u64, started: &AtomicBool, go_on: &AtomicBool) -> (u64, u64) {
    let sql = format!("copy (select n, repeat('x', 100) from generate_series(1, {rows}) n) to stdout");
    let mut stream = Box::pin(client.copy_out(&sql).await.unwrap());
    let (mut count, mut sum) = (0, 0);
    while let Some(row) = stream.next().await {
        let row = row.unwrap();
        let text = std::str::from_utf8(&row).unwrap();
        let (n, rest) = text.split_once('\t').unwrap();
        assert_eq!(rest.len(), 101);
        (count, sum) = (count + 1, sum + n.parse::<u64>().unwrap());
        started.store(true, Ordering::Relaxed);
        if count % 1_000 == 0 && !go_on.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    (count, sum)
}

#[tokio::test]
async fn large_copies_both_ways_lose_nothing() {
    const ROWS: u64 = 600_000;
    let server = Postgres::start_new(Settings::default()).await;
    let nodes = format!("nodes: [{{name: n0, addr: \"{}\", role: primary}}]\ncheck: {{type: tcp}}\n", server.addr());
    let balancer = Balancer::start(&with_token(&nodes)).await;
    balancer.wait_ready().await;
    server.sql("create table arrived (n bigint)").await;
    let [stop, started, go_on] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
    let (into, from) = (connect(balancer.rw()).await.unwrap(), connect(balancer.rw()).await.unwrap());
    let out = background().spawn({
        let (started, go_on) = (Arc::clone(&started), Arc::clone(&go_on));
        async move { copy_out(&from, ROWS, &started, &go_on).await }
    });
    let sent = background().spawn({
        let stop = Arc::clone(&stop);
        async move { copy_in(&into, &stop).await }
    });
    wait_until("the copies to begin", async || started.load(Ordering::Relaxed)).await;
    for _ in 0..2 {
        let done = upgrade(&balancer).await;
        assert_eq!(done["moved"], 2, "{done}");
    }
    go_on.store(true, Ordering::Relaxed);
    let more = Instant::now() + Duration::from_millis(300);
    wait_until("a little more to be sent", async || more < Instant::now()).await;
    stop.store(true, Ordering::Relaxed);
    assert_eq!(out.await.unwrap(), (ROWS, ROWS * (ROWS + 1) / 2));
    let n = sent.await.unwrap();
    let found = server.value("select count(*) || ' ' || coalesce(sum(n), 0) from arrived").await;
    assert_eq!(found, format!("{n} {}", n * (n + 1) / 2));
}

#[tokio::test]
async fn what_is_encrypted_goes_on() {
    let server = Postgres::start_new(Settings::default().tls()).await;
    let nodes = format!("nodes: [{{name: n0, addr: \"{}\", role: primary}}]\ncheck: {{type: tcp}}\n", server.addr());
    let balancer = Balancer::start(&with_token(&nodes)).await;
    balancer.wait_ready().await;
    let conninfo = conninfo(balancer.rw(), "sslmode=require");
    // The second statement is sent when the first has been answered.
    let sql = "select 'pid ' || pg_backend_pid(); select pg_sleep(1.5)";
    let mut command = psql_command(&conninfo, sql);
    command.args(["-c", "select 'pid ' || pg_backend_pid(), ssl from pg_stat_ssl where pid = pg_backend_pid()"]);
    let psql = background().spawn(output(command));
    let sleeping = "select count(*) from pg_stat_activity where query like '%pg_sleep(1.5)%' and pid <> pg_backend_pid()";
    wait_until("psql to sleep", async || server.value(sleeping).await == "1").await;
    let done = upgrade(&balancer).await;
    assert_eq!(done["moved"], 1, "{done}");
    let output = psql.await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let pids: Vec<_> = said.lines().filter(|line| line.starts_with("pid ")).collect();
    assert!(output.status.success() && pids.len() == 2, "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(pids[1], format!("{}|t", pids[0]));
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
    load.arg(conninfo(balancer.rw(), "")).stderr(std::process::Stdio::piped());
    load.stdout(std::process::Stdio::piped());
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
    crate::support::process::signal(load.id(), Signal::ALARM);
    let ended = load.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("number of failed transactions: 0 ("), "{said}");
    assert!(!said.contains("error") && !said.contains("aborted"), "{said}");
    let ends: Vec<_> = balancer.log_lines().into_iter().filter(|line| line["event"] == "session_end").collect();
    wait_until("eight lines", async || {
        let ends = balancer.log_lines().into_iter().filter(|line| line["event"] == "session_end").count();
        if ends == 8 { Ok(()) } else { Err(ends) }
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
    let sql = "select count(*) from pg_stat_activity where query like '%cancelled after an upgrade */' and state = 'active'";
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
    let config = shared().await.config() + &front(&[upstream.addr()], "");
    let balancer = Balancer::start(&with_token(&config)).await;
    balancer.wait_ready().await;
    balancer.wait_upstream(upstream.addr(), true).await;
    let (stop, rw, http) = (Arc::new(AtomicBool::new(false)), balancer.rw(), balancer.front());
    let mut clients = JoinSet::new();
    for _ in 0..3 {
        let stop = Arc::clone(&stop);
        clients.spawn_on(
            async move {
                let mut served = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(comes(rw).await, Ok("1".to_owned()));
                    let got = try_get(http, "/").await;
                    assert_eq!(got.as_ref().map(|got| got.status), Ok(200), "{got:?}");
                    served += 1;
                }
                served
            },
            background().handle(),
        );
    }
    for _ in 0..3 {
        upgrade(&balancer).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(served) = clients.join_next().await {
        assert!(3 < served.unwrap());
    }
}

async fn comes(addr: SocketAddr) -> Result<String, String> {
    let client = connect(addr).await.map_err(|error| format!("{error:?}"))?;
    value(&client, "select 1").await.map_err(|error| format!("{error:?}"))
}

#[tokio::test]
async fn a_session_has_one_number_one_line_and_all_its_bytes() {
    let balancer = start("log: {sessions: both}\n").await;
    let client = connect(balancer.rw()).await.unwrap();
    let name = |line: &Value| line["app"] == "it" && line["listener"] == "rw";
    value(&client, "select repeat('x', 100000)").await.unwrap();
    let done = upgrade(&balancer).await;
    assert_eq!(done["moved"], 1);
    for side in ["old", "new"] {
        let line = balancer.wait_log("upgrade_done", |line| line["side"] == side).await;
        assert_eq!((&line["sessions"], &line["stayed"]), (&json!(1), &json!(0)), "{line}");
    }
    wait_active(&balancer, 1).await;
    assert_eq!(whole(balancer.metric("pgsplit_sessions_accepted_total{listener=\"rw\"}").await), 1);
    value(&client, "select repeat('x', 100000)").await.unwrap();
    let status = balancer.status().await;
    assert_eq!(status["listeners"][0]["sessions"], 1, "{status}");
    drop(client);
    let end = balancer.wait_log("session_end", name).await;
    assert!(200_000 < end["to_client_bytes"].as_u64().unwrap(), "{end}");
    assert_eq!((&end["end"], &end["user"]), (&json!("client"), &json!("postgres")), "{end}");
    let began = balancer.wait_log("session_start", |line| line["id"] == end["id"]).await;
    assert_eq!(began["client"], end["client"]);
    wait_active(&balancer, 0).await;
    let sum = async |series: &str| whole(balancer.metric(series).await);
    assert_eq!(sum("pgsplit_sessions_total{end=\"client\"}").await, 1);
    assert_eq!(sum("pgsplit_sessions_accepted_total").await, 1);
    // Numbers go on above those of the old process.
    let another = connect(balancer.rw()).await.unwrap();
    drop(another);
    let number = |line: &Value| u64::from_str_radix(&line["id"].as_str().unwrap()[2..], 16).unwrap();
    let other = balancer.wait_log("session_end", |line| line["id"] != end["id"]).await;
    assert!(number(&end) < number(&other), "{other}");
    let lines = balancer.log_lines();
    assert_eq!(lines.iter().filter(|line| line["event"] == "session_end").count(), 2, "{lines:?}");
    assert!(!balancer.err().contains(TOKEN));
}

#[tokio::test]
async fn nothing_is_left_open_after_five_upgrades() {
    let balancer = start("").await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(connect(balancer.rw()).await.unwrap());
    }
    let mut open = Vec::new();
    for _ in 0..5 {
        let done = upgrade(&balancer).await;
        assert_eq!(done["moved"], 5, "{done}");
        // Checks come and go.
        let least = wait_least(balancer.pid()).await;
        open.push(least);
    }
    assert!(open.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{open:?}");
    for client in &clients {
        assert_eq!(value(client, "select 1").await.unwrap(), "1");
    }
    drop(clients);
    wait_active(&balancer, 0).await;
}

/// The least number of descriptors of many looks.
async fn wait_least(pid: u32) -> usize {
    let mut looks = Vec::new();
    wait_until("many looks", async || {
        looks.push(descriptors(pid));
        20 <= looks.len()
    })
    .await;
    looks.into_iter().min().unwrap()
}

#[tokio::test]
async fn an_upgrade_that_fails_changes_nothing() {
    let balancer = start("").await;
    let client = connect(balancer.rw()).await.unwrap();
    let pid = value(&client, PID).await.unwrap();
    let hello = r#"export LC_ALL=C
frame() { printf "\\x00\\x00\\x00\\x$(printf %02x $((${#1} + 4)))\\x00\\x00\\x00\\x00\\x00\\x$(printf %02x ${#1})%s" "$1" >&0; }
until_said() { while IFS= read -r -d '}' said; do case $said in *"$1"*) return;; esac; done; }
"#;
    let said = |rest: &str| format!("{hello}{rest}");
    let greets = r#"frame '{"Hello":{"protocol":1,"version":"9"}}'; "#;
    let cases = [
        ("ends", "exit 3".to_owned(), "ended before it was ready (exit status: 3)"),
        ("hangs", "exec sleep 100".to_owned(), "was not ready within 1s"),
        ("babbles", "printf 'HTTP/1.1 200 OK' >&0; exec sleep 100".to_owned(), "is not understood"),
        ("refuses", said(r#"frame '{"Refused":{"why":"no thanks"}}'; exit 1"#), "refused: no thanks"),
        ("foreign", said(r#"frame '{"Hello":{"protocol":7,"version":"9"}}'; exec sleep 100"#), "in another way (7)"),
        ("greets", said(&format!("{greets} until_said Prepare; exit 4")), "(exit status: 4)"),
        ("hesitates", said(&format!("{greets} exec sleep 100")), "was not ready within 1s"),
        ("begins", said(&format!("{greets} frame '\"Ready\"'; until_said Begin; exit 5")), "(exit status: 5)"),
        ("sleeps", said(&format!("{greets} frame '\"Ready\"'; until_said Session; exec sleep 100")), "it was ended"),
        ("takes", said(&format!("{greets} frame '\"Ready\"'; until_said Session; exit 6")), "(exit status: 6)"),
    ];
    for (name, script, expected) in cases {
        let program = fake(name, &script);
        let body = json!({"binary": program, "wait_seconds": 1}).to_string();
        let (status, failed) = ask(&balancer, &body).await;
        assert_eq!(status, 500, "{name}: {failed}");
        let error = failed["error"].as_str().unwrap();
        assert!(error.contains(expected), "{name}: {error}");
        balancer.wait_log("upgrade_failed", |line| line["error"] == error).await;
        assert_eq!(value(&client, PID).await.unwrap(), pid, "{name}");
        assert_eq!(comes(balancer.rw()).await.as_deref(), Ok("1"), "{name}");
        let children = crate::support::process::children(balancer.pid());
        assert!(children.is_empty(), "{name}: {children:?}");
    }
    for (program, expected) in [("/nonexistent/pgsplit", "No such file"), ("pgsplit", "cannot use pgsplit")] {
        let (status, failed) = ask(&balancer, &json!({"binary": program}).to_string()).await;
        let error = failed["error"].as_str().unwrap();
        assert!(status == 500 && error.contains(expected), "{error}");
    }
    let open = descriptors(balancer.pid());
    assert!(open < 60, "{open}");
    // And all the same one that works does.
    let done = upgrade(&balancer).await;
    assert_eq!(done["moved"], 1);
    assert_eq!(value(&client, PID).await.unwrap(), pid);
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, change(text)).unwrap();
}

#[tokio::test]
async fn a_bad_file_is_told_and_a_good_one_is_gone_by() {
    let balancer = start("runtime: {watch_config: false}\n").await;
    let client = connect(balancer.rw()).await.unwrap();
    let pid = value(&client, PID).await.unwrap();
    edit(&balancer.config_path(), |text| text + "nonsense: 1\n");
    let (status, failed) = ask(&balancer, "").await;
    let error = failed["error"].as_str().unwrap().to_owned();
    assert!(status == 500 && error.contains("refused") && error.contains("nonsense"), "{failed}");
    assert_eq!(value(&client, PID).await.unwrap(), pid);
    assert_eq!(comes(balancer.rw()).await.as_deref(), Ok("1"));
    // The listener of this session is called otherwise there: it ends where it is.
    edit(&balancer.config_path(), |text| text.replace("nonsense: 1\n", "").replace("name: rw,", "name: main,"));
    let old = balancer.pid();
    let (status, done) = ask(&balancer, "").await;
    assert_eq!((status, &done["moved"], &done["stayed"]), (200, &json!(0), &json!(1)), "{done}");
    balancer.succeeded_by(u32::try_from(done["pid"].as_u64().unwrap()).unwrap());
    assert_eq!(value(&client, PID).await.unwrap(), pid);
    assert_eq!(comes(balancer.rw()).await.as_deref(), Ok("1"));
    assert!(!is_gone(old));
    drop(client);
    wait_at_most(Duration::from_secs(30), "the old process to leave", async || is_gone(old)).await;
}

#[tokio::test]
async fn a_listener_that_is_paused_stays_so_and_a_signal_upgrades_as_well() {
    let balancer = start("sessions: {queue_timeout: 1m}\n").await;
    let token = format!("Bearer {TOKEN}");
    let change = async |verb: &str| {
        let path = format!("/api/v1/listeners/rw/{verb}");
        let got = send(balancer.admin(), "POST", &path, &[("authorization", &token)], "").await;
        assert_eq!(got.status, 200, "{}", got.text());
    };
    change("pause").await;
    let old = balancer.pid();
    balancer.signal(Signal::USR2);
    let line = balancer.wait_log("upgrade_done", |line| line["side"] == "old").await;
    balancer.succeeded_by(u32::try_from(line["pid"].as_u64().unwrap()).unwrap());
    wait_at_most(Duration::from_secs(30), "the old process to leave", async || is_gone(old)).await;
    assert_eq!(balancer.status().await["listeners"][0]["paused"], true);
    let waits = background().spawn(comes(balancer.rw()));
    wait_until("it to wait", async || balancer.status().await["listeners"][0]["waiting"] == 1).await;
    change("resume").await;
    assert_eq!(waits.await.unwrap().as_deref(), Ok("1"));
    let _ = binary();
}
