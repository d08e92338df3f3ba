//! The file as written: every key pgsplit knows, none of them required here, each with its place.
//!
//! A key is in exactly one list below, and read in the function beside the list. `check.rs` fills in what was
//! left out. What is about HTTP is in `file_http.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use super::file_http::{FileFront, read_fronts};
use super::finding::Findings;
use super::http::LogRequests;
use super::source::Pos;
use super::table::{Given, Table, read};
use super::tree::{Key, Kind, Value};
use super::words::{self, Word};
use super::{Balance, CheckKind, LogFormat, LogSessions, MaxLag, NodeAddr, OnTrouble, Tls, words_http};
use crate::base::role::{Role, Target};
use crate::base::secret::Secret;

pub(super) const TOP: &[&str] =
    &["nodes", "listeners", "clusters", "check", "sessions", "http", "dns", "admin", "log", "runtime"];
pub(super) const CLUSTER: &[&str] = &["nodes", "check", "sessions"];
pub(super) const NODE: &[&str] = &["addr", "name", "role", "weight", "backup", "max_connections"];
pub(super) const LISTENER: &[&str] =
    &["name", "bind", "cluster", "target", "target_session_attrs", "balance", "max_connections", "tls"];
pub(super) const TLS: &[&str] = &["mode"];
pub(super) const CHECK: &[&str] = &[
    "type",
    "interval",
    "fast_interval",
    "down_interval",
    "timeout",
    "rise",
    "fall",
    "user",
    "password",
    "password_file",
    "dbname",
    "application_name",
    "sslmode",
    "max_lag",
    "passive",
];
pub(super) const SESSIONS: &[&str] = &[
    "connect_timeout",
    "answer_timeout",
    "retries",
    "queue_timeout",
    "queue_size",
    "startup_timeout",
    "on_down",
    "on_demote",
    "on_lag",
    "on_leave",
    "on_drain",
    "keepalive",
    "tcp_user_timeout",
];
pub(super) const KEEPALIVE: &[&str] = &["idle", "interval", "count"];
pub(super) const DNS: &[&str] = &["refresh", "all_addresses"];
pub(super) const ADMIN: &[&str] = &["bind", "token", "token_file"];
pub(super) const LOG: &[&str] = &["level", "format", "sessions", "requests"];
pub(super) const RUNTIME: &[&str] = &["threads", "drain_delay", "drain_timeout", "watch_config"];

/// Everything that was written.
#[derive(Default)]
pub(super) struct File {
    pub clusters: Vec<FileCluster>,
    /// `None`: the two default ones.
    pub listeners: Option<Given<Vec<FileListener>>>,
    pub fronts: Vec<FileFront>,
    pub dns: FileDns,
    pub admin: FileAdmin,
    pub log_level: Option<Given<String>>,
    pub log_format: Option<Given<LogFormat>>,
    pub log_sessions: Option<Given<LogSessions>>,
    pub log_requests: Option<Given<LogRequests>>,
    pub threads: Option<Given<u32>>,
    pub drain_delay: Option<Given<Duration>>,
    pub drain_timeout: Option<Given<Duration>>,
    pub watch_config: Option<Given<bool>>,
}

/// One entry of `clusters`, or the keys at the top that make the cluster `main`.
pub(super) struct FileCluster {
    pub name: Given<String>,
    /// Empty, or `clusters.logs.`: what stands before `nodes` in a fault.
    pub prefix: String,
    pub nodes: Vec<FileNode>,
    /// Where `nodes` is written, or should be.
    pub nodes_at: Pos,
    pub check: FileCheck,
    pub sessions: FileSessions,
    /// Whether nothing in it is wrong, so that rules about the whole say something new.
    pub is_sound: bool,
}

/// One entry of `nodes`.
pub(super) struct FileNode {
    pub path: String,
    /// `None`: wrong or missing, and reported.
    pub addr: Option<Given<NodeAddr>>,
    pub name: Option<Given<String>>,
    pub role: Option<Given<Option<Role>>>,
    pub weight: Option<Given<u32>>,
    pub backup: Option<Given<bool>>,
    pub max_connections: Option<Given<u32>>,
}

/// One entry of `listeners`.
pub(super) struct FileListener {
    pub path: String,
    pub at: Pos,
    pub name: Option<Given<String>>,
    pub bind: Option<Given<SocketAddr>>,
    pub cluster: Option<Given<String>>,
    pub target: Option<Given<Target>>,
    pub balance: Option<Given<Balance>>,
    pub max_connections: Option<Given<u32>>,
    pub tls: Option<Given<Tls>>,
}

/// `check`.
#[derive(Default)]
pub(super) struct FileCheck {
    pub kind: Option<Given<Option<CheckKind>>>,
    pub interval: Option<Given<Duration>>,
    pub fast_interval: Option<Given<Duration>>,
    pub down_interval: Option<Given<Duration>>,
    pub timeout: Option<Given<Duration>>,
    pub rise: Option<Given<u32>>,
    pub fall: Option<Given<u32>>,
    pub user: Option<Given<String>>,
    pub password: Option<Given<Secret>>,
    pub password_file: Option<Given<String>>,
    pub dbname: Option<Given<String>>,
    pub application_name: Option<Given<String>>,
    pub max_lag: Option<Given<Option<MaxLag>>>,
    pub passive: Option<Given<bool>>,
}

/// `admin`.
#[derive(Default)]
pub(super) struct FileAdmin {
    /// Outer `None`: left out; inner: switched off.
    pub bind: Option<Given<Option<SocketAddr>>>,
    pub token: Option<Given<Secret>>,
    pub token_file: Option<Given<String>>,
}

/// `dns`.
#[derive(Default)]
pub(super) struct FileDns {
    pub refresh: Option<Given<Duration>>,
    pub all_addresses: Option<Given<bool>>,
}

/// `sessions`.
#[derive(Default)]
pub(super) struct FileSessions {
    pub connect_timeout: Option<Given<Duration>>,
    pub answer_timeout: Option<Given<Duration>>,
    pub retries: Option<Given<u32>>,
    pub queue_timeout: Option<Given<Duration>>,
    pub queue_size: Option<Given<u32>>,
    pub startup_timeout: Option<Given<Duration>>,
    pub on_down: Option<Given<OnTrouble>>,
    pub on_demote: Option<Given<OnTrouble>>,
    pub on_lag: Option<Given<OnTrouble>>,
    pub on_leave: Option<Given<OnTrouble>>,
    pub on_drain: Option<Given<OnTrouble>>,
    pub keepalive: Option<FileKeepalive>,
    pub tcp_user_timeout: Option<Given<Duration>>,
}

/// `sessions.keepalive`.
pub(super) enum FileKeepalive {
    Off,
    On { idle: Option<Given<Duration>>, interval: Option<Given<Duration>>, count: Option<Given<u32>> },
}

/// Reads the whole tree. What is wrong is reported and left out.
pub(super) fn read_file(root: &Value, f: &mut Findings<'_>) -> File {
    let Some(top) = Table::open(root, "", TOP, f) else { return File::default() };
    let clusters = read_clusters(&top, f);
    let listeners = top.list("listeners", f).map(|list| Given {
        value: entries(&list, f, read_listener),
        at: list.at,
        path: list.path,
    });
    let log = section(&top, "log", LOG, f);
    let runtime = section(&top, "runtime", RUNTIME, f);
    File {
        clusters,
        listeners,
        fronts: read_fronts(&top, f),
        dns: read_dns(&top, f),
        admin: read_admin(&top, f),
        log_level: get(log.as_ref(), "level", &words::LOG_LEVEL, f),
        log_format: get(log.as_ref(), "format", &words::LOG_FORMAT, f),
        log_sessions: get(log.as_ref(), "sessions", &words::LOG_SESSIONS, f),
        log_requests: get(log.as_ref(), "requests", &words_http::LOG_REQUESTS, f),
        threads: get(runtime.as_ref(), "threads", &words::THREADS, f),
        drain_delay: get(runtime.as_ref(), "drain_delay", &words::TIME, f),
        drain_timeout: get(runtime.as_ref(), "drain_timeout", &words::TIME, f),
        watch_config: get(runtime.as_ref(), "watch_config", &words::YES_NO, f),
    }
}

fn read_clusters(top: &Table<'_>, f: &mut Findings<'_>) -> Vec<FileCluster> {
    let Some(value) = top.value("clusters").filter(|value| !matches!(value.kind, Kind::Null)) else {
        if is_http_only(top) {
            return Vec::new();
        }
        let name = Given { value: "main".to_owned(), at: Pos::NOWHERE, path: String::new() };
        return vec![read_cluster(top, name, String::new(), f)];
    };
    for key in CLUSTER {
        if let Some(at) = top.key_at(key) {
            let message =
                "stands both here and under `clusters`: at the top it belongs to the only cluster, `main`";
            f.fault(key, at, message).help(format!("move it to clusters.main.{key}"));
        }
    }
    let Kind::Map(entries) = &value.kind else {
        if !matches!(value.kind, Kind::Bad) {
            f.fault("clusters", value.at, "must be a mapping of names to clusters")
                .help("write `main: {nodes: […]}`");
        }
        return Vec::new();
    };
    if entries.is_empty() {
        f.fault("clusters", value.at, "no cluster is written here");
    }
    entries.iter().filter_map(|(key, value)| read_named_cluster(key, value, f)).collect()
}

/// Whether the file is about HTTP services alone. A key that is not known may be `nodes`, misspelt.
fn is_http_only(top: &Table<'_>) -> bool {
    let is_there = |key: &&str| top.key_at(key).is_some();
    let has_http = top.value("http").is_some_and(|http| !matches!(http.kind, Kind::Null));
    has_http && !top.has_unknown && !CLUSTER.iter().chain(&["listeners"]).any(is_there)
}

fn read_named_cluster(key: &Key, value: &Value, f: &mut Findings<'_>) -> Option<FileCluster> {
    let path = format!("clusters.{}", key.name);
    if let Err(message) = (words::NAME.parse)(&key.name) {
        f.fault("clusters", key.at, &message);
    }
    let table = Table::open(value, &path, CLUSTER, f)?;
    let name = Given { value: key.name.clone(), at: key.at, path: path.clone() };
    Some(read_cluster(&table, name, format!("{path}."), f))
}

fn read_cluster(table: &Table<'_>, name: Given<String>, prefix: String, f: &mut Findings<'_>) -> FileCluster {
    let before = f.count();
    let list = table.list("nodes", f);
    let nodes = list.as_ref().map(|list| entries(list, f, read_node)).unwrap_or_default();
    let above = if name.at.line > 0 { name.at } else { Pos { line: 1, column: 1, width: 1 } };
    let nodes_at = table.key_at("nodes").unwrap_or(above);
    if nodes.is_empty() && f.count() == before {
        f.fault(
            &table.path_of("nodes"),
            nodes_at,
            "there are none: write at least one, such as `- db1:5432`",
        );
    }
    let check = section(table, "check", CHECK, f).map(|check| read_check(&check, f)).unwrap_or_default();
    let sessions = section(table, "sessions", SESSIONS, f)
        .map(|sessions| read_sessions(&sessions, f))
        .unwrap_or_default();
    let is_sound = f.count() == before && !table.has_unknown;
    FileCluster { name, prefix, nodes, nodes_at, check, sessions, is_sound }
}

fn read_node(value: &Value, path: &str, f: &mut Findings<'_>) -> Option<FileNode> {
    let mut node = FileNode {
        path: path.to_owned(),
        addr: None,
        name: None,
        role: None,
        weight: None,
        backup: None,
        max_connections: None,
    };
    match &value.kind {
        Kind::Scalar(_) | Kind::Null => node.addr = read(value, path, &words::ADDR, f),
        Kind::Bad => return None,
        Kind::Map(_) => {
            let table = Table::open(value, path, NODE, f)?;
            node.addr = table.get("addr", &words::ADDR, f);
            if table.value("addr").is_none() && !table.has_unknown {
                f.fault(path, table.at, "has no `addr`");
            }
            node.name = table.get("name", &words::NAME, f);
            node.role = table.get("role", &words::ROLE, f);
            node.weight = table.get("weight", &words::WEIGHT, f);
            node.backup = table.get("backup", &words::YES_NO, f);
            node.max_connections = table.get("max_connections", &words::NODE_CONNECTIONS, f);
        }
        Kind::Seq(_) => {
            f.fault(path, value.at, "must be `host:port` or a mapping with `addr`, not a list");
            return None;
        }
    }
    Some(node)
}

fn read_listener(value: &Value, path: &str, f: &mut Findings<'_>) -> Option<FileListener> {
    let table = Table::open(value, path, LISTENER, f)?;
    for key in ["name", "bind"] {
        if table.value(key).is_none() && !table.has_unknown {
            f.fault(path, table.at, &format!("has no `{key}`"));
        }
    }
    if let (Some(_), Some(at)) = (table.value("target"), table.key_at("target_session_attrs")) {
        f.fault(path, at, "`target` and `target_session_attrs` are the same key: leave one out");
    }
    let target = table.get("target", &words::TARGET, f);
    let libpq_target = table.get("target_session_attrs", &words::TARGET, f);
    Some(FileListener {
        path: path.to_owned(),
        at: table.at,
        name: table.get("name", &words::NAME, f),
        bind: table.get("bind", &words::BIND, f),
        cluster: table.get("cluster", &words::NAME, f),
        target: target.or(libpq_target),
        balance: table.get("balance", &words::BALANCE, f),
        max_connections: table.get("max_connections", &words::CONNECTIONS, f),
        tls: read_tls(&table, f),
    })
}

fn read_tls(listener: &Table<'_>, f: &mut Findings<'_>) -> Option<Given<Tls>> {
    let value = listener.value("tls")?;
    let path = listener.path_of("tls");
    if matches!(value.kind, Kind::Scalar(_)) {
        return read(value, &path, &words::TLS_MODE, f);
    }
    Table::open(value, &path, TLS, f)?.get("mode", &words::TLS_MODE, f)
}

fn read_check(table: &Table<'_>, f: &mut Findings<'_>) -> FileCheck {
    let _: Option<Given<()>> = table.get("sslmode", &words::SSLMODE, f);
    FileCheck {
        kind: table.get("type", &words::CHECK_KIND, f),
        interval: table.get("interval", &words::SOME_TIME, f),
        fast_interval: table.get("fast_interval", &words::SOME_TIME, f),
        down_interval: table.get("down_interval", &words::SOME_TIME, f),
        timeout: table.get("timeout", &words::SOME_TIME, f),
        rise: table.get("rise", &words::TIMES_IN_A_ROW, f),
        fall: table.get("fall", &words::TIMES_IN_A_ROW, f),
        user: table.get("user", &words::TEXT, f),
        password: table.get("password", &words::SECRET, f),
        password_file: table.get("password_file", &words::TEXT, f),
        dbname: table.get("dbname", &words::TEXT, f),
        application_name: table.get("application_name", &words::TEXT, f),
        max_lag: table.get("max_lag", &words::LAG, f),
        passive: table.get("passive", &words::YES_NO, f),
    }
}

fn read_sessions(table: &Table<'_>, f: &mut Findings<'_>) -> FileSessions {
    FileSessions {
        connect_timeout: table.get("connect_timeout", &words::SOME_TIME, f),
        answer_timeout: table.get("answer_timeout", &words::SOME_TIME, f),
        retries: table.get("retries", &words::RETRIES, f),
        queue_timeout: table.get("queue_timeout", &words::TIME, f),
        queue_size: table.get("queue_size", &words::QUEUE_SIZE, f),
        startup_timeout: table.get("startup_timeout", &words::SOME_TIME, f),
        on_down: table.get("on_down", &words::ON_TROUBLE, f),
        on_demote: table.get("on_demote", &words::ON_TROUBLE, f),
        on_lag: table.get("on_lag", &words::ON_TROUBLE, f),
        on_leave: table.get("on_leave", &words::ON_TROUBLE, f),
        on_drain: table.get("on_drain", &words::ON_TROUBLE, f),
        keepalive: read_keepalive(table, f),
        tcp_user_timeout: table.get("tcp_user_timeout", &words::TIME, f),
    }
}

fn read_keepalive(sessions: &Table<'_>, f: &mut Findings<'_>) -> Option<FileKeepalive> {
    let value = sessions.value("keepalive")?;
    if matches!(&value.kind, Kind::Scalar(scalar) if words::is_off(&scalar.text) || scalar.text == "0") {
        return Some(FileKeepalive::Off);
    }
    let table = Table::open(value, &sessions.path_of("keepalive"), KEEPALIVE, f)?;
    Some(FileKeepalive::On {
        idle: table.get("idle", &words::KEEPALIVE_TIME, f),
        interval: table.get("interval", &words::KEEPALIVE_TIME, f),
        count: table.get("count", &words::PROBES, f),
    })
}

fn read_admin(top: &Table<'_>, f: &mut Findings<'_>) -> FileAdmin {
    let Some(value) = top.value("admin") else { return FileAdmin::default() };
    if matches!(&value.kind, Kind::Scalar(scalar) if words::is_off(&scalar.text)) {
        let off = Given { value: None, at: value.at, path: "admin".to_owned() };
        return FileAdmin { bind: Some(off), ..FileAdmin::default() };
    }
    let admin = Table::open(value, "admin", ADMIN, f);
    FileAdmin {
        bind: get(admin.as_ref(), "bind", &words::ADMIN_BIND, f),
        token: get(admin.as_ref(), "token", &words::SECRET, f),
        token_file: get(admin.as_ref(), "token_file", &words::TEXT, f),
    }
}

fn read_dns(top: &Table<'_>, f: &mut Findings<'_>) -> FileDns {
    let dns = section(top, "dns", DNS, f);
    FileDns {
        refresh: get(dns.as_ref(), "refresh", &words::SOME_TIME, f),
        all_addresses: get(dns.as_ref(), "all_addresses", &words::YES_NO, f),
    }
}

/// The mapping under `key`, when there is one.
pub(super) fn section<'v>(
    table: &Table<'v>,
    key: &str,
    keys: &[&str],
    f: &mut Findings<'_>,
) -> Option<Table<'v>> {
    Table::open(table.value(key)?, &table.path_of(key), keys, f)
}

fn get<T>(table: Option<&Table<'_>>, key: &str, word: &Word<T>, f: &mut Findings<'_>) -> Option<Given<T>> {
    table?.get(key, word, f)
}

pub(super) fn entries<T>(
    list: &Given<&[Value]>,
    f: &mut Findings<'_>,
    read: impl Fn(&Value, &str, &mut Findings<'_>) -> Option<T>,
) -> Vec<T> {
    let path = |index: usize| format!("{}[{index}]", list.path);
    list.value.iter().enumerate().filter_map(|(index, value)| read(value, &path(index), f)).collect()
}
