//! What a session, a round trip and a row cost in instructions and in system calls, with pgsplit, `HAProxy` and
//! `PgBouncer` before the same server: `make bench-instructions`.
//!
//! Unlike times, these figures hardly depend on what else the machine does, so a change of a hundredth is seen.
//! Each is the difference of much work and little work by one process that is warm, divided by the difference of the
//! work: what a start, a connection of the client or a tool costs falls out. Instructions are counted by callgrind,
//! system calls by strace, in different runs. `docs/benchmarks.md` says more.
//!
//! Settings, all in the environment: `ROUNDS` (5), `ONLY` some of the peers, `CASES` such as `session,round-trip`,
//! `TOP` (0), how many of pgsplit's heaviest functions to name in each case, and `PGSPLIT_BIN`, another pgsplit.

#[path = "measuring/mod.rs"]
mod measuring;
#[path = "../tests/it/support/mod.rs"]
mod support;

#[path = "instructions/callgrind.rs"]
mod callgrind;
#[path = "instructions/cases.rs"]
mod cases;
#[path = "instructions/peers.rs"]
mod peers;
#[path = "instructions/report.rs"]
mod report;
#[path = "instructions/strace.rs"]
mod strace;

use std::net::SocketAddr;
use std::process::ExitCode;

use callgrind::Callgrind;
use cases::{CASES, Case, fill};
use measuring::console::{print, progress};
use measuring::figures::in_turn;
use measuring::machine;
use measuring::settings::{chosen, number};
use peers::{Peer, Proxy};
use report::{Measured, Run};
use serde_json::json;
use support::postgres::{Postgres, Settings};
use support::programs::programs;

/// Where the figures go, from the directory of the project.
const FILE: &str = "target/bench/instructions.json";

struct Options {
    rounds: u32,
    peers: Vec<Peer>,
    cases: Vec<&'static Case>,
    top: usize,
}

impl Options {
    fn read() -> Result<Self, String> {
        let cases = chosen("CASES", &CASES.each_ref(), |case| vec![case.name])?;
        let peers = chosen("ONLY", &Peer::ALL, |peer| vec![peer.name()])?;
        let top = usize::try_from(number("TOP", 0, 0)?).unwrap_or(0);
        Ok(Self { rounds: number("ROUNDS", 1, 5)?, peers, cases, top })
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    match runtime.block_on(bench()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(format_args!("The count cannot go on: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn bench() -> Result<(), String> {
    let mut options = Options::read()?;
    let tools = [callgrind::version()?, strace::version()?];
    let mut notes = Vec::new();
    options.peers.retain(|peer| match peer.program() {
        Ok(_) => true,
        Err(error) => {
            notes.push(format!("{} is left out: {error}.", peer.name()));
            false
        }
    });
    let server = Postgres::start_new(Settings::default()).await;
    fill(server.addr())?;

    let mut results: Vec<Measured> = options.cases.iter().map(|&case| Measured::new(case)).collect();
    for round in 0..options.rounds {
        for peer in in_turn(&options.peers, round) {
            measure(&options, server.addr(), peer, round, &mut results).await?;
            progress(format_args!("round {}/{}  {}", round + 1, options.rounds, peer.name()));
        }
    }

    let mut versions = vec![format!("PostgreSQL {}", programs().version)];
    versions.extend(options.peers.iter().filter_map(|peer| peer.version()));
    versions.extend(tools);
    let setup = json!({ "versions": versions, "rounds": options.rounds, "notes": notes });
    machine::write(FILE, &report::file(&setup, &results)).map_err(|error| format!("{FILE}: {error}"))?;
    for result in &results {
        for line in result.heaviest() {
            print(line);
        }
    }
    print(report::table(&results));
    print("");
    for line in results.iter().flat_map(Measured::calls) {
        print(line);
    }
    print("");
    print(format_args!("{}.", versions.join(", ")));
    print(format_args!("Medians of {} round(s), each with fresh processes of one thread.", options.rounds));
    for note in &notes {
        print(note);
    }
    print(format_args!("Every run: {FILE}"));
    Ok(())
}

/// All cases of one peer, once. Cases with a log and those without need a process each.
async fn measure(
    options: &Options,
    server: SocketAddr,
    peer: Peer,
    round: u32,
    results: &mut [Measured],
) -> Result<(), String> {
    for logs in [true, false] {
        let mut results: Vec<_> = results.iter_mut().filter(|result| result.case.logs == logs).collect();
        if results.is_empty() {
            continue;
        }
        let mut instructions = Vec::new();
        let mut counted = Callgrind::over(Proxy::start(peer, server, logs, &callgrind::words()?).await?);
        for result in &mut results {
            let case = result.case;
            case.run(counted.addr(), case.few)?;
            let few = counted.count(case, case.few)?;
            let many = counted.count(case, case.many)?;
            instructions.push(case.per_unit(few, many));
            if round == 0 && peer == Peer::Pgsplit && options.top > 0 {
                result.set_heaviest(counted.heaviest(options.top)?);
            }
        }
        counted.stop().await;

        let mut proxy = Proxy::start(peer, server, logs, &[]).await?;
        for (result, instructions) in results.iter_mut().zip(instructions) {
            let case = result.case;
            case.run(proxy.addr(), case.few)?;
            let few = strace::count(&proxy, case, case.few).await?;
            let many = strace::count(&proxy, case, case.many).await?;
            result.runs.insert(peer, round, Run { instructions, calls: many.per_unit(&few, case) });
        }
        proxy.stop().await;
    }
    Ok(())
}
