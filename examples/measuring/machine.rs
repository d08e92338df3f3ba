//! The machine, and the file with what was measured on it.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The kernel's version without what the distribution or machine adds.
pub(crate) fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().split('-').next().unwrap_or_default().to_owned()
}

/// Writes a file of figures and the directory it stands in.
pub(crate) fn write(file: &str, figures: &Value) -> io::Result<()> {
    if let Some(dir) = Path::new(file).parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(file, format!("{figures:#}\n"))
}
