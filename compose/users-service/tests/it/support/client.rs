//! An HTTP client that sees what was sent, and checks what must be true of every answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::PASSWORD;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) took: Duration,
    head: String,
}

impl Answer {
    /// A header's value; empty: it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// What a client is told when the database cannot be read: when to come back, and nothing about the inside.
    pub(crate) fn assert_unavailable(&self) {
        assert_eq!(self.status, 503, "{self:?}");
        assert_eq!(self.header("retry-after"), "1");
        assert_eq!(self.header("cache-control"), "no-store");
        let text = self.body["error"].as_str().unwrap();
        assert!(text.ends_with("try again"), "{text}");
    }
}

/// Sends a request and leaves the answer unread.
pub(crate) fn send(addr: SocketAddr, method: &str, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: users\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

/// A request and its answer, on a connection of its own.
pub(crate) fn ask(addr: SocketAddr, method: &str, path: &str) -> Answer {
    let start = Instant::now();
    let mut text = String::new();
    send(addr, method, path).and_then(|mut stream| stream.read_to_string(&mut text)).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let answer = Answer {
        status: head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"),
        body: if method == "HEAD" { Value::Null } else { serde_json::from_str(body).expect("JSON") },
        took: start.elapsed(),
        head: head.to_owned(),
    };
    assert!(!text.contains(PASSWORD), "{text}");
    assert_eq!(answer.header("content-type"), "application/json", "{text}");
    assert_eq!(answer.header("x-served-by"), "users-1", "{text}");
    answer
}
