//! One stored answer, and what clients get of it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    AGE, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::conditions;
use super::key::{Key, Selecting, copy};
use super::terms::Terms;

/// Says to clients where their answer comes from.
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// Headers of the way an answer took, not of the answer (RFC 9110 §7.6.1); those that `Connection` names too.
const OF_THE_WAY: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authentication-info"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Headers of the stored body, which a 304 does not change.
const OF_THE_BODY: [HeaderName; 4] = [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE];

/// What an entry takes beside its bytes, and what each header does; rough, and rather too much than too little.
const OVERHEAD: usize = 512;
const OVERHEAD_OF_HEADER: usize = 128;

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// From the cache, fresh.
    Hit,
    /// From the cache, stale.
    Stale,
    /// From an upstream.
    Miss,
    /// From the cache, after an upstream said that it is still right.
    Revalidated,
}

impl Mark {
    /// The value of the header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Revalidated => "revalidated",
        }
    }

    /// Sets `X-Cache`. Answers that the cache gives have it already; for those from an upstream it is
    /// [`Mark::Miss`].
    pub fn set(self, headers: &mut HeaderMap) {
        headers.insert(X_CACHE, HeaderValue::from_static(self.as_str()));
    }
}

/// A whole answer to a GET, the head with which it was asked for as far as `Vary` goes, and its terms.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    pub(super) selecting: Selecting,
    pub(super) terms: Terms,
    /// When its head came, or that of the last 304.
    pub(super) received: SystemTime,
    /// What it counts for of the cache's size, in bytes.
    pub(super) weight: u64,
}

impl Entry {
    /// An answer without its body yet; `request` is what it was asked with.
    pub(super) fn new(
        key: &Key,
        request: &HeaderMap,
        status: StatusCode,
        headers: &HeaderMap,
        terms: Terms,
        received: SystemTime,
    ) -> Self {
        let mut headers = of_the_answer(headers);
        headers.entry(DATE).or_insert_with(|| date(received));
        let selecting = Selecting::of(&terms.vary, request);
        let body = Bytes::new();
        let mut entry = Self { status, headers, body, selecting, terms, received, weight: 0 };
        entry.weigh(key);
        entry
    }

    /// The same with its body.
    pub(super) fn with_body(mut self, key: &Key, body: Bytes) -> Self {
        if self.status != StatusCode::NO_CONTENT {
            self.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        self.body = body;
        self.weigh(key);
        self
    }

    /// Its status and headers after an upstream said 304 with the headers `news`.
    pub(super) fn renewed(&self, news: &HeaderMap) -> (StatusCode, HeaderMap) {
        let mut headers = self.headers.clone();
        let news = of_the_answer(news);
        // Its place is taken by that of the news, also when those have none.
        headers.remove(AGE);
        for name in news.keys().filter(|name| !OF_THE_BODY.contains(name)) {
            headers.remove(name);
            for value in news.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        (self.status, headers)
    }

    /// Its body, not copied.
    pub(super) fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// The headers it is kept with.
    pub(super) const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// How old it is, since an upstream made it or said that it is still right.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        // A clock that was set back makes it no younger than it came.
        self.terms.age.saturating_add(now.duration_since(self.received).unwrap_or_default())
    }

    /// How long it stays fresh; `None`: it is stale.
    pub(super) fn left(&self, now: SystemTime) -> Option<Duration> {
        self.terms.lifetime.checked_sub(self.age(now)).filter(|left| !left.is_zero())
    }

    /// Whether it may be given, with its freshness over by at most `allowed`. Fresh ones always may.
    pub(super) fn may_be_given(&self, allowed: Duration, now: SystemTime) -> bool {
        let over = self.age(now).saturating_sub(self.terms.lifetime);
        self.left(now).is_some() || (!allowed.is_zero() && over <= allowed)
    }

    /// Whether every request has to ask about it first.
    pub(super) fn is_never_fresh(&self) -> bool {
        self.terms.lifetime <= self.terms.age
    }

    /// What the client gets that sent `request`: all of it, only its head, or that the client has it already.
    pub(super) fn give(
        &self,
        request: &HeaderMap,
        head: bool,
        mark: Mark,
        now: SystemTime,
    ) -> Response<Bytes> {
        let mut response = if self.status == StatusCode::OK && conditions::client_has(request, &self.headers)
        {
            not_modified(&self.headers)
        } else {
            let mut response = Response::new(if head { Bytes::new() } else { self.body() });
            *response.status_mut() = self.status;
            self.headers.clone_into(response.headers_mut());
            response
        };
        response.headers_mut().insert(AGE, HeaderValue::from(self.age(now).as_secs()));
        mark.set(response.headers_mut());
        response
    }

    fn weigh(&mut self, key: &Key) {
        let of_headers: usize =
            self.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let (of_selecting, selecting) = self.selecting.size();
        let headers = OVERHEAD_OF_HEADER * (self.headers.len() + selecting);
        let weight = OVERHEAD + key.len() + self.body.len() + of_headers + of_selecting + headers;
        self.weight = u64::try_from(weight).unwrap_or(u64::MAX);
    }
}

/// The 304 for an answer with these headers.
pub(super) fn not_modified(headers: &HeaderMap) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.headers_mut() = conditions::of_not_modified(headers);
    response
}

/// The headers that belong to the answer, copied.
fn of_the_answer(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<_> = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok()).collect();
    let is_named = |name: &HeaderName| {
        named
            .iter()
            .flat_map(|line| line.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case(name.as_str()))
    };
    let belongs = |name: &HeaderName| !OF_THE_WAY.contains(name) && *name != X_CACHE && !is_named(name);
    let mut kept = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in headers.iter().filter(|(name, _)| belongs(name)) {
        kept.append(name.clone(), copy(value));
    }
    kept
}

fn date(at: SystemTime) -> HeaderValue {
    HeaderValue::try_from(httpdate::fmt_http_date(at)).unwrap_or_else(|_| HeaderValue::from_static(""))
}
