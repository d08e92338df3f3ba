//! A node that refuses before it has begun to deal with the client: the client gets one clean login from
//! another, or the answer that is meant for it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use tokio::time::Instant;

use crate::support::balancer::Balancer;
use crate::support::client::{config, connect, connect_with, value, which_node};
use crate::support::gate::{Direction, Gate, Mode};
use crate::support::postgres::{Postgres, Settings, Stop};
use crate::support::wait::wait_until;
use crate::support::wire::{FakeNode, Wire, auth_ok, error, login_answer, message, startup, terminate};
use crate::tools::{Notes, conninfo, in_order, psql, whole};

const KEY: [u8; 4] = [0, 0, 0, 1];

/// A node that reads a startup packet, notes it and answers with `answer`, each byte on its own when `slowly`.
/// It closes then, unless a login has succeeded.
async fn node(notes: &Notes<Vec<u8>>, answer: Vec<u8>, slowly: bool) -> FakeNode {
    let notes = notes.clone();
    FakeNode::start(move |mut wire| {
        let (notes, answer) = (notes.clone(), answer.clone());
        async move {
            let Ok(packet) = wire.first_packet().await else { return };
            notes.add(packet);
            let _ = if slowly { wire.send_bytewise(&answer).await } else { wire.send(&answer).await };
            if answer.ends_with(b"Z\0\0\0\x05I") {
                let _ = wire.message().await;
            }
        }
    })
    .await
}

/// What one login sees through nodes that give these answers, in this order, and how often a node was passed
/// over for each reason.
async fn seen_through(answers: &[Vec<u8>]) -> (Vec<u8>, Vec<(&'static str, i64)>, usize) {
    let notes = Notes::new();
    let mut nodes = Vec::new();
    for answer in answers {
        nodes.push(node(&notes, answer.clone(), false).await);
    }
    let config = in_order(nodes.iter().map(FakeNode::addr), "sessions: {queue_timeout: 500ms}\n");
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    let packet = startup(&[("user", "u")]);
    wire.send(&packet).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"Z\0\0\0\x05I") {
        match wire.byte().await {
            Ok(Some(byte)) => seen.push(byte),
            Ok(None) | Err(_) => break,
        }
    }
    assert!(notes.all().iter().all(|note| note == &packet[4..]), "each node gets the same packet");
    let mut reasons = Vec::new();
    for reason in ["connect", "reset", "no_answer", "going_down", "57P03", "53300"] {
        let count = balancer.metric(&format!("pgsplit_redispatches_total{{reason=\"{reason}\"}}")).await;
        if whole(count) != 0 {
            reasons.push((reason, whole(count)));
        }
    }
    (seen, reasons, notes.all().len())
}

#[tokio::test]
async fn a_refusal_before_authentication_is_not_seen() {
    let login = login_answer(7, &KEY, true);
    let notice = message(b'N', b"SNOTICE\0C00000\0Mhello\0\0");
    for (name, refusal, reason) in [
        ("starting", error("FATAL", "57P03", "the database system is starting up"), "57P03"),
        ("full", error("FATAL", "53300", "sorry, too many clients already"), "53300"),
        ("a notice before it", [notice.clone(), error("FATAL", "57P03", "shutting down")].concat(), "57P03"),
        ("a close without a byte", Vec::new(), "reset"),
        ("half a message", login[..3].to_vec(), "reset"),
        ("a notice and a close", notice, "reset"),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec(), "reset"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "reset"),
    ] {
        let (seen, reasons, tried) = seen_through(&[refusal, login.clone()]).await;
        assert_eq!(seen, login, "{name}");
        assert_eq!((reasons, tried), (vec![(reason, 1)], 2), "{name}");
    }
}

#[tokio::test]
async fn any_other_error_is_the_clients_answer() {
    let login = login_answer(7, &KEY, true);
    for code in ["28P01", "28000", "3D000", "42501", "0A000", "57P01", "XX000"] {
        let refusal = error("FATAL", code, "no");
        let (seen, reasons, tried) = seen_through(&[refusal.clone(), login.clone()]).await;
        assert_eq!(seen, refusal, "{code}");
        assert_eq!((reasons, tried), (vec![], 1), "{code}");
    }
    // A server of another make may leave out the code.
    let bare = message(b'E', b"Mno\0\0");
    let (seen, _, tried) = seen_through(&[bare.clone(), login]).await;
    assert_eq!((seen, tried), (bare, 1));
}

#[tokio::test]
async fn a_node_that_lets_in_without_a_password_is_heard_out() {
    let login = login_answer(7, &KEY, true);
    let reserved = message(b'E', b"SFATAL\0C53300\0Mremaining slots are reserved\0RInitPostgres\0\0");
    let (seen, reasons, tried) = seen_through(&[[auth_ok(), reserved].concat(), login.clone()]).await;
    assert_eq!((seen, reasons, tried), (login.clone(), vec![("53300", 1)], 2));
    // A limit of the role's own is the same on every node.
    let own = [auth_ok(), message(b'E', b"SFATAL\0C53300\0Mtoo many for role\0RInitializeSessionUserId\0\0")]
        .concat();
    let (seen, reasons, tried) = seen_through(&[own.clone(), login]).await;
    assert_eq!((seen, reasons, tried), (own, vec![], 1));
}

#[tokio::test]
async fn nothing_is_replayed_once_authentication_has_begun() {
    let login = login_answer(7, &KEY, true);
    let password = message(b'R', &3_u32.to_be_bytes());
    for rest in [
        error("FATAL", "57P03", "too late"),
        error("FATAL", "53300", "remaining connection slots are reserved"),
        Vec::new(),
    ] {
        let answer = [password.clone(), rest].concat();
        let (seen, reasons, tried) = seen_through(&[answer.clone(), login.clone()]).await;
        assert_eq!(seen, answer);
        assert_eq!((reasons, tried), (vec![], 1));
    }
}

#[tokio::test]
async fn when_every_node_refuses_the_client_is_told_why() {
    let starting = error("FATAL", "57P03", "the database system is starting up");
    let full = error("FATAL", "53300", "sorry, too many clients already");
    let (seen, reasons, _) = seen_through(&[starting, full]).await;
    let code = seen.windows(6).position(|bytes| bytes == b"C57P03");
    assert!(code.is_some(), "{}", seen.escape_ascii());
    assert_eq!(reasons.len(), 2, "{reasons:?}");
}

#[tokio::test]
async fn a_node_that_answers_one_byte_at_a_time_is_fine() {
    let notes = Notes::new();
    let starting = error("FATAL", "57P03", "the database system is starting up");
    let login = login_answer(7, &[9; 256], true);
    let nodes = [node(&notes, starting, true).await, node(&notes, login.clone(), true).await];
    let balancer = Balancer::start(&in_order(nodes.iter().map(FakeNode::addr), "")).await;
    balancer.wait_ready().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.send(&startup(&[("user", "u")])).await.unwrap();
    assert_eq!(wire.exactly(login.len()).await.unwrap(), login);
    wire.send(&terminate()).await.unwrap();
    drop(wire);
    let line = balancer.wait_log("session_end", |_| true).await;
    assert_eq!((&line["node"], &line["redispatch_reasons"]), (&"n1".into(), &"57P03".into()), "{line}");
    assert!(line["login_s"].is_number(), "{line}");
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_passed_over() {
    let server = Postgres::start_new(Settings::default()).await;
    let gate = Gate::start(server.addr()).await;
    let config = in_order([gate.addr(), server.addr()], "sessions: {answer_timeout: 300ms}\n");
    let balancer = Balancer::start(&config).await;
    let mut told = Vec::new();
    for (mode, reasons) in [
        // Whether the connect or the login meets the reset is a matter of luck.
        (Mode::Reset, &["reset", "connect"][..]),
        (Mode::Cut(Direction::ToClient, 0), &["reset"]),
        (Mode::Drop, &["no_answer"]),
    ] {
        gate.set(Mode::Pass).await;
        balancer.wait_health("n0", "up").await;
        gate.set(mode).await;
        let client = connect(balancer.rw()).await.unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        assert_eq!(which_node(&client).await.unwrap(), server.addr().ip());
        drop(client);
        let line = balancer.wait_log("session_end", |line| !told.contains(&line["id"])).await;
        told.push(line["id"].clone());
        assert_eq!(line["redispatches"], 1, "{mode:?}: {line}");
        assert!(reasons.iter().any(|&reason| line["redispatch_reasons"] == reason), "{mode:?}: {line}");
    }
    assert_eq!(whole(balancer.metric("pgsplit_redispatches_total").await), 3);
}

#[tokio::test]
async fn a_node_that_refuses_connections_is_passed_over_before_a_check_has_seen_it() {
    let server = Postgres::start_new(Settings::default()).await;
    let gate = Gate::start(server.addr()).await;
    let config = in_order([gate.addr(), server.addr()], "").replace("interval: 200ms", "interval: 1h");
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    gate.set(Mode::Refuse).await;
    let client = connect(balancer.rw()).await.unwrap();
    value(&client, "select 1").await.unwrap();
    assert_eq!(whole(balancer.metric("pgsplit_redispatches_total{reason=\"connect\"}").await), 1);
    let refused = "pgsplit_node_connect_errors_total{node=\"n0\",reason=\"refused\"}";
    assert_eq!(whole(balancer.metric(refused).await), 1);
    drop(client);
    let line = balancer.wait_log("session_end", |_| true).await;
    assert_eq!((&line["redispatches"], &line["redispatch_reasons"]), (&1.into(), &"connect".into()));
}

#[tokio::test]
async fn a_stopped_server_is_passed_over_after_the_answer_timeout() {
    let stopped = Postgres::start_new(Settings::default()).await;
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&in_order([stopped.addr(), server.addr()], "")).await;
    balancer.wait_ready().await;
    stopped.sigstop();
    let began = Instant::now();
    let client = connect(balancer.rw()).await.unwrap();
    let took = began.elapsed();
    stopped.sigcont();
    assert_eq!(which_node(&client).await.unwrap(), server.addr().ip());
    assert!((900..4000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(whole(balancer.metric("pgsplit_redispatches_total{reason=\"no_answer\"}").await), 1);
}

#[tokio::test]
async fn a_slow_login_with_nobody_else_to_ask_is_waited_for() {
    let server = Postgres::start_new(Settings::default()).await;
    let gate = Gate::start(server.addr()).await;
    let balancer = Balancer::start(&in_order([gate.addr()], "sessions: {answer_timeout: 100ms}\n")).await;
    balancer.wait_ready().await;
    gate.set(Mode::Delay(Duration::from_millis(400))).await;
    let client = connect(balancer.rw()).await.unwrap();
    value(&client, "select 1").await.unwrap();
    assert_eq!(whole(balancer.metric("pgsplit_redispatches_total").await), 0);
}

#[tokio::test]
async fn a_full_server_is_passed_over_and_nobody_on_it_is_cut_off() {
    let full = Postgres::start_new(Settings::default().max_connections(6)).await;
    let other = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&in_order([full.addr(), other.addr()], "")).await;
    balancer.wait_ready().await;
    // As a superuser, who may have the last slots as well.
    let mut there = Vec::new();
    while let Ok(client) = connect(full.addr()).await {
        there.push(client);
        assert!(there.len() <= 6);
    }
    for mode in ["disable", "prefer"] {
        let conninfo = conninfo(balancer.rw(), &format!("sslmode={mode}"));
        let ip = psql(&conninfo, "select host(inet_server_addr())").await;
        assert_eq!(ip, Ok(other.addr().ip().to_string()), "{mode}");
    }
    assert_eq!(whole(balancer.metric("pgsplit_redispatches_total{reason=\"53300\"}").await), 2);
    for client in &there {
        value(client, "select 1").await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_shuts_down_or_starts_is_passed_over() {
    let closing = Postgres::start_new(Settings::default()).await;
    let other = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&in_order([closing.addr(), other.addr()], "")).await;
    balancer.wait_ready().await;
    let stays = connect(balancer.rw()).await.unwrap();
    assert_eq!(which_node(&stays).await.unwrap(), closing.addr().ip());
    closing.tell_to_stop(Stop::Smart);
    wait_until("the server to refuse", async || closing.log().contains("smart shutdown")).await;
    let client = connect(balancer.rw()).await.unwrap();
    assert_eq!(which_node(&client).await.unwrap(), other.addr().ip());
    assert_eq!(whole(balancer.metric("pgsplit_redispatches_total{reason=\"57P03\"}").await), 1);
    let errors = "pgsplit_node_startup_errors_total{node=\"n0\",sqlstate=\"57P03\"}";
    assert_eq!(whole(balancer.metric(errors).await), 1);
    assert_eq!(value(&stays, "select 1").await.unwrap(), "1");
}

/// A role has used up its own connections, which says nothing about the server.
#[tokio::test]
async fn a_role_at_its_limit_does_not_make_a_node_full() {
    let server = Postgres::start_new(Settings::default()).await;
    server.sql("alter role app connection limit 1").await;
    let nodes = crate::support::cluster::config_for([server.addr()]);
    // The only check is the first one: nothing but sessions can change the state.
    let config = nodes.replace("interval: 200ms", "interval: 1h") + "sessions: {queue_timeout: 1s}\n";
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let mut app = config_of(&balancer, "app");
    let _one = connect_with(app.clone()).await.unwrap();
    let refused = connect_with(app.clone()).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "53300");
    app.user("postgres");
    connect_with(app).await.unwrap();
    let full = "pgsplit_node_state_changes_total{to=\"full\"}";
    assert_eq!(whole(balancer.metric(full).await), 0);
}

#[tokio::test]
async fn a_server_that_keeps_its_last_slots_for_others_is_full() {
    let server = Postgres::start_new(Settings::default().max_connections(6)).await;
    let config = crate::support::cluster::config_for([server.addr()]) + "sessions: {queue_timeout: 200ms}\n";
    let balancer = Balancer::start(&config.replace("interval: 200ms", "interval: 1h")).await;
    balancer.wait_ready().await;
    let mut open = Vec::new();
    let refused = loop {
        match connect_with(config_of(&balancer, "app")).await {
            Ok(client) => open.push(client),
            Err(error) => break error,
        }
        assert!(open.len() <= 3);
    };
    // The client has waited for a place, since there is no other node; it did not see the refusal.
    assert_eq!(refused.code().unwrap().code(), "57P03");
    assert!(refused.as_db_error().unwrap().message().contains("for a free place"));
    wait_until("the node to be full", async || {
        whole(balancer.metric("pgsplit_node_state_changes_total{to=\"full\"}").await) > 0
    })
    .await;
}

fn config_of(balancer: &Balancer, user: &str) -> tokio_postgres::Config {
    let mut config = config(balancer.rw());
    config.user(user);
    config
}

#[tokio::test]
async fn the_wait_of_a_client_that_got_no_node_is_told() {
    let node = FakeNode::healthy(true).await;
    let gate = Gate::start(node.addr()).await;
    gate.set(Mode::Refuse).await;
    let balancer = Balancer::start(&in_order([gate.addr()], "sessions: {queue_timeout: 300ms}\n")).await;
    let refused = connect(balancer.rw()).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "57P03");
    let line = balancer.wait_log("session_end", |_| true).await;
    assert!(line["queue_s"].as_f64() > Some(0.29), "{line}");
    assert_eq!(whole(balancer.metric("pgsplit_queue_wait_seconds_count").await), 1);
}

/// A node that accepts connections until it is told not to, as a host that goes from the network.
struct Vanishing {
    addr: std::net::SocketAddr,
    accepting: tokio::task::JoinHandle<tokio::net::TcpListener>,
    stop: std::sync::Arc<tokio::sync::Notify>,
    _address: crate::support::address::Address,
}

impl Vanishing {
    fn start() -> Self {
        let address = crate::support::address::Address::claim();
        let (socket, addr) = (tokio::net::TcpSocket::new_v4().unwrap(), address.port(5432));
        socket.bind(addr).unwrap();
        let listener = socket.listen(1).unwrap();
        let stop = std::sync::Arc::new(tokio::sync::Notify::new());
        let told = std::sync::Arc::clone(&stop);
        let accepting = tokio_util::task::TaskTracker::new().spawn(async move {
            loop {
                tokio::select! {
                    _ = listener.accept() => {}
                    () = told.notified() => return listener,
                }
            }
        });
        Self { addr, accepting, stop, _address: address }
    }

    /// From now on a connect to it comes to no end. What is returned must be kept for that.
    async fn vanish(self) -> (tokio::net::TcpListener, Vec<tokio::net::TcpStream>) {
        self.stop.notify_one();
        let listener = self.accepting.await.unwrap();
        let (mut filling, mut swallowed) = (Vec::new(), 0);
        // Several in a row: a machine that is busy can be slow once.
        while swallowed < 3 {
            let connect = tokio::net::TcpStream::connect(self.addr);
            match tokio::time::timeout(Duration::from_millis(200), connect).await {
                Ok(stream) => filling.push(stream.unwrap()),
                Err(_) => swallowed += 1,
            }
        }
        (listener, filling)
    }
}

/// A client's first byte through a standby that vanishes and, after it, one that is well.
async fn through_one_that_vanishes(settings: &str) -> (Balancer, Option<u8>) {
    let gone = Vanishing::start();
    let other = node(&Notes::new(), login_answer(7, &KEY, true), false).await;
    let config = format!(
        "nodes:\n  - {{name: gone, addr: \"{}\", role: standby}}\n  - {{addr: \"{}\", role: standby}}\n\
         listeners: [{{name: ro, bind: \"BALANCER:6433\", target: standby, balance: first}}]\n{settings}",
        gone.addr,
        other.addr()
    );
    let balancer = Balancer::start(&config).await;
    balancer.wait_health("gone", "up").await;
    let _kept = gone.vanish().await;
    let mut wire = Wire::connect(balancer.ro()).await.unwrap();
    wire.send(&startup(&[("user", "u")])).await.unwrap();
    let first = wire.byte().await.unwrap();
    (balancer, first)
}

#[tokio::test]
async fn a_node_that_swallows_connects_is_left_as_soon_as_one_that_is_silent() {
    let (balancer, first) = through_one_that_vanishes(
        "check: {type: tcp, interval: 60s}\nsessions: {connect_timeout: 10m, answer_timeout: 200ms}\n",
    )
    .await;
    assert_eq!(first, Some(b'R'));
    let moved = balancer.metric("pgsplit_redispatches_total{reason=\"connect\"}").await;
    assert_eq!(whole(moved), 1);
}

#[tokio::test]
async fn a_node_that_begins_to_fail_is_left_while_it_is_connected_to() {
    // Only its check can show that it is gone, and it is not down for a long time.
    let (balancer, first) = through_one_that_vanishes(
        "check: {type: tcp, interval: 3s, timeout: 300ms, fall: 1000}\n\
         sessions: {connect_timeout: 10m, answer_timeout: 10m}\n",
    )
    .await;
    assert_eq!(first, Some(b'R'));
    assert_eq!(balancer.node("gone").await["health"], "up");
}

/// They fail their checks and take clients all the same: with none better there, each is as good as it was.
#[tokio::test]
async fn nodes_that_all_fail_their_checks_still_get_sessions() {
    let failing = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let failing = std::sync::Arc::clone(&failing);
        nodes.push(
            FakeNode::start(move |mut wire: Wire| {
                let failing = std::sync::Arc::clone(&failing);
                async move {
                    let Ok(packet) = wire.first_packet().await else { return };
                    let is_check = packet.windows(8).any(|part| part == b"lb_check");
                    let answer = if is_check && failing.load(std::sync::atomic::Ordering::Relaxed) {
                        error("FATAL", "XX000", "not now")
                    } else {
                        login_answer(7, &KEY, true)
                    };
                    let _ = wire.send(&answer).await;
                    let _ = wire.message().await;
                }
            })
            .await,
        );
    }
    let line = |(i, node): (usize, &FakeNode)| {
        format!("  - {{name: n{i}, addr: \"{}\", role: standby}}\n", node.addr())
    };
    let lines = nodes.iter().enumerate().map(line).collect::<Vec<_>>().concat();
    let config = format!(
        "nodes:\n{lines}check: {{type: startup, user: lb_check, interval: 100ms, fall: 1000}}\n\
         sessions: {{retries: 0, queue_timeout: 500ms}}\n\
         listeners: [{{name: ro, bind: \"BALANCER:6433\", target: standby}}]\n",
    );
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    failing.store(true, std::sync::atomic::Ordering::Relaxed);
    for i in 0..3 {
        let name = format!("n{i}");
        wait_until("it to fail", async || balancer.node(&name).await["state"] == "going_down").await;
    }
    for _ in 0..20 {
        let mut wire = Wire::connect(balancer.ro()).await.unwrap();
        wire.send(&startup(&[("user", "u")])).await.unwrap();
        assert_eq!(wire.byte().await.unwrap(), Some(b'R'));
    }
    assert!(balancer.metric("pgsplit_redispatches_total").await < 0.5, "each stayed where it was sent");
}
