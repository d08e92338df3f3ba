//! The program as others run it: settings, signals, the health check.

use std::net::TcpStream;
use std::thread;

use crate::support::postgres::Postgres;
use crate::support::service::{Service, command, run};
use crate::support::wait::wait_until;
use crate::support::{PASSWORD, Signal, signal};

#[test]
fn wrong_settings_are_said_without_the_password() {
    let (output, errors) = run(&mut command());
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("DATABASE_URL is missing"), "{errors}");

    let url = format!("postgres://users:{PASSWORD}@db:x/users");
    let (output, errors) = run(command().env("DATABASE_URL", url).env("POOL_SIZE", "many"));
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("DATABASE_URL cannot be read"), "{errors}");
    assert!(errors.contains("POOL_SIZE=\\\"many\\\": write a whole number from 1 to 1000"), "{errors}");

    let (output, errors) = run(command().arg("serve"));
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("healthcheck"), "{errors}");
}

#[test]
fn a_taken_address_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap().to_string();
    let url = format!("postgres://users:{PASSWORD}@127.0.0.1/users");
    let (output, errors) = run(command().env("DATABASE_URL", url).env("BIND", &bind));
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains(&format!("BIND={bind}")), "{errors}");
}

#[test]
fn a_health_check_asks_the_instance() {
    let url = format!("postgres://users:{PASSWORD}@127.0.0.1:1/users");
    let mut service = Service::start_with_url(&url, &[]);
    let bind = service.addr.to_string();
    let (output, errors) = run(command().arg("healthcheck").env("BIND", &bind));
    assert!(output.status.success(), "{errors}");
    signal(service.pid(), Signal::TERM);
    assert!(service.ended().success());
    let (output, errors) = run(command().arg("healthcheck").env("BIND", &bind));
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&bind), "{errors}");
}

#[test]
fn what_is_under_way_at_the_end_is_answered() {
    let postgres = Postgres::start_new();
    let mut service = Service::start(&postgres, &[("QUERY_TIMEOUT", "20s"), ("REQUEST_TIMEOUT", "20s")]);
    let lock = postgres.lock();
    let addr = service.addr;
    thread::scope(|scope| {
        let service = &service;
        scope.spawn(|| assert_eq!(service.get("/users/1").status, 200));
        wait_until("its query", || postgres.blocked() == 1);
        signal(service.pid(), Signal::TERM);
        wait_until("no more connections", || TcpStream::connect(addr).is_err());
        drop(lock);
    });
    assert_eq!(service.ended().code(), Some(0));
    service.must_log("event", "stop");
    service.must_log("signal", "SIGTERM");
}
