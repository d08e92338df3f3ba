//! The figures add up: every accepted connection is counted once more, as what became of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::balancer::{Balancer, sum};
use crate::support::client::{config, connect, connect_with, value};
use crate::support::postgres::{Postgres, Settings};
use crate::support::wait::wait_until;
use crate::support::wire::{Wire, cancel_request, error, login_answer, ssl_request, startup, terminate};
use crate::support::{gate::Gate, gate::Mode, wire::FakeNode};
use crate::tools::{conninfo, psql, whole, with_listener};

const PARTS: [&str; 6] = [
    "pgsplit_connections_rejected_total",
    "pgsplit_connections_left_total",
    "pgsplit_cancel_requests_total",
    "pgsplit_sessions_total",
    "pgsplit_sessions_active",
    "pgsplit_session_panics_total",
];

/// Accepted connections, and the sum of what they have become or are becoming.
pub(crate) fn both_sides(metrics: &str) -> (i64, i64) {
    let parts: i64 = PARTS.iter().map(|part| whole(sum(metrics, part))).sum();
    let opening = whole(sum(metrics, "pgsplit_connections_opening"));
    (whole(sum(metrics, "pgsplit_connections_accepted_total")), parts + opening)
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a day in the life of a listener")]
async fn every_accepted_connection_is_counted_once_more() {
    let settings =
        Settings::default().tls().hba(&["host all app all scram-sha-256", "host all all all trust"]);
    let server = Postgres::start_new(settings).await;
    let gate = Gate::start(server.addr()).await;
    let starting = FakeNode::start(|mut wire| async move {
        if wire.first_packet().await.is_ok() {
            let _ = wire.send(&error("FATAL", "57P03", "the database system is starting up")).await;
        }
    })
    .await;
    let dies = FakeNode::start(|mut wire| async move {
        if wire.startup_packet().await.is_ok() {
            let _ = wire.send(&login_answer(1, &[0, 0, 0, 1], true)).await;
            let _ = wire.message().await;
            wire.reset();
        }
    })
    .await;
    let listeners = "target: any, balance: first, max_connections: 10";
    let rest = "sessions: {startup_timeout: 1s, queue_timeout: 1s}\n";
    let balancer = Balancer::start(&with_listener([starting.addr(), gate.addr()], listeners, rest)).await;
    let broken = Balancer::start(&with_listener([dies.addr()], listeners, rest)).await;
    for balancer in [&balancer, &broken] {
        balancer.wait_ready().await;
    }

    // Sessions that stay, and sessions that end: in order, by a reset, refused by the server, through TLS.
    let stays = connect(balancer.rw()).await.unwrap();
    value(&connect(balancer.rw()).await.unwrap(), "select 1").await.unwrap();
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    let key = wire.login("postgres", "postgres").await.unwrap().unwrap().key;
    wire.reset();
    let mut wrong = config(balancer.rw());
    wrong.user("app").password("wrong");
    connect_with(wrong).await.unwrap_err();
    psql(&conninfo(balancer.rw(), "sslmode=require"), "select 1").await.unwrap();
    psql(&conninfo(balancer.rw(), "sslmode=prefer user=app"), "select 1").await.unwrap();
    let mut wire = Wire::connect(broken.rw()).await.unwrap();
    wire.login("u", "d").await.unwrap().unwrap();
    wire.send(&terminate()).await.unwrap();
    let _ = wire.rest().await;

    // Scans, clients that hang up half way, wrong packets, one that is slow.
    let slow = Wire::connect(balancer.rw()).await.unwrap();
    for bytes in [&b""[..], &startup(&[("user", "u")])[..7], b"\0\0\0\x07xxxx", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.send(bytes).await.unwrap();
    }
    let mut asked = Wire::connect(balancer.rw()).await.unwrap();
    asked.send(&ssl_request()).await.unwrap();
    asked.byte().await.unwrap();
    drop(asked);

    // Cancels of a key that was and of one that never was.
    for (pid, key) in [key, (1, vec![0; 4])] {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.send(&cancel_request(pid, &key)).await.unwrap();
        wire.rest().await.unwrap();
    }

    // More than there is room for.
    let mut crowd = Vec::new();
    let refused = loop {
        match connect(balancer.rw()).await {
            Ok(client) => crowd.push(client),
            Err(error) => break error,
        }
        assert!(crowd.len() < 20);
    };
    assert_eq!(refused.code().unwrap().code(), "53300");
    let (accepted, counted) = both_sides(&balancer.metrics().await);
    assert_eq!(accepted, counted, "while sessions run and one is opening");
    crowd.clear();

    // No node: one waits in vain, one leaves while it waits.
    gate.set(Mode::Refuse).await;
    balancer.wait_health("n1", "down").await;
    let mut impatient = Wire::connect(balancer.rw()).await.unwrap();
    impatient.send(&startup(&[("user", "u")])).await.unwrap();
    wait_until("it to wait", async || whole(balancer.metric("pgsplit_sessions_waiting").await) == 1).await;
    drop(impatient);
    let refused = connect(balancer.rw()).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "57P03");
    let timeouts = "pgsplit_connections_rejected_total{reason=\"startup_timeout\"}";
    wait_until("the slow one to be ended", async || whole(balancer.metric(timeouts).await) == 1).await;
    drop(slow);

    for (balancer, active) in [(&balancer, 1), (&broken, 0)] {
        let metrics = wait_until("nobody to be connecting", async || {
            let metrics = balancer.metrics().await;
            let opening = whole(sum(&metrics, "pgsplit_connections_opening"));
            let now = whole(sum(&metrics, "pgsplit_sessions_active"));
            if (opening, now) == (0, active) { Ok(metrics) } else { Err((opening, now)) }
        })
        .await;
        let (accepted, counted) = both_sides(&metrics);
        assert_eq!(accepted, counted, "{metrics}");
        // Nothing hides behind another figure.
        for part in PARTS {
            assert!(whole(sum(&metrics, part)) >= 0, "{part}");
        }
        assert_eq!(whole(sum(&metrics, "pgsplit_session_panics_total")), 0);
    }
    let metrics = balancer.metrics().await;
    for (series, expected) in [
        ("pgsplit_connections_rejected_total{reason=\"protocol\"}", 2),
        ("pgsplit_connections_rejected_total{reason=\"limit\"}", 1),
        ("pgsplit_connections_rejected_total{reason=\"startup_timeout\"}", 1),
        ("pgsplit_connections_rejected_total{reason=\"no_node\"}", 1),
        ("pgsplit_connections_left_total", 3),
        ("pgsplit_cancel_requests_total{result=\"broadcast\"}", 2),
        ("pgsplit_node_sessions_active", 1),
        ("pgsplit_sessions_waiting", 0),
    ] {
        assert_eq!(whole(sum(&metrics, series)), expected, "{series}\n{metrics}");
    }
    value(&stays, "select 1").await.unwrap();
}
