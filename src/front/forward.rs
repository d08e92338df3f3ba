//! Headers on their way through: what belongs to one connection stays behind, and each upstream learns who asks.
//! Pure. See [RFC 9110, section 7.6](https://www.rfc-editor.org/rfc/rfc9110#section-7.6).

use std::net::{IpAddr, SocketAddr};

use hyper::header::{
    CONNECTION, EXPECT, FORWARDED, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};

use crate::config::http::{Forwarded, Front, Methods};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Some frameworks take these for the method: a way around a front that only lets reads pass.
const METHOD_OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];
/// Longest request id of somebody else that is passed on.
const ID_MOST: usize = 128;

/// A client as its requests' headers show it; made once a connection.
#[derive(Debug)]
pub struct Client {
    /// Who connected.
    pub addr: SocketAddr,
    /// The same for `X-Forwarded-For`.
    ip: HeaderValue,
    /// The same for `Forwarded`: an IPv6 address stands in brackets and quotes.
    node: String,
    /// Whether what it says of others is believed.
    is_trusted: bool,
}

impl Client {
    /// The client at `addr`.
    #[must_use]
    pub fn new(addr: SocketAddr, front: &Front) -> Self {
        let ip = addr.ip().to_canonical();
        Self {
            addr,
            ip: HeaderValue::try_from(ip.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            node: match ip {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("\"[{ip}]\""),
            },
            is_trusted: front.trusted.iter().any(|network| network.contains(ip)),
        }
    }
}

/// Removes what is between two ends of one connection only.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
            .collect();
        for name in named {
            // Nobody can have what frames the message, or says whom it is for, taken away.
            if name != hyper::header::HOST && name != hyper::header::CONTENT_LENGTH {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    for name in
        [KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TRANSFER_ENCODING, UPGRADE]
    {
        headers.remove(name);
    }
}

/// Makes the client's headers those that the upstream gets; answers with the request's id.
pub fn prepare(headers: &mut HeaderMap, front: &Front, client: &Client, authority: &str) -> HeaderValue {
    let wants_trailers = headers
        .get_all(TE)
        .iter()
        .any(|value| value.as_bytes().split(|b| *b == b',').any(|t| t.trim_ascii() == b"trailers"));
    strip_hop_by_hop(headers);
    headers.remove(TE);
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    // The library has answered it already.
    headers.remove(EXPECT);
    headers.remove(HTTP2_SETTINGS);
    if front.methods != Methods::Any {
        for name in METHOD_OVERRIDES {
            headers.remove(name);
        }
    }
    say_who_asks(headers, front, client, authority);
    if front.via {
        headers.append(VIA, HeaderValue::from_static("1.1 pgsplit"));
    }
    let id = headers.get(X_REQUEST_ID).filter(|id| is_harmless(id)).cloned().unwrap_or_else(new_id);
    headers.insert(X_REQUEST_ID, id.clone());
    id
}

fn say_who_asks(headers: &mut HeaderMap, front: &Front, client: &Client, authority: &str) {
    let keeps = front.forwarded == Forwarded::Append && client.is_trusted;
    if front.forwarded == Forwarded::Off {
        for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, FORWARDED] {
            headers.remove(name);
        }
        return;
    }
    let host = HeaderValue::from_str(authority).ok().filter(|host| !host.is_empty());
    let ours = if authority.is_empty() {
        format!("for={};proto=http", client.node)
    } else {
        format!("for={};host=\"{authority}\";proto=http", client.node)
    };
    for (name, ours) in
        [(X_FORWARDED_FOR, Some(client.ip.clone())), (FORWARDED, HeaderValue::try_from(ours).ok())]
    {
        let Some(ours) = ours else { continue };
        let value = if keeps && headers.contains_key(&name) { joined(headers, &name, &ours) } else { ours };
        headers.insert(name, value);
    }
    if !keeps || !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !keeps || !headers.contains_key(X_FORWARDED_HOST) {
        match host {
            Some(host) => drop(headers.insert(X_FORWARDED_HOST, host)),
            None => drop(headers.remove(X_FORWARDED_HOST)),
        }
    }
}

/// All values of a header and one more, as one list.
fn joined(headers: &HeaderMap, name: &HeaderName, last: &HeaderValue) -> HeaderValue {
    let all: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .chain([last])
        .map(HeaderValue::as_bytes)
        .filter(|v| !v.is_empty())
        .collect();
    HeaderValue::from_bytes(&all.join(&b", "[..])).unwrap_or_else(|_| last.clone())
}

fn is_harmless(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    !id.is_empty()
        && id.len() <= ID_MOST
        && id
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+' | b'/' | b'=' | b':'))
}

fn new_id() -> HeaderValue {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let mut number = fastrand::u128(..);
    let id = [0_u8; 32].map(|_| {
        let digit = usize::try_from(number & 15).unwrap_or_default();
        number >>= 4;
        HEX.get(digit).copied().unwrap_or(b'0')
    });
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("-"))
}
