//! What a node is, and what a client asks for, in libpq's words.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Role of a node. `replica` is accepted for standby where people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Takes writes: the server is not in recovery.
    Primary,
    /// Follows a primary: the server is in recovery, or is a logical replica whose role is written down.
    Standby,
}

impl Role {
    /// Both roles, in the order they are shown.
    pub const ALL: [Self; 2] = [Self::Primary, Self::Standby];

    /// The word for configuration, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }

    /// The role a server reports through `in_hot_standby` or `pg_is_in_recovery()`.
    #[must_use]
    pub const fn from_in_recovery(in_recovery: bool) -> Self {
        if in_recovery { Self::Standby } else { Self::Primary }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which nodes a listener sends its sessions to, in the words and meanings of libpq's
/// [`target_session_attrs`](https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Any live node.
    Any,
    /// A node that is not in recovery and whose sessions may write by default.
    ReadWrite,
    /// A node that is in recovery, or whose sessions are read-only by default.
    ReadOnly,
    /// A node that is not in recovery.
    Primary,
    /// A node that is in recovery.
    Standby,
    /// A standby; any live node when there is no live standby.
    PreferStandby,
}

impl Target {
    /// Every target, for error texts.
    pub const ALL: [Self; 6] =
        [Self::Any, Self::ReadWrite, Self::ReadOnly, Self::Primary, Self::Standby, Self::PreferStandby];

    /// The word for configuration, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        }
    }

    /// Whether a node can only be chosen for this target once its role is known.
    #[must_use]
    pub const fn needs_role(self) -> bool {
        !matches!(self, Self::Any | Self::PreferStandby)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
