//! Two kinds of lines: the result on standard output, progress on standard error.

use std::fmt::Display;
use std::io::Write;

pub(crate) fn progress(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Unlike `println!`, does not panic when the reader of a pipe has gone.
pub(crate) fn print(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
