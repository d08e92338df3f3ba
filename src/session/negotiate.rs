//! The client, from its first byte to the packet that says what it wants.

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::net::peer;
use crate::net::silent::Silent;
use crate::pg::first_packet::{Asked, FirstPacket, Parsed, Refused, parse};
use crate::session::error::SessionError;
use crate::session::shared::{Listener, Shared};

/// A client has this long to read why it is refused.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(5);

/// Before a client is taken to be silent that this process may not have got round to hear.
const LAST_LOOK: std::time::Duration = std::time::Duration::from_millis(10);

/// A client that has not been given to a node yet.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    /// Until it has said what it wants.
    silent: Option<Silent>,
    /// What it sent and nobody has read: no more than one packet and what came in the same segment.
    received: BytesMut,
    asked: Asked,
    /// It has asked for encryption and waits for the answer.
    awaits_answer: bool,
    startup_timeout: std::time::Duration,
    deadline: Instant,
}

impl Client {
    /// Takes a connection that was accepted at `at`: its first packets must be there in time, counted from then.
    #[must_use]
    pub fn greet(
        stream: TcpStream,
        silent: Silent,
        peer: SocketAddr,
        listener: &Listener,
        at: Instant,
    ) -> Self {
        let startup_timeout = listener.sessions().startup_timeout;
        Self {
            stream,
            peer,
            silent: Some(silent),
            received: BytesMut::new(),
            asked: Asked::default(),
            awaits_answer: false,
            startup_timeout,
            deadline: at + startup_timeout,
        }
    }

    /// Its next first packet. Not cancel safe for the session, which ends with it.
    ///
    /// # Errors
    /// The client left, was too slow, or sent what no client sends.
    pub async fn first_packet(&mut self) -> Result<FirstPacket, SessionError> {
        loop {
            match parse(&mut self.received, &mut self.asked).map_err(SessionError::Refused)? {
                Parsed::Packet(packet) => {
                    self.awaits_answer = matches!(packet, FirstPacket::Encryption(..));
                    self.silent = self.silent.take().filter(|_| self.awaits_answer);
                    return Ok(packet);
                }
                Parsed::Need(total) => self.read_towards(total).await?,
            }
        }
    }

    /// Reads once, with room for what is still missing and no more, so that bytes behind the packet stay in the
    /// socket unless they came with it.
    async fn read_towards(&mut self, total: usize) -> Result<(), SessionError> {
        // One byte more than a request for encryption, or what is smuggled behind it would not be seen.
        self.received.reserve(total.saturating_sub(self.received.len()).max(512));
        let read = timeout_at(self.deadline, self.stream.read_buf(&mut self.received));
        let ousted = async {
            match &self.silent {
                Some(silent) => silent.ousted().await,
                None => pending().await,
            }
        };
        let mut read = pin!(read);
        let read = tokio::select! {
            biased;
            read = &mut read => read,
            silent = ousted => {
                // What it has said may be here and not have been looked at.
                let last = timeout(LAST_LOOK, read).await;
                last.map_err(|_| SessionError::StartupTimeout(silent))?
            }
        };
        match read {
            Err(_) => Err(SessionError::StartupTimeout(self.startup_timeout)),
            Ok(Ok(0)) => Err(SessionError::Left),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(SessionError::Client(error)),
        }
    }

    /// Moves the deadline by a time in which the client waited for us, not we for it.
    pub fn excuse(&mut self, waited: std::time::Duration) {
        self.deadline += waited;
    }

    /// Sends a few bytes.
    ///
    /// # Errors
    /// [`SessionError::Client`] when it has gone.
    pub async fn say(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        self.awaits_answer = false;
        match timeout(LAST_WORDS, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(SessionError::Client(error)),
            Err(_) => Err(SessionError::Client(std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// Tells the client why it is refused, in the protocol it speaks, closes, and gives the error back.
    pub async fn refuse(mut self, shared: &Shared, error: SessionError) -> SessionError {
        let words = match &error {
            SessionError::Refused(Refused::Http) => {
                let here = self.stream.local_addr().map(|addr| addr.ip());
                Some(http_answer(shared, here.ok()))
            }
            SessionError::Refused(refused) => refused.answer(),
            other => other.fatal().map(|fatal| fatal.encode()),
        };
        if let Some(words) = words
            && self.can_read_plain_words().await
            && self.say(&words).await.is_ok()
        {
            peer::leave(self.stream).await;
        }
        error
    }

    /// Brings a client that waits for encryption to where it can be told an error.
    ///
    /// An error in answer to `SSLRequest` is not shown by libpq, since anybody could have sent it
    /// (CVE-2024-10977), nor does libpq then go on to its next host. A no makes a client with `sslmode=prefer`
    /// send its startup packet, and the answer to that it reads.
    async fn can_read_plain_words(&mut self) -> bool {
        self.deadline = Instant::now() + LAST_WORDS;
        while self.awaits_answer {
            if self.say(b"N").await.is_err() || self.first_packet().await.is_err() {
                return false;
            }
        }
        true
    }

    /// Resolves when the client has gone away. Cancel safe.
    pub async fn gone(&self) {
        peer::gone(&self.stream).await;
    }

    /// Who it is.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The socket, and what was read from it and not used.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.stream, self.received)
    }
}

/// What a browser is shown that came to the wrong port at `here`.
fn http_answer(shared: &Shared, here: Option<IpAddr>) -> Bytes {
    let right = shared.setup().admin.map(|admin| {
        let ip = here.filter(|_| admin.ip().is_unspecified()).unwrap_or(admin.ip());
        format!("; metrics and status are on http://{}/", SocketAddr::new(ip, admin.port()))
    });
    let body = format!("This port speaks PostgreSQL{}\n", right.unwrap_or_default());
    let length = body.len();
    Bytes::from(format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ))
}
