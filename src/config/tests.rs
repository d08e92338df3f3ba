//! Whole configurations. Each file in `tests/config/` holds an input and, below the line `# expect`, what must
//! come out, to the letter. `PGSPLIT_BLESS=1 cargo test config` writes what comes out into them; read the diff.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::explain::{self, Explained};
use super::http::Front;
use super::key::{About, Form, Keys, Takes, Without};
use super::report::Report;
use super::schema::schema;
use super::show::{Shown, show};
use super::{CheckKind, Config, ConfigError, Env, MaxLag, keys, keys_http, read_token};
use crate::base::secret::Secret;

/// A password that must be in nothing that is printed.
const CANARY: &str = "hunter2";

fn env(name: &str) -> Option<String> {
    let value = match name {
        "LB_PASSWORD" | "SECRET" => CANARY,
        "SECRET_NUMBER" => "4711",
        "WEIGHT" => "50",
        "INTERVAL" => "3s",
        "YES" => "yes",
        "DB" => "db7:6000",
        "NESTED" => "${WEIGHT}",
        "EMPTY" => "",
        _ => return None,
    };
    Some(value.to_owned())
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::from_yaml(text, "config.yaml", &env)
}

fn faults(text: &str) -> Report {
    match parse(text) {
        Err(ConfigError::Invalid(report)) => report,
        other => panic!("{text}: expected faults, got {other:?}"),
    }
}

/// A configuration in a few lines, for reading.
fn summary(config: &Config) -> String {
    let mut out = String::new();
    for l in &config.listeners {
        let cluster = &config.clusters[l.cluster].name;
        let (target, balance) = (l.target, l.balance.as_str());
        let _ = writeln!(
            out,
            "listener {} {} -> {cluster} {target} {balance} {} {:?}",
            l.name, l.bind, l.max_connections, l.tls
        );
    }
    for cluster in &config.clusters {
        for n in &cluster.nodes {
            let role = n.role.map_or("auto", crate::base::role::Role::as_str);
            let _ = writeln!(
                out,
                "{}: node {} {} {role} weight {} backup {} max {:?}",
                cluster.name, n.name, n.addr, n.weight, n.backup, n.max_connections
            );
            if cluster.check.kind == CheckKind::Patroni {
                let _ = writeln!(
                    out,
                    "{}: patroni of {} {}",
                    cluster.name,
                    n.name,
                    n.patroni.beside(&n.addr.host)
                );
            }
        }
        let c = &cluster.check;
        let _ = writeln!(
            out,
            "{}: check {}{} as {} password {:?} every {:?}/{:?}/{:?} lag {:?}",
            cluster.name,
            c.kind.as_str(),
            if c.logs_in && c.kind != CheckKind::Login { " with a login" } else { "" },
            c.user,
            c.password,
            c.interval,
            c.fast_interval,
            c.down_interval,
            c.max_lag
        );
    }
    for front in &config.fronts {
        summary_of_front(front, config, &mut out);
    }
    if config.dns.all_addresses {
        let _ = writeln!(out, "dns every {:?}, all addresses", config.dns.refresh);
    }
    if !config.fronts.is_empty() {
        let _ = writeln!(out, "dns every {:?}, log {:?}", config.dns.refresh, config.log.requests);
    }
    let admin = config.admin.as_ref();
    let _ = writeln!(out, "admin {:?}", admin.and_then(|admin| admin.bind));
    if let Some(socket) = admin.and_then(|admin| admin.socket.as_ref()).filter(|socket| !socket.is_default) {
        let _ = writeln!(out, "admin socket {}", socket.path.display());
    }
    if let Some(hosts) = admin.map(|admin| &admin.hosts).filter(|hosts| !hosts.is_empty()) {
        let _ = writeln!(out, "admin hosts {hosts:?}");
    }
    if let Some(token) = config.admin.as_ref().and_then(|admin| admin.token.as_ref()) {
        let _ = writeln!(out, "admin token {token:?}");
    }
    for warning in &config.warnings {
        let _ = writeln!(out, "warning {warning}");
    }
    out
}

fn summary_of_front(front: &Front, config: &Config, out: &mut String) {
    let (name, l, r) = (&front.name, &front.limits, &front.retries);
    let listener = front.listener.map(|index| config.listeners[index].name.as_str());
    let _ = writeln!(out, "front {name} {} http2 {} listener {listener:?}", front.bind, front.http2);
    for g in &front.groups {
        let (balance, connect, response) = (g.balance.as_str(), g.connect_timeout, g.response_timeout);
        let _ = writeln!(
            out,
            "{name}: group {} {balance} passive {} connect {connect:?} response {response:?}",
            g.name, g.passive
        );
        for u in &g.upstreams {
            let max = u.max_connections;
            let _ =
                writeln!(out, "  upstream {} weight {} backup {} max {max:?}", u.addr, u.weight, u.backup);
        }
        match &g.check {
            None => out.push_str("  check off\n"),
            Some(c) => {
                let (every, fast, most) = (c.interval, c.fast_interval, c.timeout);
                let _ = writeln!(
                    out,
                    "  check {} of {:?} every {every:?}/{fast:?} within {most:?} {}/{} expect {:?}",
                    c.path, c.host, c.rise, c.fall, c.expect
                );
            }
        }
    }
    for route in &front.routes {
        let (host, path) = (route.host.as_deref().unwrap_or("*"), route.path.as_deref().unwrap_or("/"));
        let _ = writeln!(out, "{name}: route {host} {path} -> {}", front.groups[route.group].name);
    }
    let _ = writeln!(out, "{name}: methods {:?}", front.methods);
    let _ = writeln!(
        out,
        "{name}: limits {} connections, {} in flight, {} in queue for {:?}, head {} in {:?}, body {:?} in {:?}, idle {:?}",
        l.max_connections,
        l.max_in_flight,
        l.queue_size,
        l.queue_timeout,
        l.max_header,
        l.header_timeout,
        l.max_body,
        l.body_timeout,
        l.idle_timeout
    );
    let _ = writeln!(out, "{name}: retries {} {:?} {:?} budget {:?}", r.max, r.methods, r.statuses, r.budget);
    let trusted: Vec<String> = front.trusted.iter().map(|net| format!("{}/{}", net.addr, net.bits)).collect();
    let _ = writeln!(out, "{name}: forwarded {:?} trusted {trusted:?} via {}", front.forwarded, front.via);
    let _ = writeln!(out, "{name}: {:?}", front.cache);
    let _ = writeln!(out, "{name}: monitor_uri {:?}", front.monitor_uri);
}

fn outcome(input: &str) -> String {
    match parse(input) {
        Ok(config) => summary(&config),
        Err(ConfigError::Invalid(report)) => format!("{}\n{}", report.lines(), report.blocks()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn golden_files() {
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join("tests/config")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 10);
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let (input, expected) = text.split_once("# expect\n").unwrap_or((&text, ""));
        let came = outcome(input);
        assert!(!came.contains(CANARY), "{}: {came}", path.display());
        let commented: String =
            came.lines().map(|line| format!("# {line}").trim_end().to_owned() + "\n").collect();
        if std::env::var_os("PGSPLIT_BLESS").is_some() {
            fs::write(&path, format!("{input}# expect\n{commented}")).unwrap();
        } else if commented != expected {
            wrong.push(format!("{}:\n{commented}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_secret_is_in_no_error_and_no_debug() {
    let failing = [
        "check: {user: lb, password: hunter2, intervall: 2s}",
        "check: {user: lb, intervall: 2s, password: hunter2}",
        "check: {user: lb, pasword: hunter2}",
        "check:\n  passwd: hunter2",
        "check:\n  password: [hunter2, 'x hunter2']",
        "check:\n  password: {hunter2: hunter2}",
        "check: {password: {a: hunter2}, x: y}",
        "check:\n  password:\n    - hunter2\n    - b",
        "check:\n  password: hunter2\n  password: hunter2",
        "check:\n  password: hunter2: x",
        "check:\n  password: \"hunter2",
        "check:\n  password: 'hunter2'x",
        "check:\n\tpassword: hunter2",
        "check:\n  password: |\n    hunter2\n   hunter2\n  x",
        "check:\n  password: |\n    hunter2\n    hunter2\n  rol: x",
        "check:\n  password: >-\n   hunter2\n hunter2: x",
        "check:\n  password: \"a\n   hunter2\n   b\"\n  rol: x",
        "check:\n  password: !!int hunter2",
        "check:\n  password: &p hunter2\n  rise: *p",
        "check:\n  ? password\n  : hunter2\n  rol: x",
        "check:\n  ? password\n  : hunter2: x",
        "check:\n  \"password\": hunter2\n  \"password\": hunter2",
        "check: {user: lb, password: hunter2, password: hunter2}",
        "token: hunter2",
        "admin: {token: hunter2}",
        "admin: {token: hunter2, bnd: x}",
        "admin: {token: [hunter2]}",
        "admin: {token: \"hunter2 hunter2\"}",
        "admin: {token: hunter2, token_file: x}",
        "admin: {api_key: hunter2}",
        "listeners: [{name: a, bind: b, tls: {key: hunter2}}]",
        "nodes: ['postgres://u:hunter2@db1/app']",
        "nodes: [{addr: 'postgres://u:hunter2@db1/app'}]",
        "nodes: [{addr: \"host=db1 password=hunter2\"}]",
        "nodes: postgres://u:hunter2@db1/app",
        "http: {upstreams: ['http://u:hunter2@users1']}",
        "http: {upstreams: [{addr: 'u:hunter2@users1:80'}]}",
        "http: {upstreams: 'https://u:hunter2@users1'}",
        "http: {groups: {a: 'http://u:hunter2@users1'}}",
        "http: {check: {host: 'u:hunter2@users1'}}",
        "http: {bind: \"${SECRET}\", methods: [\"${SECRET}\"], trusted: [\"${SECRET}\"], retries: \"${SECRET}\"}",
        "http: {routes: [{host: \"${SECRET}\", path: \"${SECRET}\"}], cache: \"${SECRET}\"}",
        "postgres://u:hunter2@db1/app: x",
        "check: {interval: \"${SECRET}\"}",
        "check: {rise: \"${SECRET_NUMBER}\"}\nnodes: [\"${SECRET}:${SECRET}\"]",
        "check: {type: \"${SECRET}\", max_lag: \"${SECRET}\", sslmode: \"${SECRET}\", passive: \"${SECRET}\"}",
        "check: {password: \"${MISSING:?no}hunter2\"}",
        "check: {password: \"hunter2${\"}",
        "check: {password: hunter2, password_file: x}",
        "password: hunter2\n\u{1}",
        "password: \"hunter2\\z\"",
        "password: %hunter2",
        "password: @hunter2",
        "password: `hunter2",
        "password: *hunter2",
        "check: {password: hunter2\n  x: y",
    ];
    for text in failing {
        let report = faults(text);
        assert!(!report.faults.is_empty(), "{text}");
        for shown in [report.lines(), report.blocks(), format!("{report:?}"), format!("{report}")] {
            assert!(!shown.contains(CANARY) && !shown.contains("4711"), "{text}\n{shown}");
        }
        for fault in &report.faults {
            assert!(fault.place.is_some_and(|(line, column)| line > 0 && column > 0), "{text}\n{fault:?}");
        }
    }
    let config = parse("nodes: [db1]\ncheck: {user: lb, password: hunter2}").unwrap();
    assert_eq!(config.clusters[0].check.password.as_ref().map(Secret::expose), Some(CANARY));
    assert!(!format!("{config:?}").contains(CANARY));
}

#[test]
fn a_password_is_taken_as_written() {
    for (written, expected) in [
        ("1234", "1234"),
        ("0123", "0123"),
        ("1e3", "1e3"),
        ("0x1F", "0x1F"),
        ("off", "off"),
        ("'a: #b'", "a: #b"),
        ("\"${LB_PASSWORD}\"", CANARY),
        ("'${NESTED}'", "${WEIGHT}"),
        ("a$$b$c", "a$b$c"),
        ("1_000", "1_000"),
        ("-.inf", "-.inf"),
    ] {
        let config = parse(&format!("nodes: [db1]\ncheck: {{user: lb, password: {written}}}"));
        let config = config.unwrap_or_else(|error| panic!("{written}: {error:?}"));
        assert_eq!(config.clusters[0].check.password.as_ref().map(Secret::expose), Some(expected));
    }
}

#[test]
fn numbers_and_times_may_come_from_the_environment() {
    let config = parse(
        "nodes: [{addr: \"${DB}\", role: primary, weight: \"${WEIGHT}\", backup: '${YES}'}]\n\
         check: {interval: \"${INTERVAL}\", rise: \"${MISSING:-5}\"}\nadmin: {bind: \"${EMPTY}\"}",
    )
    .unwrap();
    let node = &config.clusters[0].nodes[0];
    assert_eq!((node.addr.to_string().as_str(), node.weight, node.backup), ("db7:6000", 50, true));
    assert_eq!(config.clusters[0].check.interval, Duration::from_secs(3));
    assert_eq!(config.clusters[0].check.rise.get(), 5);
    assert_eq!(config.admin, None);
}

#[test]
fn environment_overrides() {
    let env = |name: &str| {
        let value = match name {
            "PGSPLIT_BIND" => "0.0.0.0",
            "PGSPLIT_LOG" => "debug",
            "PGSPLIT_LOG_FORMAT" => "json",
            "PGSPLIT_CHECK_USER" => "lb",
            "PGSPLIT_CHECK_PASSWORD" => CANARY,
            _ => return None,
        };
        Some(value.to_owned())
    };
    let config = Config::from_yaml("nodes: [db1]\nlog: {level: warn}\nhttp: {upstreams: [a]}", "c", &env);
    let config = config.unwrap();
    let binds: Vec<String> = config.listeners.iter().map(|l| l.bind.to_string()).collect();
    assert_eq!(binds, ["0.0.0.0:6432", "0.0.0.0:6433"]);
    assert_eq!(config.admin.unwrap().bind.unwrap().to_string(), "0.0.0.0:8404");
    assert_eq!(config.fronts[0].bind.to_string(), "0.0.0.0:8080");
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.clusters[0].check.user, "lb");
    assert_eq!(config.clusters[0].check.password.as_ref().map(Secret::expose), Some(CANARY));

    let off = |name: &str| (name == "PGSPLIT_ADMIN").then(|| "off".to_owned());
    assert_eq!(Config::from_yaml("nodes: [{addr: db1, role: primary}]", "c", &off).unwrap().admin, None);
    let bad = |name: &str| (name.starts_with("PGSPLIT_")).then(|| "loud".to_owned());
    let Err(ConfigError::Invalid(report)) = Config::from_yaml("nodes: [db1]", "c", &bad) else { panic!() };
    let paths: Vec<&str> = report.faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["PGSPLIT_BIND", "PGSPLIT_ADMIN", "PGSPLIT_LOG", "PGSPLIT_LOG_FORMAT"]);
}

#[test]
fn a_password_file_loses_its_last_newline() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("config.yaml");
    let secret = dir.path().join("pw");
    fs::write(&at, "nodes: [db1]\ncheck: {user: lb, password_file: pw}\n").unwrap();
    let none = |_: &str| None;
    assert!(matches!(Config::load(&at, &none), Err(ConfigError::Invalid(_))));
    fs::write(&secret, "hunter2\n\n").unwrap();
    set_mode(&secret, 0o600);
    let config = Config::load(&at, &none).unwrap();
    assert_eq!(config.clusters[0].check.password.as_ref().map(Secret::expose), Some("hunter2\n"));
    assert!(config.warnings.is_empty());
    set_mode(&secret, 0o644);
    let config = Config::load(&at, &none).unwrap();
    assert_eq!(config.warnings.len(), 1);
    assert!(
        config.warnings[0].contains(":2:34  check.password_file: others may read this file"),
        "{:?}",
        config.warnings
    );
}

#[test]
fn a_token_comes_from_a_variable_the_file_or_a_file_of_its_own() {
    const LONG: &str = "hunter2-hunter2-hunter2";
    let dir = tempfile::tempdir().unwrap();
    let (at, secret) = (dir.path().join("config.yaml"), dir.path().join("token"));
    let token = |admin: &str, env: Env<'_>| {
        fs::write(&at, format!("nodes: [{{addr: db1, role: primary}}]\n{admin}\n")).unwrap();
        let config = Config::load(&at, env)?;
        let token = config.admin.and_then(|admin| admin.token).map(|token| token.expose().to_owned());
        Ok::<_, ConfigError>((token, config.warnings))
    };
    let none = |_: &str| None;
    let set = |name: &str| (name == "PGSPLIT_ADMIN_TOKEN").then(|| "from-the-variable".to_owned());
    let some = |token: &str| (Some(token.to_owned()), Vec::<String>::new());
    fs::write(&secret, format!("{LONG}\n")).unwrap();
    set_mode(&secret, 0o600);
    assert_eq!(token("", &none).unwrap(), (None, vec![]));
    assert_eq!(token("admin: {token: '', token_file: ''}", &none).unwrap(), (None, vec![]));
    assert_eq!(token(&format!("admin: {{token: {LONG}}}"), &none).unwrap(), some(LONG));
    assert_eq!(token("admin: {token_file: token}", &none).unwrap(), some(LONG));
    assert_eq!(token(&format!("admin: {{token: {LONG}}}"), &set).unwrap(), some("from-the-variable"));
    assert_eq!(read_token(&secret).unwrap().expose(), LONG);
    let (short, warnings) = token("admin: {token: hunter2}", &none).unwrap();
    assert_eq!(short.as_deref(), Some("hunter2"));
    assert!(
        warnings.concat().contains("admin.token: a token as short as this can be guessed"),
        "{warnings:?}"
    );

    for (text, part) in
        [("", "the file is empty"), ("hunter2 hunter2", "visible ASCII"), ("hünter2", "visible ASCII")]
    {
        fs::write(&secret, text).unwrap();
        let Err(ConfigError::Invalid(report)) = token("admin: {token_file: token}", &none) else {
            panic!("{text}")
        };
        assert_eq!(report.faults.len(), 1, "{report:?}");
        assert!(report.lines().contains(part) && !report.blocks().contains("hunter2"), "{}", report.blocks());
        let error = read_token(&secret).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("hunter2"), "{error}");
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn pgpass_is_asked_for_each_node() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pgpass");
    fs::write(&path, "db1:5432:postgres:lb:one\ndb2:*:*:*:two\n").unwrap();
    set_mode(&path, 0o600);
    let env = |name: &str| (name == "PGPASSFILE").then(|| path.display().to_string());
    let config = Config::from_yaml("nodes: [db1, db2, db3]\ncheck: {user: lb}", "c", &env).unwrap();
    let found: Vec<Option<&str>> =
        config.clusters[0].nodes.iter().map(|node| node.password.as_ref().map(Secret::expose)).collect();
    assert_eq!(found, [Some("one"), Some("two"), None]);
    let config = Config::from_yaml("nodes: [db1]\ncheck: {user: lb, password: x}", "c", &env).unwrap();
    assert_eq!(config.clusters[0].nodes[0].password, None);
}

#[test]
fn from_a_url() {
    let none = |_: &str| None;
    let url = "postgres://lb:hunter2@db1,db2:6000/app?sslmode=prefer&target_session_attrs=read-write";
    let config = Config::from_url(url, &none).unwrap();
    assert!(!format!("{config:?}").contains(CANARY));
    let cluster = &config.clusters[0];
    assert_eq!(cluster.nodes[1].addr.to_string(), "db2:6000");
    assert_eq!((cluster.check.user.as_str(), cluster.check.dbname.as_str()), ("lb", "app"));
    assert_eq!(cluster.check.password.as_ref().map(Secret::expose), Some(CANARY));
    assert_eq!(config.listeners.len(), 2);
    for bad in [
        "postgres://u:hunter2@db1?sslmode=require",
        "postgres://u:hunter2@db1,db1/",
        "mysql://u:hunter2@db1",
        "",
    ] {
        let Err(ConfigError::Invalid(report)) = Config::from_url(bad, &none) else { panic!("{bad}") };
        assert!(!format!("{report:?}{}", report.blocks()).contains(CANARY));
        assert!(report.lines().starts_with("--from-url  "), "{}", report.lines());
    }
}

#[test]
fn from_nodes() {
    let env = |name: &str| match name {
        "USER" => Some("me".to_owned()),
        "PGPASSWORD" => Some(CANARY.to_owned()),
        _ => None,
    };
    let list = |nodes: &[&str]| {
        Config::from_nodes(&nodes.iter().map(|&node| node.to_owned()).collect::<Vec<_>>(), &env)
    };
    let config = list(&["db1", "db2:6000"]).unwrap();
    assert_eq!(config.clusters[0].check.user, "me");
    assert_eq!(config.clusters[0].check.password.as_ref().map(Secret::expose), Some(CANARY));
    let config = list(&["db1=primary", "db2=replica"]).unwrap();
    assert_eq!(config.clusters[0].check.kind, super::CheckKind::Startup);
    assert_eq!(config.clusters[0].check.password, None);
    for bad in [&["db1=boss"][..], &["db1:x"], &["db1=replica"], &[], &["db1", "db1"]] {
        assert!(list(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn times_at_the_extremes() {
    let check =
        "nodes: [{addr: db1, role: primary}]\ncheck: {interval: 1ms, timeout: 30d, fall: 1000, rise: 1000}";
    assert_eq!(parse(check).unwrap().warnings.len(), 1);
    let config = parse("nodes: [db1]\ncheck: {user: lb, max_lag: 16EiB}");
    assert!(matches!(
        config.map(|config| config.clusters[0].check.max_lag),
        Ok(Some(MaxLag::Bytes(_))) | Err(_)
    ));
    for value in ["18446744073709551616", "-1", "1e400", ".nan", "99999999999999999999999s", "4294967296"] {
        for About { name: key, .. } in keys::CHECK {
            let _ = parse(&format!("nodes: [db1]\ncheck: {{{key}: {value}}}"));
        }
        for About { name: key, .. } in keys::SESSIONS {
            let _ = parse(&format!("nodes: [db1]\nsessions: {{{key}: {value}}}"));
        }
        for About { name: key, .. } in keys::NODE {
            let _ = parse(&format!("nodes: [{{{key}: {value}}}]"));
        }
        for About { name: key, .. } in keys_http::HTTP {
            let _ = parse(&format!("nodes: [db1]\nhttp: {{{key}: {value}}}"));
        }
        for About { name: key, .. } in keys_http::HTTP_CHECK {
            let _ = parse(&format!("nodes: [db1]\nhttp: {{upstreams: [a], check: {{{key}: {value}}}}}"));
        }
    }
}

#[test]
fn a_file_that_is_not_utf8_is_told_where() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    fs::write(&path, b"nodes:\n  - db\xff1\n").unwrap();
    let Err(ConfigError::Invalid(report)) = Config::load(&path, &env) else { panic!() };
    assert_eq!(report.faults[0].place, Some((2, 7)));
    assert!(matches!(Config::load(&dir.path().join("none"), &env), Err(ConfigError::Read { .. })));
}

/// The name of every key, sometimes more than once.
fn all_keys() -> Vec<&'static str> {
    fn add(keys: Keys, all: &mut Vec<&'static str>) {
        for about in keys {
            all.push(about.name);
            add(about.takes.keys().unwrap_or_default(), all);
        }
    }
    let mut all = Vec::new();
    add(keys::TOP, &mut all);
    all
}

#[test]
fn every_key_is_in_the_sample() {
    let sample = fs::read_to_string(root().join("config.yaml")).unwrap();
    for key in all_keys() {
        assert!(sample.contains(&format!("{key}:")), "config.yaml lacks {key}");
    }
}

#[test]
fn the_sample_can_be_run_as_it_is() {
    let text = fs::read_to_string(root().join("config.yaml")).unwrap();
    let config = Config::from_yaml(&text, "config.yaml", &|_| None).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.listeners.len(), 2);
}

/// Every key that is commented out shows its default: with all of them in, nothing changes.
#[test]
fn the_sample_shows_the_defaults() {
    let text = fs::read_to_string(root().join("config.yaml")).unwrap();
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| {
            // `#key` and `#  key` are keys; `# Text` is for people.
            let key = line
                .strip_prefix('#')
                .filter(|rest| !rest.is_empty() && (!rest.starts_with(' ') || rest.starts_with("  ")));
            key.unwrap_or(line)
        })
        .collect();
    let mut full = Config::from_yaml(&uncommented.join("\n"), "config.yaml", &|_| None)
        .unwrap_or_else(|error| panic!("{error:?}"));
    // But for the front, which is only there when it is written.
    let front = "\nhttp: {upstreams: [127.0.0.1:8081]}\n";
    let mut plain = Config::from_yaml(&(text + front), "config.yaml", &|_| None).unwrap();
    // Left out, it depends on who runs pgsplit, and may fail.
    for config in [&mut full, &mut plain] {
        config.admin.as_mut().unwrap().socket = None;
    }
    assert_eq!(format!("{full:?}"), format!("{plain:?}"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = outcome(&text);
    }

    #[test]
    fn no_mix_of_yaml_and_keys_panics(parts in proptest::collection::vec(part(), 0..40)) {
        let _ = outcome(&parts.concat());
    }

    #[test]
    fn no_broken_sample_panics(from in 0usize..9000, length in 0usize..200, put in "[\\PC\n]{0,3}") {
        let mut text = fs::read_to_string(root().join("config.yaml")).unwrap();
        let from = text.floor_char_boundary(from);
        let to = text.floor_char_boundary(from + length);
        text.replace_range(from..to, &put);
        let _ = outcome(&text);
    }
}

fn part() -> impl Strategy<Value = String> {
    let marks = [
        "\n", "\n  ", "\n    ", ": ", "- ", "{", "}", "[", "]", ", ", "&a ", "*a", "<<: ", "'", "\"", "${",
        "}", "#", "|\n", "\t", "0", "-1", "1e999", "2s", "db1:5432", "é", "---\n", "!!int ", "~",
    ];
    prop_oneof![
        proptest::sample::select(marks.to_vec()).prop_map(str::to_owned),
        proptest::sample::select(all_keys()).prop_map(|key| format!("{key}: ")),
        proptest::sample::select(all_keys()).prop_map(str::to_owned),
    ]
}

/// The errors on the page about them are those that are really printed.
#[test]
fn the_page_about_errors_shows_real_ones() {
    let docs = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let text = "\
nodes:
  - {addr: db1:5432, rol: primary}
  - {addr: db2:5432, role: master}
listeners:
  - name: rw
    bind: 127.0.0.1:6432
  - name: ro
    bind: 127.0.0.1:6432
    target: prefer-standby
sessions: {queue_timeout: 10s, idle_timeout: 5m}
check:
  interval: 2
  timeout: 800ms
  user: lb_check
  password: ${LB_CHECK_PASSWORD}
";
    let report = faults(text);
    for shown in [report.blocks(), report.lines()] {
        assert!(docs.contains(shown.trim_end()), "docs/troubleshooting.md lacks\n{shown}");
    }
}

/// Files with nothing wrong in them, as written and as they are run by.
fn good_files() -> Vec<(PathBuf, String, Config)> {
    let entries = fs::read_dir(root().join("tests/config")).unwrap().map(|entry| entry.unwrap().path());
    let good = entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("ok-"));
    let mut files: Vec<_> = good
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let config = parse(&text).unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
            (path, text, config)
        })
        .collect();
    files.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    assert!(files.len() > 5);
    files
}

#[test]
fn what_is_shown_is_read_back_as_the_same() {
    for (path, _, mut config) in good_files() {
        let yaml = show(&config).yaml();
        assert!(!yaml.contains(CANARY), "{yaml}");
        let mut again = Config::from_yaml(&yaml, "shown", &|_| None)
            .unwrap_or_else(|error| panic!("{}: {error:?}\n{yaml}", path.display()));
        forget_how_it_was_written(&mut config);
        forget_how_it_was_written(&mut again);
        assert_eq!(format!("{again:?}"), format!("{config:?}"), "{}\n{yaml}", path.display());
        assert_eq!(show(&again).yaml(), yaml);
        // And so is what the API serves.
        let json = serde_json::to_string(&show(&config)).unwrap();
        let mut again = Config::from_yaml(&json, "shown", &|_| None).unwrap();
        forget_how_it_was_written(&mut again);
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
    }
}

/// Warnings, and whether the path of the admin socket was written: what is shown has it written.
fn forget_how_it_was_written(config: &mut Config) {
    config.warnings.clear();
    if let Some(socket) = config.admin.as_mut().and_then(|admin| admin.socket.as_mut()) {
        socket.is_default = false;
    }
}

/// Every key of the reference is among what is shown, and nothing else is; what is shown under another name, or stands
/// for itself, is not.
#[test]
fn what_is_shown_is_every_key() {
    fn paths(shown: &Shown, prefix: &str, all: &mut Vec<String>) {
        match shown {
            Shown::One(_) => (),
            Shown::List(items) => items.iter().for_each(|item| paths(item, prefix, all)),
            Shown::Mapping(entries) => {
                for entry in entries {
                    let path = format!("{prefix}.{}", entry.key);
                    paths(&entry.value, &path, all);
                    all.push(path);
                }
            }
        }
    }
    let mut all = Vec::new();
    for (_, _, config) in good_files() {
        paths(&show(&config), "", &mut all);
    }
    for path in &all {
        let found = explain::find(path.trim_start_matches('.'));
        // `clusters.main` and `http.groups.users` are names of one's own.
        let is_name = ["clusters", "groups"].contains(&path.rsplit('.').nth(1).unwrap());
        assert!(is_name || found.is_ok_and(|found| found.len() == 1), "{path}");
    }
    let aside = ["password_file", "token_file", "sslmode", "target_session_attrs"];
    for Explained { path, about } in explain::all() {
        let plain = path.replace("[]", "").replace(".NAME", ".users");
        let is_shown = all.iter().any(|shown| shown.trim_start_matches('.') == plain);
        assert_eq!(is_shown, !aside.contains(&about.name), "{path}");
    }
}

#[test]
fn defaults_are_marked() {
    let shown = show(&parse("nodes: [{addr: db1, role: primary}]\ncheck: {interval: 5s, rise: 2}").unwrap());
    let yaml = shown.yaml();
    for part in [
        "\nnodes:\n  - addr: db1:5432\n    name: db1\n    role: primary\n    weight: 100  # default\n",
        "\n  interval: 5s\n",
        "\n  rise: 2  # default\n",
        "\n  keepalive:  # all defaults\n    idle: 1m  # default\n",
        "\nruntime:  # all defaults\n",
    ] {
        assert!(format!("\n{yaml}").contains(part), "{part}\n{yaml}");
    }
    assert_eq!(shown.at("check.interval").map(Shown::in_flow).as_deref(), Some("5s"));
    assert_eq!(shown.at("nodes[0].addr").map(Shown::in_flow).as_deref(), Some("db1:5432"));
    assert_eq!((shown.at("nodes[1]"), shown.at("check.x"), shown.at("")), (None, None, None));
}

/// A file in which the key at `path` has `value`, and what else it takes to be whole.
fn with(path: &str, value: &str) -> String {
    let path = path.replace(".NAME", ".default");
    let mut outer = path.as_str();
    let mut text = value.to_owned();
    // From the inside out: `a.b[].c` with `x` is `a: {b: [{c: x}]}`.
    while let Some((before, key)) = outer.rsplit_once('.') {
        let needed = |needs: &str| {
            let is_it = needs.starts_with(&format!("{}:", key.trim_end_matches("[]")));
            if is_it { String::new() } else { format!(", {needs}") }
        };
        let rest = match before {
            "nodes[]" | "http.upstreams[]" => needed("addr: db1"),
            "listeners[]" => needed("name: a") + &needed("bind: \"127.0.0.1:1\""),
            "http.routes[]" => needed("group: default"),
            "http.groups.default" => needed("upstreams: [users1]"),
            "http" if key != "groups" => needed("upstreams: [users1]"),
            "check" => needed("user: lb"),
            _ => String::new(),
        };
        let key = match key.strip_suffix("[]") {
            Some(key) => format!("{key}: [{text}]"),
            None => format!("{key}: {text}"),
        };
        text = format!("{{{key}{rest}}}");
        outer = before;
    }
    text = match outer.strip_suffix("[]") {
        Some(key) => format!("{key}: [{text}]"),
        None => format!("{outer}: {text}"),
    };
    // The listener a front may name, a primary, and a check user to find roles out.
    for (key, more) in [
        ("nodes:", "nodes: [{addr: db1, role: primary}]"),
        ("listeners:", "listeners: [{name: ro, bind: \"127.0.0.1:2\", target: any}]"),
        ("check:", "check: {user: lb}"),
    ] {
        if !text.starts_with(key) && !text.starts_with("clusters:") {
            text = format!("{text}\n{more}");
        }
    }
    text
}

/// Each example and each default is taken where the table says that it is, and each word of a choice is, and no other.
#[test]
fn keys_take_what_is_told_of_them() {
    fn forms(takes: Takes) -> Vec<Form> {
        match takes {
            Takes::One(Form::OrOff(form)) => vec![Form::OrOff(form), *form],
            Takes::One(form) => vec![form],
            Takes::Either(all) => all.iter().flat_map(|one| forms(*one)).collect(),
            _ => Vec::new(),
        }
    }
    let env = |name: &str| name.ends_with("PASSWORD").then(|| "0123456789abcdef".to_owned());
    let env =
        |name: &str| env(name).or_else(|| (name == "PGSPLIT_TOKEN").then(|| "0123456789abcdef".to_owned()));
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for Explained { path, about } in explain::all() {
        // Files that are not there.
        if about.name.ends_with("_file") {
            continue;
        }
        let is_taken = |value: &str| {
            let text = with(&path, value);
            let json: serde_json::Value = serde_yaml::from_str(&text).unwrap();
            let valid = validator.validate(&json).map_err(|error| error.to_string());
            let parsed = Config::from_yaml(&text, "c", &env).map(drop).map_err(|error| match error {
                ConfigError::Invalid(report) => report.lines(),
                error @ ConfigError::Read { .. } => error.to_string(),
            });
            (text, parsed, valid)
        };
        let mut good = vec![about.example.to_owned()];
        if let Without::Value(default) = about.default {
            good.push(if default.is_empty() { "\"\"".to_owned() } else { default.to_owned() });
        }
        let mut is_choice = false;
        for form in forms(about.takes) {
            match form {
                Form::Words(words) => {
                    is_choice = true;
                    good.extend(words.iter().map(|word| (*word).to_owned()));
                }
                Form::Number { min, max } => good.extend([min.to_string(), max.to_string()]),
                Form::YesNo => good.extend(["on", "off", "no", "true"].map(str::to_owned)),
                Form::Time { or_zero: true } | Form::Size { or_zero: true } => good.push("0".to_owned()),
                Form::OrOff(_) => good.push("off".to_owned()),
                _ => (),
            }
        }
        // What only fits beside others is tried there, in files of its own.
        let not_alone = |value: &str| {
            (about.name == "target" || about.name == "target_session_attrs") && value != about.example
                || (path == "nodes[].role" && ["standby", "replica"].contains(&value))
                || (path == "nodes[].weight" && value == "0")
                || (path == "http.upstreams[].weight" && value == "0")
                || (path.starts_with("http.retries.") && ["PUT", "DELETE"].contains(&value))
        };
        for value in good.iter().filter(|value| !not_alone(value)) {
            let (text, parsed, valid) = is_taken(value);
            assert!(parsed.is_ok() && valid.is_ok(), "{path}: {parsed:?} {valid:?}\n{text}");
        }
        if is_choice {
            let (text, parsed, valid) = is_taken("nonsense");
            assert!(parsed.is_err() && valid.is_err(), "{path}: {parsed:?} {valid:?}\n{text}");
        }
        let numbers = forms(about.takes).into_iter().find_map(|form| match form {
            Form::Number { max, .. } => Some(max + 1),
            _ => None,
        });
        if let Some(too_many) = numbers {
            let (text, parsed, valid) = is_taken(&too_many.to_string());
            assert!(parsed.is_err() && valid.is_err(), "{path}: {parsed:?} {valid:?}\n{text}");
        }
    }
}

#[test]
fn the_schema_takes_good_files_and_no_key_that_is_not_there() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    jsonschema::meta::validate(&schema()).unwrap();
    let json = |text: &str| serde_yaml::from_str::<serde_json::Value>(text).unwrap();
    for (path, text, config) in good_files() {
        for text in [text, show(&config).yaml()] {
            let valid = validator.validate(&json(&text)).map_err(|error| error.to_string());
            assert!(valid.is_ok(), "{}: {valid:?}\n{text}", path.display());
        }
    }
    let sample = fs::read_to_string(root().join("config.yaml")).unwrap();
    assert!(validator.is_valid(&json(&sample)));
    for Explained { path, about } in explain::all() {
        let misspelt = format!("{}x", about.name);
        let parent = path.strip_suffix(about.name).unwrap();
        let text = with(&format!("{parent}{misspelt}"), "1");
        assert!(!validator.is_valid(&json(&text)), "{text}");
    }
}

#[test]
fn a_key_is_explained_by_any_name_for_it() {
    let paths = |asked: &str| -> Vec<String> {
        explain::find(asked).unwrap().into_iter().map(|found| found.path).collect()
    };
    assert_eq!(paths("check.interval"), ["check.interval"]);
    assert_eq!(paths("nodes[3].weight"), ["nodes[].weight"]);
    assert_eq!(paths("nodes.weight"), ["nodes[].weight"]);
    assert_eq!(paths("clusters.logs.check.rise"), ["clusters.NAME.check.rise"]);
    assert_eq!(paths("http[1].groups.users.check"), ["http.groups.NAME.check"]);
    assert_eq!(paths("interval"), ["check.interval", "sessions.keepalive.interval", "http.check.interval"]);
    for (asked, part) in [
        ("check.intervall", "did you mean `check.interval`?"),
        ("wieght", "did you mean `weight`?"),
        ("zzzzzzzzzzzzzzz", "`pgsplit config explain` lists all"),
        ("clusters.logs", "did you mean `log`?"),
        ("", "no key is called ``"),
        ("a\u{1b}[31m", "no key is called `a\\x1b[31m`"),
    ] {
        let error = explain::find(asked).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    let words = explain::find("runtime.threads").unwrap()[0].in_words();
    assert!(words.contains("  change   needs a restart\n") && words.contains("  default  0\n"), "{words}");
    let list = explain::list(80);
    assert_eq!(list.lines().count(), explain::all().len());
    assert!(list.lines().all(|line| line.chars().count() <= 80), "{list}");
    let page = explain::markdown();
    assert_eq!(
        page.matches("\nMore: ").count(),
        explain::MORE.len(),
        "each is about a mapping that there is"
    );
    // Nothing of a table breaks out of its cell.
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        assert_eq!(line.replace("\\|", "").matches('|').count(), 6, "{line}");
    }
}

#[test]
fn a_service_has_its_socket_in_its_own_directory() {
    let env = |name: &str| (name == "RUNTIME_DIRECTORY").then(|| "/run/a:/run/b".to_owned());
    let config = Config::from_yaml("nodes: [{addr: 'a:1', role: primary}]", "test", &env).unwrap();
    let socket = config.admin.and_then(|admin| admin.socket).unwrap();
    assert_eq!((socket.path, socket.is_default), (PathBuf::from("/run/a/admin.sock"), true));
}
