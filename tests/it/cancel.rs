//! Stopping a query: the right one, on the right node, in time or not at all.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_postgres::NoTls;

use crate::support::balancer::Balancer;
use crate::support::client::{background, connect, value};
use crate::support::postgres::{Postgres, Settings};
use crate::support::process::{Signal, signal};
use crate::support::wait::wait_until;
use crate::support::wire::{FakeNode, Wire, backend_key, cancel_request, login_answer, query};
use crate::tools::{Notes, conninfo, in_order, psql_command, whole, with_listener};

/// Two servers that know nothing of each other, with sessions spread over both.
async fn two(settings: Settings, rest: &str) -> ([Postgres; 2], Balancer) {
    let servers = [Postgres::start_new(settings.clone()).await, Postgres::start_new(settings).await];
    let addrs = servers.iter().map(Postgres::addr);
    let balancer = Balancer::start(&with_listener(addrs, "target: any, balance: roundrobin", rest)).await;
    balancer.wait_ready().await;
    (servers, balancer)
}

/// Sessions that sleep now.
async fn sleeping(servers: &[Postgres]) -> usize {
    let sql =
        "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
    let mut count = 0;
    for server in servers {
        count += server.value(sql).await.parse::<usize>().unwrap();
    }
    count
}

async fn results(balancer: &Balancer) -> Vec<(&'static str, i64)> {
    let mut results = Vec::new();
    for result in ["routed", "broadcast", "unknown", "limited", "failed"] {
        let series = format!("pgsplit_cancel_requests_total{{result=\"{result}\"}}");
        let count = whole(balancer.metric(&series).await);
        if count != 0 {
            results.push((result, count));
        }
    }
    results
}

/// Waits until exactly these have been counted.
async fn wait_results(balancer: &Balancer, expected: &[(&'static str, i64)]) {
    wait_until(&format!("cancel requests to be counted as {expected:?}"), async || {
        let results = results(balancer).await;
        if results == expected { Ok(()) } else { Err(results) }
    })
    .await;
}

/// Sends a cancel request as libpq does: it has been dealt with when the connection ends.
async fn cancel(addr: SocketAddr, (pid, key): &(u32, Vec<u8>)) {
    let mut wire = Wire::connect(addr).await.unwrap();
    wire.send(&cancel_request(*pid, key)).await.unwrap();
    assert_eq!(wire.rest().await.unwrap(), b"");
}

#[tokio::test]
async fn of_twenty_sessions_on_two_nodes_exactly_those_meant_are_cancelled() {
    let (servers, balancer) = two(Settings::default(), "").await;
    let mut sessions = Vec::new();
    for _ in 0..20 {
        let client = connect(balancer.rw()).await.unwrap();
        let token = client.cancel_token();
        let query = background().spawn(async move { value(&client, "select pg_sleep(60)").await });
        sessions.push((token, query));
    }
    wait_until("all to sleep", async || sleeping(&servers).await == 20).await;
    let (meant, others): (Vec<_>, Vec<_>) = sessions.into_iter().enumerate().partition(|(i, _)| i % 3 == 0);
    for (_, (token, query)) in meant {
        let token = token.clone();
        background().spawn(async move { token.cancel_query(NoTls).await }).await.unwrap().unwrap();
        let error = query.await.unwrap().unwrap_err();
        assert_eq!(error.code().unwrap().code(), "57014");
    }
    wait_until("the others alone to sleep", async || sleeping(&servers).await == 13).await;
    assert!(others.iter().all(|(_, (_, query))| !query.is_finished()));
    wait_results(&balancer, &[("routed", 7)]).await;
    for (_, (_, query)) in others {
        query.abort();
    }
}

/// `psql` in a process of its own, with its error output to read.
fn spawn_psql(conninfo: &str, sql: &str) -> Child {
    let mut command = psql_command(conninfo, sql);
    command.stderr(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn().unwrap()
}

async fn ended(child: Child) -> String {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn ctrl_c_in_psql_works_in_plain_text_and_through_tls() {
    let (servers, balancer) = two(Settings::default().tls(), "").await;
    for (mode, result) in [("disable", "routed"), ("require", "broadcast")] {
        let other = spawn_psql(&conninfo(balancer.rw(), "sslmode=disable"), "select pg_sleep(60)");
        wait_until("the other to sleep", async || sleeping(&servers).await == 1).await;
        let child = spawn_psql(&conninfo(balancer.rw(), &format!("sslmode={mode}")), "select pg_sleep(60)");
        wait_until("both to sleep", async || sleeping(&servers).await == 2).await;
        signal(child.id(), Signal::INT);
        let said = ended(child).await;
        assert!(said.contains("canceling statement due to user request"), "{mode}: {said}");
        wait_until("the other alone to sleep", async || sleeping(&servers).await == 1).await;
        let (last, count) = *results(&balancer).await.last().unwrap();
        assert_eq!((last, count >= 1), (result, true), "{mode}");
        signal(other.id(), Signal::INT);
        ended(other).await;
    }
}

/// A session whose login is read by hand, in a long query.
async fn asleep(addr: SocketAddr, servers: &[Postgres], seconds: u32) -> (Wire, (u32, Vec<u8>)) {
    let mut wire = Wire::connect(addr).await.unwrap();
    let key = wire.login("postgres", "postgres").await.unwrap().unwrap().key;
    wire.send(&query(&format!("select pg_sleep({seconds})"))).await.unwrap();
    wait_until("the session to sleep", async || sleeping(servers).await == 1).await;
    (wire, key)
}

/// The code of the error that the query ended with.
async fn error_of(wire: &mut Wire) -> Option<String> {
    let mut code = None;
    loop {
        let message = wire.message().await.unwrap().unwrap();
        code = message.error().map(|error| error.code).or(code);
        if message.tag == b'Z' {
            return code;
        }
    }
}

#[tokio::test]
async fn a_cancel_needs_no_place_on_the_listener() {
    let server = [Postgres::start_new(Settings::default()).await];
    let config = with_listener([server[0].addr()], "target: any, max_connections: 1", "");
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let (mut wire, key) = asleep(balancer.rw(), &server, 60).await;
    let refused = connect(balancer.rw()).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "53300");
    cancel(balancer.rw(), &key).await;
    assert_eq!(error_of(&mut wire).await.as_deref(), Some("57014"));
}

#[tokio::test]
async fn a_cancel_works_through_another_listener_and_another_balancer() {
    let servers =
        [Postgres::start_new(Settings::default()).await, Postgres::start_new(Settings::default()).await];
    let config = in_order(servers.iter().rev().map(Postgres::addr), "")
        .replace("listeners:\n", "listeners:\n  - {name: second, bind: \"BALANCER:6433\", target: any}\n");
    let one = Balancer::start(&config).await;
    let other = Balancer::start(&config).await;
    one.wait_ready().await;
    other.wait_ready().await;
    for (addr, counts, result) in [(one.ro(), &one, ("routed", 1)), (other.rw(), &other, ("broadcast", 1))] {
        let (mut wire, key) = asleep(one.rw(), &servers, 60).await;
        cancel(addr, &key).await;
        assert_eq!(error_of(&mut wire).await.as_deref(), Some("57014"));
        wait_results(counts, &[result]).await;
    }
}

#[tokio::test]
async fn a_wrong_key_cancels_nothing() {
    let (servers, balancer) = two(Settings::default(), "").await;
    let (mut wire, (pid, key)) = asleep(balancer.rw(), &servers, 2).await;
    let mut wrong = key.clone();
    wrong[3] ^= 1;
    for key in [(pid, wrong), (pid ^ 1, key.clone()), (pid, [&key[..], &[0]].concat())] {
        cancel(balancer.rw(), &key).await;
    }
    assert_eq!(error_of(&mut wire).await, None);
    // Once a session is over nothing is left of its key.
    drop(wire);
    wait_until("the session to end", async || whole(balancer.metric("pgsplit_sessions_active").await) == 0)
        .await;
    cancel(balancer.rw(), &(pid, key)).await;
    wait_results(&balancer, &[("broadcast", 4)]).await;
}

/// A node that lets everybody in with the same process number and a key of `length` bytes, and notes the cancel
/// requests it gets.
async fn node_with_key(length: Arc<AtomicU32>, notes: &Notes<Vec<u8>>) -> FakeNode {
    let notes = notes.clone();
    FakeNode::start(move |mut wire| {
        let (notes, length) = (notes.clone(), length.load(Ordering::SeqCst));
        async move {
            let Ok(packet) = wire.first_packet().await else { return };
            if packet[..4] == cancel_request(0, b"")[4..8] {
                notes.add(packet);
                return;
            }
            let mut login = login_answer(9, &[], true);
            let bare = backend_key(9, &[]);
            let at = login.windows(bare.len()).position(|part| part == bare).unwrap();
            let key: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            login.splice(at..at + bare.len(), backend_key(9, &key));
            let _ = wire.send(&login).await;
            let _ = wire.message().await;
        }
    })
    .await
}

#[tokio::test]
async fn keys_of_4_to_256_bytes_reach_their_node_to_the_byte() {
    let (length, notes, strangers) = (Arc::new(AtomicU32::new(0)), Notes::new(), Notes::new());
    let node = node_with_key(Arc::clone(&length), &notes).await;
    let other = node_with_key(Arc::clone(&length), &strangers).await;
    let balancer = Balancer::start(&in_order([node.addr(), other.addr()], "")).await;
    balancer.wait_ready().await;
    for (i, wanted) in [4, 5, 32, 255, 256].into_iter().enumerate() {
        length.store(wanted, Ordering::SeqCst);
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        let (pid, key) = wire.login("u", "d").await.unwrap().unwrap().key;
        assert_eq!(key.len(), wanted as usize);
        let mut request = Wire::connect(balancer.rw()).await.unwrap();
        let packet = cancel_request(pid, &key);
        // Some clients say good-bye behind it; that is not for the node.
        request.send(&[packet.clone(), crate::support::wire::terminate()].concat()).await.unwrap();
        assert_eq!(request.rest().await.unwrap(), b"");
        assert_eq!(notes.all()[i], packet[4..]);
    }
    assert_eq!(notes.all().len(), 5);
    assert_eq!(strangers.all().len(), 0);
    wait_results(&balancer, &[("routed", 5)]).await;
}

#[tokio::test]
async fn guessing_keys_is_limited_and_disturbs_nobody() {
    const GUESSES: usize = 800;
    let (length, notes) = (Arc::new(AtomicU32::new(4)), Notes::new());
    let node = node_with_key(length, &notes).await;
    let balancer = Balancer::start(&in_order([node.addr()], "")).await;
    balancer.wait_ready().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    let key = wire.login("u", "d").await.unwrap().unwrap().key;
    let began = Instant::now();
    for guess in 0..GUESSES {
        cancel(balancer.rw(), &(u32::try_from(guess).unwrap() + 1000, vec![0; 4])).await;
    }
    // 500 at once, 100 in each second, and some room for rounding.
    let allowed = 501 + usize::try_from(began.elapsed().as_millis()).unwrap() / 10;
    assert!(notes.all().len() <= allowed, "{} of {allowed}", notes.all().len());
    // Who has the key is served all the same.
    cancel(balancer.rw(), &key).await;
    let results = results(&balancer).await;
    let count = |name| results.iter().find(|(result, _)| *result == name).map_or(0, |(_, count)| *count);
    assert_eq!(count("routed"), 1);
    assert_eq!(count("broadcast") + count("limited"), i64::try_from(GUESSES).unwrap());
    assert!(count("limited") > 0 || allowed >= GUESSES, "{results:?}");
    assert_eq!(usize::try_from(count("broadcast")).unwrap() + 1, notes.all().len());
}

/// A server makes a process for each request, and is busy with nothing else when hundreds come at once.
#[tokio::test]
async fn a_node_gets_few_requests_of_unknown_keys_at_a_time_and_all_in_the_end() {
    const AT_A_TIME: usize = 8;
    const REQUESTS: usize = 60;
    let (here, most, release) = (Notes::new(), Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
    let node = FakeNode::start({
        let (here, most, release) = (here.clone(), Arc::clone(&most), Arc::clone(&release));
        let now = Arc::new(AtomicU32::new(0));
        move |mut wire| {
            let (here, most, release, now) =
                (here.clone(), Arc::clone(&most), Arc::clone(&release), Arc::clone(&now));
            async move {
                let Ok(packet) = wire.first_packet().await else { return };
                if packet[..4] != cancel_request(0, b"")[4..8] {
                    let _ = wire.send(&login_answer(1, &[0, 0, 0, 1], false)).await;
                    let _ = wire.message().await;
                    return;
                }
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                here.add(packet);
                release.acquire().await.unwrap().forget();
                now.fetch_sub(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let balancer = Balancer::start(&in_order([node.addr()], "")).await;
    balancer.wait_ready().await;
    let rw = balancer.rw();
    let key = |n: usize| (u32::try_from(n).unwrap() + 1000, vec![0; 4]);
    let requests: Vec<_> =
        (0..REQUESTS).map(|n| background().spawn(async move { cancel(rw, &key(n)).await })).collect();
    wait_until("the first few to come", async || here.all().len() == AT_A_TIME).await;
    release.add_permits(REQUESTS);
    for request in requests {
        request.await.unwrap();
    }
    wait_results(&balancer, &[("broadcast", i64::try_from(REQUESTS).unwrap())]).await;
    assert_eq!((here.all().len(), most.load(Ordering::SeqCst) as usize), (REQUESTS, AT_A_TIME));
}

#[tokio::test]
async fn a_cancel_that_a_stopped_node_does_not_take_is_given_up() {
    let server = [Postgres::start_new(Settings::default()).await];
    let balancer = Balancer::start(&in_order([server[0].addr()], "")).await;
    balancer.wait_ready().await;
    let (_wire, key) = asleep(balancer.rw(), &server, 60).await;
    server[0].sigstop();
    let began = Instant::now();
    cancel(balancer.rw(), &key).await;
    let took = began.elapsed();
    server[0].sigcont();
    assert!((3500..9000).contains(&took.as_millis()), "{took:?}");
    wait_results(&balancer, &[("failed", 1)]).await;
}

#[tokio::test]
async fn a_cancel_for_a_node_that_has_gone_ends_at_once() {
    let (length, notes) = (Arc::new(AtomicU32::new(4)), Notes::new());
    let node = node_with_key(length, &notes).await;
    let gate = crate::support::gate::Gate::start(node.addr()).await;
    let balancer = Balancer::start(&in_order([gate.addr()], "")).await;
    balancer.wait_ready().await;
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    let key = wire.login("u", "d").await.unwrap().unwrap().key;
    gate.set(crate::support::gate::Mode::Refuse).await;
    let began = Instant::now();
    cancel(balancer.rw(), &key).await;
    assert!(began.elapsed().as_secs() < 4, "{:?}", began.elapsed());
    wait_results(&balancer, &[("failed", 1)]).await;
}
