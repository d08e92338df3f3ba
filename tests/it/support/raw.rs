//! HTTP/1 as raw bytes: a client that can say anything, and an upstream that follows a script and keeps what came.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::address::Address;
use super::client::background;

/// No read of a test waits longer than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Status line and headers, without the empty line.
    pub head: String,
    /// Its body, without chunk sizes.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The first value of a header in a head.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

/// One end of a connection that says and hears bytes. Dropping it closes the connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    /// Read, and not yet asked for.
    ahead: Vec<u8>,
    /// All that was ever read, for those who look later.
    record: Arc<Mutex<Vec<u8>>>,
}

impl Raw {
    /// Connects.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self::of(TcpStream::connect(addr).await?))
    }

    fn of(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream, ahead: Vec::new(), record: Arc::default() }
    }

    /// Writes bytes. An error when the other side has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        patiently(self.stream.write_all(bytes.as_ref())).await
    }

    /// Says that nothing more will be sent.
    pub async fn end(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// The socket, for those who speak something else on it. Nothing may have been read.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.ahead.is_empty());
        self.stream
    }

    /// Closes the connection with a reset.
    pub fn reset(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Reads on; `false` at the end.
    async fn more(&mut self) -> io::Result<bool> {
        let n = patiently(self.stream.read_buf(&mut self.ahead)).await?;
        let new = &self.ahead[self.ahead.len() - n..];
        self.record.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(new);
        Ok(n > 0)
    }

    /// Everything up to and with `mark`.
    pub async fn until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.ahead.windows(mark.len()).position(|window| window == mark) {
                return Ok(self.ahead.drain(..at + mark.len()).collect());
            }
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// So many bytes.
    pub async fn exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < n {
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.ahead.drain(..n).collect())
    }

    /// The head of a request or an answer, without the empty line.
    pub async fn head(&mut self) -> io::Result<String> {
        let head = self.until(b"\r\n\r\n").await?;
        Ok(String::from_utf8_lossy(&head[..head.len() - 4]).into_owned())
    }

    /// An answer to a request that was no HEAD. Interim ones are passed over.
    pub async fn reply(&mut self) -> io::Result<Reply> {
        loop {
            let head = self.head().await?;
            let status = status(&head)?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let body = self.body(&head, status).await?;
            return Ok(Reply { status, head, body });
        }
    }

    async fn body(&mut self, head: &str, status: u16) -> io::Result<Vec<u8>> {
        if matches!(status, 101 | 204 | 304) {
            return Ok(Vec::new());
        }
        if header(head, "transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                let line = self.until(b"\r\n").await?;
                let line = String::from_utf8_lossy(&line);
                let size = line.split(';').next().unwrap_or("").trim();
                let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
                if size == 0 {
                    // Trailers, and the empty line.
                    while self.until(b"\r\n").await? != b"\r\n" {}
                    return Ok(body);
                }
                body.extend(self.exactly(size).await?);
                self.exactly(2).await?;
            }
        }
        match header(head, "content-length") {
            Some(length) => self.exactly(length.parse().map_err(|_| io::ErrorKind::InvalidData)?).await,
            None => self.rest().await,
        }
    }

    /// All that comes until the other side closes. A reset is an end, too; an error means that it does not close.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.more().await {
                Ok(true) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                Ok(false) | Err(_) => return Ok(std::mem::take(&mut self.ahead)),
            }
        }
    }

    /// The same for an end that must come.
    pub async fn closed(&mut self) -> Vec<u8> {
        self.rest().await.expect("the other side closes")
    }
}

/// The status in a head.
pub fn status(head: &str) -> io::Result<u16> {
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    status
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no status: {head}")))
}

async fn patiently<T>(io: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, io).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Sends bytes on a new connection and returns all that comes back until the other side closes.
pub async fn exchange(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut raw = Raw::connect(addr).await.expect("somebody listens");
    // The other side may close before it has read everything, which is fine.
    let _ = raw.send(bytes).await;
    raw.closed().await
}

/// An upstream that does to each connection what a test says. It knows nothing of checks.
#[derive(Debug)]
pub struct RawUpstream {
    _address: Address,
    addr: SocketAddr,
    accepted: Arc<AtomicU64>,
    records: Records,
    acceptor: JoinHandle<()>,
}

type Records = Arc<Mutex<Vec<Arc<Mutex<Vec<u8>>>>>>;

impl RawUpstream {
    /// Runs `script` for each connection, side by side. The connection is closed when it returns.
    pub async fn start<F, S>(script: F) -> Self
    where
        F: Fn(Raw) -> S + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let address = Address::claim();
        let addr = address.port(8080);
        let listener =
            background().spawn(TcpListener::bind(addr)).await.expect("no panic").expect("our own address");
        let accepted = Arc::new(AtomicU64::new(0));
        let records = Records::default();
        let (counter, kept) = (Arc::clone(&accepted), Arc::clone(&records));
        let acceptor = background().spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let raw = Raw::of(stream);
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&raw.record));
                connections.spawn(script(raw));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { _address: address, addr, accepted, records, acceptor }
    }

    /// Says `answer` to every head that comes, whatever follows it.
    pub async fn answering(answer: &'static str) -> Self {
        Self::start(move |mut raw| async move {
            while raw.head().await.is_ok() && raw.send(answer).await.is_ok() {}
        })
        .await
    }

    /// Says `answer` to the first head of a connection and closes it.
    pub async fn answering_once(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut raw| {
            let answer = Arc::clone(&answer);
            async move {
                if raw.head().await.is_ok() {
                    let _ = raw.send(answer).await;
                    let _ = raw.end().await;
                }
            }
        })
        .await
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// What came so far, connection by connection.
    pub fn received(&self) -> Vec<Vec<u8>> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().map(|record| record.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// The same as one text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.received().concat()).into_owned()
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}
