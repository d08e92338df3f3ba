//! The nodes of which each address is a node of its own, and the following of their names.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::{self, NodeAddr};
use crate::net::discover::{Finding, Name, Refresh, Resolve, follow};

/// What was found out about a node's name.
pub(super) struct Found {
    /// By which following of it.
    pub(super) number: u64,
    /// What was found.
    pub(super) finding: Finding,
}

/// The names of a cluster that are followed, each in a task of its own.
pub(super) struct Names {
    begin: Box<dyn Fn(Name, u64, CancellationToken) + Send>,
    stop: CancellationToken,
    begun: u64,
    followed: Vec<Followed>,
}

/// One name. Its task ends when this goes.
struct Followed {
    number: u64,
    /// The node of the file that it belongs to.
    node: String,
    addr: NodeAddr,
    refresh: Duration,
    _end: DropGuard,
}

impl Names {
    /// None yet; those to come are looked up by `resolver`, until `stop`. What is found out comes to the receiver.
    pub(super) fn new(
        resolver: &impl Resolve,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> (Self, mpsc::Receiver<Found>) {
        let (sender, found) = mpsc::channel(16);
        let (resolver, tasks) = (resolver.clone(), tasks.clone());
        let begin = move |name, number, end: CancellationToken| {
            let wrap = move |finding| Found { number, finding };
            let life = follow(name, resolver.clone(), sender.clone(), wrap);
            tasks.spawn(end.run_until_cancelled_owned(life));
        };
        let (stop, followed) = (stop.clone(), Vec::new());
        (Self { begin: Box::new(begin), stop, begun: 0, followed }, found)
    }

    /// Follows the names of these nodes from now on, as far as the file wants that, and no others. One that is followed as
    /// it should be goes on.
    pub(super) fn settle(&mut self, cluster: &config::Cluster, dns: config::Dns) {
        let wanted = |node: &&Arc<config::Node>| dns.all_addresses && is_name(&node.addr.host);
        let wanted: Vec<_> = cluster.nodes.iter().filter(wanted).collect();
        self.followed.retain(|followed| {
            let is_same = |node: &config::Node| node.name == followed.node && node.addr == followed.addr;
            followed.refresh == dns.refresh && wanted.iter().any(|node| is_same(node))
        });
        for node in wanted {
            if self.has(&node.name) {
                continue;
            }
            self.begun += 1;
            let (end, number, addr) = (self.stop.child_token(), self.begun, node.addr.clone());
            let name =
                Name { host: addr.host.clone(), port: addr.port, refresh: Refresh::every(dns.refresh) };
            (self.begin)(name, number, end.clone());
            let (node, refresh) = (node.name.clone(), dns.refresh);
            self.followed.push(Followed { number, node, addr, refresh, _end: end.drop_guard() });
        }
    }

    /// Whether the name of this node of the file is followed.
    pub(super) fn has(&self, node: &str) -> bool {
        self.followed.iter().any(|followed| followed.node == node)
    }

    /// Whose name that is, if it is still followed.
    pub(super) fn of(&self, number: u64) -> Option<&str> {
        self.followed.iter().find(|followed| followed.number == number).map(|followed| followed.node.as_str())
    }
}

/// With a colon it is an IPv6 address, perhaps with a zone.
fn is_name(host: &str) -> bool {
    host.parse::<IpAddr>().is_err() && !host.contains(':')
}
