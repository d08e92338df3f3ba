//! The configuration as the rest of pgsplit sees it: checked, complete, with every default filled in.
//!
//! The way of a file, in the order of the modules that do the work:
//!
//! 1. `tree`: YAML to a tree in which everything knows its place; `secrets` says what to hide of it
//! 2. `env`: `${NAME}` filled in
//! 3. `file`: the keys, as `keys` describes them, read with `table` (one mapping) and `words` (one value)
//! 4. `check` and `rules`: defaults, and what goes together; `credentials` and `pgpass` find passwords and the token
//! 5. [`report`]: everything that was found, shown at its line
//!
//! The way back, to what one would write, is [`show`]; [`explain`] and [`schema`] tell people and editors of the keys.
//!
//! What is about HTTP alone stands in files of its own, as in `check_http`.
//! [`url`] reads connection strings. [`diff`] says what is different between two configurations, as `written` writes them. Nothing outside this module knows YAML.
//!
//! # Invariants
//!
//! - A [`Config`] that exists can be run: no name, address or combination in it needs a second look.
//! - No text made here, error or `Debug`, shows a password.

mod admin;
mod check;
mod check_http;
mod credentials;
pub mod diff;
mod disk;
mod env;
pub mod explain;
mod file;
mod file_http;
mod finding;
pub mod http;
pub mod key;
pub mod keys;
mod keys_http;
mod load;
mod pgpass;
pub mod report;
mod rules;
mod rules_http;
mod rules_patroni;
pub mod schema;
mod secrets;
pub mod show;
mod show_http;
mod source;
mod table;
mod tree;
pub mod url;
mod words;
mod words_http;

#[cfg(test)]
mod tests;

pub use admin::Unsure;
pub use credentials::read_token;
pub use env::Env;
pub use load::sha256_of;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::role::{Role, Target};
use crate::base::secret::Secret;

/// Everything pgsplit runs by.
#[derive(Clone, Debug)]
pub struct Config {
    /// Groups of nodes that replicate one another; none when the file is about HTTP alone.
    pub clusters: Vec<Arc<Cluster>>,
    /// Where clients connect; none when there are no clusters.
    pub listeners: Vec<Arc<Listener>>,
    /// Where HTTP clients connect; none unless the file says so.
    pub fronts: Vec<Arc<http::Front>>,
    /// How names are looked up.
    pub dns: Dns,
    /// Where metrics and status are served; `None`: nowhere.
    pub admin: Option<Admin>,
    /// What is logged, and how.
    pub log: Log,
    /// Threads and drain.
    pub runtime: Runtime,
    /// What is allowed but will surprise somebody; shown at start and by `pgsplit check`.
    pub warnings: Vec<String>,
    /// What it was read from.
    pub read: Read,
}

/// What a configuration was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The files: the configuration itself first, then those with secrets. None when no file was named.
    pub files: Vec<PathBuf>,
    /// SHA-256 of the configuration itself, in hexadecimal digits.
    pub sha256: Option<String>,
}

/// Nodes that replicate one another, and how they are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `main` unless the file names several.
    pub name: String,
    /// In the order of the file; names are unique over all clusters.
    pub nodes: Vec<Arc<Node>>,
    /// How the nodes are checked.
    pub check: Check,
    /// How sessions to these nodes are set up.
    pub sessions: Sessions,
}

/// One `PostgreSQL` server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique name; the host part of the address unless the file says otherwise.
    pub name: String,
    /// Where it listens.
    pub addr: NodeAddr,
    /// The role written in the file; `None`: found out.
    pub role: Option<Role>,
    /// 0 to 256; 0: no new sessions.
    pub weight: u16,
    /// Only used when no other node fits.
    pub backup: bool,
    /// Most sessions at a time; `None`: no limit.
    pub max_connections: Option<NonZeroU32>,
    /// The password of the check's login to this node, from `~/.pgpass`; [`Check::password`] comes first.
    pub password: Option<Secret>,
    /// Where its Patroni answers; only asked with [`CheckKind::Patroni`].
    pub patroni: PatroniAddr,
}

/// Where a Patroni answers. The host is resolved for each check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatroniAddr {
    /// Name or address, without brackets; `None`: the host of its server.
    pub host: Option<String>,
    /// TCP port.
    pub port: u16,
}

impl Default for PatroniAddr {
    /// Port 8008 on the host of its server.
    fn default() -> Self {
        Self { host: None, port: words::PATRONI_PORT }
    }
}

impl PatroniAddr {
    /// The whole address, beside a server on `host`.
    #[must_use]
    pub fn beside(&self, host: &str) -> NodeAddr {
        NodeAddr { host: self.host.clone().unwrap_or_else(|| host.to_owned()), port: self.port }
    }
}

impl fmt::Display for PatroniAddr {
    /// As it is written in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None => write!(f, "{}", self.port),
            Some(host) => write!(f, "{}", self.beside(host)),
        }
    }
}

impl std::str::FromStr for PatroniAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        words::patroni_addr(text)
    }
}

impl Node {
    /// What each address of its name is called, where each is a node of its own: `db`, `db/2`, `db/3`. No name in the
    /// file has a `/`, so these clash with none.
    #[must_use]
    pub fn name_of_address(&self, number: usize) -> String {
        if number <= 1 { self.name.clone() } else { format!("{}/{number}", self.name) }
    }
}

/// Host and port of a node. The host is resolved again for each check, or every [`Dns::refresh`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeAddr {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// An address clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Unique name, a metric label.
    pub name: String,
    /// Unique address; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// Index into [`Config::clusters`].
    pub cluster: usize,
    /// Which nodes its sessions go to.
    pub target: Target,
    /// How one of several fitting nodes is chosen.
    pub balance: Balance,
    /// Most sessions at a time.
    pub max_connections: NonZeroU32,
    /// What becomes of a client's request for encryption.
    pub tls: Tls,
}

/// How one of several fitting nodes is chosen; `HAProxy`'s words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The fewest sessions for its weight.
    Leastconn,
    /// In turn, by weight.
    Roundrobin,
    /// The better of two drawn by weight.
    Random,
    /// The first in the file that has room.
    First,
    /// The same node for the same client address, as long as it is there.
    Source,
}

impl Balance {
    /// The word for configuration and status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leastconn => "leastconn",
            Self::Roundrobin => "roundrobin",
            Self::Random => "random",
            Self::First => "first",
            Self::Source => "source",
        }
    }
}

/// What becomes of a client's `SSLRequest` or `GSSENCRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// The node answers it; after its yes the session is opaque to pgsplit.
    Passthrough,
    /// pgsplit answers no, so that sessions stay readable.
    Off,
}

/// How nodes are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What a check does.
    pub kind: CheckKind,
    /// From one check of a node to its next.
    pub interval: Duration,
    /// The same while the node is changing state.
    pub fast_interval: Duration,
    /// The same while the node is down.
    pub down_interval: Duration,
    /// Longest time for one whole check.
    pub timeout: Duration,
    /// Good checks in a row that bring a node up.
    pub rise: NonZeroU32,
    /// Bad checks in a row that take a node down.
    pub fall: NonZeroU32,
    /// Whether a check logs in; else only the user's name is sent.
    pub logs_in: bool,
    /// Whom to log in as.
    pub user: String,
    /// The password, when the node asks for one; `None`: each node may have its own ([`Node::password`]).
    pub password: Option<Secret>,
    /// Which database to log in to.
    pub dbname: String,
    /// Shown in `pg_stat_activity` during a check.
    pub application_name: String,
    /// Standbys further behind get no new sessions; `None`: never mind.
    pub max_lag: Option<MaxLag>,
    /// Whether failures of real sessions and roles seen in client logins count.
    pub passive: bool,
}

impl Check {
    /// Whether a check can find out which role a node has.
    #[must_use]
    pub fn finds_roles(&self) -> bool {
        self.logs_in || self.kind == CheckKind::Patroni
    }
}

/// What a check does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Opens a TCP connection.
    Tcp,
    /// Sends a startup packet and takes any answer of a living postmaster.
    Startup,
    /// Logs in; learns role, version and lag.
    Login,
    /// Asks the Patroni beside the server for role, lag and tags, and the server itself whether it lives.
    Patroni,
}

impl CheckKind {
    /// The word for configuration and status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Startup => "startup",
            Self::Login => "login",
            Self::Patroni => "patroni",
        }
    }
}

/// How far behind a standby may be: `30s` in the file is time, `16MiB` is log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxLag {
    /// Age of the last transaction it has replayed.
    Time(Duration),
    /// Bytes of write-ahead log it has not replayed.
    Bytes(u64),
}

/// How sessions are set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// One TCP connect to a node.
    pub connect_timeout: Duration,
    /// How long a connected node may take to its first answer before another one is tried.
    pub answer_timeout: Duration,
    /// Other nodes tried before the client sees an error.
    pub retries: u32,
    /// How long a client waits when no node fits; zero: not at all.
    pub queue_timeout: Duration,
    /// Clients that may wait at a time, for each listener.
    pub queue_size: u32,
    /// From accept to the client's complete startup packet.
    pub startup_timeout: Duration,
    /// What becomes of sessions on a node that is down.
    pub on_down: OnTrouble,
    /// What becomes of sessions that are there to write, on a node that is not the primary any more.
    pub on_demote: OnTrouble,
    /// What becomes of sessions on a node that is further behind than [`Check::max_lag`].
    pub on_lag: OnTrouble,
    /// What becomes of sessions on a node that is to be left: its name does not lead to its address any more.
    pub on_leave: OnTrouble,
    /// What becomes of sessions on a node that somebody has taken out of use.
    pub on_drain: OnTrouble,
    /// TCP keepalive on both sides; `None`: off.
    pub keepalive: Option<Keepalive>,
    /// Sent data that is not acknowledged for this long ends the connection; `None`: the system's default.
    ///
    /// Off unless asked for: Linux counts a peer that has merely stopped reading like one that is dead (since 5.11,
    /// tried on 6.18: a reader that paused was cut after the timeout to the second), and a slow client or a server
    /// busy with a long statement is neither.
    pub tcp_user_timeout: Option<Duration>,
}

/// What becomes of the sessions that are on a node with which something is the matter. New ones go elsewhere in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTrouble {
    /// They go on until one side ends them.
    Keep,
    /// Each ends between two of its transactions.
    Drain,
    /// They end at once.
    Close,
}

impl OnTrouble {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Drain => "drain",
            Self::Close => "close",
        }
    }
}

/// TCP keepalive times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// From one probe to the next.
    pub interval: Duration,
    /// Unanswered probes that end the connection.
    pub count: u32,
}

/// How names are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dns {
    /// How often the names of upstreams are looked up again, and with [`Dns::all_addresses`] those of nodes.
    pub refresh: Duration,
    /// Whether each address that a node's name leads to is a node of its own.
    pub all_addresses: bool,
}

/// Where metrics and status are served, and who may change something there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The address; `None`: only the socket.
    pub bind: Option<SocketAddr>,
    /// The Unix socket, over which everything may be changed; `None`: none.
    pub socket: Option<AdminSocket>,
    /// Names by which browsers may come to the address, beside those that lead nowhere else.
    pub hosts: Vec<String>,
    /// Who sends it to the address may change something; `None`: nobody may there.
    pub token: Option<Secret>,
}

/// The Unix socket of the admin server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSocket {
    /// Where it is.
    pub path: PathBuf,
    /// Whether nobody wrote it down, so that pgsplit runs without it where it cannot be made.
    pub is_default: bool,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a `tracing` filter such as `info,pgsplit::session=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
    /// Which sessions get a line.
    pub sessions: LogSessions,
    /// Which requests to the HTTP fronts get a line.
    pub requests: http::LogRequests,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Which sessions get a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSessions {
    /// None.
    Off,
    /// Those that ended in an error.
    Errors,
    /// Each, at its end.
    End,
    /// Each, at its start and its end.
    Both,
}

/// Threads and drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Worker threads; zero: one for each core.
    pub threads: usize,
    /// How long new sessions are still accepted after SIGTERM, so that whoever asks `/readyz` can send them elsewhere.
    pub drain_delay: Duration,
    /// How long sessions may go on after that.
    pub drain_timeout: Duration,
    /// Whether the configuration is loaded again when its file changes.
    pub watch_config: bool,
}

/// Why there is no [`Config`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file was read and is wrong.
    #[error("{} faults in the configuration", .0.faults.len())]
    Invalid(report::Report),
}

impl ConfigError {
    /// Everything that is wrong, one line for each fault. No secret is among it.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Invalid(report) => report.faults.iter().map(|fault| fault.line(&report.origin)).collect(),
            Self::Read { path, source } => vec![format!("cannot read {}: {source}", path.display())],
        }
    }
}
