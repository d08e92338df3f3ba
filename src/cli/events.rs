//! `pgsplit events`: what has happened, with its cause, and what happens.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::time::Instant;

use crate::base::text::{NAME_MAX, escaped};
use crate::cli::args;
use crate::cli::ask::{Asker, Ended, Problem, Question, ended, part};
use crate::cli::door::Errand;
use crate::cli::fail;
use crate::cli::out::{self, Printer};
use crate::cli::status::STATUS;
use crate::cli::table::{Paint, Screen};
use crate::cli::view::{Event, Events, Status};
use crate::cli::words::{self, seconds_since};

/// So many are shown before those to come, unless `--since` says otherwise.
const BEFORE: usize = 10;
/// From one attempt to the next.
const AGAIN: Duration = Duration::from_millis(500);
/// A restart takes no longer, at least where no drain is waited for.
const RESTART: Duration = Duration::from_secs(30);

pub(super) fn events(args: &args::Events, printer: &mut Printer) -> ExitCode {
    ended(
        Asker::new(&args.here.source(), &args.here.at, Errand::Look)
            .and_then(|asker| show(args, &asker, printer)),
    )
}

fn show(args: &args::Events, asker: &Asker, printer: &mut Printer) -> Result<ExitCode, Problem> {
    let node = args.node.as_deref().map(|node| format!("&node={}", part(node))).unwrap_or_default();
    let question = Question::get(format!("/api/v1/events?limit=1000{node}"));
    let said = asker.text(&question)?;
    let answer: Value = serde_json::from_str(&said).map_err(|_| asker.not_ours(&question))?;
    let known: Events = serde_json::from_value(answer.clone()).map_err(|_| asker.not_ours(&question))?;
    // Of one that is gone there may be some still.
    if let Some(name) = args.node.as_deref().filter(|_| known.events.is_empty()) {
        let Status { nodes, .. } = asker.json(&Question::get(STATUS))?;
        if !nodes.iter().any(|node| node.name == name) {
            let names: Vec<String> =
                nodes.iter().map(|node| format!("\"{}\"", escaped(node.name.as_bytes(), NAME_MAX))).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Ok(fail(&format!("no such node; there are {names}")));
        }
    }
    let is_recent = |event: &Event| {
        args.since.is_none_or(|since| seconds_since(&event.at).is_none_or(|age| age <= since.as_secs_f64()))
    };
    let fits: Vec<bool> = known.events.iter().map(is_recent).collect();
    let first = match (args.follow, args.since) {
        (true, None) => known.events.len().saturating_sub(BEFORE),
        _ => 0,
    };
    let screen = out::screen();
    let as_json = answer.get("events").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut text = String::new();
    for ((event, json), _) in
        known.events.iter().zip(&as_json).zip(&fits).skip(first).filter(|(_, fits)| **fits)
    {
        if args.json {
            let _ = writeln!(text, "{}", words::json(json));
        } else {
            text.push_str(&in_words(event, screen));
        }
    }
    if !printer.print(&text) || !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    follow(args, asker, known.last_id, (printer, screen))
}

/// Goes on until the reader goes, or pgsplit does for longer than a restart takes.
fn follow(
    args: &args::Events,
    asker: &Asker,
    mut last: u64,
    (printer, screen): (&mut Printer, Screen),
) -> Result<ExitCode, Problem> {
    let node = args.node.as_deref().map(|node| format!("&node={}", part(node))).unwrap_or_default();
    let (mut born, mut gone_since) = (born(asker)?, None);
    loop {
        let mut kind = String::new();
        let question = Question::get(format!("/api/v1/events?follow=1&since={last}{node}"));
        let ended = asker.follow(&question, |line| {
            gone_since = None;
            if line.is_empty() {
                kind.clear();
            } else if let Some(word) = line.strip_prefix("event:") {
                word.trim().clone_into(&mut kind);
            } else if let Some(data) = line.strip_prefix("data:") {
                let data = data.trim();
                let text = match (kind.as_str(), args.json) {
                    ("missed", false) => {
                        format!("(some events were missed: {})\n", escaped(data.as_bytes(), 100))
                    }
                    (_, true) => format!("{data}\n"),
                    _ => serde_json::from_str(data).map(|event| in_words(&event, screen)).unwrap_or_default(),
                };
                if let Ok(Event { id, .. }) = serde_json::from_str(data)
                    && 0 < id
                {
                    last = id;
                }
                return printer.print(&text);
            }
            true
        });
        match ended {
            Ok(Ended::ByReader) => return Ok(ExitCode::SUCCESS),
            // As it does when it stops, or when the reader is slow. Whether there still is one is asked anew.
            Ok(Ended::ByOther) => {}
            Err(problem @ Problem::NoAnswer(_)) => {
                let since = *gone_since.get_or_insert_with(Instant::now);
                if RESTART < since.elapsed() {
                    return Err(problem);
                }
            }
            Err(problem) => return Err(problem),
        }
        std::thread::sleep(AGAIN);
        // Another process counts its events anew; nothing of it has been seen.
        if let Ok(now) = self::born(asker)
            && 1.0 < (now - born).abs()
        {
            (born, last) = (now, 0);
        }
    }
}

/// When the process was started, in seconds since 1970.
fn born(asker: &Asker) -> Result<f64, Problem> {
    let status: Status = asker.json(&Question::get(STATUS))?;
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() - status.uptime_seconds)
}

/// `2026-11-21 08:01:44  warn   node_state  node=db3 to=down …`
fn in_words(event: &Event, screen: Screen) -> String {
    let Event { at, level, name, fields, .. } = event;
    // Seconds are enough for people; all of it is in the JSON.
    let at = at.split('.').next().unwrap_or_default().replacen('T', " ", 1);
    let paint = match level.as_str() {
        "error" => Paint::Bad,
        "warn" => Paint::Odd,
        _ => Paint::Plain,
    };
    let safe = |text: &str| escaped(text.as_bytes(), 1000);
    let level = paint.on(&format!("{:<5}", safe(level)), screen);
    let mut line = format!("{}  {level}  {:<20}", safe(at.trim_end_matches('Z')), safe(name));
    for (key, value) in fields {
        let value = match value {
            Value::String(text) if text.contains([' ', '"', '=']) || text.is_empty() => {
                format!("\"{}\"", safe(text))
            }
            Value::String(text) => safe(text),
            Value::Null => continue,
            other => words::json(other),
        };
        let _ = write!(line, " {}={value}", safe(key));
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = r#"{"id": 7, "at": "2026-11-21T08:01:44.123Z", "level": "warn", "event": "node_state",
            "fields": {"node": "db3", "cause": "connection refused", "sqlstate": null, "closed": 12, "x": "a\u001b[2Jb",
            "y": ["\u009b2J"]}}"#;
        let line = in_words(&serde_json::from_str(event).unwrap(), Screen { width: 80, has_colours: false });
        let expected = "2026-11-21 08:01:44  warn   node_state           ";
        assert!(line.starts_with(expected), "{line}");
        for part in
            ["node=db3", "cause=\"connection refused\"", "closed=12", "x=a\\x1b[2Jb", "y=[\"\\u009b2J\"]"]
        {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains("sqlstate"));
    }
}
