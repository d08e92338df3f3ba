//! `pgsplit reload`: the file is read again by the one that runs.

use std::process::ExitCode;

use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::base::text::escaped;
use crate::cli::FAILURE;
use crate::cli::args;
use crate::cli::ask::{Asker, Problem, Question, ended, refusal};
use crate::cli::out;

pub(super) fn reload(args: &args::Reload) -> ExitCode {
    ended(Asker::new(&args.here.source(), &args.here.at).and_then(|asker| order(args, &asker)))
}

fn order(args: &args::Reload, asker: &Asker) -> Result<ExitCode, Problem> {
    let question = Question::change(Method::POST, "/api/v1/reload", None);
    let (status, said, door) = asker.ask(&question)?;
    if !matches!(status, StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY) {
        return Err(refusal(&door, &question, status, &said));
    }
    let answer: Value = serde_json::from_str(&said).map_err(|_| asker.not_ours(&question))?;
    if args.json {
        out::print(&said);
    } else if status == StatusCode::OK {
        out::print(&changes(&answer));
    } else {
        out::complain(&faults(&answer));
    }
    Ok(if status == StatusCode::OK { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) })
}

/// What has changed, a line for each key.
fn changes(answer: &Value) -> String {
    let all = answer.get("changes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        return "nothing has changed\n".to_owned();
    }
    all.iter().map(|change| change_in_words(change) + "\n").collect()
}

fn change_in_words(change: &Value) -> String {
    let text =
        |name: &str| change.get(name).and_then(Value::as_str).map(|text| escaped(text.as_bytes(), 500));
    let quoted = |text: String| if text.is_empty() { "\"\"".to_owned() } else { text };
    let key = text("key").unwrap_or_default();
    let restart = if text("effect").as_deref() == Some("needs_restart") { "  (needs a restart)" } else { "" };
    match (text("old"), text("new")) {
        (Some(old), Some(new)) => format!("~ {key}: {} -> {}{restart}", quoted(old), quoted(new)),
        (None, Some(new)) => format!("+ {key}: {new}{restart}"),
        (Some(old), None) => format!("- {key}: {old}{restart}"),
        (None, None) => format!("~ {key}{restart}"),
    }
}

/// Why nothing has.
fn faults(answer: &Value) -> String {
    let texts = |name: &str| -> Vec<String> {
        let all = match answer.get(name) {
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one.as_str()],
            _ => Vec::new(),
        };
        all.into_iter().map(|text| escaped(text.as_bytes(), 1000)).collect()
    };
    let faults = texts("faults");
    let why = if faults.is_empty() { texts("error") } else { faults };
    let mut out: String = why.iter().map(|line| format!("{line}\n")).collect();
    out += "pgsplit: nothing has changed: mend the file and reload again\n";
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_a_line_for_each_key() {
        let answer = serde_json::json!({"result": "applied", "changes": [
            {"key": "check.interval", "old": "1s", "new": "5s", "effect": "applied"},
            {"key": "nodes.db3", "old": null, "new": "{addr: db3:5432}", "effect": "applied"},
            {"key": "nodes.db2", "old": "{addr: db2:5432}", "new": null, "effect": "applied"},
            {"key": "runtime.threads", "old": "0", "new": "4", "effect": "needs_restart"},
            {"key": "check.user", "old": "", "new": "lb", "effect": "applied"},
        ]});
        let expected = "\
~ check.interval: 1s -> 5s
+ nodes.db3: {addr: db3:5432}
- nodes.db2: {addr: db2:5432}
~ runtime.threads: 0 -> 4  (needs a restart)
~ check.user: \"\" -> lb
";
        assert_eq!(changes(&answer), expected);
        assert_eq!(changes(&serde_json::json!({"changes": []})), "nothing has changed\n");
    }

    #[test]
    fn a_no_says_why() {
        let answer = serde_json::json!({"error": "2 faults in the configuration", "hint": "", "faults": ["c:1:1  a", "c:2:1  b\u{1b}"]});
        let text = faults(&answer);
        assert!(
            text.starts_with("c:1:1  a\nc:2:1  b\\x1b\n") && text.contains("nothing has changed"),
            "{text}"
        );
    }
}
