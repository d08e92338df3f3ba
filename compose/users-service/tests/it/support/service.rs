//! The real program.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::client::{self, Answer};
use super::postgres::Postgres;
use super::wait::{wait_for, wait_until};
use super::{PASSWORD, Signal, signal};

/// A running instance. Dropping it kills it, and checks that its log tells no password.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) addr: SocketAddr,
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    reader: Option<JoinHandle<()>>,
}

impl Service {
    /// An instance that reads from `postgres`.
    pub(crate) fn start(postgres: &Postgres, settings: &[(&str, &str)]) -> Self {
        Self::start_with_url(&postgres.url(PASSWORD), settings)
    }

    pub(crate) fn start_with_url(url: &str, settings: &[(&str, &str)]) -> Self {
        let mut child = command()
            .env("DATABASE_URL", url)
            .env("BIND", "127.0.0.1:0")
            .env("INSTANCE", "users-1")
            .envs(settings.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the service starts");
        let lines = Arc::new(Mutex::new(Vec::<Value>::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let reader = thread::spawn({
            let lines = Arc::clone(&lines);
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    let line = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON line: {line}"));
                    lines.lock().unwrap().push(line);
                }
            }
        });
        let addr = wait_for("the service to start", || {
            let lines = lines.lock().unwrap();
            let start = lines.iter().find(|line| line["event"] == "start")?;
            start["addr"].as_str()?.parse().ok()
        });
        Self { addr, child, lines, reader: Some(reader) }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        client::ask(self.addr, "GET", path)
    }

    /// Whether a line of the log has this value.
    fn has_logged(&self, field: &str, value: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|line| line[field] == value)
    }

    /// Waits for such a line: it comes through a pipe, a moment after the answer it belongs to.
    pub(crate) fn must_log(&self, field: &str, value: &str) {
        wait_until(&format!("a line with {field} {value}"), || self.has_logged(field, value));
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let status = wait_for("the service to end", || self.child.try_wait().unwrap());
        if let Some(reader) = self.reader.take() {
            reader.join().expect("JSON lines");
        }
        status
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            signal(self.child.id(), Signal::KILL);
            let _ = self.child.wait();
        }
        let read = self.reader.take().map_or(Ok(()), JoinHandle::join);
        if thread::panicking() {
            eprintln!("log of the service: {:#?}", self.lines.lock());
            return;
        }
        read.expect("JSON lines");
        let log = format!("{:?}", self.lines.lock().unwrap());
        assert!(!log.contains(PASSWORD), "{log}");
    }
}

/// The program with nothing in its environment.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_users-service"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// What `command` printed, with no password in it.
pub(crate) fn run(command: &mut Command) -> (Output, String) {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!errors.contains(PASSWORD), "{errors}");
    (output, errors)
}
