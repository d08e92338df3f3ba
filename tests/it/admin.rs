//! The admin address: metrics, health, readiness, status.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::balancer::Balancer;
use crate::support::client::{connect, value};
use crate::support::cluster::{config_for, shared};
use crate::support::postgres::{Postgres, Settings, Stop};
use crate::support::wait::wait_until;

/// One family of a Prometheus text.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    /// Name and labels as they stand there, and the value.
    series: BTreeMap<String, f64>,
}

/// Reads a Prometheus text and is fussy: every family has a HELP and a TYPE before its series, its series stand
/// together, once each, with well-formed names, labels and values, and histograms add up.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line ends, too");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut helped, mut open) = (BTreeSet::new(), String::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(!help.trim().is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(helped.contains(name), "no HELP before {line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let family = Family { kind: kind.to_owned(), ..Family::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "twice: {line}");
            name.clone_into(&mut open);
        } else {
            assert!(!line.starts_with('#'), "{line}");
            let (series, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            let number: f64 = number.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(number.is_finite() && 0.0 <= number, "{line}");
            let name = series.split('{').next().unwrap();
            let suffix = name.strip_prefix(&*open).unwrap_or_else(|| panic!("{line} stands below {open}"));
            let family = families.get_mut(&open).unwrap();
            let suffixes: &[&str] =
                if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            check_labels(&series[name.len()..], line);
            assert!(family.series.insert(series.to_owned(), number).is_none(), "twice: {line}");
        }
    }
    for (name, family) in families.iter().filter(|(_, family)| family.kind == "histogram") {
        check_histogram(name, family, text);
    }
    families
}

/// `{name="value",…}` with quotes and backslashes escaped, or nothing.
fn check_labels(labels: &str, line: &str) {
    let Some(mut rest) = labels.strip_prefix('{') else {
        assert!(labels.is_empty(), "{line}");
        return;
    };
    let mut names = BTreeSet::new();
    loop {
        let (name, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && names.insert(name), "{line}");
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        rest = &value[end.unwrap_or_else(|| panic!("{line}")) + 1..];
        match rest {
            "}" => return,
            _ => rest = rest.strip_prefix(',').unwrap_or_else(|| panic!("{line}")),
        }
    }
}

/// Buckets never fall, end with `+Inf`, and that one is the count.
fn check_histogram(name: &str, family: &Family, text: &str) {
    let mut last: BTreeMap<String, f64> = BTreeMap::new();
    // In the order of the text, which is the order of the bounds.
    for line in text.lines().filter(|line| line.starts_with(&format!("{name}_bucket{{"))) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (labels, bound) = series.rsplit_once("le=\"").unwrap();
        let before = last.insert(labels.trim_end_matches(',').to_owned(), family.series[series]);
        assert!(before.is_none_or(|before| before <= family.series[series]), "{line}");
        if bound == "+Inf\"}" {
            let labels = labels.trim_end_matches(',').replace("_bucket{", "_count{");
            let labels = if labels.ends_with('{') { labels.replace('{', "") } else { labels + "}" };
            let (count, all) = (family.series[&labels], family.series[series]);
            assert!((count - all).abs() < 0.5, "{line}, but {labels} {count}");
            assert!(family.series.contains_key(&labels.replace("_count", "_sum")), "{labels}");
        }
    }
    assert!(!last.is_empty(), "{name} has no buckets");
}

/// Waits until the lag of both standbys is known: each was looked at after its primary.
async fn wait_lag(balancer: &Balancer) {
    for name in ["n1", "n2"] {
        wait_until("the lag to be known", async || balancer.node(name).await["lag_bytes"].as_u64()).await;
    }
}

#[tokio::test]
async fn metrics_are_strict_prometheus_text_and_all_there_from_the_start() {
    // A front with everything that has figures. Nobody listens at its upstream, and nobody asks.
    let front = "http: {bind: \"BALANCER:8080\", upstreams: [\"127.0.0.1:1\"], check: off, cache: 1MiB}\n";
    let balancer = Balancer::start(&(shared().await.config() + front)).await;
    balancer.wait_ready().await;
    wait_lag(&balancer).await;
    let families = parse(&balancer.metrics().await);
    let docs = include_str!("../../docs/metrics.md");
    let mut documented = BTreeSet::new();
    let rows = docs.lines().filter(|line| line.starts_with("| `pgsplit_") || line.starts_with("| `process_"));
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        documented.insert(name);
        if name == "process_max_fds" && !families.contains_key(name) {
            continue;
        }
        let family = families.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(family.kind, cells[2], "{name}");
        assert!(!family.series.is_empty(), "{name} has no series");
        let wanted: BTreeSet<_> = cells[3].split(", ").filter(|label| *label != "–").collect();
        for series in family.series.keys() {
            let labels = series.split_once('{').map_or("", |(_, labels)| labels);
            let is_name = |label: &&str| !label.is_empty() && *label != "le";
            let ends = labels.split("=\"").map(|part| part.rsplit(['{', ',', '"']).next().unwrap());
            let labels: BTreeSet<_> = ends.filter(is_name).filter(|label| *label != "}").collect();
            assert_eq!(labels, wanted, "{series}");
        }
    }
    let found: BTreeSet<_> = families.keys().map(String::as_str).collect();
    let unknown: Vec<_> = found.difference(&documented).collect();
    assert!(unknown.is_empty(), "not in docs/metrics.md: {unknown:?}");
}

#[tokio::test]
async fn traffic_changes_figures_and_adds_no_series() {
    let balancer = Balancer::start(&shared().await.config()).await;
    balancer.wait_ready().await;
    wait_lag(&balancer).await;
    let before = parse(&balancer.metrics().await);
    for _ in 0..5 {
        let client = connect(balancer.rw()).await.unwrap();
        value(&client, "select repeat('x', 10000)").await.unwrap();
    }
    wait_until("five sessions to be counted", async || {
        let count =
            balancer.metric("pgsplit_sessions_total{listener=\"rw\",node=\"n0\",end=\"client\"}").await;
        (count - 5.0).abs() < 0.5
    })
    .await;
    let after = parse(&balancer.metrics().await);
    for (name, family) in &before {
        let now = &after[name];
        assert!(family.series.keys().eq(now.series.keys()), "{name} has other series than before");
        if family.kind == "counter" {
            let fell = family.series.iter().find(|(series, value)| now.series[*series] < **value);
            assert_eq!(fell, None, "a counter fell");
        }
    }
    let to_client = "pgsplit_bytes_total{listener=\"rw\",node=\"n0\",direction=\"to_client\"}";
    assert!(50_000.0 < after["pgsplit_bytes_total"].series[to_client]);
}

#[tokio::test]
async fn readiness_follows_the_nodes_and_health_does_not() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&config_for([node.addr()])).await;
    balancer.wait_ready().await;
    assert_eq!(balancer.get("/readyz").await.unwrap(), (200, "ready\n".into()));
    assert_eq!(balancer.get("/readyz?listener=rw").await.unwrap().0, 200);
    assert_eq!(balancer.get("/readyz?listener=xx").await.unwrap().0, 404);
    node.stop(Stop::Fast).await;
    balancer.wait_health("n0", "down").await;
    let (code, said) = balancer.get("/readyz").await.unwrap();
    assert_eq!((code, said.contains("listener \"rw\" has no node")), (503, true), "{said}");
    assert_eq!(balancer.get("/healthz").await.unwrap(), (200, "ok\n".into()));
    assert_eq!(balancer.get("/nothing").await.unwrap().0, 404);
    assert!(balancer.get("/").await.unwrap().1.contains("NODE"));
}

#[tokio::test]
async fn without_an_admin_address_sessions_are_served_all_the_same() {
    let balancer = Balancer::launch(&(shared().await.config() + "admin: {bind: \"\"}\n"), &[]);
    balancer.wait_log("started", |_| true).await;
    connect(balancer.rw()).await.unwrap();
    TcpStream::connect(balancer.admin()).await.unwrap_err();
    assert!(!balancer.out().contains("admin"), "{}", balancer.out());
}

/// Sends bytes, and reads all that comes back.
async fn exchange(balancer: &Balancer, request: &str) -> String {
    let mut stream = TcpStream::connect(balancer.admin()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let balancer = Balancer::start(&shared().await.config()).await;
    for path in ["/", "/metrics", "/healthz", "/readyz", "/api/v1/status"] {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let answer = exchange(&balancer, &request).await.to_lowercase();
            assert!(answer.starts_with("http/1.1 405 ") && answer.contains("allow: get, head"), "{answer}");
        }
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let head = exchange(&balancer, &request).await;
        assert!(head.starts_with("HTTP/1.1 ") && head.ends_with("\r\n\r\n"), "a HEAD has no body: {head}");
    }
    let answer = exchange(&balancer, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{answer}");
    // What is no HTTP at all hurts nobody.
    let _ = exchange(&balancer, "\0\u{3}\0\0 what is this\r\n\r\n").await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let mut stream = TcpStream::connect(balancer.admin()).await.unwrap();
    let _ = stream.write_all(long.as_bytes()).await;
    assert_eq!(balancer.get("/healthz").await.unwrap().0, 200);
}

fn keys(value: &serde_json::Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn status_tells_everything_of_listeners_and_nodes() {
    let balancer = Balancer::start(&shared().await.config()).await;
    balancer.wait_ready().await;
    wait_lag(&balancer).await;
    let _client = connect(balancer.ro()).await.unwrap();
    let status = balancer.status().await;
    // Within v1 fields are only ever added, so all of these stay.
    let has = |value: &serde_json::Value, wanted: &[&str]| {
        let missing: Vec<_> = wanted.iter().filter(|key| !keys(value).contains(**key)).collect();
        assert!(missing.is_empty(), "{missing:?} missing in {value}");
    };
    has(
        &status,
        &["version", "uptime_seconds", "ready", "draining", "config", "listeners", "nodes", "primaries"],
    );
    has(&status["config"], &["path", "loaded_at"]);
    assert_eq!((&status["ready"], &status["draining"]), (&true.into(), &false.into()));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));

    let listener = &status["listeners"][1];
    has(listener, &["name", "bind", "cluster", "target", "balance", "ready", "sessions", "waiting", "limit"]);
    has(listener, &["oldest_wait_seconds", "accepted_total", "rejected_total"]);
    assert_eq!(
        (&listener["name"], &listener["target"], &listener["sessions"], &listener["accepted_total"]),
        (&"ro".into(), &"prefer-standby".into(), &1.into(), &1.into())
    );
    assert_eq!(listener["bind"], balancer.ro().to_string());

    let nodes = status["nodes"].as_array().unwrap();
    for node in nodes {
        has(
            node,
            &["name", "cluster", "addr", "ip", "health", "state", "role", "role_from", "weight", "backup"],
        );
        has(node, &["lag_seconds", "lag_bytes", "server_version", "sessions", "limit", "since", "check"]);
        let check = &node["check"];
        has(check, &["ok", "at", "step", "error", "sqlstate", "duration_seconds", "against", "needed"]);
        assert_eq!((&check["ok"], &check["error"]), (&true.into(), &serde_json::Value::Null), "{node}");
        // 2026-11-21T08:01:44.123Z
        let since = node["since"].as_str().unwrap();
        assert!(since.len() == 24 && since.ends_with('Z'), "{since}");
    }
    assert_eq!(nodes.iter().map(|node| node["sessions"].as_u64().unwrap()).sum::<u64>(), 1);
    assert_eq!((&nodes[0]["role"], &nodes[0]["lag_seconds"]), (&"primary".into(), &serde_json::Value::Null));
    assert!(nodes[1]["lag_seconds"].is_number() && nodes[1]["lag_bytes"].is_u64(), "{}", nodes[1]);
}

#[tokio::test]
async fn slow_readers_stop_neither_health_for_long_nor_any_session() {
    let balancer = Balancer::start(&shared().await.config()).await;
    balancer.wait_ready().await;
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(balancer.admin()).await.unwrap();
        stream.write_all(b"GET /metrics HTT").await.unwrap();
        slow.push(stream);
    }
    for _ in 0..20 {
        let client = connect(balancer.rw()).await.unwrap();
        value(&client, "select 1").await.unwrap();
    }
    // After five seconds the slow ones are sent away.
    wait_until("health to be told", async || balancer.get("/healthz").await.map(drop)).await;
    connect(balancer.ro()).await.unwrap();
}
