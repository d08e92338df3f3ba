//! Whom checks log in as, and where the password comes from.

use std::io::{self, Read};
use std::path::Path;

use super::Node;
use super::env::{Env, non_empty};
use super::file::FileCheck;
use super::finding::Findings;
use super::pgpass::{Pgpass, is_open_to_others};
use super::source::Pos;
use super::table::Given;
use crate::base::secret::Secret;

/// A password file larger than this is something else.
const FILE_MAX: u64 = 64 * 1024;

/// The user to log in as: the environment before the file; `None` when neither names one.
pub(super) fn user(check: &FileCheck, env: Env<'_>) -> Option<String> {
    let written = || check.user.as_ref().map(|user| user.value.clone()).filter(|user| !user.is_empty());
    non_empty(env, "PGSPLIT_CHECK_USER").or_else(written)
}

/// The password that goes for all nodes: `PGSPLIT_CHECK_PASSWORD`, `password` or `password_file`.
pub(super) fn password(check: &FileCheck, env: Env<'_>, f: &mut Findings<'_>) -> Option<Secret> {
    let written = check.password.as_ref().filter(|password| !password.value.is_empty());
    let file = check.password_file.as_ref().filter(|path| !path.value.is_empty());
    if let (Some(written), Some(file)) = (written, file) {
        let labels = ((file.at, "the other form"), (written.at, "one form"));
        f.clash(&file.path, labels.0, labels.1, "stands beside `password`: leave one of them out");
    }
    let from_file = file.and_then(|path| from_file(path, f));
    let from_env = non_empty(env, "PGSPLIT_CHECK_PASSWORD").map(Secret::new);
    from_env.or_else(|| written.map(|password| password.value.clone())).or(from_file)
}

fn from_file(path: &Given<String>, f: &mut Findings<'_>) -> Option<Secret> {
    // Beside the file that names it, so that it does not matter where pgsplit is started.
    let base = Path::new(&f.source().origin).parent().unwrap_or(Path::new("")).to_owned();
    let full = base.join(&path.value);
    match read(&full) {
        Ok((secret, is_open)) => {
            if is_open {
                f.warning(&path.path, path.at, "others may read this file").help("chmod 600");
            }
            if secret.is_empty() {
                f.fault(&path.path, path.at, "the file is empty");
            }
            Some(secret)
        }
        Err(error) => {
            f.fault(&path.path, path.at, &format!("cannot read {}: {error}", full.display()));
            None
        }
    }
}

/// The secret, and whether others may read it.
fn read(path: &Path) -> io::Result<(Secret, bool)> {
    let file = std::fs::File::open(path)?;
    let is_open = is_open_to_others(&file.metadata()?);
    let mut text = String::new();
    if file.take(FILE_MAX + 1).read_to_string(&mut text)? as u64 > FILE_MAX {
        return Err(io::Error::other("too large for a password"));
    }
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if text.contains('\0') {
        return Err(io::Error::other("a password cannot hold a zero byte"));
    }
    Ok((Secret::new(text), is_open))
}

/// Gives each node the password psql would use for it.
pub(super) fn from_pgpass(nodes: &mut [Node], dbname: &str, user: &str, env: Env<'_>, f: &mut Findings<'_>) {
    let (file, warning) = Pgpass::load(env);
    if let Some(warning) = warning {
        f.warning("check.password", Pos::NOWHERE, &warning);
    }
    for node in nodes {
        node.password = file.find(&node.addr.host, node.addr.port, dbname, user).cloned();
    }
}
