//! Requests for encryption: passed to the node with its answer passed back, or declined.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::balancer::Balancer;
use crate::support::postgres::{Postgres, Settings, Stop};
use crate::support::tls::certificate;
use crate::support::wait::wait_until;
use crate::support::wire::{FakeNode, Wire, gssenc_request, login_answer, ssl_request, startup};
use crate::tools::{Notes, conninfo, in_order, psql, whole, with_listener};

const IS_ENCRYPTED: &str = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";

#[tokio::test]
async fn every_sslmode_works_through_passthrough() {
    let server = Postgres::start_new(Settings::default().tls()).await;
    let balancer = Balancer::start(&in_order([server.addr()], "")).await;
    balancer.wait_ready().await;
    let root = certificate().cert.display();
    for (mode, encrypted) in [
        ("disable", "f"),
        ("allow", "f"),
        ("prefer", "t"),
        ("require", "t"),
        (&format!("verify-ca sslrootcert={root}"), "t"),
        (&format!("verify-full sslrootcert={root} host=pgsplit.test"), "t"),
    ] {
        let conninfo = conninfo(balancer.rw(), &format!("sslmode={mode} application_name=app"));
        assert_eq!(psql(&conninfo, IS_ENCRYPTED).await.as_deref(), Ok(encrypted), "{mode}");
        let tls = if encrypted == "t" { "passthrough" } else { "none" };
        balancer.wait_log("session_end", |line| line["tls"] == tls).await;
    }
    let wrong = conninfo(balancer.rw(), &format!("sslmode=verify-full sslrootcert={root} host=other.test"));
    let refused = psql(&wrong, IS_ENCRYPTED).await.unwrap_err();
    assert!(refused.contains("does not match host name"), "{refused}");
    let readable = balancer.log_lines().into_iter().filter(|line| line["user"] == "postgres").count();
    assert_eq!(readable, 2, "the names in a TLS session are nobody's business");
}

#[tokio::test]
async fn with_tls_off_sessions_stay_readable_and_require_is_refused() {
    let server = Postgres::start_new(Settings::default().tls()).await;
    let config = with_listener([server.addr()], "target: any, tls: {mode: off}", "");
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let prefer = conninfo(balancer.rw(), "sslmode=prefer application_name=app");
    assert_eq!(psql(&prefer, IS_ENCRYPTED).await.as_deref(), Ok("f"));
    let line = balancer.wait_log("session_end", |line| line["tls"] == "none").await;
    assert_eq!((&line["user"], &line["app"]), (&"postgres".into(), &"app".into()), "{line}");
    let refused = psql(&conninfo(balancer.rw(), "sslmode=require"), IS_ENCRYPTED).await.unwrap_err();
    assert!(refused.contains("server does not support SSL"), "{refused}");
}

#[tokio::test]
async fn the_answer_to_a_request_is_the_servers() {
    for settings in [Settings::default(), Settings::default().tls()] {
        let server = Postgres::start_new(settings).await;
        let balancer = Balancer::start(&in_order([server.addr()], "")).await;
        balancer.wait_ready().await;
        for request in [ssl_request(), gssenc_request()] {
            let mut answers = Vec::new();
            for addr in [server.addr(), balancer.rw()] {
                let mut wire = Wire::connect(addr).await.unwrap();
                wire.send_bytewise(&request).await.unwrap();
                answers.push(wire.byte().await.unwrap());
            }
            assert!(answers[0].is_some_and(|answer| b"SGN".contains(&answer)));
            assert_eq!(answers[0], answers[1]);
        }
    }
}

#[tokio::test]
async fn after_a_no_the_login_goes_on_where_it_was_asked() {
    let server = Postgres::start_new(Settings::default()).await;
    let real = Balancer::start(&in_order([server.addr()], "")).await;
    real.wait_ready().await;
    let value = psql(&conninfo(real.rw(), "sslmode=prefer"), IS_ENCRYPTED).await;
    assert_eq!(value.as_deref(), Ok("f"));

    let notes = Notes::new();
    let noted = notes.clone();
    let node = FakeNode::start(move |mut wire| {
        let notes = noted.clone();
        async move {
            let mut packets = Vec::new();
            while let Ok(packet) = wire.first_packet().await {
                packets.push(packet);
                if packets.len() == 3 {
                    notes.add(packets);
                    let _ = wire.send(&login_answer(1, &[0, 0, 0, 1], true)).await;
                    break;
                }
                let _ = wire.send(b"N").await;
            }
            let _ = wire.message().await;
        }
    })
    .await;
    let balancer = Balancer::start(&in_order([node.addr(), server.addr()], "")).await;
    balancer.wait_ready().await;
    let start = startup(&[("user", "u")]);
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    for request in [gssenc_request(), ssl_request()] {
        wire.send(&request).await.unwrap();
        assert_eq!(wire.byte().await.unwrap(), Some(b'N'));
    }
    wire.send(&start).await.unwrap();
    wire.logged_in().await.unwrap().unwrap();
    let sent = [gssenc_request(), ssl_request(), start].map(|packet| packet[4..].to_vec());
    assert_eq!(notes.all(), [sent.to_vec()]);
}

#[tokio::test]
async fn after_a_no_a_refused_login_is_clean_on_another_node() {
    let closing = Postgres::start_new(Settings::default()).await;
    let other = Postgres::start_new(Settings::default().tls()).await;
    let _open = crate::support::client::connect(closing.addr()).await.unwrap();
    let balancer = Balancer::start(&in_order([closing.addr(), other.addr()], "")).await;
    balancer.wait_ready().await;
    closing.tell_to_stop(Stop::Smart);
    wait_until("the server to refuse", async || closing.log().contains("smart shutdown")).await;
    let ip = psql(&conninfo(balancer.rw(), "sslmode=prefer"), "select host(inet_server_addr())").await;
    assert_eq!(ip, Ok(other.addr().ip().to_string()));
    assert_eq!(whole(balancer.metric("pgsplit_redispatches_total{reason=\"57P03\"}").await), 1);
}

#[tokio::test]
async fn a_refusal_inside_tls_is_the_clients_to_read() {
    let server = Postgres::start_new(Settings::default().tls()).await;
    let _open = crate::support::client::connect(server.addr()).await.unwrap();
    let balancer = Balancer::start(&in_order([server.addr()], "")).await;
    balancer.wait_ready().await;
    server.tell_to_stop(Stop::Smart);
    wait_until("the server to refuse", async || server.log().contains("smart shutdown")).await;
    let refused = psql(&conninfo(balancer.rw(), "sslmode=require"), "select 1").await.unwrap_err();
    assert!(refused.contains("the database system is shutting down"), "{refused}");
}

/// Not a TLS handshake, but a record of one; `hello` stands for what is in it.
fn record(hello: &[u8]) -> Vec<u8> {
    let length = u16::try_from(hello.len()).unwrap().to_be_bytes();
    [&[0x16, 3, 1], &length[..], hello].concat()
}

/// A node that notes the first record it gets and answers with `answer`, or closes when that is empty.
async fn tls_node(notes: &Notes<Vec<u8>>, answer: &'static [u8]) -> FakeNode {
    let notes = notes.clone();
    FakeNode::start(move |mut wire| {
        let notes = notes.clone();
        async move {
            let Ok(header) = wire.exactly(5).await else { return };
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            let Ok(body) = wire.exactly(length).await else { return };
            notes.add([header, body].concat());
            if answer.is_empty() || wire.send(answer).await.is_err() {
                return;
            }
            while let Ok(Some(byte)) = wire.byte().await {
                let _ = wire.send(&[byte]).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn direct_tls_reaches_the_node_to_the_byte_and_comes_back() {
    let notes = Notes::new();
    let node = tls_node(&notes, b"\x16\x03\x03\0\x02ok").await;
    let balancer = Balancer::start(&in_order([node.addr()], "")).await;
    balancer.wait_ready().await;
    let largest: Vec<u8> = (0..=255).cycle().take(1 << 14).collect();
    for hello in [&b"hello"[..], &largest] {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.send(&record(hello)).await.unwrap();
        assert_eq!(wire.exactly(7).await.unwrap(), b"\x16\x03\x03\0\x02ok");
        assert_eq!(notes.all().last().unwrap(), &record(hello));
        wire.send(b"opaque").await.unwrap();
        assert_eq!(wire.exactly(6).await.unwrap(), b"opaque");
    }
    balancer.wait_log("session_end", |line| line["tls"] == "direct").await;
}

#[tokio::test]
async fn direct_tls_is_replayed_to_the_node_that_answers() {
    let notes = Notes::new();
    let refuses = tls_node(&notes, b"").await;
    let answers = tls_node(&notes, b"\x15\x03\x03\0\x02\x02\x28").await;
    let balancer = Balancer::start(&in_order([refuses.addr(), answers.addr()], "")).await;
    balancer.wait_ready().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.send(&record(b"hello")).await.unwrap();
    assert_eq!(wire.exactly(7).await.unwrap(), b"\x15\x03\x03\0\x02\x02\x28");
    assert_eq!(notes.all(), [record(b"hello"), record(b"hello")]);
    assert_eq!(whole(balancer.metric("pgsplit_redispatches_total{reason=\"reset\"}").await), 1);
}

/// A server that does not speak it closes without a word, which must not be taken for its end: anybody on the
/// network could take all nodes away with a few bytes.
#[tokio::test]
async fn direct_tls_to_an_old_server_takes_no_node_away() {
    let server = Postgres::start_new(Settings::default()).await;
    if server.value("show server_version_num").await.parse::<u32>().unwrap() >= 170_000 {
        return;
    }
    let nodes = crate::support::cluster::config_for([server.addr()]);
    let config =
        format!("{nodes}  passive: yes\nsessions: {{queue_timeout: 1s}}\n").replace("fall: 2", "fall: 1");
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    for _ in 0..3 {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.send(&record(b"hello")).await.unwrap();
        let _ = wire.rest().await;
    }
    let down = "pgsplit_node_state_changes_total{to=\"down\"}";
    assert_eq!(whole(balancer.metric(down).await), 0);
    crate::support::client::connect(balancer.rw()).await.unwrap();
}

#[tokio::test]
async fn bytes_behind_a_nodes_yes_never_reach_the_client() {
    let injects = FakeNode::start(|mut wire| async move {
        if wire.first_packet().await.is_ok() {
            let _ = wire.send(&[b"S", &b"injected"[..]].concat()).await;
            let _ = wire.rest().await;
        }
    })
    .await;
    let server = Postgres::start_new(Settings::default().tls()).await;
    let balancer = Balancer::start(&in_order([injects.addr(), server.addr()], "")).await;
    balancer.wait_ready().await;
    let value = psql(&conninfo(balancer.rw(), "sslmode=require"), IS_ENCRYPTED).await;
    assert_eq!(value.as_deref(), Ok("t"));
    assert_eq!(whole(balancer.metric("pgsplit_redispatches_total{reason=\"reset\"}").await), 1);
}
