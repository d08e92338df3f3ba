//! A long run in which everything goes wrong, one thing after the other, while clients look for what must never be.
//!
//! [`schedule`] says what goes wrong, from a seed; [`faults`] does it; [`clients`] work meanwhile, each over a [`session`]
//! that takes nothing on trust; the [`ledger`] compares. A short run is part of the suite. A long one is `make soak`;
//! `SEED=… SECONDS=…` say which and how long.
//!
//! Time passes here on purpose: how long a fault lasts and how fast a client works are no waits for a condition.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    unreachable_pub,
    reason = "tests"
)]

mod clients;
mod faults;
mod ledger;
mod log;
mod schedule;
mod session;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use self::clients::{Role, World};
use self::faults::Stage;
use self::ledger::{Ledger, growth_per_hour};
use self::log::Log;
use self::schedule::Schedule;
use crate::counters::both_sides;
use crate::support::balancer::{Balancer, sum};
use crate::support::client::{PASSWORD, background};
use crate::support::cluster::{Cluster, gates};
use crate::support::gate::Gate;
use crate::support::postgres::Settings;
use crate::support::wait::{wait_at_most, wait_until};
use crate::tools::{memory, whole};

/// Clients wait for a primary at most so long; each wait of ours is 20 s.
const QUEUE_TIMEOUT: &str = "15s";

/// A shorter run says nothing about memory: what was needed once is kept, and the worst moment comes late.
const LONG: Duration = Duration::from_secs(45 * 60);

/// Bytes by which the process may grow in an hour.
const GROWTH: f64 = 1024.0 * 1024.0;

#[tokio::test]
async fn nothing_that_must_not_be_happens_while_everything_goes_wrong() {
    run(number("SEED").unwrap_or_else(|| fastrand::u64(..1_000_000)), Duration::from_secs(40)).await;
}

#[tokio::test]
#[ignore = "takes as long as SECONDS says: `make soak`"]
async fn for_an_hour_nothing_that_must_not_be_happens() {
    let seconds = number("SECONDS").unwrap_or(3600);
    run(number("SEED").unwrap_or_else(|| fastrand::u64(..1_000_000)), Duration::from_secs(seconds)).await;
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().filter(|text| !text.is_empty()).map(|text| text.parse().expect("a number"))
}

/// Tells the story of a run that ends in a panic, whoever panics.
struct Story(Arc<Ledger>);

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.report());
        }
    }
}

async fn run(seed: u64, lasts: Duration) {
    eprintln!("SEED={seed} SECONDS={}", lasts.as_secs());
    let settings = Settings::default()
        .max_connections(80)
        // Readers must not be in the way of replay, nor replay in theirs.
        .option("hot_standby_feedback", "on")
        .option("max_standby_streaming_delay", "10s");
    let cluster = Arc::new(Cluster::start(2, settings).await);
    cluster.primary().sql("create table ledger (writer int, seq int, primary key (writer, seq))").await;
    let gates = gates(&cluster).await;
    let (log, pipe) = Log::new();
    let balancer = Arc::new(Balancer::launch_logging_to(pipe, &config(gates.iter().map(Gate::addr)), &[]));
    wait_until("pgsplit to answer", async || balancer.get("/healthz").await.is_ok()).await;
    balancer.wait_ready().await;
    let ledger = Arc::new(Ledger::new(seed, log.clone()));
    let _story = Story(Arc::clone(&ledger));
    let stage = Stage { cluster, gates, balancer, log, ledger };
    stage.guard(true).await;
    let descriptors = descriptors(stage.balancer.pid());

    let world =
        World { rw: stage.balancer.rw(), ro: stage.balancer.ro(), ledger: Arc::clone(&stage.ledger), seed };
    let mut clients = JoinSet::new();
    for role in Role::all() {
        clients.spawn_on(role.work(world.clone()), background().handle());
    }
    let samples = background().spawn(watch_memory(stage.balancer.pid(), Arc::clone(&stage.ledger)));
    play(&stage, &world, lasts).await;
    if !stage.ledger.has_failed() {
        calm(&stage).await;
    }
    assert!(!stage.ledger.has_failed(), "seed {seed}: see below");
    clients.shutdown().await;
    samples.abort();
    settle(&stage, descriptors).await;
    assert!(!stage.ledger.has_failed(), "seed {seed}: see below");
    eprintln!("{}", stage.ledger.summary());
}

/// Checks are quick, and patient enough for a busy machine.
fn config(nodes: impl Iterator<Item = SocketAddr>) -> String {
    let nodes: Vec<_> =
        nodes.enumerate().map(|(i, addr)| format!("  - {{name: n{i}, addr: \"{addr}\"}}\n")).collect();
    let nodes = nodes.concat();
    format!(
        "nodes:\n{nodes}check: {{user: lb_check, password: {PASSWORD}, interval: 300ms, fast_interval: 100ms, \
         down_interval: 200ms, timeout: 1s, rise: 2, fall: 2, max_lag: 2s}}\nsessions: {{queue_timeout: \
         {QUEUE_TIMEOUT}}}\n"
    )
}

/// One fault after the other, until the time is over or something is wrong.
async fn play(stage: &Stage, world: &World, lasts: Duration) {
    for step in Schedule::new(world.seed) {
        tokio::select! {
            () = stage.ledger.failed.cancelled() => return,
            () = sleep(step.after) => {}
        }
        if lasts < stage.ledger.elapsed() {
            return;
        }
        stage.ledger.say(&format!("{:?} {:?} for {:?}", step.fault, step.whom, step.lasts));
        tokio::select! {
            () = stage.ledger.failed.cancelled() => return,
            () = stage.perform(step, world) => {}
        }
        stage.ledger.say("mended");
    }
}

/// After the last fault everything is as it was before the first one, and nobody is cut any more.
async fn calm(stage: &Stage) {
    stage.ledger.say("calm");
    let primary = stage.cluster.primary().addr();
    wait_at_most(Duration::from_secs(30), "every node to be in its place again", async || {
        let status = stage.balancer.status().await;
        let is_fine = |(i, node): (usize, &serde_json::Value)| {
            let role = if stage.cluster.node(i).addr() == primary { "primary" } else { "standby" };
            node["health"] == "up" && node["role"] == role && node["superseded"] != true
        };
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        if nodes.len() == 3 && nodes.iter().enumerate().all(is_fine) { Ok(()) } else { Err(status) }
    })
    .await;
    tokio::select! {
        () = stage.ledger.failed.cancelled() => {}
        () = sleep(Duration::from_secs(4)) => {}
    }
}

/// Adds everything up, now that nobody is there any more.
async fn settle(stage: &Stage, descriptors_before: usize) {
    let rows = stage.cluster.primary().sql("select writer, seq from ledger").await;
    let number = |field: &Option<String>| field.as_ref().unwrap().parse().unwrap();
    let stored: HashSet<(u32, u32)> = rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
    stage.ledger.settle(&stored);

    let gauges = [
        "pgsplit_sessions_active",
        "pgsplit_sessions_waiting",
        "pgsplit_connections_opening",
        "pgsplit_node_sessions_active",
    ];
    let metrics = wait_at_most(Duration::from_secs(40), "nobody to be left", async || {
        let metrics = stage.balancer.metrics().await;
        let left = gauges.map(|gauge| whole(sum(&metrics, gauge)));
        if left == [0; 4] { Ok(metrics) } else { Err(left) }
    })
    .await;
    let (accepted, counted) = both_sides(&metrics);
    let ledger = &stage.ledger;
    if accepted != counted {
        ledger.wrong(&format!("{accepted} connections were accepted, and {counted} counted once more"));
    }
    if whole(sum(&metrics, "pgsplit_session_panics_total")) != 0 {
        ledger.wrong("a session panicked");
    }
    let lines = ["pgsplit_sessions_total", "pgsplit_connections_rejected_total"];
    let lines: i64 = lines.iter().map(|series| whole(sum(&metrics, series))).sum();
    let dropped = whole(sum(&metrics, "pgsplit_log_lines_dropped_total"));
    wait_until("every session to have its line in the log", async || {
        let found = i64::try_from(stage.log.count("session_end")).unwrap();
        let is_complete = lines - dropped <= found && found <= lines;
        if is_complete { Ok(()) } else { Err((found, lines, dropped)) }
    })
    .await;
    if !stage.log.closed_twice().is_empty() {
        ledger.wrong(&format!("sessions with more than one closing line: {:?}", stage.log.closed_twice()));
    }
    // A check or two may be under way, now as before.
    wait_until("descriptors to be given back", async || {
        let now = descriptors(stage.balancer.pid());
        if now <= descriptors_before + 3 { Ok(()) } else { Err((now, descriptors_before)) }
    })
    .await;
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Looks at pgsplit's memory each second. In a run that is long enough it must not grow.
async fn watch_memory(pid: u32, ledger: Arc<Ledger>) {
    let mut samples = Vec::new();
    loop {
        samples.push((ledger.elapsed(), memory(pid)));
        let now = ledger.elapsed();
        if samples.len() % 300 == 0 {
            // The first fifth is for everything to have happened once.
            let warm: Vec<_> = samples.iter().copied().filter(|(at, _)| now < *at * 5).collect();
            let growth = growth_per_hour(&warm);
            eprintln!("{:.0} s: memory grows by {growth:.0} bytes an hour", now.as_secs_f64());
            if LONG <= now && GROWTH < growth {
                ledger.wrong(&format!("memory grows by {growth:.0} bytes an hour"));
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}
