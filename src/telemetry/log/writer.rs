//! The writing end: counts what could not be written, and says so when it can again.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_appender::non_blocking::ErrorCounter;

use super::line::Line;

/// After it has written what there was the thread rests: lines that come meanwhile are written together, and those who
/// log them need not wake it. A line for each of many short sessions would else cost as much as the session's bytes.
const REST: Duration = Duration::from_millis(20);
/// What is written at once.
pub(super) const PENDING_MOST: usize = 64 * 1024;

/// Counts log lines that were lost: because the queue was full, or because writing failed.
#[derive(Clone, Default)]
pub struct DroppedLines {
    unwritten: Arc<AtomicU64>,
    unqueued: Arc<OnceLock<ErrorCounter>>,
}

impl DroppedLines {
    /// Lines lost so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        let unqueued = self.unqueued.get().map_or(0, ErrorCounter::dropped_lines);
        u64::try_from(unqueued).unwrap_or(u64::MAX).saturating_add(self.unwritten.load(Ordering::Relaxed))
    }

    /// Adds the queue's own counter, which exists only after the queue, which exists only after its writer.
    pub(super) fn watch(&self, queue: ErrorCounter) {
        let _ = self.unqueued.set(queue);
    }
}

impl fmt::Debug for DroppedLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DroppedLines").field(&self.count()).finish()
    }
}

/// A writer that never fails: the thread that uses it has nobody to tell, and goes on.
pub(super) struct Tally<W> {
    writer: W,
    dropped: DroppedLines,
    reported: u64,
    line: Line,
    /// Whole lines that are yet to be written.
    pending: Vec<u8>,
    /// The last line that was written lacks its end.
    is_torn: bool,
}

impl<W: Write> Tally<W> {
    pub(super) fn new(writer: W, dropped: DroppedLines, line: Line) -> Self {
        Self { writer, dropped, reported: 0, line, pending: Vec::new(), is_torn: false }
    }

    /// Says that so many lines were lost.
    fn report(&mut self, lost: u64) {
        if lost > 0 && self.writer.write_all(self.line.lost(lost).as_bytes()).is_ok() {
            self.reported += lost;
        }
    }

    /// Writes the lines that are pending. What cannot be written is lost.
    fn write_out(&mut self) {
        let written = self.write_pending();
        let (done, lost) = self.pending.split_at_checked(written).unwrap_or_default();
        self.is_torn = done.last().map_or(self.is_torn, |&last| last != b'\n');
        let lost = u64::try_from(memchr::memchr_iter(b'\n', lost).count()).unwrap_or(u64::MAX);
        self.dropped.unwritten.fetch_add(lost, Ordering::Relaxed);
        self.pending.clear();
    }

    /// Writes until that fails; how many bytes were written.
    fn write_pending(&mut self) -> usize {
        if self.is_torn && !self.pending.is_empty() && self.writer.write_all(b"\n").is_err() {
            return 0;
        }
        let mut written = 0;
        while let Some(rest @ [_, ..]) = self.pending.get(written..) {
            match self.writer.write(rest) {
                Ok(n) if 0 < n => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        written
    }
}

impl<W: Write> Write for Tally<W> {
    /// Takes what the queue hands over: one line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if PENDING_MOST < self.pending.len() + line.len() {
            self.write_out();
        }
        self.pending.extend_from_slice(line);
        Ok(line.len())
    }

    /// Called whenever the queue is empty: the moment to write, and when there is room for one more line.
    fn flush(&mut self) -> io::Result<()> {
        // Those of now: the queue may fill up again while the thread is stuck in what follows.
        let lost = self.dropped.count() - self.reported;
        self.write_out();
        self.report(lost);
        let _ = self.writer.flush();
        std::thread::sleep(REST);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::log::Format;

    /// Takes so many bytes and then nothing more, a few at a time.
    struct Narrow<'w>(&'w mut Vec<u8>, usize);

    impl Write for Narrow<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(3).min(self.1);
            if n == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1 -= n;
            self.0.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_lost_of_a_batch_is_counted_and_the_next_line_stands_alone() {
        let (mut out, dropped) = (Vec::new(), DroppedLines::default());
        let line = Line::new(Format::Text, false);
        let mut tally = Tally::new(Narrow(&mut out, 8), dropped.clone(), line);
        for line in ["one 1\n", "two 2\n", "three\n"] {
            tally.write_all(line.as_bytes()).unwrap();
        }
        tally.write_out();
        assert_eq!(dropped.count(), 2, "the first is whole, the second torn");
        tally.writer.1 = 100;
        tally.write_all(b"four\n").unwrap();
        tally.write_out();
        assert_eq!((dropped.count(), &out[..]), (2, &b"one 1\ntw\nfour\n"[..]));
    }
}
