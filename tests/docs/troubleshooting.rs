//! The page about errors has an entry for each text there is, and none for what there is not.
//!
//! The texts come from the types that hold them: a variant that is not listed here does not compile, and one whose text has no
//! entry on the page fails. Names of log lines, which no type has, are read from the sources. Faults of configurations
//! are those that the golden files of `tests/config/` bring about.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
use std::net::SocketAddr;
use std::time::Duration;

use pgsplit::admin::refusal::Refusal as Refused;
use pgsplit::admin::upgrade::NotNow;
use pgsplit::app::StartError;
use pgsplit::base::id::SessionId;
use pgsplit::config::{Config, ConfigError};
use pgsplit::front::refusal::Refusal as HttpRefusal;
use pgsplit::net::dial::io_text;
use pgsplit::net::inherited::Unfit;
use pgsplit::pg::first_packet::Refused as BadPacket;
use pgsplit::pg::message::NotAMessage;
use pgsplit::session::error::{Lack, SessionError};
use pgsplit::session::evict::Eviction;
use pgsplit::telemetry::labels::HttpRejection;
use pgsplit::topology::order::{OrderError, Over};
use pgsplit::topology::scram::AuthError;

use super::page::{Page, code};
use super::{files, read};

const PAGE: &str = "docs/troubleshooting.md";

/// One of each variant. A variant without a line does not compile; a line of another variant fails.
macro_rules! each {
    ($($variant:pat => $sample:expr),+ $(,)?) => {{
        let all = vec![$($sample),+];
        for sample in &all {
            match sample { $($variant => {})+ }
        }
        let mut samples = all.iter();
        $(assert!(matches!(samples.next(), Some($variant)), "not a {}", stringify!($variant));)+
        all
    }};
}

/// What is written for anything.
const GAP: char = '…';

/// The texts that the entries of a section are about: the code in the first column of its tables.
#[track_caller]
fn entries(section: &str) -> Vec<String> {
    let rows = Page::new(&read(PAGE)).section(section).rows();
    let entries: Vec<_> = rows.iter().flat_map(|row| code(&row[0])).collect();
    assert!(!entries.is_empty(), "{PAGE} has no entries under {section}");
    entries
}

/// Whether a text is one of those that an entry stands for: where that has `…` may be anything.
fn fits(entry: &str, text: &str) -> bool {
    let mut parts = entry.split(GAP);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Each text has an entry, and each entry a text.
#[track_caller]
fn are_all_there(section: &str, texts: &[String]) {
    let entries = entries(section);
    let missing: Vec<_> =
        texts.iter().filter(|text| !entries.iter().any(|entry| fits(entry, text))).collect();
    assert!(missing.is_empty(), "{PAGE}, {section}: no entry for\n{missing:#?}");
    let idle: Vec<_> = entries.iter().filter(|entry| !texts.iter().any(|text| fits(entry, text))).collect();
    assert!(idle.is_empty(), "{PAGE}, {section}: nothing says this any more:\n{idle:#?}");
}

/// An error with what has brought it about.
fn in_full(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", in_full(cause)));
    error.to_string() + &cause.unwrap_or_default()
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn addr() -> SocketAddr {
    "127.0.0.1:6432".parse().unwrap()
}

fn bad_packets() -> Vec<BadPacket> {
    each! {
        BadPacket::Length => BadPacket::Length,
        BadPacket::Http => BadPacket::Http,
        BadPacket::Layout => BadPacket::Layout,
        BadPacket::NoUser => BadPacket::NoUser,
        BadPacket::Protocol { .. } => BadPacket::Protocol { major: 2, minor: 0 },
        BadPacket::CancelLength => BadPacket::CancelLength,
        BadPacket::Smuggled => BadPacket::Smuggled,
    }
}

fn lacks() -> Vec<Lack> {
    let (listener, nodes) = (text("rw"), text("db1 down 12s (connection refused); db2 standby"));
    each! {
        Lack::Paused(_) => Lack::Paused(listener.clone()),
        Lack::Node { .. } => Lack::Node { wanted: "primary", listener: listener.clone(), nodes: nodes.clone() },
        Lack::Place { .. } => Lack::Place { listener: listener.clone(), nodes: nodes.clone() },
        Lack::PlaceInTime { .. } => Lack::PlaceInTime { seconds: 10, listener: listener.clone(), nodes: nodes.clone() },
    }
}

fn session_errors() -> Vec<SessionError> {
    let lack = || lacks().remove(0);
    let mut all = each! {
        SessionError::Left => SessionError::Left,
        SessionError::Client(_) => SessionError::Client(io::ErrorKind::ConnectionReset.into()),
        SessionError::Refused(_) => SessionError::Refused(BadPacket::Http),
        SessionError::StartupTimeout(_) => SessionError::StartupTimeout(Duration::from_secs(10)),
        SessionError::Limit { .. } => SessionError::Limit { listener: text("rw"), limit: 1000 },
        SessionError::Descriptors { .. } => SessionError::Descriptors { limit: 1024 },
        SessionError::NoNode { .. } => SessionError::NoNode { lack: lack(), hint: String::new() },
        SessionError::NoDirectTls => SessionError::NoDirectTls,
        SessionError::TlsOff => SessionError::TlsOff,
        SessionError::QueueTimeout(_) => SessionError::QueueTimeout(lack()),
        SessionError::QueueFull { .. } => SessionError::QueueFull { waiting: 1000, lack: lack() },
        SessionError::LeftQueue => SessionError::LeftQueue,
        SessionError::OtherRules => SessionError::OtherRules,
        SessionError::Drained => SessionError::Drained,
        SessionError::Killed => SessionError::Killed,
        SessionError::Evicted(_) => SessionError::Evicted(Eviction::NodeDown),
    };
    all.extend(lacks().into_iter().map(|lack| match lack {
        // That there is no place is said to who may not even wait for one.
        Lack::Place { .. } => SessionError::QueueFull { waiting: 1000, lack },
        lack => SessionError::QueueTimeout(lack),
    }));
    all.extend(bad_packets().into_iter().map(SessionError::Refused));
    all
}

#[test]
fn what_clients_are_told_and_why_they_are_refused() {
    let evictions = each! {
        Eviction::NodeDown => Eviction::NodeDown,
        Eviction::Demoted => Eviction::Demoted,
        Eviction::Lagging => Eviction::Lagging,
        Eviction::Leaving => Eviction::Leaving,
        Eviction::Draining => Eviction::Draining,
        Eviction::Stopping => Eviction::Stopping,
        Eviction::Killed => Eviction::Killed,
    };
    let mut told: Vec<_> = evictions.iter().map(|eviction| eviction.fatal("db1").message).collect();
    told.extend(session_errors().iter().filter_map(SessionError::fatal).map(|fatal| fatal.message));
    told.extend(bad_packets().iter().filter(|bad| bad.answer().is_some()).map(ToString::to_string));
    are_all_there("What PostgreSQL clients are told", &told);

    // Who has left of itself has no line with a reason.
    let refused = session_errors();
    let refused = refused.iter().filter(|error| error.rejection().is_some() && error.fatal().is_none());
    let refused: Vec<_> = refused.map(|error| in_full(error)).collect();
    are_all_there("Why a session was refused without a word", &refused);
}

#[test]
fn what_http_clients_are_told() {
    let refusals = each! {
        HttpRefusal::BadRequest(_) => HttpRefusal::BadRequest("two Host headers"),
        HttpRefusal::BodyTooLarge(_) => HttpRefusal::BodyTooLarge(1 << 20),
        HttpRefusal::SlowBody => HttpRefusal::SlowBody,
        HttpRefusal::Method { .. } => HttpRefusal::Method { method: text("PUT"), allowed: text("GET, HEAD") },
        HttpRefusal::NoRoute => HttpRefusal::NoRoute,
        HttpRefusal::QueueFull => HttpRefusal::QueueFull,
        HttpRefusal::QueueTimeout => HttpRefusal::QueueTimeout,
        HttpRefusal::NoUpstream(_) => HttpRefusal::NoUpstream(text("users")),
        HttpRefusal::Database(_) => HttpRefusal::Database(text("ro")),
        HttpRefusal::Connect => HttpRefusal::Connect,
        HttpRefusal::Reset => HttpRefusal::Reset,
        HttpRefusal::Timeout => HttpRefusal::Timeout,
        HttpRefusal::NotCached => HttpRefusal::NotCached,
    };
    let section = "What HTTP clients are told";
    are_all_there(section, &refusals.iter().map(ToString::to_string).collect::<Vec<_>>());
    // The second column has the reason. Some have no text: the answer is empty, or there is none.
    let rows = Page::new(&read(PAGE)).section(section).rows();
    let reasons: BTreeSet<_> = rows.iter().flat_map(|row| code(&row[1])).collect();
    let known: BTreeSet<_> = HttpRejection::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    assert_eq!(reasons, known);
}

#[test]
fn why_it_does_not_start() {
    let source = || io::ErrorKind::PermissionDenied.into();
    let unfit = each! {
        Unfit::Kind { .. } => Unfit::Kind { number: 3, name: text("rw") },
        Unfit::Unknown { .. } => Unfit::Unknown { name: text("web"), addr: addr(), places: text("none") },
        Unfit::System { .. } => Unfit::System { name: text("rw"), source: source() },
    };
    let starts = each! {
        StartError::Bind { .. } => StartError::Bind { addr: addr(), what: text("admin"), source: source() },
        StartError::Unfit(_) => StartError::Unfit(Unfit::System { name: text("rw"), source: source() }),
        StartError::Socket { .. } => StartError::Socket { path: "/run/a.sock".into(), source: source() },
        StartError::Worker(_) => StartError::Worker(source()),
    };
    let mut texts: Vec<_> = starts.iter().map(ToString::to_string).collect();
    texts.extend(unfit.iter().map(ToString::to_string));
    are_all_there("When pgsplit does not start", &texts);
}

#[test]
fn what_checks_find() {
    let auth = each! {
        AuthError::NoPassword => AuthError::NoPassword,
        AuthError::Method => AuthError::Method,
        AuthError::Scram => AuthError::Scram,
        AuthError::Iterations(_) => AuthError::Iterations(1_000_000),
    };
    let mut texts: Vec<_> = auth.iter().map(ToString::to_string).collect();
    let kinds = [ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable];
    texts.extend(kinds.iter().map(|kind| io_text(&(*kind).into())));
    texts.push(NotAMessage.to_string());
    let entries = entries("What a check finds");
    for text in texts {
        assert!(entries.iter().any(|entry| fits(entry, &text)), "{PAGE} has no entry for: {text}");
    }
}

#[test]
fn what_the_api_refuses() {
    let all = each! {
        Refused::Host => Refused::Host,
        Refused::Origin => Refused::Origin,
        Refused::NoToken => Refused::NoToken,
        Refused::TokenMissing => Refused::TokenMissing,
        Refused::TokenWrong => Refused::TokenWrong,
        Refused::Off => Refused::Off,
        Refused::NoPage { .. } => Refused::NoPage { is_api: true },
        Refused::Method { .. } => Refused::Method { allow: text("GET, HEAD") },
        Refused::Parameter { .. } => Refused::Parameter { known: text("it takes none") },
        Refused::Twice { .. } => Refused::Twice { name: text("user") },
        Refused::Value { .. } => Refused::Value { name: text("limit"), what: text("a whole number") },
        Refused::SessionId => Refused::SessionId,
        Refused::NoSession(_) => Refused::NoSession(SessionId::parse("s-1").unwrap()),
        Refused::AllSessions { .. } => Refused::AllSessions { filters: text("user") },
        Refused::BodyTooLarge { .. } => Refused::BodyTooLarge { most: 4096 },
        Refused::NoObject => Refused::NoObject,
        Refused::Key(_) => Refused::Key(text("state")),
        Refused::AdminState => Refused::AdminState,
        Refused::Weight => Refused::Weight,
        Refused::NoChange => Refused::NoChange,
        Refused::Order(_) => Refused::Order(OrderError::Weight),
        Refused::NoListener { .. } => Refused::NoListener { there_are: text("there are none") },
        Refused::Front { .. } => Refused::Front { there_are: text("there are none") },
        Refused::Followers(_) => Refused::Followers(32),
        Refused::Stopping => Refused::Stopping,
        Refused::NoFile(_) => Refused::NoFile(text("--node")),
        Refused::Faults(_) => Refused::Faults(vec![text("a"), text("b")]),
        Refused::Upgrade(_) => Refused::Upgrade(NotNow::UnderWay),
        // Its text is that of whatever has gone wrong in the new process.
        Refused::Replaced => Refused::Replaced,
        Refused::UpgradeFailed(_) => Refused::UpgradeFailed(String::new()),
    };
    let not_now = each! {
        NotNow::UnderWay => NotNow::UnderWay,
        NotNow::Stopping => NotNow::Stopping,
    };
    let orders = each! {
        OrderError::Unknown { .. } => OrderError::Unknown { known: vec![text("db1")] },
        OrderError::Weight => OrderError::Weight,
        OrderError::Over(_) => OrderError::Over(Over),
    };
    let all = all.into_iter().filter(|refusal| !matches!(refusal, Refused::UpgradeFailed(_)));
    let all: Vec<_> = all
        .chain(orders.into_iter().map(Refused::Order))
        .chain(not_now.into_iter().map(Refused::Upgrade))
        .collect();
    let texts: Vec<_> = all.iter().map(ToString::to_string).collect();
    let section = "What the API refuses";
    are_all_there(section, &texts);
    // The second column has the status.
    let rows = Page::new(&read(PAGE)).section(section).rows();
    for refusal in all {
        let (text, status) = (refusal.to_string(), refusal.status().as_u16().to_string());
        let told =
            rows.iter().any(|row| row[1] == status && code(&row[0]).iter().any(|entry| fits(entry, &text)));
        assert!(told, "{PAGE}, {section}: no entry for {status} {text}");
    }
}

#[test]
fn faults_of_a_configuration() {
    let section = "Faults of a configuration";
    let entries = entries(section);
    let mut missing = BTreeSet::new();
    let mut found = 0;
    for path in files("tests/config", ".yaml") {
        let golden = read(&path);
        let input = golden.split("\n# expect\n").next().unwrap();
        let name = path.display().to_string();
        let told: Vec<String> = match Config::from_yaml(input, "config.yaml", &|_| None) {
            Ok(config) => config.warnings.iter().map(|line| message(line)).collect(),
            Err(ConfigError::Invalid(report)) => {
                report.faults.iter().chain(&report.warnings).map(|fault| fault.message.clone()).collect()
            }
            Err(error) => panic!("{name}: {error}"),
        };
        found += told.len();
        for text in told {
            if !entries.iter().any(|entry| fits(entry, &text)) {
                missing.insert(text);
            }
        }
    }
    assert!(100 < found, "{found}");
    assert!(missing.is_empty(), "{PAGE}, {section}: no entry for\n{missing:#?}");
}

/// What a warning says, without its place, its key and what to do.
fn message(line: &str) -> String {
    let text = line.split_once("  ").map_or(line, |(_, text)| text.trim());
    let text = text.split_once(": ").map_or(text, |(_, text)| text);
    text.split(" (").next().unwrap_or_default().to_owned()
}

#[test]
fn lines_of_the_log() {
    let mut logged: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for path in files("src", ".rs") {
        if path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs") {
            continue;
        }
        let source = read(&path);
        let source = source.split("\n#[cfg(test)]\n").next().unwrap();
        for level in ["error", "warn", "info"] {
            for event in events(source, level) {
                logged.entry(event).or_default().insert(level);
            }
        }
    }
    assert!(50 < logged.len(), "{logged:?}");
    // The log's own, by none of the macros.
    logged.entry("log_lines_lost".to_owned()).or_default().insert("warn");
    let mut told: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let page = Page::new(&read(PAGE));
    for row in page.section("Lines of the log").rows() {
        for event in code(&row[0]) {
            let levels = ["error", "warn", "info"].into_iter().filter(|level| row[1].contains(level));
            told.entry(event).or_default().extend(levels);
        }
    }
    assert_eq!(told, logged, "{PAGE} has other lines and levels than the sources");
}

/// The names of the events that a source logs at this level: the last text of each of its macros.
fn events(source: &str, level: &str) -> Vec<String> {
    let call = format!("{level}!(");
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(&call) {
        let is_word = rest[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        rest = &rest[at + call.len()..];
        if !is_word {
            found.extend(last_text(rest).filter(|name| is_event(name)));
        }
    }
    found
}

/// Not the words of `bytes!` or whatever else ends like a level.
fn is_event(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The last text between here and the bracket that closes what has been opened.
fn last_text(source: &str) -> Option<String> {
    let mut depth = 1;
    let mut last = None;
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            '"' => {
                let mut text = String::new();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    text.push(c);
                    if c == '\\' {
                        text.extend(chars.next());
                    }
                }
                last = Some(text);
            }
            _ => {}
        }
        if depth == 0 {
            return last;
        }
    }
    None
}

/// Who adds a type of errors decides here where its texts are explained, and adds it to the tests above.
#[test]
fn every_type_of_errors_is_known() {
    let known = BTreeSet::from([
        // What clients, people and programs are told.
        "AuthError",
        "BadPacket: Refused of pg",
        "Lack",
        "NotAMessage",
        "NotNow",
        "OrderError",
        "Over",
        "Refusal of admin",
        "Refusal of front",
        "SessionError",
        "StartError",
        "Unfit",
        // Faults of a configuration.
        "ConfigError",
        "FilterError",
        "UrlError",
        // Ends of a body, which a log line tells of in words of its own.
        "Broken",
        "Cut",
    ]);
    let mut found = BTreeSet::new();
    for path in files("src", ".rs") {
        let layer = path.iter().nth(1).unwrap().to_str().unwrap().to_owned();
        let source = read(&path);
        for derived in source.split("thiserror::Error)]").skip(1) {
            let name =
                derived.split_whitespace().skip_while(|word| !matches!(*word, "enum" | "struct")).nth(1);
            let name = name.unwrap().trim_end_matches([';', '{']).split('(').next().unwrap();
            found.insert(match name {
                "Refusal" => format!("Refusal of {layer}"),
                "Refused" => format!("BadPacket: Refused of {layer}"),
                name => name.to_owned(),
            });
        }
    }
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), known);
}

#[test]
fn an_entry_stands_for_what_is_like_it() {
    let fitting = [
        ("abc", "abc"),
        ("a…c", "abc"),
        ("a…", "abc"),
        ("…c", "abc"),
        ("no live … for listener \"…\": …", "no live primary for listener \"rw\": db1 down"),
    ];
    let other = [("abc", "abcd"), ("a…c", "abcd"), ("a…c…e", "ace d"), ("b…", "abc")];
    for (entry, text) in fitting {
        assert!(fits(entry, text), "{entry} {text}");
    }
    for (entry, text) in other {
        assert!(!fits(entry, text), "{entry} {text}");
    }
}

#[test]
fn events_are_found_in_a_source() {
    let source =
        "warn!(node = \"a)\", x = f(1), \"node_state\");\ninfo!(\n by,\n \"done\"\n);\nmy_warn!(\"no\");";
    assert_eq!(events(source, "warn"), ["node_state"]);
    assert_eq!(events(source, "info"), ["done"]);
}
