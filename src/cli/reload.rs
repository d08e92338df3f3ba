//! `pgsplit reload`: the file is read again by the one that runs.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Deserialize;

use crate::base::text::escaped;
use crate::cli::BAD_CONFIG;
use crate::cli::args;
use crate::cli::ask::{Asker, Problem, Question, ended};
use crate::cli::door::Errand;
use crate::cli::out::{self, Printer};
use crate::config::diff::Diff;

/// It is answered when all is in force, and a new front looks at its upstreams first.
const PATIENCE: Duration = Duration::from_secs(30);
/// A line of what is shown is no longer.
const LINE_MAX: usize = 2000;

/// A yes.
#[derive(Debug, Deserialize)]
struct Done {
    changes: Diff,
}

/// A no.
#[derive(Debug, Deserialize)]
struct Failed {
    error: String,
    #[serde(default)]
    faults: Vec<String>,
}

pub(super) fn reload(args: &args::Reload, printer: &mut Printer) -> ExitCode {
    ended(
        Asker::new(&args.here.source(), &args.here.at, Errand::Order)
            .and_then(|asker| order(args, &asker.patient(PATIENCE), printer)),
    )
}

fn order(args: &args::Reload, asker: &Asker, printer: &mut Printer) -> Result<ExitCode, Problem> {
    let question = Question::change(Method::POST, "/api/v1/reload", None);
    let said = asker.ask(&question)?;
    let not_ours = |_| asker.not_ours(&question);
    let (code, words) = match said.status {
        StatusCode::OK => {
            let Done { changes } = serde_json::from_str(&said.text).map_err(not_ours)?;
            (ExitCode::SUCCESS, in_words(&changes))
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            let failed: Failed = serde_json::from_str(&said.text).map_err(not_ours)?;
            (ExitCode::from(BAD_CONFIG), failed.in_words())
        }
        _ => return Err(said.refusal(&question)),
    };
    match (args.json, said.status == StatusCode::OK) {
        (json, true) => printer.done(if json { &said.text } else { &words }),
        (true, false) => drop(printer.print(&said.text)),
        (false, false) => out::complain(&words),
    }
    Ok(code)
}

/// What is different, a line for each key.
pub(super) fn in_words(changes: &Diff) -> String {
    if changes.is_empty() {
        return "nothing is different\n".to_owned();
    }
    lines(changes.to_string().lines())
}

fn lines<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for line in all {
        let _ = writeln!(out, "{}", escaped(line.as_bytes(), LINE_MAX));
    }
    out
}

impl Failed {
    fn in_words(&self) -> String {
        let only = [self.error.clone()];
        let faults = if self.faults.is_empty() { &only[..] } else { &self.faults };
        lines(faults.iter().map(String::as_str))
            + "pgsplit: nothing has changed: mend the file and reload again\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_different_is_a_line_for_each_key() {
        let answer = serde_json::json!({"result": "applied", "changes": [
            {"key": "check.interval", "old": "1s", "new": "5s", "effect": "applied"},
            {"key": "nodes.db3", "old": null, "new": "{addr: db3:5432}", "effect": "applied"},
            {"key": "nodes.db2", "old": "{addr: db2:5432}", "new": null, "effect": "applied"},
            {"key": "runtime.threads", "old": "0", "new": "4", "effect": "needs_restart"},
            {"key": "check.user", "old": "", "new": "lb\u{1b}", "effect": "applied"},
        ]});
        let expected = "\
~ check.interval: 1s -> 5s
+ nodes.db3: {addr: db3:5432}
- nodes.db2: {addr: db2:5432}
~ runtime.threads: 0 -> 4  (needs a restart)
~ check.user: \"\" -> lb\\x1b
";
        let Done { changes } = serde_json::from_value(answer).unwrap();
        assert_eq!(in_words(&changes), expected);
        assert_eq!(in_words(&Diff::default()), "nothing is different\n");
    }

    #[test]
    fn a_no_says_why() {
        let several = serde_json::json!({
            "error": "2 faults in the configuration", "hint": "", "faults": ["c:1:1  a", "c:2:1  b\u{1b}"]
        });
        let words = |answer| serde_json::from_value::<Failed>(answer).unwrap().in_words();
        let text = words(several);
        assert!(text.starts_with("c:1:1  a\nc:2:1  b\\x1b\npgsplit: nothing has changed"), "{text}");
        let text = words(serde_json::json!({"error": "cannot bind", "hint": ""}));
        assert!(text.starts_with("cannot bind\npgsplit: "), "{text}");
    }
}
