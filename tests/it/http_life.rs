//! A front from its start to its end, and under very many clients.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::balancer::Balancer;
use crate::support::client::background;
use crate::support::process::Signal;
use crate::support::raw::Raw;
use crate::support::upstream::{Mode, Upstream, answer, written};
use crate::support::wait::wait_until;
use crate::support::web::{QUICK, Web, front, get, try_get};
use crate::support::wire::FakeNode;

/// An upstream that answers `/slow` when it gets a permit.
async fn slow(more: &str) -> (Upstream, Arc<Semaphore>, Balancer) {
    let free = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&free);
    let upstream = Upstream::start(move |seen| {
        let held = Arc::clone(&held);
        async move {
            if seen.target == "/slow" {
                held.acquire().await.unwrap().forget();
            }
            answer(200, "done")
        }
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], more)).await;
    (upstream, free, balancer)
}

#[tokio::test]
async fn what_runs_is_finished_before_the_end() {
    let (upstream, free, balancer) = slow("").await;
    let mut idle = Raw::connect(balancer.front()).await.unwrap();
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(idle.reply().await.unwrap().status, 200);
    let mut busy = Raw::connect(balancer.front()).await.unwrap();
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let h2 = Web::connect_h2(balancer.front()).await.unwrap();
    let busy_h2 = background().spawn(async move { h2.get("/slow").await });
    wait_until("two to run", async || upstream.heads() == 3).await;
    balancer.signal(Signal::TERM);
    assert_eq!(idle.closed().await, b"", "idle connections are closed");
    wait_until("new connections to be refused", async || TcpStream::connect(balancer.front()).await.is_err())
        .await;
    free.add_permits(2);
    let reply = busy.reply().await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "done"));
    assert_eq!(reply.header("connection").map(str::to_lowercase).as_deref(), Some("close"), "{reply:?}");
    assert_eq!(busy.closed().await, b"");
    let got = busy_h2.await.unwrap().unwrap();
    assert_eq!((got.status, got.text().as_str()), (200, "done"));
    assert!(balancer.wait_exit(Duration::from_secs(20)).await.success());
}

#[tokio::test]
async fn an_answer_that_is_under_way_comes_to_its_end() {
    let (pen, body) = written();
    let body = std::sync::Mutex::new(Some(body));
    let upstream = Upstream::start(move |_| {
        let body = body.lock().unwrap().take().unwrap();
        async { hyper::Response::new(body) }
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    pen.write("one");
    raw.until(b"one").await.unwrap();
    balancer.signal(Signal::TERM);
    wait_until("new connections to be refused", async || TcpStream::connect(balancer.front()).await.is_err())
        .await;
    pen.write("two");
    drop(pen);
    let rest = raw.closed().await;
    assert!(rest.ends_with(b"3\r\ntwo\r\n0\r\n\r\n"), "{}", rest.escape_ascii());
    assert!(balancer.wait_exit(Duration::from_secs(20)).await.success());
}

#[tokio::test]
async fn idle_connections_hold_up_no_end() {
    let (_upstream, _free, balancer) = slow("idle_timeout: 60s\nheader_timeout: 60s\n").await;
    let mut idle = Vec::new();
    for bytes in ["", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        raw.send(bytes).await.unwrap();
        idle.push(raw);
    }
    let web = Web::connect(balancer.front()).await.unwrap();
    web.get("/").await.unwrap();
    balancer.signal(Signal::TERM);
    assert!(balancer.wait_exit(Duration::from_secs(20)).await.success());
    for mut raw in idle {
        raw.closed().await;
    }
}

#[tokio::test]
async fn readiness_follows_the_upstreams() {
    let node = FakeNode::healthy(false).await;
    let upstream = Upstream::named("a").await;
    let config = front(&[upstream.addr()], QUICK).replace("BALANCER:1\"", &format!("{}\"", node.addr()))
        + "check: {type: tcp, interval: 200ms}\n\
           listeners: [{name: rw, bind: \"BALANCER:6432\", target: primary}]\n";
    let balancer = Balancer::start_front(&config).await;
    let ready = async |wanted: u16| {
        wait_until(&format!("readiness to be {wanted}"), async || {
            let (status, said) = balancer.get("/readyz").await.map_err(|error| error.to_string())?;
            if status == wanted { Ok(said) } else { Err(said) }
        })
        .await
    };
    ready(200).await;
    upstream.set(Mode::Refuse).await;
    let said = ready(503).await;
    assert!(said.contains("http"), "it says which front: {said}");
    assert_eq!(balancer.get("/healthz").await.unwrap().0, 200);
    upstream.set(Mode::Serve).await;
    ready(200).await;
}

#[tokio::test]
async fn several_fronts_stand_side_by_side() {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let config = format!(
        "nodes: [{{addr: \"BALANCER:1\", role: primary}}]\nhttp:\n\
        \x20 - {{name: users, bind: \"BALANCER:8080\", upstreams: [\"{}\"], check: off}}\n\
        \x20 - {{name: orders, bind: \"BALANCER:8081\", upstreams: [\"{}\"], check: off}}\n",
        a.addr(),
        b.addr()
    );
    let balancer = Balancer::start_front(&config).await;
    assert_eq!(get(balancer.at(8080), "/").await.text(), "a");
    assert_eq!(get(balancer.at(8081), "/").await.text(), "b");
    for front in ["users", "orders"] {
        let series = format!("pgsplit_http_requests_total{{front=\"{front}\",code=\"2xx\"}}");
        wait_until(&series, async || (balancer.metric(&series).await - 1.0).abs() < 0.5).await;
    }
}

#[tokio::test]
async fn no_descriptor_is_lost() {
    let (upstream, _free, balancer) = slow("retries: 0\nqueue_timeout: 50ms\n").await;
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", balancer.pid())).unwrap().count();
    get(balancer.front(), "/").await;
    let before = descriptors();
    for mode in [Mode::Serve, Mode::Reset, Mode::Status(503), Mode::Refuse, Mode::Serve] {
        upstream.set(mode).await;
        for _ in 0..50 {
            let _ = try_get(balancer.front(), "/").await;
        }
        for _ in 0..50 {
            let mut raw = Raw::connect(balancer.front()).await.unwrap();
            raw.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            raw.reset();
        }
    }
    wait_until("as few descriptors as before", async || {
        let now = descriptors();
        if now <= before + 10 { Ok(()) } else { Err((before, now)) }
    })
    .await;
}

/// Lets this process, and those it starts from now on, have as many descriptors as it may.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_are_served_at_a_time() {
    // Other tests of this process have theirs, and the balancer has one to its upstreams for each in flight.
    let limit = raise_descriptors();
    let n: usize = if limit >= 14_000 { 10_000 } else { 2000 };
    if n < 10_000 {
        println!("only {n} clients: the limit of descriptors is {limit}");
    }
    let upstream = Upstream::named("a").await;
    let rest = "max_connections: 20000\nidle_timeout: 300s\nheader_timeout: 300s\nqueue_timeout: 30s\n\
                max_in_flight: 1000\n";
    let config = front(&[upstream.addr()], rest).replace("requests: all", "requests: off");
    let balancer = Balancer::start_front(&config).await;
    let mut clients = Vec::with_capacity(n);
    for _ in 0..n {
        clients.push(Raw::connect(balancer.front()).await.unwrap());
    }
    // All are there; each asks twice.
    for round in 0..2 {
        let mut asking = JoinSet::new();
        for mut raw in clients.drain(..) {
            asking.spawn(async move {
                raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await?;
                let reply = raw.reply().await?;
                Ok::<_, std::io::Error>((raw, reply))
            });
        }
        while let Some(result) = asking.join_next().await {
            let (raw, reply) = result.unwrap().unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!((reply.status, reply.text().as_str()), (200, "a"), "{reply:?}");
            clients.push(raw);
        }
    }
    assert_eq!(upstream.heads(), 2 * n as u64);
}
