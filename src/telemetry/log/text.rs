//! A line for people: `time LEVEL event field=value …`. A field without a value is left out.

use std::fmt::{Display, Write};

use tracing::Level;

use super::value::{Value, rounded};
use crate::base::text::escaped;

/// The whole line; `fields` as [`field`] put them down.
pub(super) fn line(time: &impl Display, level: Level, event: &str, fields: &str, ansi: bool) -> String {
    let event = word(event);
    if ansi {
        let colour = match level {
            Level::ERROR => 31,
            Level::WARN => 33,
            Level::INFO => 32,
            _ => 34,
        };
        format!("\x1b[2m{time}\x1b[0m \x1b[{colour}m{level}\x1b[0m \x1b[1m{event}\x1b[0m{fields}\n")
    } else {
        format!("{time} {level} {event}{fields}\n")
    }
}

/// Adds one field.
pub(super) fn field(out: &mut String, name: &str, value: &Value<'_>) {
    let _ = match value {
        Value::Text(text) => write!(out, " {name}={}", word(text)),
        Value::Plain(plain) => write!(out, " {name}={plain}"),
        Value::Real(number) => match rounded(*number) {
            Some(number) => write!(out, " {name}={number}"),
            None => Ok(()),
        },
        Value::Missing => Ok(()),
    };
}

/// `text` as one word: in quotes when it could be taken for more than one, and without anything that is not seen.
fn word(text: &str) -> String {
    let safe = escaped(text.as_bytes(), usize::MAX);
    let is_word = safe == text
        && !text.is_empty()
        && !text.contains(|c: char| c.is_whitespace() || "\"=\\".contains(c));
    if is_word {
        return safe;
    }
    // Quotes and backslashes first: then `\x0a` can only be what stands for a newline.
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", escaped(quoted.as_bytes(), usize::MAX))
}
