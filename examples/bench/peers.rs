//! Who stands before the node: how each is written down, started and waited for.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::time::{Instant, sleep};

use crate::containers::{self, Container};
use crate::measuring::program::{
    self, PATIENCE, POLL, Program, find, first_line, without_variables_of_postgres,
};
use crate::sessions::{Session, USER};
use crate::support::address::Address;
use crate::support::client::PASSWORD;
use crate::support::home;
use crate::support::programs::{Owner, programs};
use crate::support::tls::certificate;

/// Where Debian has the module for sessions, which other builds of nginx have within.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Who answers the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// The node itself.
    Direct,
    /// Debian 12's, or what is installed here.
    Haproxy,
    /// Debian 13's, in a container, as the others with a version in their name.
    Haproxy30,
    Nginx,
    Nginx126,
    Pgbouncer,
    Pgbouncer124,
    Pgsplit,
}

/// Its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Direct,
    Haproxy,
    Nginx,
    Pgbouncer,
    Pgsplit,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Pgbouncer => "pgbouncer",
            Self::Pgsplit => "pgsplit",
        }
    }
}

impl Peer {
    pub(crate) const ALL: [Self; 8] = [
        Self::Direct,
        Self::Haproxy,
        Self::Haproxy30,
        Self::Nginx,
        Self::Nginx126,
        Self::Pgbouncer,
        Self::Pgbouncer124,
        Self::Pgsplit,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Haproxy30 => "haproxy 3.0",
            Self::Nginx126 => "nginx 1.26",
            Self::Pgbouncer124 => "pgbouncer 1.24",
            _ => self.kind().name(),
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Direct => Kind::Direct,
            Self::Haproxy | Self::Haproxy30 => Kind::Haproxy,
            Self::Nginx | Self::Nginx126 => Kind::Nginx,
            Self::Pgbouncer | Self::Pgbouncer124 => Kind::Pgbouncer,
            Self::Pgsplit => Kind::Pgsplit,
        }
    }

    pub(crate) fn is_proxy(self) -> bool {
        self != Self::Direct
    }

    /// Whether it comes from another Debian than this machine's.
    pub(crate) fn is_contained(self) -> bool {
        matches!(self, Self::Haproxy30 | Self::Nginx126 | Self::Pgbouncer124)
    }

    /// Its executable file, on this machine or in the container's image.
    fn program(self) -> Result<PathBuf, String> {
        let name = match self.kind() {
            Kind::Direct => return Err("without a proxy there is no program".to_owned()),
            Kind::Pgsplit => return program::pgsplit(),
            kind => kind.name(),
        };
        if self.is_contained() { Ok(Path::new("/usr/sbin").join(name)) } else { find(name) }
    }

    /// Name and version, as it says itself.
    pub(crate) fn version(self) -> Result<String, String> {
        if self == Self::Direct {
            return Ok(format!("PostgreSQL {}", programs().version));
        }
        let argument = match self.kind() {
            Kind::Haproxy | Kind::Nginx => "-v",
            _ => "--version",
        };
        let line = if self.is_contained() {
            containers::first_line(&self.program()?, argument)
        } else {
            first_line(&self.program()?, argument)
        };
        let line = line.unwrap_or_default();
        let version = match self.kind() {
            Kind::Nginx => line.rsplit_once('/').map(|(_, version)| version),
            Kind::Haproxy => line.split_whitespace().nth(2),
            _ => line.split_whitespace().nth(1),
        };
        let version = version.ok_or_else(|| format!("it does not say its version: {line:?}"))?;
        let place = if self.is_contained() { " (container)" } else { "" };
        Ok(format!("{} {version}{place}", self.kind().name()))
    }

    fn arguments(self, dir: &Path, file: &str) -> Vec<String> {
        let dir = dir.display();
        let words: &[&str] = match self.kind() {
            Kind::Haproxy => &["-db", "-f", file],
            Kind::Nginx => &["-e", "stderr", "-c", &format!("{dir}/{file}"), "-p", &dir.to_string()],
            Kind::Pgsplit => &["run", file],
            Kind::Pgbouncer => &[file],
            Kind::Direct => &[],
        };
        words.iter().map(|&word| word.to_owned()).collect()
    }
}

/// The addresses of the proxies, and the node they lead to.
pub(crate) struct Places {
    _address: Address,
    node: SocketAddr,
    proxies: [SocketAddr; 4],
    admin: SocketAddr,
}

impl Places {
    pub(crate) fn claim(node: SocketAddr) -> Self {
        let address = Address::claim();
        let proxies = [7001, 7002, 7003, 6432].map(|port| address.port(port));
        let admin = address.port(8404);
        Self { _address: address, node, proxies, admin }
    }

    /// Where clients reach a peer. One runs at a time; still, each program has a port of its own.
    pub(crate) fn of(&self, peer: Peer) -> SocketAddr {
        let [haproxy, nginx, pgbouncer, pgsplit] = self.proxies;
        match peer.kind() {
            Kind::Direct => self.node,
            Kind::Haproxy => haproxy,
            Kind::Nginx => nginx,
            Kind::Pgbouncer => pgbouncer,
            Kind::Pgsplit => pgsplit,
        }
    }

    fn fill(&self, text: &str, peer: Peer, bind: SocketAddr, tls: bool) -> String {
        // Compiled in where it is not a file of its own.
        let module = peer.is_contained() || Path::new(STREAM_MODULE).is_file();
        let module = if module { format!("load_module {STREAM_MODULE};") } else { String::new() };
        let certificate = certificate();
        // Whether it is ready is asked without TLS in any case.
        let (client_tls, node_tls) = if tls { ("allow", "require") } else { ("disable", "disable") };
        text.replace("LOAD_MODULE", &module)
            .replace("CLIENT_TLS", client_tls)
            .replace("NODE_TLS", node_tls)
            .replace("ADMIN", &self.admin.to_string())
            .replace("BIND_HOST", &bind.ip().to_string())
            .replace("BIND_PORT", &bind.port().to_string())
            .replace("BIND", &bind.to_string())
            .replace("NODE_HOST", &self.node.ip().to_string())
            .replace("NODE_PORT", &self.node.port().to_string())
            .replace("NODE", &self.node.to_string())
            .replace("PASSWORD", PASSWORD)
            .replace("CERTIFICATE", &certificate.cert.display().to_string())
            .replace("KEY", &certificate.key.display().to_string())
    }
}

/// A running proxy. Dropping it ends it.
pub(crate) struct Proxy {
    program: Program,
    container: Option<Container>,
    addr: SocketAddr,
}

impl Proxy {
    /// Starts a peer that is a proxy, by way of `words`, the beginning of a command line such as `prlimit`; where it is
    /// PgBouncer, with or without TLS. Returns when a session through it is answered.
    pub(crate) async fn start(
        peer: Peer,
        places: &Places,
        tls: bool,
        words: &[&str],
    ) -> Result<Self, String> {
        let (file, config) = match peer.kind() {
            Kind::Direct => return Err("without a proxy there is nothing to start".to_owned()),
            Kind::Haproxy => ("haproxy.cfg", include_str!("haproxy.cfg")),
            Kind::Nginx => ("nginx.conf", include_str!("nginx.conf")),
            Kind::Pgbouncer => ("pgbouncer.ini", include_str!("pgbouncer.ini")),
            Kind::Pgsplit => ("pgsplit.yaml", include_str!("pgsplit.yaml")),
        };
        let addr = places.of(peer);
        let config = places.fill(config, peer, addr, tls);
        // PgBouncer refuses to be root.
        let owner = if peer.kind() == Kind::Pgbouncer { programs().owner } else { Owner::Same };
        let dir = home::directory_of(owner, peer.kind().name());
        if peer.kind() == Kind::Pgbouncer {
            fs::write(dir.join("users.txt"), format!("\"{USER}\" \"\"\n"))
                .map_err(|error| format!("users.txt: {error}"))?;
        }
        let mut line: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        line.push(peer.program()?.display().to_string());
        line.extend(peer.arguments(&dir, file));
        let (program, container) = if peer.is_contained() {
            let container = Container::new(peer.kind().name());
            let command = container.command(&line, &dir, owner);
            let mut command = command.map_err(|error| format!("{}: {error}", peer.name()))?;
            (Program::start(peer.name(), &mut command, dir, (file, &config))?, Some(container))
        } else {
            let mut command = of_owner(owner, &line);
            (Program::start(peer.name(), &mut command, dir, (file, &config))?, None)
        };
        let mut proxy = Self { program, container, addr };
        proxy.wait_ready().await?;
        Ok(proxy)
    }

    /// All its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        match &self.container {
            Some(_) => Container::processes(self.program.dir()),
            None => self.program.processes(),
        }
    }

    async fn wait_ready(&mut self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            self.program.check_running()?;
            let Err(error) = Session::ask(self.addr, "select 1").await else { return Ok(()) };
            if start.elapsed() > PATIENCE {
                return Err(format!("no session in {PATIENCE:?}: {error}; {}", self.program.last_words()));
            }
            sleep(POLL).await;
        }
    }

    /// An error, with its last words, when it runs no more.
    pub(crate) fn check_running(&mut self) -> Result<(), String> {
        self.program.check_running()
    }

    /// Ends it and waits until every process has gone, so that nothing of it answers for the next.
    pub(crate) async fn stop(&mut self) {
        self.program.stop().await;
    }
}

fn of_owner(owner: Owner, line: &[String]) -> Command {
    let (program, arguments) = line.split_first().map_or(("", line), |(first, rest)| (first.as_str(), rest));
    let mut command = match owner {
        Owner::Same => Command::new(program),
        Owner::Other { .. } => programs().system_command(program),
    };
    without_variables_of_postgres(&mut command);
    command.args(arguments);
    command
}
