//! `pgsplit check`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::cli::args::Source;
use crate::cli::out::Printer;
use crate::cli::{FAILURE, load, out, refuse};
use crate::config::{Config, NodeAddr};
use crate::net::discover::{Resolve, System};
use crate::topology::check::{self, Outcome, Report, Whither};

pub(super) fn check(path: Option<&Path>, connect: bool, printer: &mut Printer) -> ExitCode {
    let source = Source { config: path.map(Path::to_owned), from_url: None, nodes: Vec::new() };
    let (config, origin) = match load(&source) {
        Ok(loaded) => loaded,
        Err((error, origin)) => return refuse(&error, &origin),
    };
    for warning in &config.warnings {
        out::complain(&format!("warning: {warning}\n"));
    }
    printer.print(&format!("{origin}: ok ({})\n", counts(&config)));
    if !connect {
        return ExitCode::SUCCESS;
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::from(FAILURE);
    };
    let (text, all_up) = runtime.block_on(look_at_all(&config));
    printer.print(&text);
    if all_up { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
}

/// Looks at every node once, or at each address that its name leads to, all at the same time.
async fn look_at_all(config: &Config) -> (String, bool) {
    let tasks = TaskTracker::new();
    let nodes =
        config.clusters.iter().flat_map(|cluster| cluster.nodes.iter().map(move |node| (cluster, node)));
    let mut lookups = Vec::new();
    for (cluster, node) in nodes {
        let NodeAddr { host, port } = node.addr.clone();
        let wanted = config.dns.all_addresses;
        let lookup = async move { if wanted { System.resolve(&host, port).await.ok() } else { None } };
        lookups.push((cluster, node, tasks.spawn(lookup)));
    }
    let mut looks = Vec::new();
    for (cluster, node, lookup) in lookups {
        let addrs: BTreeSet<_> = lookup.await.ok().flatten().into_iter().flatten().collect();
        // Without several, the look finds the one by itself, or says why not.
        let several = addrs.into_iter().map(Some).collect::<Vec<_>>();
        let addrs = if several.len() < 2 { vec![None] } else { several };
        for (addr, number) in addrs.into_iter().zip(1..) {
            let (watched, settings) = (Arc::clone(node), cluster.check.clone());
            let look = async move {
                let whither = addr.map_or(Whither::Name(&[]), Whither::Addr);
                check::check(&watched, whither, &settings).await
            };
            looks.push((node, addr, number, tasks.spawn(look)));
        }
    }
    let (mut text, mut all_up) = (String::new(), true);
    for (node, addr, number, look) in looks {
        let report = look.await.ok();
        all_up &= matches!(report, Some(Report { outcome: Outcome::Up(_), .. }));
        let words =
            report.map_or_else(|| "could not check".to_owned(), |report| report.outcome.in_words(node.role));
        let addr = addr.map_or_else(|| node.addr.to_string(), |addr| addr.to_string());
        let _ = writeln!(text, "  {:<16} {addr:<22} {words}", node.name_of_address(number));
    }
    (text, all_up)
}

/// `3 nodes and 2 listeners`; fronts only where there are some.
fn counts(config: &Config) -> String {
    let nodes = count(config.clusters.iter().map(|cluster| cluster.nodes.len()).sum(), "node");
    let listeners = count(config.listeners.len(), "listener");
    let fronts = count(config.fronts.len(), "HTTP front");
    match (config.clusters.len(), config.fronts.len()) {
        (0, _) => fronts,
        (_, 0) => format!("{nodes} and {listeners}"),
        _ => format!("{nodes}, {listeners} and {fronts}"),
    }
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
