//! A session at work: bytes arrive as they were sent, slow peers slow, and an end on one side is an end on the
//! other.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::support::balancer::Balancer;
use crate::support::client::{background, config, connect, value};
use crate::support::cluster::Cluster;
use crate::support::gate::{Direction, Gate};
use crate::support::postgres::{Postgres, Settings, Stop};
use crate::support::process::{Signal, signal};
use crate::support::wait::{wait_at_most, wait_until};
use crate::support::wire::{FakeNode, Wire, login_answer, query, startup, terminate};
use crate::tools::{Notes, conninfo, in_order, memory, output, program, whole};

async fn through(node: SocketAddr) -> Balancer {
    let balancer = Balancer::start(&in_order([node], "")).await;
    balancer.wait_ready().await;
    balancer
}

/// Sessions of clients on a server, its own support's not counted.
async fn client_sessions(server: &Postgres) -> usize {
    let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend' and usename <> 'support'";
    server.value(sql).await.parse().unwrap()
}

/// A node that lets everybody in and notes what it hears from then on, to the end; it may close its own half first.
async fn hearing_all(closes_its_half: bool) -> (FakeNode, Notes<Vec<u8>>) {
    let notes = Notes::new();
    let noted = notes.clone();
    let node = FakeNode::start(move |mut wire| {
        let notes = noted.clone();
        async move {
            if wire.first_packet().await.is_ok() {
                let _ = wire.send(&login_answer(1, &[0, 0, 0, 1], true)).await;
                if closes_its_half {
                    let _ = wire.finish().await;
                }
                notes.add(wire.rest().await.unwrap_or_default());
            }
        }
    });
    (node.await, notes)
}

#[tokio::test]
async fn a_client_that_closes_its_half_gets_the_whole_answer() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = through(server.addr()).await;
    let sql = "select repeat('x', 1000) from generate_series(1, 20000)";
    let mut answers = Vec::new();
    for addr in [server.addr(), balancer.rw()] {
        let mut wire = Wire::connect(addr).await.unwrap();
        wire.login("postgres", "postgres").await.unwrap().unwrap();
        wire.send(&query(sql)).await.unwrap();
        wire.finish().await.unwrap();
        answers.push(wire.rest().await.unwrap());
    }
    assert!(answers[0].len() > 20_000_000 && answers[0].ends_with(b"Z\0\0\0\x05I"));
    assert!(answers[0] == answers[1], "{} and {} bytes", answers[0].len(), answers[1].len());
}

#[tokio::test]
async fn a_node_that_closes_its_half_still_gets_what_the_client_sends() {
    let (node, notes) = hearing_all(true).await;
    let balancer = through(node.addr()).await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.login("u", "d").await.unwrap().unwrap();
    assert_eq!(wire.byte().await.unwrap(), None);
    wire.send(b"last words").await.unwrap();
    wire.finish().await.unwrap();
    wait_until("the node to have heard all", async || notes.all() == [b"last words".to_vec()]).await;
    let line = balancer.wait_log("session_end", |_| true).await;
    assert_eq!(line["end"], "server", "{line}");
}

#[tokio::test]
async fn a_slow_reader_slows_the_writer_and_costs_no_memory() {
    const SENT: usize = 200 << 20;
    let node = FakeNode::start(|mut wire| async move {
        if wire.first_packet().await.is_err() {
            return;
        }
        let _ = wire.send(&login_answer(1, &[0, 0, 0, 1], true)).await;
        let piece = vec![7; 1 << 20];
        for _ in 0..SENT / piece.len() {
            if wire.stream().write_all(&piece).await.is_err() {
                return;
            }
        }
    })
    .await;
    let gate = Gate::start(node.addr()).await;
    let balancer = through(gate.addr()).await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.login("u", "d").await.unwrap().unwrap();
    let before = memory(balancer.pid());
    let mut last = 0;
    // Nobody reads: the flow must come to a stand.
    wait_until("the writer to be slowed down", async || {
        let passed = gate.bytes(Direction::ToClient);
        tokio::time::sleep(Duration::from_millis(100)).await;
        std::mem::replace(&mut last, passed) == passed && passed > 1000
    })
    .await;
    assert!(last < 64 << 20, "{last} bytes are on their way");
    let mut sum = 0;
    let mut most = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = wire.stream().read(&mut buffer).await.unwrap();
        if n == 0 {
            break;
        }
        assert!(buffer[..n].iter().all(|&byte| byte == 7));
        if sum >> 24 != (sum + n) >> 24 {
            most = most.max(memory(balancer.pid()));
        }
        sum += n;
    }
    assert_eq!(sum, SENT);
    let grown = most.saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more than before");
}

#[tokio::test]
async fn a_copy_of_100_mb_comes_back_as_it_went_in() {
    const COPY: &str =
        "copy (select n, md5(n::text) || repeat('y', 450) from generate_series(1, 200000) n) to stdout";
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = through(server.addr()).await;
    server.sql("create table t (n int, word text)").await;
    let pipe = format!(
        "psql -XAtqw -d \"$0\" -c \"{COPY}\" | tee >(sha256sum >&2) | psql -XAtqw -d \"$0\" -c 'copy t from stdin'; \
         psql -XAtqw -d \"$0\" -c 'copy (select * from t order by n) to stdout' | sha256sum"
    );
    let psql = std::path::PathBuf::from(program("psql").get_program());
    let mut command = crate::support::programs::programs().system_command("bash");
    command.env("PATH", format!("{}:/usr/bin:/bin", psql.parent().unwrap().display()));
    command.env("HOME", "/nonexistent");
    command.args(["-c", &pipe, &conninfo(balancer.rw(), "sslmode=disable")]);
    let output = output(command).await;
    let (into, out) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success() && into.len() > 64, "{into}");
    assert_eq!(into, out);
    let moved = balancer.metric("pgsplit_bytes_total{direction=\"to_node\"}").await;
    assert!(moved > 95e6, "{moved}");
    assert_eq!(server.value("select count(*) from t").await, "200000");
}

#[tokio::test]
async fn notifications_arrive() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = through(server.addr()).await;
    let notes = Notes::new();
    let config = config(balancer.rw());
    let noted = notes.clone();
    let listener = background()
        .spawn(async move {
            let (client, mut connection) = config.connect(NoTls).await.unwrap();
            background().spawn(async move {
                while let Some(Ok(message)) =
                    std::future::poll_fn(|context| connection.poll_message(context)).await
                {
                    if let AsyncMessage::Notification(notification) = message {
                        noted.add(notification.payload().to_owned());
                    }
                }
            });
            client
        })
        .await
        .unwrap();
    listener.batch_execute("listen news").await.unwrap();
    let sender = connect(balancer.rw()).await.unwrap();
    for n in 0..50 {
        sender.batch_execute(&format!("notify news, 'n{n}'")).await.unwrap();
    }
    let all: Vec<_> = (0..50).map(|n| format!("n{n}")).collect();
    wait_until("all to arrive in order", async || {
        let notes = notes.all();
        if notes == all { Ok(()) } else { Err(notes) }
    })
    .await;
}

#[tokio::test]
async fn pipelined_queries_are_answered_in_order() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = through(server.addr()).await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.login("postgres", "postgres").await.unwrap().unwrap();
    let queries: Vec<u8> = (0..500).flat_map(|n| query(&format!("select {n}"))).collect();
    wire.send(&queries).await.unwrap();
    for n in 0..500 {
        let mut row = None;
        loop {
            let message = wire.message().await.unwrap().unwrap();
            match message.tag {
                b'D' => row = Some(String::from_utf8_lossy(&message.body[6..]).into_owned()),
                b'Z' => break,
                _ => {}
            }
        }
        assert_eq!(row, Some(n.to_string()));
    }
}

#[tokio::test]
async fn pg_receivewal_streams_through_the_writing_listener() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let balancer = Balancer::start(&cluster.config()).await;
    balancer.wait_ready().await;
    let dir = crate::support::home::directory_of(crate::support::programs::programs().owner, "wal");
    let mut command = program("pg_receivewal");
    command.arg("-D").arg(&dir).args(["--no-sync", "-w", "-d", &conninfo(balancer.rw(), "")]);
    command.stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().unwrap();
    let received = || std::fs::read_dir(&dir).unwrap().flatten().any(|entry| entry.file_name().len() >= 24);
    let sql = "select count(*) from pg_stat_replication where application_name = 'pg_receivewal'";
    wait_until("the stream to begin", async || cluster.primary().value(sql).await == "1" && received()).await;
    // Segments of these servers have 1 MB.
    cluster.primary().sql("create table t as select repeat('z', 100) from generate_series(1, 20000)").await;
    wait_until("a segment to be complete", async || {
        let entries = std::fs::read_dir(&dir).unwrap().flatten();
        entries.filter(|entry| entry.file_name().len() == 24).count() >= 2
    })
    .await;
    signal(child.id(), Signal::INT);
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    balancer.wait_log("session_end", |line| line["node"] == "n0").await;
}

#[tokio::test]
async fn pgbench_sees_no_error() {
    let server = Postgres::start_new(Settings::default().tls()).await;
    let balancer = through(server.addr()).await;
    let bench = async |mode: &str, words: &[&str]| {
        let mut command = program("pgbench");
        command.args(words).arg(conninfo(balancer.rw(), &format!("sslmode={mode}")));
        let output = output(command).await;
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{mode} {words:?}: {said}");
        said
    };
    bench("disable", &["-i", "-q"]).await;
    for mode in ["disable", "require"] {
        for words in [&["-S", "-T", "2", "-c", "8"][..], &["-S", "-C", "-T", "2", "-c", "4"]] {
            let said = bench(mode, &[&["-n"], words].concat()).await;
            assert!(said.contains("number of failed transactions: 0 "), "{said}");
        }
        wait_until("all to be over", async || whole(balancer.metric("pgsplit_sessions_active").await) == 0)
            .await;
        // Through TLS a good-bye is not to be seen. Client and server close at the same time then, and who is
        // first is a race, which the client nearly always wins.
        let least = if mode == "disable" { 1.0 } else { 0.8 };
        let ends = balancer.metric("pgsplit_sessions_total").await;
        let clients = balancer.metric("pgsplit_sessions_total{end=\"client\"}").await;
        assert!(ends * least <= clients, "{mode}: {clients} of {ends}");
    }
    assert_eq!(whole(balancer.metric("pgsplit_connections_rejected_total").await), 0);
}

#[tokio::test]
async fn when_the_client_breaks_off_its_session_on_the_server_ends() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = through(server.addr()).await;
    let mut wires = Vec::new();
    for _ in 0..3 {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.login("postgres", "postgres").await.unwrap().unwrap();
        wires.push(wire);
    }
    assert_eq!(client_sessions(&server).await, 3);
    // Idle, in the middle of a large answer, and in the middle of a message.
    wires[1].send(&query("select repeat('x', 1000) from generate_series(1, 1000000)")).await.unwrap();
    wires[1].exactly(100_000).await.unwrap();
    wires[2].send(&query("select 1")[..7]).await.unwrap();
    wires.into_iter().for_each(Wire::reset);
    wait_at_most(Duration::from_secs(5), "the sessions to end", async || {
        let left = client_sessions(&server).await;
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    wait_until("the balancer to know", async || {
        whole(balancer.metric("pgsplit_sessions_total{end=\"client\"}").await) == 3
    })
    .await;
}

#[tokio::test]
async fn a_good_bye_in_the_middle_of_a_message_holds_nothing() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = through(server.addr()).await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.login("postgres", "postgres").await.unwrap().unwrap();
    // The server answers the first query, and waits for the rest of the second.
    wire.send(&[&query("select 1")[..], &query("select 2")[..7]].concat()).await.unwrap();
    while wire.message().await.unwrap().unwrap().tag != b'Z' {}
    wire.send(&terminate()).await.unwrap();
    wire.finish().await.unwrap();
    wait_until("the session to end", async || {
        let left = client_sessions(&server).await;
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(balancer.wait_log("session_end", |_| true).await["end"], "client");
}

#[tokio::test]
async fn a_node_that_does_not_end_at_the_good_bye_is_told_that_nothing_more_comes() {
    let (node, notes) = hearing_all(false).await;
    let balancer = through(node.addr()).await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.login("u", "d").await.unwrap().unwrap();
    wire.send(&terminate()).await.unwrap();
    drop(wire);
    wait_until("the node to have heard all", async || notes.all().contains(&terminate())).await;
    assert_eq!(balancer.wait_log("session_end", |_| true).await["end"], "client");
}

#[tokio::test]
async fn when_the_server_dies_the_clients_session_ends() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = through(server.addr()).await;
    let client = connect(balancer.rw()).await.unwrap();
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.login("postgres", "postgres").await.unwrap().unwrap();
    server.kill9().await;
    let began = Instant::now();
    assert!(matches!(wire.byte().await, Ok(None) | Err(_)));
    wait_until("the other to know as well", async || client.is_closed()).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(wire);
    wait_until("both to be counted", async || {
        whole(balancer.metric("pgsplit_sessions_total{end=\"server\"}").await) == 2
    })
    .await;
}

#[tokio::test]
async fn a_servers_last_words_reach_the_client() {
    let server = Postgres::start_new(Settings::default()).await;
    let balancer = through(server.addr()).await;
    let mut idle = Wire::connect(balancer.rw()).await.unwrap();
    idle.login("postgres", "postgres").await.unwrap().unwrap();
    // One that is writing all the time: what it sends meets a closed connection.
    let mut busy = Wire::connect(balancer.rw()).await.unwrap();
    busy.login("postgres", "postgres").await.unwrap().unwrap();
    for _ in 0..2000 {
        busy.send(&query("select pg_sleep(0.01)")).await.unwrap();
    }
    server.stop(Stop::Fast).await;
    for wire in [&mut idle, &mut busy] {
        let code = loop {
            let message = wire.message().await.unwrap().expect("a word before the end");
            if let Some(error) = message.error() {
                break error.code;
            }
        };
        assert_eq!(code, "57P01");
    }
}

#[tokio::test]
async fn idle_sessions_cost_little_memory() {
    const SESSIONS: usize = 1000;
    let node = FakeNode::healthy(true).await;
    let balancer = through(node.addr()).await;
    // With startup packets near the limit: nothing of them may stay.
    let long = startup(&[("user", "u"), ("options", &" ".repeat(9000))]);
    let mut open = Vec::new();
    let mut open_until = async |count: usize| {
        while open.len() < count {
            let mut wire = Wire::connect(balancer.rw()).await.unwrap();
            wire.send(&long).await.unwrap();
            wire.logged_in().await.unwrap().unwrap();
            open.push(wire);
        }
        memory(balancer.pid())
    };
    // What the first sessions of a process cost is not what the next ones do.
    let before = open_until(20).await;
    let each = open_until(SESSIONS).await.saturating_sub(before) / (SESSIONS as u64 - 20);
    println!("an idle session costs {each} bytes");
    assert!(each < 24 * 1024, "{each} bytes a session");
    // All of them still work.
    for wire in open.iter_mut().step_by(50) {
        wire.query("select 1").await.unwrap();
    }
}

#[tokio::test]
async fn bytes_are_counted_as_they_were_sent() {
    let server = Postgres::start_new(Settings::default()).await;
    // The checks are sessions of one byte and none: the gate sees what the session's node gets and gives.
    let gate = Gate::start(server.addr()).await;
    let balancer = through(gate.addr()).await;
    let (sent, got) = (gate.bytes(Direction::ToNode), gate.bytes(Direction::ToClient));
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    wire.send(&crate::support::wire::ssl_request()).await.unwrap();
    assert_eq!(wire.byte().await.unwrap(), Some(b'N'));
    wire.login("postgres", "postgres").await.unwrap().unwrap();
    wire.query("select repeat('x', 100000)").await.unwrap();
    wait_until("the bytes to be counted while the session runs", async || {
        balancer.metric("pgsplit_bytes_total{direction=\"to_client\"}").await > 100_000.0
    })
    .await;
    wire.send(&terminate()).await.unwrap();
    wire.rest().await.unwrap();
    drop(wire);
    let line = balancer.wait_log("session_end", |_| true).await;
    for (direction, field, before) in
        [(Direction::ToNode, "to_node", sent), (Direction::ToClient, "to_client", got)]
    {
        let moved = gate.bytes(direction) - before;
        let counted = balancer.metric(&format!("pgsplit_bytes_total{{direction=\"{field}\"}}")).await;
        assert_eq!(whole(counted), i64::try_from(moved).unwrap(), "{field}");
        assert_eq!(line[format!("{field}_bytes")], moved, "{line}");
    }
}

/// A session does not have to wait for what another one of the same worker does.
#[tokio::test]
async fn a_busy_session_leaves_room_for_others() {
    let server = Postgres::start_new(Settings::default()).await;
    let config = in_order([server.addr()], "runtime: {threads: 1}\n");
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let mut busy = Wire::connect(balancer.rw()).await.unwrap();
    busy.login("postgres", "postgres").await.unwrap().unwrap();
    busy.send(&query("select repeat('x', 1000) from generate_series(1, 3000000)")).await.unwrap();
    let reader = background().spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while !matches!(busy.stream().read(&mut buffer).await, Ok(0) | Err(_)) {}
    });
    for _ in 0..20 {
        let began = Instant::now();
        let client = connect(balancer.rw()).await.unwrap();
        value(&client, "select 1").await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
    assert!(!reader.is_finished());
    reader.abort();
}
