//! Whether a server offers TLS.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::net::{dial, peer};

/// What a server answers to a request for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsAnswer {
    /// `S`.
    Yes,
    /// `N`.
    No,
    /// Anything else, an error for example.
    Unclear,
}

impl TlsAnswer {
    /// For people.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Yes => "offered",
            Self::No => "not offered",
            Self::Unclear => "unclear answer",
        }
    }
}

/// Asks for TLS on a connection of its own; `None`: no answer by `deadline`. Cancel safe.
///
/// A server that said yes notes in its log that nothing followed: this is for a person who asks, not for checks.
pub async fn ask_tls(addrs: &[SocketAddr], deadline: Instant) -> Option<TlsAnswer> {
    let asked = async {
        let (mut stream, _) = dial::connect(addrs, deadline).await?;
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        stream.write_all(&request).await?;
        let answer = stream.read_u8().await?;
        io::Result::Ok((stream, answer))
    };
    let (stream, answer) = timeout_at(deadline, asked).await.ok()?.ok()?;
    let _ = timeout_at(deadline, peer::leave(stream)).await;
    Some(match answer {
        b'S' => TlsAnswer::Yes,
        b'N' => TlsAnswer::No,
        _ => TlsAnswer::Unclear,
    })
}
