//! One event, one line.

use std::fmt;
use std::time::SystemTime;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::value::{Value, collect};
use super::{Format, json, text};

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) format: Format,
    pub(super) ansi: bool,
}

impl Line {
    /// The line that stands for lines that are not there.
    pub(super) fn lost(self, lines: u64) -> String {
        let mut fields = String::new();
        self.field()(&mut fields, "lines", &Value::Plain(&lines.to_string()));
        self.whole(Level::WARN, "log_lines_lost", &fields)
    }

    fn field(self) -> fn(&mut String, &str, &Value<'_>) {
        match self.format {
            Format::Text => text::field,
            Format::Json => json::field,
        }
    }

    fn whole(self, level: Level, event: &str, fields: &str) -> String {
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        match self.format {
            Format::Text => text::line(&time, level, event, fields, self.ansi),
            Format::Json => json::line(&time, level, event, fields),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (name, fields) = collect(event, self.field());
        writer.write_str(&self.whole(*event.metadata().level(), &name, &fields))
    }
}
