//! The ways to a [`Config`]: a file, its text, a connection URL, a list of nodes.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::env::{Env, expand_all, non_empty};
use super::file::{File, FileCheck, FileCluster, FileNode, FileSessions, read_file};
use super::finding::Findings;
use super::report::{Fault, Report};
use super::source::{Pos, Source};
use super::table::Given;
use super::tree::Value;
use super::url::ConnUrl;
use super::words::{self, Word};
use super::{Config, ConfigError, check, disk, tree};
use crate::base::secret::Secret;

/// A larger file is something else, in bytes.
const FILE_MAX: u64 = 16 * 1024 * 1024;

impl Config {
    /// Reads the file at `path`. `env` looks up environment variables.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong with it.
    pub fn load(path: &Path, env: Env<'_>) -> Result<Self, ConfigError> {
        Self::read(path, env, bytes_of(path))
    }

    /// Like [`Config::load`], while something runs by an earlier version of the file: never waits, as that for who writes to a
    /// pipe would.
    ///
    /// # Errors
    /// The file cannot be read or is no plain one, or everything that is wrong with it.
    pub fn load_again(path: &Path, env: Env<'_>) -> Result<Self, ConfigError> {
        Self::read(path, env, disk::plain(path, FILE_MAX).map(|(bytes, _)| bytes))
    }

    fn read(path: &Path, env: Env<'_>, bytes: io::Result<Vec<u8>>) -> Result<Self, ConfigError> {
        let text = text_of(path, bytes)?;
        let mut config = Self::from_yaml(&text, &path.display().to_string(), env)?;
        config.read.files.insert(0, path.to_owned());
        config.read.sha256 = Some(hexadecimal(text.as_bytes()));
        Ok(config)
    }

    /// Reads `text`, which came from `origin`. A relative `password_file` is looked for beside `origin`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_yaml(text: &str, origin: &str, env: Env<'_>) -> Result<Self, ConfigError> {
        let (source, root, fault) = parsed_yaml(text, origin);
        let mut findings = Findings::new(&source);
        if let Some(fault) = fault {
            findings.add(fault);
        }
        let Some(mut root) = root else { return finish(None, findings) };
        expand_all(&mut root, "", env, &mut findings);
        let file = read_file(&root, &mut findings);
        let config = check::check(&file, env, &mut findings);
        finish(Some(config), findings)
    }

    /// Takes the hosts of a libpq connection string as nodes, and its user, password and database for checks.
    ///
    /// # Errors
    /// The string cannot be read, or asks for what checks cannot do. Never shows its password.
    pub fn from_url(url: &str, env: Env<'_>) -> Result<Self, ConfigError> {
        let source = Source::new("--from-url", "");
        let mut findings = Findings::new(&source);
        let url = match ConnUrl::parse(url) {
            Ok(url) => url,
            Err(error) => {
                findings.fault("", Pos::NOWHERE, &error.to_string());
                return finish(None, findings);
            }
        };
        if let Some(Err(message)) = url.param("sslmode").map(words::sslmode) {
            findings.fault("sslmode", Pos::NOWHERE, &message);
        }
        let nodes = url.hosts.iter().enumerate().map(|(index, addr)| {
            let path = format!("host {}", index + 1);
            node(&path, Some(here(&path, addr.clone())))
        });
        let nodes = nodes.collect();
        let login = Login { user: url.user, password: url.password, dbname: url.dbname };
        assemble(nodes, login.or_env(env), env, findings)
    }

    /// Takes nodes written as `HOST:PORT` or `HOST:PORT=ROLE`. When no role is written, checks log in as psql
    /// would, to find the roles out.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn from_nodes(nodes: &[String], env: Env<'_>) -> Result<Self, ConfigError> {
        let source = Source::new("--node", "");
        let mut findings = Findings::new(&source);
        let mut has_role = false;
        let mut read = Vec::new();
        for text in nodes {
            let (addr, role) =
                text.split_once('=').map_or((text.as_str(), None), |(addr, role)| (addr, Some(role)));
            let addr = parsed(text, addr, &words::ADDR, &mut findings);
            let mut node = node(text, addr);
            node.role = role.and_then(|role| parsed(text, role, &words::ROLE, &mut findings));
            has_role |= node.role.as_ref().is_some_and(|role| role.value.is_some());
            read.push(node);
        }
        if nodes.is_empty() {
            findings.fault("", Pos::NOWHERE, "no node is given");
        }
        let login = if has_role { Login::default() } else { Login::default().or_env(env) };
        assemble(read, login, env, findings)
    }
}

/// What the file at `path` holds; waits where it is a pipe.
pub(super) fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::File::open(path).and_then(|file| disk::limited(file, FILE_MAX))
}

/// The text of a file of which `bytes` is what reading it has given.
pub(super) fn text_of(path: &Path, bytes: io::Result<Vec<u8>>) -> Result<String, ConfigError> {
    let bytes = bytes.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        not_utf8(&path.display().to_string(), error.as_bytes(), valid)
    })
}

/// The text as a tree, and what YAML found wrong.
pub(super) fn parsed_yaml<'t>(text: &'t str, origin: &str) -> (Source<'t>, Option<Value>, Option<Fault>) {
    // An editor's byte order mark is no part of the first line.
    let mut source = Source::new(origin, text.strip_prefix('\u{feff}').unwrap_or(text));
    let (root, fault) = tree::parse(&mut source);
    (source, root, fault)
}

/// SHA-256 of the file at `path`, as [`Read::sha256`](super::Read::sha256) has it.
///
/// # Errors
/// It cannot be read.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    disk::plain(path, FILE_MAX).map(|(bytes, _)| hexadecimal(&bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Whom checks log in as when no file says so.
#[derive(Default)]
struct Login {
    user: Option<String>,
    password: Option<Secret>,
    dbname: Option<String>,
}

impl Login {
    /// What is left out comes from where psql takes it.
    fn or_env(self, env: Env<'_>) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| non_empty(env, name));
        Self {
            user: self.user.or_else(|| first(&["PGUSER", "USER", "LOGNAME"])),
            password: self.password.or_else(|| first(&["PGPASSWORD"]).map(Secret::new)),
            dbname: self.dbname,
        }
    }
}

fn assemble(
    nodes: Vec<FileNode>,
    login: Login,
    env: Env<'_>,
    mut findings: Findings<'_>,
) -> Result<Config, ConfigError> {
    let check = FileCheck {
        user: login.user.map(|user| here("check.user", user)),
        password: login.password.map(|password| here("check.password", password)),
        dbname: login.dbname.map(|dbname| here("check.dbname", dbname)),
        ..FileCheck::default()
    };
    let main = FileCluster {
        name: here("", "main".to_owned()),
        prefix: String::new(),
        nodes,
        nodes_at: Pos::NOWHERE,
        check,
        sessions: FileSessions::default(),
        is_sound: findings.count() == 0,
    };
    let file = File { clusters: vec![main], ..File::default() };
    let config = check::check(&file, env, &mut findings);
    finish(Some(config), findings)
}

fn finish(config: Option<Config>, findings: Findings<'_>) -> Result<Config, ConfigError> {
    let report = findings.into_report();
    match config {
        Some(mut config) if report.faults.is_empty() => {
            config.warnings = report.warnings.iter().map(|warning| warning.line(&report.origin)).collect();
            config.read.files = report.files;
            Ok(config)
        }
        _ => Err(ConfigError::Invalid(report)),
    }
}

fn not_utf8(origin: &str, bytes: &[u8], valid: usize) -> ConfigError {
    let before = String::from_utf8_lossy(bytes.get(..valid).unwrap_or_default());
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let fault = Fault { place: Some((line, column)), ..Fault::new("", "the file is not UTF-8 here") };
    ConfigError::Invalid(Report { origin: origin.to_owned(), faults: vec![fault], ..Report::default() })
}

/// A value that was not written in a file.
fn here<T>(path: &str, value: T) -> Given<T> {
    Given { value, at: Pos::NOWHERE, path: path.to_owned() }
}

fn node(path: &str, addr: Option<Given<super::NodeAddr>>) -> FileNode {
    FileNode {
        path: path.to_owned(),
        addr,
        name: None,
        role: None,
        weight: None,
        backup: None,
        max_connections: None,
        patroni: None,
    }
}

fn parsed<T>(path: &str, text: &str, word: &Word<T>, findings: &mut Findings<'_>) -> Option<Given<T>> {
    match (word.parse)(text) {
        Ok(value) => Some(here(path, value)),
        Err(message) => {
            findings.fault(path, Pos::NOWHERE, &message);
            None
        }
    }
}
