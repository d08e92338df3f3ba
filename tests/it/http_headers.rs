//! What a front tells upstreams of the client, whatever the client says of itself; and which methods it lets pass.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::balancer::Balancer;
use crate::support::raw::{Raw, exchange, header};
use crate::support::upstream::{Seen, Upstream};
use crate::support::web::{front, get, get_with};

const SPOOFED: [(&str, &str); 5] = [
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "evil.test"),
    ("forwarded", "for=6.6.6.6;host=evil.test;proto=https"),
    ("x-real-ip", "6.6.6.6"),
];

async fn one(more: &str) -> (Upstream, Balancer) {
    let upstream = Upstream::named("a").await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], more)).await;
    (upstream, balancer)
}

/// What the upstream saw of a request with forged headers.
async fn spoofed(more: &str) -> Seen {
    let (upstream, balancer) = one(more).await;
    get_with(balancer.front(), "/", &SPOOFED).await;
    upstream.only()
}

#[tokio::test]
async fn upstreams_learn_who_asks() {
    let (upstream, balancer) = one("").await;
    get_with(balancer.front(), "/", &[("host", "front.test:8080")]).await;
    let seen = upstream.only();
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), "http");
    assert_eq!(seen.header("x-forwarded-host"), "front.test:8080");
    let forwarded = seen.header("forwarded").to_lowercase();
    for part in ["for=127.0.0.1", "proto=http", "host=\"front.test:8080\""] {
        assert!(forwarded.contains(part), "{forwarded}");
    }
}

#[tokio::test]
async fn a_stranger_cannot_say_who_it_is() {
    // The default trusts nobody, and trust in others is none in us.
    for more in
        ["", "forwarded: append\ntrusted: [10.0.0.0/8]\n", "forwarded: replace\ntrusted: [127.0.0.0/8]\n"]
    {
        let seen = spoofed(more).await;
        assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1", "{more}");
        assert_eq!(seen.header("x-forwarded-proto"), "http", "{more}");
        assert_eq!(seen.header("x-forwarded-host"), "front.test", "{more}");
        let forwarded = seen.header("forwarded");
        assert!(!forwarded.contains("6.6.6.6") && !forwarded.contains("evil"), "{more}: {forwarded}");
    }
}

#[tokio::test]
async fn who_is_trusted_is_believed_and_added_to() {
    let seen = spoofed("forwarded: append\ntrusted: [127.0.0.0/8]\n").await;
    assert_eq!(seen.header("x-forwarded-for").replace(' ', ""), "6.6.6.6,127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), "https");
    assert_eq!(seen.header("x-forwarded-host"), "evil.test");
    let forwarded = seen.header("forwarded");
    assert!(forwarded.starts_with("for=6.6.6.6;host=evil.test;proto=https,"), "{forwarded}");
    assert!(forwarded.to_lowercase().contains("for=127.0.0.1"), "{forwarded}");
}

#[tokio::test]
async fn nothing_is_told_when_that_is_off() {
    let seen = spoofed("forwarded: off\n").await;
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"] {
        assert!(!seen.headers.contains_key(name), "{seen:?}");
    }
}

#[tokio::test]
async fn every_request_has_a_number_of_its_own() {
    let (upstream, balancer) = one("").await;
    for _ in 0..3 {
        get(balancer.front(), "/").await;
    }
    let mut ids: Vec<_> = upstream.seen().iter().map(|seen| seen.header("x-request-id")).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids.iter().all(|id| is_harmless(id)), "{ids:?}");
}

fn is_harmless(id: &str) -> bool {
    (8..=200).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\<>".contains(&byte))
}

#[tokio::test]
async fn a_number_from_a_trusted_peer_is_kept() {
    let (upstream, balancer) = one("trusted: [127.0.0.0/8]\n").await;
    get_with(balancer.front(), "/", &[("x-request-id", "abc-123-DEF_456.7")]).await;
    assert_eq!(upstream.only().header("x-request-id"), "abc-123-DEF_456.7");
}

#[tokio::test]
async fn a_harmful_number_is_not_passed_on() {
    let (upstream, balancer) = one("").await;
    let long = "x".repeat(5000);
    let bad = ["\"quoted\"", "a b c d e f g h", "<script>", "\\\\\\\\\\\\\\\\", "", &long, "ünïcödé-ünïcödé"];
    for id in bad {
        get_with(balancer.front(), "/", &[("x-request-id", id)]).await;
    }
    for seen in upstream.seen() {
        let id = seen.header("x-request-id");
        assert!(is_harmless(&id), "{id}");
    }
}

#[tokio::test]
async fn only_reading_methods_pass_unless_others_are_allowed() {
    let (upstream, balancer) = one("").await;
    for method in
        ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get", "Get", "GETX", "G", "M-SEARCH"]
    {
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        let text = format!("{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        raw.send(text).await.unwrap();
        let reply = raw.reply().await.unwrap();
        assert_eq!(reply.status, 405, "{method}: {reply:?}");
        let allow = reply.header("allow").unwrap_or_default();
        assert_eq!(allow, "GET, HEAD, OPTIONS", "{method}: {reply:?}");
    }
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\nhello").await.unwrap();
    let reply = raw.reply().await.unwrap();
    assert!([400, 405].contains(&reply.status), "{reply:?}");
    assert_eq!(upstream.heads(), 0);
    assert_eq!(get(balancer.front(), "/").await.status, 200);
}

#[tokio::test]
async fn a_refused_body_does_not_become_a_request() {
    let (upstream, balancer) = one("").await;
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let text = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send(text).await.unwrap();
    let reply = raw.reply().await.unwrap();
    assert_eq!(reply.status, 405, "{reply:?}");
    // Either the connection ends here, or the body is passed over and the next request is answered.
    let _ = raw.send("GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let rest = raw.closed().await;
    let answers = String::from_utf8_lossy(&rest).matches("HTTP/1.1 ").count();
    assert!(answers <= 1, "{}", rest.escape_ascii());
    assert!(upstream.seen().iter().all(|seen| seen.target == "/next"), "{:?}", upstream.seen());
}

#[tokio::test]
async fn connect_is_refused_whatever_is_allowed() {
    let (upstream, balancer) = one("methods: any\n").await;
    for target in ["a.test:443", "127.0.0.1:22", "/", "http://a.test/"] {
        let text = format!("CONNECT {target} HTTP/1.1\r\nHost: a.test:443\r\n\r\nhello");
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        raw.send(text).await.unwrap();
        let reply = raw.reply().await.unwrap();
        assert!([400, 405, 501].contains(&reply.status), "{target}: {reply:?}");
    }
    assert_eq!(upstream.heads(), 0);
}

#[tokio::test]
async fn the_allowed_methods_are_those_of_the_file() {
    let (upstream, balancer) = one("methods: [GET, POST]\n").await;
    let statuses = async |method: &str| {
        let text =
            format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        String::from_utf8_lossy(&exchange(balancer.front(), text).await).into_owned()
    };
    assert!(statuses("POST").await.starts_with("HTTP/1.1 200 "));
    let refused = statuses("OPTIONS").await;
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
    assert_eq!(header(refused.split("\r\n\r\n").next().unwrap(), "allow"), Some("GET, POST"), "{refused}");
    assert_eq!(upstream.heads(), 1);
}
