//! `pgsplit pause` and `pgsplit resume`: a listener of the pgsplit that runs here.

use std::process::ExitCode;

use hyper::Method;
use serde::Deserialize;

use crate::cli::args::Pause;
use crate::cli::ask::{Asker, Question, ended, part};
use crate::cli::door::Errand;
use crate::cli::out::Printer;

/// What is read of the listener's state.
#[derive(Debug, Deserialize)]
struct State {
    name: String,
    paused: bool,
    ready: bool,
    waiting: u64,
}

pub(super) fn pause(args: &Pause, pause: bool, printer: &mut Printer) -> ExitCode {
    let verb = if pause { "pause" } else { "resume" };
    let path = format!("/api/v1/listeners/{}/{verb}", part(&args.name));
    let question = Question::change(Method::POST, path, None);
    ended(Asker::new(&args.here.source(), &args.here.at, Errand::Order).and_then(|asker| {
        let said = asker.text(&question)?;
        match serde_json::from_str::<State>(&said) {
            Ok(state) if state.name == args.name && state.paused == pause => {
                printer.done(&if args.json { said } else { state.in_words() });
                Ok(ExitCode::SUCCESS)
            }
            _ => Err(asker.not_ours(&question)),
        }
    }))
}

impl State {
    fn in_words(&self) -> String {
        let (name, n) = (&self.name, self.waiting);
        match (self.paused, self.ready, n) {
            (true, _, 1) => format!("listener \"{name}\" is paused: 1 session waits, open sessions go on\n"),
            (true, _, _) => {
                format!("listener \"{name}\" is paused: {n} sessions wait, open sessions go on\n")
            }
            (false, _, 0) => format!("listener \"{name}\" is resumed: no session waits\n"),
            (false, true, 1) => format!("listener \"{name}\" is resumed: 1 session is let in\n"),
            (false, true, _) => format!("listener \"{name}\" is resumed: {n} sessions are let in\n"),
            (false, false, _) => {
                format!("listener \"{name}\" is resumed, but no node fits it: {n} waiting for one\n")
            }
        }
    }
}
