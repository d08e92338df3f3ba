//! The HTTP fronts as the rest of pgsplit sees them: checked, complete, with every default filled in.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Balance, NodeAddr};

/// An address HTTP clients connect to, and the services behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// Unique name, a metric label.
    pub name: String,
    /// Unique address; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// The services; at least one.
    pub groups: Vec<Group>,
    /// Which request goes to which group, the first that fits; at least one.
    pub routes: Vec<Route>,
    /// What may be asked for at all.
    pub methods: Methods,
    /// Whether clients may speak HTTP/2 without TLS ("prior knowledge").
    pub http2: bool,
    /// Limits on clients.
    pub limits: Limits,
    /// How a request is given to another upstream.
    pub retries: Retries,
    /// What upstreams are told of the client.
    pub forwarded: Forwarded,
    /// Networks whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted: Vec<Network>,
    /// Whether requests and answers say that they passed here (`Via`).
    pub via: bool,
    /// Answers kept for other clients; `None`: none.
    pub cache: Option<Cache>,
    /// The listener its services reach their database by: index into [`Config::listeners`](super::Config).
    pub listener: Option<usize>,
    /// The path at which the front tells its own health; `None`: nowhere, and every path is an upstream's.
    pub monitor_uri: Option<String>,
}

/// Instances of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Unique within its front, a metric label; `default` when the file names none.
    pub name: String,
    /// At least one, in the order of the file.
    pub upstreams: Vec<Upstream>,
    /// How one of several is chosen.
    pub balance: Balance,
    /// How they are checked; `None`: not at all, they count as up.
    pub check: Option<HttpCheck>,
    /// Whether failures of real requests put an upstream aside for a while.
    pub passive: bool,
    /// One TCP connect.
    pub connect_timeout: Duration,
    /// From the request sent to the head of the answer.
    pub response_timeout: Duration,
}

/// One instance of a service, or, when its name leads to several addresses, several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where it listens; the default port is 80.
    pub addr: NodeAddr,
    /// 0 to 256; 0: no new requests.
    pub weight: u16,
    /// Only used when no other fits.
    pub backup: bool,
    /// Most requests at a time, for each address; `None`: no limit.
    pub max_connections: Option<NonZeroU32>,
}

/// What a request must be to go to a group. An empty host and path fit every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Host in lower case without a port; `*.example.com` stands for every name that ends so.
    pub host: Option<String>,
    /// Path prefix, which ends at a `/` or at the end of the path: `/users` fits `/users` and `/users/7`, not
    /// `/users2`.
    pub path: Option<String>,
    /// Index into [`Front::groups`].
    pub group: usize,
}

/// What may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Methods {
    /// Everything.
    Any,
    /// These, in upper case; anything else is answered 405.
    Only(Vec<String>),
}

/// Limits on clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at a time.
    pub max_connections: NonZeroU32,
    /// Requests that are passed on at a time.
    pub max_in_flight: NonZeroU32,
    /// Requests that may wait beyond that.
    pub queue_size: u32,
    /// How long one may wait: for its turn, for an upstream that fits, for room on one.
    pub queue_timeout: Duration,
    /// Largest request head, in bytes.
    pub max_header: u64,
    /// Largest request body, in bytes; `None`: no limit.
    pub max_body: Option<u64>,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// Longest pause within a body, of the client or of the upstream.
    pub body_timeout: Duration,
    /// Longest pause between two requests on a client's connection.
    pub idle_timeout: Duration,
}

/// How a request is given to another upstream before its client has seen anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Other upstreams tried; 0: none.
    pub max: u32,
    /// Methods that may be sent twice, in upper case.
    pub methods: Vec<String>,
    /// Answers that are as good as none.
    pub statuses: Vec<u16>,
    /// Retries allowed for each hundred requests, beyond a few; `None`: no such limit.
    pub budget: Option<u32>,
}

impl Retries {
    /// Whether requests of this method may be sent twice.
    #[must_use]
    pub fn may_repeat(&self, method: &str) -> bool {
        self.methods.iter().any(|allowed| allowed == method)
    }
}

/// How an upstream is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// What is asked for, from `/` on.
    pub path: String,
    /// The Host header; `None`: the upstream's address.
    pub host: Option<String>,
    /// From one check to the next.
    pub interval: Duration,
    /// The same while the upstream is changing state, or requests fail.
    pub fast_interval: Duration,
    /// Longest time for one whole check.
    pub timeout: Duration,
    /// Good checks in a row that bring it up.
    pub rise: NonZeroU32,
    /// Bad checks in a row that take it down.
    pub fall: NonZeroU32,
    /// Status codes that are good.
    pub expect: Vec<RangeInclusive<u16>>,
}

/// What becomes of `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// What a trusted peer says is kept and ours added; of anyone else it is replaced.
    Append,
    /// Replaced by ours, whoever says it.
    Replace,
    /// Removed.
    Off,
}

/// Answers kept for other clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Most bytes of all answers together.
    pub size: u64,
    /// Largest single answer.
    pub max_entry: u64,
    /// How long after it went stale an answer may still be given while a fresh one is fetched, unless it says so
    /// itself.
    pub stale_while_revalidate: Duration,
    /// The same when no fresh one can be had.
    pub stale_if_error: Duration,
}

/// An IP network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address of it.
    pub addr: IpAddr,
    /// Bits of it that count.
    pub bits: u8,
}

impl Network {
    /// Whether `addr` is in it. An IPv4 address mapped into IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr.to_canonical(), addr.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(addr)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits.min(32))).unwrap_or(0);
                u32::from(net) & mask == u32::from(addr) & mask
            }
            (IpAddr::V6(net), IpAddr::V6(addr)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits.min(128))).unwrap_or(0);
                u128::from(net) & mask == u128::from(addr) & mask
            }
            _ => false,
        }
    }
}

/// Which requests get a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogRequests {
    /// None.
    Off,
    /// Those answered with 5xx, cut short, or retried.
    Errors,
    /// Those, and one of so many others: 1 is all.
    OneOf(NonZeroU32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let net = |addr: &str, bits| Network { addr: addr.parse().unwrap(), bits };
        let in_net = |net: Network, addr: &str| net.contains(addr.parse().unwrap());
        assert!(in_net(net("10.0.0.0", 8), "10.255.0.1"));
        assert!(!in_net(net("10.0.0.0", 8), "11.0.0.1"));
        assert!(in_net(net("0.0.0.0", 0), "1.2.3.4"));
        assert!(in_net(net("10.1.2.3", 32), "10.1.2.3"));
        assert!(in_net(net("10.1.2.3", 32), "::ffff:10.1.2.3"));
        assert!(in_net(net("fd00::", 8), "fd12::1"));
        assert!(in_net(net("::", 0), "fd12::1"));
        assert!(!in_net(net("::", 0), "1.2.3.4"));
    }
}
