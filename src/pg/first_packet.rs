//! The first packets of a connection: everything a client may send before a server has answered it.
//!
//! [`parse`] is fed all bytes received so far and says how many more it needs, so the caller's buffer grows
//! with what has arrived, never with what a length field claims.

use bytes::{Bytes, BytesMut};

use crate::pg::cancel_key::CancelKey;
use crate::pg::error_response::Fatal;
use crate::pg::sqlstate;
use crate::pg::startup::{Startup, parse_params};

/// The largest length field a server takes: `MAX_STARTUP_PACKET_LENGTH` of
/// `src/include/libpq/pqcomm.h`, 10,000, and the field itself.
pub const LENGTH_MAX: usize = 10_004;
/// The largest TLS record: 2^14 bytes and its header.
/// <https://www.rfc-editor.org/rfc/rfc8446#section-5.1>
const TLS_RECORD_MAX: usize = 5 + (1 << 14);
/// First byte of a TLS handshake; no valid length field begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

const CANCEL_REQUEST: (u16, u16) = (1234, 5678);
const SSL_REQUEST: (u16, u16) = (1234, 5679);
const GSSENC_REQUEST: (u16, u16) = (1234, 5680);

/// One of the packets a connection can begin with.
#[derive(Clone, Debug)]
pub enum FirstPacket {
    /// `SSLRequest` or `GSSENCRequest`: another packet follows once it is answered.
    Encryption(Encryption, Bytes),
    /// A TLS record without a request before it (`sslnegotiation=direct`), whole.
    DirectTls(Bytes),
    /// The login begins.
    Startup(Startup),
    /// Somebody wants a query cancelled; nothing follows. With the packet as it came.
    Cancel(CancelKey, Bytes),
}

/// What a client asks to have encryption by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// `SSLRequest`.
    Ssl,
    /// `GSSENCRequest`.
    Gss,
}

/// What [`parse`] found.
#[derive(Debug)]
pub enum Parsed {
    /// The packet is not complete: this many bytes are needed before it is worth looking again.
    Need(usize),
    /// One packet, taken out of the buffer.
    Packet(FirstPacket),
}

/// Why a first packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A length no packet has.
    #[error("invalid length of startup packet")]
    Length,
    /// An HTTP request.
    #[error("HTTP request on a PostgreSQL port")]
    Http,
    /// Parameters without their terminator.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// No user name.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// A protocol no server speaks, or a second request for the same encryption.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")]
    Protocol {
        /// Upper half of the version.
        major: u16,
        /// Lower half of the version.
        minor: u16,
    },
    /// A cancel request of a length no key has.
    #[error("invalid length of cancel request")]
    CancelLength,
    /// Bytes behind a request that must be answered first: somebody tries to smuggle plain text under TLS
    /// (CVE-2021-23214 and its kind).
    #[error("received unencrypted data after encryption request")]
    Smuggled,
}

impl Refused {
    /// What a server sends before it closes; `None`: it says nothing.
    #[must_use]
    pub fn answer(&self) -> Option<Bytes> {
        let code = match self {
            Self::Layout | Self::Smuggled => sqlstate::PROTOCOL_VIOLATION,
            Self::NoUser => sqlstate::INVALID_AUTHORIZATION,
            Self::Protocol { .. } => sqlstate::FEATURE_NOT_SUPPORTED,
            Self::Length | Self::Http | Self::CancelLength => return None,
        };
        let fatal = Fatal { code, message: self.to_string(), hint: String::new() };
        Some(if matches!(self, Self::Protocol { major: ..3, .. }) {
            fatal.encode_v2()
        } else {
            fatal.encode()
        })
    }
}

/// Which encryption requests a connection has already made: one of each kind at most, as a loop of them once
/// crashed servers (CVE-2026-6479).
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    ssl: bool,
    gss: bool,
}

impl Asked {
    fn once(&mut self, encryption: Encryption) -> bool {
        let asked = match encryption {
            Encryption::Ssl => &mut self.ssl,
            Encryption::Gss => &mut self.gss,
        };
        !std::mem::replace(asked, true)
    }

    fn anything(self) -> bool {
        self.ssl || self.gss
    }
}

/// Takes one first packet from the front of `received`.
///
/// # Errors
/// Why the connection must end; what is in `received` is then of no use.
pub fn parse(received: &mut BytesMut, asked: &mut Asked) -> Result<Parsed, Refused> {
    match received.first() {
        None => return Ok(Parsed::Need(1)),
        Some(&TLS_HANDSHAKE) if !asked.anything() => return parse_tls_record(received),
        Some(_) if is_http(received) => return Err(Refused::Http),
        Some(_) => {}
    }
    let Some(length) = received.first_chunk::<4>() else { return Ok(Parsed::Need(4)) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if !(8..=LENGTH_MAX).contains(&length) {
        return Err(Refused::Length);
    }
    if received.len() < length {
        return Ok(Parsed::Need(length));
    }
    let packet = received.split_to(length).freeze();
    read_packet(packet, asked, received.is_empty()).map(Parsed::Packet)
}

fn read_packet(packet: Bytes, asked: &mut Asked, nothing_behind: bool) -> Result<FirstPacket, Refused> {
    let Some((&[_, _, _, _, a, b, c, d], body)) = packet.split_first_chunk::<8>() else {
        return Err(Refused::Length);
    };
    let code = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let encryption = match code {
        SSL_REQUEST => Encryption::Ssl,
        GSSENC_REQUEST => Encryption::Gss,
        CANCEL_REQUEST => {
            let key = CancelKey::parse(body).ok_or(Refused::CancelLength)?;
            return Ok(FirstPacket::Cancel(key, packet));
        }
        (3, _) => {
            let params = parse_params(body)?;
            return Ok(FirstPacket::Startup(Startup { packet, params }));
        }
        (major, minor) => return Err(Refused::Protocol { major, minor }),
    };
    if !asked.once(encryption) {
        return Err(Refused::Protocol { major: code.0, minor: code.1 });
    }
    if !nothing_behind {
        return Err(Refused::Smuggled);
    }
    Ok(FirstPacket::Encryption(encryption, packet))
}

/// Waits for the whole first record, so that it can be sent again to another node.
fn parse_tls_record(received: &mut BytesMut) -> Result<Parsed, Refused> {
    let Some(&[_, major, _, hi, lo]) = received.first_chunk::<5>() else { return Ok(Parsed::Need(5)) };
    let end = 5 + usize::from(u16::from_be_bytes([hi, lo]));
    if major != 3 || !(6..=TLS_RECORD_MAX).contains(&end) {
        return Err(Refused::Length);
    }
    if received.len() < end {
        return Ok(Parsed::Need(end));
    }
    Ok(Parsed::Packet(FirstPacket::DirectTls(received.split().freeze())))
}

fn is_http(received: &[u8]) -> bool {
    const METHODS: [&[u8]; 8] = [b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI", b"DELE", b"PATC", b"CONN"];
    METHODS.iter().any(|method| received.starts_with(method))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + body.len()).unwrap();
        [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
    }

    fn parse_once(bytes: &[u8]) -> Result<Parsed, Refused> {
        parse(&mut BytesMut::from(bytes), &mut Asked::default())
    }

    #[track_caller]
    fn refused(bytes: &[u8]) -> Refused {
        parse_once(bytes).expect_err("must be refused")
    }

    #[track_caller]
    fn startup(bytes: &[u8]) -> Startup {
        match parse_once(bytes) {
            Ok(Parsed::Packet(FirstPacket::Startup(startup))) => startup,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn any_minor_version_of_protocol_3_passes_unchanged() {
        for version in [0x0003_0000, 0x0003_0002, 0x0003_270f] {
            let bytes = packet(version, b"user\0ann\0_pq_.x\0on\0replication\0true\0\0");
            let startup = startup(&bytes);
            assert_eq!(startup.packet, bytes);
            assert_eq!(startup.params.user, b"ann");
            assert_eq!(startup.params.database_or_user(), b"ann");
        }
    }

    #[test]
    fn bad_layouts_are_answered_as_a_server_answers() {
        let v3 = 0x0003_0000;
        assert_eq!(refused(&packet(v3, b"")), Refused::Layout);
        assert_eq!(refused(&packet(v3, b"user\0ann\0")), Refused::Layout);
        assert_eq!(refused(&packet(v3, b"user\0ann")), Refused::Layout);
        assert_eq!(refused(&packet(v3, b"user\0")), Refused::Layout);
        assert_eq!(refused(&packet(v3, b"user\0ann\0\0x")), Refused::Layout);
        assert_eq!(refused(&packet(v3, b"\0")), Refused::NoUser);
        assert_eq!(refused(&packet(v3, b"user\0\0\0")), Refused::NoUser);
        assert_eq!(refused(&packet(0x0004_0000, b"")), Refused::Protocol { major: 4, minor: 0 });
        assert_eq!(refused(&packet(0x0002_0000, b"")).answer().unwrap()[..8], *b"EFATAL: ");
        assert_eq!(refused(b"GET / HTTP/1.1\r\n"), Refused::Http);
        for length in [0_u32, 7, 10_005, u32::MAX, 0x8000_0000] {
            assert_eq!(refused(&length.to_be_bytes()), Refused::Length, "{length}");
        }
    }

    #[test]
    fn the_last_of_two_names_counts() {
        assert_eq!(startup(&packet(0x0003_0000, b"user\0a\0user\0b\0\0")).params.user, b"b");
    }

    #[test]
    fn the_length_limit_is_exact() {
        let body = |total: usize| {
            let mut body = b"user\0ann\0x\0".to_vec();
            body.resize(total - 8 - 2, b'v');
            body.extend(b"\0\0");
            packet(0x0003_0000, &body)
        };
        assert_eq!(startup(&body(LENGTH_MAX)).packet.len(), LENGTH_MAX);
        assert_eq!(refused(&body(LENGTH_MAX + 1)), Refused::Length);
    }

    #[test]
    fn cancel_keys_of_4_to_256_bytes_are_taken() {
        for (len, ok) in [(3, false), (4, true), (32, true), (256, true), (257, false)] {
            let got = parse_once(&packet(80_877_102, &vec![1; 4 + len]));
            assert_eq!(matches!(got, Ok(Parsed::Packet(FirstPacket::Cancel(..)))), ok, "{len}: {got:?}");
        }
    }

    #[test]
    fn encryption_is_asked_for_once_and_alone() {
        let (ssl, gss) = (packet(80_877_103, b""), packet(80_877_104, b""));
        let mut asked = Asked::default();
        let mut take = |bytes: &[u8]| parse(&mut BytesMut::from(bytes), &mut asked);
        assert!(matches!(take(&ssl), Ok(Parsed::Packet(FirstPacket::Encryption(Encryption::Ssl, _)))));
        assert!(matches!(take(&gss), Ok(Parsed::Packet(FirstPacket::Encryption(Encryption::Gss, _)))));
        assert_eq!(take(&ssl).unwrap_err(), Refused::Protocol { major: 1234, minor: 5679 });
        assert_eq!(refused(&[ssl.clone(), b"x".to_vec()].concat()), Refused::Smuggled);
        assert_eq!(refused(&[ssl, packet(0x0003_0000, b"user\0a\0\0")].concat()), Refused::Smuggled);
    }

    #[test]
    fn a_tls_record_is_taken_whole() {
        let record = [&[0x16, 3, 1, 0, 4][..], b"helo"].concat();
        for end in 0..record.len() {
            assert!(matches!(parse_once(&record[..end]), Ok(Parsed::Need(n)) if n > end), "{end}");
        }
        let Ok(Parsed::Packet(FirstPacket::DirectTls(bytes))) = parse_once(&record) else { panic!() };
        assert_eq!(bytes, record);
        assert_eq!(refused(&[0x16, 3, 1, 0xff, 0xff]), Refused::Length);
        assert_eq!(refused(&[0x16, 0x16, 1, 0, 4]), Refused::Length);
    }

    #[test]
    fn each_proper_prefix_needs_more() {
        for bytes in [
            packet(0x0003_0000, b"user\0ann\0database\0shop\0\0"),
            packet(80_877_103, b""),
            packet(80_877_102, &[1; 8]),
        ] {
            for end in 0..bytes.len() {
                let got = parse_once(&bytes[..end]);
                assert!(matches!(got, Ok(Parsed::Need(n)) if n > end && n <= bytes.len()), "{end}: {got:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_wait_for_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            match parse_once(&bytes) {
                Ok(Parsed::Need(n)) => prop_assert!(n > bytes.len() && n <= TLS_RECORD_MAX),
                Ok(Parsed::Packet(_)) | Err(_) => {}
            }
        }

        #[test]
        fn what_is_taken_is_what_came(params in proptest::collection::vec(("[a-z_.]{1,9}", "[^\0]{0,9}"), 0..9)) {
            let mut body = b"user\0u\0".to_vec();
            for (name, value) in &params {
                body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
            }
            body.push(0);
            let bytes = packet(0x0003_0000, &body);
            match parse_once(&bytes) {
                Ok(Parsed::Packet(FirstPacket::Startup(startup))) => prop_assert_eq!(startup.packet, bytes),
                Err(Refused::NoUser) => prop_assert!(params.iter().any(|(n, v)| n == "user" && v.is_empty())),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
