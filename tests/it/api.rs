//! The API: what it tells and to whom, what it changes and for whom, and who can hold it up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use crate::support::balancer::Balancer;
use crate::support::client::connect;
use crate::support::cluster::{config_for, shared};
use crate::support::home;
use crate::support::postgres::{Postgres, Settings, Stop};
use crate::support::process::Signal;
use crate::support::wait::wait_until;
use crate::support::web::{Got, get_with, send};
use crate::tools::memory;

const TOKEN: &str = "canary-5d0c7715a2";

/// A balancer over the shared servers, with a token, and its socket there.
async fn start(socket: &Path) -> Balancer {
    let socket = socket.display();
    let admin = format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}, socket: \"{socket}\"}}\n");
    let front = "http: {bind: \"BALANCER:8080\", upstreams: [\"127.0.0.1:1\"], check: off}\n";
    let balancer = Balancer::start(&(shared().await.config() + &admin + front)).await;
    balancer.wait_ready().await;
    balancer
}

fn socket() -> std::path::PathBuf {
    home::directory("socket").join("admin.sock")
}

/// What the API answers to a request over the socket: status and body.
pub(crate) async fn local(socket: &Path, method: &str, path: &str) -> (u16, Value) {
    local_with(socket, method, path, "").await
}

/// The same with a body.
async fn local_with(socket: &Path, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: pgsplit\r\nUser-Agent: pgsplit/1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

async fn get(balancer: &Balancer, path: &str) -> Value {
    let (status, body) = balancer.get(path).await.unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// Checks that a value is what its schema says: each field that the one has the other has, too.
pub(crate) fn check(value: &Value, schema: &Value, all: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        return check(value, all.pointer(reference.trim_start_matches('#')).expect(reference), all, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let choice = choices.iter().find(|choice| (choice["type"] == "null") == value.is_null());
        return check(value, choice.unwrap_or_else(|| panic!("{at}: {value}")), all, at);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        other => panic!("{at}: the schema has the type {other}"),
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(
        types.contains(&is) || (is == "integer" && types.contains(&"number")),
        "{at} is {value}, not {types:?}"
    );
    if let Some(choices) = schema["enum"].as_array() {
        assert!(choices.contains(value), "{at} is {value}, none of {choices:?}");
    }
    match (value, schema["properties"].as_object()) {
        (Value::Object(fields), Some(known)) => {
            let names = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(
                names(fields),
                names(known),
                "{at}: fields that are served, and that are in openapi.json"
            );
            let required: BTreeSet<_> = schema["required"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap().to_owned())
                .collect();
            assert_eq!(required, names(known), "{at}: all are always there");
            fields.iter().for_each(|(name, value)| check(value, &known[name], all, &format!("{at}.{name}")));
        }
        (Value::Object(fields), None) if schema["additionalProperties"].is_object() => {
            let of_all = &schema["additionalProperties"];
            fields.iter().for_each(|(name, value)| check(value, of_all, all, &format!("{at}.{name}")));
        }
        (Value::Array(items), _) => {
            for item in items {
                check(item, &schema["items"], all, &format!("{at}[]"));
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn everything_that_is_served_is_in_the_document_and_the_other_way_round() {
    let socket = socket();
    let balancer = start(&socket).await;
    let _client = connect(balancer.rw()).await.unwrap();
    let all = get(&balancer, "/api/v1/openapi.json").await;
    assert!(all["openapi"].as_str().unwrap().starts_with("3.1."));
    let mut seen = 0;
    for (path, methods) in all["paths"].as_object().unwrap() {
        let name = if path.contains("nodes") { "n0" } else { "rw" };
        let real = path.replace("{name}", name).replace("{id}", "s-0");
        for (method, operation) in methods.as_object().unwrap() {
            let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
            let (status, answer) = match (path.as_str(), method.as_str()) {
                // An upgrade is tested where it may be done.
                ("/api/v1/stream" | "/api/v1/upgrade", _) => continue,
                (_, "patch") => local_with(&socket, "PATCH", &real, "{\"weight\": 100}").await,
                // Nothing to end, so that the others find what they look for.
                ("/api/v1/sessions", "delete") => {
                    local(&socket, "DELETE", "/api/v1/sessions?node=nowhere").await
                }
                ("/api/v1/sessions/{id}", "delete") => {
                    let list = get(&balancer, "/api/v1/sessions?listener=rw").await;
                    let id = list["sessions"][0]["id"].as_str().unwrap();
                    let killed = local(&socket, "DELETE", &format!("/api/v1/sessions/{id}")).await;
                    drop(connect(balancer.rw()).await.unwrap());
                    killed
                }
                _ => local(&socket, &method.to_uppercase(), &real).await,
            };
            assert_eq!(status, 200, "{method} {path}: {answer}");
            check(&answer, schema, &all, path);
            let (status, refusal) = local(&socket, "TRACE", &real).await;
            assert_eq!(status, 405, "{path}");
            check(&refusal, &all["components"]["schemas"]["Refusal"], &all, path);
            seen += 1;
        }
    }
    assert!(12 < seen, "{seen}");
    // Each schema is used: what is not served is not in the document.
    let text = all.to_string();
    for name in all["components"]["schemas"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("\"#/components/schemas/{name}\"")), "{name} is nowhere");
    }
}

#[tokio::test]
async fn what_is_changed_by_the_socket_needs_no_token_and_by_the_address_it_does() {
    let socket = socket();
    let balancer = start(&socket).await;
    let path = "/api/v1/listeners/rw/pause";
    let refused = send(balancer.admin(), "POST", path, &[], "").await;
    let words: Value = serde_json::from_str(&refused.text()).unwrap();
    assert_eq!((refused.status, &words["error"]), (401, &"only with the token".into()));
    assert_eq!(refused.header("content-type"), "application/json");
    let (status, listener) = local(&socket, "POST", path).await;
    assert_eq!((status, &listener["paused"]), (200, &true.into()));
    assert_eq!(listener["why"], "it is paused: new sessions wait");
    let line = balancer.wait_log("listener_paused", |_| true).await;
    assert!(line["client"].as_str().unwrap().starts_with("local uid ") && line["by"] == "cli", "{line}");
    let right = [("authorization", "Bearer canary-5d0c7715a2")];
    for (method, path) in [("DELETE", "/api/v1/sessions/s-0"), ("DELETE", "/api/v1/sessions?node=n0")] {
        assert_eq!(send(balancer.admin(), method, path, &[], "").await.status, 401, "{path}");
        assert_ne!(send(balancer.admin(), method, path, &right, "").await.status, 401, "{path}");
    }
    let resumed = send(balancer.admin(), "POST", "/api/v1/listeners/rw/resume", &right, "").await;
    assert_eq!(resumed.status, 200, "{}", resumed.text());
    assert_eq!(balancer.wait_log("listener_resumed", |_| true).await["by"], "api");
}

#[tokio::test]
async fn a_name_that_could_lead_anywhere_is_not_answered_to() {
    let config = shared().await.config()
        + "admin: {bind: \"BALANCER:8404\", token: canary-5d0c7715a2, hosts: [lb.example.com]}\n";
    let balancer = Balancer::start(&config).await;
    let ask = async |path: &str, host: &str| get_with(balancer.admin(), path, &[("host", host)]).await;
    for host in ["evil.example", "evil.example:8404", "127.0.0.1.evil.example", "lb.example.com.evil.example"]
    {
        for path in ["/", "/api/v1/status", "/api/v1/stream", "/api/v1/events?follow=1", "/api/v1/config"] {
            let got = ask(path, host).await;
            assert_eq!(got.status, 421, "{host} {path}");
            assert!(got.text().contains("admin.hosts") && !got.text().contains("evil"), "{}", got.text());
        }
        for path in ["/metrics", "/healthz"] {
            assert_eq!(ask(path, host).await.status, 200, "{host} {path}");
        }
    }
    for host in ["127.0.0.1:8404", "localhost:8404", "pgsplit", "LB.example.com:8404", "[::1]:1"] {
        assert_eq!(ask("/api/v1/status", host).await.status, 200, "{host}");
    }
    // A page that was asked for by another name may not act, and one of ours may, with the token.
    let pause = async |headers: &[(&str, &str)]| {
        let headers = [headers, &[("authorization", "Bearer canary-5d0c7715a2")]].concat();
        send(balancer.admin(), "POST", "/api/v1/listeners/rw/resume", &headers, "").await.status
    };
    assert_eq!(pause(&[("host", "evil.example"), ("origin", "http://evil.example")]).await, 421);
    assert_eq!(pause(&[("host", "lb.example.com"), ("origin", "http://evil.example")]).await, 403);
    let ours =
        [("host", "lb.example.com"), ("origin", "https://lb.example.com"), ("sec-fetch-site", "same-origin")];
    assert_eq!(pause(&ours).await, 200);
}

#[tokio::test]
async fn faults_are_told_as_json_and_say_nothing_of_what_was_sent() {
    let socket = socket();
    let balancer = start(&socket).await;
    for (method, path, status, words) in [
        ("GET", "/api/v1/nothing", 404, "no such page"),
        ("GET", "/api/v2/status", 404, "no such page"),
        ("GET", "/api/v1/sessions?usr=%3Cscript%3E", 400, "a parameter that is not known"),
        ("GET", "/api/v1/sessions?state=%3Cscript%3E", 400, "state is not opening, waiting, login or active"),
        ("GET", "/api/v1/sessions?limit=99999999999999999999999", 400, "limit is not a whole number"),
        ("GET", "/api/v1/sessions?older_than=5", 400, "older_than is not a time such as 90s, 10m or 1h"),
        ("GET", "/api/v1/events?since=-1", 400, "since is not a whole number"),
        ("DELETE", "/api/v1/sessions", 400, "that would end all sessions"),
        ("DELETE", "/api/v1/sessions?node=", 400, "that would end all sessions"),
        ("DELETE", "/api/v1/sessions?limit=1", 400, "a parameter that is not known"),
        ("DELETE", "/api/v1/sessions/s-10000000000000000", 400, "that is not the id of a session"),
        ("DELETE", "/api/v1/sessions/%3Cscript%3E", 400, "that is not the id of a session"),
        ("DELETE", "/api/v1/sessions/s-ffffffffffffffff", 404, "no session s-ffffffffffffffff"),
        ("POST", "/api/v1/listeners/%3Cscript%3E/pause", 404, "no such listener"),
        ("PATCH", "/api/v1/status", 405, "only GET and HEAD here"),
    ] {
        let (got, body) = local(&socket, method, path).await;
        assert_eq!((got, &body["error"]), (status, &words.into()), "{method} {path}");
        assert!(body["hint"].is_string() && !body.to_string().contains("script"), "{body}");
    }
    let head = send(balancer.admin(), "HEAD", "/api/v1/sessions", &[], "").await;
    assert_eq!((head.status, head.text().as_str()), (200, ""));
    // A head that is too large is nobody's but its sender's trouble.
    let long = "x".repeat(40_000);
    let mut stream = TcpStream::connect(balancer.admin()).await.unwrap();
    let _ = stream.write_all(format!("GET / HTTP/1.1\r\nX-Long: {long}\r\n\r\n").as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

/// Follows a path of the API; what it is sent, line by line.
async fn follow(balancer: &Balancer, path: &str, headers: &str) -> Lines<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(balancer.admin()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    BufReader::new(stream).lines()
}

/// The next `data:` below an `event:` with this name for which `fits`.
async fn next(lines: &mut Lines<BufReader<TcpStream>>, event: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        let mut name = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(event) = line.strip_prefix("event: ") {
                event.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).unwrap();
                if name == event && fits(&data) {
                    return data;
                }
            }
        }
        panic!("it ended before {event}");
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.expect(event)
}

#[tokio::test]
async fn who_follows_sees_what_happens_as_it_happens() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&config_for([node.addr()])).await;
    balancer.wait_ready().await;
    let mut stream = follow(&balancer, "/api/v1/stream", "").await;
    let mut events = follow(&balancer, "/api/v1/events?follow=1&node=n0", "").await;
    let first = next(&mut stream, "status", |_| true).await;
    assert!(first["history"]["sessions"].is_array(), "{first}");
    assert!(first["verdict"].as_str().unwrap().starts_with("Writes: n0. Reads: n0, the primary."), "{first}");
    let second = next(&mut stream, "status", |_| true).await;
    assert!(second["history"].is_null() && second["totals"].is_object(), "{second}");
    node.stop(Stop::Fast).await;
    let is_down = |event: &Value| event["event"] == "node_state" && event["fields"]["to"] == "down";
    let (one, other) = (next(&mut stream, "event", is_down).await, next(&mut events, "event", is_down).await);
    assert_eq!(one, other);
    assert_eq!(one["fields"]["node"], "n0");
    next(&mut stream, "status", |status| status["nodes"][0]["health"] == "down").await;
    // Who comes back is given what it missed, and so is who asks for what was.
    let id = one["id"].as_u64().unwrap();
    let mut again =
        follow(&balancer, "/api/v1/events?follow=1", &format!("Last-Event-ID: {}\r\n", id - 1)).await;
    assert_eq!(next(&mut again, "event", |_| true).await["id"], id);
    let since = get(&balancer, &format!("/api/v1/events?since={}&node=n0&limit=1000", id - 1)).await;
    assert_eq!((&since["events"][0], since["last_id"].as_u64().unwrap() >= id), (&one, true));
    assert_eq!(get(&balancer, "/api/v1/events?node=nowhere").await["events"], Value::Array(vec![]));
    let nodes = get(&balancer, "/api/v1/nodes").await;
    let step = &nodes["nodes"][0]["check"]["steps"][0];
    assert!(step["name"] == "connect" || step["name"] == "resolve", "{step}");
    assert_eq!(
        balancer.status().await["verdict"].as_str().unwrap().split(" (").next().unwrap(),
        "Writes wait: no primary. Reads wait: no node"
    );
}

#[tokio::test]
async fn only_so_many_follow_and_they_are_in_nobodys_way() {
    let socket = socket();
    let balancer = start(&socket).await;
    let mut followers = Vec::new();
    for _ in 0..32 {
        let mut lines = follow(&balancer, "/api/v1/stream", "").await;
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "HTTP/1.1 200 OK");
        followers.push(lines);
    }
    let mut refused = JoinSet::new();
    for _ in 0..200 {
        let admin = balancer.admin();
        refused.spawn(async move { send(admin, "GET", "/api/v1/events?follow=1", &[], "").await });
    }
    for got in refused.join_all().await {
        let Got { status, .. } = got;
        assert_eq!((status, got.text().contains("32 follow already")), (503, true), "{}", got.text());
    }
    assert_eq!(balancer.get("/healthz").await.unwrap().0, 200);
    assert_eq!(local(&socket, "GET", "/api/v1/status").await.0, 200);
    // Whose reader has gone makes room.
    followers.pop();
    wait_until("room for another one", async || {
        let mut lines = follow(&balancer, "/api/v1/stream", "").await;
        let answer = lines.next_line().await.unwrap().unwrap();
        if answer.ends_with("200 OK") { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test]
async fn a_follower_that_reads_nothing_costs_no_memory_and_is_left() {
    let socket = socket();
    let balancer = start(&socket).await;
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    stream.write_all(b"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    // Others ask a lot meanwhile, each time something that is told.
    for _ in 0..20 {
        local(&socket, "POST", "/api/v1/listeners/rw/pause").await;
        local(&socket, "POST", "/api/v1/listeners/rw/resume").await;
    }
    let before = memory(balancer.pid());
    for _ in 0..500 {
        local(&socket, "POST", "/api/v1/listeners/rw/pause").await;
        local(&socket, "POST", "/api/v1/listeners/rw/resume").await;
    }
    let grown = memory(balancer.pid()).saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more for a reader that does not read");
    // By the time that it has taken nothing for 20 seconds it is cut off.
    wait_until("the connection to be cut", async || {
        let events = get(&balancer, "/api/v1/events?limit=1").await;
        if stream.write_all(b" ").await.is_err() { Ok(()) } else { Err(events["last_id"].clone()) }
    })
    .await;
}

#[tokio::test]
async fn the_socket_goes_with_its_process_and_the_dead_ones_is_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let socket = socket();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let balancer = start(&socket).await;
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let path = socket.display().to_string();
    let config = format!("{}admin: {{bind: \"\", socket: \"{path}\"}}\n", shared().await.config());
    let second = Balancer::launch(&config, &[]);
    assert_eq!(second.wait_exit(Duration::from_secs(20)).await.code(), Some(1));
    let said = second.err();
    assert!(
        said.contains(&format!("cannot make the admin socket {path}: another process answers there")),
        "{said}"
    );
    assert!(said.contains("Choose another admin.socket"), "{said}");
    assert_eq!(local(&socket, "GET", "/api/v1/status").await.0, 200);
    balancer.signal(Signal::TERM);
    assert!(balancer.wait_exit(Duration::from_secs(20)).await.success());
    assert!(!socket.exists());
    // Without an address all goes on over the socket alone.
    let third = Balancer::launch(&config, &[]);
    third.wait_log("started", |_| true).await;
    assert_eq!(local(&socket, "GET", "/api/v1/listeners").await.0, 200);
    TcpStream::connect(third.admin()).await.unwrap_err();
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() {
    let socket = socket();
    let balancer = start(&socket).await;
    let config = get(&balancer, "/api/v1/config").await;
    assert_eq!(config["admin"]["token"], "***");
    assert_eq!(config["admin"]["socket"], socket.display().to_string());
    assert_eq!(
        (&config["check"]["type"], &config["sessions"]["queue_timeout"]),
        (&"login".into(), &"10s".into())
    );
    assert_eq!(config["listeners"][1]["target"], "prefer-standby");
    assert!(!config.to_string().contains(TOKEN));
}

#[tokio::test]
async fn figures_of_late_are_there() {
    let socket = socket();
    let balancer = start(&socket).await;
    wait_until("new sessions to be seen", async || {
        drop(connect(balancer.rw()).await.unwrap());
        let status = balancer.status().await;
        let (listener, node) = (&status["listeners"][0], &status["nodes"][0]);
        let is_there = 0.0 < listener["new_per_second"].as_f64().unwrap()
            && 0.0 < node["new_per_second"].as_f64().unwrap()
            && 0.0 < node["connect_p99_seconds"].as_f64().unwrap_or_default()
            && status["history"]["new"].as_array().unwrap().iter().any(|new| new.as_u64() > Some(0));
        if is_there { Ok(()) } else { Err(status) }
    })
    .await;
    let status = balancer.status().await;
    assert_eq!(status["listeners"][0]["new_sessions_go_to"], serde_json::json!(["n0"]));
    assert_eq!(status["listeners"][0]["why"], "the primary");
    assert_eq!(
        status["verdict"],
        "Writes: n0. Reads: n1, n2. HTTP http: ready.".replace(" HTTP http: ready.", "")
    );
    assert!(balancer.get("/").await.unwrap().1.contains("\nWrites: n0. Reads: n1, n2.\n"));
}
