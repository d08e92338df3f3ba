//! Where a server's stream stands between its messages: the same for any split of its bytes, and never at a boundary where
//! the reader of logins, which looks at every message, says that there is none.

#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use pgsplit::pg::framing::Framing;
use pgsplit::pg::message::{Scanner, Seen};

fuzz_target!(|input: &[u8]| {
    // The first byte says how the rest is cut.
    let Some((&size, stream)) = input.split_first() else { return };
    let mut whole = Framing::default();
    whole.follow(stream);
    let mut pieces = Framing::default();
    for piece in stream.chunks(usize::from(size).max(1)) {
        pieces.follow(piece);
    }
    assert_eq!(pieces.is_at_boundary(), whole.is_at_boundary());
    assert_eq!(pieces.is_idle(), whole.is_idle());

    let mut scanner = Scanner::default();
    let mut is_ready = false;
    let scanned = scanner.scan(stream, |seen| {
        is_ready = match seen {
            Seen::Ready => true,
            // What comes unasked changes nothing.
            Seen::Parameter(..) | Seen::Other(b'N' | b'S' | b'A') => is_ready,
            _ => false,
        };
        ControlFlow::Continue(())
    });
    if scanned.is_ok() {
        assert_eq!(whole.is_at_boundary(), scanner.at_boundary());
        assert!(!whole.is_idle() || is_ready);
    }
});
