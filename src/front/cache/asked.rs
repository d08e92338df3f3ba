//! What a request wants of the cache.

use std::time::Duration;

use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, COOKIE, IF_MATCH, IF_UNMODIFIED_SINCE, PRAGMA, RANGE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, Method, request};

use super::directives::Directives;

/// Headers with which a request passes the cache by: answers to `Authorization` are for one client, parts and
/// preconditions are the service's business, and a body or another protocol is nothing that a URL stands for.
const PASSED_BY: [HeaderName; 6] =
    [AUTHORIZATION, RANGE, IF_MATCH, IF_UNMODIFIED_SINCE, TRANSFER_ENCODING, UPGRADE];

/// A request as the cache sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// Only the head of the answer is wanted.
    pub(super) head: bool,
    /// It carries cookies, so that its answer may be for one client.
    pub(super) cookies: bool,
    /// It wants no answer that would have to be fetched.
    pub(super) only_if_cached: bool,
    /// The greatest age it takes; none at all when it wants every answer checked.
    max_age: Option<Duration>,
    min_fresh: Duration,
}

impl Asked {
    /// What `request` wants; `None`: nothing to do with the cache.
    pub(super) fn of(request: &request::Parts) -> Option<Self> {
        let headers = &request.headers;
        let head = request.method == Method::HEAD;
        let directives = Directives::of(headers);
        let passes_by = (!head && request.method != Method::GET)
            || PASSED_BY.iter().any(|name| headers.contains_key(name))
            || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
            || directives.has("no-store");
        let no_cache = directives.has("no-cache") || says_no_cache(headers);
        // `max-stale` is not looked at: how old an answer may be is for the service and the file to say.
        (!passes_by).then(|| Self {
            head,
            cookies: headers.contains_key(COOKIE),
            only_if_cached: directives.has("only-if-cached"),
            max_age: if no_cache { Some(Duration::ZERO) } else { directives.time("max-age") },
            min_fresh: directives.time("min-fresh").unwrap_or_default(),
        })
    }

    /// Whether every stored answer has to be checked before this request may have it. "max-age=0" is a browser's
    /// "reload", meant also within the first second.
    pub(super) fn insists(&self) -> bool {
        self.max_age.is_some_and(|max_age| max_age.is_zero())
    }

    /// Whether an answer of this age, fresh for `left` more, has to be.
    pub(super) fn wants_newer(&self, age: Duration, left: Duration) -> bool {
        self.insists() || left < self.min_fresh || self.max_age.is_some_and(|max_age| max_age < age)
    }
}

fn says_no_cache(headers: &HeaderMap) -> bool {
    let says = |text: &str| text.split(',').any(|word| word.trim().eq_ignore_ascii_case("no-cache"));
    headers.get_all(PRAGMA).iter().any(|value| value.to_str().is_ok_and(says))
}
