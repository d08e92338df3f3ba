//! Answers that are kept for others, and those that never are.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::balancer::Balancer;
use crate::support::upstream::{Mode, Upstream, answer_with};
use crate::support::wait::wait_until;
use crate::support::web::{Web, front, get, get_with, send};

const ON: &str = "cache: {size: 16MiB, max_entry: 100KiB, stale_while_revalidate: 10s, stale_if_error: 60s}\n\
                  queue_timeout: 300ms\n";

/// Its answers have these headers, and the number of the request as their body.
async fn numbering(headers: &'static [(&'static str, &'static str)]) -> (Upstream, Balancer) {
    let number = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let upstream = Upstream::start(move |_| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move { answer_with(headers, number.to_string()) }
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], ON)).await;
    (upstream, balancer)
}

#[tokio::test]
async fn an_answer_that_may_be_kept_is_given_again() {
    let (upstream, balancer) =
        numbering(&[("cache-control", "max-age=60"), ("x-a", "1"), ("etag", "\"e\"")]).await;
    let first = get(balancer.front(), "/a").await;
    assert_ne!(first.header("x-cache"), "hit", "{first:?}");
    for _ in 0..5 {
        let again = get(balancer.front(), "/a").await;
        assert_eq!((again.status, &again.body), (200, &first.body));
        assert_eq!(
            (again.header("x-cache").as_str(), again.header("x-a").as_str()),
            ("hit", "1"),
            "{again:?}"
        );
        assert!(again.header("age").parse::<u32>().is_ok(), "{again:?}");
    }
    let head = send(balancer.front(), "HEAD", "/a", &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(upstream.heads() <= 2, "a HEAD may be asked for anew");
    let before = upstream.heads();
    assert_eq!(
        get(balancer.front(), "/a?x").await.text(),
        before.to_string(),
        "another target is another answer"
    );
    get_with(balancer.front(), "/a", &[("host", "other.test")]).await;
    assert_eq!(upstream.heads(), before + 2, "so is another host's");
}

#[tokio::test]
async fn a_hit_needs_no_upstream() {
    let (upstream, balancer) = numbering(&[("cache-control", "max-age=60")]).await;
    get(balancer.front(), "/").await;
    upstream.set(Mode::Refuse).await;
    let got = get(balancer.front(), "/").await;
    assert_eq!((got.status, got.header("x-cache").as_str()), (200, "hit"));
}

#[tokio::test]
async fn answers_differ_by_what_they_say_they_differ_by() {
    let upstream = Upstream::start(|seen| async move {
        answer_with(
            &[("cache-control", "max-age=60"), ("vary", "accept-language")],
            seen.header("accept-language"),
        )
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], ON)).await;
    for (language, n) in [("de", 1), ("en", 2), ("en", 2), ("fr", 3), ("fr", 3)] {
        let got = get_with(balancer.front(), "/", &[("accept-language", language), ("x-other", "y")]).await;
        assert_eq!((got.text().as_str(), upstream.heads()), (language, n), "{got:?}");
    }
}

#[tokio::test]
async fn who_has_it_already_is_told_so() {
    let (upstream, balancer) = numbering(&[("cache-control", "max-age=60"), ("etag", "\"e1\"")]).await;
    get(balancer.front(), "/").await;
    for (known, status) in
        [("\"e1\"", 304), ("W/\"e1\"", 304), ("*", 304), ("\"x\", \"e1\"", 304), ("\"x\"", 200)]
    {
        let got = get_with(balancer.front(), "/", &[("if-none-match", known)]).await;
        assert_eq!((got.status, got.body.is_empty()), (status, status == 304), "{known}: {got:?}");
        assert_eq!(got.header("etag"), "\"e1\"", "{known}");
    }
    assert_eq!(upstream.heads(), 1);
}

#[tokio::test]
async fn fifty_who_ask_at_once_ask_once() {
    let free = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&free);
    let upstream = Upstream::start(move |_| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            answer_with(&[("cache-control", "max-age=60")], "shared")
        }
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], &ON.replace("300ms", "40s"))).await;
    let mut clients = JoinSet::new();
    let mut webs = Vec::new();
    for _ in 0..50 {
        webs.push(Web::connect(balancer.front()).await.unwrap());
    }
    for web in webs {
        clients.spawn(async move { web.get("/shared").await.unwrap() });
    }
    // The clients run on this thread: each wait lets them go on.
    wait_until("the upstream to be asked", async || upstream.heads() >= 1).await;
    assert_eq!(get(balancer.admin(), "/healthz").await.status, 200);
    free.add_permits(50);
    for got in clients.join_all().await {
        assert_eq!((got.status, got.text().as_str()), (200, "shared"));
    }
    assert_eq!(upstream.heads(), 1);
}

/// Those who wait for an answer that turns out to be nobody else's get their own.
#[tokio::test]
async fn an_answer_for_one_is_shared_with_nobody() {
    let (upstream, balancer) = numbering(&[("cache-control", "private, max-age=60")]).await;
    let mut clients = JoinSet::new();
    for _ in 0..30 {
        let front = balancer.front();
        clients.spawn(async move { get(front, "/mine").await.text() });
    }
    let mut bodies = clients.join_all().await;
    bodies.sort();
    bodies.dedup();
    assert_eq!((bodies.len(), upstream.heads()), (30, 30));
}

#[tokio::test]
async fn when_there_is_no_upstream_what_is_old_serves() {
    let (upstream, balancer) = numbering(&[("cache-control", "max-age=1"), ("etag", "\"e\"")]).await;
    assert_eq!(get(balancer.front(), "/kept").await.status, 200);
    for mode in [Mode::Refuse, Mode::Reset, Mode::Status(503)] {
        upstream.set(mode).await;
        wait_until("an old answer", async || {
            let got = get(balancer.front(), "/kept").await;
            let fine = got.status == 200 && got.header("x-cache") == "stale" && !got.body.is_empty();
            if fine { Ok(()) } else { Err((mode, got)) }
        })
        .await;
        assert!(get(balancer.front(), "/never-asked-for").await.status >= 500);
    }
}

#[tokio::test]
async fn an_answer_that_must_not_be_stale_never_is() {
    for word in ["max-age=1, must-revalidate", "max-age=1, proxy-revalidate", "s-maxage=1", "no-cache"] {
        let headers: &'static [(&str, &str)] =
            Box::leak(Box::new([("cache-control", word), ("etag", "\"e\"")]));
        let (upstream, balancer) = numbering(headers).await;
        assert_eq!(get(balancer.front(), "/").await.status, 200);
        upstream.set(Mode::Refuse).await;
        wait_until("it to be too old", async || {
            let got = get(balancer.front(), "/").await;
            assert_ne!(got.header("x-cache"), "stale", "{word}: {got:?}");
            got.status >= 500
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_for_one_client_is_never_kept() {
    let cases: [&'static [(&str, &str)]; 8] = [
        &[("cache-control", "private, max-age=60")],
        &[("cache-control", "no-store")],
        &[("cache-control", "max-age=60, no-store")],
        &[("cache-control", "max-age=60"), ("set-cookie", "a=b")],
        &[("cache-control", "max-age=60"), ("vary", "*")],
        &[("cache-control", "no-cache")],
        &[],
        &[("expires", "0")],
    ];
    for headers in cases {
        let (upstream, balancer) = numbering(headers).await;
        for n in 0..3 {
            let got = get(balancer.front(), "/").await;
            assert_eq!(got.text(), n.to_string(), "{headers:?}");
            assert_ne!(got.header("x-cache"), "hit", "{headers:?}");
        }
        assert_eq!(upstream.heads(), 3, "{headers:?}");
    }
}

#[tokio::test]
async fn who_says_who_it_is_gets_its_own() {
    let (upstream, balancer) = numbering(&[("cache-control", "max-age=60")]).await;
    let secret = [("authorization", "Bearer secret")];
    let first = get_with(balancer.front(), "/", &secret).await.text();
    assert_eq!(get(balancer.front(), "/").await.text(), "1", "{first} was for somebody else");
    assert_eq!(upstream.heads(), 2);
}

#[tokio::test]
async fn who_wants_it_fresh_gets_it_fresh() {
    let (upstream, balancer) = numbering(&[("cache-control", "max-age=60")]).await;
    get(balancer.front(), "/").await;
    assert_eq!(get_with(balancer.front(), "/", &[("cache-control", "no-cache")]).await.text(), "1");
    assert_eq!(get_with(balancer.front(), "/", &[("cache-control", "no-store")]).await.text(), "2");
    assert_eq!(upstream.heads(), 3);
}

#[tokio::test]
async fn too_large_an_answer_is_passed_and_not_kept() {
    let upstream = Upstream::start(|seen| async move {
        let n = if seen.target == "/large" { 200_000 } else { 1000 };
        answer_with(&[("cache-control", "max-age=60")], vec![b'x'; n])
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], ON)).await;
    for _ in 0..2 {
        assert_eq!(get(balancer.front(), "/large").await.body.len(), 200_000);
    }
    assert_eq!(upstream.heads(), 2);
    for _ in 0..2 {
        assert_eq!(get(balancer.front(), "/small").await.body.len(), 1000);
    }
    assert_eq!(upstream.heads(), 3);
}

#[tokio::test]
async fn nothing_is_kept_unless_asked_for() {
    let upstream = Upstream::start(|_| async { answer_with(&[("cache-control", "max-age=60")], "x") }).await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    for _ in 0..3 {
        assert_eq!(get(balancer.front(), "/").await.header("x-cache"), "");
    }
    assert_eq!(upstream.heads(), 3);
}

/// A cut answer is no answer.
#[tokio::test]
async fn half_an_answer_is_never_kept() {
    let half = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 100\r\n\r\nhalf";
    let upstream = crate::support::raw::RawUpstream::answering_once(half).await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], ON)).await;
    for _ in 0..3 {
        let got = crate::support::web::try_get(balancer.front(), "/").await;
        assert!(!matches!(&got, Ok(got) if got.status == 200), "{got:?}");
    }
}
