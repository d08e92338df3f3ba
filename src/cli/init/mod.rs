//! `pgsplit init`: a first configuration, small and with comments.

mod address;
mod draft;
mod entrance;
mod haproxy;
mod leads;
mod proxy;
mod take_over;

#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::cli::args::Init;
use crate::cli::out::Printer;
use crate::cli::words::count;
use crate::cli::{BAD_CONFIG, FAILURE, fail, out};
use crate::config::url::ConnUrl;
use crate::config::{Config, ConfigError};
use draft::{Cluster, Draft, Line, Node};

/// Where the password of checks comes from when the file does not hold it.
const VARIABLE: &str = "PGSPLIT_CHECK_PASSWORD";

pub(super) fn init(args: &Init, printer: &mut Printer) -> ExitCode {
    let draft = match (&args.from_url, &args.from_haproxy) {
        (Some(url), _) => from_url(url),
        (None, Some(path)) => from_haproxy(path),
        (None, None) => Ok(plain()),
    };
    let draft = match draft {
        Ok(draft) => draft,
        Err(why) => return fail(&why),
    };
    let text = draft.in_words();
    let to_screen = args.output.as_deref() == Some(Path::new("-"));
    let path = args.output.as_deref().unwrap_or(Path::new("config.yaml"));
    if to_screen {
        if !printer.print(&text) {
            return ExitCode::SUCCESS;
        }
    } else if let Err(why) = write(path, &text, args.force) {
        return fail(&why);
    }
    let shown = if to_screen { "the new file".to_owned() } else { path.display().to_string() };
    let env = |name: &str| std::env::var(name).ok();
    match Config::from_yaml(&text, &shown, &env) {
        Ok(config) => {
            for warning in &config.warnings {
                out::complain(&format!("warning: {warning}\n"));
            }
            let left = match draft.not_taken.len() {
                0 => String::new(),
                n => format!("; {} not taken over: see its end", count(n as u64, "line")),
            };
            if !to_screen {
                out::complain(&format!("{shown} is written{left}. Next: pgsplit check --connect {shown}\n"));
            }
            ExitCode::SUCCESS
        }
        Err(ConfigError::Invalid(report)) => {
            out::complain(&report.blocks());
            out::complain(&format!("{shown} is written, but must be mended first\n"));
            ExitCode::from(BAD_CONFIG)
        }
        Err(error) => {
            out::complain(&format!("pgsplit: {error}\n"));
            ExitCode::from(FAILURE)
        }
    }
}

fn write(path: &Path, text: &str, force: bool) -> Result<(), String> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            format!(
                "{} is there already: --force writes over it, -o FILE elsewhere, -o - to the screen",
                path.display()
            )
        }
        _ => format!("cannot write {}: {error}", path.display()),
    })
}

/// The smallest file that runs.
fn plain() -> Draft {
    let node =
        |addr: &str, role: &str| Node { lines: vec![Line::new("addr", addr), Line::new("role", role)] };
    let cluster = Cluster { nodes: vec![node("127.0.0.1:5432", "primary")], ..Cluster::default() };
    let notes = [
        "More nodes: one entry for each. With an account roles are found out, and follow a failover:",
        "  check: {user: lb_check, password: \"${PGSPLIT_CHECK_PASSWORD}\"}",
        "  CREATE ROLE lb_check LOGIN PASSWORD '...';   it needs no rights",
    ];
    Draft {
        intro: intro(),
        clusters: vec![cluster],
        notes: notes.map(str::to_owned).to_vec(),
        ..Draft::default()
    }
}

fn intro() -> Vec<String> {
    vec![
        "pgsplit. Clients that write connect to 127.0.0.1:6432, those that read to 127.0.0.1:6433; dashboard and metrics \
         are on http://127.0.0.1:8404/."
            .to_owned(),
        "To look for mistakes: pgsplit check. What a key means: pgsplit config explain KEY.".to_owned(),
    ]
}

/// The hosts of a connection string as nodes, its user for checks. Its password goes nowhere.
fn from_url(url: &str) -> Result<Draft, String> {
    let url = ConnUrl::parse(url).map_err(|error| format!("--from-url: {error}"))?;
    let nodes = url.hosts.iter().map(|addr| Node { lines: vec![Line::new("addr", addr.to_string())] });
    let user = url.user.clone().unwrap_or_else(|| "lb_check".to_owned());
    let mut check = vec![
        Line::because(
            "user",
            as_it_is(&user),
            "an account of its own is better: CREATE ROLE lb_check LOGIN PASSWORD '...'",
        ),
        password_line(),
    ];
    check.extend(
        url.dbname
            .as_ref()
            .filter(|name| *name != "postgres")
            .map(|name| Line::new("dbname", as_it_is(name))),
    );
    if let Some(mode) = url.param("sslmode").filter(|mode| !matches!(*mode, "prefer" | "disable")) {
        out::complain(&format!(
            "note: sslmode={mode} is not taken over: checks speak no TLS in this version. Clients keep it in their own URL\n"
        ));
    }
    if url.password.is_some() {
        out::complain(&format!(
            "note: the password is not written to the file; set {VARIABLE} where pgsplit runs\n"
        ));
    }
    let cluster = Cluster { nodes: nodes.collect(), check, ..Cluster::default() };
    Ok(Draft { intro: intro(), clusters: vec![cluster], ..Draft::default() })
}

fn from_haproxy(path: &Path) -> Result<Draft, String> {
    const MOST: u64 = 4 << 20;
    let shown = path.display();
    let size = std::fs::metadata(path).map_err(|error| format!("cannot read {shown}: {error}"))?.len();
    if MOST < size {
        return Err(format!("{shown} is larger than 4 MiB, and so no haproxy.cfg"));
    }
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    take_over::take_over(&String::from_utf8_lossy(&bytes), &shown.to_string())
}

/// A text that is no variable of the file's, whatever `$` it has.
fn as_it_is(text: &str) -> String {
    text.replace('$', "$$")
}

/// `check.password` without a password in the file.
fn password_line() -> Line {
    Line::because(
        "password",
        format!("${{{VARIABLE}:-}}"),
        "or password_file; without either ~/.pgpass is asked",
    )
}

/// The name of a file as it may stand in a comment.
fn plain_name(origin: &str) -> String {
    crate::base::text::escaped(origin.as_bytes(), 80)
}
