//! The closed label sets: every value a label can take, so that every series exists from the first scrape on.

mod http;

pub use http::{Cached, CodeClass, HttpMethod, HttpRejection, HttpRetry};

use std::io;

/// Why a connection never reached a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// The listener had `max_connections` sessions.
    Limit,
    /// The first packet was not the `PostgreSQL` protocol.
    Protocol,
    /// The client did not finish its first packet in time.
    StartupTimeout,
    /// No node fitted, and as many clients as may wait were waiting.
    QueueFull,
    /// No node fitted for as long as a client may wait.
    QueueTimeout,
    /// No node fitted, and clients do not wait; or every node that fitted refused.
    NoNode,
    /// pgsplit was stopping.
    Draining,
    /// Somebody ended it by hand.
    Killed,
}

impl Rejection {
    /// Every reason, in the order of [`Rejection::index`].
    pub const ALL: [Self; 8] = [
        Self::Limit,
        Self::Protocol,
        Self::StartupTimeout,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::NoNode,
        Self::Draining,
        Self::Killed,
    ];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Protocol => "protocol",
            Self::StartupTimeout => "startup_timeout",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::NoNode => "no_node",
            Self::Draining => "draining",
            Self::Killed => "killed",
        }
    }

    /// Place in [`Rejection::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// How a session that reached a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The client closed it.
    Client,
    /// The node closed it.
    Server,
    /// A time limit ran out.
    Timeout,
    /// The node was judged down, and its sessions were cut off.
    NodeDown,
    /// It was there to write, and its node was no longer the primary.
    Demoted,
    /// Its node was too far behind.
    Lagging,
    /// pgsplit was stopping, and the drain time was over; or the node was to be left, or taken out of use.
    Drain,
    /// Somebody ended it by hand.
    Killed,
    /// It goes on in the process that has taken this one's place.
    Moved,
    /// Anything else; the log line says what.
    Error,
}

impl End {
    /// Every ending, in the order of [`End::index`].
    pub const ALL: [Self; 10] = [
        Self::Client,
        Self::Server,
        Self::Timeout,
        Self::NodeDown,
        Self::Demoted,
        Self::Lagging,
        Self::Drain,
        Self::Killed,
        Self::Moved,
        Self::Error,
    ];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Timeout => "timeout",
            Self::NodeDown => "node_down",
            Self::Demoted => "demoted",
            Self::Lagging => "lagging",
            Self::Drain => "drain",
            Self::Killed => "killed",
            Self::Moved => "moved",
            Self::Error => "error",
        }
    }

    /// Place in [`End::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Why a session was given to another node before its client could notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Redispatch {
    /// The node could not be connected to.
    Connect,
    /// The node hung up before its first answer.
    Reset,
    /// The node was connected and did not answer in time.
    NoAnswer,
    /// The node began to fail, or another one took its place, while it was awaited.
    GoingDown,
    /// The node is starting up, shutting down or recovering.
    CannotConnectNow,
    /// The node has no connection left.
    TooManyConnections,
}

impl Redispatch {
    /// Every reason, in the order of [`Redispatch::index`].
    pub const ALL: [Self; 6] = [
        Self::Connect,
        Self::Reset,
        Self::NoAnswer,
        Self::GoingDown,
        Self::CannotConnectNow,
        Self::TooManyConnections,
    ];

    /// The label value: an SQLSTATE where the node named one.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::NoAnswer => "no_answer",
            Self::GoingDown => "going_down",
            Self::CannotConnectNow => "57P03",
            Self::TooManyConnections => "53300",
        }
    }

    /// Place in [`Redispatch::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What became of a cancel request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CancelResult {
    /// Its key was known: it went to the one node it was for.
    Routed,
    /// Its key was not known: it went to every node of the cluster.
    Broadcast,
    /// Its key was not known, and there was no node to ask.
    Unknown,
    /// Too many were under way.
    Limited,
    /// It could not be delivered.
    Failed,
}

impl CancelResult {
    /// Every result, in the order of [`CancelResult::index`].
    pub const ALL: [Self; 5] = [Self::Routed, Self::Broadcast, Self::Unknown, Self::Limited, Self::Failed];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::Broadcast => "broadcast",
            Self::Unknown => "unknown",
            Self::Limited => "limited",
            Self::Failed => "failed",
        }
    }

    /// Place in [`CancelResult::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What became of a reload of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReloadResult {
    /// Something was different, and is in force.
    Applied,
    /// Nothing was different, or nothing that takes effect without a restart.
    Unchanged,
    /// It was wrong, or could not be put in force; what was before stays.
    Failed,
}

impl ReloadResult {
    /// Every result, in the order of [`ReloadResult::index`].
    pub const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Failed];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }

    /// Place in [`ReloadResult::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What became of an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpgradeResult {
    /// This process has taken another one's place.
    Done,
    /// No other process took this one's place.
    Failed,
}

impl UpgradeResult {
    /// Every result, in the order of [`UpgradeResult::index`].
    pub const ALL: [Self; 2] = [Self::Done, Self::Failed];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Place in [`UpgradeResult::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Why a node could not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectError {
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// No way to that network or host.
    Unreachable,
    /// The name has no address.
    Dns,
    /// The connection was broken off.
    Reset,
    /// Anything else; the log line says what.
    Other,
}

impl ConnectError {
    /// Every reason, in the order of [`ConnectError::index`].
    pub const ALL: [Self; 6] =
        [Self::Refused, Self::Timeout, Self::Unreachable, Self::Dns, Self::Reset, Self::Other];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Dns => "dns",
            Self::Reset => "reset",
            Self::Other => "other",
        }
    }

    /// Place in [`ConnectError::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The class of an error met while resolving a node's name or connecting to it. `NotFound` is a name without
    /// an address: a TCP connect never gives it.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused => Self::Refused,
            Kind::TimedOut => Self::Timeout,
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => Self::Unreachable,
            Kind::NotFound => Self::Dns,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => {
                Self::Reset
            }
            // The standard library gives a failed lookup no kind and no error number, only this text.
            _ if error.to_string().starts_with("failed to lookup address") => Self::Dns,
            _ => Self::Other,
        }
    }
}

/// What a check of a node found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckResult {
    /// It takes sessions.
    Up,
    /// It lives and has no connection left.
    Full,
    /// It does not take sessions.
    Failed,
}

impl CheckResult {
    /// Every result, in the order of [`CheckResult::index`].
    pub const ALL: [Self; 3] = [Self::Up, Self::Full, Self::Failed];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Full => "full",
            Self::Failed => "failed",
        }
    }

    /// Place in [`CheckResult::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// How a node is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// Not checked yet.
    Starting,
    /// Gets sessions.
    Up,
    /// Gets sessions; some checks in a row failed, not yet enough.
    GoingDown,
    /// Gets no sessions.
    Down,
    /// Gets no sessions; some checks in a row were good, not yet enough.
    GoingUp,
    /// Lives, and for the moment gets no sessions because it has no connection left.
    Full,
    /// Gets no sessions because somebody has said so; checked as before.
    Drain,
    /// Gets no sessions because somebody has said so; not checked.
    Maint,
}

impl NodeState {
    /// Every state, in the order of [`NodeState::index`].
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Up,
        Self::GoingDown,
        Self::Down,
        Self::GoingUp,
        Self::Full,
        Self::Drain,
        Self::Maint,
    ];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::GoingDown => "going_down",
            Self::Down => "down",
            Self::GoingUp => "going_up",
            Self::Full => "full",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }

    /// Place in [`NodeState::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// SQLSTATE with which a node answered a login, by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartupError {
    /// Starting up, shutting down or recovering.
    CannotConnectNow,
    /// No connection left, for the server or for this role or database.
    TooManyConnections,
    /// Wrong password.
    InvalidPassword,
    /// Not let in, by `pg_hba.conf` or otherwise.
    InvalidAuthorization,
    /// No such database.
    UnknownDatabase,
    /// Any other SQLSTATE.
    Other,
}

impl StartupError {
    /// Every class, in the order of [`StartupError::index`].
    pub const ALL: [Self; 6] = [
        Self::CannotConnectNow,
        Self::TooManyConnections,
        Self::InvalidPassword,
        Self::InvalidAuthorization,
        Self::UnknownDatabase,
        Self::Other,
    ];

    /// The label value: the SQLSTATE itself where there is one.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CannotConnectNow => "57P03",
            Self::TooManyConnections => "53300",
            Self::InvalidPassword => "28P01",
            Self::InvalidAuthorization => "28000",
            Self::UnknownDatabase => "3D000",
            Self::Other => "other",
        }
    }

    /// Place in [`StartupError::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The class of an SQLSTATE from a node.
    #[must_use]
    pub fn from_sqlstate(sqlstate: &str) -> Self {
        Self::ALL.into_iter().find(|class| class.as_str() == sqlstate).unwrap_or(Self::Other)
    }
}

#[cfg(test)]
mod tests;
