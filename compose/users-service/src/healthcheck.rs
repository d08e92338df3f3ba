//! `users-service healthcheck`: asks the instance in this container, which has no other program to do it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use crate::log::Log;
use crate::settings::{self, Lookup};

const TIMEOUT: Duration = Duration::from_secs(2);

/// Succeeds when `/health` answers 200; else says why.
pub(crate) fn run(lookup: Lookup<'_>) -> ExitCode {
    let asked = settings::bind(lookup).and_then(|bind| {
        let addr = reachable(bind);
        ask(addr).map_err(|error| format!("{addr}: {error}"))
    });
    match asked {
        Ok(status) if status.split(' ').nth(1) == Some("200") => ExitCode::SUCCESS,
        Ok(status) => failed(&format!("answered {:?}", status.trim_end())),
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    Log::new("").error("healthcheck", &[("error", error.into())]);
    ExitCode::FAILURE
}

/// "All addresses" is nowhere to connect to; the loopback address is one of them.
fn reachable(mut bind: SocketAddr) -> SocketAddr {
    match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => bind.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => bind.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    bind
}

fn ask(addr: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status)?;
    Ok(status)
}
