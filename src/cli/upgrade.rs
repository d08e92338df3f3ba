//! `pgsplit upgrade`: a new process in place of the one that runs.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Deserialize;

use crate::base::text::{NAME_MAX, escaped};
use crate::cli::args;
use crate::cli::ask::{Asker, Problem, Question, ended};
use crate::cli::door::Errand;
use crate::cli::out::Printer;
use crate::cli::words::count;

/// How long sessions may take to go over, once the new process is ready.
const MOVING: Duration = Duration::from_secs(10);

/// What is read of the answer.
#[derive(Debug, Deserialize)]
struct Done {
    pid: u32,
    version: String,
    moved: u64,
    stayed: u64,
    open: u64,
    seconds: f64,
}

pub(super) fn upgrade(args: &args::Upgrade, printer: &mut Printer) -> ExitCode {
    let patience = Duration::from_secs(args.wait.into()) + MOVING;
    let asker = Asker::new(&args.here.source(), &args.here.at, Errand::Order);
    ended(asker.and_then(|asker| order(args, &asker.patient(patience), printer)))
}

fn order(args: &args::Upgrade, asker: &Asker, printer: &mut Printer) -> Result<ExitCode, Problem> {
    let question = Question::change(Method::POST, format!("/api/v1/upgrade?wait={}", args.wait), None);
    let said = asker.ask(&question)?;
    if said.status != StatusCode::OK {
        return Err(said.refusal(&question));
    }
    let done: Done = serde_json::from_str(&said.text).map_err(|_| asker.not_ours(&question))?;
    printer.done(&if args.json { said.text } else { done.in_words() });
    Ok(ExitCode::SUCCESS)
}

impl Done {
    fn in_words(&self) -> String {
        let Self { pid, version, moved, stayed, open, seconds } = self;
        let version = escaped(version.as_bytes(), NAME_MAX);
        let mut out = format!("pgsplit {version} runs as process {pid}, after {seconds:.2} s\n");
        let _ = writeln!(out, "  {} went over", count(*moved, "session"));
        if 0 < *stayed {
            let _ = writeln!(
                out,
                "  {} end in the old process: the new one has no place for them",
                count(*stayed, "session")
            );
        }
        let others = open.saturating_sub(*stayed);
        if 0 < others {
            let _ = writeln!(out, "  {} are left there for now", count(others, "other connection"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_went_and_who_is_left() {
        let words = |stayed, open| {
            Done { pid: 7, version: "1\x1b".into(), moved: 1, stayed, open, seconds: 0.054 }.in_words()
        };
        assert_eq!(words(0, 0), "pgsplit 1\\x1b runs as process 7, after 0.05 s\n  1 session went over\n");
        let text = words(2, 5);
        assert!(
            text.contains("  2 sessions end in the old process")
                && text.ends_with("  3 other connections are left there for now\n"),
            "{text}"
        );
    }
}
