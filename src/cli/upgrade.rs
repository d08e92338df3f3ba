//! `pgsplit upgrade`: a new process in place of the pgsplit that runs here.

use std::process::ExitCode;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::cli::args::Upgrade;
use crate::cli::ask::{Question, ask, whom};
use crate::cli::{fail, out};

const PATH: &str = "/api/v1/upgrade";
/// How long sessions may take to move, once the new process is ready.
const MOVING: Duration = Duration::from_secs(30);

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

/// What is read of another answer.
#[derive(Debug, Deserialize)]
struct Failed {
    error: String,
}

pub(super) fn upgrade(args: &Upgrade) -> ExitCode {
    let (admin, token) = match whom(&args.source, args.admin, args.token_file.as_deref()) {
        Ok(found) => found,
        Err(why) => return fail(&why),
    };
    let binary = match args.binary.as_ref().map(std::path::absolute).transpose() {
        Ok(binary) => binary,
        Err(error) => return fail(&format!("--binary: {error}")),
    };
    let wait = args.wait.as_secs().max(1);
    let body = json!({"binary": binary, "wait_seconds": wait}).to_string();
    let within = Duration::from_secs(wait) + MOVING;
    let question = Question { method: Method::POST, path: PATH, token: token.as_ref(), body, within };
    let (status, said) = match ask(admin, &question) {
        Ok(answer) => answer,
        Err(error) => return fail(&error),
    };
    if status != StatusCode::OK {
        return match serde_json::from_str::<Failed>(&said) {
            Ok(Failed { error }) => fail(&format!("no upgrade: {error}")),
            Err(_) => fail(&format!("http://{admin}{PATH} answered {}\n{}", status.as_u16(), said.trim_end())),
        };
    }
    match serde_json::from_str::<Done>(&said) {
        Ok(done) => {
            out::print(&done.in_words());
            ExitCode::SUCCESS
        }
        Err(_) => fail(&format!("http://{admin}{PATH} is not pgsplit's")),
    }
}

impl Done {
    fn in_words(&self) -> String {
        let Self { pid, version, moved, stayed, open, seconds } = self;
        let mut words = format!(
            "pgsplit {version} runs as process {pid}, after {seconds:.2} s\n  {moved} sessions went over\n"
        );
        if 0 < *stayed {
            words += &format!("  {stayed} sessions end in the old process: the new one has no place for them\n");
        }
        let others = open.saturating_sub(*stayed);
        if 0 < others {
            words += &format!("  {others} connections are on their way in or out there\n");
        }
        words
    }
}
