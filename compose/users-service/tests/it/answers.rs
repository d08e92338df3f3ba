//! What clients get from a database that is well.

use serde_json::json;

use crate::support::client::ask;
use crate::support::postgres::Postgres;
use crate::support::service::Service;

#[test]
fn users_come_by_id_with_the_server_that_gave_them() {
    let postgres = Postgres::start_new();
    let service = Service::start(&postgres, &[]);

    let one = service.get("/users/7");
    assert_eq!(one.status, 200, "{one:?}");
    let meta = json!({
        "served_by": "users-1",
        "database": { "name": "db-1", "address": postgres.ip(), "in_recovery": false },
    });
    let user = json!({
        "id": 7, "name": "User 7", "email": "user7@example.org", "created_at": "2026-01-02T03:04:05.678901Z",
    });
    assert_eq!(one.body, json!({ "data": user, "meta": meta }));
    assert_eq!(one.header("cache-control"), "no-store");

    let first = service.get("/users");
    assert_eq!((first.status, ids(&first.body)), (200, (1..=20).collect()));
    assert_eq!(first.body["page"], json!({ "limit": 20, "next": 20 }));
    assert_eq!(first.body["meta"], meta);

    let missing = service.get("/users/1001");
    assert_eq!((missing.status, &missing.body["meta"]), (404, &meta));
    assert_eq!(missing.header("cache-control"), "no-store");

    let ready = service.get("/ready");
    assert_eq!((ready.status, &ready.body["meta"]), (200, &meta));
    let head = ask(service.addr, "HEAD", "/users/7");
    assert_eq!((head.status, head.header("content-length").is_empty()), (200, false));
}

#[test]
fn pages_follow_each_other_to_the_end() {
    let postgres = Postgres::start_new();
    let service = Service::start(&postgres, &[]);
    let (mut seen, mut after) = (Vec::new(), json!(0));
    while !after.is_null() {
        let page = service.get(&format!("/users?limit=100&after={after}"));
        seen.extend(ids(&page.body));
        after = page.body["page"]["next"].clone();
    }
    assert_eq!(seen, (1..=1000).collect::<Vec<_>>());

    let beyond = service.get("/users?after=5000");
    assert_eq!(beyond.body["data"], json!([]));
    assert_eq!(beyond.body["page"], json!({ "limit": 20, "next": null }));
    assert_eq!(beyond.body["meta"]["database"]["name"], "db-1", "known without a row as well");
}

#[test]
fn search_is_for_plain_text_in_name_and_email() {
    let postgres = Postgres::start_new();
    let service = Service::start(&postgres, &[]);
    for (query, found) in [
        ("q=USER7%40example", vec![7]),
        ("q=user+99&limit=3", vec![99, 990, 991]),
        ("q=user+99&limit=3&after=991", vec![992, 993, 994]),
        ("q=%25", vec![999]),
        ("q=%C3%A4nn", vec![999]),
        ("q=_", vec![999]),
        ("q=a_b", vec![999]),
        ("q=k%5Cs", vec![1000]),
        ("q='--", vec![]),
    ] {
        let answer = service.get(&format!("/users?{query}"));
        assert_eq!((answer.status, ids(&answer.body)), (200, found), "{query}");
    }
}

#[test]
fn wrong_requests_are_told_what_is_right() {
    let postgres = Postgres::start_new();
    let service = Service::start(&postgres, &[]);
    for (path, parameter, got) in [
        ("/users?limit=101", "limit", "101"),
        ("/users?limit=many", "limit", "many"),
        ("/users?after=-1", "after", "-1"),
        ("/users?q=%00", "q", "\0"),
        ("/users?limt=5", "limt", "5"),
        ("/users/me", "id", "me"),
        ("/users/9223372036854775808", "id", "9223372036854775808"),
        ("/users/%ff", "id", "\u{fffd}"),
    ] {
        let answer = service.get(path);
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(
            (&answer.body["parameter"], &answer.body["got"]),
            (&json!(parameter), &json!(got)),
            "{path}"
        );
        assert!(!answer.body["allowed"].as_str().unwrap().is_empty(), "{path}");
        assert!(answer.body["error"].as_str().unwrap().contains(parameter), "{path}");
    }
    for path in ["/", "/user", "/users/", "/users/1/2"] {
        let answer = service.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body["error"].as_str().unwrap().contains("/users/ID"), "{path}");
    }
    for path in ["/users", "/users/1", "/health", "/ready"] {
        let answer = ask(service.addr, "DELETE", path);
        assert_eq!((answer.status, answer.header("allow")), (405, "GET,HEAD"), "{path}");
    }
}

#[test]
fn answers_about_users_are_kept_when_that_is_wanted() {
    let postgres = Postgres::start_new();
    let service = Service::start(&postgres, &[("CACHE_SECONDS", "30")]);
    assert_eq!(service.get("/users").header("cache-control"), "public, max-age=30");
    assert_eq!(service.get("/users/1").header("cache-control"), "public, max-age=30");
    for path in ["/users/1001", "/users/x", "/health", "/ready"] {
        assert_eq!(service.get(path).header("cache-control"), "no-store", "{path}");
    }
}

fn ids(body: &serde_json::Value) -> Vec<i64> {
    body["data"].as_array().unwrap().iter().map(|user| user["id"].as_i64().unwrap()).collect()
}
