//! `pgsplit check`.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use tokio_util::task::TaskTracker;

use crate::cli::args::Source;
use crate::cli::{FAILURE, load, out, refuse};
use crate::config::Config;
use crate::topology::check::{self, Outcome, Report, Whither};

pub(super) fn check(path: Option<&Path>, connect: bool) -> ExitCode {
    let source = Source { config: path.map(Path::to_owned), from_url: None, nodes: Vec::new() };
    let (config, origin) = match load(&source) {
        Ok(loaded) => loaded,
        Err((error, origin)) => return refuse(&error, &origin),
    };
    for warning in &config.warnings {
        out::complain(&format!("warning: {warning}\n"));
    }
    out::print(&format!("{origin}: ok ({})\n", counts(&config)));
    if !connect {
        return ExitCode::SUCCESS;
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::from(FAILURE);
    };
    let (text, all_up) = runtime.block_on(look_at_all(&config));
    out::print(&text);
    if all_up { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
}

/// Looks at every node once, all at the same time.
async fn look_at_all(config: &Config) -> (String, bool) {
    let tasks = TaskTracker::new();
    let mut looks = Vec::new();
    for cluster in &config.clusters {
        for node in &cluster.nodes {
            let (watched, settings) = (node.clone(), cluster.check.clone());
            let look =
                tasks.spawn(async move { check::check(&watched, Whither::Name(&[]), &settings).await });
            looks.push((node, look));
        }
    }
    let (mut text, mut all_up) = (String::new(), true);
    for (node, look) in looks {
        let report = look.await.ok();
        all_up &= matches!(report, Some(Report { outcome: Outcome::Up(_), .. }));
        let words =
            report.map_or_else(|| "could not check".to_owned(), |report| report.outcome.in_words(node.role));
        let _ = writeln!(text, "  {:<16} {:<22} {words}", node.name, node.addr.to_string());
    }
    (text, all_up)
}

/// `3 nodes and 2 listeners`; fronts only where there are some.
fn counts(config: &Config) -> String {
    let nodes = count(config.clusters.iter().map(|cluster| cluster.nodes.len()).sum(), "node");
    let listeners = count(config.listeners.len(), "listener");
    match config.fronts.len() {
        0 => format!("{nodes} and {listeners}"),
        fronts => format!("{nodes}, {listeners} and {}", count(fronts, "HTTP front")),
    }
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
