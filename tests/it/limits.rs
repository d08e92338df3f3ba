//! What pgsplit does at its own limits: descriptors, a crowd at the door, a full disk, a clock that jumps, signals.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::balancer::{Balancer, sum};
use crate::support::client::{background, connect, value};
use crate::support::cluster::{config_for, patient};
use crate::support::home;
use crate::support::postgres::{Postgres, Settings};
use crate::support::process::Signal;
use crate::support::upstream::Upstream;
use crate::support::wait::{wait_at_most, wait_until};
use crate::support::wire::{ServerError, Wire, startup, terminate};
use crate::tools::{output, whole};

/// File descriptors a process has open.
fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Processor time a process has used, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = after_name.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Lets a process have no more than `files` open, and gives what it might have before.
fn limit_files(pid: u32, files: Rlimit) -> Rlimit {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    prlimit(pid, Resource::Nofile, files).unwrap()
}

/// Descriptors this process may have: as many as the system lets it.
fn room() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if raised.is_ok() { maximum } else { current }.unwrap_or(u64::MAX)
}

/// Lets time pass, as a condition of its own.
async fn for_a_while(time: Duration) {
    let began = Instant::now();
    wait_until("time to pass", async || time < began.elapsed()).await;
}

/// Accepted connections that are not counted as anything else.
async fn unaccounted(balancer: &Balancer) -> i64 {
    let metrics = balancer.metrics().await;
    let of = |name: &str| whole(sum(&metrics, &format!("pgsplit_{name}")));
    let counted: i64 = [
        "connections_rejected_total",
        "connections_left_total",
        "connections_opening",
        "cancel_requests_total",
        "sessions_total",
        "sessions_active",
        "session_panics_total",
    ]
    .map(of)
    .iter()
    .sum();
    of("connections_accepted_total") - counted
}

/// A session with a real server.
async fn log_in(addr: SocketAddr) -> std::io::Result<Result<Wire, ServerError>> {
    let mut wire = Wire::connect(addr).await?;
    Ok(wire.login("postgres", "postgres").await?.map(|_| wire))
}

/// The log, once that many sessions at least have ended so.
async fn wait_ends(balancer: &Balancer, end: &str, sessions: usize) -> Vec<serde_json::Value> {
    wait_until("the lines of all sessions", async || {
        let lines = balancer.log_lines();
        let ended = lines.iter().filter(|line| line["end"] == end).count();
        if sessions <= ended { Ok(lines) } else { Err(ended) }
    })
    .await
}

/// Clients that ask all the time, and what became of them.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    /// How each ended; `Ok`: because it was told to, with a good-bye.
    clients: JoinSet<std::io::Result<()>>,
}

impl Load {
    async fn start(addr: SocketAddr, clients: usize) -> Self {
        let (stop, answers) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut set = JoinSet::new();
        for _ in 0..clients {
            let mut wire = log_in(addr).await.unwrap().unwrap();
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            let client = async move {
                while !stop.load(Ordering::Relaxed) {
                    let got = wire.query("select 7 from pg_sleep(0.002)").await?;
                    assert_eq!(got.iter().map(|message| message.tag).collect::<Vec<_>>(), b"TDCZ");
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                wire.send(&terminate()).await?;
                wire.rest().await.map(drop)
            };
            set.spawn_on(client, background().handle());
        }
        Self { stop, answers, clients: set }
    }

    /// Waits until there have been so many more answers.
    async fn go_on(&self, answers: u64) {
        let goal = self.answers.load(Ordering::Relaxed) + answers;
        wait_until("the load to go on", async || goal <= self.answers.load(Ordering::Relaxed)).await;
    }

    fn is_whole(&self, clients: usize) -> bool {
        self.clients.len() == clients && !self.stop.load(Ordering::Relaxed)
    }

    async fn end(self) -> Vec<std::io::Result<()>> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await
    }
}

#[tokio::test]
async fn who_finds_no_descriptor_left_is_told_and_nothing_else_suffers() {
    const LIMIT: u32 = 300;
    let server = Postgres::start_new(Settings::default().max_connections(200)).await;
    let config = patient(&config_for([server.addr()]), "") + "runtime: {threads: 2}\n";
    let limit = format!("--nofile={LIMIT}:{LIMIT}");
    let balancer = Balancer::start_under(&["prlimit", &limit], &config, &[]).await;
    balancer.wait_ready().await;
    let before = descriptors(balancer.pid());
    let mut sessions = Vec::new();
    let refused = loop {
        match log_in(balancer.rw()).await.unwrap() {
            Ok(session) => sessions.push(session),
            Err(error) => break error,
        }
    };
    assert!((80..100).contains(&sessions.len()), "{}", sessions.len());
    assert_eq!((refused.severity.as_str(), refused.code.as_str()), ("FATAL", "53300"));
    assert!(refused.message.contains("may open 300 files"), "{refused:?}");

    // A crowd of them, again and again, is answered one and all, and costs next to nothing.
    let checks = balancer.metric("pgsplit_node_checks_total").await;
    let (began, used) = (Instant::now(), ticks(balancer.pid()));
    for _ in 0..10 {
        let crowd = (0..20).map(|_| log_in(balancer.rw()));
        for answer in crowd.collect::<JoinSet<_>>().join_all().await {
            assert_eq!(answer.unwrap().unwrap_err().code, "53300");
        }
        assert_eq!(balancer.get("/healthz").await.unwrap().0, 200);
    }
    wait_until("checks to go on", async || {
        let now = balancer.metric("pgsplit_node_checks_total").await;
        if checks + 5.0 < now { Ok(()) } else { Err((checks, now)) }
    })
    .await;
    let used = ticks(balancer.pid()) - used;
    let share = 0.01 * f64::from(u32::try_from(used).unwrap()) / began.elapsed().as_secs_f64();
    assert!(share < 0.5, "{share} of a processor");
    assert_eq!(balancer.node("n0").await["health"], "up");

    // One leaves, one comes, at once: the place is there when the server has seen the good-bye.
    for _ in 0..5 {
        let mut leaving = sessions.pop().unwrap();
        leaving.send(&terminate()).await.unwrap();
        leaving.rest().await.unwrap();
        drop(leaving);
        let came = wait_until("a place", async || log_in(balancer.rw()).await.unwrap()).await;
        sessions.push(came);
    }
    for session in &mut sessions {
        session.query("select 1").await.unwrap();
    }
    drop(sessions);
    wait_until("all descriptors to be back", async || {
        let now = descriptors(balancer.pid());
        if now <= before + 4 { Ok(()) } else { Err((before, now)) }
    })
    .await;
    assert_eq!(unaccounted(&balancer).await, 0);
}

/// Holds all connections that it can.
async fn hold(addr: SocketAddr, connections: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..connections {
        all.push(TcpStream::connect(addr).await.unwrap());
    }
    all
}

#[tokio::test]
async fn whoever_takes_descriptors_leaves_some_for_checks_and_the_admin_address() {
    let server = Postgres::start_new(Settings::default().max_connections(200)).await;
    let upstream = Upstream::named("a").await;
    let front = format!(
        "runtime: {{threads: 2}}\nhttp: {{bind: \"BALANCER:8080\", upstreams: [\"{}\"], check: {{interval: 200ms}}}}\n",
        upstream.addr()
    );
    // With so few threads that the smaller limit is enough.
    for limit in [64, 256] {
        let config = patient(&config_for([server.addr()]), "") + &front;
        let files = format!("--nofile={limit}:{limit}");
        let balancer = Balancer::start_under(&["prlimit", &files], &config, &[]).await;
        balancer.wait_ready().await;
        let is_well = async |what: &str| {
            let checks = balancer.metric("pgsplit_node_checks_total").await;
            for path in ["/healthz", "/readyz"] {
                let answer = balancer.get(path).await;
                assert_eq!(answer.unwrap().0, 200, "{path} with {limit} and {what}");
            }
            wait_until("checks to go on", async || {
                checks + 5.0 < balancer.metric("pgsplit_node_checks_total").await
            })
            .await;
        };
        let web = hold(balancer.front(), limit + 4).await;
        let silent = hold(balancer.admin(), 100).await;
        is_well("HTTP clients").await;
        drop((web, silent));

        let mut sessions = Vec::new();
        wait_until("the first session", async || {
            log_in(balancer.rw()).await.ok()?.ok().map(|one| sessions.push(one))
        })
        .await;
        while let Ok(session) = log_in(balancer.rw()).await.unwrap() {
            sessions.push(session);
        }
        let idle = hold(balancer.ro(), limit * 3 / 5).await;
        let silent = hold(balancer.admin(), 100).await;
        is_well("sessions and idle clients").await;
        println!("{limit}: {} sessions, {} files open", sessions.len(), descriptors(balancer.pid()));
        for line in balancer.log_lines() {
            let event = line["event"].as_str().unwrap();
            assert!(
                !["admin_accept_failed", "upstream_not_checked", "node_not_checked"].contains(&event),
                "{line}"
            );
            assert!(!line.to_string().contains("Too many open files"), "{line}");
        }
        drop((sessions, idle, silent));
    }
}

#[tokio::test]
async fn who_cannot_be_connected_for_want_of_a_descriptor_is_told_so() {
    let server = Postgres::start_new(Settings::default()).await;
    let config = patient(&config_for([server.addr()]), ", queue_timeout: 1s");
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wait_until("it to be accepted", async || {
        whole(balancer.metric("pgsplit_connections_opening").await) == 1
    })
    .await;
    // Fewer than it has open already.
    let had = limit_files(
        balancer.pid(),
        Rlimit { current: Some(8), maximum: getrlimit(Resource::Nofile).maximum },
    );
    let refused = wire.login("postgres", "postgres").await.unwrap().unwrap_err();
    limit_files(balancer.pid(), had);
    assert_eq!((refused.severity.as_str(), refused.code.as_str()), ("FATAL", "53300"));
    assert!(refused.message.contains("may open"), "{refused:?}");
    log_in(balancer.rw()).await.unwrap().unwrap().query("select 1").await.unwrap();
}

#[tokio::test]
async fn without_any_descriptor_it_waits_calmly_and_recovers() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&patient(&config_for([server.addr()]), "")).await;
    balancer.wait_ready().await;
    let mut session = log_in(balancer.rw()).await.unwrap().unwrap();
    // Whatever else of the process should take them: the accounting knows nothing of it.
    let open = u64::try_from(descriptors(balancer.pid())).unwrap();
    let had = getrlimit(Resource::Nofile);
    let had = limit_files(balancer.pid(), Rlimit { current: Some(open), maximum: had.maximum });
    let used = ticks(balancer.pid());
    let began = Instant::now();
    let rw = balancer.rw();
    let newcomers = (0..5).map(|_| log_in(rw)).collect::<JoinSet<_>>();
    let line = balancer.wait_log("accept_failed", |_| true).await;
    assert!(line["error"].as_str().unwrap().contains("open files"), "{line}");
    for_a_while(Duration::from_secs(2)).await;
    session.query("select 1").await.unwrap();
    let used = ticks(balancer.pid()) - used;
    let took = began.elapsed();
    limit_files(balancer.pid(), had);
    assert!(used < 100, "{used} ticks in {took:?}");
    for newcomer in newcomers.join_all().await {
        newcomer.unwrap().unwrap().query("select 1").await.unwrap();
    }
    // Ten tries a second, and a line for the first of them. A check that could not be made says nothing of the node.
    let failed = balancer.metric("pgsplit_accept_errors_total").await;
    assert!(failed <= took.as_secs_f64() * 10.0 * 2.0 + 10.0, "{failed} in {took:?}");
    let lines = balancer.log_lines();
    assert_eq!(lines.iter().filter(|line| line["event"] == "accept_failed").count(), 1);
    assert!(!lines.iter().any(|line| line["event"] == "node_state" && line["to"] == "down"));
}

#[tokio::test]
async fn clients_that_say_nothing_keep_nobody_out() {
    // Each is one descriptor here, too.
    let (limit, clients) = if 12_000 < room() { (4000, 4500) } else { (1000, 1200) };
    let server = Postgres::start_new(Settings::default()).await;
    let files = format!("--nofile={limit}:{limit}");
    let config = patient(&config_for([server.addr()]), ", startup_timeout: 1m");
    let balancer = Balancer::start_under(&["prlimit", &files], &config, &[]).await;
    balancer.wait_ready().await;
    // Holds all it can: whoever is shown out comes back. Every other one has sent half a startup packet.
    let rw = balancer.rw();
    let mut silent = JoinSet::new();
    for number in 0..clients {
        let client = async move {
            loop {
                if let Ok(mut wire) = Wire::connect(rw).await {
                    if number % 2 == 0 {
                        let _ = wire.send(&startup(&[("user", "postgres")])[..10]).await;
                    }
                    let _ = wire.stream().readable().await;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        silent.spawn_on(client, background().handle());
    }
    let opening = async || whole(balancer.metric("pgsplit_connections_opening").await);
    wait_until("it to hold what it can", async || {
        let now = opening().await;
        if now < limit * 2 / 5 { Err(now) } else { Ok(()) }
    })
    .await;
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        wait_until("a client that speaks to be served", async || {
            let mut wire = log_in(balancer.rw()).await.ok()?.ok()?;
            wire.query("select 1").await.ok().map(drop)
        })
        .await;
        slowest = slowest.max(began.elapsed());
    }
    println!("the slowest of 20 clients was served after {slowest:?}; {} are silent", opening().await);
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    silent.shutdown().await;
    wait_until("all to be gone", async || opening().await == 0).await;
    // Only who has spoken was given a connection to a node.
    let reached = balancer.metric("pgsplit_sessions_total").await;
    assert!(whole(reached) < 100, "{reached}");
    assert_eq!(unaccounted(&balancer).await, 0);
}

#[tokio::test]
async fn in_a_storm_of_connections_everybody_gets_an_answer() {
    // Each is one descriptor here.
    let clients =
        if getrlimit(Resource::Nofile).current.is_none_or(|most| 8000 < most) { 5000_i64 } else { 500 };
    let server = Postgres::start_new(Settings::default().max_connections(50)).await;
    let nodes = config_for([server.addr()]).replace("name: n0,", "name: n0, max_connections: 40,");
    // Room for all, so that those wait who may, for as long as a busy machine takes, and only the rest is sent away.
    let listener =
        "listeners: [{name: rw, bind: \"BALANCER:6432\", target: primary, max_connections: 10000}]\n";
    let balancer = Balancer::start(&(patient(&nodes, ", queue_timeout: 1m") + listener)).await;
    balancer.wait_ready().await;
    let before = descriptors(balancer.pid());
    let mut storm = JoinSet::new();
    let rw = balancer.rw();
    for _ in 0..clients {
        storm.spawn_on(
            async move {
                let mut wire = match log_in(rw).await? {
                    Ok(wire) => wire,
                    Err(refused) => return Ok::<_, std::io::Error>(Err(refused)),
                };
                wire.query("select 1").await?;
                wire.send(&terminate()).await?;
                wire.rest().await?;
                Ok(Ok(()))
            },
            background().handle(),
        );
    }
    let answers = storm.join_all().await;
    let mut served = 0_i64;
    let mut refused = std::collections::BTreeMap::<_, usize>::new();
    for answer in answers {
        match answer.unwrap() {
            Ok(()) => served += 1,
            Err(error) => {
                assert!(matches!(error.code.as_str(), "53300" | "57P03"), "{error:?}");
                assert!(error.severity == "FATAL" && !error.message.is_empty(), "{error:?}");
                *refused.entry(error.code + " " + &error.message).or_default() += 1;
            }
        }
    }
    println!("{clients} clients: {served} served, refused: {refused:?}");
    assert!(1000.min(clients) <= served, "{served}");
    let metrics = wait_until("all to be over", async || {
        let metrics = balancer.metrics().await;
        let left = sum(&metrics, "pgsplit_sessions_active") + sum(&metrics, "pgsplit_connections_opening");
        if whole(left) == 0 { Ok(metrics) } else { Err(left) }
    })
    .await;
    assert_eq!(unaccounted(&balancer).await, 0);
    assert_eq!(whole(sum(&metrics, "pgsplit_connections_accepted_total")), clients);
    assert_eq!(whole(sum(&metrics, "pgsplit_node_sessions_active")), 0);
    wait_until("all descriptors to be back", async || {
        let now = descriptors(balancer.pid());
        if now <= before + 4 { Ok(()) } else { Err((before, now)) }
    })
    .await;
    assert_eq!(balancer.node("n0").await["health"], "up");
}

#[tokio::test]
async fn a_full_disk_costs_log_lines_and_no_session() {
    let server = Postgres::start_new(Settings::default()).await;
    let full = File::options().write(true).open("/dev/full").unwrap();
    let config = config_for([server.addr()]) + "log: {sessions: both}\n";
    let balancer = Balancer::launch_logging_to(full, &config, &[]);
    wait_until("a node", async || balancer.get("/readyz").await.is_ok_and(|(code, _)| code == 200)).await;
    for _ in 0..20 {
        log_in(balancer.rw()).await.unwrap().unwrap().query("select 1").await.unwrap();
    }
    wait_until("lost lines to be counted", async || {
        let lost = balancer.metric("pgsplit_log_lines_dropped_total").await;
        // Two for each session, and those of the start.
        if 40.0 < lost { Ok(()) } else { Err(lost) }
    })
    .await;
    balancer.signal(Signal::TERM);
    assert_eq!(balancer.wait_exit(Duration::from_secs(15)).await.code(), Some(0));
}

/// The library that fakes the time of a program.
fn libfaketime() -> String {
    let dirs = fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let dirs = dirs.chain(["/usr/lib".into(), "/usr/lib64".into(), "/usr/local/lib".into()]);
    let mut paths = dirs.map(|dir: std::path::PathBuf| dir.join("faketime/libfaketimeMT.so.1"));
    let path = paths.find(|path| path.is_file());
    let path = path.unwrap_or_else(|| {
        panic!("libfaketime is missing: run `make programs`, or install the package `faketime` by hand")
    });
    path.display().to_string()
}

#[tokio::test]
async fn a_clock_that_jumps_ends_no_session_and_takes_no_node_down() {
    const CLIENTS: usize = 8;
    let server = Postgres::start_new(Settings::default()).await;
    let offset = home::directory("clock").join("offset");
    let set = |text: &str| {
        let next = offset.with_extension("next");
        fs::write(&next, text).unwrap();
        fs::rename(&next, &offset).unwrap();
    };
    set("+0");
    let variables = [
        ("LD_PRELOAD", &*libfaketime()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let balancer = Balancer::start_with(&patient(&config_for([server.addr()]), ""), &variables).await;
    balancer.wait_ready().await;
    let load = Load::start(balancer.rw(), CLIENTS).await;
    let began = Instant::now();
    let checks = balancer.metric("pgsplit_node_checks_total").await;
    for seconds in [7200_i32, -7200, 0, -7200, 7200, 0] {
        set(&format!("{seconds:+}"));
        wait_until("its clock to have jumped", async || {
            let seen = balancer.metric("pgsplit_node_last_check_timestamp_seconds").await;
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let off = seen - now.as_secs_f64() - f64::from(seconds);
            if off.abs() < 600.0 { Ok(()) } else { Err(off) }
        })
        .await;
        load.go_on(200).await;
        let client = connect(balancer.rw()).await.unwrap();
        assert_eq!(value(&client, "select 1").await.unwrap(), "1", "a new session at {seconds:+} s");
        assert!(load.is_whole(CLIENTS), "at {seconds:+} s");
    }
    // One every 200 ms, and a few that real sessions may bring about.
    let made = balancer.metric("pgsplit_node_checks_total").await - checks;
    let most = began.elapsed().as_secs_f64() * 5.0 * 2.0 + 10.0;
    assert!(made < most, "{made} checks in {:?}", began.elapsed());
    for ended in load.end().await {
        ended.unwrap();
    }
    let lines = wait_ends(&balancer, "client", CLIENTS).await;
    let bad = |line: &&serde_json::Value| line["event"] == "node_state" && line["to"] != "up";
    assert_eq!(lines.iter().filter(bad).count(), 0);
    for end in lines.iter().filter(|line| line["event"] == "session_end") {
        assert_eq!(end["end"], "client", "{end}");
        let lasted = end["duration_s"].as_f64().unwrap();
        assert!((0.0..=began.elapsed().as_secs_f64() + 1.0).contains(&lasted), "{end}");
    }
    let metrics = balancer.metrics().await;
    assert!(sum(&metrics, "pgsplit_node_down_seconds_total").abs() < 0.001);
    for line in metrics.lines().filter(|line| !line.starts_with('#') && line.contains("_seconds")) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        let most = if name.contains("timestamp") || name.contains("start_time") { f64::MAX } else { 3600.0 };
        assert!((0.0..most).contains(&value), "{line}");
    }
}

#[tokio::test]
async fn a_name_that_no_longer_resolves_keeps_its_addresses() {
    let server = Postgres::start_new(Settings::default()).await;
    let hosts = home::directory("hosts").join("hosts");
    fs::write(&hosts, format!("{} db.pgsplit.test\n", server.addr().ip())).unwrap();
    let file = hosts.to_str().unwrap();
    // A mount of its own: the rest of the machine keeps its /etc/hosts.
    let words = ["unshare", "--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\"", file];
    let mut try_it = std::process::Command::new(words[0]);
    try_it.args(&words[1..]).arg("true");
    if !output(try_it).await.status.success() {
        println!("SKIPPED: no mount namespaces here");
        return;
    }
    let name = format!("db.pgsplit.test:{}", server.addr().port());
    let config =
        config_for([server.addr()]).replace(&format!("\"{}\"", server.addr()), &format!("\"{name}\""));
    assert!(config.contains(&name));
    let config = config.replace("timeout: 500ms", "timeout: 5s");
    let balancer = Balancer::start_under(&words, &config, &[]).await;
    balancer.wait_ready().await;
    // The same file, or the mount would still show the old one.
    fs::write(&hosts, "").unwrap();
    let mut ask = std::process::Command::new("nsenter");
    ask.args(["--mount", "--target", &balancer.pid().to_string(), "getent", "hosts", "db.pgsplit.test"]);
    assert!(!output(ask).await.status.success(), "the name still leads somewhere");
    let checks = balancer.metric("pgsplit_node_checks_total").await;
    wait_at_most(Duration::from_secs(60), "several checks", async || {
        let now = balancer.metric("pgsplit_node_checks_total").await;
        if checks + 5.0 <= now { Ok(()) } else { Err((checks, now)) }
    })
    .await;
    for _ in 0..5 {
        log_in(balancer.rw()).await.unwrap().unwrap().query("select 1").await.unwrap();
    }
    assert_eq!(balancer.node("n0").await["health"], "up");
    let lines = balancer.log_lines();
    assert!(!lines.iter().any(|line| line["event"] == "node_state" && line["to"] == "down"));
}

#[tokio::test]
async fn sigterm_under_load_lets_everybody_finish() {
    const CLIENTS: usize = 20;
    let server = Postgres::start_new(Settings::default()).await;
    let config = patient(&config_for([server.addr()]), "") + "runtime: {drain_timeout: 1h}\n";
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let load = Load::start(balancer.rw(), CLIENTS).await;
    balancer.signal(Signal::TERM);
    let line = balancer.wait_log("draining", |_| true).await;
    assert_eq!(line["sessions"], CLIENTS, "{line}");
    wait_until("nobody to be let in", async || match Wire::connect(balancer.rw()).await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(other),
    })
    .await;
    load.go_on(500).await;
    assert!(load.is_whole(CLIENTS));
    for ended in load.end().await {
        ended.unwrap();
    }
    assert_eq!(balancer.wait_exit(Duration::from_secs(15)).await.code(), Some(0));
    let lines = wait_ends(&balancer, "client", CLIENTS).await;
    assert!(!lines.iter().any(|line| line["event"] == "sessions_cut"));
}

#[tokio::test]
async fn a_second_sigterm_under_load_ends_it() {
    const CLIENTS: usize = 20;
    let server = Postgres::start_new(Settings::default()).await;
    let config = patient(&config_for([server.addr()]), "") + "runtime: {drain_timeout: 1h}\n";
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let load = Load::start(balancer.rw(), CLIENTS).await;
    balancer.signal(Signal::TERM);
    balancer.wait_log("draining", |_| true).await;
    load.go_on(100).await;
    balancer.signal(Signal::TERM);
    assert_eq!(balancer.wait_exit(Duration::from_secs(15)).await.code(), Some(0));
    for ended in load.clients.join_all().await {
        ended.unwrap_err();
    }
    wait_ends(&balancer, "drain", CLIENTS).await;
}

#[tokio::test]
async fn after_a_kill_it_serves_again_at_once() {
    const CLIENTS: usize = 20;
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&patient(&config_for([server.addr()]), "")).await;
    balancer.wait_ready().await;
    let load = Load::start(balancer.rw(), CLIENTS).await;
    load.go_on(100).await;
    let began = Instant::now();
    balancer.kill9_and_start_again().await;
    // Nobody tries twice: the addresses could be bound, and who comes before the first check waits for it.
    let mut again = log_in(balancer.rw()).await.unwrap().unwrap();
    again.query("select 1").await.unwrap();
    println!("served {:?} after the kill", began.elapsed());
    for ended in load.clients.join_all().await {
        ended.unwrap_err();
    }
}
