//! `pgsplit pause` and `pgsplit resume`: a listener of the pgsplit that runs here.

use std::net::SocketAddr;
use std::process::ExitCode;

use hyper::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::base::secret::Secret;
use crate::cli::args::Pause;
use crate::cli::ask::{Question, ask, find, words_of};
use crate::cli::{fail, load, out};
use crate::config::read_token;

/// What is read of the listener's state.
#[derive(Debug, Deserialize)]
struct State {
    name: String,
    paused: bool,
    ready: bool,
    waiting: u64,
}

pub(super) fn pause(args: &Pause, pause: bool) -> ExitCode {
    let (admin, token) = match whom(args) {
        Ok(found) => found,
        Err(why) => return fail(&why),
    };
    let name = utf8_percent_encode(&args.name, NON_ALPHANUMERIC);
    let path = format!("/api/v1/listeners/{name}/{}", if pause { "pause" } else { "resume" });
    let question =
        Question { method: Method::POST, path: &path, token: token.as_ref(), within: args.timeout };
    let (status, said) = match ask(admin, &question) {
        Ok(answer) => answer,
        Err(error) => return fail(&error),
    };
    if status != StatusCode::OK {
        return fail(&format!("http://{admin}{path} answered {}\n{}", status.as_u16(), words_of(&said)));
    }
    match serde_json::from_str::<State>(&said) {
        Ok(state) if state.name == args.name && state.paused == pause => {
            out::print(&state.in_words());
            ExitCode::SUCCESS
        }
        _ => fail(&format!("http://{admin}{path} is not pgsplit's")),
    }
}

/// Whom to ask, and the token for it: that of the file or variable that says so, else the configuration's.
fn whom(args: &Pause) -> Result<(SocketAddr, Option<Secret>), String> {
    let given = match &args.token_file {
        Some(path) => {
            let token = read_token(path);
            Some(token.map_err(|error| format!("--token-file: cannot use {}: {error}", path.display()))?)
        }
        None => std::env::var("PGSPLIT_ADMIN_TOKEN").ok().filter(|token| !token.is_empty()).map(Secret::new),
    };
    if let Some(admin) = args.admin {
        // Without one the other side says what it wants; a file that cannot be read need not be there.
        return Ok((admin, given.or_else(|| load(&args.source).ok()?.0.admin?.token)));
    }
    let (admin, token) = find(&args.source)?;
    Ok((admin, given.or(token)))
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
