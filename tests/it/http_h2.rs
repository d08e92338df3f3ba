//! HTTP/2 from clients, without TLS.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{HeaderMap, Request};
use tokio::task::JoinSet;

use crate::support::balancer::Balancer;
use crate::support::raw::{Raw, exchange};
use crate::support::upstream::{Answer, Mode, Upstream, answer, answer_with, chunked, full, written};
use crate::support::wait::wait_until;
use crate::support::web::{Web, front, front_of, get, request};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// GET / of a host, packed without any table.
fn get_head() -> Vec<u8> {
    [&[0x82, 0x86, 0x84, 0x01, 1][..], b"a"].concat()
}

async fn echo(more: &str) -> (Upstream, Balancer) {
    let upstream =
        Upstream::start(|seen| async move { answer_with(&[("x-target", seen.target.as_str())], seen.body) })
            .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], more)).await;
    (upstream, balancer)
}

#[tokio::test]
async fn who_knows_may_speak_http2_at_once() {
    let (upstream, balancer) = echo("").await;
    let web = Web::connect_h2(balancer.front()).await.unwrap();
    let got = web.get("/x?y").await.unwrap();
    assert_eq!((got.status, got.header("x-target").as_str()), (200, "/x?y"));
    let seen = upstream.only();
    assert_eq!((seen.target.as_str(), seen.header("host").as_str()), ("/x?y", "front.test"));
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen.header("x-forwarded-host"), "front.test");
    // On the same port.
    assert_eq!(get(balancer.front(), "/").await.status, 200);
}

/// A client that others wrote. `make test` installs it.
#[tokio::test]
async fn curl_is_served_in_every_version() {
    let (upstream, balancer) = echo("").await;
    let url = format!("http://{}/x", balancer.front());
    for version in ["--http1.0", "--http1.1", "--http2", "--http2-prior-knowledge"] {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "-q", "--noproxy", "*", "--max-time", "20", version, "-w", "%{http_code}"])
            .arg(&url);
        let output = crate::tools::output(curl).await;
        let (said, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said == "200", "{version}: {said} {error}");
    }
    assert_eq!(upstream.heads(), 4);
}

#[tokio::test]
async fn not_when_that_is_off() {
    let (upstream, balancer) = echo("http2: false\n").await;
    let answer = exchange(balancer.front(), PREFACE).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{}", answer.escape_ascii());
    assert_eq!(upstream.heads(), 0);
    assert_eq!(get(balancer.front(), "/").await.status, 200);
}

#[tokio::test]
async fn many_ask_at_once_on_one_connection() {
    let (upstream, balancer) = echo("").await;
    let web = Web::connect_h2(balancer.front()).await.unwrap();
    let mut requests = JoinSet::new();
    for i in 0..500 {
        let web = web.clone();
        requests.spawn(async move { (i, web.get(&format!("/{i}")).await.unwrap()) });
    }
    for (i, got) in requests.join_all().await {
        assert_eq!((got.status, got.header("x-target")), (200, format!("/{i}")));
    }
    assert_eq!(upstream.heads(), 500);
}

#[tokio::test]
async fn a_slow_answer_holds_up_no_other() {
    let upstream = Upstream::start(|seen| async move {
        if seen.target == "/slow" {
            std::future::pending::<()>().await;
        }
        answer(200, "quick")
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let web = Web::connect_h2(balancer.front()).await.unwrap();
    let slow = web.clone();
    let slow = crate::support::client::background().spawn(async move { slow.get("/slow").await });
    wait_until("the slow one to be asked", async || upstream.heads() == 1).await;
    for _ in 0..20 {
        assert_eq!(web.get("/quick").await.unwrap().text(), "quick");
    }
    slow.abort();
}

#[tokio::test]
async fn bodies_and_trailers_pass() {
    let upstream = Upstream::start(|seen| async move {
        let (pen, body) = written();
        pen.write(seen.body);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        pen.trailers(trailers);
        let mut answer = Answer::new(body);
        answer.headers_mut().insert("trailer", "x-sum".parse().unwrap());
        answer
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "methods: any\n")).await;
    let web = Web::connect_h2(balancer.front()).await.unwrap();
    let body: Bytes = (0..700_000_u32).map(|i| u8::try_from(i * 3 % 251).unwrap()).collect();

    let mut sum = HeaderMap::new();
    sum.insert("x-request-sum", "2".parse().unwrap());
    let (pen, with_trailers) = written();
    pen.write(body.clone());
    pen.trailers(sum);
    let in_pieces = chunked((0..7).map(|i| body.slice(i * 100_000..(i + 1) * 100_000)));
    for (i, sent) in [full(body.clone()), in_pieces, with_trailers].into_iter().enumerate() {
        let request = Request::post("http://front.test/up").header("te", "trailers").body(sent).unwrap();
        let got = web.send(request).await.unwrap();
        assert_eq!((got.status, got.body == body), (200, true));
        assert_eq!(got.trailers.unwrap()["x-sum"], "1");
        assert!(upstream.seen()[i].body == body);
    }
}

#[tokio::test]
async fn events_arrive_while_the_answer_is_open() {
    let (pen, body) = written();
    let body = std::sync::Mutex::new(Some(body));
    let upstream = Upstream::start(move |_| {
        let body = body.lock().unwrap().take().unwrap();
        async { Answer::new(body) }
    })
    .await;
    let balancer = Balancer::start_front(&front(&[upstream.addr()], "")).await;
    let web = Web::connect_h2(balancer.front()).await.unwrap();
    let request = Request::get("http://front.test/events").body(full("")).unwrap();
    let mut answer = web.begin(request).await.unwrap();
    for i in 0..5 {
        let event = format!("data: {i}\n\n");
        pen.write(event.clone());
        let frame = wait_until("the event", async || answer.body_mut().frame().await).await;
        assert_eq!(frame.unwrap().into_data().unwrap(), event);
    }
    // A stream that is reset takes its upstream's answer with it; the connection goes on.
    drop(answer);
    wait_until("the upstream to be left", async || {
        pen.write(": still there?\n\n");
        pen.is_unread()
    })
    .await;
}

#[tokio::test]
async fn what_http1_would_read_otherwise_goes_no_further() {
    let (upstream, balancer) = echo("methods: any\n").await;
    let head = |more: &[(&[u8], &[u8])]| {
        let mut head = get_head();
        for (name, value) in more {
            let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
            head.extend([&[0, length(name)], *name, &[length(value)], *value].concat());
        }
        head
    };
    let bad: [(&str, Vec<u8>); 12] = [
        ("a line end in a value", head(&[(b"x", b"a\r\nX-Evil: 1")])),
        ("a line feed in a value", head(&[(b"x", b"a\nX-Evil: 1")])),
        ("a NUL in a value", head(&[(b"x", b"a\0b")])),
        ("a line end in a name", head(&[(b"x: a\r\nx-evil", b"1")])),
        ("a colon in a name", head(&[(b"x:evil", b"1")])),
        ("a name in upper case", head(&[(b"X-Evil", b"1")])),
        ("chunks", head(&[(b"transfer-encoding", b"chunked")])),
        ("a connection header", head(&[(b"connection", b"x-evil")])),
        ("an upgrade", head(&[(b"upgrade", b"evil")])),
        ("another host", head(&[(b"host", b"evil.test")])),
        ("a path with a line end", [&[0x82, 0x86, 0x01, 1, b'a', 0x04, 9][..], b"/ evil\r\nX"].concat()),
        ("a length that is not its body's", head(&[(b"content-length", b"5")])),
    ];
    let mut wrong = Vec::new();
    for (name, head) in bad {
        let mut raw = Raw::connect(balancer.front()).await.unwrap();
        let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 5, 1, &head)].concat();
        raw.send(bytes).await.unwrap();
        // The answer to a ping comes after whatever the request led to at once; a good request follows.
        let _ = raw.send(frame(HEADERS, 5, 3, &get_head())).await;
        let _ = raw.send(frame(GOAWAY, 0, 0, &[0; 8])).await;
        raw.closed().await;
        for seen in upstream.seen() {
            if format!("{:?} {}", seen.headers, seen.target).contains("evil") {
                wrong.push(format!("{name}: {seen:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(get(balancer.front(), "/").await.status, 200);
}

#[tokio::test]
async fn who_only_begins_requests_is_sent_away() {
    let (_upstream, balancer) = echo("").await;
    let other = Web::connect_h2(balancer.front()).await.unwrap();
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for i in 0..2000 {
        bytes.extend(frame(HEADERS, 5, i * 2 + 1, &get_head()));
        bytes.extend(frame(RST_STREAM, 0, i * 2 + 1, &8_u32.to_be_bytes()));
    }
    let _ = raw.send(bytes).await;
    let said = raw.rest().await.expect("the connection ends");
    let kinds = frames(&said);
    assert!(kinds.is_empty() || kinds.contains(&GOAWAY), "{kinds:?}");
    assert_eq!(other.get("/").await.unwrap().status, 200);
    assert_eq!(get(balancer.front(), "/").await.status, 200);
}

/// The kinds of the frames in what came.
fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        kinds.push(bytes[3]);
        bytes = bytes.get(9 + length..).unwrap_or_default();
    }
    kinds
}

#[tokio::test]
async fn a_client_without_windows_takes_no_upstreams_place_for_ever() {
    let upstream = Upstream::start(|_| async { answer(200, vec![b'x'; 1_000_000]) }).await;
    let balancer =
        Balancer::start_front(&front(&[upstream.addr()], "body_timeout: 500ms\nmax_in_flight: 5\n")).await;
    let mut raw = Raw::connect(balancer.front()).await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
    for i in 0..5 {
        bytes.extend(frame(HEADERS, 5, i * 2 + 1, &get_head()));
    }
    raw.send(bytes).await.unwrap();
    wait_until("the five to be asked", async || upstream.heads() == 5).await;
    wait_until("another one to be served", async || {
        let got = get(balancer.front(), "/").await;
        if got.status == 200 { Ok(()) } else { Err(got) }
    })
    .await;
}

#[tokio::test]
async fn retries_and_errors_are_the_same() {
    let (bad, good) = (Upstream::named("bad").await, Upstream::named("good").await);
    bad.set(Mode::Status(503)).await;
    let rest = "balance: first\npassive: false\nqueue_timeout: 200ms\nretries: {max: 1, budget: 100%}\n";
    let balancer = Balancer::start_front(&front(&[bad.addr(), good.addr()], rest)).await;
    let web = Web::connect_h2(balancer.front()).await.unwrap();
    assert_eq!(web.get("/").await.unwrap().text(), "good");
    let post = Request::post("http://front.test/").body(full("x")).unwrap();
    let got = web.send(post).await.unwrap();
    assert_eq!((got.status, got.header("allow").as_str()), (405, "GET, HEAD, OPTIONS"));
    good.set(Mode::Refuse).await;
    bad.set(Mode::Refuse).await;
    let got = web.get("/").await.unwrap();
    assert!([502, 503].contains(&got.status) && !got.header("x-pgsplit-reason").is_empty(), "{got:?}");
}

#[tokio::test]
async fn an_answer_of_our_own_to_head_has_no_body() {
    let upstream = Upstream::named("a").await;
    let more = "monitor_uri: /healthz\ngroups: {a: [\"ADDR\"]}\nroutes: [{host: elsewhere.test, group: a}]\n";
    let lines = more.replace("ADDR", &upstream.addr().to_string());
    let balancer = Balancer::start_front(&front_of(&lines)).await;
    for web in
        [Web::connect_h2(balancer.front()).await.unwrap(), Web::connect(balancer.front()).await.unwrap()]
    {
        for (path, statuses) in [("/healthz", [200, 503]), ("/", [404, 404])] {
            let got = web.send(request("HEAD", path, &[], full(""))).await.unwrap();
            assert!(statuses.contains(&got.status) && got.body.is_empty(), "{path}: {got:?}");
            assert_ne!(got.header("content-length"), "0", "{path}");
        }
    }
}
