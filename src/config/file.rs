//! The file as written: every key pgsplit knows, none of them required here, each with its place.
//!
//! What a key is called and takes is in `keys.rs`. `check.rs` fills in what was left out. What is about HTTP is in
//! `file_http.rs`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::file_http::{FileFront, read_fronts, words_of};
use super::finding::Findings;
use super::http::LogRequests;
use super::key::Keys;
use super::source::Pos;
use super::table::{Given, Table, read};
use super::tree::{Key, Kind, Value};
use super::words;
use super::{
    Balance, CheckKind, LogFormat, LogSessions, MaxLag, NodeAddr, OnTrouble, PatroniAddr, Tls, key, keys,
};
use crate::base::role::{Role, Target};
use crate::base::secret::Secret;

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
    pub patroni: Option<Given<PatroniAddr>>,
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
    /// Inner `None`: switched off.
    pub socket: Option<Given<Option<PathBuf>>>,
    pub hosts: Vec<Given<String>>,
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
    let Some(top) = Table::open(root, "", keys::TOP, f) else { return File::default() };
    let clusters = read_clusters(&top, f);
    let listeners = top.list("listeners", f).map(|list| Given {
        value: entries(&list, f, read_listener),
        at: list.at,
        path: list.path,
    });
    let log = section(&top, "log", keys::LOG, f);
    let runtime = section(&top, "runtime", keys::RUNTIME, f);
    File {
        clusters,
        listeners,
        fronts: read_fronts(&top, f),
        dns: read_dns(&top, f),
        admin: read_admin(top.value("admin"), f),
        log_level: get(log.as_ref(), &keys::log::LEVEL, f),
        log_format: get(log.as_ref(), &keys::log::FORMAT, f),
        log_sessions: get(log.as_ref(), &keys::log::SESSIONS, f),
        log_requests: get(log.as_ref(), &keys::log::REQUESTS, f),
        threads: get(runtime.as_ref(), &keys::runtime::THREADS, f),
        drain_delay: get(runtime.as_ref(), &keys::runtime::DRAIN_DELAY, f),
        drain_timeout: get(runtime.as_ref(), &keys::runtime::DRAIN_TIMEOUT, f),
        watch_config: get(runtime.as_ref(), &keys::runtime::WATCH_CONFIG, f),
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
    for key in keys::CLUSTER.iter().map(|about| about.name) {
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
    let is_there = |key: &str| top.key_at(key).is_some();
    let has_http = top.value("http").is_some_and(|http| !matches!(http.kind, Kind::Null));
    has_http
        && !top.has_unknown
        && !is_there("listeners")
        && !keys::CLUSTER.iter().any(|about| is_there(about.name))
}

fn read_named_cluster(key: &Key, value: &Value, f: &mut Findings<'_>) -> Option<FileCluster> {
    let path = format!("clusters.{}", key.name);
    if let Err(message) = (words::NAME.parse)(&key.name) {
        f.fault("clusters", key.at, &message);
    }
    let table = Table::open(value, &path, keys::CLUSTER, f)?;
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
    let check =
        section(table, "check", keys::CHECK, f).map(|check| read_check(&check, f)).unwrap_or_default();
    let sessions = section(table, "sessions", keys::SESSIONS, f)
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
        patroni: None,
    };
    match &value.kind {
        Kind::Scalar(_) | Kind::Null => node.addr = read(value, path, &words::ADDR, f),
        Kind::Bad => return None,
        Kind::Map(_) => {
            let table = Table::open(value, path, keys::NODE, f)?;
            node.addr = table.get(&keys::node::ADDR, f);
            if table.value("addr").is_none() && !table.has_unknown {
                f.fault(path, table.at, "has no `addr`");
            }
            node.name = table.get(&keys::node::NAME, f);
            node.role = table.get(&keys::node::ROLE, f);
            node.weight = table.get(&keys::node::WEIGHT, f);
            node.backup = table.get(&keys::node::BACKUP, f);
            node.max_connections = table.get(&keys::node::MAX_CONNECTIONS, f);
            node.patroni = table.get(&keys::node::PATRONI, f);
        }
        Kind::Seq(_) => {
            f.fault(path, value.at, "must be `host:port` or a mapping with `addr`, not a list");
            return None;
        }
    }
    Some(node)
}

fn read_listener(value: &Value, path: &str, f: &mut Findings<'_>) -> Option<FileListener> {
    let table = Table::open(value, path, keys::LISTENER, f)?;
    for key in ["name", "bind"] {
        if table.value(key).is_none() && !table.has_unknown {
            f.fault(path, table.at, &format!("has no `{key}`"));
        }
    }
    if let (Some(_), Some(at)) = (table.value("target"), table.key_at("target_session_attrs")) {
        f.fault(path, at, "`target` and `target_session_attrs` are the same key: leave one out");
    }
    let target = table.get(&keys::listener::TARGET, f);
    let libpq_target = table.get(&keys::listener::TARGET_SESSION_ATTRS, f);
    Some(FileListener {
        path: path.to_owned(),
        at: table.at,
        name: table.get(&keys::listener::NAME, f),
        bind: table.get(&keys::listener::BIND, f),
        cluster: table.get(&keys::listener::CLUSTER, f),
        target: target.or(libpq_target),
        balance: table.get(&keys::listener::BALANCE, f),
        max_connections: table.get(&keys::listener::MAX_CONNECTIONS, f),
        tls: read_tls(&table, f),
    })
}

fn read_tls(listener: &Table<'_>, f: &mut Findings<'_>) -> Option<Given<Tls>> {
    let value = listener.value("tls")?;
    let path = listener.path_of("tls");
    if matches!(value.kind, Kind::Scalar(_)) {
        return read(value, &path, &words::TLS_MODE, f);
    }
    Table::open(value, &path, keys::TLS, f)?.get(&keys::listener::TLS_MODE, f)
}

fn read_check(table: &Table<'_>, f: &mut Findings<'_>) -> FileCheck {
    let _: Option<Given<()>> = table.get(&keys::check::SSLMODE, f);
    FileCheck {
        kind: table.get(&keys::check::TYPE, f),
        interval: table.get(&keys::check::INTERVAL, f),
        fast_interval: table.get(&keys::check::FAST_INTERVAL, f),
        down_interval: table.get(&keys::check::DOWN_INTERVAL, f),
        timeout: table.get(&keys::check::TIMEOUT, f),
        rise: table.get(&keys::check::RISE, f),
        fall: table.get(&keys::check::FALL, f),
        user: table.get(&keys::check::USER, f),
        password: table.get(&keys::check::PASSWORD, f),
        password_file: table.get(&keys::check::PASSWORD_FILE, f),
        dbname: table.get(&keys::check::DBNAME, f),
        application_name: table.get(&keys::check::APPLICATION_NAME, f),
        max_lag: table.get(&keys::check::MAX_LAG, f),
        passive: table.get(&keys::check::PASSIVE, f),
    }
}

fn read_sessions(table: &Table<'_>, f: &mut Findings<'_>) -> FileSessions {
    FileSessions {
        connect_timeout: table.get(&keys::sessions::CONNECT_TIMEOUT, f),
        answer_timeout: table.get(&keys::sessions::ANSWER_TIMEOUT, f),
        retries: table.get(&keys::sessions::RETRIES, f),
        queue_timeout: table.get(&keys::sessions::QUEUE_TIMEOUT, f),
        queue_size: table.get(&keys::sessions::QUEUE_SIZE, f),
        startup_timeout: table.get(&keys::sessions::STARTUP_TIMEOUT, f),
        on_down: table.get(&keys::sessions::ON_DOWN, f),
        on_demote: table.get(&keys::sessions::ON_DEMOTE, f),
        on_lag: table.get(&keys::sessions::ON_LAG, f),
        on_leave: table.get(&keys::sessions::ON_LEAVE, f),
        on_drain: table.get(&keys::sessions::ON_DRAIN, f),
        keepalive: read_keepalive(table, f),
        tcp_user_timeout: table.get(&keys::sessions::TCP_USER_TIMEOUT, f),
    }
}

fn read_keepalive(sessions: &Table<'_>, f: &mut Findings<'_>) -> Option<FileKeepalive> {
    let value = sessions.value("keepalive")?;
    if matches!(&value.kind, Kind::Scalar(scalar) if words::is_off(&scalar.text) || scalar.text == "0") {
        return Some(FileKeepalive::Off);
    }
    let table = Table::open(value, &sessions.path_of("keepalive"), keys::KEEPALIVE, f)?;
    Some(FileKeepalive::On {
        idle: table.get(&keys::keepalive::IDLE, f),
        interval: table.get(&keys::keepalive::INTERVAL, f),
        count: table.get(&keys::keepalive::COUNT, f),
    })
}

/// Reads what stands under `admin`.
pub(super) fn read_admin(value: Option<&Value>, f: &mut Findings<'_>) -> FileAdmin {
    let Some(value) = value else { return FileAdmin::default() };
    if matches!(&value.kind, Kind::Scalar(scalar) if words::is_off(&scalar.text)) {
        let off = Given { value: None, at: value.at, path: "admin".to_owned() };
        return FileAdmin { bind: Some(off), ..FileAdmin::default() };
    }
    let admin = Table::open(value, "admin", keys::ADMIN, f);
    FileAdmin {
        bind: get(admin.as_ref(), &keys::admin::BIND, f),
        socket: get(admin.as_ref(), &keys::admin::SOCKET, f),
        hosts: admin.as_ref().and_then(|admin| words_of(admin, &keys::admin::HOSTS, f)).unwrap_or_default(),
        token: get(admin.as_ref(), &keys::admin::TOKEN, f),
        token_file: get(admin.as_ref(), &keys::admin::TOKEN_FILE, f),
    }
}

fn read_dns(top: &Table<'_>, f: &mut Findings<'_>) -> FileDns {
    let dns = section(top, "dns", keys::DNS, f);
    FileDns {
        refresh: get(dns.as_ref(), &keys::dns::REFRESH, f),
        all_addresses: get(dns.as_ref(), &keys::dns::ALL_ADDRESSES, f),
    }
}

/// The mapping under `key`, when there is one.
pub(super) fn section<'v>(
    table: &Table<'v>,
    key: &str,
    keys: Keys,
    f: &mut Findings<'_>,
) -> Option<Table<'v>> {
    Table::open(table.value(key)?, &table.path_of(key), keys, f)
}

fn get<T>(table: Option<&Table<'_>>, key: &key::Key<T>, f: &mut Findings<'_>) -> Option<Given<T>> {
    table?.get(key, f)
}

pub(super) fn entries<T>(
    list: &Given<&[Value]>,
    f: &mut Findings<'_>,
    read: impl Fn(&Value, &str, &mut Findings<'_>) -> Option<T>,
) -> Vec<T> {
    let path = |index: usize| format!("{}[{index}]", list.path);
    list.value.iter().enumerate().filter_map(|(index, value)| read(value, &path(index), f)).collect()
}
