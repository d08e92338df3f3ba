//! Times and addresses of an `haproxy.cfg`, in our words.

use std::net::{IpAddr, Ipv6Addr};

use crate::base::units::parse_duration;

/// Milliseconds where no unit is written, as HAProxy has it; ours with one.
pub(super) fn time(text: &str) -> Option<String> {
    if text.contains("${") {
        return Some(text.to_owned());
    }
    let with_unit =
        if text.bytes().all(|b| b.is_ascii_digit()) { format!("{text}ms") } else { text.to_owned() };
    let time = parse_duration(&with_unit).ok()?;
    let is_sound = !time.is_zero() && time <= std::time::Duration::from_secs(30 * 24 * 60 * 60);
    is_sound.then(|| humantime::format_duration(time).to_string().replace(' ', ""))
}

/// An address to listen on, in our words.
pub(super) fn bind_addr(addr: &str) -> Result<String, String> {
    let addr = addr.strip_prefix("ipv4@").or_else(|| addr.strip_prefix("ipv6@")).unwrap_or(addr);
    if addr.starts_with('/') || addr.contains('@') {
        return Err("only TCP addresses can be listened on".to_owned());
    }
    let (host, port) = split(addr).ok_or("it has no port")?;
    if port.contains('-') && !port.contains("${") {
        return Err("a range of ports: write a listener for each".to_owned());
    }
    let host = match host {
        "" | "*" => "*".to_owned(),
        "::" | "[::]" => "[::]".to_owned(),
        "localhost" => "127.0.0.1".to_owned(),
        host if host.contains("${") => host.to_owned(),
        host => match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            Ok(ip) => ip.to_string(),
            Err(_) => return Err("a name cannot be listened on: write its address".to_owned()),
        },
    };
    Ok(format!("{host}:{port}"))
}

/// The address of a server, in our words. `default`: the port that clients connect to.
pub(super) fn server_addr(addr: &str, default: Option<&str>) -> Result<String, String> {
    let addr = addr.strip_prefix("ipv4@").or_else(|| addr.strip_prefix("ipv6@")).unwrap_or(addr);
    if addr.starts_with('/') || addr.contains('@') {
        return Err("Unix sockets are not in this version".to_owned());
    }
    if addr.is_empty() {
        return Err("it has no address".to_owned());
    }
    let (host, port) = match split(addr) {
        Some((host, port)) if !port.is_empty() => (host, port),
        Some((host, _)) => (host, default.unwrap_or("5432")),
        None => (addr, default.unwrap_or("5432")),
    };
    if port.starts_with(['+', '-']) {
        return Err("a port that depends on the client's: write it out".to_owned());
    }
    let bare = host.trim_matches(['[', ']']);
    let host = if bare.parse::<Ipv6Addr>().is_ok() { format!("[{bare}]") } else { host.to_owned() };
    Ok(format!("{host}:{port}"))
}

/// Host and port. In brackets, and in the braces of a variable, a colon is none before a port.
fn split(addr: &str) -> Option<(&str, &str)> {
    let mut depth = 0_u32;
    let mut last = None;
    for (at, c) in addr.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => last = Some(at),
            _ => {}
        }
    }
    let (host, port) = addr.split_at_checked(last?)?;
    // The last colon of `::1` is none before a port, that of `:::5432` is.
    let is_v6 = addr.parse::<Ipv6Addr>().is_ok() && addr != "::" && !addr.starts_with(":::");
    (!is_v6).then_some((host, port.strip_prefix(':')?))
}

/// The host of an address.
pub(super) fn host_of(addr: &str) -> &str {
    split(addr).map_or(addr, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_at_the_right_colon() {
        for (text, expected) in [
            ("*:5000", Ok("*:5000")),
            (":5000", Ok("*:5000")),
            (":::5432", Ok("[::]:5432")),
            ("[::1]:5432", Ok("[::1]:5432")),
            ("ipv4@10.0.0.1:5", Ok("10.0.0.1:5")),
            ("*:${PORT:-5000}", Ok("*:${PORT:-5000}")),
            ("${HOST:-10.0.0.1}:5000", Ok("${HOST:-10.0.0.1}:5000")),
            ("localhost:1", Ok("127.0.0.1:1")),
            ("10.0.0.1", Err("it has no port")),
            ("/run/x.sock", Err("only TCP addresses can be listened on")),
            ("db:1", Err("a name cannot be listened on: write its address")),
            ("*:1-9", Err("a range of ports: write a listener for each")),
        ] {
            assert_eq!(bind_addr(text), expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
        for (text, expected) in [
            ("db1", "db1:5432"),
            ("db1:6000", "db1:6000"),
            ("::1", "[::1]:5432"),
            ("[::1]:6000", "[::1]:6000"),
            ("${A:-10.3.0.1}:5432", "${A:-10.3.0.1}:5432"),
            ("${A:-10.3.0.1}", "${A:-10.3.0.1}:5432"),
        ] {
            assert_eq!(server_addr(text, None).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(
            (host_of("[::1]:5432"), host_of("${A:-a:b}:1"), host_of("x")),
            ("[::1]", "${A:-a:b}", "x")
        );
    }
}
