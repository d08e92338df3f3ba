//! What a client may ask for, and for which host.

use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Version};

use crate::config::http::{Front, Methods};
use crate::front::refusal::Refusal;
use crate::front::upgrade::Upgrade;

/// A request that may be passed on.
#[derive(Debug)]
pub struct Asked {
    /// The host it is for, as sent, with its port if it has one; empty when none was named.
    pub authority: String,
    is_upgrade: bool,
}

impl Asked {
    /// What the request asks to go on as, taken out of its head.
    pub fn upgrade(&self, head: &mut Parts) -> Option<Upgrade> {
        let client = head.extensions.remove::<OnUpgrade>();
        let protocol = head.headers.get(UPGRADE).filter(|_| self.is_upgrade).cloned();
        Some(Upgrade { protocol: protocol?, client: client? })
    }
}

/// Reads what the library leaves open.
///
/// # Errors
/// [`Refusal::Method`] and [`Refusal::BadRequest`].
pub fn examine(front: &Front, head: &Parts) -> Result<Asked, Refusal> {
    check_method(&front.methods, &head.method)?;
    let authority = authority(head)?;
    if head.version == Version::HTTP_11 && authority.is_empty() {
        return Err(Refusal::BadRequest("no Host"));
    }
    if head.uri.path() == "*" && head.method != Method::OPTIONS {
        return Err(Refusal::BadRequest("only OPTIONS is for the server as a whole"));
    }
    if head.version == Version::HTTP_2 && 1 < head.headers.get_all(CONTENT_LENGTH).iter().count() {
        return Err(Refusal::BadRequest("more than one Content-Length"));
    }
    if head.uri.path_and_query().is_none() {
        return Err(Refusal::BadRequest("no path"));
    }
    Ok(Asked { authority, is_upgrade: head.version == Version::HTTP_11 && asks_to_upgrade(head) })
}

/// Refuses a body that is announced to be too long before anything of it is read.
///
/// # Errors
/// [`Refusal::BodyTooLarge`].
pub fn check_length(head: &Parts, most: Option<u64>) -> Result<(), Refusal> {
    let length =
        head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match (length, most) {
        (Some(length), Some(most)) if most < length => Err(Refusal::BodyTooLarge(most)),
        _ => Ok(()),
    }
}

fn check_method(methods: &Methods, method: &Method) -> Result<(), Refusal> {
    let is_allowed = match methods {
        // A tunnel to anywhere, and an echo of what others added: neither is for a reverse proxy.
        _ if matches!(*method, Method::CONNECT | Method::TRACE) => false,
        Methods::Any => true,
        Methods::Only(methods) => methods.iter().any(|allowed| allowed == method.as_str()),
    };
    if is_allowed { Ok(()) } else { Err(Refusal::method(method.as_str(), methods)) }
}

/// The one host that a request names. Two different ones are two readings of it.
fn authority(head: &Parts) -> Result<String, Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match hosts.next() {
        Some(host) => Some(host.to_str().map_err(|_| Refusal::BadRequest("a Host that is none"))?.trim()),
        None => None,
    };
    if hosts.next().is_some() {
        return Err(Refusal::BadRequest("more than one Host"));
    }
    let named = match (head.uri.authority(), host) {
        (Some(authority), Some(host)) if !authority.as_str().eq_ignore_ascii_case(host) => {
            return Err(Refusal::BadRequest("the target and Host name different hosts"));
        }
        (Some(authority), _) => authority.as_str(),
        (None, host) => host.unwrap_or_default(),
    };
    if is_authority(named) { Ok(named.to_owned()) } else { Err(Refusal::BadRequest("a Host that is none")) }
}

/// Letters, digits and what an address or name may hold; a port. Nothing that one program could take for the end of
/// it and another not.
fn is_authority(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~' | b'%');
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if !address.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
                return false;
            }
            ("", port)
        }
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    let is_port = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()));
    host.bytes().all(is_plain) && is_port
}

fn asks_to_upgrade(head: &Parts) -> bool {
    let Some(protocol) = head.headers.get(UPGRADE) else { return false };
    // HTTP/2 by upgrade would go past everything that is looked at here.
    let is_http2 = protocol.as_bytes().get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2"));
    let has_body = head.headers.contains_key(TRANSFER_ENCODING)
        || head.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    let is_named = head.headers.get_all(CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|b| *b == b',')
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    is_named && !is_http2 && !has_body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in ["", "a", "a.example.com:8080", "[::1]", "[::1]:80", "127.0.0.1:1", "under_score"] {
            assert!(is_authority(good), "{good}");
        }
        for bad in ["a b", "a/b", "a@b", "a:b", "a:123456", "[::1", "[x]", "a\tb", "a,b", "[::1]x", "a:1:2"] {
            assert!(!is_authority(bad), "{bad}");
        }
    }
}
