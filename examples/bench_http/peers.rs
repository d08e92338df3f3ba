//! The backend and the proxies in front of it: how each is written down, started, looked at and stopped.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use tokio::time::{Instant, sleep};

use crate::load::get;
use crate::measuring::program::{
    self, PATIENCE, POLL, Program, find, first_line, without_variables_of_postgres,
};
use crate::support::address::Address;
use crate::support::home;

pub(crate) const KIBIBYTE: usize = 1024;
pub(crate) const MEBIBYTE: usize = 1024 * KIBIBYTE;

/// Who answers the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// The backend itself.
    Direct,
    Nginx,
    Haproxy,
    Pgsplit,
}

impl Peer {
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::Nginx, Self::Haproxy, Self::Pgsplit];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Pgsplit => "pgsplit",
        }
    }

    pub(crate) fn is_proxy(self) -> bool {
        self != Self::Direct
    }

    /// Its executable file.
    fn program(self) -> Result<PathBuf, String> {
        match self {
            Self::Direct | Self::Nginx => find("nginx"),
            Self::Haproxy => find("haproxy"),
            Self::Pgsplit => program::pgsplit(),
        }
    }

    /// Name and version, as it says itself.
    pub(crate) fn version(self) -> Option<String> {
        let argument = if self == Self::Pgsplit { "--version" } else { "-v" };
        let line = first_line(&self.program().ok()?, argument)?;
        let version = match self {
            Self::Direct | Self::Nginx => line.rsplit_once('/')?.1,
            Self::Haproxy => line.split_whitespace().nth(2)?,
            Self::Pgsplit => line.split_whitespace().nth(1)?,
        };
        Some(format!("{} {version}", if self == Self::Direct { "backend nginx" } else { self.name() }))
    }
}

/// The addresses of everything.
pub(crate) struct Places {
    address: Address,
    pub(crate) backends: [SocketAddr; 2],
    proxies: [SocketAddr; 3],
}

impl Places {
    pub(crate) fn claim() -> Self {
        let address = Address::claim();
        let backends = [8081, 8082].map(|port| address.port(port));
        let proxies = [8091, 8092, 8093].map(|port| address.port(port));
        Self { address, backends, proxies }
    }

    /// Where clients reach a peer.
    pub(crate) fn of(&self, peer: Peer) -> SocketAddr {
        let [nginx, haproxy, pgsplit] = self.proxies;
        match peer {
            Peer::Direct => self.backends[0],
            Peer::Nginx => nginx,
            Peer::Haproxy => haproxy,
            Peer::Pgsplit => pgsplit,
        }
    }

    fn fill(&self, text: &str, peer: Peer) -> String {
        text.replace("ADDRESS", &self.address.ip().to_string())
            .replace("BACKEND_1", &self.backends[0].to_string())
            .replace("BACKEND_2", &self.backends[1].to_string())
            .replace("BIND", &self.of(peer).to_string())
    }
}

/// The backend or a proxy, with its log of requests.
pub(crate) struct Running {
    program: Program,
    requests_log: PathBuf,
}

impl Running {
    /// The service behind the proxies.
    pub(crate) fn backend(places: &Places) -> Result<Self, String> {
        let dir = home::directory("backend");
        let config = include_str!("backend.conf").replace("KIBIBYTE", &"x".repeat(KIBIBYTE));
        fs::write(dir.join("1m"), "x".repeat(MEBIBYTE)).map_err(|error| error.to_string())?;
        Self::launch(Peer::Direct, dir, &places.fill(&config, Peer::Direct))
    }

    /// A proxy, with a line for each request in a file or with none.
    pub(crate) fn proxy(peer: Peer, places: &Places, logs: bool) -> Result<Self, String> {
        let dir = home::directory(peer.name());
        let config = match peer {
            Peer::Direct | Peer::Nginx => {
                include_str!("nginx.conf").replace("ACCESS_LOG", if logs { "requests.log" } else { "off" })
            }
            Peer::Haproxy => {
                let target = if logs { "log stdout format raw local0" } else { "" };
                let requests = if logs { "log global\n    option httplog" } else { "" };
                include_str!("haproxy.cfg").replace("LOG_TARGET", target).replace("LOG_REQUESTS", requests)
            }
            Peer::Pgsplit => {
                let log = if logs { "{requests: all}" } else { "{level: warn, requests: off}" };
                include_str!("pgsplit.yaml").replace("LOG", log)
            }
        };
        Self::launch(peer, dir, &places.fill(&config, peer))
    }

    fn launch(peer: Peer, dir: PathBuf, config: &str) -> Result<Self, String> {
        let mut command = Command::new(peer.program()?);
        let (file, requests_log) = match peer {
            Peer::Direct | Peer::Nginx => ("nginx.conf", "requests.log"),
            Peer::Haproxy => ("haproxy.cfg", "out"),
            Peer::Pgsplit => ("pgsplit.yaml", "err"),
        };
        match peer {
            Peer::Direct | Peer::Nginx => {
                command.args(["-e", "stderr", "-c"]).arg(dir.join(file)).arg("-p").arg(&dir);
            }
            Peer::Haproxy => {
                command.args(["-db", "-f", file]);
            }
            Peer::Pgsplit => {
                command.args(["run", file]);
                without_variables_of_postgres(&mut command);
            }
        }
        let requests_log = dir.join(requests_log);
        let program = Program::start(peer.name(), &mut command, dir, (file, config))?;
        Ok(Self { program, requests_log })
    }

    /// All its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.program.processes()
    }

    /// Lines in its log so far.
    pub(crate) fn log_lines(&self) -> u64 {
        let text = fs::read(&self.requests_log).unwrap_or_default();
        text.split(|&byte| byte == b'\n').count() as u64 - 1
    }

    /// Waits until it answers from each of these backends.
    pub(crate) async fn wait_ready(
        &mut self,
        addr: SocketAddr,
        backends: &[SocketAddr],
    ) -> Result<(), String> {
        let start = Instant::now();
        let mut missing: Vec<u16> = backends.iter().map(SocketAddr::port).collect();
        let mut last = String::new();
        while !missing.is_empty() {
            self.program.check_running()?;
            if start.elapsed() > PATIENCE {
                let words = self.program.last_words();
                return Err(format!("no answer from ports {missing:?} in {PATIENCE:?}; {last}; {words}"));
            }
            match request(addr) {
                Ok(arrived) if missing.contains(&arrived.port) => {
                    missing.retain(|&port| port != arrived.port);
                }
                Ok(_) => {}
                Err(error) => {
                    last = error;
                    sleep(POLL).await;
                }
            }
        }
        Ok(())
    }

    /// Ends it and waits until every process has gone, so that nothing of it answers for the next.
    pub(crate) async fn stop(&mut self) {
        self.program.stop().await;
    }
}

/// What a backend says of a request.
struct Arrived {
    /// The backend's.
    port: u16,
    /// Which request of its connection it was.
    nth: u64,
    /// The client as the proxy names it.
    client: Option<String>,
}

fn request(addr: SocketAddr) -> Result<Arrived, String> {
    let (status, body) = get(addr, "/seen").map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&body);
    let mut words = text.split_whitespace();
    let port = words.next().and_then(|word| word.parse().ok());
    let nth = words.next().and_then(|word| word.parse().ok());
    match (status, port, nth) {
        (200, Some(port), Some(nth)) => Ok(Arrived { port, nth, client: words.next().map(str::to_owned) }),
        _ => Err(format!("status {status}: {}", text.trim())),
    }
}

/// Whether a proxy does what it is compared in. Returns what it does not do but can be measured without; an error
/// when it does not start, does not balance or gives other answers than the backend.
pub(crate) async fn examine(peer: Peer, places: &Places) -> Result<Vec<String>, String> {
    const REQUESTS: usize = 30;
    let addr = places.of(peer);
    let mut proxy = Running::proxy(peer, places, false)?;
    proxy.wait_ready(addr, &places.backends).await?;
    for (path, size) in [("/1k", KIBIBYTE), ("/1m", MEBIBYTE)] {
        let (status, body) = get(addr, path).map_err(|error| format!("{path}: {error}"))?;
        if status != 200 || body.len() != size {
            return Err(format!("{path}: status {status} and {} bytes", body.len()));
        }
    }
    let arrived = (0..REQUESTS).map(|_| request(addr)).collect::<Result<Vec<_>, _>>()?;
    proxy.stop().await;

    let mut notes = Vec::new();
    if arrived.iter().all(|one| one.nth == 1) {
        notes.push("connects to a backend for each request".to_owned());
    }
    if arrived.iter().any(|one| one.client.is_none()) {
        notes.push("sends no X-Forwarded-For".to_owned());
    }
    let [first, second] =
        places.backends.map(|addr| arrived.iter().filter(|one| one.port == addr.port()).count());
    if first.abs_diff(second) > REQUESTS / 3 {
        notes.push(format!("gave {first} of {REQUESTS} requests to one backend, {second} to the other"));
    }
    Ok(notes)
}
