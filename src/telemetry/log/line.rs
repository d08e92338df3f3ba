//! One event, one line.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::value::{PutField, Value, collect};
use super::{Format, json, text};

/// How lines look; clones look alike, also when that changes.
#[derive(Clone, Debug)]
pub(super) struct Line {
    is_json: Arc<AtomicBool>,
    ansi: bool,
}

impl Line {
    /// Lines that look like this; text has colours if `ansi`.
    pub(super) fn new(format: Format, ansi: bool) -> Self {
        Self { is_json: Arc::new(AtomicBool::new(format == Format::Json)), ansi }
    }

    /// From now on they look like this.
    pub(super) fn set_format(&self, format: Format) {
        self.is_json.store(format == Format::Json, Ordering::Relaxed);
    }

    fn format(&self) -> Format {
        if self.is_json.load(Ordering::Relaxed) { Format::Json } else { Format::Text }
    }

    /// The line that stands for lines that are not there.
    pub(super) fn lost(&self, lines: u64) -> String {
        let (format, mut fields) = (self.format(), String::new());
        Self::field(format)(&mut fields, "lines", &Value::Plain(&lines.to_string()));
        self.whole(format, Level::WARN, "log_lines_lost", &fields)
    }

    fn field(format: Format) -> PutField {
        match format {
            Format::Text => text::field,
            Format::Json => json::field,
        }
    }

    fn whole(&self, format: Format, level: Level, event: &str, fields: &str) -> String {
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        match format {
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
        // Once, as it may change in between.
        let format = self.format();
        let (name, fields) = collect(event, Self::field(format));
        writer.write_str(&self.whole(format, *event.metadata().level(), &name, &fields))
    }
}
