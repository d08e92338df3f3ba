//! A configuration as one would write it: every key with its value, defaults included, secrets struck out.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::time::Duration;

use super::rules::shown;
use super::secrets::STRUCK_OUT;
use super::{
    Admin, Balance, Check, CheckKind, Cluster, Config, Dns, Keepalive, Listener, Log, LogFormat, LogSessions,
    MaxLag, Node, OnTrouble, Runtime, Sessions, Tls,
};
use crate::base::secret::Secret;

/// One mapping of the file and its keys: `check`, `nodes.db1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// Where it stands. Of a list, the name of the entry stands in place of its number.
    pub path: String,
    /// The list it is an entry of, where it matters which comes first.
    pub list: Option<String>,
    pub keys: Vec<(&'static str, Value)>,
}

/// What a key has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// As one would write it.
    Plain(String),
    /// What must not be shown.
    Secret(Option<Secret>),
}

impl Value {
    /// As it may be shown.
    pub(super) fn shown(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(Some(secret)) if !secret.is_empty() => STRUCK_OUT,
            Self::Secret(_) => "",
        }
    }
}

impl Section {
    pub(super) fn new(path: impl Into<String>, keys: Vec<(&'static str, Value)>) -> Self {
        Self { path: path.into(), list: None, keys }
    }

    pub(super) fn of_list(list: String, name: impl Display, keys: Vec<(&'static str, Value)>) -> Self {
        Self { path: format!("{list}.{name}"), list: Some(list), keys }
    }

    /// Its name in its list.
    pub(super) fn name(&self) -> &str {
        let list = self.list.as_ref().map_or(0, |list| list.len() + 1);
        self.path.get(list..).unwrap_or_default()
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.keys.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// All of it in one line: `{addr: db3:5432, weight: 100}`.
    pub(super) fn in_one(&self) -> String {
        let keys = self.keys.iter().map(|(key, value)| format!("{key}: {}", value.shown()));
        format!("{{{}}}", keys.collect::<Vec<_>>().join(", "))
    }
}

/// Whether the keys of the only cluster can stand at the top of the file.
pub(super) fn is_plain(config: &Config) -> bool {
    match config.clusters.as_slice() {
        [] => true,
        [only] => only.name == "main",
        _ => false,
    }
}

/// Every key. `is_plain`: those of the cluster stand at the top.
///
/// Each structure is taken apart without `..`, so that no key is forgotten here.
pub(super) fn sections(config: &Config, is_plain: bool) -> Vec<Section> {
    let Config { clusters, listeners, fronts, dns, admin, log, runtime, warnings: _, read: _ } = config;
    let mut all = Vec::new();
    for cluster in clusters {
        let Cluster { name, nodes, check, sessions } = &**cluster;
        let prefix = if is_plain { String::new() } else { format!("clusters.{name}.") };
        all.extend(nodes.iter().map(|node| of_node(&prefix, node)));
        all.push(of_check(&prefix, check));
        all.push(of_sessions(&prefix, sessions));
    }
    all.extend(listeners.iter().map(|listener| of_listener(config, listener)));
    all.extend(fronts.iter().flat_map(|front| super::written_http::of_front(config, front)));
    let Dns { refresh, all_addresses } = dns;
    all.push(Section::new("dns", vec![("refresh", time(*refresh)), ("all_addresses", plain(all_addresses))]));
    if let Some(Admin { bind, token }) = admin {
        let keys = vec![("bind", plain(bind)), ("token", Value::Secret(token.clone()))];
        all.push(Section::new("admin", keys));
    }
    all.push(of_log(log));
    let Runtime { threads, drain_delay, drain_timeout, watch_config } = runtime;
    all.push(Section::new(
        "runtime",
        vec![
            ("threads", plain(threads)),
            ("drain_delay", time(*drain_delay)),
            ("drain_timeout", time(*drain_timeout)),
            ("watch_config", plain(watch_config)),
        ],
    ));
    all
}

fn of_node(prefix: &str, node: &Node) -> Section {
    let Node { name, addr, role, weight, backup, max_connections, password } = node;
    let mut keys = vec![
        ("addr", plain(addr)),
        ("role", plain(role.map_or("auto", |role| role.as_str()))),
        ("weight", plain(weight)),
        ("backup", plain(backup)),
        ("max_connections", limit(*max_connections)),
    ];
    if password.is_some() {
        keys.push(("password", Value::Secret(password.clone())));
    }
    Section::of_list(format!("{prefix}nodes"), name, keys)
}

fn of_check(prefix: &str, check: &Check) -> Section {
    let Check {
        kind,
        interval,
        fast_interval,
        down_interval,
        timeout,
        rise,
        fall,
        user,
        password,
        dbname,
        application_name,
        max_lag,
        passive,
    } = check;
    let max_lag = match max_lag {
        None => plain(0),
        Some(MaxLag::Time(most)) => time(*most),
        Some(MaxLag::Bytes(most)) => size(*most),
    };
    let keys = vec![
        ("type", plain(CheckKind::as_str(*kind))),
        ("interval", time(*interval)),
        ("fast_interval", time(*fast_interval)),
        ("down_interval", time(*down_interval)),
        ("timeout", time(*timeout)),
        ("rise", plain(rise)),
        ("fall", plain(fall)),
        ("user", plain(user)),
        ("password", Value::Secret(password.clone())),
        ("dbname", plain(dbname)),
        ("application_name", plain(application_name)),
        ("max_lag", max_lag),
        ("passive", plain(passive)),
    ];
    Section::new(format!("{prefix}check"), keys)
}

fn of_sessions(prefix: &str, sessions: &Sessions) -> Section {
    let Sessions {
        connect_timeout,
        answer_timeout,
        retries,
        queue_timeout,
        queue_size,
        startup_timeout,
        on_down,
        on_demote,
        on_lag,
        on_leave,
        on_drain,
        keepalive,
        tcp_user_timeout,
    } = sessions;
    let keepalive = keepalive.map_or_else(
        || "off".to_owned(),
        |Keepalive { idle, interval, count }| {
            format!("{{idle: {}, interval: {}, count: {count}}}", shown(idle), shown(interval))
        },
    );
    let keys = vec![
        ("connect_timeout", time(*connect_timeout)),
        ("answer_timeout", time(*answer_timeout)),
        ("retries", plain(retries)),
        ("queue_timeout", time(*queue_timeout)),
        ("queue_size", plain(queue_size)),
        ("startup_timeout", time(*startup_timeout)),
        ("on_down", on_trouble(*on_down)),
        ("on_demote", on_trouble(*on_demote)),
        ("on_lag", on_trouble(*on_lag)),
        ("on_leave", on_trouble(*on_leave)),
        ("on_drain", on_trouble(*on_drain)),
        ("keepalive", Value::Plain(keepalive)),
        ("tcp_user_timeout", time(tcp_user_timeout.unwrap_or_default())),
    ];
    Section::new(format!("{prefix}sessions"), keys)
}

fn of_listener(config: &Config, listener: &Listener) -> Section {
    let Listener { name, bind, cluster, target, balance, max_connections, tls } = listener;
    let cluster = config.clusters.get(*cluster).map_or("", |cluster| cluster.name.as_str());
    let tls = match tls {
        Tls::Passthrough => "passthrough",
        Tls::Off => "off",
    };
    let keys = vec![
        ("bind", plain(bind)),
        ("cluster", plain(cluster)),
        ("target", plain(target)),
        ("balance", plain(Balance::as_str(*balance))),
        ("max_connections", plain(max_connections)),
        ("tls", plain(tls)),
    ];
    Section::new(format!("listeners.{name}"), keys)
}

fn of_log(log: &Log) -> Section {
    let Log { level, format, sessions, requests } = log;
    let format = match format {
        LogFormat::Auto => "auto",
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let sessions = match sessions {
        LogSessions::Off => "off",
        LogSessions::Errors => "errors",
        LogSessions::End => "end",
        LogSessions::Both => "both",
    };
    let keys = vec![
        ("level", plain(level)),
        ("format", plain(format)),
        ("sessions", plain(sessions)),
        ("requests", super::written_http::log_requests(*requests)),
    ];
    Section::new("log", keys)
}

fn on_trouble(what: OnTrouble) -> Value {
    plain(match what {
        OnTrouble::Keep => "keep",
        OnTrouble::Drain => "drain",
        OnTrouble::Close => "close",
    })
}

pub(super) fn plain(value: impl Display) -> Value {
    Value::Plain(value.to_string())
}

/// `0` where it is off.
pub(super) fn time(time: Duration) -> Value {
    Value::Plain(if time.is_zero() { "0".to_owned() } else { shown(time) })
}

/// With the largest unit that leaves a whole number.
pub(super) fn size(bytes: u64) -> Value {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = UNITS.iter().find(|(_, bits)| bytes != 0 && bytes.is_multiple_of(1 << bits));
    whole.map_or_else(|| plain(bytes), |(unit, bits)| Value::Plain(format!("{}{unit}", bytes >> bits)))
}

/// 0: no limit.
pub(super) fn limit(limit: Option<NonZeroU32>) -> Value {
    plain(limit.map_or(0, NonZeroU32::get))
}

/// `[a, b]`.
pub(super) fn list(items: impl IntoIterator<Item = impl Display>) -> Value {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    Value::Plain(format!("[{}]", items.join(", ")))
}
