//! `pgsplit drain`, `maint`, `ready` and `weight`: a node taken out of use or put back.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::args::{NodeOrder, Weight};
use crate::cli::ask::{Asker, Problem, Question, ended, part};
use crate::cli::door::Errand;
use crate::cli::fail;
use crate::cli::out::Printer;
use crate::cli::table::Cell;
use crate::cli::view::Node;
use crate::cli::words::{count, json as json_line, time};

/// From one look at a node to the next.
const POLL: Duration = Duration::from_millis(500);

/// A node after a change.
#[derive(Debug, Deserialize)]
struct Changed {
    #[serde(flatten)]
    node: Node,
    #[serde(default)]
    notes: Vec<String>,
}

/// Orders `state`: `drain`, `maint` or `ready`.
pub(super) fn order(args: &NodeOrder, state: &str, printer: &mut Printer) -> ExitCode {
    ended(Asker::new(&args.here.source(), &args.here.at, Errand::Order).and_then(|asker| {
        let (changed, said) = change(&asker, &args.node, &json!({"admin": state}))?;
        if args.json && args.wait.is_none() {
            printer.done(&said);
        } else if !args.json {
            printer.done(&in_words(&changed, state));
        }
        args.wait.map_or(Ok(ExitCode::SUCCESS), |most| wait(args, (state, most), &asker, printer))
    }))
}

pub(super) fn weight(args: &Weight, printer: &mut Printer) -> ExitCode {
    ended(Asker::new(&args.here.source(), &args.here.at, Errand::Order).and_then(|asker| {
        let (changed, said) = change(&asker, &args.node, &json!({"weight": args.wanted.0}))?;
        let name = Cell::new(&changed.node.name);
        let words = format!("node \"{}\" has weight {}\n", name.text(), changed.node.weight);
        printer.done(&if args.json { said } else { words + &notes(&changed) });
        Ok(ExitCode::SUCCESS)
    }))
}

fn change(asker: &Asker, name: &str, wanted: &Value) -> Result<(Changed, String), Problem> {
    let path = format!("/api/v1/nodes/{}", part(name));
    let question = Question::change(Method::PATCH, path, Some(wanted.to_string()));
    let said = asker.text(&question)?;
    let changed = serde_json::from_str(&said).map_err(|_| asker.not_ours(&question))?;
    Ok((changed, said))
}

fn in_words(changed: &Changed, state: &str) -> String {
    let name = Cell::new(&changed.node.name);
    let sessions = count(changed.node.sessions, "session");
    let words = match state {
        "drain" => format!("node \"{}\" drains: no new sessions; {sessions} on it\n", name.text()),
        "maint" => {
            format!("node \"{}\" is out of use: no new sessions, no checks; {sessions} on it\n", name.text())
        }
        _ => format!("node \"{}\" is back in use\n", name.text()),
    };
    words + &notes(changed)
}

fn notes(changed: &Changed) -> String {
    let mut out = String::new();
    for note in &changed.notes {
        let _ = writeln!(out, "note: {}", Cell::new(note).text());
    }
    out
}

/// Waits until no session is on the node, or until it is up when it was put back.
fn wait(
    args: &NodeOrder,
    (state, most): (&str, Duration),
    asker: &Asker,
    printer: &mut Printer,
) -> Result<ExitCode, Problem> {
    #[derive(Deserialize)]
    struct Nodes {
        nodes: Vec<Value>,
    }
    let began = Instant::now();
    let mut last = None;
    let mut is_killed = false;
    loop {
        let question = Question::get("/api/v1/nodes");
        let Nodes { nodes } = asker.json(&question)?;
        let found =
            nodes.into_iter().find(|node| node.get("name").and_then(Value::as_str) == Some(&args.node));
        let Some(found) = found else { return Ok(fail("the node is gone")) };
        let node: Node = serde_json::from_value(found.clone()).map_err(|_| asker.not_ours(&question))?;
        let is_done = if state == "ready" { node.health == "up" } else { node.sessions == 0 };
        if is_done {
            let words = if state == "ready" { "it is up" } else { "no session is left" };
            let took = time(began.elapsed().as_secs_f64());
            printer.done(&if args.json {
                format!("{}\n", json_line(&found))
            } else {
                format!("{words} after {took}\n")
            });
            return Ok(ExitCode::SUCCESS);
        }
        if began.elapsed() >= most {
            let words = if state == "ready" {
                "it is not up".to_owned()
            } else {
                format!("{} left", count(node.sessions, "session"))
            };
            return Ok(fail(&format!("{words} after {}", humantime::format_duration(most))));
        }
        if let Some(other) = node.admin.filter(|admin| admin != state) {
            return Ok(fail(&format!("somebody else has ordered {other} meanwhile")));
        }
        if state != "ready" && !is_killed && args.kill_after.is_some_and(|after| after <= began.elapsed()) {
            is_killed = true;
            let path = format!("/api/v1/sessions?node={}", part(&args.node));
            asker.text(&Question::change(Method::DELETE, path, None))?;
            if !args.json {
                printer.done(&format!("{} ended\n", count(node.sessions, "session")));
            }
        }
        if last != Some(node.sessions) && !args.json && state != "ready" {
            last = Some(node.sessions);
            // Whether somebody reads it or not: the exit code is to be true.
            printer.print(&format!("{} left\n", count(node.sessions, "session")));
        }
        std::thread::sleep(POLL.min(most.saturating_sub(began.elapsed())));
    }
}
