//! The part of the file about HTTP, as written; `file.rs` has the rest, and says how.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::file::entries;
use super::finding::Findings;
use super::http::{Forwarded, Network};
use super::source::Pos;
use super::table::{Given, Table, keys_listed, read};
use super::tree::{Key, Kind, Value};
use super::{Balance, NodeAddr, key, keys_http as keys, words, words_http};

/// `http`, or one entry of it.
pub(super) struct FileFront {
    /// `http`, or `http[0]` in a list.
    pub path: String,
    /// Where it starts; of a single one, its key.
    pub at: Pos,
    pub name: Option<Given<String>>,
    pub bind: Option<Given<SocketAddr>>,
    /// Whether `bind` was left out, by the only one.
    pub has_default_bind: bool,
    /// What its groups have unless they say otherwise.
    pub service: FileService,
    /// With `upstreams`, the group `default`. A wrong one is here as well, so that its name is known.
    pub groups: Vec<FileGroup>,
    /// Left out, everything goes to the only group.
    pub routes: Option<Given<Vec<FileRoute>>>,
    pub methods: Option<FileMethods>,
    pub http2: Option<Given<bool>>,
    pub limits: FileLimits,
    pub retries: FileRetries,
    pub forwarded: Option<Given<Forwarded>>,
    pub trusted: Vec<Given<Network>>,
    pub via: Option<Given<bool>>,
    pub cache: Option<FileCache>,
    /// Inner `None`: none is meant.
    pub listener: Option<Given<Option<String>>>,
    /// Inner `None`: none is meant.
    pub monitor_uri: Option<Given<Option<String>>>,
    /// Whether nothing in it is wrong, so that rules about the whole say something new.
    pub is_sound: bool,
}

/// The keys that a front and its groups share.
#[derive(Clone, Default)]
pub(super) struct FileService {
    pub balance: Option<Given<Balance>>,
    pub check: Option<FileHttpCheck>,
    pub passive: Option<Given<bool>>,
    pub connect_timeout: Option<Given<Duration>>,
    pub response_timeout: Option<Given<Duration>>,
}

/// One entry of `groups`.
pub(super) struct FileGroup {
    pub name: Given<String>,
    pub upstreams: Given<Vec<FileUpstream>>,
    pub service: FileService,
}

/// One entry of `upstreams`.
pub(super) struct FileUpstream {
    pub path: String,
    /// `None`: wrong or missing, and reported.
    pub addr: Option<Given<NodeAddr>>,
    pub weight: Option<Given<u32>>,
    pub backup: Option<Given<bool>>,
    pub max_connections: Option<Given<u32>>,
}

/// `check` of a front or a group.
#[derive(Clone, Default)]
pub(super) struct FileHttpCheck {
    pub is_off: bool,
    pub path: Option<Given<String>>,
    pub host: Option<Given<Option<String>>>,
    pub interval: Option<Given<Duration>>,
    pub fast_interval: Option<Given<Duration>>,
    pub timeout: Option<Given<Duration>>,
    pub rise: Option<Given<u32>>,
    pub fall: Option<Given<u32>>,
    pub expect: Option<Given<Vec<RangeInclusive<u16>>>>,
}

/// One entry of `routes`.
pub(super) struct FileRoute {
    pub path: String,
    pub at: Pos,
    /// Inner `None`: every host.
    pub host: Option<Given<Option<String>>>,
    /// Inner `None`: every path.
    pub prefix: Option<Given<Option<String>>>,
    pub group: Option<Given<String>>,
}

/// `methods`.
pub(super) enum FileMethods {
    /// Also when something is wrong with them, and reported.
    Any,
    Only(Vec<Given<String>>),
}

/// What a front asks of its clients.
pub(super) struct FileLimits {
    pub max_connections: Option<Given<u32>>,
    pub max_in_flight: Option<Given<u32>>,
    pub queue_size: Option<Given<u32>>,
    pub queue_timeout: Option<Given<Duration>>,
    pub max_header: Option<Given<u64>>,
    /// Inner `None`: no limit.
    pub max_body: Option<Given<Option<u64>>>,
    pub header_timeout: Option<Given<Duration>>,
    pub body_timeout: Option<Given<Duration>>,
    pub idle_timeout: Option<Given<Duration>>,
}

/// `retries`.
#[derive(Default)]
pub(super) struct FileRetries {
    pub max: Option<Given<u32>>,
    pub methods: Option<Vec<Given<String>>>,
    pub statuses: Option<Vec<Given<u32>>>,
    /// Inner `None`: no limit.
    pub budget: Option<Given<Option<u32>>>,
}

/// `cache`, when it is not off.
#[derive(Default)]
pub(super) struct FileCache {
    /// Inner `None`: no cache after all.
    pub size: Option<Given<Option<u64>>>,
    pub max_entry: Option<Given<u64>>,
    pub stale_while_revalidate: Option<Given<Duration>>,
    pub stale_if_error: Option<Given<Duration>>,
}

/// `http`: one front, or a list of them.
pub(super) fn read_fronts(top: &Table<'_>, f: &mut Findings<'_>) -> Vec<FileFront> {
    let Some(value) = top.value("http") else { return Vec::new() };
    match &value.kind {
        Kind::Null => Vec::new(),
        Kind::Seq(items) => {
            let path = |index: usize| format!("http[{index}]");
            let is_only = items.len() == 1;
            let fronts = items.iter().enumerate();
            fronts.filter_map(|(index, item)| read_front(item, &path(index), item.at, is_only, f)).collect()
        }
        _ => {
            let at = top.key_at("http").unwrap_or(value.at);
            read_front(value, "http", at, true, f).into_iter().collect()
        }
    }
}

fn read_front(value: &Value, path: &str, at: Pos, is_only: bool, f: &mut Findings<'_>) -> Option<FileFront> {
    let before = f.count();
    let table = Table::open(value, path, keys::HTTP, f)?;
    for key in ["name", "bind"] {
        if !is_only && table.value(key).is_none() && !table.has_unknown {
            f.fault(path, at, &format!("has no `{key}`, and is not the only front"));
        }
    }
    let mut front = FileFront {
        path: path.to_owned(),
        at,
        name: table.get(&keys::front::NAME, f),
        bind: table.get(&keys::front::BIND, f),
        has_default_bind: is_only && table.value("bind").is_none(),
        service: read_service(&table, f),
        groups: read_groups(&table, at, f),
        routes: table.list("routes", f).map(|list| Given {
            value: entries(&list, f, read_route),
            at: list.at,
            path: list.path,
        }),
        methods: read_methods(&table, f),
        http2: table.get(&keys::front::HTTP2, f),
        limits: read_limits(&table, f),
        retries: read_retries(&table, f),
        forwarded: table.get(&keys::front::FORWARDED, f),
        trusted: words_of(&table, &keys::front::TRUSTED, f).unwrap_or_default(),
        via: table.get(&keys::front::VIA, f),
        cache: read_cache(&table, f),
        listener: table.get(&keys::front::LISTENER, f),
        monitor_uri: table.get(&keys::front::MONITOR_URI, f),
        is_sound: false,
    };
    let has_routes = table.value("routes").is_some_and(|routes| match &routes.kind {
        Kind::Null => false,
        Kind::Seq(routes) => !routes.is_empty(),
        _ => true,
    });
    if let ([_, second, ..], false, false) = (front.groups.as_slice(), has_routes, table.has_unknown) {
        f.fault(
            path,
            second.name.at,
            "several groups need `routes`: only to a single one does everything go",
        )
        .help(format!("write `routes: [{{path: /{0}, group: {0}}}, …]`", second.name.value));
    }
    front.is_sound = f.count() == before && !table.has_unknown;
    Some(front)
}

/// `groups`, or `upstreams` as the only one of them.
fn read_groups(front: &Table<'_>, at: Pos, f: &mut Findings<'_>) -> Vec<FileGroup> {
    let groups = front.value("groups").filter(|value| !matches!(value.kind, Kind::Null));
    let Some(groups) = groups else {
        let before = f.count();
        let list = front.list("upstreams", f);
        if list.is_none() && f.count() == before && !front.has_unknown {
            f.fault(&front.path, at, "has no `upstreams`")
                .help("write at least one, such as `upstreams: [users1:8080]`");
        }
        let name = Given { value: "default".to_owned(), at, path: front.path.clone() };
        let upstreams = match list {
            Some(list) => read_upstreams(&list, f),
            None => Given { value: Vec::new(), at, path: front.path_of("upstreams") },
        };
        return vec![FileGroup { name, upstreams, service: FileService::default() }];
    };
    if let Some(at) = front.key_at("upstreams") {
        let message = "stands both here and under `groups`: here it is the only group, `default`";
        f.fault(&front.path_of("upstreams"), at, message)
            .help(format!("move it to {}.default", front.path_of("groups")));
        // For the faults in it.
        let _ = front.list("upstreams", f).map(|list| read_upstreams(&list, f));
    }
    let path = front.path_of("groups");
    let Kind::Map(entries) = &groups.kind else {
        if !matches!(groups.kind, Kind::Bad) {
            f.fault(&path, groups.at, "must be a mapping of names to groups")
                .help("write `users: [users1:8080]`");
        }
        return Vec::new();
    };
    if entries.is_empty() {
        f.fault(&path, groups.at, "no group is written here");
    }
    entries.iter().map(|(key, value)| read_group(key, value, &path, f)).collect()
}

fn read_group(key: &Key, value: &Value, groups: &str, f: &mut Findings<'_>) -> FileGroup {
    let path = format!("{groups}.{}", key.name);
    if let Err(message) = (words::NAME.parse)(&key.name) {
        f.fault(groups, key.at, &message);
    }
    let mut group = FileGroup {
        name: Given { value: key.name.clone(), at: key.at, path: path.clone() },
        upstreams: Given { value: Vec::new(), at: key.at, path: path.clone() },
        service: FileService::default(),
    };
    match &value.kind {
        Kind::Bad => (),
        Kind::Seq(items) => {
            group.upstreams = read_upstreams(&Given { value: items.as_slice(), at: key.at, path }, f);
        }
        Kind::Scalar(_) => {
            let keys = keys_listed(keys::GROUP);
            let message = format!("must be a list of upstreams or a mapping of {keys}, not a single value");
            f.fault(&path, value.at, &message);
        }
        Kind::Null | Kind::Map(_) => {
            let before = f.count();
            let Some(table) = Table::open(value, &path, keys::GROUP, f) else { return group };
            match table.list("upstreams", f) {
                Some(list) => group.upstreams = read_upstreams(&list, f),
                None if f.count() == before => {
                    f.fault(&path, key.at, "has no `upstreams`");
                }
                None => (),
            }
            group.service = read_service(&table, f);
        }
    }
    group
}

fn read_service(table: &Table<'_>, f: &mut Findings<'_>) -> FileService {
    FileService {
        balance: table.get(&keys::service::BALANCE, f),
        check: read_check(table, f),
        passive: table.get(&keys::service::PASSIVE, f),
        connect_timeout: table.get(&keys::service::CONNECT_TIMEOUT, f),
        response_timeout: table.get(&keys::service::RESPONSE_TIMEOUT, f),
    }
}

fn read_upstreams(list: &Given<&[Value]>, f: &mut Findings<'_>) -> Given<Vec<FileUpstream>> {
    if list.value.is_empty() {
        f.fault(&list.path, list.at, "there are none: write at least one, such as `- users1:8080`");
    }
    Given { value: entries(list, f, read_upstream), at: list.at, path: list.path.clone() }
}

fn read_upstream(value: &Value, path: &str, f: &mut Findings<'_>) -> Option<FileUpstream> {
    let mut upstream =
        FileUpstream { path: path.to_owned(), addr: None, weight: None, backup: None, max_connections: None };
    match &value.kind {
        Kind::Scalar(_) | Kind::Null => upstream.addr = read(value, path, &words_http::UPSTREAM, f),
        Kind::Bad => return None,
        Kind::Map(_) => {
            let table = Table::open(value, path, keys::UPSTREAM, f)?;
            upstream.addr = table.get(&keys::upstream::ADDR, f);
            if table.value("addr").is_none() && !table.has_unknown {
                f.fault(path, table.at, "has no `addr`");
            }
            upstream.weight = table.get(&keys::upstream::WEIGHT, f);
            upstream.backup = table.get(&keys::upstream::BACKUP, f);
            upstream.max_connections = table.get(&keys::upstream::MAX_CONNECTIONS, f);
        }
        Kind::Seq(_) => {
            f.fault(path, value.at, "must be `host:port` or a mapping with `addr`, not a list");
            return None;
        }
    }
    Some(upstream)
}

fn read_check(service: &Table<'_>, f: &mut Findings<'_>) -> Option<FileHttpCheck> {
    let value = service.value("check").filter(|value| !matches!(value.kind, Kind::Null))?;
    if is_off(value) {
        return Some(FileHttpCheck { is_off: true, ..FileHttpCheck::default() });
    }
    let table = Table::open(value, &service.path_of("check"), keys::HTTP_CHECK, f)?;
    Some(FileHttpCheck {
        is_off: false,
        path: table.get(&keys::check::PATH, f),
        host: table.get(&keys::check::HOST, f),
        interval: table.get(&keys::check::INTERVAL, f),
        fast_interval: table.get(&keys::check::FAST_INTERVAL, f),
        timeout: table.get(&keys::check::TIMEOUT, f),
        rise: table.get(&keys::check::RISE, f),
        fall: table.get(&keys::check::FALL, f),
        expect: table.get(&keys::check::EXPECT, f),
    })
}

fn read_route(value: &Value, path: &str, f: &mut Findings<'_>) -> Option<FileRoute> {
    let table = Table::open(value, path, keys::ROUTE, f)?;
    if table.value("group").is_none() && !table.has_unknown {
        f.fault(path, table.at, "has no `group`");
    }
    Some(FileRoute {
        path: path.to_owned(),
        at: table.at,
        host: table.get(&keys::route::HOST, f),
        prefix: table.get(&keys::route::PATH, f),
        group: table.get(&keys::route::GROUP, f),
    })
}

fn read_methods(front: &Table<'_>, f: &mut Findings<'_>) -> Option<FileMethods> {
    let value = front.value("methods")?;
    let before = f.count();
    if !matches!(value.kind, Kind::Seq(_)) {
        let _: Option<Given<()>> = read(value, &front.path_of("methods"), &words_http::ANY_METHOD, f);
        return Some(FileMethods::Any);
    }
    let methods = words_of(front, &keys::front::METHODS, f)?;
    if methods.is_empty() && f.count() == before {
        f.fault(
            &front.path_of("methods"),
            value.at,
            "there are none: write at least one, such as GET, or any",
        );
    }
    Some(if f.count() == before { FileMethods::Only(methods) } else { FileMethods::Any })
}

fn read_limits(table: &Table<'_>, f: &mut Findings<'_>) -> FileLimits {
    FileLimits {
        max_connections: table.get(&keys::front::MAX_CONNECTIONS, f),
        max_in_flight: table.get(&keys::front::MAX_IN_FLIGHT, f),
        queue_size: table.get(&keys::front::QUEUE_SIZE, f),
        queue_timeout: table.get(&keys::front::QUEUE_TIMEOUT, f),
        max_header: table.get(&keys::front::MAX_HEADER, f),
        max_body: table.get(&keys::front::MAX_BODY, f),
        header_timeout: table.get(&keys::front::HEADER_TIMEOUT, f),
        body_timeout: table.get(&keys::front::BODY_TIMEOUT, f),
        idle_timeout: table.get(&keys::front::IDLE_TIMEOUT, f),
    }
}

fn read_retries(front: &Table<'_>, f: &mut Findings<'_>) -> FileRetries {
    let Some(value) = front.value("retries") else { return FileRetries::default() };
    if matches!(value.kind, Kind::Scalar(_)) {
        return FileRetries { max: front.get(&keys::front::RETRIES, f), ..FileRetries::default() };
    }
    let table = Table::open(value, &front.path_of("retries"), keys::HTTP_RETRIES, f);
    table.map_or_else(FileRetries::default, |table| FileRetries {
        max: table.get(&keys::retries::MAX, f),
        methods: words_of(&table, &keys::retries::METHODS, f),
        statuses: words_of(&table, &keys::retries::STATUSES, f),
        budget: table.get(&keys::retries::BUDGET, f),
    })
}

fn read_cache(front: &Table<'_>, f: &mut Findings<'_>) -> Option<FileCache> {
    let value = front.value("cache").filter(|value| !matches!(value.kind, Kind::Null))?;
    if matches!(value.kind, Kind::Scalar(_)) {
        let size = front.get(&keys::front::CACHE_OF, f)?;
        return Some(FileCache { size: Some(size), ..FileCache::default() });
    }
    let table = Table::open(value, &front.path_of("cache"), keys::CACHE, f)?;
    Some(FileCache {
        size: table.get(&keys::cache::SIZE, f),
        max_entry: table.get(&keys::cache::MAX_ENTRY, f),
        stale_while_revalidate: table.get(&keys::cache::STALE_WHILE_REVALIDATE, f),
        stale_if_error: table.get(&keys::cache::STALE_IF_ERROR, f),
    })
}

fn is_off(value: &Value) -> bool {
    matches!(&value.kind, Kind::Scalar(scalar) if words::is_off(&scalar.text))
}

/// A list of which each entry is a word of `key`.
pub(super) fn words_of<T>(
    table: &Table<'_>,
    key: &key::Key<T>,
    f: &mut Findings<'_>,
) -> Option<Vec<Given<T>>> {
    let list = table.list(key.about.name, f)?;
    Some(entries(&list, f, |value, path, f| read(value, path, key.word, f)))
}
