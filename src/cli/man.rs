//! `pgsplit man`, by which packages get their manual pages.

use std::path::Path;
use std::process::ExitCode;

use clap_mangen::Man;

use crate::cli::args::command;
use crate::cli::fail;
use crate::cli::out::Printer;

/// Prints the page about pgsplit itself, or writes it and one for each verb into a directory.
pub(super) fn man(into: Option<&Path>, printer: &mut Printer) -> ExitCode {
    let Some(into) = into else {
        let mut page = Vec::new();
        if let Err(error) = Man::new(command()).render(&mut page) {
            return fail(&error.to_string());
        }
        return printer.all(&String::from_utf8_lossy(&page));
    };
    match clap_mangen::generate_to(command(), into) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot write manual pages into {}: {error}", into.display())),
    }
}
