//! What a front says itself when no upstream can: what went wrong, and never a bare 500.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::balancer::Balancer;
use crate::support::raw::{Raw, RawUpstream};
use crate::support::upstream::{Mode, Upstream};
use crate::support::web::{Got, QUICK, front, front_of, get, send};

/// The status and the reason of an answer of our own.
fn reason(got: &Got) -> (u16, String) {
    let reason = got.header("x-pgsplit-reason");
    assert!(!reason.is_empty(), "no reason: {got:?}");
    assert!(reason.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{reason}");
    (got.status, reason)
}

#[tokio::test]
async fn without_an_upstream_clients_are_told_to_come_again() {
    let upstream = Upstream::named("a").await;
    upstream.set(Mode::Refuse).await;
    let balancer =
        Balancer::start_front(&front(&[upstream.addr()], &format!("queue_timeout: 200ms\n{QUICK}"))).await;
    balancer.wait_upstream(upstream.addr(), false).await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        let got = send(balancer.front(), method, "/", &[], "").await;
        assert_eq!(reason(&got).0, 503, "{got:?}");
        assert!(got.header("retry-after").parse::<u32>().is_ok(), "{got:?}");
        assert_eq!(got.body.is_empty(), method == "HEAD", "{got:?}");
        assert!(
            !got.text().contains(&upstream.addr().to_string()),
            "addresses are nobody's business: {got:?}"
        );
        assert_eq!(got.header("cache-control"), "no-store", "{got:?}");
    }
    upstream.set(Mode::Serve).await;
    balancer.wait_upstream(upstream.addr(), true).await;
    assert_eq!(get(balancer.front(), "/").await.status, 200);
}

#[tokio::test]
async fn when_nobody_takes_connections_it_is_no_500() {
    let upstream = Upstream::named("a").await;
    upstream.set(Mode::Refuse).await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "queue_timeout: 200ms\n")).await;
    let got = get(balancer.front(), "/").await;
    assert!([502, 503].contains(&reason(&got).0), "{got:?}");
}

#[tokio::test]
async fn who_takes_too_long_is_a_504() {
    let upstream = Upstream::named("a").await;
    upstream.set(Mode::Hang).await;
    let balancer =
        Balancer::start_front(&front(&[upstream.addr()], "response_timeout: 200ms\nretries: 0\n")).await;
    let got = get(balancer.front(), "/").await;
    assert_eq!(reason(&got).0, 504, "{got:?}");
    assert_eq!(upstream.heads(), 1);
}

/// Nobody answers to the first packet of a connection there: the backlog is full.
#[tokio::test]
async fn who_cannot_be_connected_to_in_time_is_a_504_or_503() {
    let address = crate::support::address::Address::claim();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let addr = address.port(8080);
    socket.bind(addr).unwrap();
    let _listener = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    // A connect that does not come to an end shows that the backlog is full.
    loop {
        let connect = tokio::net::TcpStream::connect(addr);
        match tokio::time::timeout(std::time::Duration::from_millis(200), connect).await {
            Ok(stream) => waiting.push(stream.unwrap()),
            Err(_) => break,
        }
    }
    let balancer = Balancer::start_front(&front(
        &[addr],
        "connect_timeout: 200ms\nqueue_timeout: 500ms\nretries: 0\nresponse_timeout: 20s\n",
    ))
    .await;
    let got = get(balancer.front(), "/").await;
    assert!([502, 503, 504].contains(&reason(&got).0), "{got:?}");
}

#[tokio::test]
async fn an_answer_that_is_none_is_a_502() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(2_000_000));
    for answer in [
        "",
        "what?\r\n\r\n",
        "\0\0\0\0",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        long.as_str(),
    ] {
        let upstream = RawUpstream::answering_once(answer).await;
        let balancer = Balancer::start_front(&front(&[upstream.addr()], "retries: 0\n")).await;
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let reply = raw.reply().await;
        let shown: String = answer.chars().take(80).collect();
        let reply = reply.unwrap_or_else(|error| panic!("{shown:?}: {error}"));
        assert_eq!(reply.status, 502, "{shown:?}: {reply:?}");
        assert!(reply.header("x-pgsplit-reason").is_some(), "{shown:?}: {reply:?}");
    }
}

#[tokio::test]
async fn who_asks_for_what_no_route_leads_to_hears_404() {
    let upstream = Upstream::named("a").await;
    let balancer = Balancer::start_front(&front_of(&format!(
        "groups: {{users: [\"{}\"]}}\nroutes: [{{path: /users, group: users}}]\n",
        upstream.addr()
    )))
    .await;
    let got = get(balancer.front(), "/x?script").await;
    assert_eq!(reason(&got).0, 404);
    assert!(!got.text().contains("script"), "{got:?}");
    assert_eq!(upstream.heads(), 0);
}

/// Others of the same client's requests, on the same connection, go on.
#[tokio::test]
async fn an_error_ends_no_connection() {
    let upstream = Upstream::named("a").await;
    let balancer =
        Balancer::start_front(&front(&[upstream.addr()], "response_timeout: 200ms\nretries: 0\n")).await;
    let web = crate::support::web::Web::connect(balancer.front()).await.unwrap();
    upstream.set(Mode::Hang).await;
    assert_eq!(web.get("/").await.unwrap().status, 504);
    upstream.set(Mode::Serve).await;
    assert_eq!(web.get("/").await.unwrap().status, 200);
}
