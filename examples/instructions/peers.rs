//! The proxies that are counted: how each is set up and started, alone or under a tool.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::time::{Instant, sleep};

use crate::measuring::program::{
    PATIENCE, POLL, Program, find, first_line, pgsplit, without_variables_of_postgres,
};
use crate::support::address::Address;
use crate::support::client::{connect, value};
use crate::support::home;
use crate::support::programs::programs;

/// Who stands before the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Pgsplit,
    Haproxy,
    Pgbouncer,
}

impl Peer {
    pub(crate) const ALL: [Self; 3] = [Self::Pgsplit, Self::Haproxy, Self::Pgbouncer];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pgsplit => "pgsplit",
            Self::Haproxy => "haproxy",
            Self::Pgbouncer => "pgbouncer",
        }
    }

    /// Its executable file.
    pub(crate) fn program(self) -> Result<PathBuf, String> {
        match self {
            Self::Pgsplit => pgsplit(),
            Self::Haproxy | Self::Pgbouncer => find(self.name()),
        }
    }

    /// Name and version, as it says itself.
    pub(crate) fn version(self) -> Option<String> {
        let argument = if self == Self::Haproxy { "-v" } else { "--version" };
        let line = first_line(&self.program().ok()?, argument)?;
        let nth = if self == Self::Haproxy { 2 } else { 1 };
        Some(format!("{} {}", self.name(), line.split_whitespace().nth(nth)?))
    }

    /// A program run by the user that runs this peer: `PgBouncer` refuses to be run by root.
    fn command(self, program: &Path) -> Command {
        if self == Self::Pgbouncer {
            return programs().system_command(&program.display().to_string());
        }
        let mut command = Command::new(program);
        without_variables_of_postgres(&mut command);
        command
    }

    fn directory(self) -> PathBuf {
        if self == Self::Pgbouncer {
            home::directory_of(programs().owner, self.name())
        } else {
            home::directory(self.name())
        }
    }

    /// What follows its name on the command line.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Pgsplit => &["run", "pgsplit.yaml"],
            Self::Haproxy => &["-db", "-f", "haproxy.cfg"],
            Self::Pgbouncer => &["pgbouncer.ini"],
        }
    }

    /// Its configuration and the name of the file.
    fn config(
        self,
        bind: SocketAddr,
        admin: SocketAddr,
        node: SocketAddr,
        logs: bool,
    ) -> (&'static str, String) {
        let (file, text) = match self {
            Self::Pgsplit => {
                let log = if logs { "end" } else { "off" };
                ("pgsplit.yaml", include_str!("pgsplit.yaml").replace("LOG", log))
            }
            Self::Haproxy => {
                let target = if logs { "log stdout format raw local0" } else { "" };
                let sessions = if logs { "log global\n    option tcplog" } else { "" };
                let text = include_str!("haproxy.cfg");
                ("haproxy.cfg", text.replace("LOG_TARGET", target).replace("LOG_SESSIONS", sessions))
            }
            Self::Pgbouncer => {
                let log = if logs { "1" } else { "0" };
                ("pgbouncer.ini", include_str!("pgbouncer.ini").replace("LOG", log))
            }
        };
        let text = text
            .replace("BIND_HOST", &bind.ip().to_string())
            .replace("BIND_PORT", &bind.port().to_string())
            .replace("NODE_HOST", &node.ip().to_string())
            .replace("NODE_PORT", &node.port().to_string())
            .replace("BIND", &bind.to_string())
            .replace("NODE", &node.to_string())
            .replace("ADMIN", &admin.to_string());
        (file, text)
    }
}

/// A running proxy before one server. Dropping it kills it.
pub(crate) struct Proxy {
    peer: Peer,
    program: Program,
    addr: SocketAddr,
    _address: Address,
}

impl Proxy {
    /// Starts it by way of a tool, the words of whose command line these are and which becomes the proxy in the end.
    /// Returns when a client has had an answer.
    pub(crate) async fn start(
        peer: Peer,
        node: SocketAddr,
        logs: bool,
        tool: &[String],
    ) -> Result<Self, String> {
        let address = Address::claim();
        let [addr, admin] = [6432, 8404].map(|port| address.port(port));
        let program = peer.program()?;
        let mut command = match tool {
            [] => peer.command(&program),
            [tool, words @ ..] => {
                let mut command = peer.command(Path::new(tool));
                command.args(words).arg(&program);
                command
            }
        };
        command.args(peer.arguments());
        let (file, config) = peer.config(addr, admin, node, logs);
        let dir = peer.directory();
        fs::write(dir.join("users.txt"), "\"postgres\" \"\"\n").map_err(|error| error.to_string())?;
        let program = Program::start(peer.name(), &mut command, dir, (file, &config))?;
        let mut proxy = Self { peer, program, addr, _address: address };
        proxy.wait_ready().await?;
        Ok(proxy)
    }

    async fn wait_ready(&mut self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            self.program.check_running()?;
            let answered = async { value(&connect(self.addr).await?, "select 1").await };
            match answered.await {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > PATIENCE => {
                    let words = self.program.last_words();
                    return Err(format!(
                        "{} gives no answer in {PATIENCE:?}: {error}; {words}",
                        self.peer.name()
                    ));
                }
                Err(_) => sleep(POLL).await,
            }
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The directory it works in.
    pub(crate) fn dir(&self) -> &Path {
        self.program.dir()
    }

    /// Its process; each has only one.
    pub(crate) fn pid(&self) -> u32 {
        self.program.processes().first().copied().unwrap_or_default()
    }

    /// Another program in the same directory, run by the same user.
    pub(crate) fn command_beside(&self, program: &Path) -> Command {
        let mut command = self.peer.command(program);
        command.current_dir(self.dir());
        command
    }

    /// Ends it and waits until it has gone.
    pub(crate) async fn stop(&mut self) {
        self.program.stop().await;
    }
}
