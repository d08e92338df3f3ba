//! Where a server's stream stands between its messages: as little as must be known to say something of one's own in it.
//!
//! [`Scanner`](crate::pg::message::Scanner) reads what a login says; this follows a whole session, so it looks at
//! nothing but the headers, keeps no body, and allocates nothing.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// Follows the headers of one server stream. 24 bytes, and a few instructions for each message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Framing {
    /// Bytes of the body that are still to come.
    left: usize,
    /// The header, as far as it is there, when it comes in pieces; else the last one.
    header: [u8; HEADER],
    #[serde(deserialize_with = "part_of_header")]
    have: u8,
    standing: Standing,
}

/// How much of a header is there, from where it was written down.
fn part_of_header<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    let have = u8::deserialize(from)?;
    if usize::from(have) < HEADER { Ok(have) } else { Err(D::Error::custom("more than a part of a header")) }
}

/// Tag and length.
const HEADER: usize = 5;
/// A server's message has a length that fits a signed number of 32 bits.
const LONGEST: usize = 0x7fff_ffff - 4;

/// What the server said last of the session's transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Standing {
    /// It is answering, or has said that it is in a transaction.
    #[default]
    Busy,
    /// `ReadyForQuery`, in no transaction.
    Idle,
    /// These are not `PostgreSQL` messages.
    Lost,
}

impl Framing {
    /// Takes the next bytes of the stream.
    pub fn follow(&mut self, bytes: &[u8]) {
        let Some(mut rest) = self.end_message(bytes) else { return };
        // Nothing is stored until the last message that is whole.
        let mut standing = self.standing;
        while let Some((&[tag, a, b, c, d], after)) = rest.split_first_chunk() {
            let left = body_length([a, b, c, d]);
            if left <= LONGEST
                && let Some((body, after)) = after.split_at_checked(left)
            {
                standing = standing.after(tag, body);
                rest = if is_row(tag) { behind_rows(after) } else { after };
                continue;
            }
            self.standing = standing;
            self.begin([tag, a, b, c, d]);
            self.end_message(after);
            return;
        }
        self.standing = standing;
        for &byte in rest {
            self.collect(byte);
        }
    }

    /// Takes the rest of the message that has begun, if one has; what follows it, if that is its end.
    fn end_message<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let mut rest = bytes;
        while 0 < self.have {
            let (&byte, after) = rest.split_first()?;
            self.collect(byte);
            rest = after;
        }
        if self.standing == Standing::Lost {
            return None;
        }
        if self.left == 0 {
            return Some(rest);
        }
        let Some((body, after)) = rest.split_at_checked(self.left) else {
            self.left -= rest.len();
            return None;
        };
        self.left = 0;
        self.standing = self.standing.after(self.header[0], body);
        Some(after)
    }

    /// The client has said something: the server will answer.
    pub fn ask(&mut self) {
        if self.standing == Standing::Idle {
            self.standing = Standing::Busy;
        }
    }

    /// Whether the stream stands between two messages, so that another one may be put in.
    #[must_use]
    pub fn is_at_boundary(&self) -> bool {
        self.left == 0 && self.have == 0 && self.standing != Standing::Lost
    }

    /// Whether the server waits for a query, in no transaction: so it has said, and nobody has asked it anything since.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.is_at_boundary() && self.standing == Standing::Idle
    }

    /// Takes one byte of a header that comes in pieces.
    fn collect(&mut self, byte: u8) {
        let mut header = self.header;
        if let Some(place) = header.get_mut(usize::from(self.have)) {
            *place = byte;
        }
        (self.header, self.have) = (header, self.have + 1);
        if usize::from(self.have) == HEADER {
            self.begin(header);
        }
    }

    /// The header is there.
    fn begin(&mut self, header: [u8; HEADER]) {
        let [tag, a, b, c, d] = header;
        (self.header, self.have) = (header, 0);
        self.left = body_length([a, b, c, d]);
        if LONGEST < self.left {
            (self.left, self.standing) = (0, Standing::Lost);
        } else if self.left == 0 {
            self.standing = self.standing.after(tag, &[]);
        } else {
            // In the middle of a message, whatever it will be.
            self.standing = self.standing.after(tag, b"?");
        }
    }
}

impl Standing {
    /// After one more message, of which this is the end of the body.
    const fn after(self, tag: u8, body: &[u8]) -> Self {
        match (tag, body) {
            (b'Z', [.., b'I']) => Self::Idle,
            // These three come at any time, also while nothing is asked:
            // <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC>
            (b'N' | b'S' | b'A', _) => self,
            _ => Self::Busy,
        }
    }
}

/// What follows the rows that `bytes` begins with: most of what a server says, so as little as possible is done for
/// each.
fn behind_rows(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    if LONGEST < bytes.len() {
        // A row that is too long to be one might fit.
        return rest;
    }
    while let [tag, a, b, c, d, after @ ..] = rest
        && is_row(*tag)
        && let Some(after) = after.get(body_length([*a, *b, *c, *d])..)
    {
        rest = after;
    }
    rest
}

/// `DataRow` or `CopyData`.
const fn is_row(tag: u8) -> bool {
    matches!(tag, b'D' | b'd')
}

/// Length of the body behind a header; longer than [`LONGEST`] when that is none.
fn body_length(length: [u8; 4]) -> usize {
    usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX).wrapping_sub(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        [&[tag][..], &u32::try_from(4 + body.len()).unwrap().to_be_bytes(), body].concat()
    }

    fn after<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Framing {
        let mut framing = Framing::default();
        chunks.into_iter().for_each(|chunk| framing.follow(chunk));
        framing
    }

    fn stands(bytes: &[u8]) -> (bool, bool) {
        let framing = after([bytes]);
        (framing.is_at_boundary(), framing.is_idle())
    }

    #[test]
    fn only_after_ready_for_query_in_no_transaction_it_is_idle() {
        let ready = |status: &[u8]| message(b'Z', status);
        assert_eq!(stands(b""), (true, false), "a server that has said nothing");
        assert_eq!(stands(&ready(b"I")), (true, true));
        assert_eq!(stands(&ready(b"T")), (true, false));
        assert_eq!(stands(&ready(b"E")), (true, false));
        let row = message(b'D', b"\0\x01\0\0\0\x01x");
        assert_eq!(stands(&[ready(b"I"), row.clone()].concat()), (true, false));
        assert_eq!(stands(&[row.clone(), ready(b"I")].concat()), (true, true));
        // Empty bodies: ParseComplete, BindComplete, NoData, CopyDone.
        let empty: Vec<u8> = b"12nc".iter().flat_map(|&tag| message(tag, b"")).collect();
        assert_eq!(stands(&[ready(b"I"), empty.clone()].concat()), (true, false));
        assert_eq!(stands(&[empty, ready(b"I")].concat()), (true, true));
    }

    #[test]
    fn what_comes_unasked_changes_nothing() {
        let ready = message(b'Z', b"I");
        for tag in *b"NSA" {
            assert_eq!(stands(&[ready.clone(), message(tag, b"x\0y\0")].concat()), (true, true));
        }
    }

    #[test]
    fn who_is_asked_is_busy_until_it_is_ready_again() {
        let mut framing = after([&message(b'Z', b"I")[..]]);
        framing.ask();
        // What it has to say beside its answer is none.
        framing.follow(&message(b'N', b"SNOTICE\0\0"));
        assert!(!framing.is_idle() && framing.is_at_boundary());
        framing.follow(&message(b'Z', b"I"));
        assert!(framing.is_idle());
    }

    #[test]
    fn within_a_message_is_no_boundary_whatever_its_body_looks_like() {
        let ready = message(b'Z', b"I");
        let row = message(b'D', &[&ready[..], &ready, b"x"].concat());
        for end in 1..row.len() {
            assert_eq!(stands(&row[..end]), (false, false), "{end}");
        }
        assert_eq!(stands(&row), (true, false));
    }

    #[test]
    fn what_is_no_message_is_never_at_a_boundary() {
        for bytes in [&b"HTTP/1.1 400"[..], b"\x16\x03\x01\0\x05hello", b"Z\0\0\0\x03", b"D\xff\xff\xff\xff"]
        {
            for before in [Vec::new(), message(b'D', b"x")] {
                let mut framing = after([&[&before, bytes].concat()[..]]);
                framing.follow(&message(b'Z', b"I"));
                assert!(!framing.is_at_boundary(), "{before:?} {bytes:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_split_of_the_bytes_does_not_matter(
            messages in proptest::collection::vec((prop::sample::select(b"ZDdTCNSA12".to_vec()), proptest::collection::vec(any::<u8>(), 0..9)), 0..9),
            cut in 0usize..200,
            splits in proptest::collection::vec(0usize..200, 0..6),
        ) {
            let mut bytes: Vec<u8> = messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
            bytes.truncate(cut);
            let mut splits: Vec<usize> = splits.into_iter().map(|at| at.min(bytes.len())).collect();
            splits.extend([0, bytes.len()]);
            splits.sort_unstable();
            let pieces = after(splits.windows(2).map(|pair| &bytes[pair[0]..pair[1]]));
            let whole = after([&bytes[..]]);
            prop_assert_eq!(pieces.is_at_boundary(), whole.is_at_boundary());
            prop_assert_eq!(pieces.is_idle(), whole.is_idle());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..99), split in 0usize..99) {
            let (a, b) = bytes.split_at(split.min(bytes.len()));
            prop_assert_eq!(after([a, b]).is_at_boundary(), after([&bytes[..]]).is_at_boundary());
        }
    }
}
