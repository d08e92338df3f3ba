//! The architecture, as a test: no module uses one above it, and each file says what it is for.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its sources should panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first. A module may use those of the rows before its own, not its neighbours.
const ROWS: [&[&str]; 9] = [
    &["base"],
    &["pg", "net"],
    &["config", "telemetry"],
    &["balance"],
    &["topology"],
    &["session", "front"],
    &["admin"],
    &["app"],
    &["cli"],
];

/// Not modules of the house but its doors: the list of modules, and the program.
const DOORS: [&str; 2] = ["lib", "main"];

/// Names of the crate that reads YAML; all else is told by `config`.
const YAML: [&str; 2] = ["serde_yaml", "serde_saphyr"];

const UNFINISHED: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

#[test]
fn modules_use_only_what_is_below_them() {
    for source in sources() {
        let Some(row) = row_of(&source.module) else { continue };
        for used in crate_paths(&source.code) {
            let below = row_of(used).is_none_or(|used_row| used_row < row);
            assert!(
                below || used == source.module,
                "{}: `{}` must not use crate::{used}",
                source.path.display(),
                source.module
            );
        }
    }
}

#[test]
fn every_module_has_its_row() {
    for source in sources() {
        let known = row_of(&source.module).is_some() || DOORS.contains(&source.module.as_str());
        assert!(known, "{}: add `{}` to the rows of this test", source.path.display(), source.module);
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for source in sources() {
        assert!(source.text.starts_with("//! "), "{}: begins without `//! …`", source.path.display());
    }
}

#[test]
fn only_config_reads_yaml() {
    for source in sources().into_iter().filter(|source| source.module != "config") {
        for name in YAML {
            assert!(!source.code.contains(name), "{}: names {name}", source.path.display());
        }
    }
}

#[test]
fn nothing_is_left_unfinished() {
    for source in sources() {
        for word in UNFINISHED {
            assert!(!source.code.contains(word), "{}: {word}", source.path.display());
        }
    }
}

#[test]
fn paths_are_seen_alone_in_groups_and_over_several_lines() {
    let code =
        "use crate::{session::{self, Shared}, pg,\n    net::{a, b}};\nlet x = crate::topology::pick::f();";
    assert_eq!(crate_paths(code), ["session", "pg", "net", "topology"]);
    assert_eq!(crate_paths("pub(crate) fn f() {}"), [""; 0]);
    assert_eq!(code_of("a();\n  // crate::app\n/// crate::app\nb(); // crate::cli\n"), "a();\nb(); \n");
}

struct Source {
    path: PathBuf,
    /// First part of its path below `src`.
    module: String,
    text: String,
    /// The text without comments, which may name whatever they explain.
    code: String,
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&src);
    assert!(!files.is_empty(), "no sources in {}", src.display());
    let source = |path: PathBuf| {
        let first = path.strip_prefix(&src).unwrap().iter().next().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        Source { module: first.trim_end_matches(".rs").to_owned(), code: code_of(&text), text, path }
    };
    files.into_iter().map(source).collect()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

fn code_of(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    // A comment behind code is set off by a space; `//` in a URL is not.
    lines.map(|line| line.split_once(" // ").map_or(line.to_owned(), |(code, _)| format!("{code} "))).fold(
        String::new(),
        |mut code, line| {
            code.push_str(&line);
            code.push('\n');
            code
        },
    )
}

/// The module that each `crate::…` path of `code` begins with, those in groups included.
fn crate_paths(code: &str) -> Vec<&str> {
    let mut modules = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        let path = code.get(at + found.len()..).unwrap();
        match path.strip_prefix('{') {
            None => modules.push(first_word(path)),
            Some(group) => modules.extend(members(group).map(first_word)),
        }
    }
    modules
}

/// The members of the group that `rest` is inside of: split at the commas that no further brace encloses.
fn members(rest: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    let end = rest.find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth < 0
    });
    let group = rest.get(..end.unwrap_or(rest.len())).unwrap();
    let mut depth = 0_i32;
    let members = group.split(move |c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0 && c == ','
    });
    members.map(str::trim).filter(|member| !member.is_empty())
}

fn first_word(path: &str) -> &str {
    path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}
