//! What is measured.

/// A load and how it is named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) load: Load,
    /// Clients insist on TLS.
    pub(crate) tls: bool,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Each keeps a session and asks for one row after another.
    Select { clients: u32 },
    /// Each connects, asks for one row, leaves, and begins again.
    Connect { clients: u32 },
    /// All connect at once, ask for one row, and leave.
    Storm { clients: u32 },
    /// One reads, or writes, much.
    Bulk(Bulk),
    /// All have asked for one row and keep silent.
    Idle { sessions: u32 },
    /// The same before one proxy that may have no more open files, each asked something now and then.
    Hold { sessions: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bulk {
    CopyOut,
    CopyIn,
    /// Rows of 64 KiB.
    LargeRows,
    /// Rows with one number.
    SmallRows,
}

/// In what a load is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unit {
    Transaction,
    Session,
    Megabyte,
    Idle,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Transaction => "tx",
            Self::Session => "session",
            Self::Megabyte => "MB",
            Self::Idle => "idle session",
        }
    }
}

impl Load {
    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Select { .. } => Unit::Transaction,
            Self::Connect { .. } | Self::Storm { .. } => Unit::Session,
            Self::Bulk(_) => Unit::Megabyte,
            Self::Idle { .. } | Self::Hold { .. } => Unit::Idle,
        }
    }

    /// The most sessions it has at a time.
    pub(crate) fn sessions(self) -> u32 {
        match self {
            Self::Select { clients } | Self::Connect { clients } | Self::Storm { clients } => clients,
            Self::Bulk(_) => 1,
            Self::Idle { sessions } | Self::Hold { sessions } => sessions,
        }
    }
}

const fn plain(name: &'static str, load: Load) -> Case {
    Case { name, load, tls: false }
}

const fn encrypted(name: &'static str, load: Load) -> Case {
    Case { name, load, tls: true }
}

/// In the order in which they are measured.
pub(crate) const CASES: [Case; 17] = [
    plain("select-1", Load::Select { clients: 1 }),
    plain("select-16", Load::Select { clients: 16 }),
    plain("select-64", Load::Select { clients: 64 }),
    plain("select-256", Load::Select { clients: 256 }),
    encrypted("select-64-tls", Load::Select { clients: 64 }),
    plain("connect-4", Load::Connect { clients: 4 }),
    encrypted("connect-4-tls", Load::Connect { clients: 4 }),
    plain("storm", Load::Storm { clients: 2000 }),
    plain("copy-out", Load::Bulk(Bulk::CopyOut)),
    encrypted("copy-out-tls", Load::Bulk(Bulk::CopyOut)),
    plain("copy-in", Load::Bulk(Bulk::CopyIn)),
    plain("rows-64k", Load::Bulk(Bulk::LargeRows)),
    plain("rows-small", Load::Bulk(Bulk::SmallRows)),
    plain("idle-1000", Load::Idle { sessions: 1000 }),
    plain("idle-5000", Load::Idle { sessions: 5000 }),
    plain("idle-9000", Load::Idle { sessions: 9000 }),
    plain("hold", Load::Hold { sessions: 9900 }),
];
