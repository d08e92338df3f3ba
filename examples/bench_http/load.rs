//! wrk, and single requests.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::home;

const SCRIPT: &str = include_str!("report.lua");

/// What clients ask for.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) addr: SocketAddr,
    pub(crate) path: &'a str,
    pub(crate) connections: u32,
    pub(crate) seconds: u32,
}

/// What clients saw.
pub(crate) struct Seen {
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    /// With heads, and with the part of an answer that arrived before the end.
    pub(crate) bytes: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    /// Connections that failed, answers that were not 200, answers that did not come.
    pub(crate) errors: u64,
}

/// wrk with the script it needs.
pub(crate) struct Wrk {
    program: PathBuf,
    script: PathBuf,
}

impl Wrk {
    pub(crate) fn new(program: PathBuf) -> io::Result<Self> {
        let script = home::directory("wrk").join("report.lua");
        fs::write(&script, SCRIPT)?;
        Ok(Self { program, script })
    }

    /// Runs to the end of its time.
    pub(crate) fn run(&self, load: Load) -> Result<Seen, String> {
        let output = Command::new(&self.program)
            .args(["-t1", "--timeout", "30s", "-c", &load.connections.to_string()])
            .args(["-d", &format!("{}s", load.seconds), "-s"])
            .arg(&self.script)
            .arg(format!("http://{}{}", load.addr, load.path))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("wrk: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers = text.lines().find_map(|line| line.strip_prefix("measured "));
        let numbers: Vec<u64> = numbers
            .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
            .unwrap_or_default();
        let [duration, requests, bytes, p50_us, p99_us, errors @ ..] = numbers.as_slice() else {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("wrk: {} {} {}", output.status, text.trim(), errors.trim()));
        };
        Ok(Seen {
            seconds: *duration as f64 / 1e6,
            requests: *requests,
            bytes: *bytes,
            p50_us: *p50_us,
            p99_us: *p99_us,
            errors: errors.iter().sum(),
        })
    }
}

/// One GET on its own connection: status and body.
pub(crate) fn get(addr: SocketAddr, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let patience = Some(Duration::from_secs(5));
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(patience)?;
    stream.set_write_timeout(patience)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer);
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body))
}
