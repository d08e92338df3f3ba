//! pgsplit beside `HAProxy`, nginx and `PgBouncer` in front of one `PostgreSQL`: `make bench`.
//!
//! Each proxy stands in front of the same node and meets the same clients, one at a time, in rounds that begin with
//! another peer each. Printed are medians, and above all ratios: clients, proxy and node share the cores of one machine
//! with whatever else it does, so a figure alone says little. `docs/benchmarks.md` says more.
//!
//! Settings, all in the environment: `ROUNDS` (3), `SECONDS` of each timed run (4), `SIZE` in MB of a run that moves
//! much (1000), `REPEATS` of a run that other programs disturbed (2), `ONLY` some of the peers, `CASES` such as
//! `select-64,copy-out`, `PLOTS`, the directory for the drawings, and `PGSPLIT_BIN`, another pgsplit.

#![allow(clippy::cast_precision_loss, reason = "a quotient of counters is not exact to the last bit")]

#[path = "../tests/it/support/mod.rs"]
mod support;

#[path = "measuring/mod.rs"]
mod measuring;

#[path = "bench/bulk.rs"]
mod bulk;
#[path = "bench/cases.rs"]
mod cases;
#[path = "bench/containers.rs"]
mod containers;
#[path = "bench/crowd.rs"]
mod crowd;
#[path = "bench/latency.rs"]
mod latency;
#[path = "bench/measure.rs"]
mod measure;
#[path = "bench/meter.rs"]
mod meter;
#[path = "bench/peers.rs"]
mod peers;
#[path = "bench/pgbench.rs"]
mod pgbench;
#[path = "bench/plots.rs"]
mod plots;
#[path = "bench/report.rs"]
mod report;
#[path = "bench/sessions.rs"]
mod sessions;

use std::path::PathBuf;
use std::process::ExitCode;

use cases::{CASES, Case, Load, Unit};
use measure::{Setup, World};
use measuring::console::{print, progress};
use measuring::figures::{CALM, Compared, calmest, in_turn};
use measuring::machine::{self, cores, kernel};
use measuring::settings::{chosen, number, setting};
use peers::Peer;
use report::{Figure, Measured, Run};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

/// Where the figures go, from the directory of the project.
const FILE: &str = "target/bench/sessions.json";
/// Where the drawings go unless `PLOTS` says where.
const PLOTS: &str = "target/bench";

struct Options {
    rounds: u32,
    repeats: u32,
    setup: Setup,
    peers: Vec<Peer>,
    cases: Vec<&'static Case>,
    plots: PathBuf,
}

impl Options {
    fn read() -> Result<Self, String> {
        let mut cases = chosen("CASES", &CASES.each_ref(), |case| vec![case.name])?;
        if setting("CASES").is_none() {
            // It would say nothing in the seconds of another case.
            cases.retain(|case| !matches!(case.load, Load::Hold { .. }));
        }
        Ok(Self {
            rounds: number("ROUNDS", 1, 3)?,
            repeats: number("REPEATS", 0, 2)?,
            setup: Setup { seconds: number("SECONDS", 1, 4)?, megabytes: number("SIZE", 1, 1000)? },
            peers: chosen("ONLY", &Peer::ALL, |peer| vec![peer.name()])?,
            cases,
            plots: setting("PLOTS").unwrap_or_else(|| PLOTS.to_owned()).into(),
        })
    }
}

fn main() -> ExitCode {
    // What the support of the tests cannot do it says by a panic.
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref().copied()).unwrap_or("something unexpected");
        progress(format_args!("The benchmark cannot go on: {text}"));
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    runtime.block_on(async {
        tokio::select! {
            done = bench() => match done {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => {
                    progress(format_args!("The benchmark cannot go on: {error}"));
                    ExitCode::FAILURE
                }
            },
            _ = tokio::signal::ctrl_c() => {
                progress("Interrupted; stopping everything.");
                ExitCode::from(130)
            }
        }
    })
}

/// Whether every run was a good one.
async fn bench() -> Result<bool, String> {
    let mut options = Options::read()?;
    raise_limit_of_files();
    let mut notes = Vec::new();
    let Options { setup, .. } = options;
    options.cases.retain(|case| match measure::obstacle(case) {
        Some(why) => {
            notes.push(format!("{} is left out: {why}", case.name));
            false
        }
        None => true,
    });
    if options.cases.is_empty() {
        return Err(format!("no case is left to measure; {}", notes.join("; ")));
    }
    options.peers.retain(|&peer| options.cases.iter().any(|case| takes_part(peer, case, 0)));
    let world = World::build(setup, &options.cases).await?;
    let mut versions = Vec::new();
    options.peers = present(&world, &options.peers, &mut versions, &mut notes).await;
    for note in &notes {
        progress(note);
    }
    if options.peers.is_empty() {
        return Err("nobody is left to measure".to_owned());
    }

    let (results, good) = run(&options, &world, &mut notes).await;
    drop(world);
    report(&options, &results, &versions, &notes).map_err(|error| format!("{FILE}: {error}"))?;
    let dir = options.plots.display();
    plots::draw(&options.plots, &results).map_err(|error| format!("{dir}: {error}"))?;
    print(format_args!("Every run: {FILE}; drawings: {dir}/*.svg"));
    Ok(good)
}

/// Those who can be measured, each with its version.
async fn present(
    world: &World,
    wanted: &[Peer],
    versions: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Vec<Peer> {
    let mut contained = Ok(());
    if wanted.iter().any(|peer| peer.is_contained()) {
        progress("Making the image with the peers of the next Debian, unless it is there");
        contained = containers::prepare().await;
    }
    let mut peers = Vec::new();
    for &peer in wanted {
        let examined = match &contained {
            Err(why) if peer.is_contained() => Err(why.clone()),
            _ => world.examine(peer).await,
        };
        match examined {
            Ok(version) => {
                versions.push(version);
                peers.push(peer);
            }
            Err(why) => notes.push(format!("{} is left out: {why}", peer.name())),
        }
    }
    peers
}

async fn run(options: &Options, world: &World, notes: &mut Vec<String>) -> (Vec<Measured>, bool) {
    let Options { rounds, repeats, ref peers, ref cases, .. } = *options;
    let empty = |&case: &&'static Case| Measured { case, runs: Compared::default() };
    let mut results: Vec<Measured> = cases.iter().map(empty).collect();
    let mut good = true;
    for round in 0..rounds {
        for result in &mut results {
            let case = result.case;
            for peer in in_turn(peers, round).filter(|&peer| takes_part(peer, case, round)) {
                let name = format!("round {}/{rounds}  {:<14} {:<14}", round + 1, case.name, peer.name());
                // Memory is the same in a storm, and thousands of logins take long.
                let repeats = if case.load.unit() == Unit::Idle { 0 } else { repeats };
                match calmest(repeats, async || world.measure(case, peer, notes).await).await {
                    Ok(run) => {
                        progress(format_args!("{name} {}", in_short(case, &run)));
                        result.runs.insert(peer, round, run);
                    }
                    Err(error) => {
                        good = false;
                        progress(format_args!("{name} {error}"));
                        notes.push(format!("{} {}, round {}: {error}", case.name, peer.name(), round + 1));
                    }
                }
            }
        }
    }
    let errors = |result: &Measured| result.runs.peers().map(|peer| result.errors(peer)).sum::<u64>();
    good &= results.iter().all(|result| errors(result) == 0);
    (results, good)
}

/// Sessions that only stay take no time and always the same memory: once is enough. Without a proxy there is nothing to
/// see of them, and the one that is held is ours.
fn takes_part(peer: Peer, case: &Case, round: u32) -> bool {
    match case.load {
        Load::Idle { .. } => peer.is_proxy() && round == 0,
        Load::Hold { .. } => peer == Peer::Pgsplit && round == 0,
        _ => true,
    }
}

fn in_short(case: &Case, run: &Run) -> String {
    let unit = case.load.unit().name();
    let mut parts = Vec::new();
    for (figure, text) in [
        (Figure::Rate, format!("{unit}/s")),
        (Figure::CpuPerUnit, format!("us of CPU/{unit}")),
        (Figure::PrivatePerSession, "B/session".to_owned()),
        (Figure::WakeUps, "wake-ups/s".to_owned()),
    ] {
        parts.extend(figure.of(run).map(|value| format!("{value:.1} {text}")));
    }
    parts.push(format!("others {:.0} %", run.others * 100.0));
    if run.errors > 0 {
        parts.push(format!("{} errors", run.errors));
    }
    parts.join(", ")
}

fn report(
    options: &Options,
    results: &[Measured],
    versions: &[String],
    notes: &[String],
) -> std::io::Result<()> {
    let Options { rounds, repeats, setup: Setup { seconds, megabytes }, .. } = *options;
    let (usual, most) = report::others(results);
    let setup = json!({
        "versions": versions,
        "cores": cores(),
        "kernel": kernel(),
        "rounds": rounds,
        "seconds": seconds,
        "size_mb": megabytes,
        "repeats": repeats,
        "repeated_from_others_share_of_cores": CALM,
        "others_share_of_cores": { "median": usual, "most": most },
        "notes": notes,
    });
    machine::write(FILE, &report::file(&setup, results))?;
    for table in report::tables(results) {
        print(table);
        print("");
    }
    print(format_args!("{}.", versions.join(", ")));
    print(format_args!("{} cores, Linux {}; medians of {rounds} runs of {seconds} s.", cores(), kernel()));
    print(format_args!(
        "Other programs used {:.0} % of the cores during the usual run, {:.0} % during the worst.",
        usual * 100.0,
        most * 100.0
    ));
    print(
        "Clients, proxy and node share the machine: only the ratios count, each of runs of the same round.",
    );
    for note in notes {
        print(note);
    }
    print("How long it takes until a dead node is found and sessions are served again: make reliability");
    Ok(())
}

/// For thousands of sessions, here and in every program started from here.
fn raise_limit_of_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // What then does not fit is left out.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
