//! Single values: which text a key takes, and what is said when it gets another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::key::Form;
use super::table::listed;
use super::{Balance, CheckKind, LogFormat, LogSessions, MaxLag, NodeAddr, OnTrouble, PatroniAddr, Tls};
use crate::base::role::{Role, Target};
use crate::base::secret::Secret;
use crate::base::text::NAME_MAX;
use crate::base::units::{parse_duration, parse_size};

/// A sort of value.
pub(super) struct Word<T> {
    /// `a time such as 2s`: used where the value itself must not be quoted.
    pub what: &'static str,
    /// The same for a table, a schema, an editor.
    pub form: Form,
    /// Reads it. The error may quote the text.
    pub parse: fn(&str) -> Result<T, String>,
}

/// Longest time accepted anywhere: beyond it a unit was mistaken, and no sum of times can overflow.
const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The port of `PostgreSQL`.
const DEFAULT_PORT: u16 = 5432;
/// The port of Patroni's REST API in its own examples, and in those of everybody else.
pub(super) const PATRONI_PORT: u16 = 8008;

const A_NAME: Form = Form::Like { what: "name", pattern: "^[\\p{L}\\p{N}._:-]+$" };
const AN_ADDRESS: Form = Form::Like { what: "address", pattern: "^[^@/ ]+$" };
const A_BIND: Form = Form::Like { what: "address", pattern: "^[^@/ ]+:[0-9]+$" };
const A_BIND_OR_NONE: Form = Form::Like { what: "address, `\"\"`", pattern: "^([^@/ ]+:[0-9]+)?$" };

pub(super) const TEXT: Word<String> =
    Word { what: "text", form: Form::Text, parse: |text| without_zero(text).map(str::to_owned) };
pub(super) const SECRET: Word<Secret> =
    Word { what: "text", form: Form::Secret, parse: |text| without_zero(text).map(Secret::new) };
pub(super) const NAME: Word<String> = Word { what: "a name", form: A_NAME, parse: name };
pub(super) const YES_NO: Word<bool> = Word { what: "true or false", form: Form::YesNo, parse: yes_no };
pub(super) const TIME: Word<Duration> =
    Word { what: "a time such as 500ms, 2s or 1m", form: Form::Time { or_zero: true }, parse: time };
/// A time that cannot be off.
pub(super) const SOME_TIME: Word<Duration> =
    Word { what: "a time such as 500ms, 2s or 1m", form: Form::Time { or_zero: false }, parse: some_time };
/// A time of which Linux counts whole seconds, 15 bits of them.
pub(super) const KEEPALIVE_TIME: Word<Duration> = Word {
    what: "a time from 1s to 32767s",
    form: Form::Like { what: "1s to 32767s", pattern: "^[0-9]+ ?[a-z]+$" },
    parse: keepalive_time,
};
pub(super) const LAG: Word<Option<MaxLag>> = Word {
    what: "a time such as 30s or a size such as 16MiB",
    form: Form::Like { what: "time, size or 0", pattern: "^(0|off|no|false|[0-9.]+ ?[A-Za-z ]+.*)$" },
    parse: lag,
};
pub(super) const ADDR: Word<NodeAddr> =
    Word { what: "an address such as db1:5432", form: AN_ADDRESS, parse: node_addr };
pub(super) const PATRONI: Word<PatroniAddr> = Word {
    what: "an address such as db1:8008, or a port",
    form: Form::Like { what: "port or address", pattern: "^(http://)?[^@/ ]+/?$" },
    parse: patroni_addr,
};
pub(super) const BIND: Word<SocketAddr> =
    Word { what: "an address such as 127.0.0.1:6432", form: A_BIND, parse: bind };
pub(super) const ADMIN_BIND: Word<Option<SocketAddr>> = Word {
    what: "an address such as 127.0.0.1:8404",
    form: Form::OrOff(&A_BIND_OR_NONE),
    parse: |text| if is_off(text) || text.is_empty() { Ok(None) } else { bind(text).map(Some) },
};
const A_SOCKET: Form = Form::OrOff(&Form::Like { what: "absolute path", pattern: "^(/.*)?$" });
const A_HOST: Form = Form::Like { what: "name", pattern: "^[A-Za-z0-9._-]+$" };

/// `None`: none is meant.
pub(super) const SOCKET: Word<Option<PathBuf>> =
    Word { what: "a path such as /run/pgsplit/admin.sock, or off", form: A_SOCKET, parse: socket };
pub(super) const HOST: Word<String> =
    Word { what: "a host such as pgsplit.example.com", form: A_HOST, parse: host };

pub(super) const WEIGHT: Word<u32> = Word {
    what: "a whole number from 0 to 256",
    form: Form::Number { min: 0, max: 256 },
    parse: |t| number(t, 0, 256),
};
pub(super) const NODE_CONNECTIONS: Word<u32> = Word {
    what: "a whole number from 0 to 1000000",
    form: Form::Number { min: 0, max: 1_000_000 },
    parse: |t| number(t, 0, 1_000_000),
};
pub(super) const CONNECTIONS: Word<u32> = Word {
    what: "a whole number from 1 to 1000000",
    form: Form::Number { min: 1, max: 1_000_000 },
    parse: |t| number(t, 1, 1_000_000),
};
pub(super) const QUEUE_SIZE: Word<u32> = Word {
    what: "a whole number from 0 to 1000000",
    form: Form::Number { min: 0, max: 1_000_000 },
    parse: |t| number(t, 0, 1_000_000),
};
pub(super) const TIMES_IN_A_ROW: Word<u32> = Word {
    what: "a whole number from 1 to 1000",
    form: Form::Number { min: 1, max: 1000 },
    parse: |t| number(t, 1, 1000),
};
pub(super) const RETRIES: Word<u32> = Word {
    what: "a whole number from 0 to 1000",
    form: Form::Number { min: 0, max: 1000 },
    parse: |t| number(t, 0, 1000),
};
pub(super) const PROBES: Word<u32> = Word {
    what: "a whole number from 1 to 127",
    form: Form::Number { min: 1, max: 127 },
    parse: |t| number(t, 1, 127),
};
pub(super) const THREADS: Word<u32> = Word {
    what: "a whole number from 0 to 1024",
    form: Form::Number { min: 0, max: 1024 },
    parse: |t| number(t, 0, 1024),
};

pub(super) const ROLE: Word<Option<Role>> =
    Word { what: "a role", form: Form::Words(&["auto", "primary", "standby", "replica"]), parse: role };
pub(super) const TARGET: Word<Target> = Word {
    what: "a target",
    form: Form::Words(&["any", "read-write", "read-only", "primary", "standby", "replica", "prefer-standby"]),
    parse: target,
};
pub(super) const BALANCE: Word<Balance> = Word {
    what: "a way to balance",
    form: Form::Words(&["leastconn", "roundrobin", "random", "first", "source"]),
    parse: |text| {
        use Balance::{First, Leastconn, Random, Roundrobin, Source};
        one_of(
            text,
            "a way to balance",
            &[Leastconn, Roundrobin, Random, First, Source].map(|b| (b.as_str(), b)),
        )
    },
};
pub(super) const TLS_MODE: Word<Tls> =
    Word { what: "a TLS mode", form: Form::Words(&["passthrough", "off"]), parse: tls_mode };
pub(super) const ON_TROUBLE: Word<OnTrouble> = Word {
    what: "keep, drain or close",
    form: Form::Words(&["keep", "drain", "close"]),
    parse: |text| {
        let words = [("keep", OnTrouble::Keep), ("drain", OnTrouble::Drain), ("close", OnTrouble::Close)];
        one_of(text, "what becomes of sessions", &words)
    },
};
/// `None`: auto.
pub(super) const CHECK_KIND: Word<Option<CheckKind>> = Word {
    what: "a type of check",
    form: Form::Words(&["auto", "tcp", "startup", "login", "patroni"]),
    parse: check_kind,
};
pub(super) const SSLMODE: Word<()> =
    Word { what: "an sslmode", form: Form::Words(&["prefer", "disable"]), parse: sslmode };
pub(super) const LOG_LEVEL: Word<String> = Word {
    what: "a log level",
    form: Form::Like {
        what: "`error`, `warn`, `info`, `debug`, `trace` or a filter",
        pattern: "^[A-Za-z0-9_:.,= -]+$",
    },
    parse: log_level,
};
pub(super) const LOG_FORMAT: Word<LogFormat> = Word {
    what: "a log format",
    form: Form::Words(&["auto", "text", "json"]),
    parse: |text| {
        let words = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
        one_of(text, "a log format", &words)
    },
};
pub(super) const LOG_SESSIONS: Word<LogSessions> = Word {
    what: "off, errors, end or both",
    form: Form::Words(&["off", "errors", "end", "both"]),
    parse: |text| {
        use LogSessions::{Both, End, Errors, Off};
        if is_off(text) {
            return Ok(Off);
        }
        one_of(
            text,
            "a choice of sessions",
            &[("off", Off), ("errors", Errors), ("end", End), ("both", Both)],
        )
    },
};

/// YAML reads a bare `off` or `no` as false; people mean the word.
pub(super) fn is_off(text: &str) -> bool {
    ["off", "no", "false"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Text that can be sent: on the wire a zero byte ends it.
fn without_zero(text: &str) -> Result<&str, String> {
    if text.contains('\0') { Err("holds a zero byte".to_owned()) } else { Ok(text) }
}

fn yes_no(text: &str) -> Result<bool, String> {
    if is_off(text) {
        return Ok(false);
    }
    if ["on", "yes", "true"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Ok(true);
    }
    Err(format!("`{text}` is neither true nor false"))
}

pub(super) fn number(text: &str, min: u32, max: u32) -> Result<u32, String> {
    let digits = text.trim();
    let is_number =
        !digits.is_empty() && digits.trim_start_matches(['-', '+']).bytes().all(|b| b.is_ascii_digit());
    if !is_number {
        return Err(format!("`{text}` is not a whole number from {min} to {max}"));
    }
    match digits.parse::<u32>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("{digits} is out of range: {min} to {max}")),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time > TIME_MAX {
        return Err(format!("`{text}` is longer than 30 days"));
    }
    if !time.is_zero() && time < Duration::from_millis(1) {
        return Err(format!("`{text}` is shorter than 1ms"));
    }
    Ok(time)
}

fn some_time(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    if time.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(time) }
}

fn keepalive_time(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    if time.subsec_nanos() == 0 && (1..=32767).contains(&time.as_secs()) {
        return Ok(time);
    }
    Err(format!("`{text}` is out of range: whole seconds from 1s to 32767s"))
}

fn lag(text: &str) -> Result<Option<MaxLag>, String> {
    let text = text.trim();
    if text == "0" || is_off(text) {
        return Ok(None);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{text}` has no unit: {text}s is time, {text}MiB is log"));
    }
    if text.ends_with(['b', 'B']) {
        let bytes = parse_size(text)?;
        return Ok((bytes > 0).then_some(MaxLag::Bytes(bytes)));
    }
    match time(text) {
        Ok(time) => Ok((!time.is_zero()).then_some(MaxLag::Time(time))),
        Err(_) => Err(format!("`{text}` is neither a time such as 30s nor a size such as 16MiB")),
    }
}

pub(super) fn name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if !text.chars().all(is_plain) {
        return Err(format!("`{text}` is not a name: use letters, digits, `.`, `_`, `-` and `:`"));
    }
    if text.len() > NAME_MAX {
        return Err(format!("is longer than {NAME_MAX} bytes"));
    }
    Ok(text.to_owned())
}

/// A host with an optional port, as in `db1`, `db1:5432` or `[::1]:5432`.
pub(super) fn node_addr(text: &str) -> Result<NodeAddr, String> {
    let text = text.trim();
    if text.contains("://") {
        return Err("a URL cannot stand here: write host:port, or start with --from-url".to_owned());
    }
    if text.contains('@') {
        // What stands before the sign may be a password.
        return Err(
            "no user or password can stand here: write host:port, or start with --from-url".to_owned()
        );
    }
    host_port(text, "db1", DEFAULT_PORT)
}

/// Where a Patroni answers: `db1:8008`, `db1`, `http://db1:8008`, or `8008` on the node's own host.
pub(super) fn patroni_addr(text: &str) -> Result<PatroniAddr, String> {
    let text = text.trim();
    if text.contains('@') {
        // What stands before the sign may be a password.
        return Err("no user or password can stand here: write host:port".to_owned());
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return number(text, 1, 65535)
            .map(|port| PatroniAddr { host: None, port: u16::try_from(port).unwrap_or(PATRONI_PORT) });
    }
    let addr = match text.split_once("://") {
        None => text,
        Some((scheme, addr)) if scheme.eq_ignore_ascii_case("http") => addr.trim_end_matches('/'),
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
            return Err("TLS to Patroni's REST API is not in this version: write host:port".to_owned());
        }
        Some(_) => return Err(format!("`{text}` is not an address such as db1:{PATRONI_PORT}")),
    };
    let NodeAddr { host, port } = host_port(addr, "db1", PATRONI_PORT)?;
    Ok(PatroniAddr { host: Some(host), port })
}

/// A host, and a port unless it is `default`.
pub(super) fn host_port(text: &str, example: &str, default: u16) -> Result<NodeAddr, String> {
    if text.starts_with("unix:") || text.starts_with('/') {
        return Err("Unix sockets are not in this version: write host:port".to_owned());
    }
    if text.matches(':').count() > 1 && !text.starts_with('[') {
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(format!("an IPv6 address needs brackets: [{text}]:{default}"));
        }
        return Err(format!("`{text}` is not an address such as {example}:{default}"));
    }
    let (host, port) = split_port(text)?;
    let port = port.unwrap_or(default);
    if port == 0 {
        return Err("port 0 cannot be connected to".to_owned());
    }
    Ok(NodeAddr { host: host_name(host)?.to_owned(), port })
}

/// The host as it may be looked up: a name, an IPv4 address, or an IPv6 address without brackets.
fn host_name(host: &str) -> Result<&str, String> {
    let is_v6 = host.contains(':');
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_good = if is_v6 {
        host.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
    } else {
        !host.is_empty() && host.len() <= 253 && host.chars().all(is_plain)
    };
    if is_good { Ok(host) } else { Err(format!("`{host}` is not the name or address of a host")) }
}

/// Host without brackets, and port.
fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) =
                rest.split_once(']').ok_or_else(|| format!("`{text}` has no closing bracket"))?;
            if !host.contains(':') {
                return Err(format!("`{text}`: only an IPv6 address stands in brackets"));
            }
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(format!("`{text}`: after the bracket comes `:` and a port")),
            }
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let Some(port) = port else { return Ok((host, None)) };
    let is_digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(port) if is_digits => Ok((host, Some(port))),
        _ if is_digits => Err(format!("port {port} is out of range: 0 to 65535")),
        _ => Err(format!("`{port}` is not a port number")),
    }
}

/// An address to listen on.
pub(super) fn bind(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if text.contains('@') {
        return Err("no URL, user or password can stand here: write 127.0.0.1:6432 or *:6432".to_owned());
    }
    let without_brackets = text.parse::<Ipv6Addr>().is_ok();
    if without_brackets {
        return Err(format!("an IPv6 address needs brackets and a port: [{text}]:6432"));
    }
    let (host, port) = split_port(text)?;
    let port = port.ok_or_else(|| format!("`{text}` has no port: write 127.0.0.1:6432 or *:6432"))?;
    Ok(SocketAddr::new(bind_host(host)?, port))
}

/// The host part of an address to listen on.
pub(super) fn bind_host(host: &str) -> Result<IpAddr, String> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match host {
        "*" => Ok(Ipv4Addr::UNSPECIFIED.into()),
        "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        _ => host.parse().map_err(|_| format!("`{host}` is not an IP address, `localhost` or `*`")),
    }
}

/// The path of a Unix socket. The system has room for 107 bytes of it, and some of them are for the name it is made under.
fn socket(text: &str) -> Result<Option<PathBuf>, String> {
    const MOST: usize = 90;
    let text = without_zero(text)?;
    if text.is_empty() || is_off(text) {
        return Ok(None);
    }
    if MOST < text.len() {
        return Err(format!("`{text}` is longer than {MOST} bytes, and a socket's path must be short"));
    }
    if !text.starts_with('/') {
        return Err(format!("`{text}` does not begin with `/`, so where it is would depend on who asks"));
    }
    Ok(Some(PathBuf::from(text)))
}

/// A host as a browser names it, in lower case and without a port.
fn host(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.len() <= 253 && name.split('.').all(is_label) {
        return Ok(name);
    }
    Err(format!("`{text}` is not a host such as pgsplit.example.com, without scheme and port"))
}

fn role(text: &str) -> Result<Option<Role>, String> {
    match text {
        "auto" => Ok(None),
        "primary" => Ok(Some(Role::Primary)),
        "standby" | "replica" => Ok(Some(Role::Standby)),
        _ => Err(format!("`{text}` is not a role; use auto, primary, standby or replica")),
    }
}

fn target(text: &str) -> Result<Target, String> {
    if text == "replica" {
        return Ok(Target::Standby);
    }
    let found = Target::ALL.into_iter().find(|target| target.as_str() == text);
    found.ok_or_else(|| {
        let words = Target::ALL.map(Target::as_str);
        format!("`{text}` is not a target; use {}", listed(&words, "or"))
    })
}

fn tls_mode(text: &str) -> Result<Tls, String> {
    match text {
        _ if is_off(text) => Ok(Tls::Off),
        "passthrough" => Ok(Tls::Passthrough),
        "terminate" | "require" => Err(format!("`{text}` is not in this version; use passthrough or off")),
        _ => Err(format!("`{text}` is not a TLS mode; use passthrough or off")),
    }
}

fn check_kind(text: &str) -> Result<Option<CheckKind>, String> {
    match text {
        "auto" => Ok(None),
        "tcp" => Ok(Some(CheckKind::Tcp)),
        "startup" => Ok(Some(CheckKind::Startup)),
        "login" => Ok(Some(CheckKind::Login)),
        "patroni" => Ok(Some(CheckKind::Patroni)),
        "query" => Err("`query` is not in this version; use auto, tcp, startup, login or patroni".to_owned()),
        _ => Err(format!("`{text}` is not a type of check; use auto, tcp, startup, login or patroni")),
    }
}

/// libpq's words. Those that promise encryption are refused: a check that quietly went without would be worse.
pub(super) fn sslmode(text: &str) -> Result<(), String> {
    match text {
        "disable" | "prefer" => Ok(()),
        "require" | "verify-ca" | "verify-full" => Err(format!(
            "`{text}` cannot be kept: checks in this version do not speak TLS; use prefer or disable"
        )),
        "allow" => {
            Err("`allow` is refused: it promises no more than prefer and asks for TLS last; use prefer"
                .to_owned())
        }
        _ => Err(format!("`{text}` is not an sslmode; use prefer or disable")),
    }
}

fn log_level(text: &str) -> Result<String, String> {
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let is_level = |word: &str| levels.iter().any(|level| word.eq_ignore_ascii_case(level));
    let is_target = |word: &str| {
        !word.is_empty()
            && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-' | '.'))
    };
    let is_directive = |part: &str| match part.rsplit_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => is_level(part),
    };
    if text.split(',').map(str::trim).all(is_directive) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is not a log level; use error, warn, info, debug or trace, or info,pgsplit::session=debug"
    ))
}

pub(super) fn one_of<T: Copy>(text: &str, what: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("`{text}` is not {what}; use {}", listed(&words, "or"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let good = [
            ("db1", "db1:5432"),
            ("db1:6000", "db1:6000"),
            ("[::1]", "[::1]:5432"),
            ("[fe80::1%eth0]:6000", "[fe80::1%eth0]:6000"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ];
        for (text, expected) in good {
            assert_eq!(node_addr(text).unwrap().to_string(), expected);
        }
        for text in [
            "",
            ":5432",
            "db1:",
            "db1:0",
            "db1:65536",
            "db1:x",
            "::1",
            "a:b:1",
            "[db1]:1",
            "[::1",
            "[::1]x",
            "d b",
        ] {
            assert!(node_addr(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_of_a_patroni() {
        let good = [
            ("8009", None, 8009),
            ("db1", Some("db1"), 8008),
            ("db1:8009", Some("db1"), 8009),
            ("http://db1:8008/", Some("db1"), 8008),
            ("[::1]", Some("::1"), 8008),
        ];
        for (text, host, port) in good {
            assert_eq!(patroni_addr(text).unwrap(), PatroniAddr { host: host.map(str::to_owned), port });
        }
        for text in
            ["", "0", "65536", "db1:", "https://db1:8008", "u:p@db1", "ftp://db1", "http://db1:8008/patroni"]
        {
            assert!(patroni_addr(text).is_err(), "{text}");
        }
    }

    #[test]
    fn binds() {
        let good = [
            ("*:1", "0.0.0.0:1"),
            ("localhost:2", "127.0.0.1:2"),
            ("[::]:0", "[::]:0"),
            ("10.0.0.1:3", "10.0.0.1:3"),
        ];
        for (text, expected) in good {
            assert_eq!(bind(text).unwrap().to_string(), expected);
        }
        for text in ["", "6432", ":6432", "db1:6432", "127.0.0.1", "::1", "*:70000", "*"] {
            assert!(bind(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sockets_and_hosts() {
        let path = |text: &str| Ok(Some(PathBuf::from(text)));
        assert_eq!(socket("/run/pgsplit/admin.sock"), path("/run/pgsplit/admin.sock"));
        assert_eq!((socket(""), socket("off")), (Ok(None), Ok(None)));
        for text in ["admin.sock", "./a", "/a\0b", &format!("/{}", "x".repeat(100))] {
            assert!(socket(text).is_err(), "{text}");
        }
        assert_eq!(host("LB.Example.com."), Ok("lb.example.com".to_owned()));
        for text in ["", "http://a", "a:80", "a b", "a..b", "*.a", "[::1]", "é.de"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lags() {
        assert_eq!(lag("30s"), Ok(Some(MaxLag::Time(Duration::from_secs(30)))));
        assert_eq!(lag("16MiB"), Ok(Some(MaxLag::Bytes(16 << 20))));
        assert_eq!(lag("0"), Ok(None));
        assert_eq!(lag("5").unwrap_err(), "`5` has no unit: 5s is time, 5MiB is log");
        assert!(lag("many").is_err());
    }

    #[test]
    fn numbers_at_the_ends() {
        assert_eq!(number("256", 0, 256), Ok(256));
        for text in ["257", "-1", "99999999999999999999999999"] {
            assert_eq!(number(text, 0, 256).unwrap_err(), format!("{text} is out of range: 0 to 256"));
        }
        for text in ["", "1.5", "heavy", "-", "0x10"] {
            assert!(number(text, 0, 256).is_err(), "{text}");
        }
        assert!(time("584942417355y").is_err());
        assert!(time("99999999999999999999s").is_err());
        assert!(time("1ns").is_err());
    }

    #[test]
    fn log_levels() {
        assert!(log_level("info,pgsplit::session=debug").is_ok());
        assert!(log_level("loud").is_err());
        assert!(log_level("").is_err());
    }
}
