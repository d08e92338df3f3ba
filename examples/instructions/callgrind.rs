//! Instructions of a running proxy, by valgrind's callgrind.
//!
//! The counters are read and set to zero before and after the work, in a process that goes on. What it did at its start
//! is thus in no figure; a part of that is random, as a clock is calibrated for a while.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::cases::Case;
use crate::measuring::program::{find, first_line};
use crate::peers::Proxy;

/// Both in the directory that the proxy works in.
const OUT: &str = "callgrind";
const PREFIX: &str = "--vgdb-prefix=./vgdb";

pub(crate) fn version() -> Result<String, String> {
    let valgrind = find("valgrind")?;
    first_line(&valgrind, "--version").ok_or_else(|| format!("{} says no version", valgrind.display()))
}

/// What a command line begins with to be counted.
pub(crate) fn words() -> Result<Vec<String>, String> {
    let valgrind = find("valgrind")?.display().to_string();
    let out = format!("--callgrind-out-file={OUT}");
    Ok(vec![valgrind, "--quiet".to_owned(), "--tool=callgrind".to_owned(), out, PREFIX.to_owned()])
}

/// A proxy that was started with [`words`].
pub(crate) struct Callgrind {
    proxy: Proxy,
    dumps: u32,
}

impl Callgrind {
    pub(crate) fn over(proxy: Proxy) -> Self {
        Self { proxy, dumps: 0 }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.proxy.addr()
    }

    pub(crate) async fn stop(mut self) {
        self.proxy.stop().await;
    }

    /// Instructions for some work.
    pub(crate) fn count(&mut self, case: &Case, units: u32) -> Result<u64, String> {
        self.dump()?;
        case.run(self.addr(), units)?;
        self.dump()
    }

    /// Instructions since the last dump.
    fn dump(&mut self) -> Result<u64, String> {
        let mut vgdb = self.proxy.command_beside(&find("vgdb")?);
        vgdb.arg(PREFIX).arg(format!("--pid={}", self.proxy.pid())).arg("dump");
        let said = said_by(&mut vgdb)?;
        self.dumps += 1;
        let file = self.last_dump();
        let text =
            fs::read_to_string(&file).map_err(|error| format!("{}: {error}; {said}", file.display()))?;
        total(&text).ok_or_else(|| format!("{} has no total", file.display()))
    }

    fn last_dump(&self) -> PathBuf {
        self.proxy.dir().join(format!("{OUT}.{}", self.dumps))
    }

    /// The functions with the most instructions of their own in the work that was last counted.
    pub(crate) fn heaviest(&self, most: usize) -> Result<Vec<String>, String> {
        let file = self.last_dump();
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        // Functions that began before this count, such as a thread's first one, were called no time in it. The program
        // that reads the file takes what those have called for their own instructions then.
        let counted = text.replace("\ncalls=0 ", "\ncalls=1 ");
        let file = file.with_extension("read");
        fs::write(&file, counted).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut annotate = Command::new(find("callgrind_annotate")?);
        let said = said_by(annotate.args(["--threshold=100", "--auto=no"]).arg(file))?;
        Ok(said.lines().filter_map(function).take(most).collect())
    }
}

fn said_by(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    if output.status.success() {
        Ok(said)
    } else {
        Err(format!("{name}: {}: {}", output.status, said.trim()))
    }
}

fn total(dump: &str) -> Option<u64> {
    dump.lines().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

/// Share and name from a line such as ` 3,008 (14.50%)  src/a.c:run [/usr/bin/a]`.
fn function(line: &str) -> Option<String> {
    let (count, rest) = line.split_once('(')?;
    if !count.trim().starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (share, place) = rest.split_once("%)")?;
    let (_, name) = place.split_once(':')?;
    let name = name.rsplit_once(" [").map_or(name, |(name, _)| name);
    Some(format!("{:>6} %  {name}", share.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_dump_is_found() {
        assert_eq!(
            total("events: Ir\nsummary: 7\n\nfn=(1) main\n0 7\n\ntotals: 20753427\n"),
            Some(20_753_427)
        );
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn only_lines_of_functions_are_taken() {
        let line = "3,008,526 (14.50%)  ???:tokio::io::Registration::poll_ready [/usr/bin/pgsplit]";
        assert_eq!(function(line).as_deref(), Some(" 14.50 %  tokio::io::Registration::poll_ready"));
        let line = "  469,052 ( 2.26%)  ./io/./io/read.c:read";
        assert_eq!(function(line).as_deref(), Some("  2.26 %  read"));
        assert_eq!(function("20,753,427 (100.0%)  PROGRAM TOTALS"), None);
        assert_eq!(function("Profile data file 'a' (creator: callgrind-3.19.0)"), None);
        assert_eq!(function("--------"), None);
    }
}
