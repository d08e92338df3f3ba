//! `pgsplit pause` and `pgsplit resume`: a listener of the pgsplit that runs here.

use std::process::ExitCode;

use hyper::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::cli::args::Pause;
use crate::cli::ask::{Question, ask, whom};
use crate::cli::{fail, out};

/// What is read of the listener's state.
#[derive(Debug, Deserialize)]
struct State {
    name: String,
    paused: bool,
    ready: bool,
    waiting: u64,
}

pub(super) fn pause(args: &Pause, pause: bool) -> ExitCode {
    let (admin, token) = match whom(&args.source, args.admin, args.token_file.as_deref()) {
        Ok(found) => found,
        Err(why) => return fail(&why),
    };
    let name = utf8_percent_encode(&args.name, NON_ALPHANUMERIC);
    let path = format!("/api/v1/listeners/{name}/{}", if pause { "pause" } else { "resume" });
    let question = Question {
        method: Method::POST,
        path: &path,
        token: token.as_ref(),
        body: String::new(),
        within: args.timeout,
    };
    let (status, said) = match ask(admin, &question) {
        Ok(answer) => answer,
        Err(error) => return fail(&error),
    };
    if status != StatusCode::OK {
        return fail(&format!("http://{admin}{path} answered {}\n{}", status.as_u16(), said.trim_end()));
    }
    match serde_json::from_str::<State>(&said) {
        Ok(state) if state.name == args.name && state.paused == pause => {
            out::print(&state.in_words());
            ExitCode::SUCCESS
        }
        _ => fail(&format!("http://{admin}{path} is not pgsplit's")),
    }
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
