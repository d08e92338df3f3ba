//! Whom checks log in as, who may change something, and where the secrets for both come from.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Node;
use super::disk;
use super::env::{Env, non_empty};
use super::file::{FileAdmin, FileCheck};
use super::finding::Findings;
use super::pgpass::Pgpass;
use super::source::Pos;
use super::table::Given;
use crate::base::secret::Secret;

/// A file with a secret that is larger than this is something else.
const FILE_MAX: u64 = 64 * 1024;
/// A shorter token is worth a warning: 16 hexadecimal digits are 64 bits.
const TOKEN_MIN: usize = 16;
/// Why a text is no token; not quoted, for it may be most of one.
const NOT_SENDABLE: &str = "a token is made of visible ASCII characters without spaces";

/// The user to log in as: the environment before the file; `None` when neither names one.
pub(super) fn user(check: &FileCheck, env: Env<'_>) -> Option<String> {
    let written = || check.user.as_ref().map(|user| user.value.clone()).filter(|user| !user.is_empty());
    non_empty(env, "PGSPLIT_CHECK_USER").or_else(written)
}

/// The password that goes for all nodes: `PGSPLIT_CHECK_PASSWORD`, `password` or `password_file`.
pub(super) fn password(check: &FileCheck, env: Env<'_>, f: &mut Findings<'_>) -> Option<Secret> {
    let places = Places {
        variable: "PGSPLIT_CHECK_PASSWORD",
        key: "password",
        written: check.password.as_ref(),
        file: check.password_file.as_ref(),
    };
    Some(places.find(env, f)?.value)
}

/// The token of those who may change something: `PGSPLIT_ADMIN_TOKEN`, `token` or `token_file`.
pub(super) fn token(admin: &FileAdmin, env: Env<'_>, f: &mut Findings<'_>) -> Option<Secret> {
    let places = Places {
        variable: "PGSPLIT_ADMIN_TOKEN",
        key: "token",
        written: admin.token.as_ref(),
        file: admin.token_file.as_ref(),
    };
    let token = places.find(env, f)?;
    if token.value.is_empty() {
        // A file, and found at fault already.
    } else if !is_sendable(&token.value) {
        f.fault(&token.path, token.at, NOT_SENDABLE);
    } else if token.value.expose().len() < TOKEN_MIN {
        f.warning(&token.path, token.at, "a token as short as this can be guessed")
            .help("openssl rand -hex 16");
    }
    Some(token.value)
}

/// Reads a token from a file of its own, without its last newline.
///
/// # Errors
/// The file cannot be read, or what it holds is no token. Never shows it.
pub fn read_token(path: &Path) -> io::Result<Secret> {
    let (token, _) = read(path)?;
    if token.is_empty() {
        return Err(io::Error::other("the file is empty"));
    }
    if is_sendable(&token) { Ok(token) } else { Err(io::Error::other(NOT_SENDABLE)) }
}

/// Whether it can stand in a header of HTTP as it is.
fn is_sendable(token: &Secret) -> bool {
    !token.is_empty() && token.expose().bytes().all(|byte| byte.is_ascii_graphic())
}

/// Where a secret may be written, the first one first.
struct Places<'f> {
    variable: &'static str,
    key: &'static str,
    written: Option<&'f Given<Secret>>,
    file: Option<&'f Given<String>>,
}

impl Places<'_> {
    fn find(&self, env: Env<'_>, f: &mut Findings<'_>) -> Option<Given<Secret>> {
        let written = self.written.filter(|secret| !secret.value.is_empty());
        let file = self.file.filter(|path| !path.value.is_empty());
        if let (Some(written), Some(file)) = (written, file) {
            let labels = ((file.at, "the other form"), (written.at, "one form"));
            let message = format!("stands beside `{}`: leave one of them out", self.key);
            f.clash(&file.path, labels.0, labels.1, &message);
        }
        let found = |value: Secret, at: Pos, path: &str| Given { value, at, path: path.to_owned() };
        let from_file = file.and_then(|path| Some(found(from_file(path, f)?, path.at, &path.path)));
        let from_env = non_empty(env, self.variable);
        from_env
            .map(|text| found(Secret::new(text), Pos::NOWHERE, self.variable))
            .or_else(|| written.map(|secret| found(secret.value.clone(), secret.at, &secret.path)))
            .or(from_file)
    }
}

fn from_file(path: &Given<String>, f: &mut Findings<'_>) -> Option<Secret> {
    // Beside the file that names it, so that it does not matter where pgsplit is started.
    let base = Path::new(&f.source().origin).parent().unwrap_or(Path::new("")).to_owned();
    let full = base.join(&path.value);
    f.files.push(full.clone());
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
    let (bytes, metadata) = disk::plain(path, FILE_MAX)?;
    let is_open = is_open(metadata.uid(), metadata.mode());
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if text.contains('\0') {
        return Err(io::Error::other("a secret cannot hold a zero byte"));
    }
    Ok((Secret::new(text), is_open))
}

/// Whether others may read a file of this owner and mode. Its group may where the file is root's, which is how a service
/// gets what nobody may change; `PostgreSQL` has the same rule for private keys.
const fn is_open(owner: u32, mode: u32) -> bool {
    mode & if owner == 0 { 0o027 } else { 0o077 } != 0
}

/// Gives each node the password psql would use for it.
pub(super) fn from_pgpass(nodes: &mut [Node], dbname: &str, user: &str, env: Env<'_>, f: &mut Findings<'_>) {
    f.files.extend(Pgpass::path(env));
    let (file, warning) = Pgpass::load(env);
    if let Some(warning) = warning {
        f.warning("check.password", Pos::NOWHERE, &warning);
    }
    for node in nodes {
        node.password = file.find(&node.addr.host, node.addr.port, dbname, user).cloned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_root_may_be_read_by_its_group() {
        for (owner, mode, open) in [
            (1000, 0o100_600, false),
            (1000, 0o100_640, true),
            (0, 0o100_600, false),
            (0, 0o100_640, false),
            (0, 0o100_660, true),
            (0, 0o100_644, true),
        ] {
            assert_eq!(is_open(owner, mode), open, "{owner} {mode:o}");
        }
    }
}
