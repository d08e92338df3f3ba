//! What one client may take: bytes, time and places.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::support::balancer::Balancer;
use crate::support::client::background;
use crate::support::raw::{Raw, exchange};
use crate::support::upstream::{Upstream, answer, chunked};
use crate::support::wait::wait_until;
use crate::support::web::{Got, Web, front, get, request, try_get};

async fn one(more: &str) -> (Upstream, Balancer) {
    let upstream = Upstream::named("a").await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], more)).await;
    (upstream, balancer)
}

#[tokio::test]
async fn a_head_may_be_so_large() {
    let (upstream, balancer) = one("max_header: 8KiB\n").await;
    let head = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(n));
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send(head(7000)).await.unwrap();
    assert_eq!(raw.reply().await.unwrap().status, 200);
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Some: header\r\n".repeat(1000));
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000));
    for large in [head(9000), head(1_000_000), many, target] {
        let answer = exchange(balancer.front(), large).await;
        let answer = String::from_utf8_lossy(&answer);
        // An answer may be lost when the rest of the request meets a closed connection.
        let refused = ["", "431", "414", "400"].contains(&answer.split(' ').nth(1).unwrap_or_default());
        assert!(refused, "{answer}");
    }
    let answer = exchange(balancer.front(), head(9000)).await;
    assert!(answer.starts_with(b"HTTP/1.1 4"), "small enough for an answer: {}", answer.escape_ascii());
    assert_eq!(upstream.heads(), 1);
}

#[tokio::test]
async fn a_body_may_be_so_large() {
    let (upstream, balancer) = one("methods: any\nmax_body: 64KiB\n").await;
    let post = |n: usize| {
        let length = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {n}\r\n\r\n");
        [length.as_bytes(), &vec![b'x'; n.min(65_536)]].concat()
    };
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send(post(65_536)).await.unwrap();
    assert_eq!(raw.reply().await.unwrap().status, 200);
    for n in [65_537, 1_000_000_000] {
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        raw.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {n}\r\n\r\n")).await.unwrap();
        assert_eq!(raw.reply().await.unwrap().status, 413);
    }
    assert_eq!(upstream.heads(), 1, "a length that is too large goes nowhere");

    let web = Web::connect(balancer.front()).await.unwrap();
    let pieces = (0..100).map(|_| Bytes::from(vec![b'x'; 1000])).collect::<Vec<_>>();
    if let Ok(got) = web.send(request("POST", "/", &[], chunked(pieces))).await {
        assert_eq!(got.status, 413, "{got:?}");
    }
    assert_eq!(get(balancer.front(), "/").await.status, 200);
    assert_eq!(upstream.seen().len(), 2, "a body without an end never becomes a whole one");
}

/// Sends `first`, then a byte now and then, until the front has had enough. Meanwhile others are served.
async fn dribbles(balancer: &Balancer, first: &str) {
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send(first).await.unwrap();
    wait_until("the front to close", async || {
        assert_eq!(get(balancer.front(), "/good").await.status, 200);
        raw.send("x").await.is_err()
    })
    .await;
}

#[tokio::test]
async fn a_head_may_take_so_long() {
    let (upstream, balancer) = one("header_timeout: 1s\n").await;
    for first in ["", "G", "GET / HTTP/1.1\r\nHost: a\r\nX: "] {
        dribbles(&balancer, first).await;
    }
    // Nor does silence keep a connection.
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send("GET / HTTP/1.1\r\nHo").await.unwrap();
    let answer = raw.closed().await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
    assert!(upstream.seen().iter().all(|seen| seen.target == "/good"));
}

/// A second request has no more time than the first, even one that began in the same packet.
#[tokio::test]
async fn a_next_head_may_take_as_long() {
    let (upstream, balancer) = one("header_timeout: 300ms\nidle_timeout: 60s\n").await;
    let first = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
    for bytes in [first.to_owned(), format!("{first}GET /bad HTTP/1.1\r\nHo")] {
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        let is_begun = bytes.len() > first.len();
        raw.send(bytes).await.unwrap();
        assert_eq!(raw.reply().await.unwrap().status, 200);
        if !is_begun {
            raw.send("GET /bad HTTP/1.1\r\nHo").await.unwrap();
        }
        raw.closed().await;
    }
    assert!(upstream.seen().iter().all(|seen| seen.target == "/good"));
}

#[tokio::test]
async fn a_body_may_pause_so_long() {
    let (upstream, balancer) = one("methods: any\nbody_timeout: 500ms\n").await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send("POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf").await.unwrap();
    let answer = raw.closed().await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
    assert_eq!(get(balancer.front(), "/").await.status, 200);
    assert!(upstream.seen().iter().all(|seen| seen.target == "/"));
}

#[tokio::test]
async fn an_answer_may_pause_so_long() {
    let upstream = crate::support::raw::RawUpstream::start(|mut raw| async move {
        let _ = raw.head().await;
        let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
        let _ = raw.rest().await;
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "body_timeout: 500ms\n")).await;
    let answer = exchange(balancer.front(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("half"), "{answer}");
}

#[tokio::test]
async fn a_connection_may_be_idle_so_long() {
    let (_upstream, balancer) = one("idle_timeout: 300ms\n").await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    for _ in 0..3 {
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(raw.reply().await.unwrap().status, 200);
    }
    assert_eq!(raw.closed().await, b"", "closed without a word");
}

#[tokio::test]
async fn only_so_many_connections_are_taken_at_a_time() {
    let (_upstream, balancer) = one("max_connections: 3\n").await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let web = Web::connect(balancer.front()).await.unwrap();
        assert_eq!(web.get("/").await.unwrap().status, 200);
        held.push(web);
    }
    let fourth = tokio::time::timeout(Duration::from_millis(300), try_get(balancer.front(), "/")).await;
    let served = matches!(&fourth, Ok(Ok(got)) if got.status == 200);
    assert!(!served, "{fourth:?}");
    drop(held);
    wait_until("room", async || {
        tokio::time::timeout(Duration::from_secs(1), try_get(balancer.front(), "/"))
            .await
            .is_ok_and(|got| got.is_ok_and(|got| got.status == 200))
    })
    .await;
}

/// An upstream that holds its requests until it gets permits.
async fn holding(more: &str) -> (Upstream, Arc<Semaphore>, Balancer) {
    let free = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&free);
    let upstream = Upstream::start(move |_| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            answer(200, "a")
        }
    })
    .await;
    let balancer = Balancer::start_front(&front(
        &[upstream.addr()],
        &format!("max_in_flight: 1\nqueue_size: 1\n{more}"),
    ))
    .await;
    (upstream, free, balancer)
}

fn spawn_get(balancer: &Balancer) -> tokio::task::JoinHandle<Got> {
    let front = balancer.front();
    background().spawn(async move { get(front, "/").await })
}

fn assert_busy(got: &Got) {
    assert_eq!(got.status, 503, "{got:?}");
    assert!(got.header("retry-after").parse::<u32>().is_ok(), "{got:?}");
    assert_ne!(got.header("x-pgsplit-reason"), "", "{got:?}");
}

#[tokio::test]
async fn one_is_served_one_waits_and_one_is_sent_away() {
    let (upstream, free, balancer) = holding("queue_timeout: 40s\n").await;
    let first = spawn_get(&balancer);
    wait_until("the first to be served", async || upstream.heads() == 1).await;
    let (mut second, mut third) = (spawn_get(&balancer), spawn_get(&balancer));
    // While one of them waits, the other is answered.
    let (away, waits) = tokio::select! {
        got = &mut second => (got, third),
        got = &mut third => (got, second),
    };
    assert_busy(&away.unwrap());
    assert_eq!(upstream.heads(), 1);
    free.add_permits(2);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(waits.await.unwrap().status, 200);
    assert_eq!(upstream.heads(), 2);
}

#[tokio::test]
async fn who_waits_too_long_is_sent_away() {
    let (upstream, free, balancer) = holding("queue_timeout: 300ms\n").await;
    let first = spawn_get(&balancer);
    wait_until("the first to be served", async || upstream.heads() == 1).await;
    for _ in 0..3 {
        assert_busy(&get(balancer.front(), "/").await);
    }
    free.add_permits(1);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(upstream.heads(), 1);
}

#[tokio::test]
async fn who_leaves_while_waiting_frees_the_place() {
    let (upstream, free, balancer) = holding("queue_timeout: 40s\n").await;
    let first = spawn_get(&balancer);
    wait_until("the first to be served", async || upstream.heads() == 1).await;
    // Whether a newcomer would have to wait.
    let waits = async || {
        let come = try_get(balancer.front(), "/");
        tokio::time::timeout(Duration::from_millis(300), come).await.is_err()
    };
    // One that comes while a newcomer tries is sent away, so each try has its own.
    let waiting = wait_until("the place to be taken", async || {
        let mut waiting = Raw::connect(balancer.front()).await.unwrap();
        waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        (!waits().await).then_some(waiting)
    })
    .await;
    drop(waiting);
    wait_until("the place to be free", waits).await;
    free.add_permits(20);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(get(balancer.front(), "/").await.status, 200);
}

#[tokio::test]
async fn who_leaves_while_being_served_frees_the_place() {
    let (upstream, _free, balancer) = holding("queue_timeout: 40s\n").await;
    for n in 1..=5 {
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        wait_until("it to be served", async || upstream.heads() == n).await;
        raw.reset();
    }
}

/// Whoever connects and says nothing at all is not a client for long.
#[tokio::test]
async fn silence_is_closed() {
    let (_upstream, balancer) = one("header_timeout: 300ms\nidle_timeout: 300ms\n").await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    let said = raw.closed().await;
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 408 "), "{}", said.escape_ascii());
    let others: Vec<_> = (0..50).map(|_| TcpStream::connect(balancer.front())).collect();
    for other in others {
        other.await.unwrap();
    }
    assert_eq!(get(balancer.front(), "/").await.status, 200);
}
