//! A client that does as little as possible: it logs in, asks, and counts what comes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, copy_buf, sink};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Who asks, without a password.
pub(crate) const USER: &str = "app";
pub(crate) const DATABASE: &str = "postgres";
/// Nobody waits longer for a login or for the answer to a small query.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of an error, which a peer could make as long as it likes.
const MOST_OF_ERROR: u32 = 64 * 1024;
/// Enough for a login's messages at once, and little for thousands of sessions.
const BUFFER: usize = 1024;
const BUFFER_FOR_MUCH: usize = 64 * 1024;

/// What came in answer to a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Of all messages with their heads.
    pub(crate) bytes: u64,
}

/// A session without TLS.
pub(crate) struct Session {
    stream: BufReader<TcpStream>,
}

impl Session {
    /// Connects and logs in.
    pub(crate) async fn open(addr: SocketAddr) -> Result<Self, String> {
        Self::open_for(addr, BUFFER).await
    }

    async fn open_for(addr: SocketAddr, buffer: usize) -> Result<Self, String> {
        patiently(async {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            let mut session = Self { stream: BufReader::with_capacity(buffer, stream) };
            let mut packet = BytesMut::new();
            frontend::startup_message([("user", USER), ("database", DATABASE)], &mut packet)?;
            session.stream.write_all(&packet).await?;
            read_answer(&mut session.stream).await?;
            Ok(session)
        })
        .await
    }

    /// Asks a query with a small answer.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Answer, String> {
        patiently(self.exchange(sql)).await
    }

    /// A session for one query with a small answer.
    pub(crate) async fn ask(addr: SocketAddr, sql: &str) -> Result<Answer, String> {
        let mut session = Self::open(addr).await?;
        let answer = session.query(sql).await?;
        session.leave().await;
        Ok(answer)
    }

    /// A session for one query with an answer of any size.
    pub(crate) async fn drain(addr: SocketAddr, sql: &str) -> Result<Answer, String> {
        let mut session = Self::open_for(addr, BUFFER_FOR_MUCH).await?;
        let answer = session.exchange(sql).await.map_err(|error| error.to_string())?;
        session.leave().await;
        Ok(answer)
    }

    /// Says good-bye and waits until the other side has closed.
    pub(crate) async fn leave(mut self) {
        let mut packet = BytesMut::new();
        frontend::terminate(&mut packet);
        let _ = self.stream.write_all(&packet).await;
        let _ = timeout(PATIENCE, self.stream.read_u8()).await;
    }

    async fn exchange(&mut self, sql: &str) -> io::Result<Answer> {
        let mut packet = BytesMut::new();
        frontend::query(sql, &mut packet)?;
        self.stream.write_all(&packet).await?;
        read_answer(&mut self.stream).await
    }
}

async fn patiently<T>(exchange: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match timeout(PATIENCE, exchange).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer in {PATIENCE:?}")),
    }
}

/// Reads up to the message that says that the server is ready; the first error on the way is the result.
async fn read_answer(stream: &mut BufReader<impl AsyncRead + Unpin>) -> io::Result<Answer> {
    let mut bytes = 0;
    let mut failed = None;
    loop {
        // Tells an end between two messages from one within.
        if stream.fill_buf().await?.is_empty() {
            return Err(failed.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
        }
        let tag = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        let body = length.checked_sub(4).ok_or_else(|| io::Error::other("a message of no length"))?;
        bytes += 1 + u64::from(length);
        if tag == b'E' && body <= MOST_OF_ERROR {
            let mut text = vec![0; body as usize];
            stream.read_exact(&mut text).await?;
            failed.get_or_insert_with(|| io::Error::other(error_text(&text)));
        } else {
            let body = u64::from(body);
            if copy_buf(&mut (&mut *stream).take(body), &mut sink()).await? < body {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if tag == b'Z' {
            return failed.map_or(Ok(Answer { bytes }), Err);
        }
    }
}

/// Code and message among the fields of an error.
fn error_text(body: &[u8]) -> String {
    let field = |name: u8| {
        let value = body.split(|&byte| byte == 0).find_map(|field| field.strip_prefix(&[name]));
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    };
    format!("{}: {}", field(b'C'), field(b'M'))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Answer, String> {
        read_answer(&mut BufReader::new(bytes)).await.map_err(|error| error.to_string())
    }

    const ROW: &[u8] = b"D\0\0\0\x0b\0\x01\0\0\0\x01x";
    const READY: &[u8] = b"Z\0\0\0\x05I";
    const ERROR: &[u8] = b"E\0\0\0\x17SFATAL\0C57P03\0Mno\0\0";

    #[tokio::test]
    async fn an_answer_ends_when_the_server_is_ready() {
        let more = [ROW, READY, ROW].concat();
        assert_eq!(read(&more).await, Ok(Answer { bytes: 18 }));
    }

    #[tokio::test]
    async fn an_error_is_told_whether_the_session_goes_on_or_not() {
        for rest in [READY, b""] {
            assert_eq!(read(&[ERROR, rest].concat()).await, Err("57P03: no".to_owned()));
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_an_error() {
        let whole = [ROW, READY].concat();
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).await.is_err(), "{end} bytes");
        }
        assert!(read(b"D\0\0\0\x03").await.is_err());
    }
}
