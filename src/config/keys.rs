//! Every key of the file, but for those about HTTP, which are in `keys_http.rs`. `file.rs` reads them.

#![allow(clippy::wildcard_imports, reason = "a module for each section, and nothing but keys in it")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::http::LogRequests;
use super::key::Without::{Required, Value, Words};
use super::key::{About, Form, Key, Keys, Takes};
use super::keys_http::HTTP;
use super::{
    Balance, CheckKind, LogFormat, LogSessions, MaxLag, NodeAddr, OnTrouble, PatroniAddr, Tls, words,
    words_http,
};
use crate::base::role::{Role, Target};
use crate::base::secret::Secret;

/// What switches a section off.
pub(super) const OFF: Takes = Takes::One(Form::Words(&["off"]));

/// The keys at the top.
pub const TOP: Keys =
    &[NODES, LISTENERS, CLUSTERS, CHECK_OF, SESSIONS_OF, HTTP_OF, DNS_OF, ADMIN_OF, LOG_OF, RUNTIME_OF];

const NODES: About = About::new(
    "nodes",
    Takes::List(&Takes::Either(&[Takes::One(words::ADDR.form), Takes::Mapping(NODE)])),
    Words("required, unless the file is about `http` alone"),
    "[db1:5432, db2:5432]",
    "the PostgreSQL servers",
);
const LISTENERS: About = About::new(
    "listeners",
    Takes::List(&Takes::Mapping(LISTENER)),
    Words("`rw` and `ro`"),
    "[{name: rw, bind: \"*:6432\"}]",
    "where clients connect",
);
const CLUSTERS: About = About::new(
    "clusters",
    Takes::Named(&Takes::Mapping(CLUSTER)),
    Words("–"),
    "{main: {nodes: [{addr: db1, role: primary}]}}",
    "several groups of servers in one process",
);
const CHECK_OF: About = About::new(
    "check",
    Takes::Mapping(CHECK),
    Words("all defaults"),
    "{interval: 2s}",
    "how nodes are checked",
);
const SESSIONS_OF: About = About::new(
    "sessions",
    Takes::Mapping(SESSIONS),
    Words("all defaults"),
    "{queue_timeout: 5s}",
    "how sessions are set up",
);
const HTTP_OF: About = About::new(
    "http",
    Takes::Either(&[Takes::Mapping(HTTP), Takes::List(&Takes::Mapping(HTTP))]),
    Words("none"),
    "{upstreams: [users1:8080]}",
    "where HTTP clients connect, and the services behind it",
);
const DNS_OF: About = About::new(
    "dns",
    Takes::Mapping(DNS),
    Words("all defaults"),
    "{refresh: 30s}",
    "how names are looked up",
);
const ADMIN_OF: About = About::new(
    "admin",
    Takes::Either(&[Takes::Mapping(ADMIN), OFF]),
    Words("all defaults"),
    "off",
    "metrics and status",
);
const LOG_OF: About =
    About::new("log", Takes::Mapping(LOG), Words("all defaults"), "{format: json}", "what is logged");
const RUNTIME_OF: About = About::new(
    "runtime",
    Takes::Mapping(RUNTIME),
    Words("all defaults"),
    "{threads: 4}",
    "threads and drain",
);

/// `clusters.NAME`
pub(super) const CLUSTER: Keys = &[NODES, CHECK_OF, SESSIONS_OF];

/// `nodes[]`
pub(super) const NODE: Keys = &[
    node::ADDR.about,
    node::NAME.about,
    node::ROLE.about,
    node::WEIGHT.about,
    node::BACKUP.about,
    node::MAX_CONNECTIONS.about,
    node::PATRONI.about,
];
pub(super) mod node {
    use super::*;

    pub(in crate::config) const ADDR: Key<NodeAddr> =
        Key::new("addr", &words::ADDR, Required, "db1:5432", "where the server listens");
    pub(in crate::config) const NAME: Key<String> = Key::new(
        "name",
        &words::NAME,
        Words("host of `addr`"),
        "db1",
        "unique over all clusters; `host:port` when several nodes share the host",
    );
    pub(in crate::config) const ROLE: Key<Option<Role>> = Key::new(
        "role",
        &words::ROLE,
        Value("auto"),
        "primary",
        "`auto` is found out by checks of type `login` or `patroni`. `replica` is another word for `standby`. A logical replica is not in \
         recovery: write its role down. At most one node of a cluster is written as primary",
    );
    pub(in crate::config) const WEIGHT: Key<u32> =
        Key::new("weight", &words::WEIGHT, Value("100"), "50", "share of the sessions; 0: no new ones");
    pub(in crate::config) const BACKUP: Key<bool> = Key::new(
        "backup",
        &words::YES_NO,
        Value("false"),
        "true",
        "only used when no other node of its kind (standby, or primary) fits",
    );
    pub(in crate::config) const MAX_CONNECTIONS: Key<u32> = Key::new(
        "max_connections",
        &words::NODE_CONNECTIONS,
        Value("0"),
        "80",
        "most sessions at a time; 0: no limit",
    );
    pub(in crate::config) const PATRONI: Key<PatroniAddr> = Key::new(
        "patroni",
        &words::PATRONI,
        Value("8008"),
        "10.0.0.3:8009",
        "where its Patroni answers: a port on the host of `addr`, or an address. Asked by checks of type `patroni`; \
         elsewhere a warning. With `dns.all_addresses` only a port",
    );
}

/// `listeners[]`
pub(super) const LISTENER: Keys = &[
    listener::NAME.about,
    listener::BIND.about,
    listener::CLUSTER.about,
    listener::TARGET.about,
    listener::TARGET_SESSION_ATTRS.about,
    listener::BALANCE.about,
    listener::MAX_CONNECTIONS.about,
    listener::TLS_OF,
];
/// `listeners[].tls`
pub(super) const TLS: Keys = &[listener::TLS_MODE.about];
pub(super) mod listener {
    use super::*;

    pub(in crate::config) const NAME: Key<String> =
        Key::new("name", &words::NAME, Required, "rw", "unique; a label in metrics and logs");
    pub(in crate::config) const BIND: Key<SocketAddr> =
        Key::new("bind", &words::BIND, Required, "0.0.0.0:6432", "unique, unless the port is 0");
    pub(in crate::config) const CLUSTER: Key<String> = Key::new(
        "cluster",
        &words::NAME,
        Words("the only one, or `main`"),
        "main",
        "whose nodes it leads to",
    );
    pub(in crate::config) const TARGET: Key<Target> = Key::new(
        "target",
        &words::TARGET,
        Value("primary"),
        "any",
        "which of them: `any` live node; `read-write`, a primary whose sessions may write by default; `read-only`, a \
         standby, or a node whose sessions are read-only by default; `primary`; `standby` (or `replica`); \
         `prefer-standby`, a standby, or any live node when there is none",
    );
    pub(in crate::config) const TARGET_SESSION_ATTRS: Key<Target> = Key::new(
        "target_session_attrs",
        &words::TARGET,
        Words("–"),
        "any",
        "libpq's name for `target`; write one of the two",
    );
    pub(in crate::config) const BALANCE: Key<Balance> = Key::new(
        "balance",
        &words::BALANCE,
        Value("leastconn"),
        "source",
        "how one of several fitting nodes is chosen, in HAProxy's words; `random` takes the better of two",
    );
    pub(in crate::config) const MAX_CONNECTIONS: Key<u32> =
        Key::new("max_connections", &words::CONNECTIONS, Value("1000"), "500", "most sessions at a time");
    pub(in crate::config) const TLS_OF: About = About::new(
        "tls",
        Takes::Either(&[Takes::Mapping(TLS), Takes::One(words::TLS_MODE.form)]),
        Words("passthrough"),
        "off",
        "what becomes of a client's request for TLS; a single word is `mode`",
    );
    pub(in crate::config) const TLS_MODE: Key<Tls> = Key::new(
        "mode",
        &words::TLS_MODE,
        Value("passthrough"),
        "off",
        "`passthrough`: the node answers it. `off`: pgsplit answers no, and refuses direct TLS, so that every session \
         stays readable",
    );
}

/// `check`
pub(super) const CHECK: Keys = &[
    check::TYPE.about,
    check::INTERVAL.about,
    check::FAST_INTERVAL.about,
    check::DOWN_INTERVAL.about,
    check::TIMEOUT.about,
    check::RISE.about,
    check::FALL.about,
    check::USER.about,
    check::PASSWORD.about,
    check::PASSWORD_FILE.about,
    check::DBNAME.about,
    check::APPLICATION_NAME.about,
    check::SSLMODE.about,
    check::MAX_LAG.about,
    check::PASSIVE.about,
];
pub(super) mod check {
    use super::*;

    pub(in crate::config) const TYPE: Key<Option<CheckKind>> = Key::new(
        "type",
        &words::CHECK_KIND,
        Value("auto"),
        "tcp",
        "`tcp` connects; `startup` sends a startup packet and takes any answer of a living server; `login` logs in and \
         learns role and lag; `patroni` does what `startup` does and learns role and lag from the Patroni beside the server. \
         `auto` is `login` when there is a user, else `startup`",
    );
    pub(in crate::config) const INTERVAL: Key<Duration> = Key::new(
        "interval",
        &words::SOME_TIME,
        Value("1s"),
        "5s",
        "from one check of a node to the next, at most: up to a fifth is taken off, so that checks of many do not fall \
         into step",
    );
    pub(in crate::config) const FAST_INTERVAL: Key<Duration> = Key::new(
        "fast_interval",
        &words::SOME_TIME,
        Value("500ms"),
        "200ms",
        "the same while the node is changing state; never longer than `interval` unless written so",
    );
    pub(in crate::config) const DOWN_INTERVAL: Key<Duration> = Key::new(
        "down_interval",
        &words::SOME_TIME,
        Value("1s"),
        "2s",
        "the same while it is down; likewise",
    );
    pub(in crate::config) const TIMEOUT: Key<Duration> = Key::new(
        "timeout",
        &words::SOME_TIME,
        Value("1s"),
        "800ms",
        "longest time for one check. Longer than `interval`: a warning",
    );
    pub(in crate::config) const RISE: Key<u32> = Key::new(
        "rise",
        &words::TIMES_IN_A_ROW,
        Value("2"),
        "1",
        "good checks in a row to come up. One is enough for a node without which there is none: no other node is up, or \
         it is the primary that is awaited",
    );
    pub(in crate::config) const FALL: Key<u32> =
        Key::new("fall", &words::TIMES_IN_A_ROW, Value("3"), "2", "bad checks in a row to go down");
    pub(in crate::config) const USER: Key<String> = Key::new(
        "user",
        &words::TEXT,
        Value(""),
        "lb_check",
        "whom to log in as. Without one, startup packets name the user `postgres`. With `type: patroni` it is not needed; \
         checks log in as well then",
    );
    pub(in crate::config) const PASSWORD: Key<Secret> = Key::new(
        "password",
        &words::SECRET,
        Value(""),
        "\"${LB_CHECK_PASSWORD}\"",
        "of the user; without one it is looked for in `~/.pgpass`",
    );
    pub(in crate::config) const PASSWORD_FILE: Key<String> = Key::new(
        "password_file",
        &words::TEXT,
        Value(""),
        "/run/secrets/lb",
        "the file that holds it, without its last newline; a relative path starts at the configuration file",
    );
    pub(in crate::config) const DBNAME: Key<String> =
        Key::new("dbname", &words::TEXT, Value("postgres"), "app", "which database to log in to");
    pub(in crate::config) const APPLICATION_NAME: Key<String> = Key::new(
        "application_name",
        &words::TEXT,
        Value("pgsplit-check"),
        "lb1",
        "shown in `pg_stat_activity`",
    );
    pub(in crate::config) const SSLMODE: Key<()> = Key::new(
        "sslmode",
        &words::SSLMODE,
        Value("prefer"),
        "disable",
        "libpq's words. Checks in this version speak no TLS, so `require` and stricter ones are refused instead of being \
         accepted and not kept",
    );
    pub(in crate::config) const MAX_LAG: Key<Option<MaxLag>> = Key::new(
        "max_lag",
        &words::LAG,
        Value("0"),
        "30s",
        "standbys that are further behind get no new sessions, by time (`30s`) or log (`16MiB`); needs checks \
         of type `login` or `patroni`. 0: never mind",
    );
    pub(in crate::config) const PASSIVE: Key<bool> = Key::new(
        "passive",
        &words::YES_NO,
        Value("true"),
        "false",
        "also learn from real sessions: failed connects, roles seen in logins",
    );
}

/// `sessions`
pub(super) const SESSIONS: Keys = &[
    sessions::CONNECT_TIMEOUT.about,
    sessions::ANSWER_TIMEOUT.about,
    sessions::RETRIES.about,
    sessions::QUEUE_TIMEOUT.about,
    sessions::QUEUE_SIZE.about,
    sessions::STARTUP_TIMEOUT.about,
    sessions::ON_DOWN.about,
    sessions::ON_DEMOTE.about,
    sessions::ON_LAG.about,
    sessions::ON_LEAVE.about,
    sessions::ON_DRAIN.about,
    sessions::KEEPALIVE_OF,
    sessions::TCP_USER_TIMEOUT.about,
];
pub(super) mod sessions {
    use super::*;

    pub(in crate::config) const CONNECT_TIMEOUT: Key<Duration> = Key::new(
        "connect_timeout",
        &words::SOME_TIME,
        Value("3s"),
        "1s",
        "one TCP connect to a node, when no other fits",
    );
    pub(in crate::config) const ANSWER_TIMEOUT: Key<Duration> = Key::new(
        "answer_timeout",
        &words::SOME_TIME,
        Value("1s"),
        "2s",
        "for a TCP connect, and from connected to the node's first answer, when another node fits: then that one is tried",
    );
    pub(in crate::config) const RETRIES: Key<u32> = Key::new(
        "retries",
        &words::RETRIES,
        Value("3"),
        "1",
        "other nodes tried at once after one has refused; after that the session waits in line until something changes",
    );
    pub(in crate::config) const QUEUE_TIMEOUT: Key<Duration> = Key::new(
        "queue_timeout",
        &words::TIME,
        Value("10s"),
        "5s",
        "how long a client waits when no node fits; 0: not at all",
    );
    pub(in crate::config) const QUEUE_SIZE: Key<u32> = Key::new(
        "queue_size",
        &words::QUEUE_SIZE,
        Value("1000"),
        "200",
        "clients that may wait at a time, for each listener",
    );
    pub(in crate::config) const STARTUP_TIMEOUT: Key<Duration> = Key::new(
        "startup_timeout",
        &words::SOME_TIME,
        Value("10s"),
        "30s",
        "from accept to the client's complete startup packet; less while file descriptors are scarce",
    );
    pub(in crate::config) const ON_DOWN: Key<OnTrouble> = Key::new(
        "on_down",
        &words::ON_TROUBLE,
        Value("close"),
        "keep",
        "sessions on a node that is down and from which no session hears anything: they go on (`keep`), end between two \
         transactions (`drain`) or at once (`close`)",
    );
    pub(in crate::config) const ON_DEMOTE: Key<OnTrouble> = Key::new(
        "on_demote",
        &words::ON_TROUBLE,
        Value("close"),
        "drain",
        "sessions of listeners with target `primary` or `read-write` on a node that is not the primary any more",
    );
    pub(in crate::config) const ON_LAG: Key<OnTrouble> = Key::new(
        "on_lag",
        &words::ON_TROUBLE,
        Value("keep"),
        "drain",
        "sessions on a standby that is further behind than `check.max_lag`",
    );
    pub(in crate::config) const ON_LEAVE: Key<OnTrouble> = Key::new(
        "on_leave",
        &words::ON_TROUBLE,
        Value("keep"),
        "drain",
        "sessions on an address that the node's name leads to no more (`dns.all_addresses`)",
    );
    pub(in crate::config) const ON_DRAIN: Key<OnTrouble> = Key::new(
        "on_drain",
        &words::ON_TROUBLE,
        Value("drain"),
        "keep",
        "sessions on a node that is drained, in maintenance, or taken out of the file",
    );
    pub(in crate::config) const KEEPALIVE_OF: About = About::new(
        "keepalive",
        Takes::Either(&[Takes::Mapping(KEEPALIVE), OFF, Takes::One(Form::Number { min: 0, max: 0 })]),
        Words("on"),
        "off",
        "TCP keepalive, on both sides",
    );
    pub(in crate::config) const TCP_USER_TIMEOUT: Key<Duration> = Key::new(
        "tcp_user_timeout",
        &words::TIME,
        Value("0"),
        "30s",
        "data that is not acknowledged, or not taken because the peer has stopped reading, for this long ends the \
         connection; 0: the system's default, which minds only the first",
    );
}

/// `sessions.keepalive`
pub(super) const KEEPALIVE: Keys =
    &[keepalive::IDLE.about, keepalive::INTERVAL.about, keepalive::COUNT.about];
pub(super) mod keepalive {
    use super::*;

    pub(in crate::config) const IDLE: Key<Duration> =
        Key::new("idle", &words::KEEPALIVE_TIME, Value("60s"), "30s", "silence before the first probe");
    pub(in crate::config) const INTERVAL: Key<Duration> =
        Key::new("interval", &words::KEEPALIVE_TIME, Value("10s"), "5s", "from one probe to the next");
    pub(in crate::config) const COUNT: Key<u32> =
        Key::new("count", &words::PROBES, Value("3"), "5", "unanswered probes that end the connection");
}

/// `dns`
pub(super) const DNS: Keys = &[dns::REFRESH.about, dns::ALL_ADDRESSES.about];
pub(super) mod dns {
    use super::*;

    pub(in crate::config) const REFRESH: Key<Duration> = Key::new(
        "refresh",
        &words::SOME_TIME,
        Value("5s"),
        "30s",
        "how often names of upstreams are looked up again, and with `all_addresses` those of nodes",
    );
    pub(in crate::config) const ALL_ADDRESSES: Key<bool> = Key::new(
        "all_addresses",
        &words::YES_NO,
        Value("false"),
        "true",
        "whether each address that a node's name leads to is a node of its own: containers scaled under one name, \
         headless services. Upstreams are always taken so",
    );
}

/// `admin`
pub(super) const ADMIN: Keys = &[
    admin::BIND.about,
    admin::SOCKET.about,
    admin::HOSTS.about,
    admin::TOKEN.about,
    admin::TOKEN_FILE.about,
];
pub(super) mod admin {
    use super::*;

    pub(in crate::config) const BIND: Key<Option<SocketAddr>> = Key::new(
        "bind",
        &words::ADMIN_BIND,
        Value("127.0.0.1:8404"),
        "0.0.0.0:8404",
        "metrics, status and the API; `\"\"`: over the socket alone; `admin: off`: nowhere",
    );
    pub(in crate::config) const SOCKET: Key<Option<PathBuf>> = Key::new(
        "socket",
        &words::SOCKET,
        Words(
            "with the default `bind` `/run/pgsplit/admin.sock` for root and in the package's unit, `$XDG_RUNTIME_DIR/pgsplit.sock` for others",
        ),
        "/run/pgsplit/admin.sock",
        "a Unix socket for the same, by which everything may be changed. Its mode is 0660",
    );
    pub(in crate::config) const HOSTS: Key<String> = Key::list(
        "hosts",
        &words::HOST,
        Value("[]"),
        "[lb.example.com]",
        "names by which browsers come to `bind`. IP addresses, `localhost` and names without a dot always work",
    );
    pub(in crate::config) const TOKEN: Key<Secret> = Key::new(
        "token",
        &words::SECRET,
        Value(""),
        "\"${PGSPLIT_TOKEN}\"",
        "who sends it may change something, such as pause a listener. Without one nobody may over the network",
    );
    pub(in crate::config) const TOKEN_FILE: Key<String> = Key::new(
        "token_file",
        &words::TEXT,
        Value(""),
        "/run/secrets/pgsplit",
        "the file that holds it, without its last newline; a relative path starts at the configuration file",
    );
}

/// `log`
pub(super) const LOG: Keys = &[log::LEVEL.about, log::FORMAT.about, log::SESSIONS.about, log::REQUESTS.about];
pub(super) mod log {
    use super::*;

    pub(in crate::config) const LEVEL: Key<String> = Key::new(
        "level",
        &words::LOG_LEVEL,
        Value("info"),
        "debug",
        "what is logged: a level, or a filter such as `info,pgsplit::session=debug`",
    );
    pub(in crate::config) const FORMAT: Key<LogFormat> = Key::new(
        "format",
        &words::LOG_FORMAT,
        Value("auto"),
        "json",
        "`auto`: text on a terminal, JSON elsewhere",
    );
    pub(in crate::config) const SESSIONS: Key<LogSessions> = Key::new(
        "sessions",
        &words::LOG_SESSIONS,
        Value("end"),
        "errors",
        "which sessions get a line: none, failed ones, each at its end, each at start and end",
    );
    pub(in crate::config) const REQUESTS: Key<LogRequests> = Key::new(
        "requests",
        &words_http::LOG_REQUESTS,
        Value("all"),
        "1/100",
        "which requests to the HTTP fronts get a line: none; those answered with 5xx, cut short or retried; all; those, \
         and one of `N` others",
    );
}

/// `runtime`
pub(super) const RUNTIME: Keys = &[
    runtime::THREADS.about,
    runtime::DRAIN_DELAY.about,
    runtime::DRAIN_TIMEOUT.about,
    runtime::WATCH_CONFIG.about,
];
pub(super) mod runtime {
    use super::*;

    pub(in crate::config) const THREADS: Key<u32> = Key::new(
        "threads",
        &words::THREADS,
        Value("0"),
        "4",
        "worker threads; 0: one for each core. As many again for HTTP, if there is a front",
    )
    .at_restart();
    pub(in crate::config) const DRAIN_DELAY: Key<Duration> = Key::new(
        "drain_delay",
        &words::TIME,
        Value("0"),
        "10s",
        "how long new sessions are still accepted after SIGTERM, while `/readyz` and `monitor_uri` say 503 already: time for \
         a load balancer in front to look elsewhere",
    );
    pub(in crate::config) const DRAIN_TIMEOUT: Key<Duration> = Key::new(
        "drain_timeout",
        &words::TIME,
        Value("60s"),
        "5m",
        "how long sessions and HTTP requests may go on after SIGTERM; then sessions end between two transactions, and what \
         is left five seconds later at once",
    );
    pub(in crate::config) const WATCH_CONFIG: Key<bool> = Key::new(
        "watch_config",
        &words::YES_NO,
        Value("true"),
        "false",
        "whether the file is loaded again when it, or a file with a secret that it names, changes; SIGHUP does so in any case",
    );
}
