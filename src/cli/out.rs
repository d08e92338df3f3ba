//! Printing for people. A reader that has gone (`pgsplit … | head`) is no error.

use std::io::{ErrorKind, IsTerminal, Write};
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

/// Writes to standard output; whether anybody reads it.
pub(super) fn print(text: &str) -> bool {
    write(text).is_ok()
}

/// Writes all that was asked for to standard output. The exit code: a reader that has gone wants no more, but a disk that is
/// full has not got it, which is said.
pub(super) fn deliver(text: &str) -> ExitCode {
    match write(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(&format!("pgsplit: cannot write to standard output: {error}\n"));
            ExitCode::from(IO_ERROR)
        }
        _ => ExitCode::SUCCESS,
    }
}

fn write(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
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
    let stdout = std::io::stdout();
    let mut all = [PollFd::new(&stdout, PollFlags::empty())];
    let gone = PollFlags::ERR | PollFlags::HUP;
    // What cannot be asked is no pipe that somebody has left.
    poll(&mut all, Some(&Timespec::default())).is_err()
        || all.iter().all(|one| !one.revents().intersects(gone))
}

/// Writes to standard error.
pub(super) fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Whether complaints are read on a terminal.
pub(super) fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether standard output may have colours: on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
pub(super) fn has_colours() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal()
        && !is_set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether standard output is a terminal, which can be drawn over.
pub(super) fn is_screen() -> bool {
    std::io::stdout().is_terminal()
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
    let of_terminal = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let of_terminal = of_terminal.filter(|size| 0 < size.ws_col && 0 < size.ws_row);
    let columns = || {
        std::env::var("COLUMNS").ok()?.parse::<usize>().ok().filter(|columns| (20..=1000).contains(columns))
    };
    of_terminal.map_or_else(
        || (columns().unwrap_or(USUAL_WIDTH), 24),
        |size| (usize::from(size.ws_col), usize::from(size.ws_row)),
    )
}
