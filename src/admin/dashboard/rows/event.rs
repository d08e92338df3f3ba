//! An event's row.

use maud::{Markup, html};
use serde_json::Value;

use crate::admin::dashboard::words;
use crate::telemetry::events::Event;

/// An event's row.
#[derive(Debug, Default)]
pub(in crate::admin::dashboard) struct EventCells {
    id: String,
    at: String,
    hour: String,
    level: &'static str,
    tone: &'static str,
    about: String,
    what: String,
    details: String,
}

impl EventCells {
    pub(in crate::admin::dashboard) fn of(event: &Event) -> Self {
        let at = humantime::format_rfc3339_millis(event.at).to_string();
        let text = |name: &str| event.fields.get(name).filter(|value| !value.is_null()).map(shown);
        let about = ["node", "listener", "upstream", "front", "session"];
        let about_key = about.into_iter().find(|name| text(name).is_some());
        let change = text("from").zip(text("to")).map(|(from, to)| format!("{from} → {to}"));
        let cause = text("error").or_else(|| text("text"));
        let is_said = |name: &str| {
            matches!(name, "error" | "text")
                || about_key == Some(name)
                || (change.is_some() && matches!(name, "from" | "to"))
        };
        let rest = event.fields.iter().filter(|(name, value)| !value.is_null() && !is_said(name));
        let rest = rest.map(|(name, value)| format!("{name}={}", shown(value)));
        let first: Vec<_> = [change.clone(), cause].into_iter().flatten().collect();
        let first = (!first.is_empty()).then(|| first.join(": "));
        let details = first.into_iter().chain(rest).collect::<Vec<_>>().join(", ");
        Self {
            id: event.id.to_string(),
            hour: words::hour(&at).to_owned(),
            at,
            level: event.level,
            tone: match event.level {
                "error" => "bad",
                "warn" => "warn",
                _ => "off",
            },
            about: about_key.and_then(text).unwrap_or_default(),
            what: event.event.replace('_', " "),
            details,
        }
    }

    pub(in crate::admin::dashboard) fn row(&self) -> Markup {
        html! {
            tr data-key=(self.id) data-level=(self.level) data-about=(self.about) {
                td data-label="Time" { time datetime=(self.at) title=(self.at) data-f="hour" { (self.hour) } }
                td data-label="Level" { span.pill data-tone=(self.tone) data-f="level" { (self.level) } }
                td data-label="About" data-f="about" { (self.about) }
                th scope="row" data-label="What" data-f="what" { (self.what) }
                td.details data-label="Details" data-f="details" { (self.details) }
            }
        }
    }
}

/// A field's value as the log has it, without quotes.
fn shown(value: &Value) -> String {
    match (value, value.as_f64()) {
        (Value::String(text), _) => text.clone(),
        (Value::Number(number), Some(decimal)) if number.is_f64() => decimal.to_string(),
        _ => value.to_string(),
    }
}
