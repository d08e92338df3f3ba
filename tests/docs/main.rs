//! The documents, as tests: links lead somewhere, what is printed by the program is what it prints, and nothing that it says to
//! people is without a word about what to do.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod links;
mod page;
mod reference;
mod troubleshooting;

use std::fs;
use std::path::{Path, PathBuf};

/// The directory of the project.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the project.
#[track_caller]
fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files below a directory of the project whose names end so, by their paths in the project, in order.
fn files(below: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root().join(below)];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}
