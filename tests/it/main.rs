//! Tests against real servers, the real binary and the worst of networks.

mod support;

mod tools;

mod admin;
mod admin_state;
mod balance;
mod cancel;
mod checks;
mod cli;
mod cli_config;
mod cli_remote;
mod counters;
mod encryption;
mod evict;
mod failover;
mod first_packets;
mod hold;
mod http_balance;
mod http_cache;
mod http_database;
mod http_edges;
mod http_errors;
mod http_h2;
mod http_headers;
mod http_health;
mod http_life;
mod http_limits;
mod http_logs;
mod http_promise;
mod http_proxy;
mod http_retries;
mod http_smuggling;
mod http_upgrade;
mod limits;
mod login;
mod logs;
mod pause;
mod relay;
mod replay;
mod soak;
mod support_works;
mod systemd;
mod targets;
mod valve;
mod web_support_works;
