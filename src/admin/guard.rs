//! Who may ask, and who may change something.
//!
//! Over the Unix socket everything may be changed: who can write to its file has been let in by the system. Over the address it
//! takes the token. A page in a browser acts with what its reader can reach, not with what its author may do: so it may only
//! come from pgsplit itself, under a name that leads to pgsplit and nowhere else.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use hyper::Uri;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN, USER_AGENT};
use hyper::http::uri::Authority;
use tokio::net::unix::UCred;

use super::refusal::Refusal;
use crate::config;

const FETCH_SITE: &str = "sec-fetch-site";

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// Somebody who came to the address.
    Address(SocketAddr),
    /// Somebody on this machine who came to the socket: user and process.
    Local(Option<(u32, Option<i32>)>),
}

impl Peer {
    pub(super) fn local(credentials: Option<UCred>) -> Self {
        Self::Local(credentials.map(|credentials| (credentials.uid(), credentials.pid())))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(addr) => addr.fmt(f),
            Self::Local(Some((user, Some(process)))) => write!(f, "local uid {user} pid {process}"),
            Self::Local(Some((user, None))) => write!(f, "local uid {user}"),
            Self::Local(None) => f.write_str("local"),
        }
    }
}

/// Who asks, and by what, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    /// `cli`, `dashboard` or `api`: a header says so, so it proves nothing.
    pub by: &'static str,
    pub peer: &'a Peer,
}

/// By what somebody asks.
pub(super) fn by(headers: &HeaderMap) -> &'static str {
    let says_cli = |agent: &HeaderValue| agent.as_bytes().starts_with(b"pgsplit/");
    if headers.contains_key(FETCH_SITE) {
        "dashboard"
    } else if headers.get(USER_AGENT).is_some_and(says_cli) {
        "cli"
    } else {
        "api"
    }
}

/// Whether a request may be answered, by the name that it was sent to.
pub(super) fn may_ask(
    admin: &config::Admin,
    peer: Peer,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    if matches!(peer, Peer::Local(_)) {
        return Ok(());
    }
    let named = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    for host in named.chain(uri.authority().map(Authority::as_str)) {
        if !is_own_name(admin, host) {
            return Err(Refusal::Host);
        }
    }
    Ok(())
}

/// Whether a name leads here in each network: an address, a name without a dot, or one that the file says. Any other could be
/// made to lead here by who owns it.
fn is_own_name(admin: &config::Admin, host: &str) -> bool {
    let name = without_port(host);
    let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_single =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    is_address || is_single || admin.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
}

fn without_port(host: &str) -> &str {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    match host.rsplit_once(':') {
        // The last part of an address in brackets is no port.
        Some((name, port)) if is_port(port) && !port.contains(']') => name,
        _ => host,
    }
}

/// Whether who sent these headers may change something.
pub(super) fn may_change(admin: &config::Admin, peer: Peer, headers: &HeaderMap) -> Result<(), Refusal> {
    if !is_from_here(headers) {
        return Err(Refusal::Origin);
    }
    if matches!(peer, Peer::Local(_)) {
        return Ok(());
    }
    let token = admin.token.as_ref().ok_or(Refusal::NoToken)?;
    match bearer(headers) {
        Some(guess) if token.is(guess.as_bytes()) => Ok(()),
        Some(_) => Err(Refusal::TokenWrong),
        None => Err(Refusal::TokenMissing),
    }
}

/// Whether no browser sent it for a page of another origin. A page of our own has the origin that it was asked for by, which
/// [`may_ask`] has found to be a name of ours.
fn is_from_here(headers: &HeaderMap) -> bool {
    let is_own = |site: &HeaderValue| site == "same-origin" || site == "none";
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_own_origin = |origin: &HeaderValue| {
        let origin = origin.to_str().unwrap_or_default();
        let name = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        name.is_some_and(|name| host.is_some_and(|host| host.eq_ignore_ascii_case(name)))
    };
    headers.get_all(ORIGIN).iter().all(is_own_origin) && headers.get_all(FETCH_SITE).iter().all(is_own)
}

/// The token of the only `Authorization` there is (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |&(name, value): &(&'static str, &'static str)| {
            (name.parse::<hyper::header::HeaderName>().unwrap(), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn a_token_comes_in_one_header() {
        for (lines, expected) in [
            (&[("authorization", "Bearer abc")][..], Some("abc")),
            (&[("authorization", "bearer  abc ")], Some("abc")),
            (&[("authorization", "Basic abc")], None),
            (&[("authorization", "Bearer")], None),
            (&[("authorization", "Bearer abc"), ("authorization", "Bearer abc")], None),
            (&[("x-token", "Bearer abc")], None),
        ] {
            assert_eq!(bearer(&headers(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn pages_give_themselves_away() {
        for (lines, expected) in [
            (&[][..], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], false),
            (&[("origin", "http://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "http://lb:8404"), ("host", "lb:8404")], true),
            (&[("origin", "https://LB:8404"), ("host", "lb:8404")], true),
            (&[("origin", "http://lb:8404")], false),
            (&[("origin", "http://lb:80"), ("host", "lb:8404")], false),
            (&[("origin", "lb:8404"), ("host", "lb:8404")], false),
            (&[("origin", "http://lb"), ("origin", "http://evil"), ("host", "lb")], false),
        ] {
            assert_eq!(is_from_here(&headers(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_names_that_lead_nowhere_else_are_answered_to() {
        let hosts = vec!["lb.example.com".to_owned()];
        let admin = config::Admin { bind: None, socket: None, hosts, token: None };
        for own in [
            "127.0.0.1:8404",
            "10.0.0.1",
            "[::1]:8404",
            "[fe80::1]",
            "localhost:8404",
            "localhost",
            "pgsplit:8404",
            "my_lb-1",
            "LB.example.com:8404",
            "lb.example.com.",
            "localhost.:1",
        ] {
            assert!(is_own_name(&admin, own), "{own}");
        }
        for other in [
            "",
            ":8404",
            "evil.example:8404",
            "lb.example.com.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:8404.evil.example",
            "evil.example:8404@127.0.0.1",
            "user@localhost",
            "local host",
            "[::1]:8404]",
            "[evil.example]",
        ] {
            assert!(!is_own_name(&admin, other), "{other}");
        }
    }
}
