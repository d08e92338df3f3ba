//! `pgsplit check`.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use tokio_util::task::TaskTracker;

use crate::cli::args::Source;
use crate::cli::{FAILURE, load, out, refuse};
use crate::config::Config;
use crate::topology::check::{self, Outcome, Report};

pub(super) fn check(path: Option<&Path>, connect: bool) -> ExitCode {
    let source = Source { config: path.map(Path::to_owned), from_url: None, nodes: Vec::new() };
    let (config, origin) = match load(&source) {
        Ok(loaded) => loaded,
        Err((error, origin)) => return refuse(&error, &origin),
    };
    for warning in &config.warnings {
        out::complain(&format!("warning: {warning}\n"));
    }
    let nodes: usize = config.clusters.iter().map(|cluster| cluster.nodes.len()).sum();
    out::print(&format!(
        "{origin}: ok ({} and {})\n",
        count(nodes, "node"),
        count(config.listeners.len(), "listener")
    ));
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
            let (node, settings) = (node.clone(), cluster.check.clone());
            looks.push(tasks.spawn(async move {
                let password = settings.password.as_ref().or(node.password.as_ref());
                let report = check::check(&node.addr, password, &settings).await;
                (node, report)
            }));
        }
    }
    let (mut text, mut all_up) = (String::new(), true);
    for look in looks {
        let Ok((node, report)) = look.await else { continue };
        all_up &= matches!(report.outcome, Outcome::Up(_));
        let _ = writeln!(text, "  {:<16} {:<22} {}", node.name, node.addr.to_string(), in_words(&report));
    }
    (text, all_up)
}

fn in_words(report: &Report) -> String {
    match &report.outcome {
        Outcome::Up(facts) => {
            let found =
                report.steps.iter().rev().find(|step| step.name == "login").map(|step| step.found.as_str());
            let warning = facts.warning.as_deref().map(|text| format!("; {text}")).unwrap_or_default();
            format!("up, {}{warning}", found.unwrap_or("alive"))
        }
        Outcome::Full(text) => format!("full: {text}"),
        Outcome::Failed(failure) => format!("down: {}: {}", failure.step, failure.text),
        Outcome::NotMade(text) => format!("could not check: {text}"),
    }
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
