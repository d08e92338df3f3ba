//! One run: a fresh proxy, a load, and what both came to.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::time::{Instant, sleep};

use crate::bulk::Source;
use crate::cases::{Bulk, Case, Load};
use crate::crowd::{Crowd, storm};
use crate::measuring::console::progress;
use crate::measuring::usage::{Memory, sleeps};
use crate::meter::{Meter, Used};
use crate::peers::{Peer, Places, Proxy};
use crate::pgbench::{self, Pgbench, Plan};
use crate::report::{self, Run};
use crate::support::postgres::{Postgres, Settings};

/// Of the node, beside those of a case: of checks and of preparations.
const MORE_CONNECTIONS: u32 = 50;
/// Descriptors of a proxy for something else than sessions.
const MORE_FILES: u64 = 90;
/// What a session costs the node in memory, about, and what should be left.
const NODE_KIB_PER_SESSION: u64 = 1700;
const SPARE_KIB: u64 = 1024 * 1024;
/// What a proxy does after a login is over by then.
const SETTLE: Duration = Duration::from_secs(1);
/// Of the one proxy that is to hold as many sessions as it can.
const FILES_OF_HOLDER: u32 = 20_000;

/// How much of each load.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) seconds: u32,
    pub(crate) megabytes: u32,
}

/// Why this machine is too small for a case.
pub(crate) fn obstacle(case: &Case) -> Option<String> {
    let (Load::Idle { sessions } | Load::Hold { sessions }) = case.load else { return None };
    let sessions = u64::from(sessions);
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if files < 2 * sessions + MORE_FILES {
        return Some(format!(
            "its proxies need {} open files, and {files} are allowed",
            2 * sessions + MORE_FILES
        ));
    }
    let (need, free) = (sessions * NODE_KIB_PER_SESSION + SPARE_KIB, available_kib());
    let gib = |kib: u64| kib as f64 / f64::from(1 << 20);
    (free < need)
        .then(|| format!("its sessions need {:.1} GiB of memory, and {:.1} are free", gib(need), gib(free)))
}

fn available_kib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(u64::MAX)
}

/// The node, what is in it, and the addresses of the proxies.
pub(crate) struct World {
    setup: Setup,
    places: Places,
    source: Option<Source>,
    _node: Postgres,
}

impl World {
    /// With what these cases need.
    pub(crate) async fn build(setup: Setup, cases: &[&Case]) -> Result<Self, String> {
        progress("Starting the node");
        let sessions = cases.iter().map(|case| case.load.sessions()).max().unwrap_or(0);
        let settings = Settings::default()
            .tls()
            .max_connections(sessions + MORE_CONNECTIONS)
            // The data fit, and nothing happens beside the load.
            .option("shared_buffers", "400MB")
            .option("autovacuum", "off")
            .option("max_wal_size", "4GB")
            .option("max_locks_per_transaction", "10");
        let node = Postgres::start_new(settings).await;
        let addr = node.addr();
        if cases.iter().any(|case| matches!(case.load, Load::Select { .. } | Load::Connect { .. })) {
            pgbench::initialize(addr).await?;
        }
        let mut source = None;
        if cases.iter().any(|case| matches!(case.load, Load::Bulk(_))) {
            source = Some(Source::make(addr, setup.megabytes).await?);
        }
        Ok(Self { setup, places: Places::claim(addr), source, _node: node })
    }

    /// The version of a peer that starts and lets clients through.
    pub(crate) async fn examine(&self, peer: Peer) -> Result<String, String> {
        let version = peer.version()?;
        if peer.is_proxy() {
            Proxy::start(peer, &self.places, false, &[]).await?.stop().await;
        }
        Ok(version)
    }

    /// One run against a fresh proxy, whose memory is therefore that of this case. What is remarkable about it goes to
    /// the notes.
    pub(crate) async fn measure(
        &self,
        case: &Case,
        peer: Peer,
        notes: &mut Vec<String>,
    ) -> Result<Run, String> {
        let files = format!("--nofile={FILES_OF_HOLDER}:{FILES_OF_HOLDER}");
        let words: &[&str] = match case.load {
            Load::Hold { .. } => &["prlimit", &files],
            _ => &[],
        };
        let mut proxy = None;
        if peer.is_proxy() {
            proxy = Some(Proxy::start(peer, &self.places, case.tls, words).await?);
        }
        let subject = Subject {
            peer,
            addr: self.places.of(peer),
            processes: proxy.as_ref().map(Proxy::processes).unwrap_or_default(),
            tls: case.tls,
        };
        if peer.is_proxy() && subject.processes.is_empty() {
            return Err("its processes cannot be seen from here".to_owned());
        }
        let seconds = self.setup.seconds;
        let measured = match case.load {
            Load::Select { clients } => subject.pgbench(clients, false, seconds).await,
            Load::Connect { clients } => subject.pgbench(clients, true, seconds).await,
            Load::Storm { clients } => Ok(subject.storm(clients, notes).await),
            Load::Bulk(bulk) => subject.bulk(bulk, self.source.as_ref()).await,
            Load::Idle { sessions } => subject.idle(sessions, seconds).await,
            Load::Hold { sessions } => subject.hold(sessions, seconds, notes).await,
        };
        if let Some(proxy) = &mut proxy {
            // When it has ended, its last words say more than what the clients met.
            proxy.check_running()?;
            proxy.stop().await;
        }
        let run = measured?;
        if let Some(ended) = run.proxy.as_ref().map(|proxy| proxy.ended_threads).filter(|&ended| ended > 0) {
            notes.push(format!("{} {}: {ended} threads ended during a run", case.name, peer.name()));
        }
        Ok(run)
    }
}

/// Who is measured.
struct Subject {
    peer: Peer,
    addr: std::net::SocketAddr,
    processes: Vec<u32>,
    tls: bool,
}

impl Subject {
    fn meter(&self) -> Meter {
        Meter::start(self.processes.clone(), self.peer.is_contained())
    }

    /// To be called when the sessions that count are still there.
    fn run_of(&self, used: &Used) -> Run {
        let memory = Memory::now(&self.processes);
        let proxy = report::Proxy {
            cpu: used.proxy,
            ended_threads: used.ended_threads,
            pss_kib: memory.pss,
            private_kib: memory.private,
        };
        Run {
            seconds: used.elapsed.as_secs_f64(),
            proxy: self.peer.is_proxy().then_some(proxy),
            others: used.others,
            ..Run::default()
        }
    }

    async fn pgbench(&self, clients: u32, connects: bool, seconds: u32) -> Result<Run, String> {
        let plan = Plan { addr: self.addr, clients, connects, tls: self.tls, seconds };
        let pgbench = Pgbench::start(plan).await?;
        let meter = self.meter();
        sleep(Duration::from_secs(seconds.into())).await;
        let used = meter.stop();
        let run = self.run_of(&used);
        let stretch = pgbench.finish(used.from, used.to).await?;
        if stretch.transactions == 0 {
            return Err("no transaction was done in the time that counts".to_owned());
        }
        Ok(Run { units: stretch.transactions as f64, latency: stretch.latency, ..run })
    }

    async fn storm(&self, clients: u32, notes: &mut Vec<String>) -> Run {
        let meter = self.meter();
        let storm = storm(self.addr, clients).await;
        let run = self.run_of(&meter.stop());
        if let Some(error) = storm.error {
            notes.push(format!("storm {}: {} of {clients} failed: {error}", self.peer.name(), storm.failed));
        }
        Run { units: storm.served as f64, latency: storm.logins, errors: storm.failed, ..run }
    }

    async fn bulk(&self, bulk: Bulk, source: Option<&Source>) -> Result<Run, String> {
        let source = source.ok_or("there is nothing to move")?;
        let meter = self.meter();
        let megabytes = source.run(bulk, self.addr, self.tls).await?;
        Ok(Run { units: megabytes, ..self.run_of(&meter.stop()) })
    }

    async fn idle(&self, sessions: u32, seconds: u32) -> Result<Run, String> {
        let before = Memory::now(&self.processes);
        let crowd = Crowd::gather(self.addr, sessions).await?;
        sleep(SETTLE).await;
        let after = Memory::now(&self.processes);
        let meter = self.meter();
        let (slept, start) = (sleeps(&self.processes), Instant::now());
        sleep(Duration::from_secs(seconds.into())).await;
        let slept = sleeps(&self.processes).saturating_sub(slept);
        let wake_ups = slept as f64 / start.elapsed().as_secs_f64();
        let run = self.run_of(&meter.stop());
        crowd.leave().await;
        let idle = report::Idle {
            sessions,
            pss_kib: after.pss.saturating_sub(before.pss),
            private_kib: after.private.saturating_sub(before.private),
            wake_ups,
        };
        Ok(Run { idle: Some(idle), ..run })
    }

    /// Every session must live at the end.
    async fn hold(&self, sessions: u32, seconds: u32, notes: &mut Vec<String>) -> Result<Run, String> {
        let mut crowd = Crowd::gather(self.addr, sessions).await?;
        let meter = self.meter();
        let (alive, error) = crowd.murmur(Duration::from_secs(seconds.into())).await;
        let run = self.run_of(&meter.stop());
        crowd.leave().await;
        let lost = u64::from(sessions).saturating_sub(alive as u64);
        let error = error.map(|error| format!("; {error}")).unwrap_or_default();
        notes.push(format!(
            "hold: {alive} of {sessions} sessions alive after {:.0} s with {FILES_OF_HOLDER} open files allowed{error}",
            run.seconds
        ));
        Ok(Run { errors: lost, ..run })
    }
}
