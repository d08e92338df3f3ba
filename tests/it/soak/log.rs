//! pgsplit's log, read by somebody who may stop reading.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

/// Lines kept for whoever looks into a failure.
const KEPT: usize = 400;

/// What is kept of the log; an hour of it would be too much.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_stalled: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    last: VecDeque<String>,
    /// Lines that are not the end of a session, the first ones.
    notable: Vec<String>,
    /// By event.
    events: HashMap<String, u64>,
    /// Sessions that have a closing line.
    closed: HashSet<String>,
    /// Sessions that have more than one.
    closed_twice: Vec<String>,
}

impl Log {
    /// A log, and the end of the pipe that it is written to.
    pub fn new() -> (Self, PipeWriter) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let log = Self::default();
        let reading = log.clone();
        std::thread::spawn(move || reading.read(reader));
        (log, writer)
    }

    /// From now on nobody reads, or somebody does again.
    pub fn stall(&self, is_stalled: bool) {
        self.0.is_stalled.store(is_stalled, Ordering::SeqCst);
    }

    /// The end of it.
    pub fn last(&self, lines: usize) -> String {
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = seen.last.len().saturating_sub(lines);
        seen.last.iter().skip(skipped).fold(String::new(), |text, line| text + line + "\n")
    }

    /// All of it that is not the end of a session.
    pub fn notable(&self) -> String {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).notable.join("\n")
    }

    /// How many lines have this event.
    pub fn count(&self, event: &str) -> u64 {
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.events.get(event).copied().unwrap_or(0)
    }

    /// Sessions with more than one closing line.
    pub fn closed_twice(&self) -> Vec<String> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).closed_twice.clone()
    }

    fn read(&self, reader: PipeReader) {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            while self.0.is_stalled.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let line = String::from_utf8_lossy(&line).into_owned();
            self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).take(line);
        }
    }
}

impl Seen {
    fn take(&mut self, line: String) {
        let fields: Value = serde_json::from_str(&line).unwrap_or_default();
        let event = fields["event"].as_str().unwrap_or("not JSON").to_owned();
        if event == "session_end" {
            let id = fields["id"].as_str().unwrap_or_default().to_owned();
            if !self.closed.insert(id.clone()) {
                self.closed_twice.push(id);
            }
        } else if self.notable.len() < 20_000 {
            self.notable.push(line.clone());
        }
        *self.events.entry(event).or_default() += 1;
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}
