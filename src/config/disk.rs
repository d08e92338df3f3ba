//! Reads files in whose place there may be something else: what has no end, or waits for somebody, is an error.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

/// What a file holds, at most `most` bytes of it.
///
/// # Errors
/// It cannot be read, or there is more.
pub(super) fn limited(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file.take(most + 1).read_to_end(&mut bytes)? as u64 > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// Like [`limited`], of a file that is one: whoever opens a pipe waits until somebody writes to it.
///
/// # Errors
/// It cannot be read, is no file, or there is more.
pub(super) fn plain(path: &Path, most: u64) -> io::Result<(Vec<u8>, Metadata)> {
    let is_plain = |metadata: &Metadata| {
        if metadata.is_file() { Ok(()) } else { Err(io::Error::other("it is not a plain file")) }
    };
    is_plain(&std::fs::metadata(path)?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    is_plain(&metadata)?;
    Ok((limited(file, most)?, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_or_too_long_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "four").unwrap();
        assert_eq!(plain(&path, 4).unwrap().0, b"four");
        assert!(plain(&path, 3).unwrap_err().to_string().contains("more than 3 bytes"));
        assert!(plain(dir.path(), 4).unwrap_err().to_string().contains("not a plain file"));
        assert!(plain(Path::new("/dev/zero"), 4).unwrap_err().to_string().contains("not a plain file"));
        assert!(limited(File::open("/dev/zero").unwrap(), 4).is_err());
    }
}
