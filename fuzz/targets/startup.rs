//! The parameters of a startup packet, held against a second reading of the protocol's description.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pgsplit::pg::first_packet::{Asked, FirstPacket, LENGTH_MAX, Parsed, Refused, parse};
use pgsplit::pg::startup::Params;

fuzz_target!(|body: &[u8]| {
    let length = 8 + body.len();
    if LENGTH_MAX < length {
        return;
    }
    let length = u32::try_from(length).expect("checked").to_be_bytes();
    let packet = [&length[..], &[0, 3, 0, 0], body].concat();
    match parse(&mut BytesMut::from(&packet[..]), &mut Asked::default()) {
        Ok(Parsed::Packet(FirstPacket::Startup(startup))) => {
            assert_eq!(startup.packet, packet);
            assert_eq!(Ok(startup.params), expected(body));
        }
        Err(refused) => assert_eq!(Err(refused), expected(body)),
        other => panic!("{other:?}"),
    }
});

/// Pairs of texts, each with a NUL behind it, and a NUL behind them all.
fn expected(body: &[u8]) -> Result<Params, Refused> {
    let body = body.strip_suffix(&[0]).ok_or(Refused::Layout)?;
    let texts: Vec<&[u8]> = body.split(|&byte| byte == 0).collect();
    let (end, pairs) = texts.split_last().expect("a split gives one part at least");
    let (pairs, half) = pairs.as_chunks::<2>();
    if !end.is_empty() || !half.is_empty() || pairs.iter().any(|[name, _]| name.is_empty()) {
        return Err(Refused::Layout);
    }
    let last =
        |wanted: &str| pairs.iter().rev().find(|[name, _]| *name == wanted.as_bytes()).map(|pair| pair[1]);
    let text = |wanted| last(wanted).unwrap_or_default().to_vec();
    if text("user").is_empty() {
        return Err(Refused::NoUser);
    }
    Ok(Params {
        user: text("user"),
        database: text("database"),
        application_name: text("application_name"),
        is_replication: last("replication")
            .is_some_and(|value| ![&b"false"[..], b"off", b"no", b"0"].contains(&value)),
    })
}
