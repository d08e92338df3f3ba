//! A line for programs: one JSON object, flat. A field without a value is `null`, so that every line of an event
//! has the same keys.

use std::fmt::{Display, Write};

use tracing::Level;

use super::real::push_real;
use super::value::{HEAD_USUAL, Value};

/// The whole line; `fields` as [`field`] put them down.
pub(super) fn line(time: &impl Display, level: Level, event: &str, fields: &str) -> String {
    let level = match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    let mut out = String::with_capacity(HEAD_USUAL + fields.len());
    let _ = write!(out, r#"{{"ts":"{time}","level":"{level}","event":"#);
    string(&mut out, event);
    out.push_str(fields);
    out.push_str("}\n");
    out
}

/// Adds one field. Its name stands in a program's source, not in what a peer sent, and needs no look.
pub(super) fn field(out: &mut String, name: &'static str, value: &Value<'_>) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    match value {
        Value::Text(text) => string(out, text),
        Value::Plain(plain) => out.push_str(plain),
        // A whole number keeps its point, so that a key has one type in every line.
        Value::Real(number) if push_real(out, *number, ".0") => {}
        Value::Real(_) | Value::Missing => out.push_str("null"),
    }
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    // Nearly every text is of this kind, and taking its characters one by one would be most of a line's work.
    if text.bytes().all(|byte| PLAIN.get(usize::from(byte)) == Some(&true)) {
        out.push_str(text);
    } else {
        text.chars().for_each(|c| character(out, c));
    }
    out.push('"');
}

/// Adds one character of a text.
pub(super) fn character(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        c if is_hidden(c) => {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
        c => out.push(c),
    }
}

/// Which bytes are characters of ASCII that [`character`] leaves as they are. To look it up takes half as long as to
/// compare.
#[expect(clippy::indexing_slicing, reason = "an index too large would not compile")]
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        plain[byte as usize] = !matches!(byte, b'"' | b'\\');
        byte += 1;
    }
    plain
};

/// What a terminal would act on or not show. JSON itself asks only for the first 32; escaping a dash too many costs
/// nothing, as it reads back the same. All of these fit into four hexadecimal digits.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2000}'..='\u{206f}' | '\u{feff}')
}
