//! A Unix socket in the file system, for those who run on this machine and may write to it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

/// Its owner and its group may use it.
const MODE: u32 = 0o660;

/// A listening Unix socket. Its file goes with it, unless another one has taken its place or the file belongs to another
/// process.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file.
    file: (u64, u64),
    is_ours: AtomicBool,
}

impl LocalSocket {
    /// Listens at `path`. The file of a process that has ended is replaced.
    ///
    /// It is made beside its place and moved there when all is set, so that nobody can come before its mode is right.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when somebody answers there, [`io::ErrorKind::AlreadyExists`] when something else is there
    /// than a socket, or what the system said.
    pub fn bind(path: &Path) -> io::Result<Self> {
        make_way(path)?;
        let aside = path.with_extension(format!("{}.new", std::process::id()));
        let _ = fs::remove_file(&aside);
        let made = UnixListener::bind(&aside).and_then(|listener| {
            fs::set_permissions(&aside, fs::Permissions::from_mode(MODE))?;
            let file = number(&aside)?;
            fs::rename(&aside, path)?;
            Ok(Self { listener, path: path.to_owned(), file, is_ours: AtomicBool::new(true) })
        });
        if made.is_err() {
            let _ = fs::remove_file(&aside);
        }
        made
    }

    /// One that another process has bound at `path`, and whose file it keeps until [`LocalSocket::set_ours`] says otherwise.
    ///
    /// # Errors
    /// What the system said, most often that the file is gone.
    pub fn handed(socket: StdListener, path: &Path) -> io::Result<Self> {
        let file = number(path)?;
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(socket)?;
        Ok(Self { listener, path: path.to_owned(), file, is_ours: AtomicBool::new(false) })
    }

    /// A copy of it for another process; `None`: another one has taken its place.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn copy(&self) -> io::Result<Option<OwnedFd>> {
        let is_there = number(&self.path).is_ok_and(|file| file == self.file);
        is_there.then(|| self.listener.as_fd().try_clone_to_owned()).transpose()
    }

    /// Whether its file goes with it.
    pub fn set_ours(&self, is_ours: bool) {
        self.is_ours.store(is_ours, Ordering::Relaxed);
    }

    /// The next connection. Cancel safe.
    ///
    /// # Errors
    /// What the system said.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        if self.is_ours.load(Ordering::Relaxed) && number(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether `path` may be taken.
fn make_way(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else than a socket"))
        }
        Ok(_) => match knock(path) {
            // Nobody listens any more.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
            // Also when so many wait there that it is full.
            _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there")),
        },
    }
}

/// Whether somebody listens, without waiting for that one.
fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn number(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};

    #[tokio::test]
    async fn it_is_there_for_its_group_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let socket = LocalSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let (client, accepted) = tokio::join!(UnixStream::connect(&path), socket.accept());
        drop((client.unwrap(), accepted.unwrap()));
        drop(socket);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn who_it_is_handed_over_to_goes_on_with_it_and_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = LocalSocket::bind(&path).unwrap();
        let second = LocalSocket::handed(first.copy().unwrap().unwrap().into(), &path).unwrap();
        // It has come to nothing.
        drop(second);
        let second = LocalSocket::handed(first.copy().unwrap().unwrap().into(), &path).unwrap();
        first.set_ours(false);
        second.set_ours(true);
        drop(first);
        let (client, accepted) = tokio::join!(UnixStream::connect(&path), second.accept());
        drop((client.unwrap(), accepted.unwrap()));
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_dead_make_way_and_the_living_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        let first = LocalSocket::bind(&path).unwrap();
        assert_eq!(LocalSocket::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // Somebody else's by now.
        fs::remove_file(&path).unwrap();
        let second = StdUnixListener::bind(&path).unwrap();
        drop(first);
        assert!(StdUnixStream::connect(&path).is_ok());
        drop(second);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert_eq!(LocalSocket::bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
        assert!(LocalSocket::bind(&dir.path().join("none/admin.sock")).is_err());
    }
}
