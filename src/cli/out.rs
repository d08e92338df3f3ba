//! Printing for people. A reader that has gone (`pgsplit … | head`) is no error, a disk that is full is one.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::time::sleep;

use crate::cli::IO_ERROR;
use crate::cli::table::Screen;

/// Where nothing says how wide the screen is.
const USUAL_WIDTH: usize = 80;

/// From one look for a reader to the next.
const LOOK: Duration = Duration::from_millis(300);

/// Standard output, for what a verb is asked for: every verb prints here, and the command ends by [`Printer::end`].
#[derive(Debug, Default)]
pub(super) struct Printer {
    is_lost: bool,
}

impl Printer {
    /// Prints; whether somebody has got it. A failure is said once.
    pub(super) fn print(&mut self, text: &str) -> bool {
        self.outcome_of(&write(text))
    }

    /// Prints all that there is to a verb; the exit code as far as the verb knows.
    pub(super) fn all(&mut self, text: &str) -> ExitCode {
        self.print(text);
        ExitCode::SUCCESS
    }

    /// Prints what has been done. Where that cannot be written it is said elsewhere: it is done all the same.
    pub(super) fn done(&mut self, text: &str) {
        if !self.print(text) && self.is_lost {
            complain(&format!("pgsplit: it is done all the same: {text}"));
        }
    }

    /// What became of printing by other means; whether somebody has got it.
    pub(super) fn outcome_of(&mut self, outcome: &io::Result<()>) -> bool {
        if let Err(error) = outcome
            && error.kind() != ErrorKind::BrokenPipe
            && !std::mem::replace(&mut self.is_lost, true)
        {
            complain(&format!("pgsplit: cannot write to standard output: {error}\n"));
        }
        outcome.is_ok()
    }

    /// The exit code of a verb that ends with `code`: what went well has not when nobody could be told.
    pub(super) fn end(self, code: ExitCode) -> ExitCode {
        if self.is_lost && code == ExitCode::SUCCESS { ExitCode::from(IO_ERROR) } else { code }
    }
}

/// Writes to standard output what nobody has asked for, such as a greeting, or where the cursor is to go.
pub(super) fn aside(text: &str) {
    let _ = write(text);
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
}

/// Comes back when nobody reads standard output any more, which a pipe tells also while nothing is written. Cancel safe.
pub(super) async fn reader_gone() {
    while is_read() {
        sleep(LOOK).await;
    }
}

/// Whether nothing speaks against somebody reading standard output. Does not wait.
fn is_read() -> bool {
    let stdout = io::stdout();
    let mut all = [PollFd::new(&stdout, PollFlags::empty())];
    let gone = PollFlags::ERR | PollFlags::HUP;
    // What cannot be asked is no pipe that somebody has left.
    poll(&mut all, Some(&Timespec::default())).is_err()
        || all.iter().all(|one| !one.revents().intersects(gone))
}

/// Writes to standard error.
pub(super) fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Whether complaints are read on a terminal.
pub(super) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether standard output may have colours: on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
pub(super) fn has_colours() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal()
        && !is_set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether standard output is a terminal, which can be drawn over.
pub(super) fn is_screen() -> bool {
    io::stdout().is_terminal()
}

/// What tables may look like.
pub(super) fn screen() -> Screen {
    Screen { width: width(), has_colours: has_colours() }
}

/// Columns of the terminal that standard output is; of a file as many as `COLUMNS` says, else 80.
pub(super) fn width() -> usize {
    size().0
}

/// Columns and lines of the terminal.
pub(super) fn size() -> (usize, usize) {
    let of_terminal = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let of_terminal = of_terminal.filter(|size| 0 < size.ws_col && 0 < size.ws_row);
    let columns = || {
        std::env::var("COLUMNS").ok()?.parse::<usize>().ok().filter(|columns| (20..=1000).contains(columns))
    };
    of_terminal.map_or_else(
        || (columns().unwrap_or(USUAL_WIDTH), 24),
        |size| (usize::from(size.ws_col), usize::from(size.ws_row)),
    )
}
