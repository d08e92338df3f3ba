//! The fault matrix: the same faults before pgsplit and before `HAProxy`, with real servers: `make reliability`.
//!
//! For each row and each proxy there is a fresh primary with two streaming standbys, a fresh proxy, and clients that
//! read, write, connect and listen. Three seconds later something happens to a server, and the clients count what
//! they notice. `docs/reliability.md` says how to read the table.
//!
//! Settings, all in the environment: `ROUNDS` (1), `ROWS` such as `kill-standby,cancel`, `ONLY` some of the proxies
//! (`pgsplit` and `haproxy` for all of a kind), `LOGS`, a directory for the logs of the proxies, and `PGSPLIT_BIN`,
//! another pgsplit.

#[path = "../tests/it/support/mod.rs"]
mod support;

#[path = "measuring/mod.rs"]
mod measuring;

#[path = "reliability/agent.rs"]
mod agent;
#[path = "reliability/facts.rs"]
mod facts;
#[path = "reliability/faults.rs"]
mod faults;
#[path = "reliability/load.rs"]
mod load;
#[path = "reliability/network.rs"]
mod network;
#[path = "reliability/proxies.rs"]
mod proxies;
#[path = "reliability/report.rs"]
mod report;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use agent::Agent;
use facts::{Facts, all_told, is_healthy};
use faults::Fault;
use load::{Load, TABLE, app};
use measuring::console::{print, progress};
use measuring::machine::{self, cores};
use measuring::settings::{chosen, number, setting};
use network::Drops;
use proxies::{Peer, Place, Proxy};
use report::Measured;
use serde_json::json;
use support::client::{background, connect_with, value};
use support::cluster::{Cluster, gates};
use support::postgres::Postgres;
use support::programs::programs;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;

/// Where the figures go, from the directory of the project.
const FILE: &str = "target/bench/reliability.json";
/// Of undisturbed load before the fault.
const CALM: Duration = Duration::from_secs(3);
/// From the fault on, when things do not become good before.
const MOST: Duration = Duration::from_secs(30);
/// Good so long is good again.
const GOOD: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(100);
/// For a run with all its preparations.
const PATIENCE: Duration = Duration::from_secs(180);
/// Sessions of the row `cancel`.
const CANCELS: usize = 20;

struct Options {
    rounds: u32,
    rows: Vec<Fault>,
    peers: Vec<Peer>,
    logs: Option<PathBuf>,
    drops: Drops,
}

impl Options {
    fn read(drops: Drops) -> Result<Self, String> {
        let rounds = number("ROUNDS", 1, 1)?;
        let rows = chosen("ROWS", &Fault::ALL, |row| vec![row.name()])?;
        let peers = chosen("ONLY", &Peer::ALL, |peer| vec![peer.name(), peer.family()])?;
        let logs = setting("LOGS").map(PathBuf::from);
        Ok(Self { rounds, rows, peers, logs, drops })
    }
}

fn main() -> ExitCode {
    // What fails is said with the run it fails.
    std::panic::set_hook(Box::new(|_| {}));
    let options = match Options::read(Drops::enter()) {
        Ok(options) => options,
        Err(error) => {
            progress(error);
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let local = LocalSet::new();
    let code = runtime.block_on(local.run_until(async {
        tokio::select! {
            done = matrix(options) => match done {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => {
                    progress(format_args!("The matrix cannot go on: {error}"));
                    ExitCode::FAILURE
                }
            },
            _ = tokio::signal::ctrl_c() => {
                progress("Interrupted; stopping everything.");
                ExitCode::from(130)
            }
        }
    }));
    // Whatever runs still is dropped here, and with it servers and proxies.
    drop(local);
    code
}

/// Whether every run could be made. What it showed is for people to judge.
async fn matrix(options: Options) -> Result<bool, String> {
    let options = Rc::new(options);
    let mut versions = vec![format!("PostgreSQL {}", programs().version)];
    for family in ["pgsplit", "haproxy"] {
        if let Some(peer) = options.peers.iter().find(|peer| peer.family() == family) {
            versions.push(peer.version()?);
        }
    }
    progress(versions.join(", "));
    let mut notes = Vec::new();
    let mut good = true;
    let mut results = Vec::new();
    for &fault in &options.rows {
        for &peer in &options.peers {
            results.push(Measured { fault, peer, runs: Vec::new() });
        }
    }
    for round in 1..=options.rounds {
        for result in &mut results {
            let (fault, peer) = (result.fault, result.peer);
            let what = format!("{:<15} {:<12} round {round}/{}", fault.name(), peer.name(), options.rounds);
            match run(Rc::clone(&options), fault, peer).await {
                Ok(facts) => {
                    progress(format_args!("{what}  {}", in_short(&facts)));
                    result.runs.push(facts);
                }
                Err(error) => {
                    good = false;
                    progress(format_args!("{what}  {error}"));
                    notes.push(format!("{} with {}, round {round}: {error}", fault.name(), peer.name()));
                }
            }
        }
    }
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    let setup = json!({
        "versions": versions,
        "cores": cores(),
        "rounds": options.rounds,
        "drops": format!("{:?}", options.drops),
        "load_average_at_the_end": load,
        "notes": notes,
    });
    machine::write(FILE, &report::file(&setup, &results)).map_err(|error| format!("{FILE}: {error}"))?;
    print(report::table(&results));
    print("");
    print(format_args!("{}.", versions.join(", ")));
    print(format_args!("{} cores; {} round(s): counts are sums, times the worst.", cores(), options.rounds));
    print(match options.drops {
        Drops::Packets => "drop-standby: iptables in a network namespace of its own, both directions.",
        Drops::Relay => "drop-standby: a relay that accepts and swallows, for want of a network namespace.",
    });
    print("HAProxy: rw asks an agent beside each server (200 on the primary); ro has option pgsql-check.");
    for note in &notes {
        print(note);
    }
    print(format_args!("Every run: {FILE}"));
    Ok(good)
}

fn in_short(facts: &Facts) -> String {
    let mut text = format!(
        "reads failed {} of {}, writes {} of {}, {:.0} s",
        facts.reads.failed, facts.reads.of, facts.writes.failed, facts.writes.of, facts.seconds
    );
    for (error, count) in &facts.errors {
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!("\n    {count} x {error}"));
    }
    text
}

/// One run in a task of its own, so that a panic of the support code ends nothing but the run.
async fn run(options: Rc<Options>, fault: Fault, peer: Peer) -> Result<Facts, String> {
    let mut task = JoinSet::new();
    task.spawn_local(async move {
        let measured = async {
            let world = World::build(&options, fault, peer).await?;
            let facts = if fault == Fault::Cancel { world.cancel().await } else { world.suffer(fault).await };
            world.keep_log(&options, fault, peer);
            facts
        };
        timeout(PATIENCE, measured).await.unwrap_or_else(|_| Err(format!("not done in {PATIENCE:?}")))
    });
    match task.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(error.try_into_panic().map_or("ended".to_owned(), |panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| panic.downcast_ref().copied()).unwrap_or("panicked").to_owned()
        })),
        None => Err("did not run".to_owned()),
    }
}

/// Servers, agents and a proxy.
struct World {
    // The order of the fields is that in which they end.
    proxy: Proxy,
    gates: Vec<support::gate::Gate>,
    _agents: Vec<Agent>,
    cluster: Cluster,
    drops: Drops,
}

impl World {
    async fn build(options: &Options, fault: Fault, peer: Peer) -> Result<Self, String> {
        let cluster = Cluster::start(2, fault.settings()).await;
        cluster.primary().sql(TABLE).await;
        cluster.wait_replayed().await;
        let drops = options.drops;
        let relays = fault == Fault::DropStandby && drops == Drops::Relay;
        let gates = if relays { gates(&cluster).await } else { Vec::new() };
        let mut agents = Vec::new();
        let mut places = Vec::new();
        for (i, node) in cluster.nodes().iter().enumerate() {
            let agent = SocketAddr::new(node.addr().ip(), agent::PORT);
            agents.push(Agent::start(agent, node.addr()).await.map_err(|error| format!("{agent}: {error}"))?);
            let addr = gates.get(i).map_or(node.addr(), support::gate::Gate::addr);
            places.push(Place { addr, agent });
        }
        let proxy = Proxy::start(peer, &places).await?;
        Ok(Self { proxy, gates, _agents: agents, cluster, drops })
    }

    /// The load, the fault, and what came of it.
    async fn suffer(&self, fault: Fault) -> Result<Facts, String> {
        let nodes: Vec<IpAddr> = self.cluster.nodes().iter().map(|node| node.addr().ip()).collect();
        let names: Vec<String> = (0..nodes.len()).map(|i| format!("n{i}")).collect();
        let load = Load::start(self.proxy.rw(), self.proxy.ro(), &nodes).await?;
        sleep(CALM).await;
        let struck = fault.strike(&self.cluster, self.drops, &self.gates).await?;
        while struck.at.elapsed() < MOST {
            sleep(POLL).await;
            let enough = struck.at.elapsed() >= fault.least();
            if enough && all_told(&load.diary, fault) && is_healthy(&load.diary, GOOD) {
                break;
            }
        }
        let mut facts = Facts::of(fault, &struck, &load.diary, &names);
        let diary = std::sync::Arc::clone(&load.diary);
        drop(load);
        let acked: Vec<u64> = diary.acked().into_iter().map(|acked| acked.id).collect();
        for &survivor in fault.survivors() {
            let missing = timeout(MOST, missing(self.cluster.node(survivor), &acked)).await.ok().flatten();
            // Of two primaries the one that has more is kept.
            facts.missing = facts.missing.into_iter().chain(missing).min();
        }
        Ok(facts)
    }

    /// Sessions that sleep on both standbys, and a request to cancel each.
    async fn cancel(&self) -> Result<Facts, String> {
        let mut sessions = Vec::new();
        for _ in 0..CANCELS {
            let client = connect_with(app(self.proxy.ro())).await.map_err(|error| error.to_string())?;
            let token = client.cancel_token();
            let query = background().spawn(async move { value(&client, "select pg_sleep(60)").await });
            sessions.push((token, query));
        }
        let asleep = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'";
        let count = async |i: usize| self.cluster.node(i).value(asleep).await.parse().unwrap_or(0);
        while count(1).await + count(2).await < CANCELS {
            sleep(POLL).await;
        }
        for (token, _) in &sessions {
            let token = token.clone();
            let sent = background().spawn(async move { token.cancel_query(NoTls).await });
            // One that cannot be sent is lost, which is seen below.
            let _ = timeout(MOST, sent).await;
        }
        sleep(GOOD).await;
        let lost = sessions.iter().filter(|(_, query)| !query.is_finished()).count();
        for (_, query) in sessions {
            query.abort();
        }
        Ok(Facts { cancels: Some((lost, CANCELS)), ..Facts::default() })
    }

    fn keep_log(&self, options: &Options, fault: Fault, peer: Peer) {
        if let Some(dir) = &options.logs {
            let kept = fs::create_dir_all(dir).and_then(|()| {
                fs::write(dir.join(format!("{}-{}.log", fault.name(), peer.name())), self.proxy.log())
            });
            if let Err(error) = kept {
                progress(format_args!("{}: {error}", dir.display()));
            }
        }
    }
}

/// How many acknowledged writes `server` does not have; `None` when it cannot say.
async fn missing(server: &Postgres, acked: &[u64]) -> Option<usize> {
    let rows = server.try_sql("select id from writes").await.ok()?;
    let ids = rows.into_iter().filter_map(|row| row.into_iter().next()??.parse().ok());
    let ids: std::collections::HashSet<i64> = ids.collect();
    Some(acked.iter().filter(|&&id| i64::try_from(id).is_ok_and(|id| !ids.contains(&id))).count())
}
