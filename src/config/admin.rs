//! The section `admin` alone: where whoever runs by a file is asked, whatever is wrong with the rest of that file by now.

use std::path::Path;

use super::env::{Env, expand_all};
use super::file::read_admin;
use super::finding::Findings;
use super::load::{bytes_of, parsed_yaml, text_of};
use super::source::{Pos, Source};
use super::table::Table;
use super::tree::{Kind, Value};
use super::{Admin, ConfigError, check, credentials, keys};

/// Why a file does not say for certain where the admin server is.
#[derive(Debug)]
pub struct Unsure {
    /// The file cannot be read, or what is wrong with it, as far as it is about `admin`.
    pub error: ConfigError,
    /// Where it is by what could be read nevertheless, else where it is without a file.
    pub guess: Option<Box<Admin>>,
}

impl Admin {
    /// What the file at `path` says of it; `None`: it is off. The rest of the file may be wrong. A token that cannot be had is left
    /// out: the address is right without it, and whoever is asked there says whether it takes one.
    ///
    /// # Errors
    /// The file cannot be read, is no YAML, has nothing of pgsplit's, or what is wrong with this section.
    pub fn load(path: &Path, env: Env<'_>) -> Result<Option<Self>, Unsure> {
        let text = text_of(path, bytes_of(path))
            .map_err(|error| Unsure { error, guess: Self::without_file(env).ok().flatten().map(Box::new) })?;
        let (source, root, fault) = parsed_yaml(&text, &path.display().to_string());
        let mut findings = Findings::new(&source);
        if let Some(fault) = fault {
            findings.add(fault);
        }
        let section = root.and_then(|root| section(root, &mut findings));
        let admin = read(section, &mut findings, env);
        finish(admin, findings)
    }

    /// Where it is when there is no file: what the environment says, else the usual places.
    ///
    /// # Errors
    /// What is wrong with the environment.
    pub fn without_file(env: Env<'_>) -> Result<Option<Self>, Unsure> {
        let source = Source::new("environment", "");
        let mut findings = Findings::new(&source);
        let admin = read(None, &mut findings, env);
        finish(admin, findings)
    }
}

/// What stands under `admin`.
fn section(root: Value, f: &mut Findings<'_>) -> Option<Value> {
    let is_ours = |name: &str| keys::TOP.iter().any(|known| known.name == name);
    match root.kind {
        Kind::Map(entries) if entries.iter().any(|(key, _)| is_ours(&key.name)) => {
            entries.into_iter().find(|(key, _)| key.name == "admin").map(|(_, value)| value)
        }
        Kind::Map(_) | Kind::Null => {
            f.fault("", Pos::NOWHERE, "it has none of the keys of a configuration");
            None
        }
        Kind::Scalar(_) | Kind::Seq(_) | Kind::Bad => {
            let _ = Table::open(&root, "", keys::TOP, f);
            None
        }
    }
}

fn read<'s>(mut section: Option<Value>, f: &mut Findings<'s>, env: Env<'_>) -> Option<Admin> {
    let mut about_token: Findings<'s> = Findings::new(f.source());
    if let Some(Value { kind: Kind::Map(entries), .. }) = &mut section {
        for (key, value) in entries {
            let is_token = [keys::admin::TOKEN.about.name, keys::admin::TOKEN_FILE.about.name];
            let f = if is_token.contains(&key.name.as_str()) { &mut about_token } else { &mut *f };
            expand_all(value, &format!("admin.{}", key.name), env, f);
        }
    } else if let Some(value) = &mut section {
        expand_all(value, "admin", env, f);
    }
    let file = read_admin(section.as_ref(), f);
    let host = check::default_host(env, f);
    let admin = check::admin_without_token(&file, host, env, f)?;
    let token = credentials::token(&file, env, &mut about_token);
    Some(Admin { token: token.filter(|_| about_token.count() == 0), ..admin })
}

fn finish(admin: Option<Admin>, findings: Findings<'_>) -> Result<Option<Admin>, Unsure> {
    let report = findings.into_report();
    if report.faults.is_empty() {
        return Ok(admin);
    }
    Err(Unsure { error: ConfigError::Invalid(report), guess: admin.map(Box::new) })
}
