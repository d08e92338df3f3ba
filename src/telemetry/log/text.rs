//! A line for people: `time LEVEL event field=value …`. A field without a value is left out.

use std::borrow::Cow;
use std::fmt::{Display, Write};

use tracing::Level;

use super::real::push_real;
use super::value::{HEAD_USUAL, Value};
use crate::base::text::escaped;

/// The whole line; `fields` as [`field`] put them down.
pub(super) fn line(time: &impl Display, level: Level, event: &str, fields: &str, ansi: bool) -> String {
    let event = word(event);
    let mut out = String::with_capacity(HEAD_USUAL + fields.len());
    let _ = if ansi {
        let colour = match level {
            Level::ERROR => 31,
            Level::WARN => 33,
            Level::INFO => 32,
            _ => 34,
        };
        writeln!(out, "\x1b[2m{time}\x1b[0m \x1b[{colour}m{level}\x1b[0m \x1b[1m{event}\x1b[0m{fields}")
    } else {
        writeln!(out, "{time} {level} {event}{fields}")
    };
    out
}

/// Adds one field.
pub(super) fn field(out: &mut String, name: &str, value: &Value<'_>) {
    let mut put = |value: &str| {
        out.push(' ');
        out.push_str(name);
        out.push('=');
        out.push_str(value);
    };
    match value {
        Value::Text(text) => put(&word(text)),
        Value::Plain(plain) => put(plain),
        Value::Real(number) => {
            let mut text = String::new();
            if push_real(&mut text, *number, "") {
                put(&text);
            }
        }
        Value::Missing => {}
    }
}

/// `text` as one word: in quotes when it could be taken for more than one, and without anything that is not seen.
pub(super) fn word(text: &str) -> Cow<'_, str> {
    // Nearly every text is of this kind.
    if !text.is_empty() && text.bytes().all(is_plain) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(any_word(text))
    }
}

/// Whether it is a character of ASCII that [`any_word`] leaves as it is, and that asks for no quotes.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'<' | b'>'..=b'[' | b']'..=b'~')
}

pub(super) fn any_word(text: &str) -> String {
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
