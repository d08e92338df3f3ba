//! `PostgreSQL`'s own programs: where they are, who may run them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Who runs the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The user of this process.
    Same,
    /// Somebody else: the server refuses to run as root.
    Other {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// The newest `PostgreSQL` of this machine.
#[derive(Debug)]
pub struct Programs {
    bin: PathBuf,
    /// Such as `15.20`, with what the distribution adds.
    pub version: String,
    /// Who runs them.
    pub owner: Owner,
}

/// Finds the programs once; panics with what to install.
pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let bin = find().unwrap_or_else(|| {
            panic!(
                "the tests need a PostgreSQL server and found no initdb (looked in $PGSPLIT_PG_BIN, \
                 /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin and $PATH). Install it with `make postgres`, or by \
                 hand on Debian and Ubuntu: apt-get install -y --no-install-recommends postgresql postgresql-contrib"
            )
        });
        let output = Command::new(bin.join("postgres")).arg("--version").output().expect("postgres --version");
        let version = String::from_utf8_lossy(&output.stdout).trim().replace("postgres (PostgreSQL) ", "");
        Programs { bin, version, owner: owner() }
    })
}

impl Programs {
    /// A command line to complete: run by the right user, in a directory that user may enter, with none of the
    /// caller's `PG…` variables, which libpq would obey.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        self.prepare(&mut command);
        command
    }

    /// Where they are.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The same for a program of the system.
    pub fn system_command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        self.prepare(&mut command);
        command
    }

    fn prepare(&self, command: &mut Command) {
        command.stdin(Stdio::null()).current_dir("/").env("LC_ALL", "C");
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        if let Owner::Other { uid, gid } = self.owner {
            command.uid(uid).gid(gid);
        }
    }
}

/// Runs `command` to its end and returns what it printed; panics with its error output when it fails.
pub async fn run(command: Command) -> String {
    let shown = format!("{command:?}");
    let output = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}: {}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn find() -> Option<PathBuf> {
    if let Some(bin) = std::env::var_os("PGSPLIT_PG_BIN") {
        return Some(PathBuf::from(bin)).filter(|bin| is_server(bin));
    }
    let mut versioned: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        let Ok(entries) = fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse().ok());
            versioned.extend(number.map(|number| (number, entry.path().join("bin"))));
        }
    }
    versioned.sort();
    let newest = versioned.into_iter().rev().map(|(_, bin)| bin).find(|bin| is_server(bin));
    newest.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|bin| is_server(bin))
    })
}

fn is_server(bin: &Path) -> bool {
    ["initdb", "postgres", "pg_basebackup"].iter().all(|program| bin.join(program).is_file())
}

fn owner() -> Owner {
    if !rustix::process::geteuid().is_root() {
        return Owner::Same;
    }
    ["postgres", "nobody"].into_iter().find_map(account).expect("as root: a user `postgres` for the servers")
}

fn account(wanted: &str) -> Option<Owner> {
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (OsStr::new(name) == wanted).then_some(Owner::Other { uid, gid })
    })
}
