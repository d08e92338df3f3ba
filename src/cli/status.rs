//! `pgsplit status`: the verdict, then listeners, nodes and HTTP upstreams in tables.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::FAILURE;
use crate::cli::args;
use crate::cli::ask::{Asker, Problem, Question, ended};
use crate::cli::door::Errand;
use crate::cli::out::{self, Printer};
use crate::cli::table::{Cell, Column, Paint, Screen, left, right, table};
use crate::cli::view::{Check, Front, Listener, Node, Status};
use crate::cli::words::{ago, short, time};

const LISTENERS: [Column; 8] = [
    left("LISTENER", 0),
    left("BIND", 3),
    left("TARGET", 4),
    right("SESSIONS", 0),
    right("WAITING", 0),
    right("NEW/s", 5),
    right("REJECTED", 2),
    left("GOES TO", 1),
];
const NODES: [Column; 10] = [
    left("NODE", 0),
    left("ADDRESS", 5),
    left("HEALTH", 0),
    left("ROLE", 0),
    right("LAG", 4),
    right("WEIGHT", 7),
    right("SESSIONS", 0),
    right("CONNECT p99", 6),
    right("SINCE", 3),
    left("CHECK", 0),
];
const UPSTREAMS: [Column; 6] = [
    left("GROUP", 3),
    left("UPSTREAM", 0),
    left("ADDRESS", 4),
    left("HEALTH", 0),
    right("REQUESTS", 0),
    left("CHECK", 0),
];

/// Where the status is told, without the five minutes before it.
pub(super) const STATUS: &str = "/api/v1/status?history=0";

pub(super) fn status(args: &args::Status, printer: &mut Printer) -> ExitCode {
    ended(
        Asker::new(&args.here.source(), &args.here.at, Errand::Look)
            .and_then(|asker| show(args, &asker, printer)),
    )
}

fn show(args: &args::Status, asker: &Asker, printer: &mut Printer) -> Result<ExitCode, Problem> {
    let question = Question::get(STATUS);
    loop {
        let said = asker.text(&question)?;
        let status: Status = serde_json::from_str(&said).map_err(|_| asker.not_ours(&question))?;
        let text = if args.json { said } else { in_words(&status, out::screen()) };
        let Some(seconds) = args.watch else {
            printer.print(&text);
            return Ok(if args.fail && !status.ready { ExitCode::from(FAILURE) } else { ExitCode::SUCCESS });
        };
        // On a terminal in the place of the last one.
        let shown = if out::is_screen() { format!("\x1b[H\x1b[2J{text}") } else { format!("{text}\n") };
        if !printer.print(&shown) {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_secs(seconds.into()));
    }
}

/// All of it.
pub(super) fn in_words(status: &Status, screen: Screen) -> String {
    let mut out = String::new();
    if !status.verdict.is_empty() {
        let paint = match status.condition.as_str() {
            "degraded" => Paint::Odd,
            _ if status.ready => Paint::Plain,
            _ => Paint::Bad,
        };
        for line in wrapped(&status.verdict, screen.width) {
            let _ = writeln!(out, "{}", paint.on(&line, screen));
        }
        out.push('\n');
    }
    for line in wrapped(&head(status), screen.width) {
        let _ = writeln!(out, "{line}");
    }
    if let Some(error) = &status.config.last_error {
        let words = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
        for line in words.lines() {
            let line = Cell::new(format!("reload refused: {line}"));
            let _ = writeln!(out, "{}", Paint::Bad.on(line.text(), screen));
        }
    }
    if !status.listeners.is_empty() {
        out.push('\n');
        out.push_str(&listeners(&status.listeners, screen));
    }
    if !status.nodes.is_empty() {
        out.push('\n');
        out.push_str(&nodes(&status.nodes, screen));
    }
    for front in &status.http {
        out.push('\n');
        out.push_str(&of_front(front, screen));
    }
    out
}

fn head(status: &Status) -> String {
    let sum = |of: fn(&Listener) -> u64| status.listeners.iter().map(of).sum::<u64>();
    let path = Cell::new(&status.config.path);
    let version = Cell::new([status.version.as_str(), &status.condition].join("  ").trim_end());
    let mut head = format!("pgsplit {}  up {}  {}", version.text(), time(status.uptime_seconds), path.text());
    if !status.listeners.is_empty() {
        let _ = write!(head, "  sessions {}  waiting {}", sum(|l| l.sessions), sum(|l| l.waiting));
    }
    head
}

pub(super) fn listeners(all: &[Listener], screen: Screen) -> String {
    let row = |l: &Listener| {
        let waiting = if l.waiting == 0 {
            "0".to_owned()
        } else {
            format!("{} ({})", l.waiting, short(l.oldest_wait_seconds))
        };
        let to =
            if l.new_sessions_go_to.is_empty() { "-".to_owned() } else { l.new_sessions_go_to.join(", ") };
        let goes_to = match (l.paused, l.ready) {
            (true, _) => Cell::painted("paused", Paint::Odd),
            (false, false) => Cell::painted("no node", Paint::Bad),
            (false, true) => Cell::new(to),
        };
        vec![
            Cell::new(&l.name),
            Cell::new(&l.bind),
            Cell::new(&l.target),
            Cell::new(format!("{}/{}", l.sessions, l.limit)),
            Cell::painted(waiting, if l.waiting == 0 { Paint::Plain } else { Paint::Odd }),
            Cell::new(l.new_per_second.map_or_else(|| "-".to_owned(), |new| format!("{new:.1}"))),
            Cell::new(l.rejected_total.to_string()),
            goes_to,
        ]
    };
    table(&LISTENERS, &all.iter().map(row).collect::<Vec<_>>(), screen)
}

pub(super) fn nodes(all: &[Node], screen: Screen) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let row = |n: &Node| {
        let role = n.role.clone().unwrap_or_else(|| "unknown".to_owned());
        let role = match (n.superseded, n.health == "down") {
            (true, _) => "old primary".to_owned(),
            // What it was when it was last seen.
            (false, true) if n.role.is_some() => format!("({role})"),
            _ => role,
        };
        vec![
            Cell::new(&n.name),
            Cell::new(if n.at.is_empty() { &n.addr } else { &n.at }),
            health(n),
            Cell::new(role),
            // What it was when it was last heard from says nothing now.
            Cell::new(or_none(n.lag_seconds.filter(|_| n.health != "down").map(|lag| format!("{lag:.1} s")))),
            Cell::new(n.weight.to_string()),
            Cell::new(n.sessions.to_string()),
            Cell::new(or_none(n.connect_p99_seconds.map(short))),
            Cell::new(ago(&n.since)),
            Cell::new(n.check.as_ref().map_or_else(|| "not yet".to_owned(), check)),
        ]
    };
    table(&NODES, &all.iter().map(row).collect::<Vec<_>>(), screen)
}

fn health(node: &Node) -> Cell {
    let against = node.check.as_ref().filter(|check| 0 < check.against);
    let against = against.map(|check| format!(" {}/{}", check.against, check.needed)).unwrap_or_default();
    match node.admin.as_deref() {
        Some(admin @ ("drain" | "maint")) => Cell::painted(admin, Paint::Odd),
        _ if 0.0 < node.held_back_s => Cell::painted("held back", Paint::Odd),
        _ => {
            let paint = match node.health.as_str() {
                "up" if against.is_empty() => Paint::Good,
                "down" => Paint::Bad,
                _ => Paint::Odd,
            };
            let word = if node.state.is_empty() { &node.health } else { &node.state };
            Cell::painted(format!("{}{against}", word.replace('_', " ")), paint)
        }
    }
}

fn check(check: &Check) -> String {
    match &check.error {
        Some(error) if !check.ok => format!("{}: {error}", check.step),
        Some(warning) => format!("{} ok, but: {warning}", check.step),
        None => format!("{} ok {}", check.step, short(check.duration_seconds)),
    }
}

fn of_front(front: &Front, screen: Screen) -> String {
    let Front { name, bind, connections, requests, waiting, .. } = front;
    let state = if front.ready { "ready".to_owned() } else { front.troubles.join("; ") };
    let head = Cell::new(format!(
        "HTTP {name}  {bind}  {connections} connections  {requests} requests  {waiting} waiting  {state}"
    ));
    let paint = if front.ready { Paint::Plain } else { Paint::Bad };
    let mut out = wrapped(head.text(), screen.width)
        .iter()
        .fold(String::new(), |out, line| out + &paint.on(line, screen) + "\n");
    let rows = front.groups.iter().flat_map(|group| {
        group.upstreams.iter().map(|upstream| {
            let paint = if upstream.health == "up" { Paint::Good } else { Paint::Bad };
            vec![
                Cell::new(&group.name),
                Cell::new(&upstream.name),
                Cell::new(&upstream.addr),
                Cell::painted(&upstream.health, paint),
                Cell::new(upstream.requests.to_string()),
                Cell::new(upstream.check.as_deref().unwrap_or("not yet")),
            ]
        })
    });
    out.push_str(&table(&UPSTREAMS, &rows.collect::<Vec<_>>(), screen));
    out
}

/// Lines of at most `width` characters, where words allow it.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let text = Cell::new(text);
    let mut lines = vec![String::new()];
    for word in text.text().split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{
        "version": "0.3.0", "uptime_seconds": 273600, "ready": true, "draining": false, "condition": "degraded",
        "verdict": "Writes: db1. Reads: db2 (db3 down 12 s: connection refused).",
        "config": {"path": "config.yaml", "loaded_at": "2026-11-21T06:12:09Z"},
        "listeners": [
            {"name": "rw", "bind": "127.0.0.1:6432", "target": "primary", "ready": true, "sessions": 31, "limit": 1000,
             "new_per_second": 4.1, "new_sessions_go_to": ["db1"]},
            {"name": "ro", "bind": "127.0.0.1:6433", "target": "prefer-standby", "ready": true, "sessions": 183,
             "limit": 1000, "waiting": 2, "oldest_wait_seconds": 3.1, "new_per_second": 38.0, "rejected_total": 3,
             "new_sessions_go_to": ["db2"]}],
        "nodes": [
            {"name": "db1", "addr": "10.0.0.11:5432", "health": "up", "state": "up", "admin": "ready", "role": "primary",
             "weight": 100, "sessions": 31, "connect_p99_seconds": 0.0012,
             "check": {"ok": true, "step": "login", "duration_seconds": 0.0021}},
            {"name": "db2", "addr": "10.0.0.12:5432", "health": "up", "state": "up", "admin": "drain", "role": "standby",
             "lag_seconds": 0.3, "weight": 100, "sessions": 183, "check": {"ok": true, "step": "login", "duration_seconds": 0.0024}},
            {"name": "db3", "addr": "10.0.0.13:5432", "health": "down", "state": "down", "role": "standby", "weight": 100,
             "check": {"ok": false, "step": "connect", "error": "connection refused"}}]
    }"#;

    fn shown(width: usize) -> String {
        in_words(&serde_json::from_str(STATUS).unwrap(), Screen { width, has_colours: false })
    }

    #[test]
    fn it_fits_on_eighty_columns() {
        let expected = "\
Writes: db1. Reads: db2 (db3 down 12 s: connection refused).

pgsplit 0.3.0  degraded  up 3d 4h  config.yaml  sessions 214  waiting 2

LISTENER  BIND            TARGET          SESSIONS    WAITING  REJECTED  GOES TO
";
        assert!(shown(80).starts_with(expected), "{}", shown(80));
        for width in [80, 100, 60, 40] {
            let text = shown(width);
            let most = text.lines().map(|line| line.chars().count()).max();
            assert!(width < 60 || most.is_some_and(|most| most <= width), "{width}:\n{text}");
        }
        assert!(shown(160).contains("CONNECT p99"), "{}", shown(160));
    }

    #[test]
    fn what_matters_is_on_every_screen() {
        for part in ["10.0.0.13:5432  down", "(standby)", "drain", "connect: connection refused", "2 (3.1 s)"]
        {
            assert!(shown(100).contains(part), "{part}:\n{}", shown(100));
        }
        let none: Status = serde_json::from_str("{}").unwrap();
        assert_eq!(in_words(&none, Screen { width: 80, has_colours: true }), "pgsplit   up 0 s  \n");
    }
}
