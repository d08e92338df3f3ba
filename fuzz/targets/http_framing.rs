//! Where an HTTP request's head ends and what follows it: the same in any pieces, and never readable in two ways.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgsplit::front::framing::{Follows, examine, head_len};

fuzz_target!(|stream: &[u8]| {
    let whole = head_len(stream, 0);
    for searched in 0..stream.len().min(200) {
        // So much was there before, and the head went on.
        if head_len(&stream[..searched], 0).is_none() {
            assert_eq!(head_len(stream, searched), whole, "after {searched}");
        }
    }
    let Some(length) = whole else {
        let _ = examine(stream);
        return;
    };
    assert!(length <= stream.len());
    let head = &stream[..length];
    assert_eq!(head_len(head, 0), Some(length), "a head alone is a head");
    let Ok(follows) = examine(head) else { return };
    // One that was let through has nothing in it that another program could read otherwise.
    let lines: Vec<&[u8]> = head.split(|&byte| byte == b'\n').collect();
    let (rest, lines) = lines.split_last().expect("a split gives one part at least");
    assert!(rest.is_empty());
    assert!(lines.iter().all(|line| line.ends_with(b"\r") && !line[..line.len() - 1].contains(&b'\r')));
    assert!(!head.contains(&0));
    // The request line may say what it likes: whether it is one is for the HTTP library to find out.
    let lines = lines.iter().skip_while(|line| *line == b"\r").skip(1);
    let named = |name: &str| -> Vec<&[u8]> {
        let headers =
            lines.clone().filter_map(|line| line.split_at_checked(line.iter().position(|&b| b == b':')?));
        let ours = headers.filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
        ours.map(|(_, value)| value[1..].trim_ascii()).collect()
    };
    let (lengths, codings) = (named("content-length"), named("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1);
    if let Follows::Body(bytes) = follows {
        let written = lengths.first().expect("a length was read");
        let written = std::str::from_utf8(written).expect("digits");
        assert_eq!(written.parse(), Ok(bytes));
        assert!(written.bytes().all(|byte| byte.is_ascii_digit()));
    }
    if !codings.is_empty() {
        assert_eq!(follows, Follows::Anything);
    }
});
