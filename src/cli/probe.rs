//! `pgsplit probe`.

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::args::Probe;
use crate::cli::out::Printer;
use crate::cli::refuse;
use crate::config::{Check, CheckKind, Config, ConfigError, Node};
use crate::topology::check::{self, Outcome, Report, TlsAnswer, Whither};

/// Exit codes of `pg_isready`.
/// <https://www.postgresql.org/docs/current/app-pg-isready.html>
const REJECTING: u8 = 1;
const NO_ANSWER: u8 = 2;
const NOT_TRIED: u8 = 3;

pub(super) fn probe(args: &Probe, printer: &mut Printer) -> ExitCode {
    let (node, settings) = match target(args) {
        Ok(Some(target)) => target,
        Ok(None) => return ExitCode::from(NOT_TRIED),
        Err(error) => {
            let _ = refuse(&error, "probe");
            return ExitCode::from(NOT_TRIED);
        }
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::from(NOT_TRIED);
    };
    let (report, tls) = runtime.block_on(async {
        let report = check::check(&node, Whither::Name(&[]), &settings).await;
        let began = Instant::now();
        let tls = check::ask_tls(&report.addrs, began + settings.timeout).await;
        (report, (tls, began.elapsed()))
    });
    printer.print(&in_words(&report, tls));
    match report.outcome {
        Outcome::Up(_) => ExitCode::SUCCESS,
        Outcome::Full(_) => ExitCode::from(REJECTING),
        Outcome::Failed(failure) if failure.answered => ExitCode::from(REJECTING),
        Outcome::Failed(_) => ExitCode::from(NO_ANSWER),
        Outcome::NotMade(_) => ExitCode::from(NOT_TRIED),
    }
}

/// The node and how to look at it: a login when a user is given, else a knock.
fn target(args: &Probe) -> Result<Option<(Arc<Node>, Check)>, ConfigError> {
    let env = |name: &str| match (name, &args.user) {
        ("PGUSER", Some(user)) => Some(user.clone()),
        _ => std::env::var(name).ok(),
    };
    // A written role makes the login unnecessary, and so leaves it out.
    let text = if args.user.is_some() { args.addr.clone() } else { format!("{}=primary", args.addr) };
    let config = Config::from_nodes(&[text], &env).map_err(as_written)?;
    let Some(cluster) = config.clusters.first() else { return Ok(None) };
    let mut check = Check { timeout: args.timeout, dbname: args.dbname.clone(), ..cluster.check.clone() };
    let mut node = cluster.nodes.first().map(Arc::clone);
    if let (Some(node), Some(patroni)) = (&mut node, &args.patroni) {
        check.kind = CheckKind::Patroni;
        Arc::make_mut(node).patroni = patroni.clone();
    }
    Ok(node.map(|node| (node, check)))
}

/// The error, without what nobody has written.
fn as_written(mut error: ConfigError) -> ConfigError {
    if let ConfigError::Invalid(report) = &mut error {
        "probe".clone_into(&mut report.origin);
        for fault in &mut report.faults {
            if let Some(addr) = fault.path.strip_suffix("=primary") {
                fault.path = addr.to_owned();
            }
        }
    }
    error
}

fn in_words(report: &Report, (tls, tls_took): (Option<TlsAnswer>, Duration)) -> String {
    let mut text = String::new();
    let mut line = |name: &str, took: Duration, found: &str| {
        let _ = writeln!(text, "{name:<15} {:>8.1} ms  {found}", took.as_secs_f64() * 1e3);
    };
    for step in &report.steps {
        line(step.name, step.took, &step.found);
        if step.name == "connect"
            && let Some(answer) = tls
        {
            line("tls", tls_took, answer.in_words());
        }
    }
    let verdict = match &report.outcome {
        Outcome::Up(facts) => match (&facts.warning, facts.role) {
            (Some(warning), _) => format!("alive, but: {warning}"),
            (None, Some(role)) => format!("accepting connections, {role}"),
            (None, None) => "accepting connections".to_owned(),
        },
        Outcome::Full(text) => format!("full: {text}"),
        Outcome::NotMade(text) => format!("could not check: {text}"),
        Outcome::Failed(failure) => {
            let code = failure.sqlstate.as_deref().map(|code| format!("{code} ")).unwrap_or_default();
            let word = if failure.answered { "rejecting connections" } else { "no answer" };
            format!("{word}: {}: {code}{}", failure.step, failure.text)
        }
    };
    let _ = writeln!(text, "\n{verdict}");
    text
}
