//! pgsplit's HTTP front beside nginx and `HAProxy`: `make bench-http`.
//!
//! Each proxy stands in front of the same two backends and is asked by the same client, one at a time, in rounds that
//! begin with another peer each. Printed are medians, and above all ratios: the client, the proxy and the backend
//! share the cores of one machine with whatever else it does, so a figure alone says little. `docs/benchmarks.md`
//! says more.
//!
//! Settings, all in the environment: `ROUNDS` (3), `SECONDS` of each run (4), `REPEATS` of a run that other programs
//! disturbed (2), `ONLY` some of the peers `direct`, `nginx`,
//! `haproxy` and `pgsplit`, `CASES` such as `1k-64,1m-1`, and `PGSPLIT_BIN`, another pgsplit.

#![allow(clippy::cast_precision_loss, reason = "a quotient of counters is not exact to the last bit")]

#[path = "../tests/it/support/mod.rs"]
mod support;

#[path = "measuring/mod.rs"]
mod measuring;

#[path = "bench_http/load.rs"]
mod load;
#[path = "bench_http/peers.rs"]
mod peers;
#[path = "bench_http/report.rs"]
mod report;

use std::process::ExitCode;

use load::{Load, Wrk};
use measuring::console::{print, progress};
use measuring::figures::{CALM, Compared, calmest, in_turn};
use measuring::machine::{self, cores, kernel};
use measuring::program::{find, first_line};
use measuring::settings::{chosen, number};
use measuring::usage::{Cpu, Memory, busy_of_machine, of_ended_children};
use peers::{Peer, Places, Running, examine};
use report::{Proxy, Run};
use serde_json::json;
use tokio::time::Instant;

/// Where the figures go, from the directory of the project.
const FILE: &str = "target/bench/http.json";
/// Before each run, not measured: connections to the backends, memory that grows once.
const WARM_UP_SECONDS: u32 = 1;

struct Case {
    name: &'static str,
    path: &'static str,
    connections: u32,
    logs: bool,
}

const CASES: [Case; 7] = [
    Case { name: "1k-1", path: "/1k", connections: 1, logs: false },
    Case { name: "1k-64", path: "/1k", connections: 64, logs: false },
    Case { name: "1k-512", path: "/1k", connections: 512, logs: false },
    Case { name: "1k-64-logs", path: "/1k", connections: 64, logs: true },
    Case { name: "1m-1", path: "/1m", connections: 1, logs: false },
    Case { name: "1m-64", path: "/1m", connections: 64, logs: false },
    Case { name: "1m-512", path: "/1m", connections: 512, logs: false },
];

struct Options {
    rounds: u32,
    seconds: u32,
    repeats: u32,
    peers: Vec<Peer>,
    cases: Vec<&'static Case>,
}

impl Options {
    fn read() -> Result<Self, String> {
        let cases = chosen("CASES", &CASES.each_ref(), |case| vec![case.name])?;
        let peers = chosen("ONLY", &Peer::ALL, |peer| vec![peer.name()])?;
        let (rounds, seconds) = (number("ROUNDS", 1, 3)?, number("SECONDS", 1, 4)?);
        Ok(Self { rounds, seconds, repeats: number("REPEATS", 0, 2)?, peers, cases })
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    match runtime.block_on(bench()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            progress(format_args!("The benchmark cannot go on: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether every run was a good one.
async fn bench() -> Result<bool, String> {
    let mut options = Options::read()?;
    let wrk = find("wrk")?;
    let client = first_line(&wrk, "-v").unwrap_or_default();
    let wrk = Wrk::new(wrk).map_err(|error| error.to_string())?;
    let places = Places::claim();
    let mut backend = Running::backend(&places)?;
    for addr in places.backends {
        backend.wait_ready(addr, &[addr]).await?;
    }

    let mut notes = Vec::new();
    let mut peers = Vec::new();
    for peer in options.peers {
        if peer.is_proxy() {
            match examine(peer, &places).await {
                Ok(found) => notes.extend(found.into_iter().map(|note| format!("{} {note}.", peer.name()))),
                Err(error) => {
                    notes.push(format!("{} is left out: {error}", peer.name()));
                    continue;
                }
            }
        }
        peers.push(peer);
    }
    for note in &notes {
        progress(note);
    }
    if peers.is_empty() {
        return Err("nobody is left to measure".to_owned());
    }
    options.peers = peers;

    let mut bench = Bench { options, wrk, places, backend };
    let (results, good) = bench.run(&mut notes).await;
    bench.backend.stop().await;
    bench.report(&results, &client, &notes).map_err(|error| format!("{FILE}: {error}"))?;
    Ok(good)
}

struct Bench {
    options: Options,
    wrk: Wrk,
    places: Places,
    backend: Running,
}

impl Bench {
    async fn run(&self, notes: &mut Vec<String>) -> (Vec<report::Measured>, bool) {
        let Options { rounds, seconds, repeats, ref peers, ref cases } = self.options;
        let mut results: Vec<report::Measured> = cases.iter().map(|case| empty(case)).collect();
        let mut good = true;
        for round in 0..rounds {
            for (case, result) in cases.iter().zip(&mut results) {
                for peer in in_turn(peers, round) {
                    // Without a proxy there is no log to compare.
                    if case.logs && !peer.is_proxy() {
                        continue;
                    }
                    match calmest(repeats, async || self.measure(case, peer, seconds).await).await {
                        Ok(run) => {
                            let rate = run.requests as f64 / run.seconds;
                            let text = format!("{:<10} {:<8} {rate:>8.0} req/s", case.name, peer.name());
                            let others = run.others * 100.0;
                            progress(format_args!(
                                "round {}/{rounds}  {text}, others {others:.0} %",
                                round + 1
                            ));
                            result.runs.insert(peer, round, run);
                        }
                        Err(error) => {
                            good = false;
                            let note = format!("{} {}, round {}: {error}", case.name, peer.name(), round + 1);
                            progress(&note);
                            notes.push(note);
                        }
                    }
                }
            }
        }
        for result in &results {
            for peer in result.runs.peers() {
                good &= result.errors(peer) == 0;
                if let Some(lines) = result.lines_per_request(peer).filter(|&lines| lines < 0.99) {
                    let name = peer.name();
                    notes.push(format!(
                        "{name} logged only {:.0} % of the requests of {}.",
                        lines * 100.0,
                        result.name
                    ));
                }
            }
        }
        (results, good)
    }

    /// One run against a fresh proxy, whose memory is therefore that of this case.
    async fn measure(&self, case: &Case, peer: Peer, seconds: u32) -> Result<Run, String> {
        let addr = self.places.of(peer);
        let mut proxy = None;
        if peer.is_proxy() {
            let running = proxy.insert(Running::proxy(peer, &self.places, case.logs)?);
            running.wait_ready(addr, &self.places.backends).await?;
        }
        let load = Load { addr, path: case.path, connections: case.connections, seconds };
        self.wrk.run(Load { seconds: WARM_UP_SECONDS, ..load })?;

        let lines_before = proxy.as_ref().map_or(0, Running::log_lines);
        let processes = proxy.as_ref().map(Running::processes).unwrap_or_default();
        let backends = self.backend.processes();
        let (start, busy, client) = (Instant::now(), busy_of_machine(), of_ended_children());
        let (proxy_cpu, backend_cpu) = (Cpu::now(&processes), Cpu::now(&backends));
        let seen = self.wrk.run(load)?;
        let (proxy_cpu, backend_cpu) = (proxy_cpu.until_now(&processes), backend_cpu.until_now(&backends));
        let client_cpu = of_ended_children().saturating_sub(client);
        let busy = busy_of_machine().saturating_sub(busy);
        let elapsed = start.elapsed();

        let memory = Memory::now(&processes);
        let used = match &mut proxy {
            Some(proxy) => {
                // Its last lines are written by then.
                proxy.stop().await;
                Some(Proxy {
                    cpu: proxy_cpu,
                    rss_kib: memory.rss,
                    pss_kib: memory.pss,
                    log_lines: proxy.log_lines().saturating_sub(lines_before),
                })
            }
            None => None,
        };
        if seen.requests == 0 {
            return Err(format!("no request was answered, {} errors", seen.errors));
        }
        let others = busy.saturating_sub(proxy_cpu + backend_cpu + client_cpu);
        Ok(Run {
            seconds: seen.seconds,
            requests: seen.requests,
            bytes: seen.bytes,
            p50_us: seen.p50_us,
            p99_us: seen.p99_us,
            errors: seen.errors,
            proxy: used,
            backend_cpu,
            client_cpu,
            others: others as f64 / 1e9 / (elapsed.as_secs_f64() * cores() as f64),
        })
    }

    fn report(&self, results: &[report::Measured], client: &str, notes: &[String]) -> std::io::Result<()> {
        let Options { rounds, seconds, ref peers, .. } = self.options;
        let wrk = client.split(" [").next().unwrap_or_default().replace("wrk debian/", "wrk ");
        let mut versions = Vec::from_iter(Peer::Direct.version());
        versions.extend(peers.iter().filter(|peer| peer.is_proxy()).filter_map(|peer| peer.version()));
        versions.push(wrk);
        let (usual, most) = report::others(results);
        let text = [
            format!("{}.", versions.join(", ")),
            format!("{} cores, Linux {}; medians of {rounds} runs of {seconds} s.", cores(), kernel()),
            format!(
                "Other programs used {:.0} % of the cores during the usual run, {:.0} % during the worst.",
                usual * 100.0,
                most * 100.0
            ),
            "Client, proxy and backend share the machine: only the ratios count, each of runs of the same round."
                .to_owned(),
        ];
        let setup = json!({
            "versions": versions,
            "cores": cores(),
            "kernel": kernel(),
            "rounds": rounds,
            "seconds": seconds,
            "warm_up_seconds": WARM_UP_SECONDS,
            "repeats": self.options.repeats,
            "repeated_from_others_share_of_cores": CALM,
            "others_share_of_cores": { "median": usual, "most": most },
            "notes": notes,
        });
        machine::write(FILE, &report::file(&setup, results))?;
        print(report::table(results));
        print("");
        for line in text.iter().chain(notes) {
            print(line);
        }
        print(format_args!("Every run: {FILE}"));
        Ok(())
    }
}

fn empty(case: &Case) -> report::Measured {
    report::Measured {
        name: case.name,
        connections: case.connections,
        large: case.path == "/1m",
        logs: case.logs,
        runs: Compared::default(),
    }
}
