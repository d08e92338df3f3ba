//! The load of the container scenarios: asks without a pause while a script stops and kills things, and counts.
//!
//! `load run` is told by lines on its standard input which step of the scenario begins (`step TEXT`) and when to make
//! sure that the load really runs (`wait N`: so many more good answers of each kind). At the end of the input, or at
//! `end`, it prints a table and writes a report.
//! `load burst` opens thousands of connections first and then uses them all at once.
//!
//! # What is counted as what
//!
//! An HTTP request that does not bring a whole answer with a status of 200 to 299 has failed; it is never sent again.
//! So has one with a number in its path whose answer is that of another: its `data.id` is not the number.
//! A database session that ends with its server is a cut one, and its read goes to a fresh session, as any service
//! does it; the read has failed when none of that worked in time. The same holds for writes, which tolerate a failover.

mod args;
mod burst;
mod caller;
mod descriptors;
mod gap;
mod histogram;
mod ledger;
mod queries;
mod report;
mod requests;
mod run;
mod screen;
mod session;
mod table;
mod target;

use std::process::ExitCode;

use args::Command;

fn main() -> ExitCode {
    let command = match args::read() {
        Ok(command) => command,
        Err(code) => return code,
    };
    // One thread: the machine's cores belong to what is being tested.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return stopped(&error.to_string()),
    };
    let ended = runtime.block_on(async {
        match command {
            Command::Run(options) => run::run(options).await,
            Command::Burst(options) => burst::burst(options).await,
        }
    });
    // A read of standard input cannot be interrupted, and must not keep the program.
    runtime.shutdown_background();
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => stopped(&error),
    }
}

fn stopped(error: &str) -> ExitCode {
    screen::complain(&format!("load: {}", screen::masked(error)));
    ExitCode::from(2)
}
