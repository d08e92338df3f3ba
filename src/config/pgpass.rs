//! `~/.pgpass`: the passwords psql uses, looked up for the check's login by the address of the node.
//!
//! See <https://www.postgresql.org/docs/current/libpq-pgpass.html>.

use std::io;
use std::path::{Path, PathBuf};

use super::disk;
use super::env::{Env, non_empty};
use crate::base::secret::Secret;

/// A larger file is something else, in bytes.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// The lines of a password file, first match wins.
#[derive(Debug, Default)]
pub(super) struct Pgpass {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Host, port, database, user; `None` fits all.
    fields: [Option<String>; 4],
    password: Secret,
}

impl Pgpass {
    /// The file psql would read.
    pub(super) fn path(env: Env<'_>) -> Option<PathBuf> {
        let home = || non_empty(env, "HOME").map(|home| Path::new(&home).join(".pgpass"));
        non_empty(env, "PGPASSFILE").map(PathBuf::from).or_else(home)
    }

    /// Reads the file psql would read. What is wrong with it comes back as a warning, as with psql: the server
    /// may not ask for a password at all.
    pub(super) fn load(env: Env<'_>) -> (Self, Option<String>) {
        let is_explicit = non_empty(env, "PGPASSFILE").is_some();
        let Some(path) = Self::path(env) else { return (Self::default(), None) };
        match read_private(&path) {
            Ok(Some(text)) => (Self::parse(&text), None),
            Ok(None) => {
                let message = format!("{} is ignored: others may read it (chmod 600)", path.display());
                (Self::default(), Some(message))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_explicit => (Self::default(), None),
            Err(error) => (Self::default(), Some(format!("cannot read {}: {error}", path.display()))),
        }
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self { entries: lines.filter_map(entry).collect() }
    }

    /// The password for this login.
    pub(super) fn find(&self, host: &str, port: u16, dbname: &str, user: &str) -> Option<&Secret> {
        let port = port.to_string();
        let wanted = [host, &port, dbname, user];
        let fits = |entry: &&Entry| {
            entry
                .fields
                .iter()
                .zip(wanted)
                .all(|(field, wanted)| field.as_ref().is_none_or(|field| field == wanted))
        };
        self.entries.iter().find(fits).map(|entry| &entry.password)
    }
}

/// One line; `None` when it has too few fields.
fn entry(line: &str) -> Option<Entry> {
    let (host, rest) = field(line)?;
    let (port, rest) = field(rest)?;
    let (dbname, rest) = field(rest)?;
    let (user, rest) = field(rest)?;
    Some(Entry { fields: [host, port, dbname, user], password: Secret::new(unescaped(rest)) })
}

/// The text up to the next bare colon, and what follows it.
fn field(text: &str) -> Option<(Option<String>, &str)> {
    let mut is_escaped = false;
    let end = text.find(|c| {
        let ends = c == ':' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    })?;
    let (field, rest) = text.split_at(end);
    Some(((field != "*").then(|| unescaped(field)), rest.strip_prefix(':')?))
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

/// The text of a file only its owner may read; `None` when others may.
fn read_private(path: &Path) -> io::Result<Option<String>> {
    if is_open_to_others(&std::fs::metadata(path)?) {
        return Ok(None);
    }
    let (bytes, _) = disk::plain(path, FILE_MAX)?;
    String::from_utf8(bytes).map(Some).map_err(|_| io::Error::other("it is not UTF-8"))
}

/// Whether the group or everybody may read the file.
fn is_open_to_others(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_line_that_fits_wins() {
        let text = "# comment\n\
                    db1:5432:postgres:lb:one\n\
                    db1:*:*:lb:t\\:w\\\\o\n\
                    fe80\\:\\:1:5432:*:*:six\n\
                    short:line\n\
                    *:*:*:other:last:with colon\n";
        let file = Pgpass::parse(text);
        let find = |host, port, user| file.find(host, port, "postgres", user).map(Secret::expose);
        assert_eq!(find("db1", 5432, "lb"), Some("one"));
        assert_eq!(find("db1", 5433, "lb"), Some("t:w\\o"));
        assert_eq!(find("fe80::1", 5432, "any"), Some("six"));
        assert_eq!(find("db9", 1, "other"), Some("last:with colon"));
        assert_eq!(find("db9", 1, "lb"), None);
        assert!(!format!("{file:?}").contains("last"));
    }

    #[test]
    fn a_file_others_may_read_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".pgpass");
        std::fs::write(&path, "*:*:*:*:pw\n").unwrap();
        let home = dir.path().to_str().unwrap().to_owned();
        let env = |name: &str| (name == "HOME").then(|| home.clone());
        let allow = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        allow(0o644);
        let (file, warning) = Pgpass::load(&env);
        assert!(file.find("h", 1, "d", "u").is_none());
        assert!(warning.unwrap().contains("chmod 600"));
        allow(0o600);
        let (file, warning) = Pgpass::load(&env);
        assert_eq!(file.find("h", 1, "d", "u").map(Secret::expose), Some("pw"));
        assert_eq!(warning, None);
    }

    #[test]
    fn no_file_is_fine_unless_it_was_named() {
        assert!(Pgpass::load(&|_| None).1.is_none());
        assert!(Pgpass::load(&|name| (name == "HOME").then(|| "/nonexistent".into())).1.is_none());
        assert!(Pgpass::load(&|name| (name == "PGPASSFILE").then(|| "/nonexistent".into())).1.is_some());
    }
}
