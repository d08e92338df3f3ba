//! Which requests are given to another upstream, how often, and which never.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::{Arc, Mutex};

use crate::support::balancer::Balancer;
use crate::support::raw::{Raw, RawUpstream, status};
use crate::support::upstream::{Answer, Mode, Upstream, full, written};
use crate::support::web::{Web, front, get, request, send, try_get};

/// What makes a first upstream fail.
const WAYS: [Mode; 5] = [Mode::Refuse, Mode::Reset, Mode::Status(502), Mode::Status(503), Mode::Hang];

/// The first of two is always asked first, and fails as told.
async fn bad_and_good(way: Mode, more: &str) -> (Upstream, Upstream, Balancer) {
    let (bad, good) = (Upstream::named("bad").await, Upstream::named("good").await);
    bad.set(way).await;
    let rest = "balance: first\npassive: false\nresponse_timeout: 300ms\n";
    let balancer = Balancer::start_front(&front(&[bad.addr(), good.addr()], &format!("{rest}{more}"))).await;
    (bad, good, balancer)
}

#[tokio::test]
async fn a_read_that_fails_is_answered_by_another() {
    for way in WAYS {
        let (bad, good, balancer) = bad_and_good(way, "retries: {max: 2, budget: 100%}\n").await;
        for (i, method) in ["GET", "HEAD", "OPTIONS"].into_iter().enumerate() {
            let got = send(balancer.front(), method, "/x", &[], "").await;
            assert_eq!(got.status, 200, "{way:?} {method}: {got:?}");
            assert_eq!(good.heads(), i as u64 + 1, "{way:?} {method}");
        }
        let sent = if way == Mode::Refuse { 0 } else { 3 };
        assert_eq!(bad.heads(), sent, "{way:?}");
    }
}

#[tokio::test]
async fn the_second_upstream_gets_the_same_request() {
    let (bad, good, balancer) = bad_and_good(Mode::Status(503), "").await;
    send(balancer.front(), "GET", "/x?y", &[("x-a", "1"), ("cookie", "c=d"), ("host", "h.test:1")], "").await;
    let (first, second) = (bad.only(), good.only());
    assert_eq!((&first.target, &first.method), (&second.target, &second.method));
    for name in ["x-a", "cookie", "host", "x-forwarded-for", "x-request-id"] {
        assert_eq!(
            (first.header(name), 1),
            (second.header(name), second.headers.get_all(name).iter().count())
        );
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_never_sent_twice() {
    for (way, status) in
        [(Mode::Reset, 502), (Mode::Status(502), 502), (Mode::Status(503), 503), (Mode::Hang, 504)]
    {
        let (bad, good, balancer) = bad_and_good(way, "methods: any\n").await;
        for (i, (method, body)) in [
            ("POST", "body"),
            ("POST", ""),
            ("PUT", "body"),
            ("DELETE", ""),
            ("PATCH", "body"),
            ("GET", "body"),
        ]
        .into_iter()
        .enumerate()
        {
            let got = send(balancer.front(), method, "/x", &[], body).await;
            assert_eq!(got.status, status, "{way:?} {method} {body}: {got:?}");
            assert_eq!((bad.heads(), good.heads()), (i as u64 + 1, 0), "{way:?} {method} {body}");
            if let Mode::Status(_) = way {
                assert_eq!(got.text(), "as told", "the upstream's own answer");
            }
        }
    }
}

/// Nobody has seen it, so nobody has done it.
#[tokio::test]
async fn what_was_not_sent_at_all_may_go_elsewhere() {
    let (_bad, good, balancer) = bad_and_good(Mode::Refuse, "methods: any\n").await;
    let got = send(balancer.front(), "POST", "/x", &[], "body").await;
    assert!([200, 502, 503].contains(&got.status), "{got:?}");
    let once = good.seen();
    assert_eq!(once.len(), usize::from(got.status == 200));
    assert!(once.iter().all(|seen| &seen.body[..] == b"body"), "{once:?}");
}

#[tokio::test]
async fn the_methods_and_answers_are_those_of_the_file() {
    let retries = "methods: any\nretries: {max: 1, methods: [GET, PUT], statuses: [500], budget: 100%}\n";
    let (bad, good, balancer) = bad_and_good(Mode::Status(500), retries).await;
    for (method, status) in [("GET", 200), ("PUT", 200), ("POST", 500), ("HEAD", 500)] {
        assert_eq!(send(balancer.front(), method, "/", &[], "").await.status, status, "{method}");
    }
    bad.set(Mode::Status(503)).await;
    assert_eq!(get(balancer.front(), "/").await.status, 503);
    assert_eq!(good.heads(), 2);
}

async fn all_bad(n: usize, more: &str) -> (Vec<Upstream>, Balancer) {
    let mut upstreams = Vec::new();
    for _ in 0..n {
        let upstream = Upstream::named("bad").await;
        upstream.set(Mode::Status(503)).await;
        upstreams.push(upstream);
    }
    let addrs: Vec<_> = upstreams.iter().map(Upstream::addr).collect();
    let balancer = Balancer::start_front(&front(&addrs, &format!("passive: false\n{more}"))).await;
    (upstreams, balancer)
}

fn heads(upstreams: &[Upstream]) -> u64 {
    upstreams.iter().map(Upstream::heads).sum()
}

#[tokio::test]
async fn retries_have_an_end() {
    for (max, retries) in [(0, "0"), (1, "1"), (2, "{max: 2, budget: 100%}"), (4, "{max: 4, budget: 100%}")] {
        let (upstreams, balancer) = all_bad(6, &format!("retries: {retries}\n")).await;
        let got = get(balancer.front(), "/").await;
        assert_eq!(
            (got.status, got.text().as_str()),
            (503, "as told"),
            "the last upstream's answer: {got:?}"
        );
        assert_eq!(heads(&upstreams), max + 1, "{retries}");
        assert!(upstreams.iter().all(|upstream| upstream.heads() <= 1), "each was asked once");
    }
}

#[tokio::test]
async fn when_everything_fails_retries_add_little() {
    let (upstreams, balancer) = all_bad(3, "retries: {max: 2, budget: 20%}\n").await;
    let web = Web::connect(balancer.front()).await.unwrap();
    for _ in 0..200 {
        assert_eq!(web.get("/").await.unwrap().status, 503);
    }
    let heads = heads(&upstreams);
    assert!((200..=200 + 40 + 30).contains(&heads), "{heads} requests to upstreams for 200 of clients");
}

#[tokio::test]
async fn what_a_client_has_seen_the_beginning_of_is_not_begun_again() {
    let good = Upstream::named("good").await;
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf of it\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf",
    ] {
        let bad = RawUpstream::answering_once(answer).await;
        let balancer = Balancer::start_front(&front(&[bad.addr(), good.addr()], "balance: first\n")).await;
        try_get(balancer.front(), "/").await.unwrap_err();
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let all = raw.closed().await;
        let all = String::from_utf8_lossy(&all);
        // The head may have waited for the body, and go with it.
        assert!(all.is_empty() || all.starts_with("HTTP/1.1 200 ") && !all.ends_with("0\r\n\r\n"), "{all}");
        assert!(all.matches("HTTP/1.1").count() <= 1, "{all}");
    }
    assert_eq!(good.heads(), 0);
}

#[tokio::test]
async fn a_body_that_breaks_off_late_is_cut_for_the_client_too() {
    let pens = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&pens);
    let upstream = Upstream::start(move |_| {
        let (pen, body) = written();
        pen.write(vec![b'x'; 300_000]);
        kept.lock().unwrap().push(pen);
        async { Answer::new(body) }
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(status(&raw.head().await.unwrap()).unwrap(), 200);
    raw.exactly(200_000).await.unwrap();
    let pen = pens.lock().unwrap().pop().unwrap();
    pen.break_off();
    let rest = raw.closed().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "an end that looks like one");
    assert_eq!(upstream.heads(), 1);
}

/// An upstream that closes kept connections whenever it likes, without saying so before, loses no read: there is
/// only one upstream, so it is asked again.
#[tokio::test]
async fn connections_that_upstreams_close_lose_nothing() {
    let upstream = RawUpstream::answering_once(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
    )
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let web = Web::connect(balancer.front()).await.unwrap();
    for i in 0..200 {
        let got = web.get("/").await.unwrap();
        assert_eq!(got.status, 200, "request {i}: {got:?}");
    }
}

/// The same when the connection is reset just when the next request comes.
#[tokio::test]
async fn kept_connections_that_are_reset_under_a_request_lose_no_read() {
    let upstream = RawUpstream::start(|mut raw| async move {
        for _ in 0..2 {
            if raw.head().await.is_err()
                || raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err()
            {
                return;
            }
        }
        let _ = raw.head().await;
        raw.reset();
    })
    .await;
    let balancer =
        Balancer::start_front(&front(&[upstream.addr()], "retries: {max: 2, budget: 100%}\n")).await;
    let web = Web::connect(balancer.front()).await.unwrap();
    for i in 0..40 {
        let got = web.get("/").await.unwrap();
        assert_eq!(got.status, 200, "request {i}: {got:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_retried_for_no_more() {
    let (bad, good, balancer) = bad_and_good(Mode::Hang, "").await;
    let web = Web::connect(balancer.front()).await.unwrap();
    let answer = tokio::time::timeout(
        std::time::Duration::from_millis(50),
        web.begin(request("GET", "/left", &[], full(""))),
    )
    .await;
    answer.unwrap_err();
    drop(web);
    // Two more requests take longer than the first one's retry would.
    for _ in 0..2 {
        assert_eq!(get(balancer.front(), "/stayed").await.status, 200);
    }
    assert!(good.seen().iter().all(|seen| seen.target == "/stayed"), "{:?}", good.seen());
    assert!(bad.heads() >= 2);
}
