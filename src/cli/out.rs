//! Printing for people. A reader that has gone (`pgsplit … | head`) is no error.

use std::io::{IsTerminal, Write};

/// Writes to standard output.
pub(super) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes to standard error.
pub(super) fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Whether complaints are read on a terminal.
pub(super) fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}
