//! Has the configuration loaded again when its file changes, or one with a secret that it names.
//!
//! Directories are watched rather than files: editors write a new file and give it the old one's name, and Kubernetes swaps a
//! link above it. That something stirs there only leads to a look at the files themselves. They are looked at now and then in
//! any case, for there are file systems that tell of nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::warn;

use crate::admin::reload::{Refused, Reloads};
use crate::session::shared::Shared;

/// Who writes several files, or one in pieces, is through when nothing stirs for so long,
const CALM: Duration = Duration::from_millis(200);
/// or is not waited for any longer.
const CALM_MOST: Duration = Duration::from_secs(2);
/// How often the files are looked at though nothing has stirred.
const LOOK: Duration = Duration::from_secs(30);

/// Watches the files that the current configuration was read from, and asks for a reload when they are others. Cancel safe.
pub(super) async fn watch(shared: Arc<Shared>, reloads: Reloads) {
    let (stirred, mut stirs) = mpsc::channel(1);
    let mut watched = Watched::new(stirred);
    let mut known = Files::look(&files(&shared, &reloads)).await;
    // It may have changed since it was read.
    let mut is_due = !is_current(&shared).await;
    loop {
        watched.follow(&known.dirs);
        if is_due {
            let Some(_) = reloads.reload("file").await else { return };
        } else if let Ok(Some(())) = timeout(LOOK, stirs.recv()).await {
            calm(&mut stirs).await;
        }
        let now = Files::look(&files(&shared, &reloads)).await;
        is_due = now.is_other_than(&known);
        known = now;
    }
}

/// The files, the configuration itself first, and those that one names which was refused: one of them may be why.
fn files(shared: &Shared, reloads: &Reloads) -> Vec<PathBuf> {
    let mut files = shared.setup().config.read.files.clone();
    if let Some(Err(Refused::Faults(_, named))) = reloads.last().as_deref().map(|last| &last.outcome) {
        files.extend(named.iter().cloned());
    }
    files
}

/// Whether the file says what is in force.
async fn is_current(shared: &Shared) -> bool {
    let setup = shared.setup();
    let Some(path) = setup.config.read.files.first().cloned() else { return true };
    let sha256 = tokio::task::spawn_blocking(move || crate::config::sha256_of(&path)).await;
    matches!(sha256, Ok(Ok(sha256)) if Some(&sha256) == setup.config.read.sha256.as_ref())
}

/// Waits until nothing stirs for a while.
async fn calm(stirs: &mut mpsc::Receiver<()>) {
    let most = Instant::now() + CALM_MOST;
    loop {
        tokio::select! {
            Some(()) = stirs.recv() => {}
            () = sleep(CALM) => return,
            () = sleep_until(most) => return,
        }
    }
}

/// What a look at files found.
struct Files {
    seen: BTreeMap<PathBuf, Result<Seen, io::ErrorKind>>,
    /// Where something that happens may change them.
    dirs: BTreeSet<PathBuf>,
}

/// A file that is another one, or was written, differs in one of these.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    at: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Files {
    async fn look(paths: &[PathBuf]) -> Self {
        let paths = paths.to_vec();
        let looked = tokio::task::spawn_blocking(move || Self::look_now(&paths)).await;
        looked.unwrap_or_else(|_| Self { seen: BTreeMap::new(), dirs: BTreeSet::new() })
    }

    fn look_now(paths: &[PathBuf]) -> Self {
        let look = |path: &PathBuf| (path.clone(), Seen::of(path).map_err(|error| error.kind()));
        let seen: BTreeMap<_, _> = paths.iter().map(look).collect();
        let written = paths.iter().map(PathBuf::as_path);
        let real = seen.values().flatten().map(|seen| seen.at.as_path());
        let dirs = written.chain(real).filter_map(|path| std::fs::canonicalize(dir_of(path)).ok()).collect();
        Self { seen, dirs }
    }

    /// Whether any of the files has changed since `earlier`. What was not looked at then is no change.
    fn is_other_than(&self, earlier: &Self) -> bool {
        self.seen.iter().any(|(path, seen)| earlier.seen.get(path).is_some_and(|known| known != seen))
    }
}

impl Seen {
    fn of(path: &Path) -> io::Result<Self> {
        let at = std::fs::canonicalize(path)?;
        let metadata = std::fs::metadata(&at)?;
        Ok(Self {
            at,
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The directories that the system tells about.
struct Watched {
    watcher: Option<RecommendedWatcher>,
    dirs: BTreeSet<PathBuf>,
    /// Those that it will not tell about, which has been said.
    untold: BTreeSet<PathBuf>,
    /// Nothing stirs without a watcher, and whoever waits for it must not be told that nothing ever will.
    _stirred: mpsc::Sender<()>,
}

impl Watched {
    fn new(stirred: mpsc::Sender<()>) -> Self {
        let teller = stirred.clone();
        let tell = move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_of_interest(event.kind)) {
                // One that waits to be heard is as good as two.
                let _ = teller.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(tell).inspect_err(complain).ok();
        Self::by(watcher, stirred)
    }

    fn by(watcher: Option<RecommendedWatcher>, stirred: mpsc::Sender<()>) -> Self {
        Self { watcher, dirs: BTreeSet::new(), untold: BTreeSet::new(), _stirred: stirred }
    }

    /// Watches these, and no other. One that was replaced by another of its name is watched from the next change on.
    fn follow(&mut self, dirs: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.dirs.difference(dirs) {
            // It may not even exist any more.
            let _ = watcher.unwatch(gone);
        }
        let mut followed = BTreeSet::new();
        for dir in dirs {
            if self.dirs.contains(dir) {
                followed.insert(dir.clone());
                continue;
            }
            match watcher.watch(dir, RecursiveMode::NonRecursive) {
                Ok(()) => drop(followed.insert(dir.clone())),
                // Each look tries again.
                Err(error) => {
                    if self.untold.insert(dir.clone()) {
                        complain(&error);
                    }
                }
            }
        }
        self.untold.retain(|dir| dirs.contains(dir) && !followed.contains(dir));
        self.dirs = followed;
    }
}

/// Reading a file stirs, too, and must not: we read it. What is being written is of interest once its writer closes it: before
/// that half of it may be there, and half a list of nodes looks as well as a whole one.
fn is_of_interest(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Modify(ModifyKind::Data(_)) => false,
        _ => true,
    }
}

fn complain(error: &notify::Error) {
    let hint = "the file is looked at every 30 seconds instead; SIGHUP reloads at once";
    warn!(%error, hint, "config_watch_failed");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn look(path: &Path) -> Files {
        Files::look_now(&[path.to_owned()])
    }

    #[test]
    fn a_file_is_another_one_when_it_is_written_replaced_or_reached_by_another_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("config.yaml"), dir.path().join("new"));
        let missing = look(&file);
        assert!(!look(&file).is_other_than(&missing));
        fs::write(&file, "a").unwrap();
        let first = look(&file);
        assert!(first.is_other_than(&missing) && !look(&file).is_other_than(&first));
        fs::write(&file, "ab").unwrap();
        let second = look(&file);
        assert!(second.is_other_than(&first));
        fs::write(&other, "ab").unwrap();
        fs::rename(&other, &file).unwrap();
        assert!(look(&file).is_other_than(&second));
        // As Kubernetes does: the file is a link through `..data`, a link to a directory with a date for a name.
        for version in ["..1", "..2"] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("mounted.yaml"), "a").unwrap();
        }
        let mounted = dir.path().join("mounted.yaml");
        symlink("..1", dir.path().join("..data")).unwrap();
        symlink("..data/mounted.yaml", &mounted).unwrap();
        let first = look(&mounted);
        symlink("..2", dir.path().join("..next")).unwrap();
        fs::rename(dir.path().join("..next"), dir.path().join("..data")).unwrap();
        let second = look(&mounted);
        assert!(second.is_other_than(&first) && !second.is_other_than(&look(&file)));
        let real = fs::canonicalize(dir.path()).unwrap();
        assert_eq!(second.dirs, [real.clone(), real.join("..2")].into_iter().collect());
    }

    #[tokio::test]
    async fn what_happens_in_a_directory_is_told_and_reading_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        fs::write(&file, "a").unwrap();
        let (stirred, mut stirs) = mpsc::channel(1);
        let mut watched = Watched::new(stirred);
        watched.follow(&look(&file).dirs);
        assert_eq!(watched.dirs.len(), 1);
        fs::read(&file).unwrap();
        assert!(timeout(Duration::from_millis(50), stirs.recv()).await.is_err());
        fs::write(dir.path().join("new"), "b").unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        assert_eq!(timeout(Duration::from_secs(30), stirs.recv()).await, Ok(Some(())));
    }

    #[tokio::test]
    async fn where_nothing_is_told_nothing_stirs() {
        let (stirred, mut stirs) = mpsc::channel(1);
        let mut watched = Watched::by(None, stirred);
        watched.follow(&look(Path::new("/")).dirs);
        assert!(
            timeout(Duration::from_millis(1), stirs.recv()).await.is_err(),
            "who waits must not go round at once"
        );
    }
}
