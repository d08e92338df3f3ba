//! The right to cancel a session's query.

use std::fmt;

use bytes::Bytes;

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
    key: Bytes,
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
        Some(Self { pid: u32::from_be_bytes(*pid), key: Bytes::copy_from_slice(key) })
    }

    /// Whether both are the same right.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        if self.pid != other.pid || self.key.len() != other.key.len() {
            return false;
        }
        self.key.iter().zip(&other.key).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
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
