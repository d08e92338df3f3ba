//! Every metric there is: name, type, labels, and what to do with the figure. `docs/metrics.md` says the same at
//! more length; a test keeps the two together.

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it means and what to do with it.
    pub help: &'static str,
}

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size, with these upper bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word for a `# TYPE` line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Described {
    Described { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Described {
    Described { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    buckets: &'static [f64],
    help: &'static str,
) -> Described {
    Described { name, kind: Kind::Histogram(buckets), labels, help }
}

/// Do clients pool? Many sessions below a second say they do not.
const SESSION: &[f64] = &[0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21600.0, 86400.0];
/// Did a client notice that it waited, and would its own connect timeout have run out?
const WAIT: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Is a login a local one (1 ms), one with SCRAM (10 ms), one over a WAN (100 ms), or stuck?
const LOGIN: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Is the node on this machine, in this data centre, elsewhere; was a SYN lost (1 s, 3 s)?
const CONNECT: &[f64] = &[0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 3.0];
/// Was it a cache (1 ms), a query (10 ms), a page of them (100 ms), or a queue?
const REQUEST: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// How far is a check from its timeout?
const CHECK: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0];

/// Version in use.
pub const BUILD_INFO: Described =
    gauge("pgsplit_build_info", &["version"], "Always 1. Compare versions across instances.");
/// Start of the process.
pub const PROCESS_START: Described = gauge(
    "process_start_time_seconds",
    &[],
    "Start of the process, Unix time. A jump is a restart; look for its cause in the log.",
);
/// CPU time.
pub const PROCESS_CPU: Described = counter(
    "process_cpu_seconds_total",
    &[],
    "CPU time used. A rate near the number of worker threads means pgsplit is the bottleneck.",
);
/// Memory.
pub const PROCESS_MEMORY: Described = gauge(
    "process_resident_memory_bytes",
    &[],
    "Memory in use. It follows the sessions; growth without them is a leak to report.",
);
/// Open files.
pub const PROCESS_FDS: Described = gauge(
    "process_open_fds",
    &[],
    "Open file descriptors, two for each session. Keep it below 80 % of process_max_fds.",
);
/// Limit of open files.
pub const PROCESS_MAX_FDS: Described = gauge(
    "process_max_fds",
    &[],
    "Limit of open file descriptors; absent when there is none. Raise it with LimitNOFILE or ulimit -n.",
);
/// Threads.
pub const PROCESS_THREADS: Described =
    gauge("process_threads", &[], "Threads of the process. It does not change; growth is a fault to report.");

/// Whether the last reload was good.
pub const RELOAD_SUCCESSFUL: Described = gauge(
    "pgsplit_config_last_reload_successful",
    &[],
    "1 when the last reload of the configuration was good, 0 when it failed and the one before stays in force.",
);
/// When the configuration was last found good.
pub const RELOAD_SUCCESS_TIME: Described = gauge(
    "pgsplit_config_last_reload_success_timestamp_seconds",
    &[],
    "When the configuration was last loaded without a fault, Unix time; at first the start.",
);
/// Reloads.
pub const RELOADS: Described = counter(
    "pgsplit_config_reloads_total",
    &["result"],
    "Reloads of the configuration: applied, unchanged, or failed. Alert when the last one failed.",
);

/// Upgrades.
pub const UPGRADES: Described = counter(
    "pgsplit_upgrades_total",
    &["result"],
    "Upgrades: done is 1 in a process that has taken another one's place, failed are those after which this one went on.",
);

/// Accepted connections.
pub const ACCEPTED: Described = counter(
    "pgsplit_connections_accepted_total",
    &["listener"],
    "Connections accepted. Its rate is the rate of new connections; clients that pool keep it low.",
);
/// Rejected connections.
pub const REJECTED: Described = counter(
    "pgsplit_connections_rejected_total",
    &["listener", "reason"],
    "Connections that never reached a node. Alert on no_node, queue_full, queue_timeout and limit.",
);
/// Connections that left.
pub const LEFT: Described = counter(
    "pgsplit_connections_left_total",
    &["listener"],
    "Port scans and clients that hung up before a node was chosen. Harmless; TCP health checks show here.",
);
/// Connections not accounted for yet.
pub const OPENING: Described = gauge(
    "pgsplit_connections_opening",
    &[],
    "Connections on their way to a node, waiting ones included. Should be 0 whenever nobody connects.",
);
/// Failed accepts.
pub const ACCEPT_ERRORS: Described = counter(
    "pgsplit_accept_errors_total",
    &["listener"],
    "Failed accept calls. Anything but 0 usually means that file descriptors ran out; see process_max_fds.",
);
/// Ended sessions.
pub const SESSIONS: Described = counter(
    "pgsplit_sessions_total",
    &["listener", "node", "end"],
    "Ended sessions that had reached a node. client is the good ending; look into the others.",
);
/// Sessions now.
pub const ACTIVE: Described = gauge(
    "pgsplit_sessions_active",
    &["listener", "node"],
    "Sessions now. Compare with pgsplit_sessions_limit, and between nodes for balance.",
);
/// Waiting clients.
pub const WAITING: Described = gauge(
    "pgsplit_sessions_waiting",
    &["listener"],
    "Clients that stand in line: no node fits, others log in first, or the listener is paused. Anything but 0 for long needs a node.",
);
/// Limit of sessions.
pub const LIMIT: Described = gauge(
    "pgsplit_sessions_limit",
    &["listener"],
    "Most sessions at a time (max_connections). Raise it before the sessions come near it.",
);
/// Length of sessions.
pub const SESSION_DURATION: Described = histogram(
    "pgsplit_session_duration_seconds",
    &["listener"],
    SESSION,
    "How long sessions last. Many short ones mean that a client opens a connection for each query.",
);
/// Panics.
pub const PANICS: Described = counter(
    "pgsplit_session_panics_total",
    &[],
    "Sessions ended by a fault in pgsplit. Report the log line; other sessions are not touched.",
);
/// Time in the queue.
pub const QUEUE_WAIT: Described = histogram(
    "pgsplit_queue_wait_seconds",
    &["listener"],
    WAIT,
    "How long clients waited for a node that fits, whether one came or not.",
);
/// Longest wait now.
pub const OLDEST_WAIT: Described = gauge(
    "pgsplit_queue_oldest_wait_seconds",
    &["listener"],
    "How long the longest waiting client has waited. Alert when above 1.",
);
/// Time to log in.
pub const LOGIN_DURATION: Described = histogram(
    "pgsplit_login_duration_seconds",
    &["listener", "node"],
    LOGIN,
    "From accept to the node's first ReadyForQuery, where it could be read: what a client waits for.",
);
/// Redispatches.
pub const REDISPATCHES: Described = counter(
    "pgsplit_redispatches_total",
    &["listener", "reason"],
    "Sessions given to another node before the client could notice. Each was an error that nobody saw.",
);
/// Bytes moved.
pub const BYTES: Described = counter(
    "pgsplit_bytes_total",
    &["listener", "node", "direction"],
    "Bytes moved, counted while a session runs.",
);
/// Cancel requests.
pub const CANCELS: Described = counter(
    "pgsplit_cancel_requests_total",
    &["result"],
    "Cancel requests. limited and failed mean that somebody's Ctrl-C did nothing.",
);

/// Health of a node.
pub const NODE_UP: Described = gauge(
    "pgsplit_node_up",
    &["node"],
    "1 when the node is alive, whatever its role; absent when its address is gone. Alert when 0 for a minute, unless its state \
     is maint or drain.",
);
/// Judgement of a node.
pub const NODE_STATE: Described = gauge(
    "pgsplit_node_state",
    &["node", "state"],
    "1 for the state the node is in, 0 for the others. For timelines.",
);
/// Role of a node.
pub const NODE_ROLE: Described = gauge(
    "pgsplit_node_role",
    &["node", "role"],
    "1 for the role the node has, 0 for the others. unknown for long: check the health check's login.",
);
/// Old primaries.
pub const NODE_SUPERSEDED: Described = gauge(
    "pgsplit_node_superseded",
    &["node"],
    "1 for an old primary, whose place another one has taken. It gets no sessions: make it a standby, or stop it.",
);
/// Nodes on probation.
pub const NODE_HELD_BACK: Described = gauge(
    "pgsplit_node_held_back",
    &["node"],
    "1 while a node that came and went gets no sessions that another could have. Find out why it does.",
);
/// Lag in time.
pub const NODE_LAG_SECONDS: Described = gauge(
    "pgsplit_node_lag_seconds",
    &["node"],
    "How far a standby is behind, in time; absent when not known. Alert above what readers bear.",
);
/// Lag in bytes.
pub const NODE_LAG_BYTES: Described = gauge(
    "pgsplit_node_lag_bytes",
    &["node"],
    "Write-ahead log a standby has not replayed; absent when not known.",
);
/// Weight of a node.
pub const NODE_WEIGHT: Described = gauge(
    "pgsplit_node_weight",
    &["node"],
    "Share of new sessions, as set by hand or by the file. 0 means that it gets none.",
);
/// Sessions of a node.
pub const NODE_SESSIONS: Described = gauge(
    "pgsplit_node_sessions_active",
    &["node"],
    "Sessions on the node over all listeners, being connected ones included. Compare with its max_connections.",
);
/// Time to connect.
pub const NODE_CONNECT_DURATION: Described = histogram(
    "pgsplit_node_connect_duration_seconds",
    &["node"],
    CONNECT,
    "TCP connects to the node that succeeded. 1 s and 3 s are lost packets: look at the network or its backlog.",
);
/// Failed connects.
pub const NODE_CONNECT_ERRORS: Described = counter(
    "pgsplit_node_connect_errors_total",
    &["node", "reason"],
    "Failed connects of sessions to the node. refused: not running; timeout, unreachable: network or firewall.",
);
/// Refused logins.
pub const NODE_STARTUP_ERRORS: Described = counter(
    "pgsplit_node_startup_errors_total",
    &["node", "sqlstate"],
    "Errors with which the node answered a login. 53300: raise its max_connections; 28P01: a wrong password.",
);
/// Checks.
pub const NODE_CHECKS: Described = counter(
    "pgsplit_node_checks_total",
    &["node", "result"],
    "Health checks. Some failed without a state change mean that fall hides a flaky node.",
);
/// Time of checks.
pub const NODE_CHECK_DURATION: Described = histogram(
    "pgsplit_node_check_duration_seconds",
    &["node"],
    CHECK,
    "How long checks took. Keep it well below the check's timeout.",
);
/// Last check.
pub const NODE_LAST_CHECK: Described = gauge(
    "pgsplit_node_last_check_timestamp_seconds",
    &["node"],
    "End of the last check, Unix time; 0 before the first. Alert when older than several intervals.",
);
/// State changes.
pub const NODE_STATE_CHANGES: Described = counter(
    "pgsplit_node_state_changes_total",
    &["node", "to"],
    "Changes of state. More than a few in ten minutes: the node flaps, raise fall or find out why.",
);
/// Time down.
pub const NODE_DOWN_SECONDS: Described = counter(
    "pgsplit_node_down_seconds_total",
    &["node"],
    "Time the node got no sessions because it was down. For availability figures.",
);
/// Primaries.
pub const PRIMARIES: Described = gauge(
    "pgsplit_primaries",
    &["cluster"],
    "Live nodes that say they are primary. 1 is right; 0 stops writes, 2 is a split brain: alert on both.",
);
/// Standbys up.
pub const REPLICAS_UP: Described =
    gauge("pgsplit_replicas_up", &["cluster"], "Live standbys. Alert when fewer than readers need.");
/// Reads fell back.
pub const READS_ON_PRIMARY: Described = gauge(
    "pgsplit_reads_on_primary",
    &["listener"],
    "1 when a prefer-standby listener uses the primary because no standby fits; absent for other targets.",
);
/// Whether a listener can serve.
pub const LISTENER_READY: Described = gauge(
    "pgsplit_listener_ready",
    &["listener"],
    "1 when a node fits the listener now. 0 means that its clients wait or are refused: alert.",
);
/// Whether a listener is paused.
pub const LISTENER_PAUSED: Described = gauge(
    "pgsplit_listener_paused",
    &["listener"],
    "1 while the listener is paused by hand: new sessions wait. Alert when it stays: somebody forgot to resume it.",
);
/// Accepted connections of HTTP clients.
pub const HTTP_ACCEPTED: Described = counter(
    "pgsplit_http_connections_accepted_total",
    &["front"],
    "Connections accepted. A rate near that of the requests: clients do not keep connections alive.",
);
/// Failed accepts of fronts.
pub const HTTP_ACCEPT_ERRORS: Described = counter(
    "pgsplit_http_accept_errors_total",
    &["front"],
    "Failed accept calls. Anything but 0 usually means that file descriptors ran out; see process_max_fds.",
);
/// HTTP clients now.
pub const HTTP_CONNECTIONS: Described = gauge(
    "pgsplit_http_connections_active",
    &["front"],
    "Clients connected now. Compare with the front's max_connections.",
);
/// Requests.
pub const HTTP_REQUESTS: Described = counter(
    "pgsplit_http_requests_total",
    &["front", "group", "upstream", "method", "code"],
    "Requests by who answered them and how. upstream none: pgsplit itself; code none: the client left first.",
);
/// Time to answer.
pub const HTTP_DURATION: Described = histogram(
    "pgsplit_http_request_duration_seconds",
    &["front", "group", "upstream"],
    REQUEST,
    "From a request's head to the last byte of its answer. Compare upstreams; a slow one may need a lower weight.",
);
/// Refused requests.
pub const HTTP_REJECTED: Described = counter(
    "pgsplit_http_rejected_total",
    &["front", "reason"],
    "Requests that pgsplit refused itself. Alert on no_upstream, queue_full, queue_timeout, database and timeout.",
);
/// Retried requests.
pub const HTTP_RETRIES: Described = counter(
    "pgsplit_http_retries_total",
    &["front", "reason"],
    "Requests given to another upstream before the client could notice. Each was an error that nobody saw.",
);
/// Upstreams put aside.
pub const HTTP_EJECTIONS: Described = counter(
    "pgsplit_http_ejections_total",
    &["front", "group", "upstream"],
    "Times an upstream was put aside because requests to it failed. Many, with good checks: the check sees too little.",
);
/// Requests on their way.
pub const HTTP_IN_FLIGHT: Described = gauge(
    "pgsplit_http_requests_active",
    &["front"],
    "Requests passed on now. Compare with the front's max_in_flight.",
);
/// Waiting requests.
pub const HTTP_WAITING: Described = gauge(
    "pgsplit_http_requests_waiting",
    &["front"],
    "Requests that wait for their turn, for an upstream or for the database. Anything but 0 for long: alert.",
);
/// Time in the queue.
pub const HTTP_QUEUE_WAIT: Described = histogram(
    "pgsplit_http_queue_wait_seconds",
    &["front"],
    WAIT,
    "How long requests waited that had to, whether their turn came or not.",
);
/// Cache results.
pub const HTTP_CACHE: Described = counter(
    "pgsplit_http_cache_total",
    &["front", "result"],
    "What the cache had for requests. stale while nothing is wrong: raise how long answers stay fresh.",
);
/// Size of the cache.
pub const HTTP_CACHE_BYTES: Described = gauge(
    "pgsplit_http_cache_bytes",
    &["front"],
    "Memory that stored answers take; absent without a cache. At its limit with few hits: give it more.",
);
/// Health of upstreams.
pub const HTTP_UPSTREAM_UP: Described = gauge(
    "pgsplit_http_upstream_up",
    &["front", "group", "upstream", "addr"],
    "1 when the upstream gets requests; a series for each address its name leads to now. Alert when 0 for a minute.",
);
/// Requests of upstreams.
pub const HTTP_UPSTREAM_ACTIVE: Described = gauge(
    "pgsplit_http_upstream_requests_active",
    &["front", "group", "upstream", "addr"],
    "Requests on the upstream now, WebSockets included. Compare with its max_connections.",
);
/// Requests of upstreams so far.
pub const HTTP_UPSTREAM_REQUESTS: Described = counter(
    "pgsplit_http_upstream_requests_total",
    &["front", "group", "upstream", "addr"],
    "Requests sent to the upstream's address, retried ones included. Shows how evenly they are spread.",
);
/// Whether a front can serve.
pub const HTTP_READY: Described = gauge(
    "pgsplit_http_ready",
    &["front"],
    "1 when each group has an upstream and the listener it depends on has a node. Alert when 0.",
);

/// Lost log lines.
pub const LOG_DROPS: Described = counter(
    "pgsplit_log_lines_dropped_total",
    &[],
    "Log lines thrown away because the log could not be written fast enough, or at all. Look at what reads it.",
);

/// Every metric.
pub const ALL: &[Described] = &[
    BUILD_INFO,
    PROCESS_START,
    PROCESS_CPU,
    PROCESS_MEMORY,
    PROCESS_FDS,
    PROCESS_MAX_FDS,
    PROCESS_THREADS,
    RELOAD_SUCCESSFUL,
    RELOAD_SUCCESS_TIME,
    RELOADS,
    UPGRADES,
    ACCEPTED,
    REJECTED,
    LEFT,
    OPENING,
    ACCEPT_ERRORS,
    SESSIONS,
    ACTIVE,
    WAITING,
    LIMIT,
    SESSION_DURATION,
    PANICS,
    QUEUE_WAIT,
    OLDEST_WAIT,
    LOGIN_DURATION,
    REDISPATCHES,
    BYTES,
    CANCELS,
    NODE_UP,
    NODE_STATE,
    NODE_ROLE,
    NODE_SUPERSEDED,
    NODE_HELD_BACK,
    NODE_LAG_SECONDS,
    NODE_LAG_BYTES,
    NODE_WEIGHT,
    NODE_SESSIONS,
    NODE_CONNECT_DURATION,
    NODE_CONNECT_ERRORS,
    NODE_STARTUP_ERRORS,
    NODE_CHECKS,
    NODE_CHECK_DURATION,
    NODE_LAST_CHECK,
    NODE_STATE_CHANGES,
    NODE_DOWN_SECONDS,
    PRIMARIES,
    REPLICAS_UP,
    READS_ON_PRIMARY,
    LISTENER_READY,
    LISTENER_PAUSED,
    HTTP_ACCEPTED,
    HTTP_ACCEPT_ERRORS,
    HTTP_CONNECTIONS,
    HTTP_REQUESTS,
    HTTP_DURATION,
    HTTP_REJECTED,
    HTTP_RETRIES,
    HTTP_EJECTIONS,
    HTTP_IN_FLIGHT,
    HTTP_WAITING,
    HTTP_QUEUE_WAIT,
    HTTP_CACHE,
    HTTP_CACHE_BYTES,
    HTTP_UPSTREAM_UP,
    HTTP_UPSTREAM_ACTIVE,
    HTTP_UPSTREAM_REQUESTS,
    HTTP_READY,
    LOG_DROPS,
];

#[cfg(test)]
mod tests;
