//! The log: JSON lines on standard error. No line for each request: the front before this service has one.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tokio::time::{Duration, Instant};

/// Lines about failures that may come at once.
const BURST: u32 = 20;
/// After a burst, one more line for each of these. A dead database fails every request, and says so each time.
const REFILL: Duration = Duration::from_millis(500);

/// Fields of a line, in their order.
pub(crate) type Fields<'a> = &'a [(&'a str, Value)];

/// Where lines go.
#[derive(Debug)]
pub(crate) struct Log {
    instance: String,
    allowance: Mutex<Allowance>,
}

#[derive(Debug)]
struct Allowance {
    lines: u32,
    since: Instant,
    suppressed: u64,
}

impl Log {
    /// Lines carry the name of the instance, unless it is empty.
    pub(crate) fn new(instance: &str) -> Self {
        let allowance = Allowance { lines: BURST, since: Instant::now(), suppressed: 0 };
        Self { instance: instance.to_owned(), allowance: Mutex::new(allowance) }
    }

    /// Something that belongs to the course of things.
    pub(crate) fn info(&self, event: &str, fields: Fields<'_>) {
        self.write("info", event, fields, 0);
    }

    /// Something that ends the program.
    pub(crate) fn error(&self, event: &str, fields: Fields<'_>) {
        self.write("error", event, fields, 0);
    }

    /// A failure. Lines are left out when there are too many; the next one says how many.
    pub(crate) fn failure(&self, event: &str, fields: Fields<'_>) {
        let allowed = self.allowance.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        if let Some(suppressed) = allowed {
            self.write("warn", event, fields, suppressed);
        }
    }

    fn write(&self, level: &str, event: &str, fields: Fields<'_>, suppressed: u64) {
        let mut line = Map::new();
        let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        line.insert("ts".to_owned(), now.into());
        line.insert("level".to_owned(), level.into());
        line.insert("event".to_owned(), event.into());
        if !self.instance.is_empty() {
            line.insert("instance".to_owned(), self.instance.as_str().into());
        }
        for (name, value) in fields {
            line.insert((*name).to_owned(), value.clone());
        }
        if suppressed > 0 {
            line.insert("suppressed".to_owned(), suppressed.into());
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // One write, so that lines of several threads do not mix. Nobody is left to tell that nobody reads it.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

impl Allowance {
    /// Whether a line may be written: how many were left out before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        while self.lines < BURST && now.duration_since(self.since) >= REFILL {
            self.lines += 1;
            self.since += REFILL;
        }
        if self.lines == 0 {
            self.suppressed += 1;
            return None;
        }
        if self.lines == BURST {
            self.since = now;
        }
        self.lines -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_counted_and_over_some_day() {
        let start = Instant::now();
        let mut allowance = Allowance { lines: BURST, since: start, suppressed: 0 };
        let written = (0..BURST + 5).filter(|_| allowance.take(start).is_some()).count();
        assert_eq!(written, BURST as usize);
        assert_eq!(allowance.take(start + REFILL), Some(5));
        assert_eq!(allowance.take(start + REFILL), None);
        assert_eq!(allowance.take(start + REFILL * 1000), Some(1));
        assert_eq!(allowance.lines, BURST - 1);
    }
}
