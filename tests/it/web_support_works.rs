//! The support of the tests of HTTP fronts: what they rely on holds, with nothing between client and upstream.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;

use crate::support::instance::{self, Instance};
use crate::support::raw::{Raw, RawUpstream, exchange};
use crate::support::upstream::{Answer, Mode, Upstream, answer, answer_with, chunked, written};
use crate::support::wait::wait_until;
use crate::support::web::{Web, get, get_with, send, try_get};

/// No test, but what an [`Instance`] is: this program, run again to be a server.
#[test]
fn is_an_instance_when_asked_to() {
    instance::run_if_asked();
}

#[tokio::test]
async fn an_upstream_answers_as_told_and_notes_what_it_was_asked() {
    let upstream =
        Upstream::start(|seen| async move { answer_with(&[("x-method", seen.method.as_str())], seen.body) })
            .await;
    let got = send(upstream.addr(), "POST", "/a?b=c", &[("x-a", "1"), ("x-a", "2")], "body").await;
    assert_eq!((got.status, got.header("x-method"), got.text()), (200, "POST".into(), "body".into()));
    let seen = upstream.only();
    assert_eq!((seen.target.as_str(), seen.header("x-a")), ("/a?b=c", "1, 2".into()));
    assert_eq!((upstream.heads(), upstream.connections(), upstream.checks()), (1, 1, 0));
    assert_eq!(get(upstream.addr(), "/health").await.status, 200);
    upstream.set_health(404);
    assert_eq!(get(upstream.addr(), "/health").await.status, 404);
    assert_eq!((upstream.heads(), upstream.checks()), (1, 2));
}

#[tokio::test]
async fn an_upstream_fails_as_told() {
    let upstream = Upstream::named("a").await;
    let kept = Web::connect(upstream.addr()).await.unwrap();
    assert_eq!(kept.get("/").await.unwrap().text(), "a");
    upstream.set(Mode::Status(503)).await;
    assert_eq!(kept.get("/").await.unwrap().status, 503);
    upstream.set(Mode::Hang).await;
    tokio::time::timeout(Duration::from_millis(100), try_get(upstream.addr(), "/")).await.unwrap_err();
    upstream.set(Mode::Reset).await;
    try_get(upstream.addr(), "/").await.unwrap_err();
    assert_eq!(get(upstream.addr(), "/health").await.status, 200);
    upstream.set(Mode::Refuse).await;
    // One that was let in a moment before is closed without an answer.
    if let Ok(web) = Web::connect(upstream.addr()).await {
        web.get("/").await.unwrap_err();
    }
    kept.get("/").await.unwrap_err();
    upstream.set(Mode::Serve).await;
    assert_eq!(get(upstream.addr(), "/").await.text(), "a");
    wait_until("no connection to be open", async || upstream.open() == 0).await;
}

#[tokio::test]
async fn bodies_come_as_they_are_written() {
    let upstream = Upstream::start(|seen| async move {
        let (pen, body) = written();
        pen.write("one");
        pen.write("two");
        match seen.target.as_str() {
            "/trailers" => {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", "6".parse().unwrap());
                pen.trailers(trailers);
            }
            "/broken" => pen.break_off(),
            _ => drop(pen),
        }
        let mut answer = Answer::new(body);
        answer.headers_mut().insert("trailer", "x-sum".parse().unwrap());
        answer
    })
    .await;
    let got = get_with(upstream.addr(), "/trailers", &[("te", "trailers")]).await;
    assert_eq!((got.text(), got.trailers.unwrap()["x-sum"].to_str().unwrap()), ("onetwo".into(), "6"));
    assert_eq!(get(upstream.addr(), "/whole").await.text(), "onetwo");
    try_get(upstream.addr(), "/broken").await.unwrap_err();

    let big =
        Upstream::start(|_| async { Answer::new(chunked((0..100).map(|_| Bytes::from(vec![7; 10_000])))) })
            .await;
    assert_eq!(get(big.addr(), "/").await.body, vec![7; 1_000_000]);
}

#[tokio::test]
async fn raw_ends_say_and_hear_every_byte() {
    let upstream = RawUpstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let mut raw = Raw::connect(upstream.addr()).await.unwrap();
    for _ in 0..2 {
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let reply = raw.reply().await.unwrap();
        assert_eq!(
            (reply.status, reply.text().as_str(), reply.header("content-length")),
            (200, "ok", Some("2"))
        );
    }
    assert_eq!(upstream.text(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2));
    assert_eq!(upstream.connections(), 1);

    let once = RawUpstream::answering_once(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: 1\r\n\r\n",
    )
    .await;
    let mut raw = Raw::connect(once.addr()).await.unwrap();
    raw.send("GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(raw.reply().await.unwrap().text(), "abcde");
    assert_eq!(raw.closed().await, b"");

    let resets = RawUpstream::start(|mut raw| async move {
        let _ = raw.head().await;
        raw.reset();
    })
    .await;
    assert_eq!(exchange(resets.addr(), "GET / HTTP/1.1\r\n\r\n").await, b"");
}

#[tokio::test]
async fn an_instance_can_be_killed_and_stopped() {
    let instance = Instance::start("x").await;
    let got = get(instance.addr(), "/").await;
    assert_eq!((got.header("x-served-by"), got.text()), ("x".into(), "x".into()));
    assert_eq!(get(instance.addr(), "/bytes/1000").await.body.len(), 1000);
    instance.set_status(503).await;
    assert_eq!(get(instance.addr(), "/health").await.status, 503);
    instance.set_status(200).await;
    instance.sigstop().await;
    tokio::time::timeout(Duration::from_millis(100), try_get(instance.addr(), "/")).await.unwrap_err();
    instance.sigcont();
    assert_eq!(get(instance.addr(), "/slow/1").await.status, 200);
    instance.kill9();
    try_get(instance.addr(), "/").await.unwrap_err();
    instance.restart().await;
    assert_eq!(get(instance.addr(), "/").await.status, 200);
}

#[tokio::test]
async fn many_speak_http2_on_one_connection() {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let server = RawUpstream::start(|raw| async move {
        let service =
            hyper::service::service_fn(|_| async { Ok::<_, std::convert::Infallible>(answer(200, "h2")) });
        let io = TokioIo::new(raw.into_stream());
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    })
    .await;
    let web = Web::connect_h2(server.addr()).await.unwrap();
    let (one, two) = tokio::join!(web.get("/1"), web.get("/2"));
    assert_eq!((one.unwrap().text(), two.unwrap().text()), ("h2".into(), "h2".into()));
    assert_eq!(server.connections(), 1);
}
