//! A cluster under load, through a stopped standby and a killed primary: `make demo`.
//!
//! Starts pgsplit, then a real primary with two streaming standbys, then readers and a writer; takes servers away
//! and counts what the clients notice. Ends with an error when a read failed. `KEEP=1` stays up at the end.
//!
//! # What counts as a failed read
//!
//! Each read that got no answer, but for one case that nobody can prevent, because the answer died with its server: in
//! the moment in which the demo takes a server away, a session that was logged in may end. It is counted as a cut
//! session, and its read goes to a fresh session at once, where it must not fail. A failed connect is always
//! a failed read, and so is a session that ends at any other time.

#![allow(clippy::indexing_slicing, reason = "a demo may end when its nodes are not the three it made")]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use support::balancer::{Balancer, find};
use support::client::{PASSWORD, connect, value};
use support::cluster::Cluster;
use support::postgres::{Settings, Stop};
use support::programs::programs;
use support::wait::wait_until;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::Client;

/// Readers of each kind: those that keep a session, and those that connect for each read.
const READERS: usize = 4;
const KEEP_PACE: Duration = Duration::from_millis(20);
const RECONNECT_PACE: Duration = Duration::from_millis(50);
const WRITE_PACE: Duration = Duration::from_millis(20);
/// A service would give up by then.
const PATIENCE: Duration = Duration::from_secs(15);

const READ: &str = "select host(inet_server_addr())";
const WRITE: &str = "insert into demo default values returning host(inet_server_addr())";

fn main() -> ExitCode {
    let screen = Arc::new(Screen::new());
    // What fails here fails with a sentence; where in the source it did helps nobody who watches a demo.
    let of_panic = Arc::clone(&screen);
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref().copied()).unwrap_or("something unexpected");
        of_panic.line(Style::Bad, &format!("The demo cannot go on: {text}"));
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    runtime.block_on(async {
        tokio::select! {
            code = demo(&screen) => code,
            _ = tokio::signal::ctrl_c() => {
                screen.line(Style::Step, "Interrupted; stopping everything.");
                ExitCode::from(130)
            }
        }
    })
}

async fn demo(screen: &Arc<Screen>) -> ExitCode {
    let keep = std::env::var_os("KEEP").is_some_and(|keep| !keep.is_empty() && keep != "0");
    // TLS as Debian sets it up. No password: the login is then one answer, and a server that goes away during it is
    // replaced without a trace. An exchange of passwords takes milliseconds that can be hit like a query in flight.
    let settings = Settings::default().tls();
    screen.line(
        Style::Step,
        &format!("PostgreSQL {}: one primary (n0), two standbys (n1, n2)", programs().version),
    );
    let cluster = Cluster::reserve(2, &settings);
    let mut tasks = JoinSet::new();

    screen.line(Style::Step, "Starting pgsplit first, while no database is there. Its configuration:");
    let balancer = Arc::new(Balancer::start(&cluster.config()).await);
    let written = std::fs::read_to_string(balancer.config_path()).unwrap_or_default();
    for line in written.lines() {
        screen.line(Style::Quiet, &format!("    {line}"));
    }
    let load = Arc::new(Load::new(&cluster, &balancer));
    tasks.spawn(report(Arc::clone(screen), Arc::clone(&load)));
    tasks.spawn(events(Arc::clone(screen), Arc::clone(&balancer)));

    screen.line(Style::Step, "Starting the servers");
    cluster.launch().await;
    cluster.primary().sql("create table demo (n bigserial primary key, at timestamptz default now())").await;
    cluster.wait_replayed().await;
    balancer.wait_ready().await;
    screen.line(Style::Good, "pgsplit has found the primary and both standbys");
    urls(screen, &balancer);

    let clients = start_load(screen, &load);
    sleep(Duration::from_secs(4)).await;
    lose_a_standby(screen, &cluster, &load).await;
    lose_the_primary(screen, &cluster, &load).await;
    sleep(Duration::from_secs(3)).await;
    load.stop.store(true, Relaxed);
    clients.join_all().await;

    table(screen, &cluster, &load, &balancer).await;
    if keep {
        stay(screen, &cluster, &balancer).await;
    }
    // Ended before the servers, whose end would be reported as well.
    tasks.shutdown().await;
    if load.reads.failed.load(Relaxed) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start_load(screen: &Screen, load: &Arc<Load>) -> JoinSet<()> {
    let text = format!("Load: {READERS} readers keep a session, {READERS} connect for each read, one writes");
    screen.line(Style::Step, &text);
    load.reads.begin();
    load.writes.begin();
    let mut clients = JoinSet::new();
    for _ in 0..READERS {
        clients.spawn(read_and_keep(Arc::clone(load)));
        clients.spawn(read_and_reconnect(Arc::clone(load)));
    }
    clients.spawn(write(Arc::clone(load)));
    load.runs.store(true, Relaxed);
    clients
}

async fn lose_a_standby(screen: &Screen, cluster: &Cluster, load: &Load) {
    screen.line(Style::Step, "Stopping standby n1, as for an upgrade");
    load.while_taking_away(cluster.node(1).stop(Stop::Fast)).await;
    sleep(Duration::from_secs(3)).await;
    screen.line(Style::Step, "Starting n1 again");
    let before = load.reads.of_node(1);
    cluster.node(1).start().await;
    wait_until("n1 to serve reads again", async || load.reads.of_node(1) > before).await;
    screen.line(Style::Good, "n1 serves reads again");
    sleep(Duration::from_secs(3)).await;
}

async fn lose_the_primary(screen: &Screen, cluster: &Cluster, load: &Load) {
    screen.line(Style::Step, "kill -9 of the primary n0 and all its processes");
    let killed = Instant::now();
    load.while_taking_away(cluster.node(0).kill9()).await;
    // As long as a failover tool may take to be sure. pgsplit promotes nobody; it finds out who is primary.
    sleep(Duration::from_secs(2)).await;
    screen.line(Style::Step, "Promoting n1, as a failover tool or an operator does; n2 follows it");
    cluster.fail_over_to(1).await;
    wait_until("a write on n1", async || load.writes.of_node(1) > 0).await;
    screen.line(
        Style::Good,
        &format!("Writes go on, on n1, {:.1} s after the kill", killed.elapsed().as_secs_f64()),
    );
}

/// Brings the killed server back as a standby, so that there is a whole cluster to play with.
async fn stay(screen: &Screen, cluster: &Cluster, balancer: &Balancer) {
    screen.line(Style::Step, "KEEP=1: bringing n0 back as a standby of n1");
    cluster.node(0).recreate_standby_of(cluster.primary()).await;
    balancer.wait_ready().await;
    urls(screen, balancer);
    screen.line(Style::Step, "All up, load ended. Ctrl-C stops everything.");
    std::future::pending::<()>().await;
}

fn urls(screen: &Screen, balancer: &Balancer) {
    let url = |addr: SocketAddr| format!("postgres://postgres:{PASSWORD}@{addr}/postgres");
    for (what, url) in [
        ("writes  DATABASE_URL", url(balancer.rw())),
        ("reads   DATABASE_URL", url(balancer.ro())),
        ("state   dashboard   ", format!("http://{}/", balancer.admin())),
    ] {
        screen.line(Style::Plain, &format!("    {what}  {url}"));
    }
}

/// What the clients see.
struct Load {
    reads: Tally,
    writes: Tally,
    /// Sessions that ended with their server.
    cut: AtomicU64,
    /// The demo is ending a server right now.
    takes_away: AtomicBool,
    /// The first few, to be shown.
    errors: Mutex<Vec<String>>,
    runs: AtomicBool,
    stop: AtomicBool,
    rw: SocketAddr,
    ro: SocketAddr,
}

impl Load {
    fn new(cluster: &Cluster, balancer: &Balancer) -> Self {
        let nodes: Vec<_> = cluster.nodes().iter().map(|node| node.addr().ip().to_string()).collect();
        Self {
            reads: Tally::new(nodes.clone()),
            writes: Tally::new(nodes),
            cut: AtomicU64::new(0),
            takes_away: AtomicBool::new(false),
            errors: Mutex::default(),
            runs: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            rw: balancer.rw(),
            ro: balancer.ro(),
        }
    }

    async fn while_taking_away(&self, end: impl Future<Output = ()>) {
        self.takes_away.store(true, Relaxed);
        end.await;
        // Until the clients, too, have noticed.
        sleep(Duration::from_millis(200)).await;
        self.takes_away.store(false, Relaxed);
    }

    fn is_cut(&self, error: &Failure) -> bool {
        error.in_query && error.session_ended && self.takes_away.load(Relaxed)
    }

    fn failed(&self, tally: &Tally, what: &str, error: &Failure) {
        tally.failed.fetch_add(1, Relaxed);
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < 5 {
            errors.push(format!("{what}: {}", error.text));
        }
    }
}

/// One kind of request: how many, by whom, how long not.
struct Tally {
    nodes: Vec<String>,
    by_node: Vec<AtomicU64>,
    ok: AtomicU64,
    failed: AtomicU64,
    gap: Mutex<Gap>,
}

struct Gap {
    last: Instant,
    longest: Duration,
}

impl Tally {
    fn new(nodes: Vec<String>) -> Self {
        let by_node = nodes.iter().map(|_| AtomicU64::new(0)).collect();
        let gap = Mutex::new(Gap { last: Instant::now(), longest: Duration::ZERO });
        Self { nodes, by_node, ok: AtomicU64::new(0), failed: AtomicU64::new(0), gap }
    }

    fn begin(&self) {
        self.gap.lock().unwrap_or_else(PoisonError::into_inner).last = Instant::now();
    }

    fn ok(&self, node: &str) {
        self.ok.fetch_add(1, Relaxed);
        if let Some(i) = self.nodes.iter().position(|known| known == node) {
            self.by_node[i].fetch_add(1, Relaxed);
        }
        let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        gap.longest = gap.longest.max(gap.last.elapsed());
        gap.last = Instant::now();
    }

    fn of_node(&self, i: usize) -> u64 {
        self.by_node[i].load(Relaxed)
    }

    fn longest_gap(&self) -> Duration {
        self.gap.lock().unwrap_or_else(PoisonError::into_inner).longest
    }
}

async fn read_and_keep(load: Arc<Load>) {
    let mut pace = paced(KEEP_PACE);
    let mut session = None;
    while !load.stop.load(Relaxed) {
        pace.tick().await;
        if let Some(kept) = session.take() {
            match ask(&kept, READ).await {
                Ok(node) => {
                    load.reads.ok(&node);
                    session = Some(kept);
                    continue;
                }
                Err(error) if load.is_cut(&error) => _ = load.cut.fetch_add(1, Relaxed),
                Err(error) => {
                    load.failed(&load.reads, "read on a kept session", &error);
                    continue;
                }
            }
        }
        session = read_fresh(&load).await;
    }
}

async fn read_and_reconnect(load: Arc<Load>) {
    let mut pace = paced(RECONNECT_PACE);
    while !load.stop.load(Relaxed) {
        pace.tick().await;
        read_fresh(&load).await;
    }
}

async fn read_fresh(load: &Load) -> Option<Client> {
    let mut read = fresh(load.ro, READ).await;
    if read.as_ref().is_err_and(|error| load.is_cut(error)) {
        load.cut.fetch_add(1, Relaxed);
        read = fresh(load.ro, READ).await;
    }
    match read {
        Ok((client, node)) => {
            load.reads.ok(&node);
            Some(client)
        }
        Err(error) => {
            load.failed(&load.reads, "read on a fresh session", &error);
            None
        }
    }
}

async fn write(load: Arc<Load>) {
    let mut pace = paced(WRITE_PACE);
    let mut session: Option<Client> = None;
    while !load.stop.load(Relaxed) {
        pace.tick().await;
        let written = match session.take() {
            Some(client) => ask(&client, WRITE).await.map(|node| (client, node)),
            None => fresh(load.rw, WRITE).await,
        };
        match written {
            Ok((client, node)) => {
                load.writes.ok(&node);
                session = Some(client);
            }
            // A write is never sent twice: nobody knows whether it was done.
            Err(error) => load.failed(&load.writes, "write", &error),
        }
    }
}

struct Failure {
    text: String,
    /// The node or pgsplit ended the session, rather than answer.
    session_ended: bool,
    /// The login was complete.
    in_query: bool,
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        // Class 57 is the server's: it stops, starts or was told to end the session.
        let session_ended = error.code().is_none_or(|state| state.code().starts_with("57P"));
        let text = error
            .as_db_error()
            .map_or_else(|| format!("{error:?}"), |db| format!("{}: {db}", db.code().code()));
        Self { text, session_ended, in_query: false }
    }
}

async fn fresh(addr: SocketAddr, sql: &str) -> Result<(Client, String), Failure> {
    let client = within(connect(addr)).await?;
    let node = ask(&client, sql).await?;
    Ok((client, node))
}

async fn ask(client: &Client, sql: &str) -> Result<String, Failure> {
    within(value(client, sql)).await.map_err(|error| Failure { in_query: true, ..error })
}

async fn within<T>(work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
    let late = Failure { text: format!("nothing for {PATIENCE:?}"), session_ended: false, in_query: false };
    Ok(timeout(PATIENCE, work).await.map_err(|_| late)??)
}

fn paced(period: Duration) -> tokio::time::Interval {
    let mut pace = interval(period);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// Each second, how it goes.
async fn report(screen: Arc<Screen>, load: Arc<Load>) {
    let mut second = interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        if load.stop.load(Relaxed) {
            return;
        }
        if !load.runs.load(Relaxed) {
            screen.line(Style::Quiet, "setting up …");
            continue;
        }
        let (reads, writes) = (&load.reads, &load.writes);
        let failed = reads.failed.load(Relaxed);
        let by_node: Vec<_> = (0..reads.nodes.len()).map(|i| format!("n{i} {}", reads.of_node(i))).collect();
        let text = format!(
            "reads {} ok {failed} failed | writes {} ok {} failed | reads by {} | sessions cut {}",
            reads.ok.load(Relaxed),
            writes.ok.load(Relaxed),
            writes.failed.load(Relaxed),
            by_node.join(" "),
            load.cut.load(Relaxed),
        );
        screen.line(if failed == 0 { Style::Quiet } else { Style::Bad }, &text);
    }
}

/// What pgsplit says about the nodes, as it says it.
async fn events(screen: Arc<Screen>, balancer: Arc<Balancer>) {
    let mut seen = 0;
    let mut often = paced(Duration::from_millis(50));
    loop {
        often.tick().await;
        let lines = balancer.log_lines();
        for line in lines.iter().skip(seen) {
            let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            if matches!(word("event").as_str(), "node_state" | "node_role") {
                let cause = Some(word("cause")).filter(|cause| !cause.is_empty());
                let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
                let text = format!("pgsplit: {} {} → {}{cause}", word("node"), word("from"), word("to"));
                screen.line(Style::Plain, &text);
            }
        }
        seen = lines.len();
    }
}

async fn table(screen: &Screen, cluster: &Cluster, load: &Load, balancer: &Balancer) {
    let (reads, writes) = (&load.reads, &load.writes);
    screen.bare("");
    screen.bare(&format!("{:<8} {:>9} {:>9} {:>13}", "", "tried", "failed", "longest gap"));
    for (name, tally) in [("reads", reads), ("writes", writes)] {
        let failed = tally.failed.load(Relaxed);
        let tried = tally.ok.load(Relaxed) + failed;
        let gap = tally.longest_gap().as_secs_f64();
        screen.bare(&format!("{name:<8} {tried:>9} {failed:>9} {gap:>11.2} s"));
    }
    let cut = load.cut.load(Relaxed);
    screen
        .bare(&format!("sessions cut: {cut} (with their server; each read went to a fresh session at once)"));
    screen.bare("");

    let metrics = balancer.metrics().await;
    let status = balancer.status().await;
    screen.bare(&format!(
        "{:<5} {:<9} {:<8} {:>9} {:>9} {:>9}",
        "node", "role", "health", "reads", "writes", "sessions"
    ));
    for i in 0..cluster.nodes().len() {
        let node = &status["nodes"][i];
        let word = |key: &str| node[key].as_str().unwrap_or("-").to_owned();
        let sessions = find(&metrics, &format!("pgsplit_sessions_total{{node=\"n{i}\"}}"));
        let sessions = sessions.map_or_else(|| "-".to_owned(), |sessions| sessions.to_string());
        let (role, health) = (word("role"), word("health"));
        let (reads, writes) = (reads.of_node(i), writes.of_node(i));
        screen.bare(&format!("n{i:<4} {role:<9} {health:<8} {reads:>9} {writes:>9} {sessions:>9}"));
    }
    screen.bare("");

    for error in load.errors.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        screen.bare(&format!("failed {error}"));
    }
    match reads.failed.load(Relaxed) {
        0 => screen.line(Style::Good, "No read failed."),
        failed => screen.line(Style::Bad, &format!("{failed} reads failed.")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Step,
    Good,
    Bad,
    Plain,
    Quiet,
}

/// Lines with the time since the start, coloured on a terminal.
struct Screen {
    start: Instant,
    colour: bool,
}

impl Screen {
    fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        Self { start: Instant::now(), colour: wanted && std::io::stdout().is_terminal() }
    }

    fn line(&self, style: Style, text: &str) {
        let elapsed = self.start.elapsed().as_secs_f64();
        let colour = match style {
            Style::Step => "\x1b[1m",
            Style::Good => "\x1b[32m",
            Style::Bad => "\x1b[31m",
            Style::Plain => "",
            Style::Quiet => "\x1b[2m",
        };
        if self.colour && !colour.is_empty() {
            print(format_args!("{elapsed:5.1} s  {colour}{text}\x1b[0m"));
        } else {
            print(format_args!("{elapsed:5.1} s  {text}"));
        }
    }

    fn bare(&self, text: &str) {
        let _ = self;
        print(text);
    }
}

/// Unlike `println!`, does not panic when the reader of a pipe has gone.
fn print(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
