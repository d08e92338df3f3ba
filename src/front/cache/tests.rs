//! The rules, each shown by what clients get. Times are seconds after the first request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, response};
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::advance;

use super::passes::REMEMBERED;
use super::*;

const SETTINGS: config::http::Cache = config::http::Cache {
    size: 1 << 20,
    max_entry: 1 << 14,
    stale_while_revalidate: Duration::ZERO,
    stale_if_error: Duration::ZERO,
};
const PATIENCE: Duration = Duration::from_secs(5);
const MONDAY: &str = "Mon, 05 Oct 2026 08:00:00 GMT";

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn cache() -> Arc<ResponseCache> {
    Arc::new(ResponseCache::new(&SETTINGS))
}

fn stale(while_revalidate: u64, if_error: u64) -> Arc<ResponseCache> {
    Arc::new(ResponseCache::new(&config::http::Cache {
        stale_while_revalidate: Duration::from_secs(while_revalidate),
        stale_if_error: Duration::from_secs(if_error),
        ..SETTINGS
    }))
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn headers(pairs: Pairs) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        headers.append(name, value);
    }
    headers
}

fn request(method: Method, path: &str, pairs: Pairs) -> request::Parts {
    let (mut parts, ()) = Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
    parts.headers = headers(pairs);
    parts
}

fn get(pairs: Pairs) -> request::Parts {
    request(Method::GET, "/x?y", pairs)
}

fn head(status: u16, pairs: Pairs) -> response::Parts {
    let (mut parts, ()) = Response::builder().status(status).body(()).unwrap().into_parts();
    parts.headers = headers(pairs);
    parts
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("-", |value| value.to_str().unwrap())
}

/// An answer in short: status, `X-Cache`, `Age`, body.
fn short(answer: &Response<Bytes>) -> String {
    let (headers, body) = (answer.headers(), std::str::from_utf8(answer.body()).unwrap());
    let status = answer.status();
    let words = [status.as_str(), text(headers, "x-cache"), text(headers, "age"), body];
    words.join(" ").trim_end().to_owned()
}

/// A look in short: the answer, or what else there is.
fn looked(look: &Look) -> String {
    match look {
        Look::Bypass => "bypass".to_owned(),
        Look::Hit(answer) | Look::Stale { answer, refresh: None } => short(answer),
        Look::Stale { answer, refresh: Some(_) } => format!("{}, refresh", short(answer)),
        Look::Fetch(_) => "fetch".to_owned(),
        Look::OnlyIfCached => "only if cached".to_owned(),
    }
}

fn settled(settled: &Settled) -> String {
    match settled {
        Settled::Pass => "pass".to_owned(),
        Settled::Keep(_) => "keep".to_owned(),
        Settled::Stored(answer) => short(answer),
    }
}

impl ResponseCache {
    async fn see(self: &Arc<Self>, request: &request::Parts, seconds: u64) -> Look {
        self.look(request, "Host", at(seconds), Instant::now() + PATIENCE).await
    }

    async fn short(self: &Arc<Self>, request: &request::Parts, seconds: u64) -> String {
        looked(&self.see(request, seconds).await)
    }

    async fn miss(self: &Arc<Self>, request: &request::Parts, seconds: u64) -> Fetch {
        match self.see(request, seconds).await {
            Look::Fetch(fetch) | Look::Stale { refresh: Some(fetch), .. } => fetch,
            other => panic!("no fetch: {}", looked(&other)),
        }
    }

    /// A request, and what the upstream says to it.
    async fn exchange(
        self: &Arc<Self>,
        request: &request::Parts,
        answer: &response::Parts,
        body: &str,
        seconds: u64,
    ) -> String {
        let settled_as = self.miss(request, seconds).await.settle(answer, at(seconds));
        let short = settled(&settled_as);
        if let Settled::Keep(mut keeping) = settled_as {
            keeping.add(&Bytes::copy_from_slice(body.as_bytes()));
            keeping.finish();
        }
        short
    }
}

#[test]
fn it_may_be_shared_by_threads() {
    fn check<T: Send + Sync>() {}
    check::<ResponseCache>();
    check::<Fetch>();
    check::<Keeping>();
}

#[tokio::test(start_paused = true)]
async fn a_hit_is_the_answer_with_its_age() {
    let cache = cache();
    let answer = head(
        200,
        &[
            ("cache-control", "max-age=60"),
            ("content-type", "text/plain"),
            ("link", "</a>"),
            ("link", "</b>"),
            ("connection", "x-secret, keep-alive"),
            ("x-secret", "1"),
            ("x-cache", "theirs"),
            ("transfer-encoding", "chunked"),
        ],
    );
    assert_eq!(cache.short(&get(&[]), 0).await, "fetch");
    assert_eq!(cache.exchange(&get(&[]), &answer, "hello", 0).await, "keep");
    let Look::Hit(answer) = cache.see(&get(&[]), 7).await else { panic!("no hit") };
    assert_eq!(short(&answer), "200 hit 7 hello");
    assert_eq!(answer.headers().get_all("link").iter().count(), 2);
    assert_eq!(text(answer.headers(), "content-length"), "5");
    assert_eq!(text(answer.headers(), "date"), httpdate::fmt_http_date(at(0)));
    for name in ["connection", "x-secret", "transfer-encoding"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    let head = request(Method::HEAD, "/x?y", &[]);
    let Look::Hit(answer) = cache.see(&head, 7).await else { panic!("no hit") };
    assert_eq!(short(&answer), "200 hit 7");
    assert_eq!(text(answer.headers(), "content-length"), "5");
    assert_eq!(cache.short(&get(&[]), 59).await, "200 hit 59 hello");
    assert_eq!(cache.short(&get(&[]), 60).await, "fetch");
    // A HEAD fetches nothing for others.
    assert_eq!(cache.short(&head, 60).await, "bypass");
    assert_eq!(cache.entries(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_age_an_answer_came_with_counts() {
    let cache = cache();
    let answer = head(200, &[("cache-control", "max-age=60"), ("age", "50")]);
    cache.exchange(&get(&[]), &answer, "x", 0).await;
    assert_eq!(cache.short(&get(&[]), 9).await, "200 hit 59 x");
    assert_eq!(cache.short(&get(&[]), 10).await, "fetch");
    // An absurd one is no trouble.
    let answer =
        head(200, &[("cache-control", "max-age=60"), ("age", "18446744073709551615"), ("etag", "\"\"")]);
    assert_eq!(cache.exchange(&get(&[]), &answer, "x", 10).await, "keep");
    assert_eq!(cache.short(&get(&[]), u64::from(u32::MAX)).await, "fetch");
}

#[tokio::test(start_paused = true)]
async fn what_a_request_wants() {
    let cases: &[(Method, Pairs, &str)] = &[
        (Method::GET, &[], "200 hit 10 x"),
        (Method::HEAD, &[], "200 hit 10"),
        (Method::POST, &[], "bypass"),
        (Method::DELETE, &[], "bypass"),
        (Method::OPTIONS, &[], "bypass"),
        (Method::GET, &[("authorization", "Basic x")], "bypass"),
        (Method::GET, &[("range", "bytes=0-1")], "bypass"),
        (Method::GET, &[("cache-control", "No-Store")], "bypass"),
        (Method::GET, &[("content-length", "3")], "bypass"),
        (Method::GET, &[("content-length", "0")], "200 hit 10 x"),
        (Method::GET, &[("transfer-encoding", "chunked")], "bypass"),
        (Method::GET, &[("if-match", "\"a\"")], "bypass"),
        (Method::GET, &[("upgrade", "websocket")], "bypass"),
        (Method::GET, &[("cache-control", "no-cache")], "fetch"),
        (Method::GET, &[("pragma", "No-Cache")], "fetch"),
        (Method::GET, &[("cache-control", "max-age=0")], "fetch"),
        (Method::GET, &[("cache-control", "max-age=9")], "fetch"),
        (Method::GET, &[("cache-control", "max-age=10")], "200 hit 10 x"),
        (Method::GET, &[("cache-control", "min-fresh=50")], "200 hit 10 x"),
        (Method::GET, &[("cache-control", "min-fresh=51")], "fetch"),
        (Method::GET, &[("cache-control", "only-if-cached")], "200 hit 10 x"),
        (Method::GET, &[("cookie", "a=b")], "fetch"),
    ];
    let cache = cache();
    cache.exchange(&get(&[]), &head(200, &[("cache-control", "max-age=60")]), "x", 0).await;
    for (method, pairs, expected) in cases {
        let request = request(method.clone(), "/x?y", pairs);
        assert_eq!(cache.short(&request, 10).await, *expected, "{method} {pairs:?}");
    }
    let only = [("cache-control", "only-if-cached")];
    assert_eq!(cache.short(&request(Method::GET, "/other", &only), 0).await, "only if cached");
    assert_eq!(cache.short(&request(Method::HEAD, "/other", &only), 0).await, "only if cached");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept() {
    let fresh = ("cache-control", "max-age=60");
    let cases: &[(u16, Pairs, bool)] = &[
        (200, &[fresh], true),
        (200, &[("cache-control", "s-maxage=60")], true),
        (200, &[("cache-control", "S-MaxAge=60")], true),
        (200, &[("expires", "Fri, 15 Jan 2027 09:00:00 GMT")], true),
        (200, &[("expires", "0")], false),
        (404, &[fresh], true),
        (301, &[fresh], true),
        (302, &[fresh], true),
        (204, &[fresh], true),
        // Nothing said, or nothing that helps.
        (200, &[], false),
        (200, &[("etag", "\"a\"")], false),
        (200, &[("last-modified", MONDAY)], false),
        (301, &[], false),
        (200, &[("cache-control", "public")], false),
        (200, &[("cache-control", "immutable")], false),
        (200, &[("cache-control", "max-age=0")], false),
        (200, &[("cache-control", "max-age=-5")], false),
        (200, &[("cache-control", "no-cache")], false),
        (200, &[fresh, ("age", "60")], false),
        // Something to ask about it by.
        (200, &[("cache-control", "no-cache"), ("etag", "\"a\"")], true),
        (200, &[("cache-control", "max-age=0"), ("last-modified", MONDAY)], true),
        (200, &[("cache-control", "max-age=0, stale-while-revalidate=5")], true),
        // Forbidden.
        (200, &[("cache-control", "max-age=60, no-store")], false),
        (200, &[("cache-control", "max-age=60, No-Store")], false),
        (200, &[fresh, ("cache-control", "private")], false),
        (200, &[("cache-control", "public, max-age=60, private=\"x-user\"")], false),
        (200, &[fresh, ("set-cookie", "a=b")], false),
        (200, &[("cache-control", "public, max-age=60"), ("set-cookie", "a=b")], false),
        (200, &[fresh, ("vary", "*")], false),
        (200, &[fresh, ("vary", "accept, *")], false),
        (200, &[fresh, ("vary", "a b")], false),
        (200, &[fresh, ("content-range", "bytes 0-1/2")], false),
        (206, &[fresh], false),
        (304, &[fresh], false),
        (500, &[fresh], false),
        (401, &[fresh], false),
        (429, &[fresh], false),
        (299, &[fresh], false),
        // Too large, or not to be understood.
        (200, &[fresh, ("content-length", "16384")], true),
        (200, &[fresh, ("content-length", "16385")], false),
        (200, &[fresh, ("content-length", "1"), ("content-length", "2")], false),
        (200, &[fresh, ("content-length", "many")], false),
    ];
    for (status, pairs, kept) in cases {
        let fetch = cache().miss(&get(&[]), 0).await;
        let settled = fetch.settle(&head(*status, pairs), at(0));
        assert_eq!(matches!(settled, Settled::Keep(_)), *kept, "{status} {pairs:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_with_cookies_share_what_is_public() {
    let with = get(&[("cookie", "user=1")]);
    for (line, shared) in [
        ("max-age=60", false),
        ("public, max-age=60", true),
        ("s-maxage=60", true),
        ("private, max-age=60", false),
    ] {
        let cache = cache();
        let answer = head(200, &[("cache-control", line)]);
        let expected = if shared { "keep" } else { "pass" };
        assert_eq!(cache.exchange(&with, &answer, "x", 0).await, expected, "{line}");
        cache.invalidate("host", "/x?y");
        cache.exchange(&get(&[]), &answer, "x", 0).await;
        let expected = if shared { "200 hit 0 x" } else { "fetch" };
        assert_eq!(cache.short(&with, 0).await, expected, "{line}");
        assert_eq!(cache.look_stale(&with, "host", at(0)).is_some(), shared, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_whole_bodies_are_kept() {
    let announced = head(200, &[("cache-control", "max-age=60"), ("content-length", "4")]);
    let open = head(200, &[("cache-control", "max-age=60")]);
    let large = "x".repeat(16 << 10);
    for (answer, pieces, ended, kept) in [
        (&announced, &["ab", "cd"][..], true, true),
        (&announced, &["ab"], true, false),
        (&announced, &["ab", "cde"], true, false),
        (&announced, &["ab", "cd"], false, false),
        (&open, &["ab", "cd"], true, true),
        (&open, &[], true, true),
        (&open, &["ab"], false, false),
        (&open, &[&large], true, true),
        (&open, &[&large, "x"], true, false),
    ] {
        let cache = cache();
        let Settled::Keep(mut keeping) = cache.miss(&get(&[]), 0).await.settle(answer, at(0)) else {
            panic!("not kept");
        };
        for piece in pieces {
            keeping.add(&Bytes::copy_from_slice(piece.as_bytes()));
        }
        if ended {
            keeping.finish();
        } else {
            drop(keeping);
        }
        assert_eq!(cache.entries(), u64::from(kept), "{answer:?} {ended}");
        assert_eq!(cache.gathering.load(Ordering::Relaxed), 0);
        let hit = matches!(cache.see(&get(&[]), 0).await, Look::Hit(_));
        assert_eq!(hit, kept);
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_under_way_have_a_bound_too() {
    let cache = Arc::new(ResponseCache::new(&config::http::Cache { size: 1 << 14, ..SETTINGS }));
    let answer = head(200, &[("cache-control", "max-age=60")]);
    let piece = Bytes::from(vec![b'x'; 10 << 10]);
    let mut added = Vec::new();
    let mut under_way = Vec::new();
    for path in ["/a", "/b"] {
        let fetch = cache.miss(&request(Method::GET, path, &[]), 0).await;
        let Settled::Keep(mut keeping) = fetch.settle(&answer, at(0)) else { panic!("not kept") };
        added.push(keeping.add(&piece));
        under_way.push(keeping);
    }
    assert_eq!(added, [true, false]);
    drop(under_way);
    assert_eq!(cache.gathering.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn vary_tells_answers_apart() {
    let cache = cache();
    let answer = head(200, &[("cache-control", "max-age=60"), ("vary", "Accept-Language, accept")]);
    let german = get(&[("accept-language", "de")]);
    let english = get(&[("accept-language", "en")]);
    cache.exchange(&german, &answer, "hallo", 0).await;
    cache.exchange(&english, &answer, "hello", 0).await;
    assert_eq!(cache.short(&german, 1).await, "200 hit 1 hallo");
    assert_eq!(cache.short(&english, 1).await, "200 hit 1 hello");
    assert_eq!(cache.short(&get(&[]), 1).await, "fetch");
    assert_eq!(cache.short(&get(&[("accept-language", "de"), ("accept", "a/b")]), 1).await, "fetch");
    assert_eq!(cache.entries(), 2);
    for n in 0..100 {
        cache.exchange(&get(&[("accept-language", &format!("x-{n}"))]), &answer, "", 2).await;
    }
    assert_eq!(cache.entries(), 32);
    assert_eq!(cache.short(&german, 2).await, "fetch");
    assert_eq!(cache.short(&get(&[("accept-language", "x-99")]), 2).await, "200 hit 0");
    // Keys are told apart by host and all of the path.
    let other = cache.look(&german, "other", at(2), Instant::now()).await;
    assert_eq!(looked(&other), "fetch");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_it_gets_a_304() {
    let cache = cache();
    let answer = head(
        200,
        &[
            ("cache-control", "max-age=60"),
            ("etag", "\"a\""),
            ("last-modified", MONDAY),
            ("content-type", "text/plain"),
        ],
    );
    cache.exchange(&get(&[]), &answer, "x", 0).await;
    assert_eq!(cache.short(&get(&[("if-none-match", "W/\"a\"")]), 3).await, "304 hit 3");
    assert_eq!(cache.short(&get(&[("if-modified-since", MONDAY)]), 3).await, "304 hit 3");
    assert_eq!(cache.short(&get(&[("if-none-match", "\"b\"")]), 3).await, "200 hit 3 x");
    let Look::Hit(answer) = cache.see(&get(&[("if-none-match", "*")]), 3).await else { panic!("no hit") };
    assert_eq!(text(answer.headers(), "etag"), "\"a\"");
    assert!(
        !answer.headers().contains_key("content-type") && !answer.headers().contains_key("content-length")
    );
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_is_asked_about() {
    let cache = cache();
    let answer = head(
        200,
        &[("cache-control", "max-age=60"), ("etag", "\"a\""), ("last-modified", MONDAY), ("x-n", "1")],
    );
    cache.exchange(&get(&[]), &answer, "x", 0).await;
    let fetch = cache.miss(&get(&[("if-none-match", "\"b\"")]), 70).await;
    let mut sent = headers(&[("if-none-match", "\"b\""), ("accept", "a/b")]);
    fetch.conditions(&mut sent);
    assert_eq!(
        sent,
        headers(&[("if-none-match", "\"a\""), ("if-modified-since", MONDAY), ("accept", "a/b")])
    );
    let news =
        head(304, &[("etag", "W/\"a\""), ("x-n", "2"), ("content-length", "0"), ("content-type", "no/no")]);
    let Settled::Stored(answer) = fetch.settle(&news, at(70)) else { panic!("nothing stored") };
    assert_eq!(short(&answer), "200 revalidated 0 x");
    assert_eq!(text(answer.headers(), "x-n"), "2");
    assert_eq!(text(answer.headers(), "content-length"), "1");
    assert!(!answer.headers().contains_key("content-type"));
    assert_eq!(cache.short(&get(&[]), 129).await, "200 hit 59 x");
    assert_eq!(cache.entries(), 1);
    // The client's own condition may fit the answer that is good again.
    let own = get(&[("if-none-match", "\"a\"")]);
    assert_eq!(cache.exchange(&own, &head(304, &[]), "", 140).await, "304 revalidated 0");
    // A new answer takes the place of the old one.
    let new = head(200, &[("cache-control", "max-age=60"), ("etag", "\"b\"")]);
    assert_eq!(cache.exchange(&get(&[]), &new, "y", 300).await, "keep");
    assert_eq!(cache.short(&get(&[]), 301).await, "200 hit 1 y");
    assert_eq!(cache.entries(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_304_may_end_it() {
    let answer = head(200, &[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
    for (news, cookie) in [
        (head(304, &[("etag", "\"other\"")]), "-"),
        (head(304, &[("cache-control", "no-store")]), "-"),
        (head(304, &[("set-cookie", "a=b")]), "a=b"),
    ] {
        let cache = cache();
        cache.exchange(&get(&[]), &answer, "x", 0).await;
        let Settled::Stored(given) = cache.miss(&get(&[]), 70).await.settle(&news, at(70)) else {
            panic!("nothing stored");
        };
        assert_eq!(text(given.headers(), "set-cookie"), cookie);
        assert_eq!((given.status().as_u16(), &given.body()[..]), (200, &b"x"[..]));
        assert_eq!(cache.entries(), 0, "{news:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_kept_ends_what_was() {
    let cache = stale(0, 1000);
    cache.exchange(&get(&[]), &head(200, &[("cache-control", "max-age=60")]), "x", 0).await;
    assert_eq!(cache.exchange(&get(&[]), &head(403, &[]), "", 70).await, "pass");
    assert_eq!(cache.entries(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_no_cache_says_is_asked_about_each_time() {
    let cache = stale(100, 100);
    let answer = head(200, &[("cache-control", "no-cache"), ("etag", "\"a\"")]);
    cache.exchange(&get(&[]), &answer, "x", 0).await;
    let fetches = [cache.miss(&get(&[]), 0).await, cache.miss(&get(&[]), 0).await];
    for fetch in fetches {
        assert!(fetch.stale_on_error(at(0)).is_none());
        assert_eq!(settled(&fetch.settle(&head(304, &[]), at(0))), "200 revalidated 0 x");
    }
}

#[tokio::test(start_paused = true)]
async fn the_clients_conditions_go_to_the_upstream_when_only_it_can_tell() {
    let cache = cache();
    let own = get(&[("if-none-match", "\"a\"")]);
    let fetch = cache.miss(&own, 0).await;
    let mut sent = own.headers.clone();
    fetch.conditions(&mut sent);
    assert!(sent.is_empty());
    // The whole answer comes; its client need not have it.
    let answer = head(200, &[("etag", "\"a\"")]);
    assert_eq!(short(&fetch.not_modified(&answer).unwrap()), "304 miss -");
    assert!(fetch.not_modified(&head(200, &[("etag", "\"b\"")])).is_none());
    assert!(fetch.not_modified(&head(404, &[("etag", "\"a\"")])).is_none());
    assert_eq!(settled(&fetch.settle(&answer, at(0))), "pass");
    // It is not kept: from now on the upstream says whether the client has it.
    let fetch = cache.miss(&own, 0).await;
    let mut sent = own.headers.clone();
    fetch.conditions(&mut sent);
    assert_eq!(sent, own.headers);
    assert_eq!(settled(&fetch.settle(&head(304, &[]), at(0))), "pass");
}

#[tokio::test(start_paused = true)]
async fn one_of_many_refreshes() {
    let cache = stale(30, 0);
    let answer = head(200, &[("cache-control", "max-age=60")]);
    cache.exchange(&get(&[]), &answer, "x", 0).await;
    let Look::Stale { answer: given, refresh: Some(refresh) } = cache.see(&get(&[]), 61).await else {
        panic!("no refresh");
    };
    assert_eq!(short(&given), "200 stale 61 x");
    assert!(!given.headers().contains_key("warning"));
    assert_eq!(cache.short(&get(&[]), 62).await, "200 stale 62 x");
    let only_head = request(Method::HEAD, "/x?y", &[]);
    // Whoever leaves gives the duty back.
    drop(refresh);
    assert_eq!(cache.short(&only_head, 62).await, "200 stale 62");
    assert_eq!(cache.short(&get(&[]), 62).await, "200 stale 62 x, refresh");
    assert_eq!(cache.short(&get(&[("cache-control", "no-cache")]), 62).await, "fetch");
    assert_eq!(
        cache.short(&get(&[("cache-control", "only-if-cached")]), 90).await,
        "200 stale 90 x, refresh"
    );
    assert_eq!(cache.short(&get(&[]), 91).await, "fetch");
    assert_eq!(cache.exchange(&get(&[]), &answer, "y", 80).await, "keep");
    assert_eq!(cache.short(&get(&[]), 81).await, "200 hit 1 y");
}

#[tokio::test(start_paused = true)]
async fn how_long_stale_answers_may_be_given() {
    let while_revalidate = "stale-while-revalidate=5";
    for (line, revalidate, error) in [
        ("max-age=60".to_owned(), 10, 20),
        (format!("max-age=60, {while_revalidate}"), 5, 20),
        ("max-age=60, stale-if-error=0".to_owned(), 10, 0),
        ("max-age=60, stale-if-error=7".to_owned(), 10, 7),
        ("max-age=60, must-revalidate".to_owned(), 0, 0),
        (format!("max-age=60, Must-Revalidate, {while_revalidate}"), 0, 0),
        ("max-age=60, proxy-revalidate".to_owned(), 0, 0),
        ("s-maxage=60".to_owned(), 0, 0),
        (format!("s-maxage=60, {while_revalidate}"), 5, 0),
    ] {
        let cache = stale(10, 20);
        cache.exchange(&get(&[]), &head(200, &[("cache-control", &line)]), "x", 0).await;
        for over in [1, 5, 6, 7, 8, 10, 11, 20, 21] {
            let now = 60 + over;
            let is_stale = matches!(cache.see(&get(&[]), now).await, Look::Stale { .. });
            assert_eq!(is_stale, over <= revalidate, "{line} {over}");
            let given = cache.miss(&get(&[]), now).await.stale_on_error(at(now));
            assert_eq!(given.is_some(), over <= error, "{line} {over}");
            let given = cache.look_stale(&get(&[]), "host", at(now));
            assert_eq!(given.is_some(), over <= error.max(revalidate), "{line} {over}");
        }
        let given = cache.look_stale(&get(&[]), "host", at(3)).unwrap();
        assert_eq!(short(&given), "200 hit 3 x");
    }
}

#[tokio::test(start_paused = true)]
async fn stale_is_better_than_an_error() {
    let cache = stale(0, 100);
    cache.exchange(&get(&[]), &head(200, &[("cache-control", "max-age=60")]), "x", 0).await;
    for status in [500, 502, 503, 504] {
        assert_eq!(cache.exchange(&get(&[]), &head(status, &[]), "", 70).await, "200 stale 70 x");
    }
    assert_eq!(short(&cache.miss(&get(&[]), 70).await.fail(at(70)).unwrap()), "200 stale 70 x");
    // A wish that cannot be met.
    let reload = get(&[("cache-control", "no-cache")]);
    assert_eq!(short(&cache.miss(&reload, 70).await.fail(at(70)).unwrap()), "200 stale 70 x");
    assert_eq!(short(&cache.look_stale(&reload, "host", at(70)).unwrap()), "200 stale 70 x");
    assert!(cache.look_stale(&get(&[("authorization", "x")]), "host", at(70)).is_none());
    assert!(cache.miss(&get(&[]), 161).await.fail(at(161)).is_none());
    assert_eq!(cache.exchange(&get(&[]), &head(503, &[]), "", 161).await, "pass");
    // It says nothing of the answer: that is still there, and others wait for one another as before.
    assert_eq!(cache.entries(), 1);
    let _first = cache.miss(&get(&[]), 161).await;
    assert!(tokio::time::timeout(PATIENCE / 2, cache.see(&get(&[]), 161)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_get_the_stale_answer_too() {
    let cache = stale(0, 100);
    cache.exchange(&get(&[]), &head(200, &[("cache-control", "max-age=60")]), "x", 0).await;
    let fetch = cache.miss(&get(&[]), 70).await;
    let request = get(&[]);
    let mut waiting = Box::pin(cache.short(&request, 70));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut waiting).await.is_err());
    assert!(fetch.fail(at(71)).is_some());
    assert!(waiting.await.starts_with("200 stale 7"));
}

#[tokio::test(start_paused = true)]
async fn changes_are_seen() {
    for (method, status, forgotten) in [
        (Method::PUT, 204, true),
        (Method::POST, 200, true),
        (Method::POST, 303, true),
        (Method::DELETE, 200, true),
        (Method::PATCH, 200, true),
        (Method::POST, 409, false),
        (Method::POST, 500, false),
        (Method::GET, 200, false),
        (Method::HEAD, 200, false),
        (Method::OPTIONS, 200, false),
    ] {
        let cache = stale(1000, 1000);
        cache.exchange(&get(&[]), &head(200, &[("cache-control", "max-age=60")]), "x", 0).await;
        let change = request(method.clone(), "/x?y", &[]);
        cache.note(&change, "HOST", http::StatusCode::from_u16(status).unwrap());
        assert_eq!(cache.entries(), u64::from(!forgotten), "{method} {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_fetched_before_a_change_is_not_kept() {
    let cache = stale(0, 1000);
    let answer = head(200, &[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
    let before = cache.miss(&get(&[]), 0).await;
    cache.invalidate("host", "/x?y");
    // Who comes after the change does not wait for what was asked before it.
    let began = Instant::now();
    let after = cache.miss(&get(&[]), 0).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    let Settled::Keep(keeping) = before.settle(&answer, at(0)) else { panic!("not kept") };
    keeping.finish();
    assert_eq!(cache.entries(), 0);
    let Settled::Keep(keeping) = after.settle(&answer, at(0)) else { panic!("not kept") };
    keeping.finish();
    assert_eq!(cache.entries(), 1);
    let before = cache.miss(&get(&[]), 70).await;
    cache.invalidate("host", "/x?y");
    assert!(before.stale_on_error(at(70)).is_none());
    assert!(matches!(before.settle(&head(304, &[]), at(70)), Settled::Stored(_)));
    assert_eq!(cache.entries(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_has_an_end() {
    let cache = cache();
    let began = Instant::now();
    let first = cache.miss(&get(&[]), 0).await;
    assert_eq!(cache.short(&get(&[]), 0).await, "fetch");
    assert_eq!(began.elapsed(), PATIENCE);
    // What one fetches who did not wait to the end is kept too.
    drop(first);
    assert_eq!(cache.short(&get(&[]), 0).await, "fetch");
    assert_eq!(began.elapsed(), PATIENCE);
}

/// Many clients at once, and an upstream that takes a second and says `answer`; how many fetches, and how long.
async fn crowd(
    cache: &Arc<ResponseCache>,
    requests: Vec<request::Parts>,
    answer: response::Parts,
) -> (usize, Duration) {
    let fetches = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for request in requests {
        let (cache, fetches, answer) = (Arc::clone(cache), Arc::clone(&fetches), answer.clone());
        clients.spawn(async move {
            match cache.look(&request, "host", at(0), Instant::now() + Duration::from_secs(60)).await {
                Look::Hit(answer) => assert_eq!(&answer.body()[..], b"x"),
                Look::Fetch(fetch) => {
                    fetches.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if let Settled::Keep(mut keeping) = fetch.settle(&answer, at(1)) {
                        assert!(keeping.add(&Bytes::from_static(b"x")));
                        keeping.finish();
                    }
                }
                other => panic!("{}", looked(&other)),
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    (fetches.load(Ordering::Relaxed), began.elapsed())
}

fn hundred(pairs: impl Fn(usize) -> Vec<(&'static str, &'static str)>) -> Vec<request::Parts> {
    (0..100).map(|n| get(&pairs(n))).collect()
}

#[tokio::test(start_paused = true)]
async fn one_fetches_for_all() {
    let answer = head(200, &[("cache-control", "max-age=60")]);
    let (fetches, took) = crowd(&cache(), hundred(|_| Vec::new()), answer).await;
    assert_eq!((fetches, took), (1, Duration::from_secs(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn one_fetches_for_all_on_many_threads() {
    let answer = head(200, &[("cache-control", "max-age=60")]);
    assert_eq!(crowd(&cache(), hundred(|_| Vec::new()), answer).await.0, 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_queues_for_what_is_not_kept() {
    let cache = cache();
    let answer = head(200, &[("cache-control", "private")]);
    let (fetches, took) = crowd(&cache, hundred(|_| Vec::new()), answer.clone()).await;
    assert_eq!((fetches, took), (100, Duration::from_secs(2)));
    // The next do not wait at all, for a while.
    let (fetches, took) = crowd(&cache, hundred(|_| Vec::new()), answer).await;
    assert_eq!((fetches, took), (100, Duration::from_secs(1)));
    advance(REMEMBERED).await;
    let (fetches, _) =
        crowd(&cache, hundred(|_| Vec::new()), head(200, &[("cache-control", "max-age=9")])).await;
    assert_eq!(fetches, 1);
}

#[tokio::test(start_paused = true)]
async fn each_variant_is_fetched_once() {
    let languages = ["de", "en", "fr"];
    let answer = head(200, &[("cache-control", "max-age=60"), ("vary", "accept-language")]);
    let requests = hundred(|n| vec![("accept-language", languages[n % 3])]);
    let (fetches, took) = crowd(&cache(), requests, answer).await;
    assert_eq!((fetches, took), (3, Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn cookies_do_not_queue_behind_others() {
    let answer = head(200, &[("cache-control", "max-age=60")]);
    let requests = hundred(|n| if n % 2 == 0 { Vec::new() } else { vec![("cookie", "a=b")] });
    let (fetches, took) = crowd(&cache(), requests, answer).await;
    assert_eq!((fetches, took), (51, Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn when_the_one_leaves_another_fetches() {
    let cache = cache();
    let answer = head(200, &[("cache-control", "max-age=60")]);
    let first = cache.miss(&get(&[]), 0).await;
    let others = crowd(&cache, hundred(|_| Vec::new()), answer.clone());
    let leaves = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        // In the middle of the body.
        let Settled::Keep(keeping) = first.settle(&answer, at(3)) else { panic!("not kept") };
        drop(keeping);
    };
    let (others, ()) = tokio::join!(others, leaves);
    assert_eq!(others, (1, Duration::from_secs(4)));
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_leaves_nothing_behind() {
    let cache = cache();
    let first = cache.miss(&get(&[]), 0).await;
    let request = get(&[]);
    assert!(tokio::time::timeout(PATIENCE / 2, cache.see(&request, 0)).await.is_err());
    drop(first);
    assert_eq!(cache.short(&get(&[]), 0).await, "fetch");
    assert!(cache.flights.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_older_answer_does_not_replace_a_newer_one() {
    let cache = cache();
    let reload = get(&[("cache-control", "no-cache")]);
    let answer = head(200, &[("cache-control", "max-age=60")]);
    let keep = |fetch: Fetch, body: &'static str, seconds| {
        let Settled::Keep(mut keeping) = fetch.settle(&answer, at(seconds)) else { panic!("not kept") };
        assert!(keeping.add(&Bytes::from_static(body.as_bytes())));
        keeping
    };
    let (old, new) = (cache.miss(&reload, 0).await, cache.miss(&reload, 0).await);
    let old = keep(old, "old", 1);
    keep(new, "new", 2).finish();
    old.finish();
    assert_eq!(cache.short(&get(&[]), 2).await, "200 hit 0 new");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn it_never_takes_more_than_its_size(
        size in 1_u64..200_000,
        max_entry in 1_u64..100_000,
        answers in proptest::collection::vec((0..60_u8, 0..4_u8, 0_usize..30_000, any::<bool>()), 1..150),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let cache = Arc::new(ResponseCache::new(&config::http::Cache { size, max_entry, ..SETTINGS }));
            let head = head(200, &[("cache-control", "max-age=60"), ("vary", "accept")]);
            for (path, accept, length, change) in answers {
                let request = request(Method::GET, &format!("/{path}"), &[("accept", &accept.to_string())]);
                if change {
                    cache.invalidate("host", &format!("/{}", path / 2));
                }
                // A fetch that is only looked at must be gone before the next, which would wait for it.
                let misses = matches!(cache.see(&request, 0).await, Look::Fetch(_));
                if misses {
                    cache.exchange(&request, &head, &"x".repeat(length), 0).await;
                }
                prop_assert!(cache.bytes() <= size);
            }
            // Nothing is counted that is not there.
            for path in 0..60 {
                cache.invalidate("host", &format!("/{path}"));
            }
            prop_assert_eq!((cache.bytes(), cache.entries()), (0, 0));
            Ok(())
        })?;
    }

    #[test]
    fn nothing_private_is_ever_kept(
        status in prop::sample::select(vec![200_u16, 203, 204, 301, 302, 404, 410]),
        directives in prop::sample::subsequence(
            vec!["public", "max-age=60", "s-maxage=60", "no-cache", "must-revalidate", "immutable"], 0..=6,
        ),
        secret in 0..4_u8,
        upper in any::<bool>(),
        method in prop::sample::select(vec![Method::GET, Method::HEAD]),
    ) {
        let forbidden = match secret { 0 => "no-store", 1 => "private", _ => "x=1" };
        let mut line = directives.clone();
        line.insert(directives.len() / 2, forbidden);
        let line = if upper { line.join(", ").to_uppercase() } else { line.join(",") };
        let mut said = vec![("cache-control", line.as_str()), ("etag", "\"a\"")];
        let mut asked = Vec::new();
        match secret {
            2 => said.push(("set-cookie", "a=b")),
            3 => asked.push(("authorization", "Bearer x")),
            _ => {}
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let cache = stale(60, 60);
            if let Look::Fetch(fetch) = cache.see(&request(method, "/", &asked), 0).await {
                prop_assert!(matches!(fetch.settle(&head(status, &said), at(0)), Settled::Pass));
            }
            prop_assert_eq!(cache.entries(), 0);
            Ok(())
        })?;
    }
}
