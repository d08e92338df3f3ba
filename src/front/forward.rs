//! Headers on their way through: what belongs to one connection stays behind, and each upstream learns who asks.
//! Pure. See [RFC 9110, section 7.6](https://www.rfc-editor.org/rfc/rfc9110#section-7.6).

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TE, VIA,
};

use hyper::http::request::Parts;
use hyper::{Uri, Version};

use crate::config::http::{Forwarded, Front, Methods};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
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
    /// The host it asked for last, as most clients ask for the same one again.
    last: Mutex<Option<Host>>,
}

/// A host as upstreams are told of it.
#[derive(Clone, Debug)]
struct Host {
    value: HeaderValue,
    /// The client and the host, for `Forwarded`.
    forwarded: HeaderValue,
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
            last: Mutex::default(),
        }
    }

    fn host(&self, authority: &str) -> Host {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = last.as_ref().filter(|host| host.value == authority) {
            return host.clone();
        }
        let named = if authority.is_empty() { String::new() } else { format!("host=\"{authority}\";") };
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        let host = Host {
            value: value(authority),
            forwarded: value(&format!("for={};{named}proto=http", self.node)),
        };
        last.insert(host).clone()
    }
}

/// Headers that are looked at one by one. Finding out in one pass which of them are there costs less than asking the
/// map for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Special {
    /// Belongs to one connection.
    HopByHop,
    /// Names headers that do.
    Connection,
    Te,
    /// Answered here, or not for upstreams.
    Ours,
    MethodOverride,
    Forwarding,
    RequestId,
}

fn special(name: &HeaderName) -> Option<Special> {
    let name = name.as_str();
    if name.contains('_') {
        // Many servers cannot tell the two apart: `X_Forwarded_For` would be believed for what it is not.
        return kind(&name.replace('_', "-"));
    }
    kind(name)
}

fn kind(name: &str) -> Option<Special> {
    Some(match name {
        "connection" => Special::Connection,
        // The last is ours to say.
        "x-pgsplit-reason"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "transfer-encoding"
        | "upgrade" => Special::HopByHop,
        "te" => Special::Te,
        "expect" | "http2-settings" => Special::Ours,
        // Some frameworks take these for the method: a way around a front that only lets reads pass.
        "x-http-method-override" | "x-http-method" | "x-method-override" => Special::MethodOverride,
        "forwarded" | "x-real-ip" | "x-client-ip" | "true-client-ip" => Special::Forwarding,
        "x-request-id" => Special::RequestId,
        _ if name.starts_with("x-forwarded-") => Special::Forwarding,
        _ => return None,
    })
}

/// Which special headers a message has.
#[derive(Clone, Copy, Debug, Default)]
struct Seen(u8);

impl Seen {
    fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().filter_map(special).fold(0, |seen, special| seen | 1 << special as u8))
    }

    const fn has(self, special: Special) -> bool {
        self.0 & (1 << special as u8) != 0
    }
}

/// Removes every header of one kind.
fn remove(headers: &mut HeaderMap, what: Special) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| special(name) == Some(what)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Removes what is between two ends of one connection only.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip(headers, Seen::of(headers));
}

fn strip(headers: &mut HeaderMap, seen: Seen) {
    if seen.has(Special::Connection) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
            // What nearly every one says, and names no header that stays otherwise.
            .filter(|token| *token != b"keep-alive" && *token != b"close")
            .filter_map(|token| HeaderName::from_bytes(token).ok())
            .collect();
        for name in named {
            // Nobody can have what frames the message, or says whom it is for, taken away.
            if name != HOST && name != CONTENT_LENGTH {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    if seen.has(Special::HopByHop) {
        remove(headers, Special::HopByHop);
    }
}

/// Makes the target what a server expects, a path; and the Host what the request is for.
fn address(head: &mut Parts, authority: &str) {
    if head.uri.authority().is_some() || !head.headers.contains_key(HOST) {
        if let Some(path) = head.uri.path_and_query() {
            head.uri = Uri::from(path.clone());
        }
        match HeaderValue::from_str(authority) {
            Ok(host) if !authority.is_empty() => drop(head.headers.insert(HOST, host)),
            _ => drop(head.headers.remove(HOST)),
        }
    }
}

/// HTTP/2 lets a client send its cookies one by one, which HTTP/1.1 does not know. See RFC 9113, section 8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if 1 < cookies.len()
        && let Ok(cookie) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, cookie);
    }
}

/// Makes the client's request the one that the upstream gets; answers with its id.
pub fn prepare(head: &mut Parts, front: &Front, client: &Client, authority: &str) -> HeaderValue {
    address(head, authority);
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    let headers = &mut head.headers;
    let seen = Seen::of(headers);
    let takes_trailers = seen.has(Special::Te)
        && headers.get_all(TE).iter().any(|value| {
            value.as_bytes().split(|b| *b == b',').any(|token| token.trim_ascii() == b"trailers")
        });
    strip(headers, seen);
    if seen.has(Special::Te) {
        headers.remove(TE);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if seen.has(Special::Ours) {
        remove(headers, Special::Ours);
    }
    if seen.has(Special::MethodOverride) && front.methods != Methods::Any {
        remove(headers, Special::MethodOverride);
    }
    say_who_asks(headers, front, client, authority, seen.has(Special::Forwarding));
    if front.via {
        headers.append(VIA, HeaderValue::from_static("1.1 pgsplit"));
    }
    let given = if seen.has(Special::RequestId) { headers.get(X_REQUEST_ID) } else { None };
    if let Some(id) = given.filter(|id| is_harmless(id)) {
        return id.clone();
    }
    let id = new_id();
    headers.insert(X_REQUEST_ID, id.clone());
    id
}

fn say_who_asks(
    headers: &mut HeaderMap,
    front: &Front,
    client: &Client,
    authority: &str,
    says_already: bool,
) {
    let keeps = says_already && front.forwarded == Forwarded::Append && client.is_trusted;
    if says_already && !keeps {
        remove(headers, Special::Forwarding);
    }
    if front.forwarded == Forwarded::Off {
        return;
    }
    let Host { value: host, forwarded } = client.host(authority);
    if !keeps {
        headers.insert(X_FORWARDED_FOR, client.ip.clone());
        headers.insert(FORWARDED, forwarded);
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        if !host.is_empty() {
            headers.insert(X_FORWARDED_HOST, host);
        }
        return;
    }
    for (name, ours) in [(X_FORWARDED_FOR, client.ip.clone()), (FORWARDED, forwarded)] {
        let value = joined(headers, &name, &ours);
        headers.insert(name, value);
    }
    headers.entry(X_FORWARDED_PROTO).or_insert_with(|| HeaderValue::from_static("http"));
    if !host.is_empty() {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
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
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut id = [b'0'; 16];
    let mut number = fastrand::u64(..);
    for digit in &mut id {
        if let Some(hex) = HEX.get(usize::try_from(number & 15).unwrap_or_default()) {
            *digit = *hex;
        }
        number >>= 4;
    }
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Env};

    fn front(rest: &str) -> Front {
        let text = format!("nodes: [{{addr: db1, role: primary}}]\nhttp: {{upstreams: [a], {rest}}}\n");
        let env: Env<'_> = &|_| None;
        let config = Config::from_yaml(&text, "config.yaml", env).unwrap();
        Front::clone(&config.fronts[0])
    }

    fn head(mut headers: HeaderMap) -> Parts {
        headers.entry(HOST).or_insert(HeaderValue::from_static("a.example"));
        let mut request = hyper::Request::new(());
        *request.headers_mut() = headers;
        request.into_parts().0
    }

    /// What an upstream gets, in lines, without the request id.
    fn passed(rest: &str, headers: &str) -> String {
        let front = front(rest);
        let client = Client::new("10.0.0.7:1234".parse().unwrap(), &front);
        let map: HeaderMap = headers
            .lines()
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect();
        let mut head = head(map);
        prepare(&mut head, &front, &client, "a.example");
        let mut map = head.headers;
        map.remove(X_REQUEST_ID);
        map.remove(HOST);
        let mut lines: Vec<String> =
            map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines.join("\n")
    }

    #[test]
    fn other_names_for_the_same_are_the_same() {
        let odd = "x_forwarded_for: 1.2.3.4\nx-real-ip: 1.2.3.4\nx-forwarded-port: 1\nx_http_method_override: PUT\na_b: c";
        assert_eq!(passed("forwarded: off", odd), "a_b: c");
    }

    const OURS: &str = "forwarded: for=10.0.0.7;host=\"a.example\";proto=http\nx-forwarded-for: 10.0.0.7\n\
                        x-forwarded-host: a.example\nx-forwarded-proto: http";

    #[test]
    fn a_stranger_is_not_believed() {
        let spoofed = "x-forwarded-for: 1.2.3.4\nforwarded: for=1.2.3.4\nx-forwarded-proto: https\n\
                       x-forwarded-host: evil";
        assert_eq!(passed("via: no", spoofed), OURS);
        assert_eq!(passed("forwarded: replace, trusted: [10.0.0.0/8]", spoofed), OURS);
        assert_eq!(passed("forwarded: off", spoofed), "");
    }

    #[test]
    fn a_trusted_peer_is_added_to() {
        let said = "x-forwarded-for: 1.2.3.4\nx-forwarded-proto: https";
        let expected = "forwarded: for=10.0.0.7;host=\"a.example\";proto=http\n\
                        x-forwarded-for: 1.2.3.4, 10.0.0.7\nx-forwarded-host: a.example\nx-forwarded-proto: https";
        assert_eq!(passed("trusted: [10.0.0.0/8]", said), expected);
    }

    #[test]
    fn what_belongs_to_one_connection_stays_behind() {
        let headers = "connection: close, x-mine, host\nx-mine: 1\nhost: a.example\nkeep-alive: 5\n\
                       te: trailers, gzip\nupgrade: h2c\nhttp2-settings: x\nexpect: 100-continue\n\
                       proxy-authorization: x\nx-http-method-override: DELETE\naccept: */*";
        let expected = "accept: */*\nte: trailers";
        assert_eq!(passed("forwarded: off", headers), expected);
        let kept = passed("forwarded: off, methods: any", "x-http-method-override: DELETE");
        assert_eq!(kept, "x-http-method-override: DELETE");
    }

    #[test]
    fn an_id_is_kept_if_it_is_harmless() {
        let front = front("forwarded: off");
        let client = Client::new("10.0.0.7:1234".parse().unwrap(), &front);
        for (given, kept) in [("abc-1", true), ("a b", false), ("\"x\"", false), ("", false)] {
            let mut map = HeaderMap::new();
            map.insert(X_REQUEST_ID, given.parse().unwrap());
            let mut head = head(map);
            let id = prepare(&mut head, &front, &client, "");
            assert_eq!(id == given, kept, "{given}");
            assert_eq!(head.headers[X_REQUEST_ID], id);
        }
    }
}
