//! The first packets of a connection: whatever comes, in whatever pieces, the answer is the same and little is kept.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pgsplit::pg::first_packet::{Asked, FirstPacket, LENGTH_MAX, Parsed, Refused, parse};

/// The largest TLS record with its header; nothing longer is ever waited for.
const MOST: usize = 5 + (1 << 14);

fuzz_target!(|input: &[u8]| {
    let Some((sizes, mut stream)) = sizes(input) else { return };
    let (mut asked_whole, mut asked_pieces) = (Asked::default(), Asked::default());
    loop {
        let (pieces, used) = in_pieces(stream, sizes, &mut asked_pieces);
        // Whether something is smuggled behind a request for encryption is a matter of what came together: what
        // follows one is sent once it is answered.
        let together = if pieces.as_ref().is_ok_and(|packet| packet.as_ref().is_some_and(is_request)) {
            &stream[..used]
        } else {
            stream
        };
        let whole = parse(&mut BytesMut::from(together), &mut asked_whole).map(one);
        match (whole, pieces) {
            (Ok(None), Ok(None)) => return,
            (Ok(Some(whole)), Ok(Some(pieces))) => {
                check(&whole, stream);
                check(&pieces, stream);
                assert_eq!(std::mem::discriminant(&whole), std::mem::discriminant(&pieces));
                if !matches!(whole, FirstPacket::Encryption(..)) {
                    return;
                }
            }
            (Err(whole), Err(pieces)) => {
                assert_eq!(whole, pieces);
                let _ = whole.answer();
                return;
            }
            (whole, pieces) => panic!("whole: {whole:?}; in pieces: {pieces:?}"),
        }
        stream = &stream[used..];
    }
});

/// The first byte says how many follow that are the sizes of pieces; then comes the stream.
fn sizes(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&count, rest) = input.split_first()?;
    rest.split_at_checked(usize::from(count % 16))
}

fn one(parsed: Parsed) -> Option<FirstPacket> {
    match parsed {
        Parsed::Packet(packet) => Some(packet),
        Parsed::Need(_) => None,
    }
}

fn is_request(packet: &FirstPacket) -> bool {
    matches!(packet, FirstPacket::Encryption(..))
}

/// Feeds pieces of these sizes until there is a packet; also how many bytes that took.
fn in_pieces(
    stream: &[u8],
    sizes: &[u8],
    asked: &mut Asked,
) -> (Result<Option<FirstPacket>, Refused>, usize) {
    let mut sizes = sizes.iter().copied().cycle();
    let mut received = BytesMut::new();
    let mut fed = 0;
    loop {
        match parse(&mut received, asked) {
            Ok(Parsed::Need(total)) => {
                assert!(received.len() < total, "waits for what is there");
                assert!(total <= MOST, "waits for {total} bytes");
                // As much as is missing at most, or a request for encryption would be taken with what follows it.
                let missing = total - received.len();
                let piece =
                    usize::from(sizes.next().unwrap_or(1).max(1)).min(missing).min(stream.len() - fed);
                if piece == 0 {
                    return (Ok(None), fed);
                }
                received.extend_from_slice(&stream[fed..fed + piece]);
                fed += piece;
            }
            Ok(Parsed::Packet(packet)) => return (Ok(Some(packet)), fed),
            Err(refused) => return (Err(refused), fed),
        }
    }
}

/// What is taken is what came, and no more than a packet may have.
fn check(packet: &FirstPacket, stream: &[u8]) {
    let (bytes, most) = match packet {
        // A server ignores what else a request for encryption holds.
        FirstPacket::Encryption(_, bytes) => (bytes, LENGTH_MAX),
        FirstPacket::Cancel(_, bytes) => (bytes, 12 + 256),
        FirstPacket::DirectTls(bytes) => (bytes, usize::MAX),
        FirstPacket::Startup(startup) => {
            assert!(!startup.params.user.is_empty());
            assert!(!startup.params.database_or_user().is_empty());
            (&startup.packet, LENGTH_MAX)
        }
    };
    assert!(stream.starts_with(bytes) && bytes.len() <= most);
}
