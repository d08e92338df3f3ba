//! From the file as written to a [`Config`] that can be run: defaults filled in, every rule checked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::check_http::check_fronts;
use super::env::{Env, non_empty};
use super::file::{File, FileAdmin, FileCheck, FileCluster, FileKeepalive, FileListener, FileSessions};
use super::finding::Findings;
use super::http::LogRequests;
use super::key::Form;
use super::source::Pos;
use super::table::Given;
use super::words::{self, Word};
use super::{
    Admin, AdminSocket, Balance, Check, CheckKind, Cluster, Config, Dns, Keepalive, Listener, Log, LogFormat,
    LogSessions, MaxLag, Node, OnTrouble, PatroniAddr, Read, Runtime, Sessions, Tls, credentials, rules,
    rules_patroni,
};
use crate::base::role::Target;

/// Whom a check without a login names in its startup packet; every server has an opinion on this one.
const ANY_USER: &str = "postgres";
/// The default listeners: name, port, target.
const LISTENERS: [(&str, u16, Target); 2] =
    [("rw", 6432, Target::Primary), ("ro", 6433, Target::PreferStandby)];
const ADMIN_PORT: u16 = 8404;

/// Checks `file`. What comes back is only good when nothing was found.
pub(super) fn check(file: &File, env: Env<'_>, f: &mut Findings<'_>) -> Config {
    let before = f.count();
    let clusters: Vec<Cluster> = file.clusters.iter().map(|cluster| check_cluster(cluster, env, f)).collect();
    let names = rules::node_names(&file.clusters, f);
    let clusters: Vec<Arc<Cluster>> = clusters
        .into_iter()
        .zip(names)
        .map(|(mut cluster, names)| {
            for (node, name) in cluster.nodes.iter_mut().zip(names) {
                Arc::make_mut(node).name = name;
            }
            Arc::new(cluster)
        })
        .collect();
    let is_sound = f.count() == before;
    let host = default_host(env, f);
    let listeners = check_listeners(file, &clusters, host, f);
    let admin = check_admin(&file.admin, host, env, f);
    let fronts = check_fronts(file, &listeners, host, f);
    rules::binds(file, &listeners, admin.as_ref().and_then(|admin| admin.bind), host, f);
    // With a node or a check missing, what follows would only repeat that.
    if is_sound {
        rules::roles(file, &clusters, &listeners, f);
        rules::loops(file, &listeners, f);
        rules_patroni::of_addresses(file, &clusters, f);
    }
    Config {
        clusters,
        listeners: listeners.into_iter().map(Arc::new).collect(),
        fronts: fronts.into_iter().map(Arc::new).collect(),
        dns: Dns {
            refresh: or(file.dns.refresh.as_ref(), Duration::from_secs(5)),
            all_addresses: or(file.dns.all_addresses.as_ref(), false),
        },
        admin,
        log: check_log(file, env, f),
        runtime: Runtime {
            threads: or(file.threads.as_ref(), 0).try_into().unwrap_or(0),
            drain_delay: or(file.drain_delay.as_ref(), Duration::ZERO),
            drain_timeout: or(file.drain_timeout.as_ref(), Duration::from_secs(60)),
            watch_config: or(file.watch_config.as_ref(), true),
        },
        warnings: Vec::new(),
        read: Read::default(),
    }
}

fn check_cluster(cluster: &FileCluster, env: Env<'_>, f: &mut Findings<'_>) -> Cluster {
    let mut nodes: Vec<Node> = cluster
        .nodes
        .iter()
        .filter_map(|node| {
            Some(Node {
                name: String::new(),
                addr: node.addr.as_ref()?.value.clone(),
                role: node.role.as_ref().and_then(|role| role.value),
                weight: or(node.weight.as_ref(), 100).try_into().unwrap_or(u16::MAX),
                backup: or(node.backup.as_ref(), false),
                max_connections: NonZeroU32::new(or(node.max_connections.as_ref(), 0)),
                password: None,
                patroni: or(node.patroni.as_ref(), PatroniAddr::default()),
            })
        })
        .collect();
    let check = check_check(cluster, &mut nodes, env, f);
    rules::nodes(cluster, f);
    Cluster {
        name: cluster.name.value.clone(),
        nodes: nodes.into_iter().map(Arc::new).collect(),
        check,
        sessions: check_sessions(&cluster.sessions),
    }
}

fn check_check(cluster: &FileCluster, nodes: &mut [Node], env: Env<'_>, f: &mut Findings<'_>) -> Check {
    let file = &cluster.check;
    let user = credentials::user(file, env);
    let password = credentials::password(file, env, f);
    let kind = file.kind.as_ref().and_then(|kind| kind.value);
    let kind = kind.unwrap_or(if user.is_some() { CheckKind::Login } else { CheckKind::Startup });
    let dbname = text_or(file.dbname.as_ref(), "postgres");
    let logs_in = kind == CheckKind::Login || (kind == CheckKind::Patroni && user.is_some());
    login_rules(cluster, (kind, logs_in), user.is_some(), f);
    if let (true, Some(user), None) = (logs_in, &user, &password) {
        credentials::from_pgpass(nodes, &dbname, user, env, f);
    }
    let interval = or(file.interval.as_ref(), Duration::from_secs(1));
    let check = Check {
        kind,
        interval,
        // Never slower than the ordinary rhythm, which somebody may have made faster than these.
        fast_interval: or(file.fast_interval.as_ref(), Duration::from_millis(500).min(interval)),
        down_interval: or(file.down_interval.as_ref(), Duration::from_secs(1).min(interval)),
        timeout: or(file.timeout.as_ref(), Duration::from_secs(1)),
        rise: at_least_one(file.rise.as_ref(), 2),
        fall: at_least_one(file.fall.as_ref(), 3),
        logs_in,
        user: user.unwrap_or_else(|| ANY_USER.to_owned()),
        password,
        dbname,
        application_name: text_or(file.application_name.as_ref(), "pgsplit-check"),
        max_lag: file.max_lag.as_ref().and_then(|lag| lag.value),
        passive: or(file.passive.as_ref(), true),
    };
    rules::check_times(cluster, &check, f);
    rules_patroni::patroni(cluster, kind, f);
    check
}

/// What only works with a login.
fn login_rules(
    cluster: &FileCluster,
    (kind, logs_in): (CheckKind, bool),
    has_user: bool,
    f: &mut Findings<'_>,
) {
    let file: &FileCheck = &cluster.check;
    if let Some(written) = file.kind.as_ref().filter(|_| kind == CheckKind::Login && !has_user) {
        f.fault(&written.path, written.at, "login needs `user`: whom should checks log in as");
    }
    if logs_in {
        return;
    }
    let lag = file.max_lag.as_ref().filter(|lag: &&Given<Option<MaxLag>>| lag.value.is_some());
    if let Some(lag) = lag.filter(|_| kind != CheckKind::Patroni) {
        let message =
            format!("needs checks of type login or patroni, and these are of type {}", kind.as_str());
        f.fault(&lag.path, lag.at, &message).help("set check.user");
    }
    let password = file.password.as_ref().filter(|password| !password.value.is_empty());
    if let Some(password) = password {
        let way = if kind == CheckKind::Patroni { " without a `user`" } else { "" };
        let message = format!("is never sent: checks are of type {}{way}", kind.as_str());
        f.warning(&password.path, password.at, &message);
    }
}

fn check_sessions(file: &FileSessions) -> Sessions {
    let default = Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), count: 3 };
    let keepalive = match &file.keepalive {
        None => Some(default),
        Some(FileKeepalive::Off) => None,
        Some(FileKeepalive::On { idle, interval, count }) => Some(Keepalive {
            idle: or(idle.as_ref(), default.idle),
            interval: or(interval.as_ref(), default.interval),
            count: or(count.as_ref(), default.count),
        }),
    };
    let tcp_user_timeout = or(file.tcp_user_timeout.as_ref(), Duration::ZERO);
    Sessions {
        connect_timeout: or(file.connect_timeout.as_ref(), Duration::from_secs(3)),
        answer_timeout: or(file.answer_timeout.as_ref(), Duration::from_secs(1)),
        retries: or(file.retries.as_ref(), 3),
        queue_timeout: or(file.queue_timeout.as_ref(), Duration::from_secs(10)),
        queue_size: or(file.queue_size.as_ref(), 1000),
        startup_timeout: or(file.startup_timeout.as_ref(), Duration::from_secs(10)),
        on_down: or(file.on_down.as_ref(), OnTrouble::Close),
        on_demote: or(file.on_demote.as_ref(), OnTrouble::Close),
        on_lag: or(file.on_lag.as_ref(), OnTrouble::Keep),
        on_leave: or(file.on_leave.as_ref(), OnTrouble::Keep),
        on_drain: or(file.on_drain.as_ref(), OnTrouble::Drain),
        keepalive,
        tcp_user_timeout: (!tcp_user_timeout.is_zero()).then_some(tcp_user_timeout),
    }
}

fn check_listeners(
    file: &File,
    clusters: &[Arc<Cluster>],
    host: IpAddr,
    f: &mut Findings<'_>,
) -> Vec<Listener> {
    let Some(written) = &file.listeners else {
        if file.clusters.is_empty() {
            return Vec::new();
        }
        if let [_, second, ..] = file.clusters.as_slice() {
            let message = "several clusters need listeners: only for a single one there are default ones";
            f.fault("listeners", second.name.at, message)
                .help("give each listener `name`, `bind`, `cluster` and `target`");
        }
        let default = |(name, port, target): (&str, u16, Target)| Listener {
            name: name.to_owned(),
            bind: SocketAddr::new(host, port),
            cluster: 0,
            target,
            balance: Balance::Leastconn,
            max_connections: at_least_one(None, 1000),
            tls: Tls::Passthrough,
        };
        return LISTENERS.into_iter().map(default).collect();
    };
    if written.value.is_empty() && f.count() == 0 {
        f.fault(
            &written.path,
            written.at,
            "there are none: write at least one, or leave the key out for the default two",
        );
    }
    rules::listener_names(&written.value, f);
    written.value.iter().filter_map(|listener| check_listener(listener, clusters, f)).collect()
}

fn check_listener(file: &FileListener, clusters: &[Arc<Cluster>], f: &mut Findings<'_>) -> Option<Listener> {
    let cluster = match &file.cluster {
        Some(name) => {
            let found = clusters.iter().position(|cluster| cluster.name == name.value);
            if found.is_none() {
                let known: Vec<&str> = clusters.iter().map(|cluster| cluster.name.as_str()).collect();
                let message = format!("no cluster is named `{}`; there is {}", name.value, words_or(&known));
                f.fault(&name.path, name.at, &message);
            }
            found
        }
        None if clusters.len() == 1 => Some(0),
        None => {
            let main = clusters.iter().position(|cluster| cluster.name == "main");
            if main.is_none() && !clusters.is_empty() {
                f.fault(&file.path, file.at, "has no `cluster`, and none is named `main`");
            }
            main
        }
    };
    // The index is only kept by a configuration without faults.
    Some(Listener {
        name: file.name.as_ref()?.value.clone(),
        bind: file.bind.as_ref()?.value,
        cluster: cluster?,
        target: or(file.target.as_ref(), Target::Primary),
        balance: or(file.balance.as_ref(), Balance::Leastconn),
        max_connections: at_least_one(file.max_connections.as_ref(), 1000),
        tls: or(file.tls.as_ref(), Tls::Passthrough),
    })
}

fn check_admin(file: &FileAdmin, host: IpAddr, env: Env<'_>, f: &mut Findings<'_>) -> Option<Admin> {
    let admin = admin_without_token(file, host, env, f);
    let token = credentials::token(file, env, f);
    admin.map(|admin| Admin { token, ..admin })
}

/// Where the admin server is.
pub(super) fn admin_without_token(
    file: &FileAdmin,
    host: IpAddr,
    env: Env<'_>,
    f: &mut Findings<'_>,
) -> Option<Admin> {
    let default = Some(SocketAddr::new(host, ADMIN_PORT));
    let written = from_env("PGSPLIT_ADMIN", &words::ADMIN_BIND, env, f)
        .or_else(|| file.bind.as_ref().map(|bind| bind.value));
    let socket = match &file.socket {
        Some(socket) => socket.value.clone().map(|path| AdminSocket { path, is_default: false }),
        // Several may run on one machine, each with an address of its own: only one can have the usual place.
        None if written.is_none() => default_socket(env),
        None => None,
    };
    let bind = written.unwrap_or(default);
    let hosts = file.hosts.iter().map(|host| host.value.clone()).collect();
    (bind.is_some() || socket.is_some()).then_some(Admin { bind, socket, hosts, token: None })
}

/// Where the socket is when nobody says where: in the directory that systemd has made for the service (`RuntimeDirectory=` in
/// `systemd.exec(5)`), in a place that is for root alone, or for this user.
fn default_socket(env: Env<'_>) -> Option<AdminSocket> {
    let of_service = non_empty(env, "RUNTIME_DIRECTORY");
    let path = if let Some(dir) = of_service.as_deref().and_then(|dirs| dirs.split(':').next()) {
        PathBuf::from(dir).join("admin.sock")
    } else if rustix::process::geteuid().is_root() {
        PathBuf::from("/run/pgsplit/admin.sock")
    } else {
        PathBuf::from(non_empty(env, "XDG_RUNTIME_DIR")?).join("pgsplit.sock")
    };
    Some(AdminSocket { path, is_default: true })
}

fn check_log(file: &File, env: Env<'_>, f: &mut Findings<'_>) -> Log {
    Log {
        level: from_env("PGSPLIT_LOG", &words::LOG_LEVEL, env, f)
            .unwrap_or_else(|| text_or(file.log_level.as_ref(), "info")),
        format: from_env("PGSPLIT_LOG_FORMAT", &words::LOG_FORMAT, env, f)
            .unwrap_or_else(|| or(file.log_format.as_ref(), LogFormat::Auto)),
        sessions: or(file.log_sessions.as_ref(), LogSessions::End),
        requests: or(file.log_requests.as_ref(), LogRequests::OneOf(NonZeroU32::MIN)),
    }
}

/// Where the default addresses are: a container sets `PGSPLIT_BIND=0.0.0.0`.
pub(super) fn default_host(env: Env<'_>, f: &mut Findings<'_>) -> IpAddr {
    let host: Word<IpAddr> = Word { what: "an IP address", form: Form::Text, parse: words::bind_host };
    from_env("PGSPLIT_BIND", &host, env, f).unwrap_or(Ipv4Addr::LOCALHOST.into())
}

fn from_env<T>(name: &str, word: &Word<T>, env: Env<'_>, f: &mut Findings<'_>) -> Option<T> {
    match (word.parse)(&non_empty(env, name)?) {
        Ok(value) => Some(value),
        Err(message) => {
            f.fault(name, Pos::NOWHERE, &message);
            None
        }
    }
}

pub(super) fn or<T: Clone>(written: Option<&Given<T>>, default: T) -> T {
    written.map_or(default, |written| written.value.clone())
}

/// An empty text is the same as none.
fn text_or(written: Option<&Given<String>>, default: &str) -> String {
    written
        .map(|written| written.value.clone())
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| default.to_owned())
}

/// Zero never gets here: the words for these keys refuse it.
pub(super) fn at_least_one(written: Option<&Given<u32>>, default: u32) -> NonZeroU32 {
    NonZeroU32::new(or(written, default)).unwrap_or(NonZeroU32::MIN)
}

pub(super) fn words_or(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    super::table::listed(&quoted.iter().map(String::as_str).collect::<Vec<_>>(), "and")
}
