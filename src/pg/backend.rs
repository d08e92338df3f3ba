//! A server's messages for the one who talks to it himself: the check of a node.

use bytes::{Bytes, BytesMut};
use postgres_protocol::message::backend::Header;

use crate::pg::message::NotAMessage;

/// No message of a login or of a one-row answer is longer; a length that a stranger on the port claims (an
/// HTTP server's first bytes read as 1.4 GB) must not be believed.
pub const MESSAGE_MAX: usize = 64 * 1024;

/// Takes one whole message, tag and body, from the front of `received`; `None` when more bytes are needed.
///
/// # Errors
/// [`NotAMessage`] when the peer does not speak the protocol or a message is longer than [`MESSAGE_MAX`].
pub fn take_message(received: &mut BytesMut) -> Result<Option<(u8, Bytes)>, NotAMessage> {
    let Some(header) = Header::parse(received).map_err(|_| NotAMessage)? else { return Ok(None) };
    let length = usize::try_from(header.len()).map_err(|_| NotAMessage)?;
    if !header.tag().is_ascii_alphabetic() || MESSAGE_MAX < length {
        return Err(NotAMessage);
    }
    if received.len() <= length {
        return Ok(None);
    }
    let mut message = received.split_to(1 + length).freeze();
    Ok(Some((header.tag(), message.split_off(5.min(message.len())))))
}

/// The columns of a `DataRow`, as text; `None` where the column is null or the row is broken.
#[must_use]
pub fn columns(mut row: &[u8]) -> Vec<Option<&str>> {
    let mut columns = Vec::new();
    let Some((count, rest)) = row.split_first_chunk() else { return columns };
    row = rest;
    for _ in 0..u16::from_be_bytes(*count) {
        let Some((length, rest)) = row.split_first_chunk() else { return columns };
        let value = usize::try_from(i32::from_be_bytes(*length))
            .ok()
            .and_then(|length| rest.split_at_checked(length));
        row = value.map_or(rest, |(_, rest)| rest);
        columns.push(value.and_then(|(text, _)| std::str::from_utf8(text).ok()));
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_http_answer_is_not_waited_for() {
        assert_eq!(take_message(&mut BytesMut::from(&b"HTTP/1.1 400 Bad Request"[..])), Err(NotAMessage));
        assert_eq!(take_message(&mut BytesMut::from(&b"R\0\0\0\x03"[..])), Err(NotAMessage));
    }

    #[test]
    fn messages_come_one_at_a_time_and_whole() {
        let bytes = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
        for end in 0..9 {
            assert_eq!(take_message(&mut BytesMut::from(&bytes[..end])), Ok(None), "{end}");
        }
        let mut received = BytesMut::from(&bytes[..]);
        assert_eq!(take_message(&mut received), Ok(Some((b'R', Bytes::from_static(&[0; 4])))));
        assert_eq!(take_message(&mut received), Ok(Some((b'Z', Bytes::from_static(b"I")))));
        assert_eq!(take_message(&mut received), Ok(None));
    }

    #[test]
    fn columns_may_be_null() {
        assert_eq!(columns(b"\0\x02\0\0\0\x01t\xff\xff\xff\xff"), [Some("t"), None]);
        assert_eq!(columns(b"\0\x01\0\0\0\x09t"), [None]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            let _ = columns(&bytes);
            let _ = take_message(&mut BytesMut::from(&bytes[..]));
        }
    }
}
