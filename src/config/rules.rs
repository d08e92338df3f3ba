//! Rules about more than one value: names and addresses that clash, roles nobody can have, times that do not
//! go together.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::check_http::bind_of;
use super::file::{File, FileCluster, FileListener, FileNode};
use super::finding::Findings;
use super::source::Pos;
use super::{Check, Cluster, Listener, Node, NodeAddr};
use crate::base::role::{Role, Target};

/// One cluster's list of nodes.
pub(super) fn nodes(cluster: &FileCluster, f: &mut Findings<'_>) {
    let mut seen: HashMap<(String, u16), Pos> = HashMap::new();
    let mut primary: Option<Pos> = None;
    for node in &cluster.nodes {
        if let Some(addr) = &node.addr {
            let key = (addr.value.host.to_ascii_lowercase(), addr.value.port);
            if let Some(first) = seen.insert(key, addr.at) {
                let message = format!("the node {} is written twice", addr.value);
                f.clash(&node.path, (addr.at, "again here"), (first, "first here"), &message);
            }
        }
        if let Some(role) = node.role.as_ref().filter(|role| role.value == Some(Role::Primary)) {
            if let Some(first) = primary {
                let labels = ((role.at, "a second primary"), (first, "the first"));
                let message = "two nodes of a cluster cannot both be its primary";
                f.clash(&role.path, labels.0, labels.1, message)
                    .help("use `role: auto` where roles may change");
            }
            primary.get_or_insert(role.at);
        }
    }
    let weights: Vec<u32> =
        cluster.nodes.iter().map(|node| node.weight.as_ref().map_or(100, |weight| weight.value)).collect();
    if !weights.is_empty() && weights.iter().all(|weight| *weight == 0) {
        let path = format!("{}nodes", cluster.prefix);
        f.fault(&path, cluster.nodes_at, "every node has weight 0: no session could ever start");
    }
}

/// The name of every node that has an address, cluster by cluster; names are unique over all of them.
pub(super) fn node_names(clusters: &[FileCluster], f: &mut Findings<'_>) -> Vec<Vec<String>> {
    let mut shared: HashMap<&str, usize> = HashMap::new();
    for addr in clusters.iter().flat_map(|cluster| &cluster.nodes).filter_map(|node| node.addr.as_ref()) {
        *shared.entry(&addr.value.host).or_default() += 1;
    }
    let mut seen: HashMap<String, (usize, Pos)> = HashMap::new();
    let mut all = Vec::new();
    for (index, cluster) in clusters.iter().enumerate() {
        let mut names = Vec::new();
        for node in &cluster.nodes {
            let Some(addr) = &node.addr else { continue };
            let is_shared = shared.get(addr.value.host.as_str()).is_some_and(|count| *count > 1);
            let default = || if is_shared { addr.value.to_string() } else { addr.value.host.clone() };
            let (name, at) =
                node.name.as_ref().map_or_else(|| (default(), addr.at), |name| (name.value.clone(), name.at));
            // The same address twice in one cluster is already a fault of its own.
            let is_derived = node.name.is_none();
            match seen.get(&name) {
                Some((first_in, first)) if !(is_derived && *first_in == index && is_shared) => {
                    let message = format!("the node name `{name}` is used twice");
                    f.clash(&node.path, (at, "again here"), (*first, "first here"), &message)
                        .help("give one of them another `name`");
                }
                Some(_) => (),
                None => {
                    seen.insert(name.clone(), (index, at));
                }
            }
            names.push(name);
        }
        all.push(names);
    }
    all
}

/// Names of listeners are metric labels.
pub(super) fn listener_names(listeners: &[FileListener], f: &mut Findings<'_>) {
    let mut seen: HashMap<&str, Pos> = HashMap::new();
    for name in listeners.iter().filter_map(|listener| listener.name.as_ref()) {
        if let Some(first) = seen.insert(&name.value, name.at) {
            let message = format!("two listeners are named `{}`", name.value);
            f.clash(&name.path, (name.at, "again here"), (first, "first here"), &message);
        }
    }
}

/// No two sockets on one address. Port 0 is chosen by the system, and so never the same.
pub(super) fn binds(
    file: &File,
    listeners: &[Listener],
    admin: Option<SocketAddr>,
    host: IpAddr,
    f: &mut Findings<'_>,
) {
    let mut all: Vec<(SocketAddr, String, Pos)> = Vec::new();
    match &file.listeners {
        Some(written) => {
            let written = written.value.iter().filter_map(|listener| listener.bind.as_ref());
            all.extend(written.map(|bind| (bind.value, bind.path.clone(), bind.at)));
        }
        None => all.extend(listeners.iter().map(|l| (l.bind, format!("listener {}", l.name), Pos::NOWHERE))),
    }
    let fronts = file.fronts.iter().filter_map(|front| bind_of(front, host));
    all.extend(fronts.map(|bind| (bind.value, bind.path, bind.at)));
    if let Some(admin) = admin {
        let at = file.admin.bind.as_ref().map_or(Pos::NOWHERE, |admin| admin.at);
        all.push((admin, "admin.bind".to_owned(), at));
    }
    for (index, (bind, path, at)) in all.iter().enumerate() {
        let Some((first, first_path, first_at)) =
            all.iter().take(index).find(|(first, ..)| clashes(*first, *bind))
        else {
            continue;
        };
        let same = if first == bind { "the same address as" } else { "an address that overlaps with" };
        let message = format!("{bind} is {same} {first_path}");
        f.clash(path, (*at, "bound again here"), (*first_at, "first bound here"), &message);
    }
}

fn clashes(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || (covers && a.is_ipv4() == b.is_ipv4()))
}

/// A listener whose target no node can ever be known to be would hold every client until it gives up.
pub(super) fn roles(file: &File, clusters: &[Arc<Cluster>], listeners: &[Listener], f: &mut Findings<'_>) {
    for (index, (cluster, written)) in clusters.iter().zip(&file.clusters).enumerate() {
        if !written.is_sound {
            continue;
        }
        let mut missing: Vec<&str> = Vec::new();
        let targets = listeners.iter().filter(|l| l.cluster == index && l.target.needs_role());
        for target in targets.map(|listener| listener.target) {
            let role = if matches!(target, Target::Primary | Target::ReadWrite) {
                Role::Primary
            } else {
                Role::Standby
            };
            let can_serve = cluster.nodes.iter().any(|node| can_serve(node, target, &cluster.check));
            if can_serve || missing.contains(&role.as_str()) {
                continue;
            }
            missing.push(role.as_str());
            let way = if written.nodes_at == Pos::NOWHERE {
                format!(
                    "write one as HOST:PORT={role}, or set PGSPLIT_CHECK_USER so that roles can be found out"
                )
            } else if cluster.check.finds_roles() {
                "one must have that role, or `auto`".to_owned()
            } else {
                format!(
                    "give one `role: {role}`, or set `check.user` (or `check.type: patroni`) so that roles can be \
                     found out"
                )
            };
            let message = format!("no node can be {role}, and a listener has target {target}: {way}");
            f.fault(&format!("{}nodes", written.prefix), written.nodes_at, &message);
        }
    }
}

fn can_serve(node: &Node, target: Target, check: &Check) -> bool {
    let is_found = check.finds_roles();
    match target {
        Target::Any | Target::PreferStandby => true,
        Target::Primary | Target::ReadWrite => node.role.map_or(is_found, |role| role == Role::Primary),
        Target::Standby => node.role.map_or(is_found, |role| role == Role::Standby),
        // A primary counts once a login has shown that its sessions are read-only by default.
        Target::ReadOnly => check.logs_in || node.role.map_or(is_found, |role| role == Role::Standby),
    }
}

/// A node that is one of our own listeners would make every session connect to pgsplit for ever.
pub(super) fn loops(file: &File, listeners: &[Listener], f: &mut Findings<'_>) {
    let nodes = file.clusters.iter().flat_map(|cluster| &cluster.nodes);
    for (node, addr) in nodes.filter_map(|node: &FileNode| Some((node, node.addr.as_ref()?))) {
        let is_own = |listener: &&Listener| leads_to(&addr.value, listener.bind);
        if let Some(listener) = listeners.iter().find(is_own) {
            let message = format!("{} is pgsplit's own listener `{}`", addr.value, listener.name);
            f.fault(&node.path, addr.at, &message);
        }
    }
}

/// Whether who connects to `addr` reaches `bind`, as far as one can tell without asking for names.
pub(super) fn leads_to(addr: &NodeAddr, bind: SocketAddr) -> bool {
    let host = if addr.host.eq_ignore_ascii_case("localhost") { "127.0.0.1" } else { &addr.host };
    let is_same = |ip: IpAddr| bind.ip() == ip || (bind.ip().is_unspecified() && ip.is_loopback());
    bind.port() == addr.port && host.parse().is_ok_and(is_same)
}

/// Times of checks that work, but not as one would expect.
pub(super) fn check_times(cluster: &FileCluster, check: &Check, f: &mut Findings<'_>) {
    if check.timeout <= check.interval || !cluster.is_sound {
        return;
    }
    let written = cluster.check.timeout.as_ref().or(cluster.check.interval.as_ref());
    let at = written.map_or(Pos::NOWHERE, |written| written.at);
    let path = format!("{}check.timeout", cluster.prefix);
    let beside = check.fast_interval.max(check.timeout / 2).min(check.timeout);
    let more = beside.saturating_mul(check.fall.get() - 1);
    let found_after = shown(check.timeout.saturating_add(more));
    slow_check(&path, at, ("a node", &found_after), (check.interval, check.timeout), f);
}

/// Warns that a check of `what` may take longer than `interval`.
pub(super) fn slow_check(
    path: &str,
    at: Pos,
    (what, found_after): (&str, &str),
    (interval, timeout): (Duration, Duration),
    f: &mut Findings<'_>,
) {
    let message = format!("{} is longer than check.interval ({})", shown(timeout), shown(interval));
    let better = shown(Duration::from_millis(u64::try_from(interval.as_millis()).unwrap_or(0) * 4 / 5));
    f.warning(path, at, &message)
        .help(format!("{what} that hangs is found down after {found_after}; use {better} or less"));
}

pub(super) fn shown(time: Duration) -> String {
    humantime::format_duration(time).to_string().replace(' ', "")
}
