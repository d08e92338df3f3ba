//! The configuration loaded again while clients are there: what is the same is not touched, what is wrong changes nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::balancer::Balancer;
use crate::support::client::{connect, value, which_node};
use crate::support::cluster::{quick_checks, shared};
use crate::support::gate::Gate;
use crate::support::process::Signal;
use crate::support::upstream::Upstream;
use crate::support::wait::wait_until;
use crate::support::web::{QUICK, Web, front, send, try_get};
use crate::support::wire::{FakeNode, Login, ServerError, Wire};
use crate::tools::{conninfo, output, program};

const TOKEN: &str = "canary-60b1c9e7d2";

/// The configuration over the shared servers, with a token, and with these listeners.
async fn config(listeners: &str, more: &str) -> String {
    let nodes = shared().await.config();
    format!("{nodes}admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\nlisteners:\n{listeners}{more}")
}

/// Nobody reloads but who is told to.
const UNWATCHED: &str = "runtime: {watch_config: false}\n";
const RW: &str = "  - {name: rw, bind: \"BALANCER:6432\", target: primary}\n";
const RO: &str = "  - {name: ro, bind: \"BALANCER:6433\", target: prefer-standby}\n";

/// Writes the file and has it loaded over the API: status and answer.
async fn reload(balancer: &Balancer, config: &str) -> (u16, Value) {
    balancer.write(config);
    let authorization = format!("Bearer {TOKEN}");
    let headers = [("authorization", authorization.as_str())];
    let got = send(balancer.admin(), "POST", "/api/v1/reload", &headers, "").await;
    (got.status, serde_json::from_str(&got.text()).unwrap())
}

/// The same where it must do; the keys that have changed.
async fn reloaded(balancer: &Balancer, config: &str) -> Vec<String> {
    let (status, answer) = reload(balancer, config).await;
    assert_eq!(status, 200, "{answer}");
    let changes = answer["changes"].as_array().unwrap();
    changes.iter().map(|change| change["key"].as_str().unwrap().to_owned()).collect()
}

async fn reloads(balancer: &Balancer, result: &str) -> i64 {
    crate::tools::whole(
        balancer.metric(&format!("pgsplit_config_reloads_total{{result=\"{result}\"}}")).await,
    )
}

async fn wait_reloads(balancer: &Balancer, result: &str, n: i64) {
    wait_until(&format!("{n} reloads to be {result}"), async || {
        let now = reloads(balancer, result).await;
        if now == n { Ok(()) } else { Err(now) }
    })
    .await;
}

async fn pid_of(client: &tokio_postgres::Client) -> String {
    value(client, "select pg_backend_pid()").await.unwrap()
}

fn names(status: &Value, what: &str) -> Vec<String> {
    status[what].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

async fn is_closed(addr: SocketAddr) -> bool {
    tokio::net::TcpStream::connect(addr).await.is_err()
}

/// Tries to log in, in the background.
fn try_login(addr: SocketAddr) -> JoinSet<Result<Login, ServerError>> {
    JoinSet::from_iter([async move {
        let mut wire = Wire::connect(addr).await.unwrap();
        wire.login("postgres", "postgres").await.unwrap()
    }])
}

#[tokio::test]
async fn what_is_the_same_is_not_touched() {
    let balancer = Balancer::start(&config(&(RW.to_owned() + RO), UNWATCHED).await).await;
    balancer.wait_ready().await;
    let (rw, ro) = (connect(balancer.rw()).await.unwrap(), connect(balancer.ro()).await.unwrap());
    let before = (pid_of(&rw).await, pid_of(&ro).await);
    let ro_of_one = RO.replace("}\n", ", max_connections: 1, balance: roundrobin}\n");
    let more = "runtime: {watch_config: false, drain_timeout: 7s}\nlog: {level: debug, sessions: both}\n";
    let changed = reloaded(&balancer, &config(&(RW.to_owned() + &ro_of_one), more).await).await;
    assert_eq!(
        changed,
        [
            "listeners.ro.balance",
            "listeners.ro.max_connections",
            "log.level",
            "log.sessions",
            "runtime.drain_timeout"
        ]
    );
    assert_eq!((pid_of(&rw).await, pid_of(&ro).await), before, "the same server processes answer");
    let line = balancer.wait_log("config_reload", |line| line["by"] == "api").await;
    assert_eq!(line["changed"], changed.join(","));
    // The new rules go for new sessions; the old one counts with them.
    let refused = connect(balancer.ro()).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "53300", "{refused}");
    drop(ro);
    wait_until("the place to be free", async || {
        connect(balancer.ro()).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    balancer.wait_log("session_start", |line| line["listener"] == "ro").await;
    assert_eq!(balancer.status().await["listeners"][1]["limit"], 1);
    assert!((balancer.metric("pgsplit_sessions_limit{listener=\"ro\"}").await - 1.0).abs() < 0.1);
    let accepted = balancer.metric("pgsplit_connections_accepted_total{listener=\"ro\"}").await;
    assert!(2.5 < accepted, "it counts on: {accepted}");
    assert_eq!((reloads(&balancer, "applied").await, reloads(&balancer, "failed").await), (1, 0));
}

#[tokio::test]
async fn a_file_that_is_wrong_changes_nothing_and_says_so_everywhere() {
    let good = config(RW, UNWATCHED).await;
    let balancer = Balancer::start(&good).await;
    balancer.wait_ready().await;
    let client = connect(balancer.rw()).await.unwrap();
    let before = balancer.status().await;
    let sha256 = before["config"]["sha256"].as_str().unwrap();
    assert!(sha256.len() == 64 && before["config"]["last_error"].is_null(), "{before}");

    let wrong =
        good.replace("target: primary", "target: primery, weight: 3") + "check_: {password: hunter2}\n";
    let (status, answer) = reload(&balancer, &wrong).await;
    assert_eq!((status, &answer["error"]), (422, &"3 faults in the configuration".into()), "{answer}");
    let faults: Vec<_> = answer["faults"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    assert!(faults.iter().any(|fault| fault.contains("`primery` is not a target")), "{faults:?}");
    for fault in &faults {
        balancer
            .wait_log("config_reload_failed", |line| line["error"] == *fault && line["by"] == "api")
            .await;
    }
    assert!(balancer.metric("pgsplit_config_last_reload_successful").await < 0.5);
    assert_eq!((reloads(&balancer, "applied").await, reloads(&balancer, "failed").await), (0, 1));
    let after = balancer.status().await;
    assert_eq!(after["config"]["last_error"], faults.join("; "));
    assert_eq!(
        (&after["config"]["last_reload"], &after["config"]["last_reload_by"]),
        (&"failed".into(), &"api".into())
    );
    for key in ["sha256", "loaded_at"] {
        assert_eq!(after["config"][key], before["config"][key], "what is in force is what was");
    }
    let page = balancer.get("/").await.unwrap().1;
    assert!(page.contains("the last reload failed"), "{page}");
    assert_eq!(value(&client, "select 7").await.unwrap(), "7");
    connect(balancer.rw()).await.unwrap();
    assert!(!balancer.err().contains("hunter2") && !answer.to_string().contains("hunter2"));

    // No file at all is wrong as well.
    fs::remove_file(balancer.config_path()).unwrap();
    balancer.signal(Signal::HUP);
    let line = balancer.wait_log("config_reload_failed", |line| line["by"] == "signal").await;
    assert!(line["error"].as_str().unwrap().starts_with("cannot read config.yaml: "), "{line}");
    // Mended, all is well again.
    assert_eq!(reloaded(&balancer, &good).await, [""; 0]);
    assert!(0.5 < balancer.metric("pgsplit_config_last_reload_successful").await);
    assert!(balancer.status().await["config"]["last_error"].is_null());
}

#[tokio::test]
async fn an_address_that_is_taken_refuses_all_of_it() {
    let balancer = Balancer::start(&config(RW, UNWATCHED).await).await;
    balancer.wait_ready().await;
    let taken = tokio::net::TcpListener::bind(balancer.at(7001)).await.unwrap();
    let both = "  - {name: new, bind: \"BALANCER:7000\", target: any}\n  - {name: more, bind: \"BALANCER:7001\", target: any}\n";
    let new = config(&RW.replace("target: primary", "target: any"), UNWATCHED)
        .await
        .replace("listeners:\n", &format!("listeners:\n{both}"));
    let (status, answer) = reload(&balancer, &new).await;
    assert_eq!(status, 422, "{answer}");
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.starts_with(&format!("cannot bind {} for listener \"more\": ", balancer.at(7001))),
        "{error}"
    );
    wait_until("what was bound before to be given back", async || is_closed(balancer.at(7000)).await).await;
    let status = balancer.status().await;
    assert_eq!(
        (names(&status, "listeners"), &status["listeners"][0]["target"]),
        (vec!["rw".to_owned()], &"primary".into())
    );
    drop(taken);
    assert!(!reloaded(&balancer, &new).await.is_empty());
    for port in [7000, 7001] {
        connect(balancer.at(port)).await.unwrap();
    }
}

#[tokio::test]
async fn listeners_come_and_go_and_move() {
    let balancer = Balancer::start(&config(&(RW.to_owned() + RO), UNWATCHED).await).await;
    balancer.wait_ready().await;
    let (rw, ro) = (connect(balancer.rw()).await.unwrap(), connect(balancer.ro()).await.unwrap());
    let before = (pid_of(&rw).await, pid_of(&ro).await);
    // `rw` moves, `ro` goes, `any` comes.
    let moved = "  - {name: rw, bind: \"BALANCER:7000\", target: primary}\n";
    let any = "  - {name: any, bind: \"BALANCER:7001\", target: any}\n";
    reloaded(&balancer, &config(&(moved.to_owned() + any), UNWATCHED).await).await;
    for gone in [balancer.rw(), balancer.ro()] {
        wait_until("nobody to listen there", async || is_closed(gone).await).await;
    }
    assert_eq!((pid_of(&rw).await, pid_of(&ro).await), before, "open sessions stay");
    let moved = connect(balancer.at(7000)).await.unwrap();
    connect(balancer.at(7001)).await.unwrap();
    let status = balancer.status().await;
    assert_eq!(names(&status, "listeners"), ["rw", "any"]);
    assert_eq!(
        status["listeners"][0]["sessions"], 2,
        "the moved one counts what came through the old address"
    );
    let metrics = balancer.metrics().await;
    assert!(!metrics.contains("pgsplit_listener_ready{listener=\"ro\"}"), "it is not there");
    // Who looks whether it is closed may have come in once more.
    let accepted = async || balancer.metric("pgsplit_connections_accepted_total{listener=\"ro\"}").await;
    let came = accepted().await;
    assert!(1.0 <= came, "but it was");
    drop(ro);
    // A name that comes back has its own counts again, and an address goes over to another name without a pause.
    let swapped = "  - {name: ro, bind: \"BALANCER:7000\", target: prefer-standby}\n  - {name: rw, bind: \"BALANCER:7001\", target: primary}\n";
    reloaded(&balancer, &config(swapped, UNWATCHED).await).await;
    let primary = shared().await.primary().addr().ip();
    assert_ne!(which_node(&connect(balancer.at(7000)).await.unwrap()).await.unwrap(), primary);
    assert_eq!(which_node(&connect(balancer.at(7001)).await.unwrap()).await.unwrap(), primary);
    assert_eq!(pid_of(&rw).await, before.0);
    assert_eq!(crate::tools::whole(accepted().await), crate::tools::whole(came) + 1);
    assert_eq!(value(&moved, "select 3").await.unwrap(), "3");
}

#[tokio::test]
async fn who_waits_goes_by_the_new_rules() {
    // A primary that never is: the only node is a standby.
    let node = FakeNode::healthy(true).await;
    let nodes = format!(
        "nodes: [{{name: n0, addr: \"{}\", role: standby}}, {{name: n1, addr: \"127.0.0.1:9\", role: primary}}]\n",
        node.addr()
    );
    let rest = format!(
        "check: {{type: tcp, interval: 200ms}}\nsessions: {{queue_timeout: 1h}}\nadmin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\n{UNWATCHED}listeners:\n"
    );
    let balancer = Balancer::start(&format!("{nodes}{rest}{RW}")).await;
    balancer.wait_health("n0", "up").await;
    let sessions: Vec<_> = (0..3).map(|_| try_login(balancer.rw())).collect();
    let waiting = async || balancer.status().await["listeners"][0]["waiting"].clone();
    wait_until("three to wait", async || waiting().await == 3).await;
    let changed = reloaded(&balancer, &format!("{nodes}{rest}{}", RW.replace("primary", "any"))).await;
    assert_eq!(changed, ["listeners.rw.target"]);
    for session in sessions {
        session.join_all().await.remove(0).unwrap();
    }
    wait_until("nobody to wait", async || waiting().await == 0).await;
    // Without the listener who waits there still does, and is told in the end.
    let back = format!("{nodes}{rest}{RW}").replace("1h", "1s");
    reloaded(&balancer, &back).await;
    let mut session = try_login(balancer.rw());
    wait_until("one to wait", async || waiting().await == 1).await;
    reloaded(&balancer, &format!("{nodes}{rest}  - {{name: other, bind: \"BALANCER:7000\", target: any}}\n"))
        .await;
    let refused = session.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(refused.code, "57P03", "{refused:?}");
}

#[tokio::test]
async fn the_file_is_watched() {
    let good = config(RW, "").await;
    let balancer = Balancer::start(&good).await;
    balancer.wait_ready().await;
    // Written in place.
    balancer.write(&(good.clone() + "log: {level: debug}\n"));
    let line = balancer.wait_log("config_reload", |line| line["by"] == "file").await;
    assert_eq!(line["changed"], "log.level");
    // Replaced, as editors do.
    let beside = balancer.config_path().with_extension("new");
    fs::write(&beside, fs::read(balancer.config_path()).unwrap()).unwrap();
    fs::rename(&beside, balancer.config_path()).unwrap();
    wait_reloads(&balancer, "unchanged", 1).await;
    // Touched.
    let now = std::time::SystemTime::now();
    let touched = fs::FileTimes::new().set_accessed(now).set_modified(now);
    fs::File::open(balancer.config_path()).unwrap().set_times(touched).unwrap();
    wait_reloads(&balancer, "unchanged", 2).await;
    assert_eq!(reloads(&balancer, "applied").await, 1);
    let events = balancer.log_lines().iter().filter(|line| line["event"] == "config_reload").count();
    assert_eq!(events, 1, "what is the same is no event");
    // A secret beside it, which comes later than the file that names it.
    let secret = balancer.config_path().with_file_name("token");
    balancer.write(&good.replace(&format!("token: {TOKEN}"), "token_file: token"));
    wait_reloads(&balancer, "failed", 1).await;
    fs::write(&secret, "canary-1111111111111111\n").unwrap();
    wait_reloads(&balancer, "applied", 2).await;
    fs::write(&secret, "canary-2222222222222222\n").unwrap();
    wait_reloads(&balancer, "applied", 3).await;
    let headers = [("authorization", "Bearer canary-2222222222222222")];
    let got = send(balancer.admin(), "POST", "/api/v1/reload", &headers, "").await;
    assert_eq!(got.status, 200, "the new token goes: {}", got.text());
    assert!(!balancer.err().contains("canary"), "and no log has one");
    // Until it is not to be watched any more.
    balancer.write(&(good.clone() + UNWATCHED));
    wait_reloads(&balancer, "applied", 4).await;
    balancer.write("nonsense");
    let got = send(
        balancer.admin(),
        "POST",
        "/api/v1/reload",
        &[("authorization", &format!("Bearer {TOKEN}"))],
        "",
    )
    .await;
    assert_eq!(got.status, 422);
    assert_eq!(reloads(&balancer, "failed").await, 2, "only when it was asked for");
}

#[tokio::test]
async fn a_swapped_link_is_a_new_file() {
    let good = config(RW, "").await;
    let balancer = Balancer::start(&good).await;
    balancer.wait_ready().await;
    // As Kubernetes mounts a ConfigMap.
    let path = balancer.config_path();
    let dir = path.parent().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    for (version, more) in [("..1", ""), ("..2", "log: {level: debug}\n")] {
        fs::create_dir(dir.join(version)).unwrap();
        fs::write(dir.join(version).join("config.yaml"), text.clone() + more).unwrap();
    }
    symlink("..1", dir.join("..data")).unwrap();
    symlink("..data/config.yaml", dir.join("link")).unwrap();
    fs::rename(dir.join("link"), &path).unwrap();
    wait_reloads(&balancer, "unchanged", 1).await;
    symlink("..2", dir.join("..next")).unwrap();
    fs::rename(dir.join("..next"), dir.join("..data")).unwrap();
    let line = balancer.wait_log("config_reload", |line| line["by"] == "file").await;
    assert_eq!(line["changed"], "log.level");
}

#[tokio::test]
async fn only_who_may_reloads_and_without_a_file_nobody_can() {
    let good = config(RW, UNWATCHED).await;
    let balancer = Balancer::start(&good).await;
    let refused = send(balancer.admin(), "POST", "/api/v1/reload", &[], "").await;
    assert_eq!(refused.status, 401);
    assert_eq!(send(balancer.admin(), "GET", "/api/v1/reload", &[], "").await.status, 405);
    let authorization = format!("Bearer {TOKEN}");
    let page = [("authorization", authorization.as_str()), ("origin", "http://evil.example")];
    assert_eq!(send(balancer.admin(), "POST", "/api/v1/reload", &page, "").await.status, 403);
    // What needs a restart is said each time until it is done.
    for _ in 0..2 {
        let (status, answer) = reload(&balancer, &good.replace("runtime: {", "runtime: {threads: 7, ")).await;
        assert_eq!((status, &answer["result"]), (200, &"unchanged".into()), "{answer}");
        assert_eq!(answer["changes"][0]["key"], "runtime.threads");
        assert_eq!(answer["changes"][0]["effect"], "needs_restart");
    }
    balancer.wait_log("config_needs_restart", |line| line["keys"] == "runtime.threads").await;
}

#[tokio::test]
async fn the_admin_address_moves_and_its_token_changes() {
    let good = config(RW, UNWATCHED).await;
    let balancer = Balancer::start(&good).await;
    let moved = good.replace("BALANCER:8404", "BALANCER:8405").replace(TOKEN, "another-0123456789");
    reloaded(&balancer, &moved).await;
    wait_until("the old address to be closed", async || is_closed(balancer.admin()).await).await;
    let host = balancer.at(8405).to_string();
    let headers = [("authorization", "Bearer another-0123456789"), ("host", host.as_str())];
    balancer.write(&good);
    let got = send(balancer.at(8405), "POST", "/api/v1/reload", &headers, "").await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert_eq!(reloaded(&balancer, &good).await, [""; 0]);
}

#[tokio::test]
async fn reloads_under_load_fail_no_transaction() {
    let balancer = Balancer::start(&config(&(RW.to_owned() + RO), UNWATCHED).await).await;
    balancer.wait_ready().await;
    let mut command = program("pgbench");
    let select = balancer.config_path().with_file_name("select.sql");
    fs::write(&select, "select 1;\n").unwrap();
    // `-C`: a new session for each transaction.
    command.args(["-n", "-C", "-c", "4", "-j", "2", "-T", "6", "-f"]).arg(&select);
    command.arg(conninfo(balancer.ro(), ""));
    let mut load = JoinSet::from_iter([async move { output(command).await }]);
    let mut n = 0;
    let ended = loop {
        n += 1;
        let ro = RO.replace(
            "}\n",
            &format!(
                ", max_connections: {}, balance: {}}}\n",
                100 + n,
                if n % 2 == 0 { "roundrobin" } else { "random" }
            ),
        );
        let more = format!(
            "{UNWATCHED}sessions: {{queue_size: {}, keepalive: {}}}\n",
            1000 + n,
            if n % 2 == 0 { "off" } else { "{idle: 30s}" }
        );
        let extra = if n % 3 == 0 { "  - {name: extra, bind: \"BALANCER:7000\", target: any}\n" } else { "" };
        reloaded(&balancer, &config(&(RW.to_owned() + &ro + extra), &more).await).await;
        if let Some(ended) = load.try_join_next() {
            break ended.unwrap();
        }
    };
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(ended.status.success() && said.contains("number of failed transactions: 0 "), "{said}");
    assert!(3 < n, "{n} reloads");
    assert_eq!(reloads(&balancer, "applied").await, n);
}

#[tokio::test]
async fn many_reloads_leave_nothing_behind() {
    let upstream = Upstream::named("a").await;
    let web = |n: u32| {
        format!(
            "http: {{bind: \"BALANCER:8080\", upstreams: [\"{}\"], max_in_flight: {}, {QUICK_FRONT}}}\n",
            upstream.addr(),
            100 + n % 2
        )
    };
    let configs = [0, 1].map(|n| {
        let extra = ["", "  - {name: extra, bind: \"BALANCER:7000\", target: any}\n"][n as usize];
        (extra, web(n))
    });
    let mut texts = Vec::new();
    for (extra, web) in configs {
        let sessions = format!("sessions: {{queue_size: {}}}\n", 1000 + extra.len());
        texts.push(config(&(RW.to_owned() + extra), &(UNWATCHED.to_owned() + &sessions + &web)).await);
    }
    let balancer = Balancer::start(&texts[0]).await;
    let client = connect(balancer.rw()).await.unwrap();
    // Once round, so that everything there ever is has been there.
    for text in texts.iter().rev() {
        reloaded(&balancer, text).await;
    }
    let figures = async || {
        let proc = format!("/proc/{}", balancer.pid());
        let fds = fs::read_dir(format!("{proc}/fd")).unwrap().count();
        let threads = fs::read_dir(format!("{proc}/task")).unwrap().count();
        let metrics = balancer.metrics().await;
        let series: BTreeSet<_> = metrics
            .lines()
            // How far a standby is behind is shown once it is known.
            .filter(|line| !line.starts_with('#') && !line.contains("_lag_"))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, _)| name.to_owned())
            .collect();
        (fds, threads, series)
    };
    let (fds, threads, series) = figures().await;
    for n in 0..50 {
        reloaded(&balancer, &texts[(n + 1) % 2]).await;
    }
    wait_until("descriptors and threads to be as few as before", async || {
        let now = figures().await;
        // What looks at this takes a few itself.
        if now.0 <= fds + 3 && now.1 <= threads + 1 { Ok(()) } else { Err((now.0, now.1, fds, threads)) }
    })
    .await;
    let now = figures().await.2;
    let fresh: Vec<_> = now.difference(&series).collect();
    assert!(fresh.is_empty(), "{fresh:?}");
    assert_eq!(value(&client, "select 5").await.unwrap(), "5");
    assert_eq!(try_get(balancer.at(8080), "/").await.unwrap().status, 200);
}

const QUICK_FRONT: &str = "check: {interval: 200ms, fast_interval: 50ms}";

#[tokio::test]
async fn a_front_changes_under_load_and_no_request_fails() {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let config = |upstreams: &[SocketAddr], more: &str| {
        front(upstreams, &format!("{QUICK}{more}"))
            + &format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\n{UNWATCHED}")
    };
    let both = [a.addr(), b.addr()];
    let balancer = Balancer::start_front(&config(&both, "")).await;
    let idle = Web::connect(balancer.front()).await.unwrap();
    assert_eq!(idle.get("/").await.unwrap().status, 200);
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let mut load = JoinSet::new();
    for h2 in [false, true, false, true] {
        let (addr, stop, served) = (balancer.front(), Arc::clone(&stop), Arc::clone(&served));
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let web = if h2 { Web::connect_h2(addr).await } else { Web::connect(addr).await }.unwrap();
                // As long as the connection is not to be closed: then a client takes another one.
                loop {
                    match web.get("/").await {
                        Ok(got) => {
                            assert_eq!(got.status, 200, "{}", got.text());
                            let n = served.fetch_add(1, Ordering::Relaxed);
                            if got.header("connection").eq_ignore_ascii_case("close") || n % 16 == 15 {
                                break;
                            }
                        }
                        Err(error) if h2 && is_polite(&error) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
    }
    for n in 0..12 {
        let upstreams = if n % 2 == 0 { &both[..1] } else { &both[..] };
        let before = served.load(Ordering::Relaxed);
        let changed = reloaded(&balancer, &config(upstreams, &format!("max_in_flight: {}\n", 500 + n))).await;
        assert!(!changed.is_empty());
        wait_until("some to be served by it", async || before + 8 < served.load(Ordering::Relaxed)).await;
    }
    stop.store(true, Ordering::Relaxed);
    load.join_all().await;
    wait_until("the idle connection of the first front to be closed", async || idle.get("/").await.is_err())
        .await;
    let metrics = balancer.metrics().await;
    assert!(metrics.contains("upstream=\""), "{metrics}");
}

/// Whether a request was not begun because the connection is to be closed: a client sends it on another one.
fn is_polite(error: &str) -> bool {
    ["GOAWAY", "NO_ERROR", "closed", "Closed", "canceled", "Canceled", "not ready", "connection error"]
        .iter()
        .any(|word| error.contains(word))
}

#[tokio::test]
async fn fronts_come_and_go() {
    let upstream = Upstream::named("a").await;
    let plain = config(RW, UNWATCHED).await;
    let balancer = Balancer::start(&plain).await;
    let web = format!(
        "http: {{bind: \"BALANCER:8080\", upstreams: [\"{}\"], listener: rw, {QUICK_FRONT}}}\n",
        upstream.addr()
    );
    reloaded(&balancer, &(plain.clone() + &web)).await;
    let open = Web::connect(balancer.at(8080)).await.unwrap();
    wait_until("the front to serve", async || open.get("/").await.is_ok_and(|got| got.status == 200)).await;
    assert_eq!(names(&balancer.status().await, "http"), ["http"]);
    // What is not the front's is not the front's business, though it shares the log.
    reloaded(
        &balancer,
        &(plain.clone() + &web + "log: {requests: errors}\ncheck_: \n").replace("check_: \n", ""),
    )
    .await;
    assert_eq!(open.get("/").await.unwrap().status, 200, "the same connection");
    reloaded(&balancer, &plain).await;
    wait_until("nobody to listen there", async || is_closed(balancer.at(8080)).await).await;
    wait_until("the connection to be closed", async || open.get("/").await.is_err()).await;
    assert!(!balancer.metrics().await.contains("pgsplit_http_ready{"));
}

#[tokio::test]
async fn a_stop_waits_for_who_must_be_told_first() {
    let balancer = Balancer::start(&config(RW, "runtime: {drain_delay: 1h}\n").await).await;
    balancer.wait_ready().await;
    balancer.signal(Signal::TERM);
    wait_until("readiness to be denied", async || {
        balancer.get("/readyz").await.is_ok_and(|got| got.0 == 503)
    })
    .await;
    connect(balancer.rw()).await.unwrap();
    balancer.signal(Signal::TERM);
    assert!(balancer.wait_exit(Duration::from_secs(20)).await.success());
}

/// The names of the nodes that are there.
async fn nodes(balancer: &Balancer) -> Vec<String> {
    names(&balancer.status().await, "nodes")
}

#[tokio::test]
async fn a_node_comes_and_one_goes_and_the_others_do_not_notice() {
    let cluster = shared().await;
    let gate = Gate::start(cluster.standby(0).addr()).await;
    let node = |name: &str, addr: SocketAddr| format!("  - {{name: {name}, addr: \"{addr}\"}}\n");
    let both = node("n0", cluster.primary().addr()) + &node("n1", gate.addr());
    let all = both.clone() + &node("n2", cluster.standby(1).addr());
    let file = |nodes: &str| {
        let admin = format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\n");
        format!("nodes:\n{nodes}{}{admin}{UNWATCHED}listeners:\n{RW}{RO}", quick_checks())
    };
    let balancer = Balancer::start(&file(&both)).await;
    balancer.wait_ready().await;
    let (rw, ro) = (connect(balancer.rw()).await.unwrap(), connect(balancer.ro()).await.unwrap());
    let before = pid_of(&rw).await;
    assert_eq!(reloaded(&balancer, &file(&all)).await, ["nodes.n2"]);
    balancer.wait_health("n2", "up").await;
    balancer.wait_role("n2", "standby").await;
    let second = connect(balancer.ro()).await.unwrap();
    assert_eq!(which_node(&second).await.unwrap(), cluster.standby(1).addr().ip(), "it takes sessions");

    // The node of the first reader goes: that one ends between two transactions, and nobody else.
    let without = node("n0", cluster.primary().addr()) + &node("n2", cluster.standby(1).addr());
    value(&ro, "begin; select 1").await.unwrap();
    assert_eq!(reloaded(&balancer, &file(&without)).await, ["nodes.n1"]);
    assert_eq!(nodes(&balancer).await, ["n0", "n2"]);
    assert_eq!(value(&ro, "select 2").await.unwrap(), "2", "its transaction goes on");
    // The client may hear that it is over with the answer, or find the connection closed.
    let _ = value(&ro, "commit; select 3").await;
    wait_until("the session on the node that is gone to end", async || ro.is_closed()).await;
    assert_eq!(pid_of(&rw).await, before);
    assert_eq!(value(&second, "select 4").await.unwrap(), "4");
    for _ in 0..4 {
        let reader = connect(balancer.ro()).await.unwrap();
        assert_eq!(which_node(&reader).await.unwrap(), cluster.standby(1).addr().ip());
    }
    assert!(!balancer.metrics().await.contains("pgsplit_node_up{node=\"n1\"}"), "it is not there");
}

#[tokio::test]
async fn a_cluster_before_the_first_takes_none_of_its_figures() {
    let node = format!("{{name: n0, addr: \"{}\", role: primary}}", shared().await.primary().addr());
    let other = FakeNode::healthy(false).await;
    let other = format!("{{name: n1, addr: \"{}\", role: primary}}", other.addr());
    let file = |clusters: &str| {
        let admin = format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\n");
        let rw = RW.replace("name: rw", "name: rw, cluster: main");
        format!("clusters:\n{clusters}{admin}{UNWATCHED}listeners:\n{rw}")
    };
    let main = format!("  main: {{nodes: [{node}]}}\n");
    let balancer = Balancer::start(&file(&main)).await;
    balancer.wait_ready().await;
    let first = format!("  first: {{nodes: [{other}]}}\n");
    assert!(!reloaded(&balancer, &file(&(first + &main))).await.is_empty());
    drop(connect(balancer.rw()).await.unwrap());
    let status = balancer.status().await;
    let node = status["nodes"].as_array().unwrap().iter().find(|node| node["name"] == "n0").unwrap();
    assert!(node["connect_p99_seconds"].is_number(), "{node}");
}
