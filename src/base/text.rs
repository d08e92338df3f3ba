//! Text that came from a peer, made safe for a log line, a terminal or an error message.

/// Names longer than this are cut, as `PostgreSQL` does (`NAMEDATALEN` - 1).
pub const NAME_MAX: usize = 63;

/// `bytes` as printable text of at most `max` characters: control characters, line and direction marks and
/// invalid UTF-8 become `\xNN`, so that no peer can forge a log line or drive a terminal.
#[must_use]
pub fn escaped(bytes: &[u8], max: usize) -> String {
    // Nearly every name is of this kind.
    if bytes.len() <= max
        && bytes.iter().all(|&byte| is_printable(byte))
        && let Ok(text) = str::from_utf8(bytes)
    {
        return text.to_owned();
    }
    escaped_one_by_one(bytes, max)
}

/// [`escaped`] for text of any kind.
fn escaped_one_by_one(bytes: &[u8], max: usize) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let mut left = max;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if left == 0 {
                return out;
            }
            left -= 1;
            if is_harmless(c) {
                out.push(c);
            } else {
                let mut utf8 = [0; 4];
                for byte in c.encode_utf8(&mut utf8).bytes() {
                    let _ = write!(out, "\\x{byte:02x}");
                }
            }
        }
        for byte in chunk.invalid() {
            if left == 0 {
                return out;
            }
            left -= 1;
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Whether it is a character of ASCII that [`is_harmless`].
const fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// JSON in which nothing stands that a terminal would act on, as in the log. It reads back the same: outside of texts there is
/// nothing to replace but the ends of lines, which stay.
#[must_use]
pub fn harmless_json(json: &str) -> String {
    use std::fmt::Write;
    if json.bytes().all(|byte| byte == b'\n' || is_printable(byte)) {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        if c == '\n' || is_harmless(c) {
            out.push(c);
        } else {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
    }
    out
}

/// Whether a terminal shows a character as it is, and does nothing else.
#[must_use]
pub fn is_harmless(c: char) -> bool {
    let marks =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    !c.is_control() && !marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_forged_line_stays_on_its_line() {
        assert_eq!(escaped(b"po\n[INFO] x\x1b[31m", 63), "po\\x0a[INFO] x\\x1b[31m");
        assert_eq!(escaped("a\u{202e}b".as_bytes(), 63), "a\\xe2\\x80\\xaeb");
        assert_eq!(escaped(b"ok\xff!", 63), "ok\\xff!");
        assert_eq!(escaped(&[b'x'; 100], NAME_MAX).len(), 63);
    }

    proptest! {
        #[test]
        fn nothing_below_space_comes_out(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(escaped(&bytes, 63).chars().all(is_harmless));
        }

        #[test]
        fn the_short_way_says_the_same(text in "[ -~]{0,70}|[\u{0}-\u{ff}]{0,3}|.{0,70}", max in 0usize..70) {
            prop_assert_eq!(escaped(text.as_bytes(), max), escaped_one_by_one(text.as_bytes(), max));
        }
    }
}
