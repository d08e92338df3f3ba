//! Which upstream a request goes to.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::balancer::Balancer;
use crate::support::client::background;
use crate::support::upstream::{Mode, Upstream, answer};
use crate::support::wait::wait_until;
use crate::support::web::{QUICK, Web, front, front_of, get, get_with};

async fn three() -> [Upstream; 3] {
    [Upstream::named("a").await, Upstream::named("b").await, Upstream::named("c").await]
}

/// Who answered each of so many requests on one connection.
async fn answers(balancer: &Balancer, n: usize) -> Vec<String> {
    let web = Web::connect(balancer.front()).await.unwrap();
    let mut answers = Vec::with_capacity(n);
    for _ in 0..n {
        let got = web.get("/").await.unwrap();
        assert_eq!(got.status, 200, "{got:?}");
        answers.push(got.text());
    }
    answers
}

fn counts(answers: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.as_str()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn turns_are_taken_by_weight() {
    let [a, b, c] = three().await;
    let balancer = Balancer::start_front(&front_of(&format!(
        "upstreams: [{{addr: \"{}\", weight: 1}}, {{addr: \"{}\", weight: 2}}, {{addr: \"{}\", weight: 3}}]\n\
         balance: roundrobin\n",
        a.addr(),
        b.addr(),
        c.addr()
    )))
    .await;
    let mut all = answers(&balancer, 2000).await;
    let run = all.chunk_by(|one, next| one == next).map(<[_]>::len).max();
    assert!(run.unwrap() <= 3, "{run:?} in a row to the same one");
    // Turns are taken by all clients together, on whichever thread they are served.
    let balancer = Arc::new(balancer);
    let mut clients = JoinSet::new();
    for _ in 0..6 {
        let balancer = Arc::clone(&balancer);
        clients.spawn_on(async move { answers(&balancer, 3000).await }, background().handle());
    }
    while let Some(more) = clients.join_next().await {
        all.extend(more.unwrap());
    }
    let counts = counts(&all);
    for (name, share) in [("a", 3333), ("b", 6667), ("c", 10_000)] {
        assert!(counts[name].abs_diff(share) <= 1, "{counts:?}");
    }
}

#[tokio::test]
async fn weight_nought_gets_nothing() {
    for balance in ["roundrobin", "leastconn", "random", "first", "source"] {
        let [a, b, _] = three().await;
        let balancer = Balancer::start_front(&front_of(&format!(
            "upstreams: [{{addr: \"{}\", weight: 0}}, \"{}\"]\nbalance: {balance}\n",
            a.addr(),
            b.addr()
        )))
        .await;
        answers(&balancer, 30).await;
        assert_eq!((a.heads(), b.heads()), (0, 30), "{balance}");
    }
}

#[tokio::test]
async fn chance_reaches_everyone() {
    let all = three().await;
    let addrs = all.each_ref().map(Upstream::addr);
    let balancer = Balancer::start_front(&front(&addrs, "balance: random\n")).await;
    let answers = answers(&balancer, 300).await;
    let counts = counts(&answers);
    // Fewer than 30 of 300 happen once in more than 10^15 times.
    assert!(counts.len() == 3 && counts.values().all(|&n| n > 30), "{counts:?}");
}

#[tokio::test]
async fn the_first_gets_everything_while_it_is_there() {
    let [a, b, c] = three().await;
    let addrs = [a.addr(), b.addr(), c.addr()];
    let balancer = Balancer::start_front(&front(&addrs, &format!("balance: first\n{QUICK}"))).await;
    for upstream in [&a, &b, &c] {
        balancer.wait_upstream(upstream.addr(), true).await;
    }
    answers(&balancer, 20).await;
    assert_eq!((a.heads(), b.heads(), c.heads()), (20, 0, 0));
    a.set(Mode::Refuse).await;
    balancer.wait_upstream(a.addr(), false).await;
    answers(&balancer, 20).await;
    assert_eq!((a.heads(), b.heads(), c.heads()), (20, 20, 0));
    a.set(Mode::Serve).await;
    balancer.wait_upstream(a.addr(), true).await;
    wait_until("the first to be first again", async || get(balancer.front(), "/").await.text() == "a").await;
}

#[tokio::test]
async fn the_busy_one_is_avoided() {
    let free = Arc::new(Semaphore::new(0));
    let mut upstreams = Vec::new();
    for name in ["a", "b"] {
        let free = Arc::clone(&free);
        let upstream = Upstream::start(move |seen| {
            let free = Arc::clone(&free);
            async move {
                if seen.target == "/slow" {
                    free.acquire().await.unwrap().forget();
                }
                answer(200, name)
            }
        });
        upstreams.push(upstream.await);
    }
    let addrs: Vec<_> = upstreams.iter().map(Upstream::addr).collect();
    // The default.
    let balancer = Balancer::start_front(&front(&addrs, "")).await;
    let front = balancer.front();
    let slow = background().spawn(async move { get(front, "/slow").await });
    wait_until("one to be busy", async || upstreams.iter().any(|upstream| upstream.heads() == 1)).await;
    let answers = answers(&balancer, 30).await;
    free.add_permits(1);
    let busy = slow.await.unwrap().text();
    assert!(answers.iter().all(|name| *name != busy), "{busy} is busy: {answers:?}");
}

#[tokio::test]
async fn a_client_keeps_its_upstream() {
    let all = three().await;
    let addrs = all.each_ref().map(Upstream::addr);
    let balancer = Balancer::start_front(&front(&addrs, "balance: source\n")).await;
    let mut used = BTreeSet::new();
    for last in 1..=40 {
        let mut of_this = BTreeSet::new();
        for _ in 0..3 {
            let web = Web::connect_from(Ipv4Addr::new(127, 0, 0, last), balancer.front()).await.unwrap();
            of_this.insert(web.get("/").await.unwrap().text());
        }
        assert_eq!(of_this.len(), 1, "127.0.0.{last}: {of_this:?}");
        used.extend(of_this);
    }
    assert_eq!(used.len(), 3, "all clients at {used:?}");
}

#[tokio::test]
async fn a_backup_waits_until_nobody_else_is_left() {
    let [a, b, c] = three().await;
    let balancer = Balancer::start_front(&front_of(&format!(
        "upstreams: [{{addr: \"{}\", backup: true}}, \"{}\", \"{}\"]\n{QUICK}",
        a.addr(),
        b.addr(),
        c.addr()
    )))
    .await;
    for upstream in [&a, &b, &c] {
        balancer.wait_upstream(upstream.addr(), true).await;
    }
    answers(&balancer, 30).await;
    assert_eq!(a.heads(), 0);
    b.set(Mode::Refuse).await;
    balancer.wait_upstream(b.addr(), false).await;
    answers(&balancer, 30).await;
    assert_eq!(a.heads(), 0);
    c.set(Mode::Refuse).await;
    balancer.wait_upstream(c.addr(), false).await;
    let from_backup = answers(&balancer, 30).await;
    assert!(from_backup.iter().all(|name| name == "a"), "{from_backup:?}");
    b.set(Mode::Serve).await;
    balancer.wait_upstream(b.addr(), true).await;
    wait_until("the backup to rest", async || get(balancer.front(), "/").await.text() == "b").await;
}

#[tokio::test]
async fn an_upstream_gets_no_more_at_a_time_than_it_may() {
    let free = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&free);
    let upstream = Upstream::start(move |_| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            answer(200, "a")
        }
    })
    .await;
    let balancer = Balancer::start_front(&front_of(&format!(
        "upstreams: [{{addr: \"{}\", max_connections: 2}}]\nqueue_timeout: 20s\n",
        upstream.addr()
    )))
    .await;
    let front = balancer.front();
    let requests: Vec<_> = (0..6).map(|_| background().spawn(async move { get(front, "/").await })).collect();
    for done in 0..6 {
        let there = 6.min(done + 2);
        wait_until("as many as may be there", async || upstream.heads() == there).await;
        free.add_permits(1);
        wait_until("the next", async || upstream.heads() == 6.min(done + 3)).await;
    }
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert!(upstream.connections() <= 2 + 4, "{}", upstream.connections());
}

#[tokio::test]
async fn hosts_and_paths_lead_to_groups() {
    let [a, b, c] = three().await;
    let d = Upstream::named("d").await;
    let balancer = Balancer::start_front(&front_of(&format!(
        "groups:\n\
        \x20 users: [\"{}\"]\n\
        \x20 orders: {{upstreams: [\"{}\"], balance: roundrobin}}\n\
        \x20 wild: [\"{}\"]\n\
        \x20 rest: [\"{}\"]\n\
         routes:\n\
        \x20 - {{path: /users, group: users}}\n\
        \x20 - {{host: orders.test, path: /v1, group: orders}}\n\
        \x20 - {{host: \"*.wild.test\", group: wild}}\n\
        \x20 - {{host: rest.test, group: rest}}\n",
        a.addr(),
        b.addr(),
        c.addr(),
        d.addr()
    )))
    .await;
    let mut wrong = Vec::new();
    for (host, path, wanted) in [
        ("x.test", "/users", "a"),
        ("x.test", "/users/", "a"),
        ("x.test", "/users/7", "a"),
        ("x.test", "/users?q", "a"),
        ("x.test", "/users2", "404"),
        ("x.test", "/user", "404"),
        ("x.test", "/v1/users", "404"),
        ("rest.test", "/users/7", "a"),
        ("rest.test", "/users2", "d"),
        ("rest.test", "/", "d"),
        ("REST.test", "/", "d"),
        ("rest.test:8080", "/", "d"),
        ("rest.test.", "/", "d or 404"),
        ("orders.test", "/v1", "b"),
        ("orders.test", "/v1/x", "b"),
        ("orders.test", "/v2", "404"),
        ("a.wild.test", "/", "c"),
        ("a.b.wild.test", "/", "c"),
        ("A.Wild.Test:99", "/x", "c"),
        ("wild.test", "/", "404"),
        ("awild.test", "/", "404"),
        ("x.test", "/", "404"),
    ] {
        let got = get_with(balancer.front(), path, &[("host", host)]).await;
        let found = if got.status == 200 { got.text() } else { got.status.to_string() };
        if !wanted.split(" or ").any(|wanted| wanted == found) {
            wrong.push(format!("{host} {path}: {found}, not {wanted}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
