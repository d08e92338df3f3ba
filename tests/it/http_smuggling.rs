//! Requests that two readers could read differently, and garbage: none of them reaches an upstream.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::balancer::Balancer;
use crate::support::raw::{Raw, RawUpstream, exchange};
use crate::support::web::{front, get};

/// What follows a hostile request on its connection: the request that must not be taken for one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Requests with a body framed in ways that differ, by name. `{S}` is the smuggled request.
const FRAMING: &[(&str, &str)] = &[
    ("length and chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}"),
    ("chunks and length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{S}"),
    ("length 0 and chunks", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}"),
    ("chunks in capitals and length", "TRANSFER-ENCODING: CHUNKED\r\ncontent-length: 5\r\n\r\n0\r\n\r\n{S}"),
    ("chunks in mixed case", "transfer-Encoding: cHuNkEd\r\nCONTENT-LENGTH: 5\r\n\r\n0\r\n\r\n{S}"),
    ("xchunked", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{S}"),
    ("chunkedx", "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n{S}"),
    ("xchunked and length", "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{S}"),
    ("quoted chunks", "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n{S}"),
    ("vertical tab before chunked", "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{S}"),
    ("NUL after chunked", "Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n{S}"),
    ("identity", "Transfer-Encoding: identity\r\n\r\n{S}"),
    ("identity and length", "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{S}"),
    ("empty encoding", "Transfer-Encoding:\r\n\r\n0\r\n\r\n{S}"),
    ("empty encoding and length", "Transfer-Encoding: \r\nContent-Length: 5\r\n\r\n0\r\n\r\n{S}"),
    ("chunked, identity", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{S}"),
    ("chunked, gzip", "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n{S}"),
    ("two encodings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{S}"),
    (
        "two encodings, other order",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}",
    ),
    ("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}"),
    ("chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n{S}"),
    ("space before the encoding's colon", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{S}"),
    ("tab before the encoding's colon", "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n{S}"),
    ("space before the length's colon", "Content-Length : 5\r\n\r\nhello{S}"),
    ("folded encoding", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{S}"),
    ("encoding in a fold", "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}"),
    (
        "encoding behind a bare line feed",
        "X: y\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{S}",
    ),
    ("encoding behind a bare carriage return", "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}"),
    ("two lengths", "Content-Length: 0\r\nContent-Length: 5\r\n\r\n{S}"),
    ("two lengths, other order", "Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello{S}"),
    ("two lengths in one", "Content-Length: 5, 6\r\n\r\nhello!{S}"),
    ("plus length", "Content-Length: +5\r\n\r\nhello{S}"),
    ("minus length", "Content-Length: -5\r\n\r\nhello{S}"),
    ("minus no length", "Content-Length: -0\r\n\r\n{S}"),
    ("hexadecimal length", "Content-Length: 0x5\r\n\r\nhello{S}"),
    ("length with a fraction", "Content-Length: 5.0\r\n\r\nhello{S}"),
    ("length with an exponent", "Content-Length: 1e1\r\n\r\nhello{S}"),
    ("length with a space", "Content-Length: 1 0\r\n\r\nhello{S}"),
    ("empty length", "Content-Length: \r\n\r\n{S}"),
    ("length in letters", "Content-Length: five\r\n\r\nhello{S}"),
    ("length in other digits", "Content-Length: \u{0665}\r\n\r\nhello{S}"),
    ("length over 64 bits", "Content-Length: 18446744073709551621\r\n\r\nhello{S}"),
    ("length with an underscore", "Content-Length: 1_0\r\n\r\nhello{S}"),
    ("folded length", "Content-Length:\r\n 5\r\n\r\nhello{S}"),
    ("length with a semicolon", "Content-Length: 5;\r\n\r\nhello{S}"),
];

/// Heads that are wrong in themselves.
const HEADS: &[(&str, &str)] = &[
    ("a fold", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n"),
    ("a fold at once", "GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n"),
    ("a space before a colon", "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"),
    ("a space before the host's colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nwhat is this\r\n\r\n"),
    ("no name", "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n"),
    ("a NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    ("a NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0Y: b\r\n\r\n"),
    ("a carriage return in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb: c\r\n\r\n"),
    ("a carriage return in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\rY: b\r\n\r\n"),
    ("an escape in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x1b[31m\r\n\r\n"),
    ("a DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n"),
    ("a bracket in a name", "GET / HTTP/1.1\r\nHost: a\r\nX(Y): b\r\n\r\n"),
    ("a letter in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\u{e4}: b\r\n\r\n"),
    ("a NUL in the target", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("an escape in the target", "GET /a\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a DEL in the target", "GET /a\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a tab in the target", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a target without a slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a target with a backslash", "GET \\a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("an authority as the target", "GET a.test:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("userinfo in the target", "GET http://u:p@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("no authority in the target", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no version", "GET /\r\nHost: a\r\n\r\n"),
    ("HTTP/0.9", "GET /\r\n\r\n"),
    ("two spaces before the target", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("two spaces behind the target", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a tab behind the method", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a space before the method", " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a space behind the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    ("HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    ("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    ("HTTP/3.0", "GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
    ("http/1.1", "GET / http/1.1\r\nHost: a\r\n\r\n"),
    ("HTTPS/1.1", "GET / HTTPS/1.1\r\nHost: a\r\n\r\n"),
    ("a method with a colon", "GE:T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a method with a NUL", "GE\0T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no host", "GET / HTTP/1.1\r\nX: y\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("the same host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("two hosts in one", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    ("a host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("a host with a slash", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("a host with userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    ("a host with a question mark", "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n"),
    ("a host with a fragment", "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n"),
    ("a host with a backslash", "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n"),
    ("a host with two ports", "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n"),
    ("a host with a port in letters", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    ("TLS", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n"),
    ("what a PostgreSQL client says", "\0\0\0\x08\x04\u{d2}\x16\x2f\r\n\r\n"),
    ("nothing but lines", "\r\n\r\n\r\n\r\nwhat\r\n\r\n"),
];

/// Bodies in chunks that are none.
const CHUNKS: &[(&str, &str)] = &[
    ("letters that are no digits", "zz\r\nhello\r\n0\r\n\r\n{S}"),
    ("no size", "\r\nhello\r\n0\r\n\r\n{S}"),
    ("a negative size", "-5\r\nhello\r\n0\r\n\r\n{S}"),
    ("a plus", "+5\r\nhello\r\n0\r\n\r\n{S}"),
    ("a prefix", "0x5\r\nhello\r\n0\r\n\r\n{S}"),
    ("a space before the size", " 5\r\nhello\r\n0\r\n\r\n{S}"),
    ("more than 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n{S}"),
    ("no line end behind the data", "5\r\nhello0\r\n\r\n{S}"),
    ("longer than its size", "3\r\nhello\r\n0\r\n\r\n{S}"),
    ("a line feed behind the data", "5\r\nhello\n0\r\n\r\n{S}"),
    ("a line feed behind the size", "5\nhello\r\n0\r\n\r\n{S}"),
    ("a carriage return in an extension", "5;a=\rb\r\nhello\r\n0\r\n\r\n{S}"),
    ("a line feed in an extension", "5;a=\nb\r\nhello\r\n0\r\n\r\n{S}"),
    ("a NUL behind the size", "5\0\r\nhello\r\n0\r\n\r\n{S}"),
    ("a line feed at the end", "5\r\nhello\r\n0\n\n{S}"),
    ("a trailer with a line feed", "5\r\nhello\r\n0\r\nX: a\nb\r\n\r\n{S}"),
];

async fn over_raw() -> (RawUpstream, Balancer) {
    let upstream = RawUpstream::answering(OK).await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "methods: any\nretries: 0\n")).await;
    (upstream, balancer)
}

/// Sends bytes, waits for the end of the connection, and says what was wrong with the answer, if anything. The
/// client stays open on its side: it is the front that must close.
async fn wrong_answer(balancer: &Balancer, bytes: &[u8]) -> Option<String> {
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    let _ = raw.send(bytes).await;
    let Ok(answer) = raw.rest().await else { return Some("the connection stays open".to_owned()) };
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4");
    let one = answer.matches("HTTP/1.").count() <= 1;
    (!refused || !one).then_some(answer)
}

/// Each is answered with 4xx or nothing, the connection ends, and no byte of it reaches the upstream.
async fn all_are_refused(requests: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let (upstream, balancer) = over_raw().await;
    let (mut wrong, mut before) = (Vec::new(), 0);
    for (name, bytes) in requests {
        if let Some(answer) = wrong_answer(&balancer, &bytes).await {
            wrong.push(format!("{name}: {answer:?}"));
        }
        let text = upstream.text();
        if text.len() > before {
            wrong.push(format!("{name}: the upstream got {:?}", &text[before..]));
            before = text.len();
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(get(balancer.front(), "/after").await.status, 200, "the front still serves");
    assert!(upstream.text().starts_with("GET /after HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_body_that_could_end_in_two_places_is_refused() {
    for method in ["POST", "GET"] {
        all_are_refused(FRAMING.iter().map(|(name, rest)| {
            let text = format!("{method} / HTTP/1.1\r\nHost: a\r\n{}", rest.replace("{S}", SMUGGLED));
            ((*name).to_owned(), latin1(&text))
        }))
        .await;
    }
}

#[tokio::test]
async fn a_head_that_is_none_is_refused() {
    all_are_refused(
        HEADS.iter().map(|(name, head)| ((*name).to_owned(), latin1(&format!("{head}{SMUGGLED}")))),
    )
    .await;
    let mut long = Vec::new();
    for (name, head) in [
        ("a method without end", format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(100_000))),
        ("a target without end", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(100_000))),
        ("a name without end", format!("GET / HTTP/1.1\r\nHost: a\r\n{}: b\r\n\r\n", "a".repeat(100_000))),
        ("a value without end", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(100_000))),
        ("headers without end", format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(20_000))),
    ] {
        long.push((name.to_owned(), format!("{head}{SMUGGLED}").into_bytes()));
    }
    all_are_refused(long).await;
}

/// Only OPTIONS may ask of a server as a whole.
#[tokio::test]
async fn an_asterisk_is_no_target_to_get() {
    let request = format!("GET * HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}");
    all_are_refused([("an asterisk".to_owned(), request.into_bytes())]).await;
}

/// Chunked requests of HTTP/1.0, which knows no chunks.
#[tokio::test]
async fn chunks_of_an_old_client_are_refused() {
    let rest = format!("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}");
    all_are_refused(
        ["Connection: keep-alive\r\n", "", "Content-Length: 5\r\nConnection: keep-alive\r\n"].map(|more| {
            (more.to_owned(), format!("POST / HTTP/1.0\r\nHost: a\r\n{more}{rest}").into_bytes())
        }),
    )
    .await;
}

/// Header lines end in CR LF. A reader may take a bare LF for that, but the next one may not: so it is refused, or
/// what goes on is written anew.
#[tokio::test]
async fn a_bare_line_feed_ends_nothing_for_the_upstream() {
    let (upstream, balancer) = over_raw().await;
    for head in [
        "GET /lf HTTP/1.1\nHost: a\nConnection: close\n\n",
        "GET /lf HTTP/1.1\r\nHost: a\nConnection: close\r\n\r\n",
        "GET /lf HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\n",
    ] {
        let answer = exchange(balancer.front(), head).await;
        let refused = answer.is_empty() || answer.starts_with(b"HTTP/1.1 4");
        assert!(refused || answer.starts_with(b"HTTP/1.1 200 "), "{head:?}: {}", answer.escape_ascii());
    }
    assert!(!upstream.text().replace("\r\n", "").contains('\n'), "{:?}", upstream.text());
}

#[tokio::test]
async fn equal_lengths_are_one_length_or_refused() {
    let (upstream, balancer) = over_raw().await;
    for lengths in ["Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5, 5"] {
        let text =
            format!("POST /x HTTP/1.1\r\nHost: a\r\n{lengths}\r\nConnection: close\r\n\r\nhello{SMUGGLED}");
        let answer = exchange(balancer.front(), text).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{}", answer.escape_ascii());
    }
    let text = upstream.text().to_lowercase();
    assert!(!text.contains("smuggled"), "{text}");
    assert!(!text.contains("5, 5") && !text.contains("content-length: 5\r\ncontent-length"), "{text}");
}

#[tokio::test]
async fn a_bad_chunk_ends_the_request() {
    let (upstream, balancer) = over_raw().await;
    let mut wrong = Vec::new();
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n{{S}}", "a".repeat(1_000_000));
    let trailers = format!("5\r\nhello\r\n0\r\n{}\r\n{{S}}", "X: y\r\n".repeat(100_000));
    let more = [("an extension without end", long.as_str()), ("trailers without end", trailers.as_str())];
    for (name, body) in CHUNKS.iter().copied().chain(more) {
        let body = body.replace("{S}", SMUGGLED);
        let text = format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        let _ = raw.send(text).await;
        match raw.rest().await {
            // The upstream here answers as soon as it has the head, so its answer may come first.
            Ok(answer) if String::from_utf8_lossy(&answer).matches("HTTP/1.1 ").count() <= 1 => {}
            other => wrong.push(format!("{name}: {other:?}")),
        }
        // A complete body ends with an empty chunk.
        let last = upstream.received().pop().unwrap_or_default();
        if String::from_utf8_lossy(&last).contains("\r\n0\r\n\r\n") {
            wrong.push(format!("{name}: the upstream got a whole body: {}", last.escape_ascii()));
        }
    }
    assert!(!upstream.text().contains("GET /smuggled"), "{}", upstream.text());
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(get(balancer.front(), "/after").await.status, 200);
}

#[tokio::test]
async fn a_body_cut_short_is_never_a_whole_one() {
    let upstream = crate::support::upstream::Upstream::named("a").await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "methods: any\nretries: 0\n")).await;
    for body in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        raw.send(format!("POST /x HTTP/1.1\r\nHost: a\r\n{body}")).await.unwrap();
        raw.end().await.unwrap();
        let answer = raw.closed().await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(get(balancer.front(), "/after").await.status, 200);
    assert_eq!(upstream.only().target, "/after");
}

/// The authority of the target counts, and the upstream hears of no other.
#[tokio::test]
async fn an_absolute_target_has_one_host() {
    let (upstream, balancer) = over_raw().await;
    let text = "GET http://real.test/path HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n";
    let answer = exchange(balancer.front(), text).await;
    if answer.starts_with(b"HTTP/1.1 400 ") {
        assert_eq!(upstream.connections(), 0);
        return;
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
    let text = upstream.text().to_lowercase();
    assert!(text.starts_with("get /path http/1.1\r\n"), "{text}");
    assert!(text.contains("\r\nhost: real.test\r\n") && !text.contains("other.test"), "{text}");
}

#[tokio::test]
async fn a_fragment_or_letters_in_a_target_go_no_further_than_escaped() {
    let (upstream, balancer) = over_raw().await;
    for target in
        ["/a#b", "/\u{e4}", "/a\"b", "/a<b>", "/a|b", "/a{b}", "/a^b", "/a`b", "/%", "/%zz", "/a\\b"]
    {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = exchange(balancer.front(), text).await;
        let fine = answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.1 200 ");
        assert!(fine, "{target}: {}", answer.escape_ascii());
    }
    assert!(!upstream.text().contains('#'), "{}", upstream.text());
}

/// An empty host is allowed by the standard for targets that have none, and is of no use to an upstream.
#[tokio::test]
async fn an_empty_host_hurts_nobody() {
    let (upstream, balancer) = over_raw().await;
    let answer = exchange(balancer.front(), "GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n").await;
    let fine = answer.starts_with(b"HTTP/1.1 400 ") || answer.starts_with(b"HTTP/1.1 200 ");
    assert!(fine, "{}", answer.escape_ascii());
    assert!(upstream.text().matches("ost:").count() <= 2, "{}", upstream.text());
}

/// Answers, too, can be read in two ways: what follows one is never the answer to the next request.
#[tokio::test]
async fn an_answer_that_could_end_in_two_places_answers_nobody_else() {
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    for answer in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{second}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 60\r\n\r\nok{second}"),
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{second}"
        ),
        format!("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok{second}"),
        format!("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n{second}"),
    ] {
        let text: &'static str = Box::leak(answer.into_boxed_str());
        let upstream = RawUpstream::answering(text).await;
        let balancer = Balancer::start_front(&front(&[upstream.addr()], "retries: 0\n")).await;
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        for _ in 0..3 {
            if raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.is_err() {
                break;
            }
            let Ok(reply) = raw.reply().await else { break };
            assert!(!reply.text().starts_with("smuggled"), "{text:?}: {reply:?}");
        }
    }
}

/// The characters up to U+00FF as a byte each.
fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .flat_map(|c| u8::try_from(u32::from(c)).map_or_else(|_| c.to_string().into_bytes(), |b| vec![b]))
        .collect()
}
