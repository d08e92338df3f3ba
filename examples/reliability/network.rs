//! A network of the program's own, in which packets can be dropped without disturbing anybody.
//!
//! As root the program runs itself again in a fresh network namespace. Loopback, filter rules and all go with its
//! last process. Where that cannot be, a relay of the program stands before each server and swallows what comes: the
//! relay still accepts connections, so a silent network is then seen only after a connect.

use std::env;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

const INSIDE: &str = "PGSPLIT_RELIABILITY_INSIDE";
const PREPARE: &str = "ip link set lo up && iptables -n -L INPUT";

/// How packets are dropped here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drops {
    /// By the kernel, in a network namespace of our own.
    Packets,
    /// By a relay before each server.
    Relay,
}

impl Drops {
    /// Goes into a namespace where possible: then it returns in another process image only.
    pub(crate) fn enter() -> Self {
        if env::var_os(INSIDE).is_some() {
            return if quietly("sh", &["-c", PREPARE]) { Self::Packets } else { Self::Relay };
        }
        let possible = quietly("unshare", &["--net", "--", "sh", "-c", PREPARE]);
        if let (true, Ok(program)) = (possible, env::current_exe()) {
            // Returns only when it fails.
            let _ = Command::new("unshare").args(["--net", "--"]).arg(program).env(INSIDE, "1").exec();
        }
        Self::Relay
    }
}

/// An address that no packet reaches or leaves, until dropped.
#[derive(Debug)]
pub(crate) struct Silence {
    ip: IpAddr,
}

impl Silence {
    pub(crate) fn around(ip: IpAddr) -> Result<Self, String> {
        let silence = Self { ip };
        // Where packets arrive, not where they leave: a sender would be told.
        let set = ["-d", "-s"].iter().all(|side| filter("-A", side, ip));
        if set { Ok(silence) } else { Err("iptables cannot drop packets".to_owned()) }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        for side in ["-d", "-s"] {
            filter("-D", side, self.ip);
        }
    }
}

fn filter(how: &str, side: &str, ip: IpAddr) -> bool {
    quietly("iptables", &["-w", how, "INPUT", side, &ip.to_string(), "-j", "DROP"])
}

fn quietly(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
