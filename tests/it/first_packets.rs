//! What a client may say first, and what it is answered: as a server answers, wherever a server would.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::balancer::Balancer;
use crate::support::client::{connect, value};
use crate::support::gate::{Gate, Mode};
use crate::support::postgres::{Postgres, Settings};
use crate::support::wait::wait_until;
use crate::support::wire::{
    FakeNode, Wire, cancel_request, gssenc_request, login_answer, ssl_request, startup, startup_of, terminate,
};
use crate::tools::{Notes, in_order, memory, whole};

const LENGTH_MAX: usize = 10_004;

/// A length field and what follows.
fn packet(length: u32, rest: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes()[..], rest].concat()
}

fn version(major: u16, minor: u16) -> u32 {
    (u32::from(major) << 16) + u32::from(minor)
}

/// Protocol 3.0 and `body`, with the length that fits.
fn v3(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + body.len()).unwrap();
    packet(length, &[&version(3, 0).to_be_bytes()[..], body].concat())
}

/// A valid startup packet of this many bytes.
fn startup_of_length(length: usize) -> Vec<u8> {
    let short = startup(&[("user", "postgres"), ("options", "")]).len();
    let bytes = startup(&[("user", "postgres"), ("options", &" ".repeat(length - short))]);
    assert_eq!(bytes.len(), length);
    bytes
}

/// What a peer answers to `bytes`, in words: its messages without what differs from one session to the next
/// (process numbers, keys, places in the source), or its bytes when they are no messages. A session that gets in
/// says good-bye.
async fn answer(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut wire = Wire::connect(addr).await.unwrap();
    wire.send(bytes).await.unwrap();
    let mut got = Vec::new();
    loop {
        match wire.byte().await {
            Ok(Some(byte)) => got.push(byte),
            // An end is an end: whether unread bytes make it a reset is a matter of luck.
            Ok(None) | Err(_) => break,
        }
        if got.ends_with(b"Z\0\0\0\x05I") {
            wire.send(&terminate()).await.unwrap();
        }
    }
    in_words(&got)
}

fn in_words(mut bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut words = String::new();
    while let Some((&tag, rest)) = bytes.split_first() {
        let length = rest.first_chunk().map(|&length| u32::from_be_bytes(length) as usize);
        let body = length.and_then(|length| rest.get(4..length));
        let Some(body) = body.filter(|_| tag.is_ascii_alphabetic()) else {
            return words + &bytes.escape_ascii().to_string();
        };
        let text = match tag {
            b'K' => format!("{} bytes", body.len()),
            b'E' => {
                let fields = body.split(|&byte| byte == 0);
                let fields = fields.filter(|field| matches!(field.first(), Some(b'S' | b'V' | b'C' | b'M')));
                fields.map(|field| field.escape_ascii().to_string() + "|").collect()
            }
            _ => body.escape_ascii().to_string(),
        };
        let _ = write!(words, "{}({text}) ", char::from(tag));
        bytes = &rest[4 + body.len()..];
    }
    words
}

fn vectors() -> Vec<(&'static str, Vec<u8>)> {
    let user = [("user", "postgres")];
    let with = |name, value| startup(&[user[0], (name, value)]);
    vec![
        ("length 0", packet(0, b"")),
        ("length 7", packet(7, b"\0\x03\0")),
        ("length 8 and no parameters", v3(b"")),
        ("no final zero", v3(b"user\0postgres\0")),
        ("value without end", v3(b"user\0postgres")),
        ("name without value", v3(b"user\0")),
        ("bytes behind the final zero", v3(b"user\0postgres\0\0x")),
        ("no user", startup(&[("database", "postgres")])),
        ("empty user", startup(&[("user", "")])),
        ("length 9,999", startup_of_length(9_999)),
        ("length 10,004", startup_of_length(LENGTH_MAX)),
        ("length 10,005", startup_of_length(LENGTH_MAX + 1)),
        ("length 2^31", packet(0x8000_0000, &[0; 8])),
        ("protocol 3.2", startup_of(version(3, 2), &user)),
        ("protocol 3.99", startup_of(version(3, 99), &user)),
        ("protocol 3.9999", startup_of(version(3, 9999), &user)),
        ("a protocol option", with("_pq_.foo", "1")),
        ("a setting in the options", with("options", "-c search_path=evil")),
        ("an unknown setting", with("no_such_setting", "1")),
        ("an encoding that is none", with("client_encoding", "klingon")),
        ("two users", startup(&[("user", "nobody"), user[0]])),
        ("a user longer than a name", startup(&[("user", &"u".repeat(100))])),
        ("a user who is not there", startup(&[("user", "nobody")])),
        ("a user to break a terminal", startup(&[("user", "po\nst\x1b[31m")])),
        ("an application to break a terminal", with("application_name", "a\nb\x1b[31m<script>")),
        ("a database that is not there", with("database", "nowhere")),
        ("a replication session", with("replication", "true")),
        ("a replication that is neither yes nor no", with("replication", "maybe")),
        ("a wrong cancel key", cancel_request(1, &[0; 4])),
        ("a cancel request without a key", packet(12, &[4, 210, 22, 46, 0, 0, 0, 1])),
        ("a cancel request of 300 bytes", cancel_request(1, &[0; 288])),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: db\r\n\r\n".to_vec()),
        ("protocol 2.0", startup_of(version(2, 0), &user)),
        ("protocol 4.0", startup_of(version(4, 0), &user)),
        ("an unknown request", packet(8, &version(1234, 5681).to_be_bytes())),
        ("SSL twice", [ssl_request(), ssl_request()].concat()),
    ]
}

/// Where we answer otherwise than `PostgreSQL`: what we say, and why.
const DIFFERENCES: [(&str, &str, &str); 5] = [
    (
        "HTTP",
        "HTTP/1.1 400 Bad Request",
        "a server just closes; whoever points a browser or a scraper at the wrong port is told the right one",
    ),
    (
        "protocol 2.0",
        "unsupported frontend protocol 2.0: server supports 3.0 to 3.2",
        "the versions named are those of the newest servers: no single one can speak for all nodes",
    ),
    ("protocol 4.0", "unsupported frontend protocol 4.0: server supports 3.0 to 3.2", "likewise"),
    ("an unknown request", "unsupported frontend protocol 1234.5681: server supports 3.0 to 3.2", "likewise"),
    (
        "SSL twice",
        "received unencrypted data after encryption request",
        "bytes behind a request for encryption never reach a node, whatever they are and it would say",
    ),
];

#[tokio::test]
async fn first_packets_are_answered_as_a_server_answers() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&in_order([server.addr()], "")).await;
    balancer.wait_ready().await;
    let mut wrong = Vec::new();
    for (name, bytes) in vectors() {
        let direct = answer(server.addr(), &bytes).await;
        let through = answer(balancer.rw(), &bytes).await;
        let difference = DIFFERENCES.iter().find(|(of, ..)| *of == name);
        let right = match difference {
            Some((_, ours, _)) => through.contains(ours) && !direct.contains(ours),
            None => direct == through,
        };
        if !right {
            wrong.push(format!("{name}:\n  direct  {direct}\n  through {through}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_login_may_come_in_any_pieces() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&in_order([server.addr()], "")).await;
    balancer.wait_ready().await;
    let gate = Gate::start(balancer.rw()).await;
    for size in [1, 2, 3, 4, 5, 7, 8, 9, 50] {
        gate.set(Mode::Slice(size)).await;
        let client = connect(gate.addr()).await.unwrap();
        assert_eq!(value(&client, "select 1").await.unwrap(), "1", "{size}");
    }
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.send_bytewise(&ssl_request()).await.unwrap();
    assert_eq!(wire.byte().await.unwrap(), Some(b'N'));
    wire.send_bytewise(&startup(&[("user", "postgres")])).await.unwrap();
    wire.logged_in().await.unwrap().unwrap();
}

/// A node that lets everybody in and notes the startup packets, without their lengths.
async fn noting_node(notes: &Notes<Vec<u8>>) -> FakeNode {
    let notes = notes.clone();
    FakeNode::start(move |mut wire| {
        let notes = notes.clone();
        async move {
            let Ok(packet) = wire.first_packet().await else { return };
            notes.add(packet);
            let _ = wire.send(&login_answer(1, &[0, 0, 0, 1], true)).await;
            let _ = wire.message().await;
        }
    })
    .await
}

#[tokio::test]
async fn the_node_gets_the_startup_packet_to_the_byte() {
    let notes = Notes::new();
    let node = noting_node(&notes).await;
    let balancer = Balancer::start(&in_order([node.addr()], "")).await;
    balancer.wait_ready().await;
    let user = ("user", "u");
    let packets = [
        startup(&[user]),
        startup_of(version(3, 2), &[user, ("database", "d")]),
        startup_of(version(3, 9999), &[user, ("_pq_.grease", ""), ("_pq_.x", "y")]),
        startup(&[user, ("replication", "true")]),
        startup(&[user, ("replication", "database"), ("options", "-c search_path=evil\\ one")]),
        startup(&[("database", "first"), user, ("database", "second"), ("user", "w")]),
        startup(&[user, ("application_name", "a\nb\x1b[31m"), ("päram", "wärt")]),
        v3(b"user\0\xff\xfe\x80\0\0"),
        startup_of_length(LENGTH_MAX),
    ];
    for packet in &packets {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.send(packet).await.unwrap();
        wire.logged_in().await.unwrap().unwrap();
        assert_eq!(notes.all().last().unwrap(), &packet[4..], "{}", packet.escape_ascii());
    }
    assert_eq!(notes.all().len(), packets.len());
}

#[tokio::test]
async fn what_comes_with_the_startup_packet_follows_it() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&in_order([server.addr()], "")).await;
    balancer.wait_ready().await;
    let both = [startup(&[("user", "postgres")]), crate::support::wire::query("select 42")].concat();
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.send(&both).await.unwrap();
    wire.logged_in().await.unwrap().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(wire.message().await.unwrap().unwrap().tag);
    }
    assert_eq!(seen, b"TDCZ");
}

#[tokio::test]
async fn bytes_behind_a_request_for_encryption_end_the_connection() {
    let notes = Notes::new();
    let node = noting_node(&notes).await;
    let balancer = Balancer::start(&in_order([node.addr()], "")).await;
    balancer.wait_ready().await;
    let start = startup(&[("user", "u")]);
    for (name, bytes) in [
        ("SSL", [ssl_request(), start.clone()].concat()),
        ("GSS", [gssenc_request(), start.clone()].concat()),
        ("one byte", [ssl_request(), vec![0]].concat()),
    ] {
        let said = answer(balancer.rw(), &bytes).await;
        assert_eq!(
            said, "E(SFATAL|VFATAL|C08P01|Mreceived unencrypted data after encryption request|) ",
            "{name}"
        );
    }
    assert_eq!(notes.all(), Vec::<Vec<u8>>::new());
    wait_until("three to be counted", async || {
        whole(balancer.metric("pgsplit_connections_rejected_total{reason=\"protocol\"}").await) == 3
    })
    .await;
}

#[tokio::test]
async fn each_kind_of_encryption_can_be_asked_for_once() {
    for (tls, rest) in [("passthrough", ""), ("off", ", tls: {mode: off}")] {
        let node = FakeNode::healthy(true).await;
        let config = crate::tools::with_listener([node.addr()], &format!("target: any{rest}"), "");
        let balancer = Balancer::start(&config).await;
        balancer.wait_ready().await;
        for (first, second, code) in
            [(ssl_request(), gssenc_request(), "1234.5679"), (gssenc_request(), ssl_request(), "1234.5680")]
        {
            let mut wire = Wire::connect(balancer.rw()).await.unwrap();
            for request in [&first, &second] {
                wire.send(request).await.unwrap();
                assert_eq!(wire.byte().await.unwrap(), Some(b'N'), "{tls}");
            }
            wire.send(&first).await.unwrap();
            let error = wire.message().await.unwrap().unwrap().error().unwrap();
            assert_eq!(error.code, "0A000");
            assert!(error.message.starts_with(&format!("unsupported frontend protocol {code}")), "{error:?}");
            assert_eq!(wire.byte().await.unwrap(), None);
        }
    }
}

#[tokio::test]
async fn an_http_request_is_told_the_right_port() {
    let node = FakeNode::healthy(true).await;
    let balancer = Balancer::start(&in_order([node.addr()], "")).await;
    for method in ["GET", "HEAD", "POST"] {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.send(format!("{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let answer = String::from_utf8(wire.rest().await.unwrap()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 "), "{answer}");
        let admin = balancer.admin();
        assert_eq!(body, format!("This port speaks PostgreSQL; metrics and status are on http://{admin}/\n"));
    }
    let line = balancer.wait_log("session_end", |_| true).await;
    assert_eq!(line["end"], "protocol", "{line}");
}

#[tokio::test]
async fn a_port_scan_leaves_no_trace_in_the_log() {
    let node = FakeNode::healthy(true).await;
    let balancer = Balancer::start(&in_order([node.addr()], "")).await;
    balancer.wait_ready().await;
    let mut clients = Vec::new();
    for how in 0..4 {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        clients.push(wire.stream().local_addr().unwrap().to_string());
        match how {
            0 => {}
            1 => wire.finish().await.unwrap(),
            2 => wire.reset(),
            _ => wire.send(&startup(&[("user", "u")])[..9]).await.unwrap(),
        }
    }
    wait_until("the scans to be counted", async || {
        let left = balancer.metric("pgsplit_connections_left_total").await;
        if whole(left) == 4 { Ok(()) } else { Err(left) }
    })
    .await;
    for line in balancer.log_lines() {
        assert!(!clients.iter().any(|client| line.to_string().contains(client)), "{line}");
    }
    assert_eq!(whole(balancer.metric("pgsplit_connections_rejected_total").await), 0);
}

#[tokio::test]
async fn memory_grows_with_what_came_and_not_with_what_was_claimed() {
    const CONNECTIONS: usize = 400;
    let node = FakeNode::healthy(true).await;
    // All of them stay, however long it takes to open them.
    let balancer = Balancer::start(&in_order([node.addr()], "sessions: {startup_timeout: 10m}\n")).await;
    balancer.wait_ready().await;
    let mut open = Vec::new();
    let mut connect_all = async |bytes: &[u8]| {
        for _ in 0..CONNECTIONS {
            let mut wire = Wire::connect(balancer.rw()).await.unwrap();
            wire.send(bytes).await.unwrap();
            open.push(wire);
        }
        let count = i64::try_from(open.len()).unwrap();
        wait_until("all to be accepted", async || {
            whole(balancer.metric("pgsplit_connections_opening").await) == count
        })
        .await;
    };
    let mut costs = Vec::new();
    // The first packet claims nothing: what it costs is what any connection costs.
    for bytes in [&b"\0\0\0\x09\0"[..], b"\0\0\x27\x14\0", &[0x16, 3, 1, 0x40, 0, 1]] {
        let before = memory(balancer.pid());
        connect_all(bytes).await;
        costs.push(memory(balancer.pid()).saturating_sub(before) / CONNECTIONS as u64);
    }
    println!("bytes for each connection that claims 9, 10,004 and 16,389: {costs:?}");
    // The two together: an allocator takes memory in pieces that one of them may have paid for the other.
    let (any, claimed) = (costs[0], u64::midpoint(costs[1], costs[2]));
    assert!(any < 40_000 && claimed < any + 8_000, "{costs:?}");

    for length in [0x7fff_ffff_u32, 0xffff_ffff, 10_005] {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.send(&length.to_be_bytes()).await.unwrap();
        assert_eq!(wire.byte().await.unwrap_or(None), None);
    }
}

#[tokio::test]
async fn a_slow_startup_is_ended_in_time() {
    let node = FakeNode::healthy(true).await;
    let balancer = Balancer::start(&in_order([node.addr()], "sessions: {startup_timeout: 1s}\n")).await;
    balancer.wait_ready().await;
    let began = Instant::now();
    let mut silent = Wire::connect(balancer.rw()).await.unwrap();
    let mut asked = Wire::connect(balancer.rw()).await.unwrap();
    asked.send(&ssl_request()).await.unwrap();
    assert_eq!(asked.byte().await.unwrap(), Some(b'N'));
    let drip = async {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        for byte in startup_of_length(1000).chunks(1) {
            if wire.send(byte).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        began.elapsed()
    };
    let (silent, asked, drip) = tokio::join!(
        async {
            assert_eq!(silent.byte().await.unwrap_or(None), None);
            began.elapsed()
        },
        async {
            assert_eq!(asked.byte().await.unwrap_or(None), None);
            began.elapsed()
        },
        drip
    );
    for (name, took) in [("silent", silent), ("asked", asked), ("drip", drip)] {
        assert!((900..5000).contains(&took.as_millis()), "{name}: {took:?}");
    }
    wait_until("three to be counted", async || {
        let timeouts = "pgsplit_connections_rejected_total{reason=\"startup_timeout\"}";
        whole(balancer.metric(timeouts).await) == 3
    })
    .await;
    let client = connect(balancer.rw()).await.unwrap();
    drop(client);
}

#[tokio::test]
async fn waiting_for_a_node_is_not_the_clients_slowness() {
    let node = FakeNode::healthy(true).await;
    let gate = Gate::start(node.addr()).await;
    gate.set(Mode::Refuse).await;
    let config = in_order([gate.addr()], "sessions: {startup_timeout: 1s, queue_timeout: 20s}\n");
    let balancer = Balancer::start(&config).await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    let began = Instant::now();
    wire.send(&ssl_request()).await.unwrap();
    wait_until("the client to have waited longer than a client may be slow", async || {
        let waited = balancer.metric("pgsplit_queue_oldest_wait_seconds").await;
        if waited > 1.2 { Ok(()) } else { Err((waited, began.elapsed())) }
    })
    .await;
    gate.set(Mode::Pass).await;
    assert_eq!(wire.byte().await.unwrap(), Some(b'N'));
    // A round trip of a client that is not slow.
    balancer.metrics().await;
    wire.login("u", "d").await.unwrap().unwrap();
}
