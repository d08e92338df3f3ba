//! The backend and the proxies in front of it: how each is written down, started, looked at and stopped.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{Instant, sleep};

use crate::load::get;
use crate::support::address::Address;
use crate::support::home;
use crate::support::process::signal;
use crate::usage::family;

pub(crate) const KIBIBYTE: usize = 1024;
pub(crate) const MEBIBYTE: usize = 1024 * KIBIBYTE;

/// For a start and for an end.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

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
            Self::Pgsplit => {
                let path = env::var_os("PGSPLIT_BIN").unwrap_or_else(|| "target/release/pgsplit".into());
                // It is started from another directory.
                let path = PathBuf::from(path);
                path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))
            }
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

/// The first line a program prints about its version, wherever it prints it.
pub(crate) fn first_line(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}

/// A program in PATH, or where Debian keeps servers, which only root has in PATH.
pub(crate) fn find(name: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let servers = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let found = env::split_paths(&path).chain(servers).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("{name} is not installed"))
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

/// A started program with all its processes. Dropping it kills them.
pub(crate) struct Running {
    name: &'static str,
    child: Child,
    dir: PathBuf,
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
                // PGSPLIT_CONFIG and the like of the one who runs this.
                for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG"))
                {
                    command.env_remove(name);
                }
            }
        }
        let mut spawn = || {
            fs::write(dir.join(file), config)?;
            command.current_dir(&dir).stdin(Stdio::null()).process_group(0);
            command.stdout(File::create(dir.join("out"))?).stderr(File::create(dir.join("err"))?);
            let child = command.spawn()?;
            // For the watchdog, should we be killed.
            fs::write(dir.join("pid"), format!("{}\n", child.id()))?;
            Ok(child)
        };
        let child = spawn().map_err(|error: io::Error| format!("{}: {error}", peer.name()))?;
        let requests_log = dir.join(requests_log);
        Ok(Self { name: peer.name(), child, dir, requests_log })
    }

    /// All its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        family(self.child.id())
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
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended with {status}: {}", self.name, self.last_words()));
            }
            if start.elapsed() > PATIENCE {
                let words = self.last_words();
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
        signal(self.child.id(), Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            sleep(POLL).await;
        }
    }

    /// What it printed at last.
    fn last_words(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        let text = read("out") + &read("err");
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.iter().skip(lines.len().saturating_sub(3)).copied().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not when it has been waited for: its number may be somebody else's by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
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
