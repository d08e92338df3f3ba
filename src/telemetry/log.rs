//! The log: one line for each event, written by a thread of its own.
//!
//! An event is a constant name and fields: `info!(listener = "ro", duration_s = 12.4, "session_end")`. It becomes
//! one line, as text or JSON; a field given `None` is `null` in JSON and left out of text. The line goes into a bounded queue, and a thread writes it: whoever logs never
//! waits for whoever reads the log.
//!
//! # Invariants
//!
//! - A reader that is stuck, gone, or out of space costs lines, never a session. Lost lines are counted, and once
//!   the queue is empty again one line says how many they were.
//! - No field can end its line, start another one, or send an escape code to a terminal.
//! - Each line stands alone: spans are not shown, so a field that matters belongs to the event.

mod json;
mod line;
mod real;
mod text;
mod value;
mod writer;

use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

use self::line::Line;
use self::writer::Tally;

pub use self::writer::DroppedLines;

/// Lines that may wait to be written: some megabytes, and seconds of a busy log.
const QUEUE_LINES: usize = 8192;

/// How long the end of the process waits for the last lines. The writing thread gets 1.1 s of it.
const LAST_LINES: Duration = Duration::from_millis(1300);

/// What is logged, and how it looks.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings<'a> {
    /// A level, or a filter such as `info,pgsplit::session=debug`.
    pub filter: &'a str,
    /// How a line looks.
    pub format: Format,
    /// Whether text has colours; only for terminals.
    pub ansi: bool,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `time LEVEL event field=value …`, for people.
    Text,
    /// One object a line, for programs.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A single word that is no level. Left alone it would be taken for the name of a module, and silence the rest.
    #[error("`{0}` is not a level: write error, warn, info, debug, trace or off")]
    Level(String),
    /// Not a filter.
    #[error("`{text}` is not a log filter such as info,pgsplit::session=debug")]
    Filter {
        /// What was written.
        text: String,
        /// What is wrong with it.
        source: ParseError,
    },
}

/// A subscriber that writes to `writer`, and what to keep until the end. Nothing is installed: that is for `main`,
/// with [`tracing::dispatcher::set_global_default`], or for a test, with [`tracing::dispatcher::with_default`].
///
/// # Errors
/// When the filter cannot be understood.
pub fn start(
    settings: LogSettings<'_>,
    writer: impl Write + Send + 'static,
) -> Result<(Dispatch, LogGuard), FilterError> {
    let filter = parse_filter(settings.filter)?;
    let (filter, switch) = reload::Layer::new(filter);
    let line = Line::new(settings.format, settings.ansi);
    let dropped = DroppedLines::default();
    let (queue, worker) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUE_LINES)
        .thread_name("log")
        .finish(Tally::new(writer, dropped.clone(), line.clone()));
    dropped.watch(queue.error_counter());
    let layer = tracing_subscriber::fmt::layer()
        .event_format(line.clone())
        // What cannot be formatted is not worth writing to a standard error that may be the same stuck pipe.
        .log_internal_errors(false)
        .with_writer(queue);
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    Ok((
        Dispatch::new(subscriber),
        LogGuard { worker: Some(worker), dropped, control: LogControl { filter: switch, line } },
    ))
}

fn parse_filter(text: &str) -> Result<EnvFilter, FilterError> {
    let is_plain = !text.contains(['[', '{']);
    let words = text.split(',').map(str::trim).filter(|_| is_plain);
    for word in words {
        let names_a_module = word.contains('=') || word.contains("::");
        if !names_a_module && (word.is_empty() || word.parse::<LevelFilter>().is_err()) {
            return Err(FilterError::Level(word.to_owned()));
        }
    }
    EnvFilter::try_new(text).map_err(|source| FilterError::Filter { text: text.to_owned(), source })
}

/// Keeps the log going; dropped at the end of the process, it waits a moment for the last lines.
#[derive(Debug)]
pub struct LogGuard {
    worker: Option<WorkerGuard>,
    dropped: DroppedLines,
    control: LogControl,
}

/// Changes what is logged and how it looks while the log is written.
#[derive(Clone, Debug)]
pub struct LogControl {
    filter: reload::Handle<EnvFilter, Registry>,
    line: Line,
}

impl LogControl {
    /// From now on what fits `filter` is logged, and looks like this.
    ///
    /// # Errors
    /// When the filter cannot be understood; then nothing changes.
    pub fn set(&self, filter: &str, format: Format) -> Result<(), FilterError> {
        let filter = parse_filter(filter)?;
        // It can only fail when the log is gone.
        let _ = self.filter.reload(filter);
        self.line.set_format(format);
        Ok(())
    }
}

impl LogGuard {
    /// What the log can be changed by.
    #[must_use]
    pub fn control(&self) -> LogControl {
        self.control.clone()
    }

    /// Lines lost so far, by a handle for the metrics.
    #[must_use]
    pub fn dropped(&self) -> DroppedLines {
        self.dropped.clone()
    }

    /// Lines lost so far.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.dropped.count()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let worker = self.worker.take();
        let (done, wait) = mpsc::channel();
        // On a thread of its own: when the queue is full at this moment the worker's guard prints a complaint to
        // standard output, and if that is the stuck pipe the process would never end.
        let spawned = thread::Builder::new().name("log-end".to_owned()).spawn(move || {
            drop(worker);
            let _ = done.send(());
        });
        if spawned.is_ok() {
            let _ = wait.recv_timeout(LAST_LINES);
        }
    }
}

#[cfg(test)]
mod tests;
