//! The users service: reads the table `users` through a load balancer and answers with JSON.
//!
//! `users-service` serves, `users-service healthcheck` asks a serving one on the same machine. All settings come
//! from the environment, see [`settings`].

mod database;
mod healthcheck;
mod http;
mod log;
mod serve;
mod settings;
mod users;

use std::process::ExitCode;

use log::Log;
use settings::Settings;

/// What the usage and wrong settings end with, as in most programs.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => start(),
        ["healthcheck"] => healthcheck::run(&settings::environment),
        _ => {
            let text = "start it without arguments to serve, or with `healthcheck` to ask one that serves";
            wrong_use(&[text.to_owned()])
        }
    }
}

fn start() -> ExitCode {
    match Settings::read(&settings::environment) {
        Ok(settings) => serve::run(settings),
        Err(faults) => wrong_use(&faults),
    }
}

/// Every fault at once, so that one start finds them all.
fn wrong_use(faults: &[String]) -> ExitCode {
    let log = Log::new("");
    for fault in faults {
        log.error("wrong_use", &[("error", fault.as_str().into())]);
    }
    ExitCode::from(WRONG_USE)
}
