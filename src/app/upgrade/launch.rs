//! How this process was started, and so how another one like it is.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Where it is: whatever is there by the time it is started, a newer version as a rule.
    pub program: PathBuf,
    /// What it is told.
    pub arguments: Vec<OsString>,
}

impl Launch {
    /// That of this process; to be asked at its start, before its file is replaced.
    #[must_use]
    pub fn of_process() -> Self {
        let mut arguments = env::args_os();
        let named = arguments.next().map(PathBuf::from);
        let path = env::var_os("PATH");
        let program =
            program(named.as_deref(), path.as_deref().map(env::split_paths), env::current_exe().ok());
        Self { program, arguments: arguments.collect() }
    }
}

/// The path by which the program was named, or found under its name, if it leads to what runs: a link there may lead to another
/// version later. Else the path of what runs.
fn program(
    named: Option<&Path>,
    places: Option<impl Iterator<Item = PathBuf>>,
    runs: Option<PathBuf>,
) -> PathBuf {
    let is_name = |named: &&Path| named.components().count() == 1 && !named.is_absolute();
    let found = match named {
        Some(name) if is_name(&name) && !name.as_os_str().is_empty() => {
            places.into_iter().flatten().map(|place| place.join(name)).find(|path| path.is_file())
        }
        Some(path) => std::path::absolute(path).ok(),
        None => None,
    };
    // One that is gone already shows as `… (deleted)`, which is nobody's path.
    let runs = runs.filter(|path| path.is_file());
    let is_same = |path: &PathBuf| runs.as_ref().is_none_or(|runs| number(path) == number(runs));
    let found = found.filter(is_same);
    found.or(runs).unwrap_or_else(|| PathBuf::from("pgsplit"))
}

/// Device and number of a file.
fn number(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_path_stays_as_it_was_given_unless_it_leads_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let [old, link, other] = ["pgsplit-1", "pgsplit", "other"].map(|name| dir.path().join(name));
        fs::write(&old, "").unwrap();
        fs::write(&other, "").unwrap();
        symlink(&old, &link).unwrap();
        let found = |named: &Path, runs: &Path| {
            program(Some(named), Some([dir.path().to_owned()].into_iter()), Some(runs.to_owned()))
        };
        assert_eq!(found(&link, &old), link, "by its path");
        assert_eq!(found(Path::new("pgsplit"), &old), link, "by its name");
        assert_eq!(found(Path::new("-sh"), &old), old, "not by a name that is none");
        assert_eq!(found(&other, &old), old, "nor by that of another file");
        let gone = dir.path().join("pgsplit-1 (deleted)");
        assert_eq!(found(&link, &gone), link, "the file that runs has been replaced already");
        let nowhere = program(None, None::<std::iter::Empty<PathBuf>>, None);
        assert_eq!(nowhere, Path::new("pgsplit"));
    }
}
