//! What a front passes on, both ways: everything of the message, nothing of the connection, and at once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::HeaderMap;

use crate::support::balancer::Balancer;
use crate::support::raw::{Raw, RawUpstream, exchange, header};
use crate::support::upstream::{Answer, Upstream, answer_with, chunked, full, written};
use crate::support::wait::wait_until;
use crate::support::web::{Web, front, get, get_with, request, send};

/// An upstream that answers with the request's body, and a front over it.
async fn echo(more: &str) -> (Upstream, Balancer) {
    let upstream = Upstream::start(|seen| async move {
        answer_with(&[("x-answer", "yes"), ("x-answer", "twice"), ("content-type", "text/x")], seen.body)
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], more)).await;
    (upstream, balancer)
}

#[tokio::test]
async fn status_headers_and_body_pass() {
    let upstream = Upstream::start(|seen| async move {
        let status = seen.target.trim_start_matches('/').parse().unwrap();
        let mut answer = answer_with(
            &[
                ("x-a", "1"),
                ("x-a", "2"),
                ("content-type", "text/x"),
                ("set-cookie", "a=b"),
                ("set-cookie", "c=d"),
            ],
            if status == 204 { "" } else { "the body" },
        );
        *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
        answer
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "retries: 0\npassive: false\n")).await;
    for status in [200, 201, 204, 206, 299, 301, 400, 401, 404, 410, 418, 451, 500, 502, 503, 504, 599] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let got = send(balancer.front(), method, &format!("/{status}"), &[], "").await;
            assert_eq!(got.status, status, "{method}");
            let body = if method == "HEAD" || status == 204 { "" } else { "the body" };
            assert_eq!(got.text(), body, "{method} {status}");
            assert_eq!(got.header("x-a"), "1, 2");
            assert_eq!(got.header("set-cookie"), "a=b, c=d");
            assert_eq!(got.headers.get_all("set-cookie").iter().count(), 2, "cookies are never joined");
            assert_eq!(got.header("content-type"), "text/x");
            if method == "HEAD" && status != 204 {
                assert_eq!(got.header("content-length"), "8", "{status}");
            }
        }
    }
    for (seen, method) in upstream.seen().iter().zip(["GET", "HEAD", "OPTIONS"].iter().cycle()) {
        assert_eq!(seen.method.as_str(), *method);
    }
}

#[tokio::test]
async fn the_request_arrives_as_it_was_sent() {
    let (upstream, balancer) = echo("").await;
    let target = "/a/./b/../c//d%2Fe%20f;x=1?q=%41&q=a+b&&=/?:@!$'()*,";
    let headers = [
        ("host", "Www.Example.COM:8080"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("cookie", "a=b; c=d"),
        ("authorization", "Basic eA=="),
        ("user-agent", "it/1"),
        ("accept-encoding", "gzip"),
        ("range", "bytes=0-1"),
        ("if-none-match", "\"e\""),
    ];
    get_with(balancer.front(), target, &headers).await;
    let seen = upstream.only();
    assert_eq!(seen.target, target);
    assert!(!seen.headers.contains_key("via"), "nobody asked for it");
    for (name, value) in headers {
        let value = if name == "x-a" { "1, 2" } else { value };
        assert_eq!(seen.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn an_asterisk_may_be_asked_for_its_options() {
    let (upstream, balancer) = echo("").await;
    let answer =
        exchange(balancer.front(), "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
    assert_eq!(upstream.only().target, "*");
}

#[tokio::test]
async fn what_is_about_the_clients_connection_stays_there() {
    let (upstream, balancer) = echo("").await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Gone, x-gone-too, TE\r\nX-Gone: 1\r\n\
        X-Gone-Too: 2\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\n\
        TE: trailers, gzip;q=1\r\nTrailer: X-T\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nX-Stays: 3\r\n\r\n";
    let answer = exchange(balancer.front(), request).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
    let seen = upstream.only();
    let gone = ["x-gone", "x-gone-too", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade"];
    for name in gone {
        assert!(!seen.headers.contains_key(name), "{name}: {seen:?}");
    }
    assert!(["", "trailers"].contains(&seen.header("te").as_str()), "{seen:?}");
    let connection = seen.header("connection").to_lowercase();
    assert!(!connection.contains("close") && !connection.contains("gone"), "{seen:?}");
    assert_eq!(seen.header("x-stays"), "3");
}

#[tokio::test]
async fn a_connection_header_cannot_take_away_what_we_say() {
    let (upstream, balancer) = echo("").await;
    let connection = "x-forwarded-for, x-forwarded-host, forwarded, x-request-id, host, keep-alive";
    get_with(balancer.front(), "/", &[("connection", connection)]).await;
    let seen = upstream.only();
    for name in ["x-forwarded-for", "x-forwarded-host", "forwarded", "x-request-id", "host"] {
        assert_ne!(seen.header(name), "", "{name}: {seen:?}");
    }
}

#[tokio::test]
async fn what_is_about_the_upstreams_connection_stays_there() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Gone\r\nX-Gone: 1\r\nKeep-Alive: timeout=9\r\n\
         Proxy-Authenticate: Basic\r\nProxy-Connection: close\r\nX-Stays: 2\r\n\r\nok",
    )
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let got = get(balancer.front(), "/").await;
    for name in ["x-gone", "keep-alive", "proxy-connection"] {
        assert!(!got.headers.contains_key(name), "{name}: {got:?}");
    }
    assert_eq!((got.header("x-stays").as_str(), got.text().as_str()), ("2", "ok"));
    assert!(!got.header("connection").to_lowercase().contains("gone"), "{got:?}");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let (upstream, balancer) = echo("").await;
    let web = Web::connect(balancer.front()).await.unwrap();
    for _ in 0..50 {
        assert_eq!(web.get("/").await.unwrap().status, 200);
    }
    for _ in 0..50 {
        assert_eq!(get(balancer.front(), "/").await.status, 200);
    }
    assert_eq!(upstream.seen().len(), 100);
    assert!(upstream.connections() <= 2, "{} connections for one request at a time", upstream.connections());
}

#[tokio::test]
async fn an_old_client_is_served_as_it_can_be() {
    let (upstream, balancer) = echo("").await;
    let answer = exchange(balancer.front(), "GET /old HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 ") || answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(header(&answer, "transfer-encoding"), None, "HTTP/1.0 knows no chunks: {answer}");
    assert_eq!(upstream.only().target, "/old");

    let upstream = Upstream::start(|_| async { Answer::new(chunked(["one".into(), "two".into()])) }).await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let answer = exchange(balancer.front(), "GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nonetwo") && header(&answer, "transfer-encoding").is_none(), "{answer}");
}

#[tokio::test]
async fn a_large_answer_is_the_same_to_the_byte() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 512;
    let piece =
        |i: usize| (0..PIECE).map(move |at| u8::try_from((i * 31 + at * 7 + at / 256) % 251).unwrap());
    let whole: Bytes = (0..PIECES).flat_map(piece).collect();
    assert_eq!(whole.len(), 32 * 1024 * 1024);
    let copy = whole.clone();
    let upstream = Upstream::start(move |seen| {
        let whole = copy.clone();
        async move {
            match seen.target.as_str() {
                "/known" => Answer::new(full(whole)),
                _ => Answer::new(chunked((0..PIECES).map(move |i| whole.slice(i * PIECE..(i + 1) * PIECE)))),
            }
        }
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    for path in ["/known", "/chunked"] {
        let got = get(balancer.front(), path).await;
        assert_eq!(got.body.len(), whole.len(), "{path}");
        assert!(got.body == whole, "{path}");
        assert_eq!(got.headers.contains_key("content-length"), path == "/known");
    }
}

#[tokio::test]
async fn events_arrive_while_the_answer_is_open() {
    let pens = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&pens);
    let upstream = Upstream::start(move |_| {
        let (pen, body) = written();
        kept.lock().unwrap().push(pen);
        async {
            let mut answer = Answer::new(body);
            answer.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            answer
        }
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let web = Web::connect(balancer.front()).await.unwrap();
    let mut answer = web.begin(request("GET", "/events", &[], full(""))).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let pen = pens.lock().unwrap().pop().unwrap();
    for i in 0..5 {
        let event = format!("data: {i}\n\n");
        pen.write(event.clone());
        let frame = wait_until("the event", async || answer.body_mut().frame().await).await;
        assert_eq!(frame.unwrap().into_data().unwrap(), event);
    }
    // A client that leaves takes its upstream's answer with it.
    drop((answer, web));
    wait_until("the upstream to be left", async || {
        pen.write(": still there?\n\n");
        pen.is_unread()
    })
    .await;
}

#[tokio::test]
async fn trailers_pass() {
    let upstream = Upstream::start(|_| async {
        let (pen, body) = written();
        pen.write("body");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "4".parse().unwrap());
        pen.trailers(trailers);
        let mut answer = Answer::new(body);
        answer.headers_mut().insert("trailer", "x-sum".parse().unwrap());
        answer
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let got = get_with(balancer.front(), "/", &[("te", "trailers")]).await;
    assert_eq!((got.text(), got.trailers.unwrap()["x-sum"].to_str().unwrap()), ("body".into(), "4"));
    // Who does not ask gets the body all the same.
    assert_eq!(get(balancer.front(), "/").await.text(), "body");
}

#[tokio::test]
async fn bodies_of_requests_arrive_whole() {
    let (upstream, balancer) = echo("methods: any\nmax_body: 16MiB\n").await;
    let body: Bytes = (0..8 * 1024 * 1024_u32).map(|i| u8::try_from(i * 7 % 253).unwrap()).collect();
    for (i, method) in ["POST", "PUT", "PATCH", "DELETE", "GET"].into_iter().enumerate() {
        let got = send(balancer.front(), method, "/up", &[], body.clone()).await;
        assert_eq!((got.status, got.body == body), (200, true), "{method}");
        assert_eq!(upstream.seen()[i].header("content-length"), body.len().to_string());
    }
    let pieces = (0..128).map(|i| body.slice(i * 65_536..(i + 1) * 65_536)).collect::<Vec<_>>();
    let web = Web::connect(balancer.front()).await.unwrap();
    let got = web.send(request("POST", "/up", &[], chunked(pieces))).await.unwrap();
    assert!(got.status == 200 && got.body == body);
}

#[tokio::test]
async fn a_client_that_waits_for_its_turn_to_send_gets_it() {
    let (upstream, balancer) = echo("methods: any\n").await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await
        .unwrap();
    assert!(raw.head().await.unwrap().starts_with("HTTP/1.1 100 "));
    raw.send("body").await.unwrap();
    let reply = raw.reply().await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "body"));
    assert_eq!(&upstream.only().body[..], b"body");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let upstream =
        Upstream::start(|seen| async move { crate::support::upstream::answer(200, seen.target) }).await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    let requests: Vec<_> = (0..30).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    raw.send(requests.concat()).await.unwrap();
    for i in 0..30 {
        assert_eq!(raw.reply().await.unwrap().text(), format!("/{i}"));
    }
}

#[tokio::test]
async fn upstreams_are_told_that_we_are_in_between_when_that_is_asked_for() {
    let (upstream, balancer) = echo("via: true\n").await;
    let got = get_with(balancer.front(), "/", &[("via", "1.0 before")]).await;
    let via = upstream.only().header("via");
    assert!(via.starts_with("1.0 before, 1.1 "), "{via}");
    assert!(got.header("via").starts_with("1.1 "), "{got:?}");
}
