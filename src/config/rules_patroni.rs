//! Rules about where a node's Patroni is: only written where it is asked, and not where the server should be.

use std::sync::Arc;

use super::file::{File, FileCluster};
use super::finding::Findings;
use super::words::PATRONI_PORT;
use super::{CheckKind, Cluster, PatroniAddr};

/// One cluster's nodes, which are checked in this way.
pub(super) fn patroni(cluster: &FileCluster, kind: CheckKind, f: &mut Findings<'_>) {
    let is_asked = kind == CheckKind::Patroni;
    for node in &cluster.nodes {
        let elsewhere = node.patroni.as_ref().filter(|patroni| patroni.value != PatroniAddr::default());
        if let Some(patroni) = elsewhere.filter(|_| !is_asked) {
            let message = format!("is never asked: checks are of type {}", kind.as_str());
            f.warning(&patroni.path, patroni.at, &message).help("set check.type to patroni");
        }
        let Some(addr) = &node.addr else { continue };
        let (host, port) = (&addr.value.host, addr.value.port);
        let asked = node.patroni.as_ref().map(|patroni| patroni.value.clone()).unwrap_or_default();
        let is_asked_there = is_asked && asked.beside(host) == addr.value;
        let help = format!("write `{{addr: {host}:5432, patroni: {host}:{port}}}`");
        match &node.patroni {
            Some(patroni) if is_asked_there => {
                let message = "is where the server is: Patroni has an address of its own";
                f.fault(&patroni.path, patroni.at, message)
                    .help(format!("it is usually {host}:{PATRONI_PORT}"));
            }
            None if is_asked_there => {
                let message =
                    format!("port {port} is where Patroni is asked: the server has a port of its own");
                f.fault(&addr.path, addr.at, &message).help(help);
            }
            _ if port == PATRONI_PORT => {
                let message = format!("port {port} is usually Patroni's REST API, not PostgreSQL");
                f.warning(&addr.path, addr.at, &message).help(help);
            }
            _ => {}
        }
    }
}

/// Where each address of a name is a node of its own, each has a Patroni of its own.
pub(super) fn of_addresses(file: &File, clusters: &[Arc<Cluster>], f: &mut Findings<'_>) {
    if !file.dns.all_addresses.as_ref().is_some_and(|all| all.value) {
        return;
    }
    for (cluster, written) in clusters.iter().zip(&file.clusters) {
        for (node, written) in cluster.nodes.iter().zip(&written.nodes) {
            let patroni = written.patroni.as_ref().filter(|patroni| patroni.value.host.is_some());
            if let Some(patroni) = patroni {
                let message = "with dns.all_addresses each address of the name has a Patroni of its own";
                f.fault(&patroni.path, patroni.at, message)
                    .help(format!("write its port alone: `patroni: {}`", node.patroni.port));
            }
        }
    }
}
