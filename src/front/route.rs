//! Which group a request goes to. Pure.

use crate::config::http::Route;

/// The group of the first route that fits a host, with or without a port, and a path.
#[must_use]
pub fn route(routes: &[Route], host: &str, path: &str) -> Option<usize> {
    routes.iter().find(|route| fits(route, host, path)).map(|route| route.group)
}

fn fits(route: &Route, host: &str, path: &str) -> bool {
    route.host.as_deref().is_none_or(|wanted| is_host(wanted, host))
        && route.path.as_deref().is_none_or(|prefix| is_below(prefix, path))
}

fn is_host(wanted: &str, host: &str) -> bool {
    let host = without_port(host);
    match wanted.strip_prefix('*') {
        // The dot belongs to it, so `*.example.com` is not `example.com`.
        Some(end) => host
            .len()
            .checked_sub(end.len())
            .filter(|start| 0 < *start)
            .is_some_and(|start| host.get(start..).is_some_and(|tail| tail.eq_ignore_ascii_case(end))),
        None => host.eq_ignore_ascii_case(wanted),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_below(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(host: &str, path: &str) -> Option<usize> {
        let route = |host: Option<&str>, path: Option<&str>, group| Route {
            host: host.map(str::to_owned),
            path: path.map(str::to_owned),
            group,
        };
        let routes = [
            route(Some("api.example.com"), Some("/users"), 0),
            route(Some("*.example.com"), None, 1),
            route(None, Some("/users"), 2),
            route(Some("[::1]"), None, 3),
        ];
        super::route(&routes, host, path)
    }

    #[test]
    fn the_first_that_fits() {
        assert_eq!(found("api.example.com", "/users"), Some(0));
        assert_eq!(found("api.example.com:8080", "/users/7"), Some(0));
        assert_eq!(found("api.example.com", "/users2"), Some(1));
        assert_eq!(found("a.B.Example.com", "/"), Some(1));
        assert_eq!(found("example.com", "/users/"), Some(2));
        assert_eq!(found("example.com", "/"), None);
        assert_eq!(found("[::1]:80", "/"), Some(3));
        assert_eq!(found("", "/"), None);
    }
}
