//! Conditions of requests, and whether an answer fits them.

use std::time::SystemTime;

use http::header::{
    AGE, CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED, VARY,
};
use http::{HeaderMap, HeaderValue};

/// What a 304 carries of the answer it stands for (RFC 9110 §15.4.5).
const OF_NOT_MODIFIED: [HeaderName; 8] =
    [AGE, CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, LAST_MODIFIED, VARY];

/// Whether the client that sent `request` has the answer with these headers already. Only asked of a 200.
pub(super) fn client_has(request: &HeaderMap, answer: &HeaderMap) -> bool {
    // `If-Modified-Since` counts only without the other.
    if request.contains_key(IF_NONE_MATCH) {
        return names_tag(request, answer.get(ETAG));
    }
    let date = |headers: &HeaderMap, name| date_of(headers.get(name));
    match (date(request, IF_MODIFIED_SINCE), date(answer, LAST_MODIFIED)) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

/// Asks, in place of what the client asked, whether the answer with the headers `stored` is still right.
pub(super) fn ask_about(stored: &HeaderMap, request: &mut HeaderMap) {
    forget(request);
    for (validator, condition) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
        if let Some(value) = stored.get(validator) {
            request.insert(condition, value.clone());
        }
    }
}

/// Takes the client's conditions away: the whole answer is wanted.
pub(super) fn forget(request: &mut HeaderMap) {
    request.remove(IF_NONE_MATCH);
    request.remove(IF_MODIFIED_SINCE);
}

/// Whether a 304 with the headers `news` speaks of the answer with the headers `stored`: it names no other tag.
pub(super) fn speaks_of(news: &HeaderMap, stored: &HeaderMap) -> bool {
    match (news.get(ETAG), stored.get(ETAG)) {
        (Some(new), Some(old)) => bare(new.as_bytes()) == bare(old.as_bytes()),
        (Some(_), None) => false,
        (None, _) => true,
    }
}

/// The headers of a 304 for the answer with these.
pub(super) fn of_not_modified(answer: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(OF_NOT_MODIFIED.len());
    for name in OF_NOT_MODIFIED {
        for value in answer.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

fn names_tag(request: &HeaderMap, tag: Option<&HeaderValue>) -> bool {
    request.get_all(IF_NONE_MATCH).iter().any(|line| {
        let line = line.as_bytes();
        line.trim_ascii() == b"*"
            || tag.is_some_and(|tag| tags(line).any(|named| named == bare(tag.as_bytes())))
    })
}

/// The tags of a list, without their `W/`. A tag may hold commas: it ends at its second quote.
fn tags(mut line: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let start = line.iter().position(|byte| *byte == b'"')?;
        let rest = line.get(start + 1..)?;
        let end = rest.iter().position(|byte| *byte == b'"')?;
        let tag = line.get(start..start + end + 2);
        line = rest.get(end + 1..)?;
        tag
    })
}

/// A tag without its `W/`: whether a client has an answer is asked of weak tags too.
fn bare(tag: &[u8]) -> &[u8] {
    let tag = tag.trim_ascii();
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn date_of(value: Option<&HeaderValue>) -> Option<SystemTime> {
    httpdate::parse_http_date(value?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY: &str = "Mon, 05 Oct 2026 08:00:00 GMT";
    const TUESDAY: &str = "Tue, 06 Oct 2026 08:00:00 GMT";

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_a_client_has() {
        let tagged = headers(&[(ETAG, "\"a,b\""), (LAST_MODIFIED, MONDAY)]);
        for (asked, has) in [
            (headers(&[(IF_NONE_MATCH, "\"a,b\"")]), true),
            (headers(&[(IF_NONE_MATCH, "W/\"a,b\"")]), true),
            (headers(&[(IF_NONE_MATCH, "\"x\", W/\"a,b\" , \"y\"")]), true),
            (headers(&[(IF_NONE_MATCH, "*")]), true),
            (headers(&[(IF_NONE_MATCH, "\"a\"")]), false),
            (headers(&[(IF_NONE_MATCH, "a,b")]), false),
            (headers(&[(IF_NONE_MATCH, "\"a,b")]), false),
            (headers(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, TUESDAY)]), false),
            (headers(&[(IF_MODIFIED_SINCE, MONDAY)]), true),
            (headers(&[(IF_MODIFIED_SINCE, TUESDAY)]), true),
            (headers(&[(IF_MODIFIED_SINCE, "Sun, 04 Oct 2026 08:00:00 GMT")]), false),
            (headers(&[(IF_MODIFIED_SINCE, "yesterday")]), false),
            (headers(&[]), false),
        ] {
            assert_eq!(client_has(&asked, &tagged), has, "{asked:?}");
        }
        assert!(!client_has(&headers(&[(IF_NONE_MATCH, "\"a\"")]), &HeaderMap::new()));
        assert!(!client_has(&headers(&[(IF_MODIFIED_SINCE, MONDAY)]), &HeaderMap::new()));
    }

    #[test]
    fn whose_a_304_is() {
        let tagged = headers(&[(ETAG, "\"a\"")]);
        assert!(speaks_of(&headers(&[]), &tagged));
        assert!(speaks_of(&headers(&[(ETAG, "W/\"a\"")]), &tagged));
        assert!(!speaks_of(&headers(&[(ETAG, "\"b\"")]), &tagged));
        assert!(!speaks_of(&headers(&[(ETAG, "\"b\"")]), &headers(&[(LAST_MODIFIED, MONDAY)])));
    }
}
