//! What clients notice when the database is not well.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::Signal;
use crate::support::client::send;
use crate::support::postgres::Postgres;
use crate::support::service::Service;
use crate::support::signal;
use crate::support::wait::wait_until;

/// Short times, for tests that wait for them.
const SHORT: [(&str, &str); 2] = [("QUERY_TIMEOUT", "300ms"), ("REQUEST_TIMEOUT", "1s")];
/// With [`SHORT`] no answer may take longer, on a busy machine as well.
const BOUND: Duration = Duration::from_secs(3);

#[test]
fn a_stopped_database_is_said_and_found_again() {
    let postgres = Postgres::start_new();
    let service = Service::start(&postgres, &SHORT);
    assert_eq!(service.get("/users/1").status, 200);
    postgres.stop();
    for path in ["/users", "/users/1", "/ready"] {
        let answer = service.get(path);
        answer.assert_unavailable();
        assert!(answer.took < BOUND, "{path}: {answer:?}");
    }
    assert_eq!(service.get("/health").status, 200);
    service.must_log("event", "database_failure");
    service.must_log("database", &format!("{}:5432", postgres.ip()));
    postgres.start();
    assert_eq!(service.get("/users/1").status, 200);
}

#[test]
fn a_restart_and_killed_sessions_are_not_noticed() {
    let postgres = Postgres::start_new();
    let service = Service::start(&postgres, &[("REQUEST_TIMEOUT", "20s"), ("POOL_SIZE", "3")]);
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let more = |n: usize| {
        let target = answered.load(Ordering::Relaxed) + n;
        wait_until("more answers", || answered.load(Ordering::Relaxed) >= target);
    };
    thread::scope(|scope| {
        // Whatever fails below, the readers must come to their end.
        let _end = OnDrop(&over);
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let answer = service.get("/users?limit=5");
                    assert_eq!(answer.status, 200, "{answer:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..5 {
            more(50);
            postgres
                .sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'users'");
        }
        more(50);
        postgres.stop();
        postgres.start();
        more(50);
    });
}

#[test]
fn a_frozen_server_is_said_in_time_and_found_again() {
    let postgres = Postgres::start_new();
    let service = Service::start(&postgres, &SHORT);
    assert_eq!(service.get("/users/1").status, 200);
    postgres.signal_all(Signal::STOP);
    for path in ["/users", "/ready"] {
        let answer = service.get(path);
        answer.assert_unavailable();
        assert!(answer.took < BOUND, "{path}: {answer:?}");
    }
    assert_eq!(service.get("/health").status, 200);
    service.must_log("kind", "query_timeout");
    postgres.signal_all(Signal::CONT);
    wait_until("an answer", || service.get("/users/1").status == 200);
}

/// As behind the load balancer: old connections lead to a frozen server, new ones to a living one.
#[test]
fn frozen_connections_are_found_by_the_first_request_and_left_together() {
    let postgres = Postgres::start_new();
    let service = Service::start(&postgres, &[("QUERY_TIMEOUT", "3s"), ("REQUEST_TIMEOUT", "20s")]);
    let lock = postgres.lock();
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| assert_eq!(service.get("/users/1").status, 200));
        }
        wait_until("five sessions", || postgres.blocked() == 5);
        drop(lock);
    });
    let frozen = postgres.sessions("true");
    assert_eq!(frozen.len(), 5);
    let all = |word| frozen.iter().map(|&session| signal(session, word)).count();
    all(Signal::STOP);

    let first = service.get("/users/1");
    assert_eq!(first.status, 200, "{first:?}");
    assert!(first.took >= Duration::from_secs(3), "it met a frozen session: {first:?}");
    for _ in 0..10 {
        let answer = service.get("/users/1");
        assert_eq!(answer.status, 200);
        assert!(answer.took < Duration::from_secs(2), "no other request meets one: {answer:?}");
    }
    all(Signal::CONT);
    wait_until("the old sessions to end", || postgres.sessions("true").len() == 1);
}

#[test]
fn a_slow_query_is_cancelled_by_the_server_and_tried_again() {
    let postgres = Postgres::start_new();
    let service = Service::start(&postgres, &[("QUERY_TIMEOUT", "300ms"), ("REQUEST_TIMEOUT", "20s")]);
    let lock = postgres.lock();
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(service.get("/users/1").status, 200));
        service.must_log("sqlstate", "57014");
        drop(lock);
    });
}

#[test]
fn what_cannot_be_served_is_refused_at_once() {
    let postgres = Postgres::start_new();
    let settings = [("POOL_SIZE", "1"), ("QUERY_TIMEOUT", "20s"), ("REQUEST_TIMEOUT", "20s")];
    let service = Service::start(&postgres, &settings);
    let lock = postgres.lock();
    let (busy, good) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let answer = service.get("/users/1");
                if answer.status == 200 {
                    good.fetch_add(1, Ordering::Relaxed);
                } else {
                    answer.assert_unavailable();
                    busy.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // One is served and four wait.
        wait_until("seven refusals", || busy.load(Ordering::Relaxed) == 7);
        drop(lock);
    });
    assert_eq!(good.into_inner(), 5);
    service.must_log("event", "busy");
}

#[test]
fn a_wait_for_a_connection_has_an_end() {
    let postgres = Postgres::start_new();
    let settings = [("POOL_SIZE", "1"), ("QUERY_TIMEOUT", "20s"), ("REQUEST_TIMEOUT", "1s")];
    let service = Service::start(&postgres, &settings);
    let _lock = postgres.lock();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let answer = service.get("/users/1");
                answer.assert_unavailable();
                assert!(answer.took < BOUND, "{answer:?}");
            });
        }
    });
    service.must_log("kind", "pool_exhausted");
}

#[test]
fn a_client_that_leaves_takes_its_connection_along() {
    let postgres = Postgres::start_new();
    let settings = [("POOL_SIZE", "1"), ("QUERY_TIMEOUT", "20s"), ("REQUEST_TIMEOUT", "20s")];
    let service = Service::start(&postgres, &settings);
    let lock = postgres.lock();
    let client = send(service.addr, "GET", "/users/1").unwrap();
    wait_until("its query", || postgres.blocked() == 1);
    drop(client);
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(service.get("/users/2").body["data"]["id"], 2));
        wait_until("a second session of a pool of one", || postgres.blocked() == 2);
        drop(lock);
    });
}

#[test]
fn old_connections_are_replaced() {
    let postgres = Postgres::start_new();
    let service = Service::start(&postgres, &[("CONNECTION_AGE", "100ms")]);
    service.get("/users/1");
    let first = postgres.sessions("true");
    wait_until("another session", || {
        assert_eq!(service.get("/users/1").status, 200);
        let sessions = postgres.sessions("true");
        !sessions.is_empty() && sessions != first
    });
}

#[test]
fn clients_see_nothing_of_what_the_database_says() {
    let postgres = Postgres::start_new();
    let service = Service::start(&postgres, &[]);
    postgres.sql("ALTER TABLE users RENAME TO gone");
    let answer = service.get("/users/1");
    answer.assert_unavailable();
    assert!(!answer.body.to_string().contains("relation"), "{answer:?}");
    assert!(answer.took < BOUND, "nothing to wait for: {answer:?}");
    service.must_log("sqlstate", "42P01");
    postgres.sql("ALTER TABLE gone RENAME TO users");
    assert_eq!(service.get("/users/1").status, 200);

    let refused = Service::start_with_url(&postgres.url("wrong"), &[]);
    refused.get("/users/1").assert_unavailable();
    refused.must_log("sqlstate", "28P01");
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
