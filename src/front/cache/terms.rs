//! Whether an answer may be kept, and how long it may be given.

use std::time::{Duration, SystemTime};

use http::header::{
    AGE, CACHE_CONTROL, CONTENT_RANGE, DATE, ETAG, EXPIRES, LAST_MODIFIED, PRAGMA, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_cache_semantics::{CacheOptions, CachePolicy};

use super::directives::{Directives, seconds};
use crate::config;

/// A service that says nothing did not ask to have its answers kept: nothing is guessed from `Last-Modified` or
/// `immutable`.
const OPTIONS: CacheOptions = CacheOptions {
    shared: true,
    cache_heuristic: 0.0,
    immutable_min_time_to_live: Duration::ZERO,
    ignore_cargo_cult: false,
};

/// Directives of an answer with which it asks to be kept, be it to be checked before each use. So does `Expires`.
const ASKS: [&str; 4] = ["max-age", "s-maxage", "public", "no-cache"];

/// Directives that forbid to give a stale answer, whatever else is said.
const NEVER_STALE: [&str; 3] = ["no-cache", "must-revalidate", "proxy-revalidate"];

/// Directives that allow to give a stale answer for so long.
const STALE: [&str; 2] = ["stale-while-revalidate", "stale-if-error"];

/// On which terms an answer is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// Its age when it came.
    pub(super) age: Duration,
    /// Up to which age it is fresh.
    pub(super) lifetime: Duration,
    /// How long after that it may be given while a fresh one is fetched.
    pub(super) stale_while_revalidate: Duration,
    /// How long after that it may be given when no fresh one can be had.
    pub(super) stale_if_error: Duration,
    /// Requests with cookies may have it too.
    pub(super) public: bool,
    /// The headers that `Vary` names.
    pub(super) vary: Vec<HeaderName>,
}

impl Terms {
    /// The terms for the answer to a GET, which came with `cookies` or without; `None`: it must not be kept.
    pub(super) fn of(
        cookies: bool,
        status: StatusCode,
        headers: &HeaderMap,
        settings: &config::http::Cache,
        now: SystemTime,
    ) -> Option<Self> {
        let directives = Directives::of(headers);
        // By the RFC an answer to a request with cookies may be kept like any other. But a service that tells its
        // users apart by a cookie and forgets `private` would show one user's page to another: only an answer that
        // says that it is for everyone is shared.
        let public = directives.has("public") || directives.has("s-maxage");
        let asks = headers.contains_key(EXPIRES) || ASKS.iter().any(|name| directives.has(name));
        let is_whole = status != StatusCode::PARTIAL_CONTENT && !headers.contains_key(CONTENT_RANGE);
        let is_private = directives.has("private") || headers.contains_key(SET_COOKIE);
        if !asks || !is_whole || is_private || directives.has("no-store") || (cookies && !public) {
            return None;
        }
        let vary = vary(headers)?;
        let lifetime = lifetime(status, headers, &directives, now)?;
        let age = headers.get(AGE).and_then(|age| age.to_str().ok()).map_or(Duration::ZERO, seconds);
        let can_be_asked_about = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
        let may_be_stale = STALE.iter().any(|name| directives.has(name));
        if lifetime <= age && !can_be_asked_about && !may_be_stale {
            return None;
        }
        let [while_revalidate, if_error] = STALE;
        let stale = |name, configured| stale(&directives, lifetime, name, configured);
        Some(Self {
            age,
            lifetime,
            stale_while_revalidate: stale(while_revalidate, settings.stale_while_revalidate),
            stale_if_error: stale(if_error, settings.stale_if_error),
            public,
            vary,
        })
    }
}

/// How long it is fresh by RFC 9111; `None`: it must not be stored.
///
/// The library sees a copy of what matters. It takes names of directives in lower case only, adds up ages without a
/// bound, and takes `proxy-revalidate` for "never fresh".
fn lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &Directives,
    now: SystemTime,
) -> Option<Duration> {
    let mut line: Vec<_> = ["public", "no-cache", "must-revalidate"]
        .into_iter()
        .filter(|name| directives.has(name))
        .map(str::to_owned)
        .collect();
    for name in ["max-age", "s-maxage"] {
        line.extend(directives.time(name).map(|time| format!("{name}={}", time.as_secs())));
    }
    let request = Request::new(());
    let mut response = Response::new(());
    *response.status_mut() = status;
    for name in [EXPIRES, DATE, LAST_MODIFIED, PRAGMA] {
        if let Some(value) = headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    if headers.contains_key(CACHE_CONTROL) {
        let line = HeaderValue::try_from(line.join(", ")).ok()?;
        response.headers_mut().insert(CACHE_CONTROL, line);
    }
    let policy = CachePolicy::new_options(&request, &response, now, OPTIONS);
    policy.is_storable().then(|| policy.time_to_live(now))
}

/// How long it may be given stale (RFC 5861 and RFC 9111 §4.2.4). What is configured holds only for answers that
/// were fresh once; `s-maxage` says of itself that caches like this one must not give it stale, unless the answer says
/// otherwise.
fn stale(directives: &Directives, lifetime: Duration, name: &str, configured: Duration) -> Duration {
    if NEVER_STALE.iter().any(|name| directives.has(name)) {
        return Duration::ZERO;
    }
    match directives.time(name) {
        Some(time) => time,
        None if lifetime.is_zero() || directives.has("s-maxage") => Duration::ZERO,
        None => configured,
    }
}

/// The headers that `Vary` names; `None`: no other request gets the same answer, or it cannot be read.
fn vary(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for line in headers.get_all(VARY) {
        for name in line.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "*" {
                return None;
            }
            names.push(HeaderName::try_from(name).ok()?);
        }
    }
    Some(names)
}
