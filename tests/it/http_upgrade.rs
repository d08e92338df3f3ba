//! Connections that become something else: `WebSocket` and its kind.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::support::balancer::Balancer;
use crate::support::process::Signal;
use crate::support::raw::{Raw, RawUpstream};
use crate::support::upstream::{Upstream, answer};
use crate::support::wait::wait_until;
use crate::support::web::{front, get};

const ASK: &str = "GET /up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// A `WebSocket` server that says back what it hears.
async fn echo() -> RawUpstream {
    RawUpstream::start(|raw| async move {
        let Ok(mut socket) = accept_async(raw.into_stream()).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn socket(balancer: &Balancer) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(balancer.front()).await.unwrap();
    let request = "ws://front.test/chat?room=1".into_client_request().unwrap();
    let (socket, answer) = client_async(request, stream).await.unwrap();
    assert_eq!(answer.status(), 101);
    socket
}

#[tokio::test]
async fn a_websocket_says_back_what_it_hears() {
    let upstream = echo().await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let mut socket = socket(&balancer).await;
    let large: Vec<u8> = (0..1024 * 1024_u32).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
    let messages = [
        Message::text("hello"),
        Message::text(""),
        Message::binary(vec![0, 255, 13, 10]),
        Message::binary(large),
        Message::text("bye"),
    ];
    for message in messages {
        socket.send(message.clone()).await.unwrap();
        let back = wait_until("the message to come back", async || socket.next().await).await.unwrap();
        assert!(back == message, "{} bytes came back of {}", back.len(), message.len());
    }
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    let head = upstream.text();
    assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n") || head.is_empty(), "{head}");
}

/// The head an upstream gets, the answer a client gets, and the bytes after them.
#[tokio::test]
async fn an_upgrade_passes_to_the_byte() {
    let upstream = RawUpstream::start(|mut raw| async move {
        let _ = raw.head().await;
        // What comes with the answer belongs to the new protocol.
        let _ = raw.send([YES.as_bytes(), b"first"].concat()).await;
        if let Ok(heard) = raw.exactly(5).await {
            let _ = raw.send(heard).await;
        }
        let _ = raw.rest().await;
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send(ASK).await.unwrap();
    let reply = raw.reply().await.unwrap();
    assert_eq!((reply.status, reply.header("upgrade")), (101, Some("echo")), "{reply:?}");
    assert!(reply.header("connection").unwrap_or_default().eq_ignore_ascii_case("upgrade"), "{reply:?}");
    assert_eq!(raw.exactly(5).await.unwrap(), b"first");
    raw.send("\0\r\n\r\n").await.unwrap();
    assert_eq!(raw.exactly(5).await.unwrap(), b"\0\r\n\r\n");
    let head = upstream.text().to_lowercase();
    assert!(head.starts_with("get /up http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nupgrade: echo\r\n") && head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    assert!(head.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"), "{head}");
}

#[tokio::test]
async fn each_side_may_end_before_the_other() {
    // The client ends first; the upstream then says the rest.
    let upstream = RawUpstream::start(|mut raw| async move {
        let _ = raw.head().await;
        let _ = raw.send(YES).await;
        let heard = raw.rest().await.unwrap_or_default();
        let _ = raw.send([b"heard ", &heard[..]].concat()).await;
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send(ASK).await.unwrap();
    assert_eq!(raw.reply().await.unwrap().status, 101);
    raw.send("all").await.unwrap();
    raw.end().await.unwrap();
    assert_eq!(raw.closed().await, b"heard all");

    // The upstream ends first, and still hears.
    let upstream = RawUpstream::start(|mut raw| async move {
        let _ = raw.head().await;
        let _ = raw.send([YES.as_bytes(), b"last"].concat()).await;
        let _ = raw.end().await;
        let _ = raw.rest().await;
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send(ASK).await.unwrap();
    assert_eq!(raw.reply().await.unwrap().status, 101);
    assert_eq!(raw.until(b"last").await.unwrap(), b"last");
    raw.send("still here").await.unwrap();
    wait_until("the upstream to hear", async || {
        let text = upstream.text();
        if text.ends_with("still here") { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test]
async fn an_upstream_may_refuse() {
    let upstream = Upstream::start(|_| async { answer(403, "not you") }).await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send(ASK).await.unwrap();
    let reply = raw.reply().await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (403, "not you"));
    assert_eq!(reply.header("upgrade"), None);
    // Nobody has looked at what may have come behind it.
    assert_eq!(reply.header("connection"), Some("close"));
    raw.closed().await;
}

/// An upgrade that was refused must not turn what follows into a tunnel.
#[tokio::test]
async fn what_follows_a_refused_upgrade_is_read_as_http() {
    let upstream = RawUpstream::answering("HTTP/1.1 426 No\r\nContent-Length: 0\r\n\r\n").await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send([ASK, "POST /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"].concat())
        .await
        .unwrap();
    assert_eq!(raw.reply().await.unwrap().status, 426);
    let next = raw.reply().await;
    assert!(next.is_err() || next.as_ref().is_ok_and(|reply| reply.status == 405), "{next:?}");
    assert!(!upstream.text().contains("smuggled"), "{}", upstream.text());
}

#[tokio::test]
async fn nobody_upgrades_to_http2_behind_our_back() {
    let (upstream, balancer) = {
        let upstream = Upstream::named("a").await;
        let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
        (upstream, balancer)
    };
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    )
    .await
    .unwrap();
    assert_eq!(raw.reply().await.unwrap().status, 200, "the upgrade is passed over");
    let seen = upstream.only();
    assert_eq!((seen.header("upgrade"), seen.header("http2-settings")), (String::new(), String::new()));
}

#[tokio::test]
async fn an_open_socket_neither_blocks_the_front_nor_its_end() {
    let upstream = echo().await;
    let web = Upstream::named("a").await;
    let rest = "queue_timeout: 40s\nbalance: first\nheader_timeout: 300ms\nidle_timeout: 300ms\n";
    let balancer = Balancer::start_front(&front(&[upstream.addr()], rest)).await;
    let mut open = socket(&balancer).await;
    // Longer than the time limits of what is HTTP: another connection meets its own.
    let mut idle = Raw::connect(balancer.front()).await.unwrap();
    idle.closed().await;
    open.send(Message::text("still there")).await.unwrap();
    assert_eq!(open.next().await.unwrap().unwrap(), Message::text("still there"));
    drop(open);
    assert_eq!(get(web.addr(), "/").await.status, 200);
    balancer.signal(Signal::TERM);
    assert!(balancer.wait_exit(std::time::Duration::from_secs(20)).await.success());
}
