//! Where a request's head ends and what follows it, read more strictly than HTTP asks for. Pure.
//!
//! Requests are smuggled through a proxy where it and the server behind it read the same bytes differently. What two
//! programs could read in two ways is refused here before the HTTP library sees it: the library is lenient where
//! [RFC 9112](https://www.rfc-editor.org/rfc/rfc9112) allows it to be.

use memchr::memchr;

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// The next request.
    Nothing,
    /// So many bytes of body, then the next request.
    Body(u64),
    /// What cannot be told apart without reading it: a body in chunks, or, if the server agrees, another protocol. Nothing
    /// else may follow on the connection.
    Anything,
}

/// A head that can be read in more than one way, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous;

/// The length of the head that `bytes` begins with, empty line included; `None`: it goes on.
///
/// `searched` is how much of it has been looked at before.
#[must_use]
pub fn head_len(bytes: &[u8], searched: usize) -> Option<usize> {
    // Empty lines before a request are not a head. See RFC 9112, section 2.2.
    let start = bytes.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2;
    let mut at = searched.saturating_sub(3).max(start);
    loop {
        let rest = bytes.get(at..)?;
        at += memchr(b'\n', rest)? + 1;
        match bytes.get(..at)? {
            // A head with bare line feeds ends here for some; `examine` will not have it.
            [.., b'\n', b'\r', b'\n'] | [.., b'\n', b'\n'] if start + 2 < at => return Some(at),
            _ => {}
        }
    }
}

/// Reads a whole head, as [`head_len`] found it.
///
/// # Errors
/// [`Ambiguous`].
pub fn examine(head: &[u8]) -> Result<Follows, Ambiguous> {
    let mut rest = head;
    while let Some(after) = rest.strip_prefix(b"\r\n") {
        rest = after;
    }
    let (request_line, mut rest) = line(rest)?;
    let is_http_11 = request_line.ends_with(b" HTTP/1.1");
    let mut length = None;
    let mut is_chunked = false;
    let mut is_upgrade = false;
    loop {
        let (header, after) = line(rest)?;
        rest = after;
        if header.is_empty() {
            break;
        }
        // A line that begins with a space would go on with the one before it (obs-fold).
        let colon = memchr(b':', header).filter(|_| !header.starts_with(b" ") && !header.starts_with(b"\t"));
        let (name, value) = header.split_at_checked(colon.ok_or(Ambiguous)?).ok_or(Ambiguous)?;
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return Err(Ambiguous);
            }
            length = Some(digits(value)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if is_chunked || !is_http_11 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Ambiguous);
            }
            is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            is_upgrade = true;
        }
    }
    if !rest.is_empty() {
        return Err(Ambiguous);
    }
    match (length, is_chunked) {
        (Some(_), true) => Err(Ambiguous),
        (None, true) => Ok(Follows::Anything),
        (None | Some(0), false) if is_upgrade => Ok(Follows::Anything),
        (None | Some(0), false) => Ok(Follows::Nothing),
        (Some(length), false) => Ok(Follows::Body(length)),
    }
}

/// The first line, without its end, and what comes after it.
fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Ambiguous> {
    let end = memchr(b'\n', bytes).ok_or(Ambiguous)?;
    let (line, rest) = bytes.split_at_checked(end + 1).ok_or(Ambiguous)?;
    let line = line.strip_suffix(b"\r\n").ok_or(Ambiguous)?;
    if memchr::memchr2(b'\r', 0, line).is_some() {
        return Err(Ambiguous);
    }
    Ok((line, rest))
}

/// A number of nothing but digits that no program can overflow on.
fn digits(value: &[u8]) -> Result<u64, Ambiguous> {
    const MOST: usize = 18;
    if value.is_empty() || MOST < value.len() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Ambiguous);
    }
    Ok(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn follows(headers: &str) -> Result<Follows, Ambiguous> {
        examine(format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes())
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for end in 0..head.len() {
            assert_eq!(head_len(&head[..end], 0), None, "{end}");
        }
        let mut two = head.to_vec();
        two.extend_from_slice(b"GET /2 HTTP/1.1\r\n");
        for searched in 0..head.len() {
            assert_eq!(head_len(&two, searched), Some(head.len()), "{searched}");
        }
        assert_eq!(head_len(b"\r\n\r\nGET / HTTP/1.0\r\n\r\n", 0), Some(22));
        assert_eq!(head_len(b"\r\n\r\n", 0), None);
        assert_eq!(head_len(b"GET / HTTP/1.1\n\n", 0), Some(16));
    }

    #[test]
    fn what_follows() {
        assert_eq!(follows(""), Ok(Follows::Nothing));
        assert_eq!(follows("Content-Length: 0\r\n"), Ok(Follows::Nothing));
        assert_eq!(follows("content-length:7\r\n"), Ok(Follows::Body(7)));
        assert_eq!(follows("Transfer-Encoding: Chunked\r\n"), Ok(Follows::Anything));
        assert_eq!(follows("Connection: upgrade\r\nupgrade: websocket\r\n"), Ok(Follows::Anything));
        assert_eq!(examine(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Follows::Nothing));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for headers in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "X: a\r\n folded\r\n",
            "X: a\r\n\tfolded\r\n",
            "X: a\nY: b\r\n",
            "X: a\rb\r\n",
            "X: a\0b\r\n",
            "no colon\r\n",
        ] {
            assert_eq!(follows(headers), Err(Ambiguous), "{headers:?}");
        }
        assert_eq!(examine(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(Ambiguous));
        assert_eq!(examine(b"GET / HTTP/1.1\n\n"), Err(Ambiguous));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), searched in 0_usize..300) {
            let _ = examine(&bytes);
            if let Some(len) = head_len(&bytes, searched) {
                prop_assert!(len <= bytes.len());
            }
        }
    }
}
