//! The right to cancel a session's query.

use std::fmt;

/// Shortest key of any protocol version, in bytes.
pub const KEY_MIN: usize = 4;
/// Longest key of protocol 3.2, in bytes.
pub const KEY_MAX: usize = 256;

/// Process id and secret key of one server process, as it sent them in `BackendKeyData`.
///
/// `Debug` hides the key; comparing two keys takes the same time wherever they differ.
#[derive(Clone)]
pub struct CancelKey {
    /// The server process. Two nodes may well have the same one.
    pub pid: u32,
    key: Key,
}

/// The usual length is kept without memory of its own: there is one for each session.
#[derive(Clone)]
enum Key {
    Usual([u8; KEY_MIN]),
    Long(Box<[u8]>),
}

impl Key {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Usual(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }
}

impl CancelKey {
    /// Reads the body of a `BackendKeyData`, or what follows the code of a `CancelRequest`; `None` when its
    /// length fits no protocol version.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let (pid, key) = body.split_first_chunk::<4>()?;
        if !(KEY_MIN..=KEY_MAX).contains(&key.len()) {
            return None;
        }
        let key = key.try_into().map_or_else(|_| Key::Long(key.into()), Key::Usual);
        Some(Self { pid: u32::from_be_bytes(*pid), key })
    }

    /// What [`CancelKey::parse`] read. A secret.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        [&self.pid.to_be_bytes()[..], self.key.bytes()].concat()
    }

    /// Whether both are the same right.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        let (key, other_key) = (self.key.bytes(), other.key.bytes());
        if self.pid != other.pid || key.len() != other_key.len() {
            return false;
        }
        key.iter().zip(other_key).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelKey {{ pid: {}, key: *** }}", self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pid: u32, key: &[u8]) -> CancelKey {
        CancelKey::parse(&[&pid.to_be_bytes(), key].concat()).unwrap()
    }

    #[test]
    fn only_the_whole_key_matches() {
        assert!(key(7, b"abcd").matches(&key(7, b"abcd")));
        assert!(!key(7, b"abcd").matches(&key(8, b"abcd")));
        assert!(!key(7, b"abcd").matches(&key(7, b"abce")));
        assert!(!key(7, b"abcd").matches(&key(7, b"abcde")));
    }

    #[test]
    fn keys_of_4_to_256_bytes_are_read() {
        for (len, ok) in [(0, false), (3, false), (4, true), (32, true), (256, true), (257, false)] {
            assert_eq!(CancelKey::parse(&vec![1; 4 + len]).is_some(), ok, "{len}");
        }
        assert!(CancelKey::parse(b"abc").is_none());
    }

    #[test]
    fn debug_hides_the_key() {
        assert_eq!(format!("{:?}", key(7, b"abcd")), "CancelKey { pid: 7, key: *** }");
    }
}
