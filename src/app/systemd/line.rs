//! How things are, in one line: the verdict, and how many sessions there are.

use std::fmt::{self, Write};
use std::sync::Arc;

use crate::admin::verdict::in_words;
use crate::base::text::escaped;
use crate::front::shared::Front;
use crate::session::setup::Setup;
use crate::session::shared::Shared;

/// In characters; names may be long.
const LONGEST: usize = 400;

/// The line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// What somebody wants to know at once when it changes.
    pub(super) words: String,
    /// What changes all the time.
    pub(super) figures: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The protocol knows lines, and nothing in a name may end this one.
        f.write_str(&escaped(self.words.as_bytes(), LONGEST))?;
        f.write_str(&self.figures)
    }
}

impl Line {
    /// Now. An age in it says seconds for two minutes and minutes from then on, so it is not new each second for long.
    pub(super) fn of(shared: &Shared, fronts: &[Arc<Front>]) -> Self {
        let setup = shared.setup();
        Self { words: in_words(shared, &setup, fronts), figures: figures(&setup, fronts) }
    }
}

fn figures(setup: &Setup, fronts: &[Arc<Front>]) -> String {
    let sessions: u32 = setup.listeners.iter().map(|listener| listener.active()).sum();
    let waiting: usize = setup.listeners.iter().map(|listener| listener.waiting().0).sum();
    let requests: u64 = fronts.iter().map(|front| front.metrics.in_flight()).sum();
    let mut text = String::new();
    if !setup.listeners.is_empty() {
        text += &count(u64::from(sessions), "session");
    }
    if waiting != 0 {
        let _ = write!(text, ", {waiting} waiting");
    }
    if !fronts.is_empty() {
        text += if text.is_empty() { "" } else { "," };
        text += &count(requests, "request");
    }
    text
}

fn count(n: u64, what: &str) -> String {
    if n == 1 { format!(" 1 {what}") } else { format!(" {n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line() {
        let line = Line { words: "Writes: db\nREADY=1.".to_owned(), figures: " 1 session".to_owned() };
        assert_eq!(line.to_string(), "Writes: db\\x0aREADY=1. 1 session");
    }
}
