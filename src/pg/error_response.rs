//! How to refuse a client so that a person can act on it, and how to read a refusal.

use bytes::{BufMut, Bytes, BytesMut};

use crate::pg::sqlstate;

/// A FATAL error as a server would send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// SQLSTATE, five characters.
    pub code: &'static str,
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// What to do about it; empty: nothing to say.
    pub hint: String,
}

impl Fatal {
    /// The `ErrorResponse` message, in the field order of a server.
    /// <https://www.postgresql.org/docs/current/protocol-error-fields.html>
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        for (field, text) in
            [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', self.code), (b'M', &self.message), (b'H', &self.hint)]
        {
            if !text.is_empty() {
                body.put_u8(field);
                body.extend(text.bytes().filter(|&b| b != 0));
                body.put_u8(0);
            }
        }
        body.put_u8(0);
        let mut out = BytesMut::with_capacity(5 + body.len());
        out.put_u8(b'E');
        out.put_u32(u32::try_from(body.len() + 4).unwrap_or(u32::MAX));
        out.put(body);
        out.freeze()
    }

    /// The same for a client that speaks protocol 2: one line of text.
    #[must_use]
    pub fn encode_v2(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(b'E');
        out.extend(format!("FATAL:  {}\n", self.message).bytes().filter(|&b| b != 0));
        out.put_u8(0);
        out.freeze()
    }
}

/// The fields of an `ErrorResponse` that this program reads. All are optional: the peer may be anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// SQLSTATE.
    pub code: Option<&'a str>,
    /// The primary message, as sent.
    pub message: Option<&'a [u8]>,
    /// Where in the server's source it was said: the same in all languages.
    pub routine: Option<&'a [u8]>,
}

impl<'a> ErrorFields<'a> {
    /// Whether the server takes no more connections.
    ///
    /// Before authentication 53300 says just that. After it, it says so only in `InitPostgres`, where the last slots
    /// are kept for superusers (`src/backend/utils/init/postinit.c`); a role or a database at a limit of its own has
    /// the same code.
    #[must_use]
    pub fn says_full(&self, authenticated: bool) -> bool {
        let is_code = self.code == Some(sqlstate::TOO_MANY_CONNECTIONS);
        is_code && (!authenticated || self.routine == Some(b"InitPostgres"))
    }

    /// Reads the body of an `ErrorResponse`, or as much of it as there is.
    #[must_use]
    pub fn parse(body: &'a [u8]) -> Self {
        let mut fields = Self::default();
        for field in body.split(|&b| b == 0) {
            match field.split_first() {
                Some((b'C', code)) if code.len() == 5 => fields.code = std::str::from_utf8(code).ok(),
                Some((b'M', message)) => fields.message = Some(message),
                Some((b'R', routine)) => fields.routine = Some(routine),
                Some(_) => {}
                None => break,
            }
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::message::backend::Message;

    #[test]
    fn a_library_reads_what_we_write() {
        let fatal = Fatal { code: "57P03", message: "no live primary".into(), hint: "wait".into() };
        let mut bytes = BytesMut::from(&fatal.encode()[..]);
        assert!(matches!(Message::parse(&mut bytes), Ok(Some(Message::ErrorResponse(_)))));
        assert!(bytes.is_empty());
        let encoded = fatal.encode();
        let fields = ErrorFields::parse(&encoded[5..]);
        assert_eq!(
            fields,
            ErrorFields { code: Some("57P03"), message: Some(b"no live primary"), routine: None }
        );
    }

    #[test]
    fn a_nul_in_a_text_cannot_end_the_field() {
        let fatal = Fatal { code: "57P03", message: "a\0Cxxxxx".into(), hint: String::new() };
        assert_eq!(ErrorFields::parse(&fatal.encode()[5..]).code, Some("57P03"));
    }

    #[test]
    fn every_prefix_of_an_error_can_be_read() {
        let body = &Fatal { code: "53300", message: "full".into(), hint: String::new() }.encode()[5..];
        for end in 0..body.len() {
            let _ = ErrorFields::parse(&body[..end]);
        }
        assert_eq!(ErrorFields::parse(b"Mno code here\0\0").code, None);
    }
}
