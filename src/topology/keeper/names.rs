//! The nodes of which each address is a node of its own, and the following of their names.

use std::net::IpAddr;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::net::discover::{Finding, Name, Refresh, Resolve, follow};

/// What was found out about a node's name.
pub(super) struct Found {
    /// Which node of the file.
    pub(super) of: usize,
    /// What was found.
    pub(super) finding: Finding,
}

/// The names of a cluster that are to be followed, each with its place in the file.
pub(super) struct Names(Vec<(usize, Name)>);

impl Names {
    /// Those that are no addresses, if the file wants names followed at all.
    pub(super) fn of(cluster: &config::Cluster, dns: config::Dns) -> Self {
        let nodes = cluster.nodes.iter().enumerate().filter(|_| dns.all_addresses);
        let named = nodes.filter_map(|(of, node)| {
            let (host, port) = (node.addr.host.clone(), node.addr.port);
            // With a colon it is an IPv6 address, perhaps with a zone.
            let is_name = host.parse::<IpAddr>().is_err() && !host.contains(':');
            is_name.then_some((of, Name { host, port, refresh: Refresh::every(dns.refresh) }))
        });
        Self(named.collect())
    }

    /// Whether the name of this node of the file is among them.
    pub(super) fn has(&self, of: usize) -> bool {
        self.0.iter().any(|(at, _)| *at == of)
    }

    /// Follows all, each in a task of its own, until `stop`.
    pub(super) fn follow(
        self,
        resolver: &impl Resolve,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> mpsc::Receiver<Found> {
        let (sender, found) = mpsc::channel(self.0.len().max(1));
        for (of, name) in self.0 {
            let wrap = move |finding| Found { of, finding };
            let life = follow(name, resolver.clone(), sender.clone(), wrap);
            tasks.spawn(stop.clone().run_until_cancelled_owned(life));
        }
        found
    }
}
