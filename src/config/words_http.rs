//! Single values that only HTTP has; `words.rs` has the others.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use super::NodeAddr;
use super::http::{Forwarded, LogRequests, Network};
use super::key::{Form, SIZE_PATTERN};
use super::table::listed;
use super::words::{Word, host_port, is_off, name, number, one_of};
use crate::base::units::parse_size;

/// The port of HTTP.
const DEFAULT_PORT: u16 = 80;
/// Largest size accepted anywhere: beyond it a unit was mistaken, and no sum of sizes can overflow.
const SIZE_MAX: u64 = 1 << 40;
/// Methods that may be sent twice: the second time changes nothing that the first one did not.
const IDEMPOTENT: [&str; 5] = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"];

pub(super) const UPSTREAM: Word<NodeAddr> = Word {
    what: "an address such as users1:8080",
    form: Form::Like { what: "address", pattern: "^([Hh][Tt][Tt][Pp]://)?[^@/ ]+/?$" },
    parse: upstream_addr,
};
/// `None`: none is meant.
pub(super) const LISTENER: Word<Option<String>> = Word {
    what: "the name of a listener",
    form: Form::Like { what: "name", pattern: "^[\\p{L}\\p{N}._:-]*$" },
    parse: |text| if text.is_empty() { Ok(None) } else { name(text).map(Some) },
};

/// `None`: none is meant.
pub(super) const MONITOR: Word<Option<String>> = Word {
    what: "a path such as /healthz",
    form: Form::Like { what: "path", pattern: "^(/[^ ?#]*)?$" },
    parse: |text| match text {
        "" => Ok(None),
        _ if text.contains('?') => {
            Err(format!("`{text}` is more than a path: leave out what begins with `?`"))
        }
        _ => check_path(text).map(Some),
    },
};

pub(super) const CHECK_PATH: Word<String> = Word {
    what: "a path such as /health",
    form: Form::Like { what: "path", pattern: "^/[^ #]*$" },
    parse: check_path,
};
pub(super) const CHECK_HOST: Word<Option<String>> = Word {
    what: "a host such as users.example.com",
    form: Form::Like { what: "host", pattern: "^[^@/ ]*$" },
    parse: check_host,
};
pub(super) const EXPECT: Word<Vec<RangeInclusive<u16>>> = Word {
    what: "status codes such as 200-399 or 200,204",
    form: Form::Like { what: "status codes", pattern: "^[0-9 ,-]+$" },
    parse: expect,
};

/// `None`: every host.
pub(super) const ROUTE_HOST: Word<Option<String>> = Word {
    what: "a host such as api.example.com or *.example.com",
    form: Form::Like { what: "host", pattern: "^[^@/: ]*$" },
    parse: route_host,
};
/// `None`: every path.
pub(super) const ROUTE_PATH: Word<Option<String>> = Word {
    what: "the start of a path, such as /users",
    form: Form::Like { what: "path", pattern: "^(/[^ ?#]*)?$" },
    parse: route_path,
};

/// The only word that may stand instead of a list of methods.
pub(super) const ANY_METHOD: Word<()> = Word {
    what: "a list of methods such as [GET, HEAD], or any",
    form: Form::Words(&["any"]),
    parse: |text| match text {
        "any" => Ok(()),
        _ => Err(format!("`{text}` is no list: write [GET, HEAD, OPTIONS], or any")),
    },
};
pub(super) const METHOD: Word<String> = Word {
    what: "a method such as GET",
    form: Form::Like { what: "methods", pattern: "^[^a-z ]+$" },
    parse: method,
};
pub(super) const METHOD_TWICE: Word<String> =
    Word { what: "a method such as GET", form: Form::Words(&IDEMPOTENT), parse: idempotent_method };
/// Answers that another upstream might not give.
pub(super) const STATUS: Word<u32> = Word {
    what: "a status code from 400 to 599",
    form: Form::Number { min: 400, max: 599 },
    parse: |t| number(t, 400, 599),
};
/// `None`: no limit.
pub(super) const BUDGET: Word<Option<u32>> = Word {
    what: "a share such as 20%, or off",
    form: Form::OrOff(&Form::Like { what: "percent", pattern: "^[0-9]+%$" }),
    parse: budget,
};

pub(super) const FORWARDED: Word<Forwarded> = Word {
    what: "append, replace or off",
    form: Form::Words(&["append", "replace", "off"]),
    parse: |text| {
        use Forwarded::{Append, Off, Replace};
        if is_off(text) {
            return Ok(Off);
        }
        one_of(text, "a choice", &[("append", Append), ("replace", Replace), ("off", Off)])
    },
};
pub(super) const NETWORK: Word<Network> = Word {
    what: "a network such as 10.0.0.0/8, or an address",
    form: Form::Like { what: "networks", pattern: "^[0-9A-Fa-f.:]+( */ *[0-9]+)?$" },
    parse: network,
};

pub(super) const HEADER_SIZE: Word<u64> = Word {
    what: "a size from 1KiB to 1MiB",
    form: Form::Like { what: "1KiB to 1MiB", pattern: SIZE_PATTERN },
    parse: |text| match size(text)? {
        bytes @ 0x400..=0x10_0000 => Ok(bytes),
        _ => Err(format!("`{text}` is out of range: 1KiB to 1MiB")),
    },
};
/// `None`: no limit.
pub(super) const BODY_SIZE: Word<Option<u64>> = Word {
    what: "a size such as 1MiB, or 0",
    form: Form::Size { or_zero: true },
    parse: |text| size(text).map(|size| (size > 0).then_some(size)),
};
/// `None`: no cache.
pub(super) const CACHE_SIZE: Word<Option<u64>> = Word {
    what: "a size such as 64MiB, or off",
    form: Form::OrOff(&Form::Size { or_zero: true }),
    parse: |text| if is_off(text) { Ok(None) } else { (BODY_SIZE.parse)(text) },
};
pub(super) const ENTRY_SIZE: Word<u64> = Word {
    what: "a size such as 1MiB",
    form: Form::Size { or_zero: false },
    parse: |text| match size(text)? {
        0 => Err("must be more than 0".to_owned()),
        bytes => Ok(bytes),
    },
};

pub(super) const LOG_REQUESTS: Word<LogRequests> = Word {
    what: "off, errors, all, or a share such as 1/100",
    form: Form::OrOff(&Form::Like { what: "`errors`, `all`, `1/N`", pattern: "^(errors|all|1/[0-9]+)$" }),
    parse: log_requests,
};

fn upstream_addr(text: &str) -> Result<NodeAddr, String> {
    let text = text.trim();
    if text.contains('@') {
        // What stands before the sign may be a password.
        return Err("no user or password can stand here: write host:port".to_owned());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return host_port(text, "users1", DEFAULT_PORT);
    };
    if scheme.eq_ignore_ascii_case("https") {
        return Err("TLS to upstreams is not in this version: write http:// or host:port".to_owned());
    }
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(format!("`{text}` is not an address such as users1:8080 or http://users1:8080"));
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(format!("`{text}`: nothing can stand after the port; requests keep their path"));
    }
    host_port(authority, "users1", DEFAULT_PORT)
}

fn check_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` does not start with `/`"));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("`{text}` holds a space or a control character; write it as %20"));
    }
    if text.contains('#') || !text.is_ascii() || ::http::uri::PathAndQuery::try_from(text).is_err() {
        return Err(format!("`{text}` is not a path that can be asked for"));
    }
    Ok(text.to_owned())
}

fn check_host(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.contains('@') || ::http::uri::Authority::try_from(text).is_err() {
        return Err("is not a host such as users.example.com or users.example.com:8080".to_owned());
    }
    Ok(Some(text.to_owned()))
}

/// `200-399`, `200,204,301-302` or `200`.
fn expect(text: &str) -> Result<Vec<RangeInclusive<u16>>, String> {
    let code = |code: &str| {
        let code = code.trim();
        let is_three_digits = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit());
        let number = code.parse().ok().filter(|code| is_three_digits && (100..=599).contains(code));
        number.ok_or_else(|| format!("`{code}` is not a status code from 100 to 599"))
    };
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range: RangeInclusive<u16> = code(first)?..=code(last)?;
        if range.is_empty() {
            Err(format!("`{}` is empty: it ends before it starts", part.trim()))
        } else {
            Ok(range)
        }
    };
    text.split(',').map(range).collect()
}

fn route_host(text: &str) -> Result<Option<String>, String> {
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if host.is_empty() || host == "*" {
        return Ok(None);
    }
    if host.contains(':') {
        return Err(format!(
            "`{text}` has a port or a scheme: a route fits whatever they are; write the host alone"
        ));
    }
    let name = host.strip_prefix("*.").unwrap_or(&host);
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(format!("`{text}` is not a host such as api.example.com or *.example.com"));
    }
    Ok(Some(host))
}

fn route_path(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(all_below) = text.strip_suffix("/*") {
        let path = if all_below.is_empty() { "/" } else { all_below };
        return Err(format!("`{text}`: write {path}, which fits everything below it"));
    }
    let path = check_path(text)?;
    if path.contains('?') {
        return Err(format!("`{text}` has a query: only the path decides"));
    }
    let path = path.trim_end_matches('/');
    Ok((!path.is_empty()).then(|| path.to_owned()))
}

fn method(text: &str) -> Result<String, String> {
    let is_token = ::http::Method::from_bytes(text.as_bytes()).is_ok();
    if !is_token {
        return Err(format!("`{text}` is not a method such as GET"));
    }
    if text.bytes().any(|b| b.is_ascii_lowercase()) {
        let upper = text.to_ascii_uppercase();
        return Err(format!("`{text}` is not a method: they are in upper case; did you mean {upper}?"));
    }
    if matches!(text, "TRACE" | "CONNECT") {
        return Err(format!("`{text}` is never passed on"));
    }
    Ok(text.to_owned())
}

fn idempotent_method(text: &str) -> Result<String, String> {
    let method = method(text)?;
    if IDEMPOTENT.contains(&method.as_str()) {
        return Ok(method);
    }
    let why =
        if matches!(text, "POST" | "PATCH") { "is not idempotent" } else { "is not known to be idempotent" };
    Err(format!("`{method}` {why}: only {} may be sent twice", listed(&IDEMPOTENT, "and")))
}

fn budget(text: &str) -> Result<Option<u32>, String> {
    if is_off(text) {
        return Ok(None);
    }
    match text.strip_suffix('%') {
        Some(percent) => number(percent, 0, 1000).map(Some),
        None if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            Err(format!("`{text}` has no unit: did you mean {text}%?"))
        }
        None => Err(format!("`{text}` is not a share such as 20%, nor off")),
    }
}

fn network(text: &str) -> Result<Network, String> {
    let wrong = || format!("`{text}` is not a network such as 10.0.0.0/8, nor an address");
    let (addr, bits) = text.split_once('/').map_or((text, None), |(addr, bits)| (addr, Some(bits)));
    let addr: IpAddr = addr.trim().parse().map_err(|_| wrong())?;
    let most: u8 = if addr.is_ipv4() { 32 } else { 128 };
    let bits = match bits.map(str::trim) {
        None => most,
        Some(bits) => {
            let is_number = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
            let number = bits.parse().ok().filter(|bits| *bits <= most);
            match number {
                Some(number) if is_number => number,
                _ if is_number => return Err(format!("`{text}`: {bits} is out of range: 0 to {most}")),
                _ => return Err(wrong()),
            }
        }
    };
    // An IPv4 network written as IPv6 is meant for the clients it names, which are known by their IPv4 address.
    let canonical = addr.to_canonical();
    if canonical == addr {
        return Ok(Network { addr, bits });
    }
    match bits.checked_sub(96) {
        Some(bits) => Ok(Network { addr: canonical, bits }),
        None => Err(format!("`{text}` is more than all of IPv4: write 0.0.0.0/0 or ::/0")),
    }
}

fn size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        bytes if bytes <= SIZE_MAX => Ok(bytes),
        _ => Err(format!("`{text}` is larger than 1TiB")),
    }
}

fn log_requests(text: &str) -> Result<LogRequests, String> {
    if is_off(text) {
        return Ok(LogRequests::Off);
    }
    if let Some(share) = text.strip_prefix("1/") {
        let share = number(share, 1, 1_000_000)?;
        return Ok(LogRequests::OneOf(NonZeroU32::new(share).unwrap_or(NonZeroU32::MIN)));
    }
    match text {
        "errors" => Ok(LogRequests::Errors),
        "all" => Ok(LogRequests::OneOf(NonZeroU32::MIN)),
        _ => Err(format!(
            "`{text}` is not a choice of requests; use off, errors, all, or a share such as 1/100"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams() {
        for (text, expected) in [
            ("users1", "users1:80"),
            ("users1:8080", "users1:8080"),
            ("http://users1:8080", "users1:8080"),
            ("HTTP://users1/", "users1:80"),
            ("http://[::1]:1/", "[::1]:1"),
        ] {
            assert_eq!(upstream_addr(text).unwrap().to_string(), expected);
        }
        for text in
            ["", "https://a", "ftp://a", "http://", "http://a/b", "http://a?b", "a/b", "::1", "/run/a"]
        {
            assert!(upstream_addr(text).is_err(), "{text}");
        }
        for text in ["http://u:hunter2@a", "u:hunter2@a:80", "https://u:hunter2@a"] {
            assert!(!upstream_addr(text).unwrap_err().contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn expected_codes() {
        assert_eq!(expect("200-399"), Ok(vec![200..=399]));
        assert_eq!(expect("200, 204,301-302"), Ok(vec![200..=200, 204..=204, 301..=302]));
        for text in ["", "20", "600", "0200", "+200", "200-", "399-200", "200,,204", "2xx"] {
            assert!(expect(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_and_paths_of_routes() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(route_host("API.Example.com."), some("api.example.com"));
        assert_eq!(route_host("*.Example.com"), some("*.example.com"));
        assert_eq!((route_host(""), route_host("*")), (Ok(None), Ok(None)));
        for text in ["a:80", "http://a", "a b", "a..b", "*.*.a", "a*", "é.de", "[::1]", ".."] {
            assert!(route_host(text).is_err(), "{text}");
        }
        assert_eq!(route_path("/users/"), some("/users"));
        assert_eq!((route_path("/"), route_path("")), (Ok(None), Ok(None)));
        assert_eq!(route_path("/a/*").unwrap_err(), "`/a/*`: write /a, which fits everything below it");
        for text in ["users", "/*", "/a b", "/a?b", "/a#b", "/é", "/a\u{7f}"] {
            assert!(route_path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn methods() {
        assert_eq!(method("PROPFIND"), Ok("PROPFIND".to_owned()));
        assert!(method("get").unwrap_err().ends_with("did you mean GET?"));
        for text in ["", "G T", "TRACE", "CONNECT", "Get"] {
            assert!(method(text).is_err(), "{text}");
        }
        assert!(idempotent_method("PUT").is_ok());
        assert!(idempotent_method("POST").is_err());
    }

    #[test]
    fn networks() {
        for (text, addr, bits) in [
            ("10.0.0.0/8", "10.0.0.0", 8),
            ("10.0.0.1", "10.0.0.1", 32),
            ("fd00::/8", "fd00::", 8),
            ("::1", "::1", 128),
            ("::ffff:10.0.0.0/104", "10.0.0.0", 8),
        ] {
            assert_eq!(network(text), Ok(Network { addr: addr.parse().unwrap(), bits }));
        }
        for text in
            ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "10/8", "db1", "::ffff:1.2.3.4/90"]
        {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_and_sizes() {
        assert_eq!((budget("20%"), budget("0%"), budget("off")), (Ok(Some(20)), Ok(Some(0)), Ok(None)));
        assert_eq!(budget("20").unwrap_err(), "`20` has no unit: did you mean 20%?");
        assert!(budget("-1%").is_err() && budget("%").is_err() && budget("1001%").is_err());
        assert_eq!(log_requests("1/100"), Ok(LogRequests::OneOf(NonZeroU32::new(100).unwrap())));
        assert!(log_requests("1/0").is_err() && log_requests("2/3").is_err());
        assert_eq!((BODY_SIZE.parse)("0"), Ok(None));
        assert!(size("2TiB").is_err() && size("-1").is_err() && size("").is_err());
        assert!((HEADER_SIZE.parse)("1KiB").is_ok() && (HEADER_SIZE.parse)("1023").is_err());
    }
}
