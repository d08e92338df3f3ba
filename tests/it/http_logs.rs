//! What is written of requests, in the log and in figures, and what never is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use serde_json::Value;

use crate::support::balancer::Balancer;
use crate::support::raw::{Raw, exchange};
use crate::support::upstream::{Mode, Upstream};
use crate::support::wait::wait_until;
use crate::support::web::{front, get, get_with, send};

const SECRETS: [&str; 4] = ["bearer-s3cret", "cookie-s3cret", "query-s3cret", "answer-s3cret"];

async fn one(more: &str, log: &str) -> (Upstream, Balancer) {
    let upstream = Upstream::start(|seen| async move {
        let mut answer = crate::support::upstream::answer_with(&[("set-cookie", "a=answer-s3cret")], "hello");
        if let Ok(status) = seen.target[1..].parse() {
            *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
        }
        answer
    })
    .await;
    let config = front(&[upstream.addr()], more).replace("requests: all", &format!("requests: {log}"));
    let balancer = Balancer::start_front(&config).await;
    (upstream, balancer)
}

async fn lines(balancer: &Balancer, n: usize) -> Vec<Value> {
    wait_until(&format!("{n} lines"), async || {
        let lines = balancer.requests();
        if lines.len() >= n { Ok(lines) } else { Err(lines) }
    })
    .await
}

#[tokio::test]
async fn each_request_has_its_line() {
    let (upstream, balancer) = one("", "all").await;
    get_with(balancer.front(), "/users/7?token=query-s3cret", &[("user-agent", "it/1")]).await;
    send(balancer.front(), "HEAD", "/404", &[], "").await;
    send(balancer.front(), "POST", "/x", &[], "").await;
    let lines = lines(&balancer, 3).await;
    let line = &lines[0];
    assert_eq!(line["upstream"], upstream.addr().to_string(), "{line}");
    assert_eq!((&line["method"], &line["path"]), (&"GET".into(), &"/users/7".into()), "{line}");
    assert_eq!((&line["status"], &line["front"]), (&200.into(), &"http".into()), "{line}");
    assert_eq!((&line["received_bytes"], &line["sent_bytes"]), (&0.into(), &5.into()), "of bodies: {line}");
    let text = line.to_string();
    for part in ["127.0.0.1", "group"] {
        assert!(text.contains(part), "{part}: {line}");
    }
    assert_eq!((&lines[1]["method"], &lines[1]["status"]), (&"HEAD".into(), &404.into()), "{}", lines[1]);
    assert_eq!((&lines[2]["method"], &lines[2]["status"]), (&"POST".into(), &405.into()), "{}", lines[2]);
    assert_eq!(balancer.requests().len(), 3);
}

#[tokio::test]
async fn secrets_are_never_written() {
    let (upstream, balancer) =
        one("response_timeout: 200ms\nqueue_timeout: 200ms\nretries: 0\n", "all").await;
    let secret = [
        ("authorization", "Bearer bearer-s3cret"),
        ("cookie", "session=cookie-s3cret"),
        ("proxy-authorization", "Basic bearer-s3cret"),
        ("referer", "http://a.test/?token=query-s3cret"),
    ];
    for mode in [Mode::Serve, Mode::Status(503), Mode::Reset, Mode::Hang, Mode::Refuse] {
        upstream.set(mode).await;
        get_with(balancer.front(), "/x?token=query-s3cret&b=query-s3cret", &secret).await;
    }
    let bad = "GET /x?token=query-s3cret HTTP/1.1\r\nHost: a b\r\nCookie: cookie-s3cret\r\n\r\n";
    exchange(balancer.front(), bad).await;
    lines(&balancer, 5).await;
    let all =
        balancer.err() + &balancer.out() + &balancer.metrics().await + &balancer.status().await.to_string();
    for secret in SECRETS {
        assert!(!all.contains(secret), "{secret} is in {all}");
    }
}

#[tokio::test]
async fn nobody_writes_lines_but_us() {
    let (_upstream, balancer) = one("", "all").await;
    let forged = "/x%0A{\"event\":\"request\",\"forged\":true}%1b[31m%0d%00\u{202e}";
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    let agents =
        ["\x1b[31mred", "a\u{9b}31m", "\"},\n{\"event\":\"request\"", "\u{202e}backwards", "\u{2028}"];
    for agent in agents {
        let agent = agent.replace('\n', " ");
        let _ = raw
            .send(format!(
                "GET {} HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n",
                forged.replace('"', "%22")
            ))
            .await;
        if raw.reply().await.is_err() {
            raw = Raw::connect(balancer.front()).await.unwrap();
        }
    }
    get(balancer.front(), "/last").await;
    balancer.wait_log("request", |line| line["path"] == "/last").await;
    let all = balancer.err();
    let odd = |c: char| {
        (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}')
    };
    assert!(!all.contains(odd), "{all:?}");
    for line in all.lines().filter(|line| line.contains("\"request\"")) {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line.get("forged").is_none(), "{line}");
    }
}

#[tokio::test]
async fn errors_alone_are_written_when_that_is_asked_for() {
    let (upstream, balancer) = one("retries: 0\n", "errors").await;
    for path in ["/200", "/301", "/404", "/499"] {
        get(balancer.front(), path).await;
    }
    get(balancer.front(), "/500").await;
    upstream.set(Mode::Reset).await;
    get(balancer.front(), "/reset").await;
    let lines = lines(&balancer, 2).await;
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [500, 502], "{lines:?}");
}

#[tokio::test]
async fn one_of_so_many_is_written() {
    let (_upstream, balancer) = one("retries: 0\n", "1/10").await;
    let web = crate::support::web::Web::connect(balancer.front()).await.unwrap();
    for _ in 0..400 {
        web.get("/200").await.unwrap();
    }
    web.get("/500").await.unwrap();
    balancer.wait_log("request", |line| line["status"] == 500).await;
    let n = balancer.requests().iter().filter(|line| line["status"] == 200).count();
    // Chance may choose: fewer than 10 or more than 90 of 400 happen once in more than a million times.
    assert!((10..=90).contains(&n), "{n} lines of 400 requests");
}

#[tokio::test]
async fn nothing_is_written_when_that_is_off() {
    let (_upstream, balancer) = one("retries: 0\n", "off").await;
    for path in ["/200", "/404", "/500"] {
        get(balancer.front(), path).await;
    }
    let series = "pgsplit_http_requests_total{front=\"http\"}";
    wait_until("the requests to be counted", async || balancer.metric(series).await > 2.5).await;
    assert_eq!(balancer.requests(), Vec::<Value>::new());
}

#[tokio::test]
async fn requests_are_counted_and_timed() {
    let (upstream, balancer) = one("retries: 0\n", "off").await;
    let addr = upstream.addr();
    let requests = |method: &str, code: &str| {
        format!(
            "pgsplit_http_requests_total{{front=\"http\",group=\"default\",upstream=\"{addr}\",method=\"{method}\",\
             code=\"{code}\"}}"
        )
    };
    for path in ["/200", "/204", "/301", "/404", "/500"] {
        get(balancer.front(), path).await;
    }
    send(balancer.front(), "HEAD", "/200", &[], "").await;
    send(balancer.front(), "BREW", "/200", &[], "").await;
    for (series, n) in [
        (requests("GET", "2xx"), 2.0),
        (requests("GET", "3xx"), 1.0),
        (requests("GET", "4xx"), 1.0),
        (requests("GET", "5xx"), 1.0),
        (requests("HEAD", "2xx"), 1.0),
        (format!("pgsplit_http_upstream_up{{upstream=\"{addr}\"}}"), 1.0),
    ] {
        wait_until(&format!("{series} to be {n}"), async || {
            let value = balancer.metric(&series).await;
            if (value - n).abs() < 0.5 { Ok(()) } else { Err(value) }
        })
        .await;
    }
    let metrics = balancer.metrics().await;
    assert!(metrics.contains("pgsplit_http_request_duration_seconds_bucket{"), "{metrics}");
    // Whatever clients call their methods, it makes no series.
    assert!(!metrics.contains("BREW"), "{metrics}");
}
