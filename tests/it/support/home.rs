//! The directory of this process, and the watchdog that clears up after it.
//!
//! A test process can die without running a destructor: Ctrl-C, a time limit, `kill -9`. So everything it starts
//! lives below one directory, and a small shell process waits for the end of a pipe that only this process holds
//! open. When it ends, for whatever reason, the shell ends the servers that are left and deletes the directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::programs::Owner;

/// Started as `sh -c WATCHDOG watchdog DIRECTORY`. A process number is only trusted when the process works in
/// the very directory that the number was found in: by then it may belong to somebody else.
const WATCHDOG: &str = r#"
cat >/dev/null
ours() {
    [ -f "$1" ] && read -r pid <"$1" && [ "$(readlink "/proc/$pid/cwd")" = "${1%/*}" ]
}
for file in "$1"/*/pid; do
    # With all its processes: whoever writes such a file has started it as the leader of a group. Who has taken the place of
    # another one is in the group of that one.
    ours "$file" && { kill -KILL "-$pid" || kill -KILL "$pid"; }
done
for file in "$1"/*/data/postmaster.pid; do
    ours "$file" && kill -CONT "$pid" && kill -QUIT "$pid"
done
for file in "$1"/*/data/postmaster.pid; do
    i=0
    while ours "$file" && [ $i -lt 70 ]; do
        sleep 0.1
        i=$((i + 1))
    done
    ours "$file" && kill -KILL "$pid"
    # Only a killed server leaves this file, and with it a System V segment, named at the end of line seven.
    [ -f "$file" ] && ipcrm -m "$(sed -n '7s/.* //p' "$file")"
done
rm -rf "$1"
"#;

struct Home {
    path: PathBuf,
    /// Held for its end of the pipe; never dropped, so the pipe closes when the process ends.
    _watchdog: Child,
}

/// A new, empty directory below this process's own, readable by servers.
pub fn directory(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let path = path().join(format!("{}-{name}", NEXT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&path).expect("a directory in the temporary directory");
    path
}

/// The same, belonging to the user that runs the servers.
pub fn directory_of(owner: Owner, name: &str) -> PathBuf {
    let path = directory(name);
    give(&path, owner);
    path
}

/// Makes `path` belong to the user that runs the servers.
pub fn give(path: &Path, owner: Owner) {
    if let Owner::Other { uid, gid } = owner {
        chown(path, Some(uid), Some(gid)).expect("root may change owners");
    }
}

fn path() -> &'static Path {
    static HOME: OnceLock<Home> = OnceLock::new();
    &HOME.get_or_init(create).path
}

fn create() -> Home {
    let prefix = format!("pgsplit-{}-", std::process::id());
    let path = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory").keep();
    // Symbolic links in it would make the watchdog's comparison fail.
    let path = path.canonicalize().expect("the directory just made");
    // A server may run as another user than the tests.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own directory");
    let watchdog = Command::new("sh")
        .args(["-c", WATCHDOG, "watchdog"])
        .arg(&path)
        .stdin(Stdio::piped())
        // It outlives us by a moment and must not keep a pipe behind `cargo test` open.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Out of reach of a Ctrl-C meant for the tests.
        .process_group(0)
        .spawn()
        .expect("a shell");
    Home { path, _watchdog: watchdog }
}
