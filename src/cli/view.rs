//! What the admin API answers, as far as it is shown; whatever an answer leaves out is empty.

use serde::Deserialize;

/// `GET /api/v1/status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub version: String,
    pub uptime_seconds: f64,
    pub ready: bool,
    /// `ok`, `degraded`, `failing` or `stopping`.
    pub condition: String,
    pub verdict: String,
    pub config: Config,
    pub listeners: Vec<Listener>,
    pub nodes: Vec<Node>,
    pub http: Vec<Front>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub path: String,
    pub loaded_at: String,
    /// Why the last reload changed nothing.
    pub last_error: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Listener {
    pub name: String,
    pub bind: String,
    pub target: String,
    pub ready: bool,
    pub paused: bool,
    pub sessions: u64,
    pub waiting: u64,
    pub oldest_wait_seconds: f64,
    pub limit: u64,
    pub rejected_total: u64,
    pub new_per_second: Option<f64>,
    pub new_sessions_go_to: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    pub name: String,
    pub addr: String,
    /// Where it is, in words: `addr`, or the one address of a name that is this node.
    pub at: String,
    pub health: String,
    pub state: String,
    pub admin: Option<String>,
    pub role: Option<String>,
    pub superseded: bool,
    pub held_back_s: f64,
    pub lag_seconds: Option<f64>,
    pub weight: u64,
    pub sessions: u64,
    pub new_per_second: Option<f64>,
    pub connect_p99_seconds: Option<f64>,
    pub since: String,
    pub check: Option<Check>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Check {
    pub ok: bool,
    pub step: String,
    pub error: Option<String>,
    pub duration_seconds: f64,
    pub against: u64,
    pub needed: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Front {
    pub name: String,
    pub bind: String,
    pub ready: bool,
    pub troubles: Vec<String>,
    pub connections: u64,
    pub requests: u64,
    pub waiting: u64,
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Group {
    pub name: String,
    pub upstreams: Vec<Upstream>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Upstream {
    /// As it is written.
    #[serde(rename = "upstream")]
    pub name: String,
    pub addr: String,
    pub health: String,
    pub requests: u64,
    pub check: Option<String>,
}

/// `GET /api/v1/sessions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Sessions {
    pub sessions: Vec<Session>,
    /// How many fit, also those that are not listed.
    pub total: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Session {
    pub id: String,
    pub listener: String,
    pub client: String,
    pub user: Option<String>,
    pub database: Option<String>,
    pub application: Option<String>,
    pub node: Option<String>,
    pub state: String,
    pub age_seconds: f64,
    pub idle_seconds: f64,
    pub to_node_bytes: u64,
    pub to_client_bytes: u64,
}

/// `GET /api/v1/events`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Events {
    pub events: Vec<Event>,
    pub last_id: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    pub id: u64,
    pub at: String,
    pub level: String,
    #[serde(rename = "event")]
    pub name: String,
    pub fields: serde_json::Map<String, serde_json::Value>,
}
