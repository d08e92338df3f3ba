//! Pages that the program prints are what it prints now.

use pgsplit::config::explain;

use super::{read, root};

/// Holds a page to what is printed. `PGSPLIT_BLESS=1` writes it instead.
#[track_caller]
fn is_printed(page: &str, how: &str, printed: &str) {
    if std::env::var_os("PGSPLIT_BLESS").is_some() {
        std::fs::write(root().join(page), printed).unwrap();
    }
    assert!(read(page) == printed, "{page} is old: `{how} > {page}` writes it anew");
}

#[test]
fn the_reference_of_the_configuration_is_what_the_program_prints() {
    is_printed("docs/configuration-reference.md", "pgsplit config explain --markdown", &explain::markdown());
}
