//! Where a server's message ends, and what the few say that matter during a login.
//!
//! [`Scanner`] looks at a stream as it passes by: it keeps no more than [`BODY_MAX`] bytes, whatever length a
//! message claims, and gives the same answers for any split of the bytes.

use crate::pg::cancel_key::CancelKey;
use crate::pg::error_response::ErrorFields;
use crate::pg::startup::split_c_string;

/// So much of a body is looked at: a key has at most 260 bytes, the reported parameters are short, and the
/// SQLSTATE is among the first fields of an error.
pub const BODY_MAX: usize = 1024;

/// A message that matters during a login.
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html>
#[derive(Debug)]
pub enum Seen<'a> {
    /// `AuthenticationXXX`: the server has begun to deal with this user.
    Authentication {
        /// 0: the user is let in.
        method: u32,
    },
    /// `BackendKeyData`.
    CancelKey(CancelKey),
    /// `ParameterStatus`.
    Parameter(&'a [u8], &'a [u8]),
    /// `ErrorResponse`.
    Error(ErrorFields<'a>),
    /// `ReadyForQuery`: the login is over.
    Ready,
    /// Anything else; the tag.
    Other(u8),
}

/// The stream is not one of `PostgreSQL` messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PostgreSQL message")]
pub struct NotAMessage;

/// Follows the messages of one server stream.
#[derive(Debug, Default)]
pub struct Scanner {
    header: [u8; 5],
    /// Bytes of the header that are there.
    have: usize,
    /// Bytes of the body that are still to come.
    left: usize,
    body: Vec<u8>,
}

impl Scanner {
    /// Looks at the next bytes of the stream and calls `see` for each message that is complete, until it
    /// answers [`Stop`](std::ops::ControlFlow::Break) or the bytes are used up.
    ///
    /// Returns how many bytes were looked at.
    ///
    /// # Errors
    /// [`NotAMessage`] when a tag is no letter or a length is too short; the scanner is then of no more use.
    pub fn scan(
        &mut self,
        bytes: &[u8],
        mut see: impl FnMut(Seen<'_>) -> std::ops::ControlFlow<()>,
    ) -> Result<usize, NotAMessage> {
        let mut rest = bytes;
        loop {
            if self.have == 0
                && let Some((&header, after)) = rest.split_first_chunk()
            {
                (self.header, self.have) = (header, header.len());
                self.left = body_length(header)?;
                rest = after;
            } else if self.have < self.header.len() {
                let Some((&byte, after)) = rest.split_first() else { break };
                if let Some(place) = self.header.get_mut(self.have) {
                    *place = byte;
                }
                self.have += 1;
                rest = after;
                if self.have < self.header.len() {
                    continue;
                }
                self.left = body_length(self.header)?;
            }
            let (part, after) = rest.split_at_checked(self.left).unwrap_or((rest, &[]));
            self.left -= part.len();
            rest = after;
            let is_whole = self.left == 0 && self.body.is_empty();
            if !is_whole {
                let room = BODY_MAX.saturating_sub(self.body.len());
                self.body.extend_from_slice(part.get(..room).unwrap_or(part));
            }
            if 0 < self.left {
                break;
            }
            // Most messages come in one piece, and need not be kept.
            let body = if is_whole { part.get(..BODY_MAX).unwrap_or(part) } else { &self.body };
            let flow = see(read(self.header[0], body));
            self.have = 0;
            self.body.clear();
            if flow.is_break() {
                break;
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Whether the stream stands between two messages.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.have == 0
    }
}

/// Length of the body behind a header, checked.
fn body_length([tag, a, b, c, d]: [u8; 5]) -> Result<usize, NotAMessage> {
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(|_| NotAMessage)?;
    if !tag.is_ascii_alphabetic() || i32::try_from(length).is_err() {
        return Err(NotAMessage);
    }
    length.checked_sub(4).ok_or(NotAMessage)
}

fn read(tag: u8, body: &[u8]) -> Seen<'_> {
    match tag {
        b'R' => body.first_chunk().map(|&method| Seen::Authentication { method: u32::from_be_bytes(method) }),
        b'K' => CancelKey::parse(body).map(Seen::CancelKey),
        b'S' => parameter(body),
        b'E' => Some(Seen::Error(ErrorFields::parse(body))),
        b'Z' => Some(Seen::Ready),
        _ => None,
    }
    .unwrap_or(Seen::Other(tag))
}

fn parameter(body: &[u8]) -> Option<Seen<'_>> {
    let (name, after) = split_c_string(body)?;
    // A long one has lost its end here.
    let value = split_c_string(after).map_or(after, |(value, _)| value);
    Some(Seen::Parameter(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ops::ControlFlow;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        [&[tag][..], &u32::try_from(4 + body.len()).unwrap().to_be_bytes(), body].concat()
    }

    fn login() -> Vec<u8> {
        [
            message(b'R', &[0, 0, 0, 0]),
            message(b'S', b"in_hot_standby\0off\0"),
            message(b'N', &[b'x'; 5000]),
            message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]),
            message(b'Z', b"I"),
        ]
        .concat()
    }

    /// What a scanner says about `chunks`, as text.
    fn said<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut scanner = Scanner::default();
        let mut out = String::new();
        for chunk in chunks {
            let result = scanner.scan(chunk, |seen| {
                let word = match seen {
                    Seen::Authentication { method } => format!("R{method} "),
                    Seen::CancelKey(key) => format!("K{} ", key.pid),
                    Seen::Parameter(name, value) => {
                        format!("{}={} ", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
                    }
                    Seen::Error(fields) => format!("E{:?} ", fields.code),
                    Seen::Ready => "Z ".into(),
                    Seen::Other(tag) => format!("{} ", char::from(tag)),
                };
                out.push_str(&word);
                ControlFlow::Continue(())
            });
            if result.is_err() {
                return out + "not a message";
            }
            assert!(scanner.body.len() <= BODY_MAX);
        }
        out
    }

    #[test]
    fn a_login_is_understood() {
        assert_eq!(said([&login()[..]]), "R0 in_hot_standby=off N K7 Z ");
    }

    #[test]
    fn the_split_of_the_bytes_does_not_matter() {
        let bytes = login();
        assert_eq!(said(bytes.chunks(1)), said([&bytes[..]]));
        for at in 0..bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(said([a, b]), said([&bytes[..]]), "{at}");
        }
    }

    #[test]
    fn it_stops_where_it_is_told() {
        let bytes = [login(), b"more".to_vec()].concat();
        let mut scanner = Scanner::default();
        let used = scanner.scan(&bytes, |seen| match seen {
            Seen::Ready => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert_eq!(used, Ok(bytes.len() - 4));
        assert!(scanner.at_boundary());
    }

    #[test]
    fn what_is_no_message_is_noticed() {
        assert_eq!(said([&b"HTTP/1.1 400"[..]]), "");
        assert_eq!(said([&b"\x16\x03\x01\0\0"[..]]), "not a message");
        assert_eq!(said([&b"R\0\0\0\x03"[..]]), "not a message");
        assert_eq!(said([&b"R\xff\xff\xff\xff"[..]]), "not a message");
    }

    #[test]
    fn short_bodies_are_other_messages() {
        assert_eq!(
            said([&message(b'R', b"\0")[..], &message(b'K', b"\0\0\0\x01"), &message(b'S', b"x")]),
            "R K S "
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..99), split in 0usize..99) {
            let (a, b) = bytes.split_at(split.min(bytes.len()));
            prop_assert_eq!(said([a, b]), said([&bytes[..]]));
        }
    }
}
