//! Reading a mapping key by key: unknown keys, wrong shapes, and values that do not fit are reported here.

use super::finding::Findings;
use super::source::Pos;
use super::tree::{Key, Kind, Scalar, Value};
use super::words::Word;

/// A value, its place, and the key it was written for.
#[derive(Clone, Debug)]
pub(super) struct Given<T> {
    pub value: T,
    pub at: Pos,
    pub path: String,
}

/// Keys that are planned; somebody who wrote one spelt it correctly and should not search for a typo.
const LATER: &[&str] = &[
    "accept_proxy",
    "allow",
    "buffer",
    "cert_file",
    "client_ca_file",
    "connection_rate",
    "key_file",
    "max_connections_per_ip",
    "max_lifetime",
    "metrics",
    "min_version",
    "patroni",
    "proxy_from",
    "query",
    "send_proxy",
    "socket",
    "splice",
    "sslrootcert",
    "state_file",
    "tls",
    "zone",
];

/// What other programs call a key of ours.
const ELSEWHERE: &[(&str, &str)] = &[
    ("inter", "interval"),
    ("fastinter", "fast_interval"),
    ("downinter", "down_interval"),
    ("maxconn", "max_connections"),
    ("max_conn", "max_connections"),
    ("servers", "nodes"),
    ("server", "nodes"),
    ("backends", "nodes"),
    ("hosts", "nodes"),
    ("listen", "listeners"),
    ("listener", "listeners"),
    ("frontends", "listeners"),
    ("host", "addr"),
    ("address", "addr"),
    ("listen_addr", "bind"),
    ("username", "user"),
    ("database", "dbname"),
    ("algorithm", "balance"),
    ("pool", "cluster"),
    ("workers", "threads"),
    // nginx, HAProxy and Traefik in front of HTTP services.
    ("servers", "upstreams"),
    ("server", "upstreams"),
    ("services", "groups"),
    ("backends", "groups"),
    ("loadBalancer", "upstreams"),
    ("lb_policy", "balance"),
    ("listen", "bind"),
    ("address", "bind"),
    ("entryPoints", "bind"),
    ("entrypoints", "bind"),
    ("healthcheck", "check"),
    ("healthCheck", "check"),
    ("health_check", "check"),
    ("health_uri", "path"),
    ("httpchk", "path"),
    ("location", "path"),
    ("prefix", "path"),
    ("uri", "path"),
    ("url", "path"),
    ("server_name", "host"),
    ("hostname", "host"),
    ("service", "group"),
    ("backend", "group"),
    ("upstream", "group"),
    ("proxy_pass", "group"),
    ("routers", "routes"),
    ("locations", "routes"),
    ("rules", "routes"),
    ("client_max_body_size", "max_body"),
    ("maxRequestBodyBytes", "max_body"),
    ("large_client_header_buffers", "max_header"),
    ("client_header_timeout", "header_timeout"),
    ("client_body_timeout", "body_timeout"),
    ("proxy_connect_timeout", "connect_timeout"),
    ("proxy_read_timeout", "response_timeout"),
    ("keepalive_timeout", "idle_timeout"),
    ("proxy_next_upstream", "retries"),
    ("attempts", "max"),
    ("set_real_ip_from", "trusted"),
    ("trusted_proxies", "trusted"),
    ("trustedIPs", "trusted"),
    ("forwardedHeaders", "forwarded"),
    ("proxy_cache", "cache"),
    ("access_log", "requests"),
    ("monitor", "monitor_uri"),
    ("monitor-uri", "monitor_uri"),
    ("ping", "monitor_uri"),
];

/// A mapping whose keys are known to be good.
pub(super) struct Table<'v> {
    /// `check`, `nodes[0]`; empty at the top.
    pub path: String,
    /// Where the mapping starts.
    pub at: Pos,
    /// Whether a key in it is unknown; then one that seems to be missing may be there, misspelt.
    pub has_unknown: bool,
    entries: &'v [(Key, Value)],
}

impl<'v> Table<'v> {
    /// Takes `value` as a mapping of `keys`; nothing at all is an empty one.
    pub(super) fn open(
        value: &'v Value,
        path: &str,
        keys: &[&str],
        findings: &mut Findings<'_>,
    ) -> Option<Self> {
        let entries: &[(Key, Value)] = match &value.kind {
            Kind::Map(entries) => entries,
            Kind::Null => &[],
            Kind::Bad => return None,
            Kind::Scalar(_) | Kind::Seq(_) => {
                let found = shape(&value.kind);
                let message = format!("must be a mapping of {}, not {found}", listed(keys, "and"));
                findings.fault(path, value.at, &message);
                return None;
            }
        };
        let mut has_unknown = false;
        for (key, _) in entries {
            if !keys.contains(&key.name.as_str()) {
                has_unknown = true;
                findings.fault(path, key.at, &unknown(&key.name, keys));
            }
        }
        Some(Self { path: path.to_owned(), at: value.at, has_unknown, entries })
    }

    /// The full name of a key of this mapping.
    pub(super) fn path_of(&self, key: &str) -> String {
        let dot = if self.path.is_empty() { "" } else { "." };
        format!("{}{dot}{key}", self.path)
    }

    /// The value of `key`, as it is.
    pub(super) fn value(&self, key: &str) -> Option<&'v Value> {
        self.entries.iter().find(|(name, _)| name.name == key).map(|(_, value)| value)
    }

    /// Where `key` itself stands.
    pub(super) fn key_at(&self, key: &str) -> Option<Pos> {
        self.entries.iter().find(|(name, _)| name.name == key).map(|(name, _)| name.at)
    }

    /// The value of `key` as `word`; `None` when it is not there, or wrong and reported.
    pub(super) fn get<T>(&self, key: &str, word: &Word<T>, findings: &mut Findings<'_>) -> Option<Given<T>> {
        read(self.value(key)?, &self.path_of(key), word, findings)
    }

    /// The entries of a list; nothing at all is an empty one.
    pub(super) fn list(&self, key: &str, findings: &mut Findings<'_>) -> Option<Given<&'v [Value]>> {
        let value = self.value(key)?;
        let path = self.path_of(key);
        let items: &[Value] = match &value.kind {
            Kind::Seq(items) => items,
            Kind::Null => &[],
            Kind::Bad => return None,
            Kind::Scalar(_) | Kind::Map(_) => {
                let found = shape(&value.kind);
                findings
                    .fault(&path, value.at, &format!("must be a list, not {found}"))
                    .help("start each entry with `- `");
                return None;
            }
        };
        // A block list has no mark of its own worth pointing at; its key has.
        let at = self.key_at(key).unwrap_or(value.at);
        Some(Given { value: items, at, path })
    }
}

/// `value` as `word`.
pub(super) fn read<T>(
    value: &Value,
    path: &str,
    word: &Word<T>,
    findings: &mut Findings<'_>,
) -> Option<Given<T>> {
    let scalar = match &value.kind {
        Kind::Scalar(scalar) => scalar,
        Kind::Bad => return None,
        Kind::Null => {
            findings.fault(path, value.at, "has no value: write one, or leave the key out");
            return None;
        }
        Kind::Seq(_) | Kind::Map(_) => {
            findings.fault(path, value.at, &format!("must be {}, not {}", word.what, shape(&value.kind)));
            return None;
        }
    };
    match (word.parse)(&scalar.text) {
        Ok(parsed) => Some(Given { value: parsed, at: value.at, path: path.to_owned() }),
        Err(message) => {
            findings.fault(path, value.at, &blame(scalar, message, word.what));
            None
        }
    }
}

/// What a variable or an alias holds may be a secret meant for another key, so it is not quoted.
fn blame(scalar: &Scalar, message: String, what: &str) -> String {
    match &scalar.written {
        Some(written) => format!("`{written}` holds something else than {what}"),
        None => message,
    }
}

fn unknown(name: &str, keys: &[&str]) -> String {
    if let Some((_, ours)) = ELSEWHERE.iter().find(|(other, ours)| *other == name && keys.contains(ours)) {
        return format!("unknown key `{name}`; it is called `{ours}` here");
    }
    if name == "idle_timeout" && !keys.contains(&"upstreams") {
        return "`idle_timeout` is not in this version: no session is closed for being idle".to_owned();
    }
    if LATER.contains(&name) {
        return format!("`{name}` is not in this version");
    }
    match closest(name, keys) {
        Some(key) => format!("unknown key `{name}`; did you mean `{key}`?"),
        None => format!("unknown key `{name}`; known here: {}", keys.join(", ")),
    }
}

/// The one of `words` that `name` may be a misspelling of.
pub(super) fn closest<'w>(name: &str, words: &[&'w str]) -> Option<&'w str> {
    let (distance, word) = words.iter().map(|word| (strsim::osa_distance(name, word), *word)).min()?;
    (distance <= 1 + word.len() / 4).then_some(word)
}

fn shape(kind: &Kind) -> &'static str {
    match kind {
        Kind::Null | Kind::Bad => "nothing",
        Kind::Scalar(_) => "a single value",
        Kind::Seq(_) => "a list",
        Kind::Map(_) => "a mapping",
    }
}

/// `a, b and c`.
pub(super) fn listed(words: &[&str], last: &str) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}
