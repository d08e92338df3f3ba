//! A listener that is paused by hand: who comes waits, who is there goes on, and only who has the token may.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::balancer::{Balancer, binary};
use crate::support::client::{connect, value};
use crate::support::cluster::{Cluster, shared};
use crate::support::home;
use crate::support::postgres::{Settings, Stop};
use crate::support::process::Signal;
use crate::support::wait::wait_until;
use crate::support::web::{Got, send};
use crate::support::wire::{Login, ServerError, Wire, startup};
use crate::tools::{Notes, conninfo, output, psql_command};

const TOKEN: &str = "canary-5d0c7715a2";

/// A balancer over the shared servers that may be paused, and waits long.
async fn start(sessions: &str) -> Balancer {
    let config = shared().await.config()
        + &format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\nsessions: {{{sessions}}}\n");
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    balancer
}

/// POSTs a path of the API with these headers.
async fn post(balancer: &Balancer, path: &str, headers: &[(&str, &str)]) -> Got {
    send(balancer.admin(), "POST", &format!("/api/v1/listeners/{path}"), headers, "").await
}

/// POSTs it with the token, and gives the listener's state.
async fn change(balancer: &Balancer, path: &str) -> serde_json::Value {
    let got = post(balancer, path, &[("authorization", &format!("Bearer {TOKEN}"))]).await;
    assert_eq!(
        (got.status, got.header("content-type").as_str()),
        (200, "application/json"),
        "{}",
        got.text()
    );
    serde_json::from_str(&got.text()).unwrap()
}

/// The state of the listener `rw`.
async fn rw(balancer: &Balancer) -> serde_json::Value {
    balancer.status().await["listeners"][0].clone()
}

async fn wait_waiting(balancer: &Balancer, n: u64) {
    wait_until(&format!("{n} sessions to wait"), async || {
        let now = rw(balancer).await["waiting"].as_u64().unwrap();
        if now == n { Ok(()) } else { Err(now) }
    })
    .await;
}

/// Tries to log in, in the background.
fn try_login(addr: SocketAddr) -> JoinSet<Result<Login, ServerError>> {
    JoinSet::from_iter([async move {
        let mut wire = Wire::connect(addr).await.unwrap();
        wire.login("app", "postgres").await.unwrap()
    }])
}

async fn pgsplit(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.args(args).env_clear().envs(env.iter().copied()).current_dir(std::env::temp_dir());
    let ended = output(command).await;
    (ended.status.code(), String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned())
}

#[tokio::test]
async fn who_comes_waits_and_who_is_there_goes_on() {
    let balancer = start("queue_timeout: 1m").await;
    let open = connect(balancer.rw()).await.unwrap();
    let state = change(&balancer, "rw/pause").await;
    assert_eq!(
        (&state["name"], &state["paused"], &state["ready"]),
        (&"rw".into(), &true.into(), &true.into())
    );
    let line = balancer.wait_log("listener_paused", |line| line["listener"] == "rw").await;
    assert!(line["client"].as_str().unwrap().starts_with("127."), "{line}");
    assert_eq!(line["waiting"], 0);

    let mut session = try_login(balancer.rw());
    wait_waiting(&balancer, 1).await;
    assert_eq!(value(&open, "select 1").await.unwrap(), "1", "the open one goes on");
    connect(balancer.ro()).await.unwrap();
    // A balancer in front would only move the clients to where nobody lets them wait.
    assert_eq!(balancer.get("/readyz").await.unwrap(), (200, "ready\n".into()));
    let status = rw(&balancer).await;
    assert_eq!((&status["paused"], &status["ready"]), (&true.into(), &true.into()));
    assert_eq!(balancer.status().await["listeners"][1]["paused"], false);
    let page = balancer.get("/").await.unwrap().1;
    assert!(page.lines().any(|line| line.starts_with("rw ") && line.ends_with("  paused")), "{page}");
    let paused =
        async |name| balancer.metric(&format!("pgsplit_listener_paused{{listener=\"{name}\"}}")).await;
    assert!(0.5 < paused("rw").await && paused("ro").await < 0.5);

    // Once more is no change, and no line.
    assert_eq!(change(&balancer, "rw/pause").await["waiting"], 1);
    assert!(session.try_join_next().is_none(), "it waits still");
    assert_eq!(change(&balancer, "rw/resume").await["paused"], false);
    session.join_all().await.remove(0).unwrap();
    let line = balancer.wait_log("listener_resumed", |line| line["listener"] == "rw").await;
    assert_eq!(line["waiting"], 1);
    let pauses = balancer.log_lines().iter().filter(|line| line["event"] == "listener_paused").count();
    assert_eq!((pauses, rw(&balancer).await["paused"].clone()), (1, false.into()));
    assert!(paused("rw").await < 0.5);
    connect(balancer.rw()).await.unwrap();
}

#[tokio::test]
async fn who_came_first_is_let_in_first() {
    // A server that takes one session at a time, so that the next comes when the one before has ended.
    let config = shared().await.config().replacen("}\n", ", max_connections: 1}\n", 1)
        + &format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\nsessions: {{queue_timeout: 1m}}\n");
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    change(&balancer, "rw/pause").await;
    let (served, mut sessions) = (Notes::new(), JoinSet::new());
    for n in 0..12 {
        let (addr, served) = (balancer.rw(), served.clone());
        sessions.spawn(async move {
            let mut wire = Wire::connect(addr).await.unwrap();
            wire.login("app", "postgres").await.unwrap().unwrap();
            served.add(n);
        });
        wait_waiting(&balancer, n + 1).await;
    }
    assert_eq!(served.all(), [0; 0]);
    let resumed = change(&balancer, "rw/resume").await;
    assert_eq!(resumed["waiting"], 12, "those who were let in, not who is still there a moment later");
    sessions.join_all().await;
    assert_eq!(served.all(), (0..12).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_leaves_a_paused_listener_leaves_the_queue() {
    let balancer = start("queue_timeout: 1m").await;
    change(&balancer, "rw/pause").await;
    let mut sessions: Vec<_> = (0..2).map(|_| try_login(balancer.rw())).collect();
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.send(&startup(&[("user", "app")])).await.unwrap();
    wait_waiting(&balancer, 3).await;
    sessions.pop();
    wait_waiting(&balancer, 2).await;
    wire.reset();
    wait_waiting(&balancer, 1).await;
    change(&balancer, "rw/resume").await;
    sessions.remove(0).join_all().await.remove(0).unwrap();
    wait_until("those that left to be counted so", async || {
        let left = balancer.metric("pgsplit_connections_left_total{listener=\"rw\"}").await;
        if (left - 2.0).abs() < 0.5 { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test]
async fn a_paused_listener_keeps_only_so_many_and_only_so_long() {
    let crowded = start("queue_size: 2, queue_timeout: 1m").await;
    let brief = start("queue_timeout: 300ms").await;
    change(&crowded, "rw/pause").await;
    change(&brief, "rw/pause").await;
    let sessions = [try_login(crowded.rw()), try_login(crowded.rw())];
    wait_waiting(&crowded, 2).await;
    for (balancer, reason, words) in [
        (&crowded, "queue_full", "2 sessions wait already: listener \"rw\" is paused"),
        (&brief, "queue_timeout", "listener \"rw\" is paused"),
    ] {
        let error = try_login(balancer.rw()).join_all().await.remove(0).unwrap_err();
        let said = (error.severity.as_str(), error.code.as_str(), error.message.as_str());
        assert_eq!(said, ("FATAL", "57P03", words));
        let series = format!("pgsplit_connections_rejected_total{{listener=\"rw\",reason=\"{reason}\"}}");
        wait_until("it to be counted", async || 0.5 < balancer.metric(&series).await).await;
    }
    change(&crowded, "rw/resume").await;
    for session in sessions {
        session.join_all().await.remove(0).unwrap();
    }
    change(&brief, "rw/resume").await;
    connect(brief.rw()).await.unwrap();
}

#[tokio::test]
async fn who_waits_for_a_paused_listener_is_told_when_the_balancer_stops() {
    let balancer = start("queue_timeout: 1m").await;
    change(&balancer, "rw/pause").await;
    let session = try_login(balancer.rw());
    wait_waiting(&balancer, 1).await;
    balancer.signal(Signal::TERM);
    let error = session.join_all().await.remove(0).unwrap_err();
    assert_eq!((error.code.as_str(), error.message.as_str()), ("57P01", "this balancer is shutting down"));
    assert!(balancer.wait_exit(Duration::from_secs(20)).await.success());
}

#[tokio::test]
async fn writers_wait_through_a_planned_switchover_and_none_fails() {
    let cluster = Cluster::start(1, Settings::default()).await;
    cluster.primary().sql("create table t (n int)").await;
    let config = cluster.config()
        + &format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\nsessions: {{queue_timeout: 1m}}\n");
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    change(&balancer, "rw/pause").await;
    let writes: JoinSet<_> = (0..8)
        .map(|n| {
            let command = psql_command(
                &conninfo(balancer.rw(), "connect_timeout=60"),
                &format!("insert into t values ({n})"),
            );
            async move { output(command).await }
        })
        .collect();
    wait_waiting(&balancer, 8).await;
    cluster.wait_replayed().await;
    cluster.primary().stop(Stop::Fast).await;
    cluster.fail_over_to(1).await;
    balancer.wait_role("n1", "primary").await;
    assert_eq!(rw(&balancer).await["waiting"], 8, "also when there is a primary again");
    change(&balancer, "rw/resume").await;
    for write in writes.join_all().await {
        assert!(write.status.success(), "{write:?}");
    }
    assert_eq!(cluster.primary().value("select count(*) from t").await, "8");
}

#[tokio::test]
async fn only_who_has_the_token_may() {
    let balancer = start("queue_timeout: 1m").await;
    let right = format!("Bearer {TOKEN}");
    for (headers, status, challenge, part) in [
        (&[][..], 401, "Bearer realm=\"pgsplit\"", "send the token as `Authorization: Bearer TOKEN`"),
        (&[("authorization", "Bearer canary-5d0c7715a3")], 401, "invalid_token", "not the token"),
        (&[("authorization", "Bearer canary")], 401, "invalid_token", "not the token"),
        (&[("authorization", "Bearer ")], 401, "Bearer", ""),
        (&[("authorization", "Basic cm9vdDo=")], 401, "Bearer", "Bearer TOKEN"),
        (&[("authorization", &right), ("authorization", &right)], 401, "Bearer", "Bearer TOKEN"),
        (
            &[("authorization", &right), ("origin", "http://evil.example")],
            403,
            "",
            "no page of another origin",
        ),
        (
            &[("authorization", &right), ("sec-fetch-site", "cross-site")],
            403,
            "",
            "no page of another origin",
        ),
        (&[("origin", "null"), ("content-type", "text/plain")], 403, "", "no page of another origin"),
    ] {
        let got = post(&balancer, "rw/pause", headers).await;
        assert_eq!(got.status, status, "{headers:?}");
        assert!(got.header("www-authenticate").contains(challenge), "{headers:?}: {:?}", got.headers);
        assert!(got.text().contains(part) && !got.text().contains("canary"), "{}", got.text());
        assert_eq!(rw(&balancer).await["paused"], false, "{headers:?}");
    }
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let path = "/api/v1/listeners/rw/pause";
        let got = send(balancer.admin(), method, path, &[("authorization", &right)], "").await;
        assert_eq!((got.status, got.header("allow").as_str()), (405, "POST"), "{method}");
        assert_eq!(got.header("access-control-allow-origin"), "");
        assert_eq!(rw(&balancer).await["paused"], false, "{method}");
    }
    let got = post(&balancer, "rx/pause", &[("authorization", &right)]).await;
    let words = serde_json::json!({"error": "no such listener", "hint": "there are \"rw\" and \"ro\""});
    assert_eq!((got.status, serde_json::from_str::<serde_json::Value>(&got.text()).unwrap()), (404, words));
    // As typed into an address bar, and a body that nobody asked for.
    let headers = [("authorization", right.as_str()), ("sec-fetch-site", "none")];
    let got = send(balancer.admin(), "POST", "/api/v1/listeners/rw/pause", &headers, "{}").await;
    assert_eq!((got.status, rw(&balancer).await["paused"].clone()), (200, true.into()));
}

#[tokio::test]
async fn without_a_token_nobody_may_and_is_told_what_to_set() {
    let front = "http: {bind: \"BALANCER:8080\", name: api, upstreams: [\"127.0.0.1:1\"], check: off}\n";
    let config = shared().await.config() + front;
    let balancer = Balancer::start(&config).await;
    for headers in [&[][..], &[("authorization", "Bearer ")], &[("authorization", "Bearer x")]] {
        let got = post(&balancer, "rw/pause", headers).await;
        assert_eq!((got.status, got.text().contains("set admin.token_file")), (403, true), "{}", got.text());
    }
    assert_eq!(rw(&balancer).await["paused"], false);
    // The variable comes before the file.
    let balancer = Balancer::start_with(&config, &[("PGSPLIT_ADMIN_TOKEN", TOKEN)]).await;
    assert_eq!(change(&balancer, "rw/pause").await["paused"], true);
    let got = post(&balancer, "api/pause", &[("authorization", &format!("Bearer {TOKEN}"))]).await;
    let words = "that is an HTTP front, and only listeners can be paused";
    assert_eq!((got.status, got.text().contains(words)), (404, true), "{}", got.text());
}

#[tokio::test]
async fn the_token_is_shown_nowhere() {
    let config = shared().await.config() + &format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\n");
    let balancer = Balancer::start_with(&config, &[("PGSPLIT_LOG", "trace")]).await;
    balancer.wait_ready().await;
    change(&balancer, "rw/pause").await;
    post(&balancer, "rw/pause", &[("authorization", &format!("Bearer {TOKEN}x"))]).await;
    change(&balancer, "rw/resume").await;
    balancer.wait_log("listener_resumed", |_| true).await;
    let page = async |path| balancer.get(path).await.unwrap().1;
    let pages = page("/").await + &page("/metrics").await + &page("/api/v1/status").await;
    let path = balancer.config_path().display().to_string();
    let (code, checked) = pgsplit(&["check", &path], &[]).await;
    assert_eq!(code, Some(0), "{checked}");
    std::fs::write(&path, config.replace("BALANCER", "127.0.0.1").replace("{bind", "{bnd")).unwrap();
    let (code, faulty) = pgsplit(&["check", &path], &[]).await;
    assert_eq!((code, faulty.contains("did you mean `bind`?")), (Some(78), true), "{faulty}");
    let (_, paused) = pgsplit(
        &["pause", "rw", "-c", &path, "--admin", &balancer.admin().to_string()],
        &[("PGSPLIT_ADMIN_TOKEN", "x")],
    )
    .await;
    let said = balancer.out() + &balancer.err() + &pages + &checked + &faulty + &paused;
    assert!(said.contains("listener_paused") && !said.contains(TOKEN), "{said}");
}

#[tokio::test]
async fn the_command_line_pauses_and_resumes() {
    let balancer = start("queue_timeout: 1m").await;
    let path = balancer.config_path().display().to_string();
    let admin = balancer.admin().to_string();
    let done = async |args: &[&str], env: &[(&str, &str)], words: &str| {
        assert_eq!(pgsplit(args, env).await, (Some(0), words.to_owned()), "{args:?}");
    };
    // By the file; by a variable; by a file of its own.
    done(
        &["pause", "rw", "-c", &path],
        &[],
        "listener \"rw\" is paused: 0 sessions wait, open sessions go on\n",
    )
    .await;
    let session = try_login(balancer.rw());
    wait_waiting(&balancer, 1).await;
    let by_variable = [("PGSPLIT_ADMIN_TOKEN", TOKEN), ("PGSPLIT_CONFIG", "/nowhere.yaml")];
    let words = "listener \"rw\" is paused: 1 session waits, open sessions go on\n";
    done(&["pause", "rw", "--admin", &admin], &by_variable, words).await;
    let file = home::directory("token").join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let file = file.display().to_string();
    let args = ["resume", "rw", "--admin", &admin, "--token-file", &file];
    // It comes before the variable.
    done(&args, &[("PGSPLIT_ADMIN_TOKEN", "x")], "listener \"rw\" is resumed: 1 session is let in\n").await;
    session.join_all().await.remove(0).unwrap();
    done(&["resume", "rw", "-c", &path], &[], "listener \"rw\" is resumed: no session waits\n").await;

    let empty = home::directory("token").join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let empty = empty.display().to_string();
    let gone = balancer.at(1).to_string();
    let front = balancer.rw().to_string();
    for (args, env, exit, part) in [
        (
            &["pause", "rx", "-c", &path][..],
            &[][..],
            1,
            "answered 404\nno such listener; there are \"rw\" and \"ro\"",
        ),
        (&["pause", "r w/../../x?y", "-c", &path], &[], 1, "answered 404\n"),
        (&["pause", "rw", "--admin", &admin], &[], 77, "answered 401\nonly with the token"),
        (
            &["pause", "rw", "-c", &path],
            &[("PGSPLIT_ADMIN_TOKEN", "x")],
            77,
            "answered 401\nthis is not the token",
        ),
        (&["pause", "rw", "--admin", &admin, "--token-file", &empty], &[], 1, "empty: the file is empty"),
        (&["pause", "rw", "--admin", &admin, "--token-file", "/nowhere"], &[], 1, "cannot use /nowhere: "),
        (&["pause", "rw", "--admin", &gone, "--token-file", &file], &[], 69, "connection refused"),
        (&["pause", "rw", "--admin", &front, "--token-file", &file], &[], 1, &front),
        (&["pause", "rw", "-c", &path], &[("PGSPLIT_ADMIN", "off")], 1, "admin is off"),
    ] {
        let (code, said) = pgsplit(args, env).await;
        assert_eq!((code, said.contains(part)), (Some(exit), true), "{args:?}: {said}");
        assert!(!said.contains(TOKEN), "{said}");
    }
    assert_eq!(pgsplit(&["pause"], &[]).await.0, Some(2));
    assert_eq!(rw(&balancer).await["paused"], false);
}
