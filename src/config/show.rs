//! A configuration as one would write it: every key with its value, defaults included, secrets struck out.
//!
//! Written out as YAML and read again it is the same configuration, but for its secrets. What HTTP has of it is in
//! `show_http.rs`.

use std::fmt::{self, Display, Write};
use std::num::NonZeroU32;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::key::{Keys, Without};
use super::rules::shown;
use super::secrets::STRUCK_OUT;
use super::show_http::{fronts, log_requests};
use super::{
    Admin, Balance, Check, CheckKind, Cluster, Config, Dns, Keepalive, Listener, Log, LogFormat, LogSessions,
    MaxLag, Node, OnTrouble, Runtime, Sessions, Tls, keys,
};
use crate::base::secret::Secret;
use crate::base::units::{parse_duration, parse_size};

/// A part of a configuration. Serialised it has the shape of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A single value.
    One(Value),
    /// A list.
    List(Vec<Shown>),
    /// A mapping, in the order of the reference.
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, or a name of one's own.
    pub key: String,
    /// What it has.
    pub value: Shown,
    /// Whether that is what holds without it.
    pub is_default: bool,
}

/// A single value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A word, an address, any text.
    Text(String),
    /// A whole number.
    Number(u64),
    /// Yes or no.
    YesNo(bool),
    /// A time; zero: `0`.
    Time(Duration),
    /// A size in bytes.
    Size(u64),
    /// What must not be shown; empty: there is none.
    Secret(Secret),
}

/// All of `config`.
///
/// Each structure is taken apart without `..`, so that no key is forgotten here.
#[must_use]
pub fn show(config: &Config) -> Shown {
    let Config { clusters, listeners, fronts: _, dns, admin, log, runtime, warnings: _, read: _ } = config;
    let mut all = Vec::new();
    match clusters.as_slice() {
        [] => (),
        [only] if only.name == "main" => all.extend(cluster(only)),
        several => {
            let named = |one: &Cluster| entry(&one.name, mapping(keys::CLUSTER, cluster(one)));
            all.push(("clusters", Shown::Mapping(several.iter().map(|one| named(one)).collect())));
        }
    }
    if !listeners.is_empty() {
        all.push(("listeners", Shown::List(listeners.iter().map(|one| listener(config, one)).collect())));
    }
    all.extend(fronts(config).map(|fronts| ("http", fronts)));
    let Dns { refresh, all_addresses } = dns;
    let of_dns = vec![("refresh", time(*refresh)), ("all_addresses", yes_no(*all_addresses))];
    all.push(("dns", mapping(keys::DNS, of_dns)));
    all.push(("admin", admin.as_ref().map_or_else(|| text("off"), of_admin)));
    all.push(("log", of_log(log)));
    let Runtime { threads, drain_delay, drain_timeout, watch_config } = runtime;
    let of_runtime = vec![
        ("threads", number(*threads as u64)),
        ("drain_delay", time(*drain_delay)),
        ("drain_timeout", time(*drain_timeout)),
        ("watch_config", yes_no(*watch_config)),
    ];
    all.push(("runtime", mapping(keys::RUNTIME, of_runtime)));
    mapping(keys::TOP, all)
}

fn cluster(cluster: &Cluster) -> Vec<(&'static str, Shown)> {
    let Cluster { name: _, nodes, check, sessions } = cluster;
    vec![
        ("nodes", Shown::List(nodes.iter().map(|one| node(one)).collect())),
        ("check", of_check(check)),
        ("sessions", of_sessions(sessions)),
    ]
}

fn node(node: &Node) -> Shown {
    // The password is from `~/.pgpass`, and no key of the file.
    let Node { name, addr, role, weight, backup, max_connections, password: _, patroni } = node;
    let all = vec![
        ("addr", text(addr)),
        ("name", text(name)),
        ("role", text(role.map_or("auto", |role| role.as_str()))),
        ("weight", number(*weight)),
        ("backup", yes_no(*backup)),
        ("max_connections", limit(*max_connections)),
        ("patroni", text(patroni)),
    ];
    mapping(keys::NODE, all)
}

fn listener(config: &Config, listener: &Listener) -> Shown {
    let Listener { name, bind, cluster, target, balance, max_connections, tls } = listener;
    let cluster = config.clusters.get(*cluster).map_or("", |cluster| cluster.name.as_str());
    let mode = match tls {
        Tls::Passthrough => "passthrough",
        Tls::Off => "off",
    };
    let all = vec![
        ("name", text(name)),
        ("bind", text(bind)),
        ("cluster", text(cluster)),
        ("target", text(target)),
        ("balance", text(Balance::as_str(*balance))),
        ("max_connections", number(max_connections.get())),
        ("tls", mapping(keys::TLS, vec![("mode", text(mode))])),
    ];
    mapping(keys::LISTENER, all)
}

fn of_check(check: &Check) -> Shown {
    let Check {
        kind,
        interval,
        fast_interval,
        down_interval,
        timeout,
        rise,
        fall,
        logs_in,
        user,
        password,
        dbname,
        application_name,
        max_lag,
        passive,
    } = check;
    let max_lag = match max_lag {
        None => number(0u64),
        Some(MaxLag::Time(most)) => time(*most),
        Some(MaxLag::Bytes(most)) => size(*most),
    };
    let all = vec![
        ("type", text(CheckKind::as_str(*kind))),
        ("interval", time(*interval)),
        ("fast_interval", time(*fast_interval)),
        ("down_interval", time(*down_interval)),
        ("timeout", time(*timeout)),
        ("rise", number(rise.get())),
        ("fall", number(fall.get())),
        // Written down, the name that is only sent would mean a login there.
        ("user", text(if *logs_in || *kind != CheckKind::Patroni { user } else { "" })),
        ("password", Shown::One(Value::Secret(password.clone().unwrap_or_default()))),
        ("dbname", text(dbname)),
        ("application_name", text(application_name)),
        ("max_lag", max_lag),
        ("passive", yes_no(*passive)),
    ];
    mapping(keys::CHECK, all)
}

fn of_sessions(sessions: &Sessions) -> Shown {
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
        || text("off"),
        |Keepalive { idle, interval, count }| {
            let all = vec![("idle", time(idle)), ("interval", time(interval)), ("count", number(count))];
            mapping(keys::KEEPALIVE, all)
        },
    );
    let all = vec![
        ("connect_timeout", time(*connect_timeout)),
        ("answer_timeout", time(*answer_timeout)),
        ("retries", number(*retries)),
        ("queue_timeout", time(*queue_timeout)),
        ("queue_size", number(*queue_size)),
        ("startup_timeout", time(*startup_timeout)),
        ("on_down", on_trouble(*on_down)),
        ("on_demote", on_trouble(*on_demote)),
        ("on_lag", on_trouble(*on_lag)),
        ("on_leave", on_trouble(*on_leave)),
        ("on_drain", on_trouble(*on_drain)),
        ("keepalive", keepalive),
        ("tcp_user_timeout", time(tcp_user_timeout.unwrap_or_default())),
    ];
    mapping(keys::SESSIONS, all)
}

fn of_admin(admin: &Admin) -> Shown {
    let Admin { bind, socket, hosts, token } = admin;
    let token = Shown::One(Value::Secret(token.clone().unwrap_or_default()));
    let all = vec![
        ("bind", text(bind.map_or_else(String::new, |bind| bind.to_string()))),
        ("socket", socket.as_ref().map_or_else(|| text("off"), |socket| text(socket.path.display()))),
        ("hosts", list(hosts)),
        ("token", token),
    ];
    mapping(keys::ADMIN, all)
}

fn of_log(log: &Log) -> Shown {
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
    let all = vec![
        ("level", text(level)),
        ("format", text(format)),
        ("sessions", text(sessions)),
        ("requests", log_requests(*requests)),
    ];
    mapping(keys::LOG, all)
}

fn on_trouble(what: OnTrouble) -> Shown {
    text(match what {
        OnTrouble::Keep => "keep",
        OnTrouble::Drain => "drain",
        OnTrouble::Close => "close",
    })
}

pub(super) fn text(value: impl Display) -> Shown {
    Shown::One(Value::Text(value.to_string()))
}

pub(super) fn number(value: impl Into<u64>) -> Shown {
    Shown::One(Value::Number(value.into()))
}

pub(super) fn yes_no(value: bool) -> Shown {
    Shown::One(Value::YesNo(value))
}

/// `0` where it is off.
pub(super) fn time(value: Duration) -> Shown {
    Shown::One(Value::Time(value))
}

pub(super) fn size(bytes: u64) -> Shown {
    Shown::One(Value::Size(bytes))
}

/// 0: no limit.
pub(super) fn limit(limit: Option<NonZeroU32>) -> Shown {
    number(limit.map_or(0, NonZeroU32::get))
}

/// A list of single values.
pub(super) fn list(items: impl IntoIterator<Item = impl Display>) -> Shown {
    Shown::List(items.into_iter().map(text).collect())
}

/// A name of one's own and what it has.
pub(super) fn entry(name: &str, value: Shown) -> Entry {
    Entry { key: name.to_owned(), value, is_default: false }
}

/// A mapping of `keys`.
pub(super) fn mapping(keys: Keys, all: Vec<(&'static str, Shown)>) -> Shown {
    let entry = |(key, value): (&'static str, Shown)| {
        let about = keys.iter().find(|about| about.name == key);
        let is_default = match about.map(|about| about.default) {
            Some(Without::Value(default)) => value.is(default),
            // A section is what its keys are.
            _ => matches!(&value, Shown::Mapping(all) if all.iter().all(|entry| entry.is_default)),
        };
        Entry { key: key.to_owned(), value, is_default }
    };
    Shown::Mapping(all.into_iter().map(entry).collect())
}

impl Shown {
    /// Whether it is what `written` would be.
    fn is(&self, written: &str) -> bool {
        match self {
            Self::One(Value::Time(time)) => parse_duration(written).as_ref() == Ok(time),
            Self::One(Value::Size(size)) => parse_size(written).as_ref() == Ok(size),
            Self::One(Value::Secret(secret)) => secret.is_empty() && written.is_empty(),
            Self::One(value) => value.to_string() == written,
            Self::List(_) => self.in_flow() == written,
            Self::Mapping(_) => false,
        }
    }

    /// The value at `path`, such as `check.interval` or `nodes[0].addr`.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Self> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let (key, index) = first.split_once('[').map_or((first, None), |(key, index)| (key, Some(index)));
        let Self::Mapping(all) = self else { return None };
        let mut found = &all.iter().find(|entry| entry.key == key)?.value;
        if let Some(index) = index {
            let Self::List(all) = found else { return None };
            found = all.get(index.strip_suffix(']')?.parse::<usize>().ok()?)?;
        }
        rest.map_or(Some(found), |rest| found.at(rest))
    }

    /// As YAML, with `# default` behind what is a default.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut out = String::new();
        self.block(0, false, &mut out);
        out
    }

    /// Writes it in the block style of YAML, `indent` spaces in; `goes_on`: after a `- ` on the same line.
    fn block(&self, indent: usize, mut goes_on: bool, out: &mut String) {
        let Self::Mapping(all) = self else {
            let _ = writeln!(out, "{}", self.in_flow());
            return;
        };
        for Entry { key, value, is_default } in all {
            let margin = if goes_on { 0 } else { indent };
            goes_on = false;
            let _ = write!(out, "{:margin$}{}:", "", quoted(key));
            match value {
                Self::Mapping(inner) if !inner.is_empty() => {
                    out.push_str(if *is_default { "  # all defaults\n" } else { "\n" });
                    value.block(indent + 2, false, out);
                }
                Self::List(items) if items.iter().any(|item| matches!(item, Self::Mapping(_))) => {
                    out.push('\n');
                    for item in items {
                        let _ = write!(out, "{:indent$}  - ", "");
                        item.block(indent + 4, true, out);
                    }
                }
                _ => {
                    let mark = if *is_default { "  # default" } else { "" };
                    let _ = writeln!(out, " {}{mark}", value.in_flow());
                }
            }
        }
    }

    /// In one line: `[a, b]`, `{addr: db1:5432, weight: 100}`.
    #[must_use]
    pub fn in_flow(&self) -> String {
        match self {
            Self::One(value) => value.written(),
            Self::List(items) => {
                format!("[{}]", items.iter().map(Self::in_flow).collect::<Vec<_>>().join(", "))
            }
            Self::Mapping(all) => {
                let one = |entry: &Entry| format!("{}: {}", quoted(&entry.key), entry.value.in_flow());
                format!("{{{}}}", all.iter().map(one).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl Value {
    /// As it stands in the file, so that it is read again as what it is.
    fn written(&self) -> String {
        match self {
            // A `$` alone is plain, but never before `{` or another.
            Self::Text(text) => quoted(&text.replace('$', "$$")),
            Self::Secret(secret) if secret.is_empty() => "\"\"".to_owned(),
            Self::Secret(_) => format!("\"{STRUCK_OUT}\""),
            other => other.to_string(),
        }
    }
}

impl Display for Value {
    /// The value alone, as it may be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::YesNo(yes) => yes.fmt(f),
            Self::Time(time) if time.is_zero() => f.write_str("0"),
            Self::Time(time) => f.write_str(&shown(*time)),
            Self::Size(bytes) => {
                const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
                let whole = UNITS.iter().find(|(_, bits)| *bytes != 0 && bytes % (1 << bits) == 0);
                match whole {
                    Some((unit, bits)) => write!(f, "{}{unit}", bytes >> bits),
                    None => bytes.fmt(f),
                }
            }
            Self::Secret(secret) if secret.is_empty() => Ok(()),
            Self::Secret(_) => f.write_str(STRUCK_OUT),
        }
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(Value::Number(number)) => serializer.serialize_u64(*number),
            Self::One(Value::YesNo(yes)) => serializer.serialize_bool(*yes),
            Self::One(value) => serializer.collect_str(value),
            Self::List(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| seq.serialize_element(item))?;
                seq.end()
            }
            Self::Mapping(all) => {
                let mut map = serializer.serialize_map(Some(all.len()))?;
                all.iter().try_for_each(|entry| map.serialize_entry(&entry.key, &entry.value))?;
                map.end()
            }
        }
    }
}

/// `text` as YAML reads it back: bare where that is plain to see, else in double quotes.
#[must_use]
pub fn quoted(text: &str) -> String {
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '$' | '%');
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_'));
    let is_number = text.parse::<f64>().is_ok();
    let is_word = ["null", "true", "yes", "on"].iter().any(|word| text.eq_ignore_ascii_case(word));
    if starts_well && text.chars().all(is_plain) && !text.ends_with(':') && !is_number && !is_word {
        return text.to_owned();
    }
    // JSON's strings are YAML's, in double quotes.
    serde_json::to_string(text).unwrap_or_default()
}
