//! Where the times, the framings and the ends of two connections meet: each of these once went wrong.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bytes::Bytes;

use crate::support::balancer::Balancer;
use crate::support::raw::{Raw, RawUpstream};
use crate::support::upstream::{Upstream, answer, answer_with};
use crate::support::wait::wait_until;
use crate::support::web::{front, get};

const CACHE: &str = "cache: {size: 64MiB, max_entry: 40MiB}\n";

/// What a body asks for is not in the URL, so its answer is for nobody else.
#[tokio::test]
async fn an_answer_to_a_get_with_a_body_is_not_kept() {
    let upstream = Upstream::start(|seen| async move {
        answer_with(&[("cache-control", "max-age=60")], format!("asked with {}", seen.body.len()))
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], CACHE)).await;
    for request in [
        "GET /p HTTP/1.1\r\nHost: front.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        "GET /p HTTP/1.1\r\nHost: front.test\r\nContent-Length: 4\r\n\r\nevil",
    ] {
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        raw.send(request).await.unwrap();
        assert_eq!(raw.reply().await.unwrap().text(), "asked with 4");
        assert_eq!(get(balancer.front(), "/p").await.text(), "asked with 0");
    }
}

/// An answer that is being read is not idle, though nothing more of it is to come from an upstream.
#[tokio::test]
async fn a_stored_answer_may_be_read_slowly() {
    let upstream = Upstream::start(|_| async {
        answer_with(&[("cache-control", "max-age=600")], Bytes::from(vec![b'x'; 32 << 20]))
    })
    .await;
    let rest = format!("{CACHE}idle_timeout: 200ms\nheader_timeout: 200ms\n");
    let balancer = Balancer::start_front(&front(&[upstream.addr()], &rest)).await;
    assert_eq!(get(balancer.front(), "/large").await.body.len(), 32 << 20);
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send("GET /large HTTP/1.1\r\nHost: front.test\r\n\r\n").await.unwrap();
    raw.until(b"x-cache: hit").await.unwrap();
    raw.until(b"\r\n\r\n").await.unwrap();
    // Another connection is idle for several times as long meanwhile.
    for _ in 0..4 {
        Raw::connect(balancer.front()).await.unwrap().closed().await;
        raw.exactly(8 << 20).await.unwrap();
    }
}

/// A client that sends slowly is no upstream's fault, and has the time that its pauses are allowed.
#[tokio::test]
async fn an_upload_may_take_longer_than_an_answer() {
    let upstream = Upstream::start(|seen| async move { answer(200, seen.body.len().to_string()) }).await;
    let rest = "methods: any\nresponse_timeout: 400ms\nbody_timeout: 10s\nidle_timeout: 200ms\nheader_timeout: 200ms\n";
    let balancer = Balancer::start_front(&front(&[upstream.addr()], rest)).await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n").await.unwrap();
    for _ in 0..6 {
        // About 200 to 400 ms: until the balancer closes a connection that says nothing.
        Raw::connect(balancer.front()).await.unwrap().closed().await;
        raw.send("x").await.unwrap();
    }
    let reply = raw.reply().await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "6"));
    assert!((balancer.metric("pgsplit_http_ejections_total").await).abs() < 0.5);
}

#[tokio::test]
async fn an_upstream_that_names_two_lengths_means_the_chunks() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    assert_eq!(get(balancer.front(), "/").await.text(), "hello");
}

/// A head that is refused is refused in words, at whatever byte it was torn.
#[tokio::test]
async fn a_torn_bad_head_is_answered_400() {
    let upstream = Upstream::named("a").await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "methods: any\n")).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n";
    for end in [1, 20, 40, 60, head.len() - 3, head.len() - 2, head.len() - 1] {
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        let (one, two) = head.split_at(end);
        raw.send(one).await.unwrap();
        // Until the balancer has read it: it has begun to wait for the rest of a head.
        wait_until("the first part to be read", async || {
            balancer.metric("pgsplit_http_connections_active").await > 0.5
        })
        .await;
        raw.send(two).await.unwrap();
        assert_eq!(raw.reply().await.unwrap().status, 400, "{end}");
        raw.closed().await;
    }
    assert_eq!(upstream.heads(), 0);
}

/// An answer may come before the body it answers has; the next request has a connection of its own.
#[tokio::test]
async fn an_early_answer_spoils_nothing() {
    let upstream = RawUpstream::start(|mut raw| async move {
        while let Ok(head) = raw.head().await {
            let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            if head.starts_with("POST") {
                let _ = raw.rest().await;
            }
        }
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "methods: any\n")).await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf").await.unwrap();
    assert_eq!(raw.reply().await.unwrap().text(), "ok");
    for _ in 0..3 {
        assert_eq!(get(balancer.front(), "/").await.text(), "ok");
    }
}

/// What is sent behind the wish for another protocol belongs to that protocol.
#[tokio::test]
async fn bytes_behind_an_upgrade_pass_unchanged() {
    const TEXT: &str = "hello\n\r\n\r\nabcd";
    let upstream = RawUpstream::start(|mut raw| async move {
        let _ = raw.head().await;
        let yes = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        let _ = raw.send(yes).await;
        if let Ok(heard) = raw.exactly(TEXT.len()).await {
            let _ = raw.send(heard).await;
        }
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    raw.send([ask, TEXT].concat()).await.unwrap();
    assert_eq!(raw.reply().await.unwrap().status, 101);
    assert_eq!(raw.exactly(TEXT.len()).await.unwrap(), TEXT.as_bytes());
}

/// What was sent behind a last request does not take its answer away.
#[tokio::test]
async fn an_answer_survives_what_is_sent_behind_it() {
    let upstream = Upstream::start(|_| async { answer(200, vec![b'x'; 200_000]) }).await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "methods: any\n")).await;
    for _ in 0..10 {
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
            .await
            .unwrap();
        wait_until("the request to be there", async || 0 < upstream.heads()).await;
        let _ = raw.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100)).await;
        let reply = raw.reply().await.unwrap();
        assert_eq!((reply.status, reply.text().len()), (200, 200_000));
    }
    let patience = Duration::from_secs(20);
    crate::support::wait::wait_at_most(patience, "every connection to be closed", async || {
        balancer.metric("pgsplit_http_connections_active").await < 0.5
    })
    .await;
}
