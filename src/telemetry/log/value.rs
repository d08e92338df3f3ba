//! The value of a field, and how fields are collected from an event.

use std::error::Error;
use std::fmt::{self, Write};

use tracing::Event;
use tracing::field::{Field, Visit};

/// Room for a line's time, level and event, so that it need not grow.
pub(super) const HEAD_USUAL: usize = 128;
/// Room for the fields of a session's line.
const FIELDS_USUAL: usize = 1024;

/// The value of a field.
pub(super) enum Value<'a> {
    /// A field that the event has and that was given `None`.
    Missing,
    /// A whole number or a boolean: written alike everywhere.
    Plain(&'a str),
    /// A number with a fraction.
    Real(f64),
    /// Anything else.
    Text(&'a str),
}

/// Puts a field down.
pub(super) type PutField = fn(&mut String, &'static str, &Value<'_>);

/// The event's name, and its fields as `write` puts them down.
pub(super) fn collect(event: &Event<'_>, write: PutField) -> (String, String) {
    let metadata = event.metadata();
    let mut fields =
        Fields { event: String::new(), out: String::with_capacity(FIELDS_USUAL), seen: 0, write };
    // Lines of libraries say whose they are; our own events have names of their own.
    if !metadata.target().starts_with(env!("CARGO_PKG_NAME")) {
        write(&mut fields.out, "target", &Value::Text(metadata.target()));
    }
    event.record(&mut fields);
    for field in metadata.fields() {
        if fields.seen & bit(&field) == 0 {
            fields.put(&field, &Value::Missing);
        }
    }
    if fields.event.is_empty() {
        metadata.target().clone_into(&mut fields.event);
    }
    (fields.event, fields.out)
}

struct Fields {
    event: String,
    out: String,
    /// Which fields had a value. `tracing` skips a `None` in silence, so it can only be told by its absence.
    seen: u64,
    write: PutField,
}

impl Fields {
    fn put(&mut self, field: &Field, value: &Value<'_>) {
        self.seen |= bit(field);
        let name = field.name();
        match value {
            Value::Text(text) if name == "message" => (*text).clone_into(&mut self.event),
            value => (self.write)(&mut self.out, name.strip_prefix("r#").unwrap_or(name), value),
        }
    }
}

/// No event has more than 64 fields; in one that had, a `None` would be left out.
fn bit(field: &Field) -> u64 {
    u32::try_from(field.index()).ok().and_then(|index| 1_u64.checked_shl(index)).unwrap_or(u64::MAX)
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, &Value::Real(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, &Value::Plain(itoa::Buffer::new().format(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, &Value::Plain(itoa::Buffer::new().format(value)));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, &Value::Plain(itoa::Buffer::new().format(value)));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, &Value::Plain(itoa::Buffer::new().format(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, &Value::Plain(if value { "true" } else { "false" }));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, &Value::Text(value));
    }

    /// An error with its causes: the last one is usually the one that helps. Some errors name their cause
    /// themselves; it is not said twice.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let cause_text = error.to_string();
            if !text.ends_with(&cause_text) {
                let _ = write!(text, ": {cause_text}");
            }
            cause = error.source();
        }
        self.put(field, &Value::Text(&text));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &Value::Text(&format!("{value:?}")));
    }
}
