//! Upstreams that fail are left alone until they are well.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::balancer::Balancer;
use crate::support::raw::{RawUpstream, exchange};
use crate::support::upstream::{Mode, Upstream};
use crate::support::wait::wait_until;
use crate::support::web::{QUICK, Web, front, get, send};

async fn two(more: &str) -> (Upstream, Upstream, Balancer) {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let balancer = Balancer::start_front(&front(&[a.addr(), b.addr()], more)).await;
    (a, b, balancer)
}

/// So many requests that must all be answered with 200.
async fn fine(balancer: &Balancer, n: usize) {
    let web = Web::connect(balancer.front()).await.unwrap();
    for _ in 0..n {
        let got = web.get("/").await.unwrap();
        assert_eq!(got.status, 200, "{got:?}");
    }
}

#[tokio::test]
async fn who_fails_its_checks_is_left_alone_until_it_passes_them() {
    let (a, b, balancer) = two(&format!("balance: roundrobin\n{QUICK}")).await;
    balancer.wait_upstream(a.addr(), true).await;
    balancer.wait_upstream(b.addr(), true).await;
    a.set_health(500);
    balancer.wait_upstream(a.addr(), false).await;
    let (before, before_b) = (a.heads(), b.heads());
    fine(&balancer, 40).await;
    assert_eq!((a.heads(), b.heads()), (before, before_b + 40));
    let checks = a.checks();
    wait_until("it to be checked on", async || a.checks() > checks + 2).await;
    a.set_health(200);
    balancer.wait_upstream(a.addr(), true).await;
    wait_until("it to be used again", async || {
        fine(&balancer, 2).await;
        a.heads() > before
    })
    .await;
}

#[tokio::test]
async fn who_hangs_in_its_checks_is_down() {
    let (a, b, balancer) = two(QUICK).await;
    balancer.wait_upstream(a.addr(), true).await;
    a.set(Mode::Hang).await;
    balancer.wait_upstream(a.addr(), false).await;
    let before = a.heads();
    fine(&balancer, 20).await;
    assert_eq!(a.heads(), before);
    assert!(b.heads() >= 20);
}

#[tokio::test]
async fn the_expected_answers_are_those_of_the_file() {
    let quick = "interval: 200ms, fast_interval: 50ms, timeout: 500ms, rise: 2, fall: 2";
    let (a, b, balancer) = two(&format!("check: {{path: /health, {quick}, expect: 418}}\n")).await;
    // Both say 200, which is not 418.
    a.set_health(418);
    balancer.wait_upstream(a.addr(), true).await;
    balancer.wait_upstream(b.addr(), false).await;
    b.set_health(418);
    a.set_health(204);
    balancer.wait_upstream(b.addr(), true).await;
    balancer.wait_upstream(a.addr(), false).await;
}

#[tokio::test]
async fn redirections_are_fine_and_errors_are_not() {
    let (a, _b, balancer) = two(QUICK).await;
    for (status, up) in [(404, false), (301, true), (500, false), (204, true), (400, false), (399, true)] {
        a.set_health(status);
        balancer.wait_upstream(a.addr(), up).await;
    }
}

#[tokio::test]
async fn a_check_says_who_it_is_for() {
    let upstream = RawUpstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let balancer = Balancer::start_front(&front(
        &[upstream.addr()],
        "check: {path: \"/health?deep=1\", host: health.test, interval: 200ms, rise: 1}\n",
    ))
    .await;
    balancer.wait_upstream(upstream.addr(), true).await;
    let text = upstream.text();
    assert!(text.starts_with("GET /health?deep=1 HTTP/1.1\r\n"), "{text}");
    assert!(text.to_lowercase().contains("\r\nhost: health.test\r\n"), "{text}");
}

#[tokio::test]
async fn garbage_is_no_good_answer_to_a_check() {
    for bytes in ["what?\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "", "SSH-2.0-OpenSSH_9.2\r\n"] {
        let good = Upstream::named("good").await;
        let bad = RawUpstream::answering_once(bytes).await;
        let balancer = Balancer::start_front(&front(&[good.addr(), bad.addr()], QUICK)).await;
        balancer.wait_upstream(good.addr(), true).await;
        balancer.wait_upstream(bad.addr(), false).await;
    }
}

/// Checks that are good and slow to come: only what happens to requests can tell.
const BLIND: &str = "balance: roundrobin\ncheck: {path: /health, interval: 60s, fast_interval: 60s, rise: 1}\npassive: true\n";

#[tokio::test]
async fn who_fails_requests_is_put_aside_though_its_checks_are_good() {
    for mode in [Mode::Status(503), Mode::Reset] {
        let (a, b, balancer) = two(BLIND).await;
        balancer.wait_upstream(a.addr(), true).await;
        balancer.wait_upstream(b.addr(), true).await;
        a.set(mode).await;
        fine(&balancer, 200).await;
        // In turn it would have had a hundred.
        assert!(a.heads() <= 30, "{mode:?}: {} requests to an upstream that fails them all", a.heads());
        assert!(a.heads() > 0, "{mode:?}");
        a.set(Mode::Serve).await;
        let before = a.seen().len();
        wait_until("it to be tried again", async || {
            fine(&balancer, 10).await;
            a.seen().len() > before + 10
        })
        .await;
    }
}

#[tokio::test]
async fn who_refuses_is_put_aside() {
    let (a, b, balancer) = two(BLIND).await;
    balancer.wait_upstream(a.addr(), true).await;
    balancer.wait_upstream(b.addr(), true).await;
    a.set(Mode::Refuse).await;
    fine(&balancer, 100).await;
    assert_eq!(b.heads(), 100);
}

#[tokio::test]
async fn the_last_one_is_never_put_aside() {
    let upstream = Upstream::named("a").await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "passive: true\n")).await;
    upstream.set(Mode::Status(503)).await;
    for _ in 0..50 {
        let got = get(balancer.front(), "/").await;
        assert_eq!((got.status, got.text().as_str()), (503, "as told"), "{got:?}");
    }
    assert!(upstream.heads() >= 50);
    upstream.set(Mode::Serve).await;
    assert_eq!(get(balancer.front(), "/").await.status, 200);
}

#[tokio::test]
async fn without_checks_everybody_counts_as_up() {
    let (a, b, balancer) = two("passive: false\nbalance: roundrobin\n").await;
    fine(&balancer, 20).await;
    assert_eq!((a.checks(), b.checks()), (0, 0));
    assert_eq!((a.heads(), b.heads()), (10, 10));
}

#[tokio::test]
async fn the_front_tells_its_own_health_without_asking_anybody() {
    let upstream = Upstream::named("a").await;
    let more = format!("methods: any\nmonitor_uri: /healthz\n{QUICK}");
    let balancer = Balancer::start_front(&front(&[upstream.addr()], &more)).await;
    balancer.wait_upstream(upstream.addr(), true).await;
    let got = get(balancer.front(), "/healthz?from=elsewhere").await;
    assert_eq!((got.status, got.text().as_str()), (200, "ok\n"));
    // A host that no route could fit, as health checkers send it, and no host at all.
    let got = exchange(balancer.front(), "GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(got.starts_with(b"HTTP/1.0 200 OK\r\n"), "{}", String::from_utf8_lossy(&got));
    assert_eq!(upstream.heads(), 0, "nobody was asked");
    // Only this path, and only to look at.
    assert_eq!(get(balancer.front(), "/healthz/").await.status, 200);
    assert_eq!(send(balancer.front(), "POST", "/healthz", &[], "").await.status, 200);
    assert_eq!(upstream.heads(), 2);

    upstream.set(Mode::Refuse).await;
    balancer.wait_upstream(upstream.addr(), false).await;
    let got = get(balancer.front(), "/healthz").await;
    assert_eq!((got.status, got.text().as_str()), (503, "not ready\n"));
    assert_eq!(send(balancer.front(), "HEAD", "/healthz", &[], "").await.status, 503);
    upstream.set(Mode::Serve).await;
    balancer.wait_upstream(upstream.addr(), true).await;
    assert_eq!(get(balancer.front(), "/last").await.status, 200);
    let last = wait_until("the last line", async || {
        balancer.requests().into_iter().find(|line| line["path"] == "/last")
    });
    last.await;
    let paths: Vec<_> = balancer.requests().iter().map(|line| line["path"].to_string()).collect();
    assert_eq!(paths, ["\"/healthz/\"", "\"/healthz\"", "\"/last\""], "health is not logged");
    assert!((balancer.metric("pgsplit_http_requests_total").await - 3.0).abs() < 0.5, "nor counted");
}
