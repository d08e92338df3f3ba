//! Who stands before the servers: pgsplit and `HAProxy`, each with its settings.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::agent;
use crate::measuring::program::{Program, find, first_line};
use crate::support::address::Address;
use crate::support::balancer::{Balancer, binary, get};
use crate::support::client::PASSWORD;
use crate::support::home;
use crate::support::wait::wait_at_most;

/// A program with one of its sets of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// Nodes and the role for checks, nothing else.
    Pgsplit,
    /// Checks and deadlines as short as those of [`Peer::HaproxyFast`].
    PgsplitFast,
    /// The times that Patroni's template has.
    HaproxyPatroni,
    /// A check each second.
    HaproxyEachSecond,
    /// Five checks each second.
    HaproxyFast,
}

impl Peer {
    pub(crate) const ALL: [Self; 5] =
        [Self::Pgsplit, Self::PgsplitFast, Self::HaproxyPatroni, Self::HaproxyEachSecond, Self::HaproxyFast];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pgsplit => "pgsplit",
            Self::PgsplitFast => "pgsplit-fast",
            Self::HaproxyPatroni => "haproxy-P",
            Self::HaproxyEachSecond => "haproxy-A",
            Self::HaproxyFast => "haproxy-F",
        }
    }

    /// Its program.
    pub(crate) fn family(self) -> &'static str {
        match self {
            Self::Pgsplit | Self::PgsplitFast => "pgsplit",
            Self::HaproxyPatroni | Self::HaproxyEachSecond | Self::HaproxyFast => "haproxy",
        }
    }

    /// Name and version, as it says itself.
    pub(crate) fn version(self) -> Result<String, String> {
        let (program, argument, nth) = match self.family() {
            "pgsplit" => (binary(), "--version", 1),
            _ => (find("haproxy")?, "-v", 2),
        };
        let line = first_line(&program, argument).unwrap_or_default();
        let version = line.split_whitespace().nth(nth).ok_or(format!("{} says no version", self.family()))?;
        Ok(format!("{} {version}", self.family()))
    }
}

/// A server as a proxy finds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// For sessions.
    pub(crate) addr: SocketAddr,
    /// Of its agent.
    pub(crate) agent: SocketAddr,
}

/// A running proxy over a primary and its standbys. Dropping it kills it.
pub(crate) enum Proxy {
    Pgsplit(Balancer),
    Haproxy(Haproxy),
}

impl Proxy {
    /// Starts it over `places`, the primary first, and waits until it knows all of them.
    pub(crate) async fn start(peer: Peer, places: &[Place]) -> Result<Self, String> {
        match peer {
            Peer::Pgsplit | Peer::PgsplitFast => {
                let balancer = Balancer::start(&pgsplit_config(peer, places)).await;
                balancer.wait_ready().await;
                Ok(Self::Pgsplit(balancer))
            }
            Peer::HaproxyPatroni | Peer::HaproxyEachSecond | Peer::HaproxyFast => {
                let haproxy = Haproxy::launch(peer, places)?;
                haproxy.wait_ready(places.len()).await;
                Ok(Self::Haproxy(haproxy))
            }
        }
    }

    /// The listener for writes.
    pub(crate) fn rw(&self) -> SocketAddr {
        match self {
            Self::Pgsplit(balancer) => balancer.rw(),
            Self::Haproxy(haproxy) => haproxy.rw,
        }
    }

    /// The listener for reads.
    pub(crate) fn ro(&self) -> SocketAddr {
        match self {
            Self::Pgsplit(balancer) => balancer.ro(),
            Self::Haproxy(haproxy) => haproxy.ro,
        }
    }

    /// All it has logged.
    pub(crate) fn log(&self) -> String {
        match self {
            Self::Pgsplit(balancer) => balancer.err(),
            Self::Haproxy(haproxy) => {
                fs::read_to_string(haproxy.program.dir().join("err")).unwrap_or_default()
            }
        }
    }
}

fn pgsplit_config(peer: Peer, places: &[Place]) -> String {
    let mut text = "nodes:\n".to_owned();
    for (i, place) in places.iter().enumerate() {
        let _ = writeln!(text, "  - {{name: n{i}, addr: \"{}\"}}", place.addr);
    }
    let _ = writeln!(text, "check:\n  user: lb_check\n  password: {PASSWORD}");
    if peer == Peer::PgsplitFast {
        text += "  interval: 200ms\n  fast_interval: 100ms\n  down_interval: 200ms\n  timeout: 500ms\n  \
                 rise: 2\n  fall: 3\nsessions: {connect_timeout: 500ms, answer_timeout: 500ms}\n";
    }
    text
}

/// A running `HAProxy`.
pub(crate) struct Haproxy {
    _address: Address,
    rw: SocketAddr,
    ro: SocketAddr,
    stats: SocketAddr,
    program: Program,
}

impl Haproxy {
    fn launch(peer: Peer, places: &[Place]) -> Result<Self, String> {
        let (connect, check, timings) = match peer {
            Peer::HaproxyPatroni => ("4s", "5s", "inter 3s fall 3 rise 2"),
            Peer::HaproxyEachSecond => ("3s", "2s", "inter 1s fall 3 rise 2"),
            _ => ("500ms", "500ms", "inter 200ms fastinter 100ms fall 3 rise 2"),
        };
        let address = Address::claim();
        let [rw, ro, stats] = [6432, 6433, 8404].map(|port| address.port(port));
        let (mut writers, mut readers) = (String::new(), String::new());
        for (i, Place { addr, agent }) in places.iter().enumerate() {
            debug_assert_eq!(agent.port(), agent::PORT);
            let _ =
                writeln!(writers, "    server n{i} {addr} check addr {} port {}", agent.ip(), agent.port());
            // The primary serves reads when no standby does, as pgsplit's listener has it.
            let _ = writeln!(readers, "    server n{i} {addr} check{}", if i == 0 { " backup" } else { "" });
        }
        let config = include_str!("haproxy.cfg")
            .replace("RW_SERVERS\n", &writers)
            .replace("RO_SERVERS\n", &readers)
            .replace("TIMINGS", timings)
            .replace("CONNECT", connect)
            .replace("CHECK", check)
            .replace("BIND_RW", &rw.to_string())
            .replace("BIND_RO", &ro.to_string())
            .replace("BIND_STATS", &stats.to_string());
        let mut command = Command::new(find("haproxy")?);
        command.args(["-db", "-f", "haproxy.cfg"]);
        let dir = home::directory("haproxy");
        let program = Program::start("haproxy", &mut command, dir, ("haproxy.cfg", &config))?;
        Ok(Self { _address: address, rw, ro, stats, program })
    }

    /// Waits until every server has been checked, and only the first is good for writes.
    async fn wait_ready(&self, servers: usize) {
        wait_at_most(Duration::from_secs(30), "haproxy to know every server", async || {
            let page = get(self.stats, "/;csv").await.map_or(String::new(), |(_, page)| page);
            let states = states(&page);
            let right = |(listener, server, state): &(String, String, String)| {
                let up = listener == "ro" || server == "n0";
                (state.as_str() == "UP") == up
            };
            if states.len() == 2 * servers && states.iter().all(right) { Ok(()) } else { Err(states) }
        })
        .await;
    }
}

/// Listener, server and state of each server that has been checked at least once.
fn states(page: &str) -> Vec<(String, String, String)> {
    // The first lines may be of the transfer.
    let mut lines = page.lines().skip_while(|line| !line.starts_with("# "));
    let head: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let place = |name: &str| head.iter().position(|found| *found == name);
    let (Some(state), Some(check)) = (place("status"), place("check_status")) else { return Vec::new() };
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let server = fields.get(1).filter(|name| name.starts_with('n'))?;
        // `* L4CON` while the first check runs.
        fields.get(check).filter(|result| !result.is_empty() && !result.starts_with(['*', 'I']))?;
        Some((fields.first()?.to_string(), server.to_string(), fields.get(state)?.to_string()))
    };
    lines.filter_map(of_line).collect()
}
