//! The command line: what each verb does, and with which exit code it ends.

mod args;
mod ask;
mod check;
mod config;
mod door;
mod events;
mod healthcheck;
mod init;
mod man;
mod node;
mod out;
mod pause;
mod probe;
mod reference;
mod reload;
mod run;
mod sessions;
mod status;
mod table;
mod top;
mod upgrade;
mod view;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::FromArgMatches;

use crate::config::{Config, ConfigError};
use args::{Args, Source, Verb};
use out::Printer;

/// Ran, but something failed while it did.
const FAILURE: u8 = 1;
/// `EX_USAGE` of `sysexits.h`: a word is missing without which it is not done.
const USAGE: u8 = 64;
/// `EX_UNAVAILABLE` of `sysexits.h`: no pgsplit answers.
const UNAVAILABLE: u8 = 69;
/// `EX_IOERR` of `sysexits.h`: what was asked for cannot be written.
const IO_ERROR: u8 = 74;
/// `EX_NOPERM` of `sysexits.h`: a port that needs rights, a socket that is for others, no token or another one.
const NO_PERMISSION: u8 = 77;
/// `EX_CONFIG` of `sysexits.h`: the file must be mended first; restarting does not help.
const BAD_CONFIG: u8 = 78;

/// Runs the verb of the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let mut printer = Printer::default();
    let args = args::command().try_get_matches().and_then(|matches| Args::from_arg_matches(&matches));
    let code = match args {
        Ok(args) => act(args.verb, &mut printer),
        // Also `--help` and `--version`.
        Err(error) if error.use_stderr() => error.exit(),
        Err(error) => {
            printer.outcome_of(&error.print());
            ExitCode::SUCCESS
        }
    };
    printer.end(code)
}

/// Does what a verb says; the exit code for that.
fn act(verb: Verb, printer: &mut Printer) -> ExitCode {
    match verb {
        Verb::Run(source) => run::run(&source),
        Verb::Check { config, connect } => check::check(config.as_deref(), connect, printer),
        Verb::Init(args) => init::init(&args, printer),
        Verb::Config(verb) => config::config(&verb, printer),
        Verb::Probe(probe) => probe::probe(&probe, printer),
        Verb::Status(args) => status::status(&args, printer),
        Verb::Top(args) => top::top(&args, printer),
        Verb::Events(args) => events::events(&args, printer),
        Verb::Sessions(args) => sessions::sessions(&args, printer),
        Verb::Kill(args) => sessions::kill(&args, printer),
        Verb::Drain(args) => node::order(&args, "drain", printer),
        Verb::Maint(args) => node::order(&args, "maint", printer),
        Verb::Ready(args) => node::order(&args.into(), "ready", printer),
        Verb::Weight(args) => node::weight(&args, printer),
        Verb::Reload(args) => reload::reload(&args, printer),
        Verb::Upgrade(args) => upgrade::upgrade(&args, printer),
        Verb::Healthcheck(args) => healthcheck::healthcheck(&args),
        Verb::Pause(args) => pause::pause(&args, true, printer),
        Verb::Resume(args) => pause::pause(&args, false, printer),
        Verb::Man { markdown: true, .. } => printer.all(&reference::markdown()),
        Verb::Man { into, markdown: false } => man::man(into.as_deref(), printer),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut args::command(), "pgsplit", &mut script);
            printer.all(&String::from_utf8_lossy(&script))
        }
    }
}

/// The configuration from wherever it is to come, and what that place is called.
fn load(source: &Source) -> Result<(Config, String), (ConfigError, String)> {
    let env = |name: &str| std::env::var(name).ok();
    let with = |name: &str, config: Result<Config, ConfigError>| match config {
        Ok(config) => Ok((config, name.to_owned())),
        Err(error) => Err((error, name.to_owned())),
    };
    match source {
        Source { from_url: Some(url), .. } => with("--from-url", Config::from_url(url, &env)),
        Source { nodes, .. } if !nodes.is_empty() => with("--node", Config::from_nodes(nodes, &env)),
        Source { config, .. } => {
            let path = config_path(config.as_deref());
            with(&path.display().to_string(), Config::load(&path, &env))
        }
    }
}

/// The file that was named, else the first usual place that has one, or may have one that is not to be seen.
fn config_path(named: Option<&Path>) -> PathBuf {
    const USUAL: [&str; 2] = ["config.yaml", "/etc/pgsplit/config.yaml"];
    let usual = || {
        USUAL
            .iter()
            .map(Path::new)
            .find(|path| !matches!(path.try_exists(), Ok(false)))
            .unwrap_or(Path::new("config.yaml"))
    };
    named.unwrap_or_else(usual).to_owned()
}

/// Says what went wrong; the exit code for that.
fn fail(why: &str) -> ExitCode {
    out::complain(&format!("pgsplit: {why}\n"));
    ExitCode::from(FAILURE)
}

/// Shows why there is no configuration; the exit code that says so.
fn refuse(error: &ConfigError, origin: &str) -> ExitCode {
    explain(error, origin);
    if matches!(error, ConfigError::Read { .. }) && !origin.contains("://") {
        out::complain("Try: pgsplit run --node HOST:PORT, or write a file as in config.yaml\n");
    }
    ExitCode::from(BAD_CONFIG)
}

/// Shows what is wrong with a configuration.
fn explain(error: &ConfigError, origin: &str) {
    match error {
        ConfigError::Invalid(report) if out::is_terminal() => out::complain(&report.blocks()),
        ConfigError::Invalid(report) => out::complain(&report.lines()),
        // Not shown: it may hold a password.
        ConfigError::Read { .. } if origin.contains("://") => {
            out::complain("pgsplit: a URL is no file: start with `pgsplit run --from-url URL`\n");
        }
        ConfigError::Read { source, .. } => {
            out::complain(&format!("pgsplit: cannot read {origin}: {source}\n"));
        }
    }
}
