//! What a server sends: read along in any pieces with the same answer, and never kept beyond the limits.

#![no_main]

use std::fmt::Write;
use std::ops::ControlFlow;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pgsplit::pg::backend::{MESSAGE_MAX, columns, take_message};
use pgsplit::pg::error_response::{ErrorFields, Fatal};
use pgsplit::pg::message::{BODY_MAX, Scanner, Seen};

fuzz_target!(|input: &[u8]| {
    let Some((sizes, stream)) = sizes(input) else { return };
    assert_eq!(scan(stream, &[]), scan(stream, sizes));
    assert_eq!(take(stream, &[]), take(stream, sizes));
    let _ = columns(stream);
    say(stream);
});

/// The first byte says how many follow that are the sizes of pieces; then comes the stream.
fn sizes(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&count, rest) = input.split_first()?;
    rest.split_at_checked(usize::from(count % 16))
}

/// Cuts `stream` into pieces of these sizes; into one piece when there are none.
fn pieces<'a>(stream: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    if sizes.is_empty() {
        return vec![stream];
    }
    let mut pieces = Vec::new();
    let mut rest = stream;
    let mut sizes = sizes.iter().copied().cycle();
    while !rest.is_empty() {
        let size = usize::from(sizes.next().unwrap_or(1).max(1)).min(rest.len());
        let (piece, after) = rest.split_at(size);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// All that a scanner says, as text. It is stopped at each `ReadyForQuery` and goes on from there.
fn scan(stream: &[u8], sizes: &[u8]) -> String {
    let mut said = String::new();
    let mut scanner = Scanner::default();
    for piece in pieces(stream, sizes) {
        let mut rest = piece;
        while !rest.is_empty() {
            let used = scanner.scan(rest, |seen| {
                check(&seen);
                let _ = writeln!(said, "{seen:?}");
                if matches!(seen, Seen::Ready) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let Ok(used) = used else { return said + "not a message" };
            assert!(0 < used && used <= rest.len(), "no progress");
            rest = &rest[used..];
        }
    }
    said + if scanner.at_boundary() { "boundary" } else { "midway" }
}

fn check(seen: &Seen<'_>) {
    let kept = match seen {
        Seen::Parameter(name, value) => name.len() + value.len(),
        Seen::Error(fields) => {
            fields.code.map_or(0, str::len)
                + fields.message.map_or(0, <[u8]>::len)
                + fields.routine.map_or(0, <[u8]>::len)
        }
        Seen::Authentication { .. } | Seen::CancelKey(_) | Seen::Ready | Seen::Other(_) => 0,
    };
    assert!(kept <= BODY_MAX, "{kept} bytes kept");
}

/// All messages that a check would take, as text.
fn take(stream: &[u8], sizes: &[u8]) -> String {
    let mut said = String::new();
    let mut received = BytesMut::new();
    for piece in pieces(stream, sizes) {
        received.extend_from_slice(piece);
        loop {
            match take_message(&mut received) {
                Ok(Some((tag, body))) => {
                    assert!(body.len() <= MESSAGE_MAX);
                    let _ = writeln!(said, "{tag} {body:?} {:?}", ErrorFields::parse(&body));
                }
                Ok(None) => break,
                Err(_) => return said + "not a message",
            }
        }
        assert!(received.len() <= MESSAGE_MAX, "{} bytes wait for more", received.len());
    }
    said
}

/// A refusal can be read whatever is in its text.
fn say(text: &[u8]) {
    let message = String::from_utf8_lossy(text).into_owned();
    let fatal = Fatal { code: "57P03", hint: message.clone(), message };
    let encoded = fatal.encode();
    let mut received = BytesMut::from(&encoded[..]);
    if let Ok(Some((tag, body))) = take_message(&mut received) {
        assert!(tag == b'E' && received.is_empty());
        let fields = ErrorFields::parse(&body);
        assert_eq!(fields.code, Some("57P03"));
        let plain: String = fatal.message.chars().filter(|&c| c != '\0').collect();
        assert_eq!(fields.message.unwrap_or_default(), plain.as_bytes());
    } else {
        assert!(MESSAGE_MAX < encoded.len(), "our own words cannot be read");
    }
    let v2 = fatal.encode_v2();
    assert!(v2.ends_with(b"\n\0") && !v2[..v2.len() - 1].contains(&0));
}
