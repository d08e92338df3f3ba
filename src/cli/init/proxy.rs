//! One `listen`, `frontend` or `backend`: what of it counts, with what its defaults say.

use std::collections::BTreeMap;

use super::haproxy::{Directive, Section};
use crate::base::units::parse_duration;

/// What a proxy says.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxy {
    pub kind: String,
    pub name: String,
    pub line: usize,
    pub is_http: bool,
    pub is_stats: bool,
    pub stats_auth: Option<Directive>,
    pub binds: Vec<Bind>,
    pub servers: Vec<Server>,
    pub check: Check,
    pub balance: Option<&'static str>,
    pub max_connections: Option<String>,
    pub timeout_connect: Option<String>,
    pub timeout_queue: Option<String>,
    pub timeout_check: Option<String>,
    pub retries: Option<String>,
    /// `default_backend`, and `use_backend` with its condition.
    ways: Vec<Way>,
    /// Conditions by name: the words of each.
    acls: BTreeMap<String, Vec<String>>,
    /// What is not taken over, and why.
    pub left_out: Vec<(Directive, String)>,
}

#[derive(Clone, Debug)]
pub(super) struct Bind {
    pub addr: String,
    pub line: usize,
}

#[derive(Clone, Debug)]
struct Way {
    backend: String,
    condition: Vec<String>,
    line: usize,
}

/// How a proxy looks at its servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Check {
    /// By connecting, or not at all.
    #[default]
    None,
    Http {
        path: String,
        line: usize,
        /// The text that is awaited.
        expects: Option<String>,
    },
    Pgsql {
        user: Option<String>,
    },
}

/// One server.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    pub name: String,
    pub addr: String,
    pub line: usize,
    pub check_host: Option<String>,
    pub check_port: Option<String>,
    pub weight: Option<String>,
    pub max_connections: Option<String>,
    pub inter: Option<String>,
    pub fastinter: Option<String>,
    pub downinter: Option<String>,
    pub rise: Option<String>,
    pub fall: Option<String>,
    pub is_backup: bool,
    pub is_disabled: bool,
    /// Whether its sessions end when it is down.
    pub shuts_down: bool,
    /// Whether it stands for each address of a name.
    pub is_template: bool,
}

/// An address that clients connect to, and the servers behind it.
#[derive(Clone, Debug)]
pub(super) struct Entrance {
    pub name: String,
    pub bind: String,
    pub line: usize,
    pub max_connections: Option<String>,
    pub behind: Proxy,
}

/// What becomes of a directive that is none of a server.
pub(super) enum Rest {
    /// It is read.
    Read,
    /// It is so anyway.
    Usual,
    LeftOut(&'static str),
}

impl Rest {
    pub(super) fn of(directive: &Directive) -> Self {
        match (directive.key(), directive.word(1)) {
            (
                "mode" | "bind" | "server" | "server-template" | "default-server" | "balance" | "maxconn"
                | "retries",
                _,
            )
            | ("default_backend" | "use_backend" | "acl" | "http-check" | "stats" | "description", _)
            | ("option", "httpchk" | "pgsql-check" | "tcp-check")
            | ("timeout", "connect" | "queue" | "check") => Self::Read,
            (
                "option",
                "redispatch" | "tcpka" | "clitcpka" | "srvtcpka" | "dontlognull" | "tcplog" | "httplog",
            )
            | ("option", "log-health-checks" | "dontlog-normal" | "abortonclose" | "contstats" | "logasap")
            | ("option", "splice-auto" | "splice-request" | "splice-response" | "tcp-smart-accept")
            | ("option", "tcp-smart-connect" | "allbackups" | "http-server-close" | "forwardfor")
            | ("log" | "no" | "enabled", _) => Self::Usual,
            ("timeout", "client" | "server" | "tunnel" | "client-fin" | "server-fin") => {
                Self::LeftOut("no session is closed for being idle")
            }
            ("timeout", _) => Self::LeftOut("it is about HTTP, or has no counterpart"),
            ("option", "external-check") => Self::LeftOut("pgsplit runs no programs"),
            ("tcp-check", _) => Self::LeftOut("pgsplit speaks PostgreSQL to a server by itself"),
            ("stick-table" | "stick", _) => {
                Self::LeftOut("write `balance: source` for the same node for the same client")
            }
            ("errorfile" | "errorloc" | "http-request" | "http-response" | "compression" | "cookie", _) => {
                Self::LeftOut("it is about HTTP")
            }
            ("tcp-request" | "tcp-response", _) => Self::LeftOut("there are no rules for connections"),
            ("fullconn" | "backlog" | "rate-limit", _) => Self::LeftOut("it has no counterpart"),
            _ => Self::LeftOut("it has no counterpart"),
        }
    }
}

impl Proxy {
    /// Reads a section; `defaults` says what it leaves out.
    pub(super) fn read(section: &Section, defaults: &Section) -> Self {
        let mut proxy = Self {
            kind: section.kind.clone(),
            name: section.name.clone(),
            line: section.line,
            ..Self::default()
        };
        let mut default_server = Server::default();
        for directive in &defaults.directives {
            proxy.directive(directive, &mut default_server, true);
        }
        for directive in &section.directives {
            proxy.directive(directive, &mut default_server, false);
        }
        proxy
    }

    fn directive(&mut self, directive: &Directive, default_server: &mut Server, is_default: bool) {
        let one = |index: usize| Some(directive.word(index).to_owned()).filter(|word| !word.is_empty());
        match (directive.key(), directive.word(1)) {
            ("mode", mode) => self.is_http = mode == "http",
            ("bind", _) => self.bind(directive),
            ("stats", what) => {
                self.is_stats |= !is_default;
                if what == "auth" {
                    self.stats_auth = Some(directive.clone());
                }
            }
            ("http-request", "use-service") if directive.word(2) == "prometheus-exporter" => {
                self.is_stats = true
            }
            ("default-server", _) => {
                let options = self.options(directive, 1, default_server.clone());
                *default_server = options;
            }
            ("server", _) => self.server(directive, default_server),
            ("server-template", _) => self.server_template(directive, default_server),
            ("balance", algorithm) => self.balance(directive, algorithm),
            ("maxconn", _) => self.max_connections = one(1),
            ("retries", _) => self.retries = one(1),
            ("timeout", "connect") => self.timeout_connect = self.time(directive, 2),
            ("timeout", "queue") => self.timeout_queue = self.time(directive, 2),
            ("timeout", "check") => self.timeout_check = self.time(directive, 2),
            ("option", "httpchk") => self.httpchk(directive),
            ("option", "pgsql-check") => {
                let user = (directive.word(2) == "user").then(|| one(3)).flatten();
                self.check = Check::Pgsql { user };
            }
            ("option", "tcp-check") => self.check = Check::None,
            ("http-check", _) => self.http_check(directive),
            ("default_backend", backend) => {
                let way = Way { backend: backend.to_owned(), condition: Vec::new(), line: directive.line };
                self.ways.push(way);
            }
            ("use_backend", backend) => {
                let condition = directive.rest(2).to_vec();
                self.ways.push(Way { backend: backend.to_owned(), condition, line: directive.line });
            }
            ("acl", name) => {
                self.acls.insert(name.to_owned(), directive.rest(2).to_vec());
            }
            _ if is_default => {}
            _ => {
                if let Rest::LeftOut(why) = Rest::of(directive) {
                    self.leave(directive, why);
                }
            }
        }
    }

    fn leave(&mut self, directive: &Directive, why: impl Into<String>) {
        self.left_out.push((directive.clone(), why.into()));
    }

    fn bind(&mut self, directive: &Directive) {
        let options = directive.rest(2);
        for option in options {
            let why = match option.as_str() {
                "ssl" | "crt" => "TLS is passed through to the nodes, which need the certificate",
                "accept-proxy" => "the PROXY protocol is not in this version",
                "transparent" | "interface" | "namespace" => "it has no counterpart",
                _ => continue,
            };
            self.leave(directive, format!("`{option}`: {why}"));
        }
        for addr in directive.word(1).split(',') {
            match bind_addr(addr) {
                Ok(addr) => self.binds.push(Bind { addr, line: directive.line }),
                Err(why) => self.leave(directive, why),
            }
        }
    }

    fn balance(&mut self, directive: &Directive, algorithm: &str) {
        self.balance = match algorithm.split('(').next().unwrap_or_default() {
            "leastconn" => Some("leastconn"),
            "roundrobin" | "static-rr" => Some("roundrobin"),
            "random" => Some("random"),
            "first" => Some("first"),
            "source" => Some("source"),
            _ => {
                self.leave(directive, "there are leastconn, roundrobin, random, first and source");
                None
            }
        };
    }

    fn httpchk(&mut self, directive: &Directive) {
        // `option httpchk [METHOD] URI [VERSION]`, in which a method alone cannot stand.
        let path = directive.rest(2).iter().find(|word| word.starts_with('/'));
        let path = path.cloned().unwrap_or_else(|| "/".to_owned());
        if path.contains("lag=") {
            self.leave(directive, "lag is judged here: write check.max_lag");
        } else if path.contains('?') {
            self.leave(directive, "what stands behind `?` is not asked for");
        }
        self.check = Check::Http { path, line: directive.line, expects: None };
    }

    fn http_check(&mut self, directive: &Directive) {
        let words = directive.rest(1);
        let after = |word: &str| {
            let at = words.iter().position(|one| one == word)?;
            words.get(at + 1).cloned()
        };
        match directive.word(1) {
            "send" | "send-state" | "connect" => {
                if let (Check::Http { path, line, .. }, Some(uri)) = (&mut self.check, after("uri")) {
                    *path = uri;
                    *line = directive.line;
                }
            }
            "expect" => {
                let text = after("string").or_else(|| after("rstring")).map(|text| text.to_ascii_lowercase());
                match (text, &mut self.check) {
                    (Some(text), Check::Http { expects, line, .. }) => {
                        *expects = Some(text);
                        *line = directive.line;
                    }
                    (None, _) if directive.word(2) == "status" => {}
                    _ => self.leave(directive, "only a good answer counts"),
                }
            }
            _ => {}
        }
    }

    fn time(&mut self, directive: &Directive, index: usize) -> Option<String> {
        let written = directive.word(index);
        let time = time(written);
        if time.is_none() {
            self.leave(directive, "it is no time");
        }
        time
    }

    fn server(&mut self, directive: &Directive, defaults: &Server) {
        let addr = directive.word(2);
        let port = self.binds.first().and_then(|bind| bind.addr.rsplit_once(':')).map(|(_, port)| port);
        match server_addr(addr, port) {
            Ok(addr) => {
                let name = directive.word(1).to_owned();
                let server = Server { name, addr, line: directive.line, ..defaults.clone() };
                let server = self.options(directive, 3, server);
                self.servers.push(server);
            }
            Err(why) => self.leave(directive, why),
        }
    }

    /// `server-template PREFIX COUNT ADDR …`
    fn server_template(&mut self, directive: &Directive, defaults: &Server) {
        let addr = directive.word(3);
        if addr.contains("_tcp.") {
            self.leave(
                directive,
                "SRV records are not in this version: write the name of the servers and their port",
            );
            return;
        }
        match server_addr(addr, None) {
            Ok(addr) => {
                let name = String::new();
                let server =
                    Server { name, addr, line: directive.line, is_template: true, ..defaults.clone() };
                let server = self.options(directive, 4, server);
                self.servers.push(server);
            }
            Err(why) => self.leave(directive, why),
        }
    }

    /// The options of a server from word `from` on.
    fn options(&mut self, directive: &Directive, from: usize, mut server: Server) -> Server {
        let mut words = directive.rest(from).iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().cloned();
            match word.as_str() {
                "port" => server.check_port = value(),
                "addr" => server.check_host = value(),
                "weight" => {
                    server.weight = value().filter(|weight| weight.parse::<u16>().is_ok_and(|w| w <= 256))
                }
                "maxconn" => server.max_connections = value(),
                "rise" => server.rise = value(),
                "fall" => server.fall = value(),
                "inter" => server.inter = value().as_deref().and_then(time),
                "fastinter" => server.fastinter = value().as_deref().and_then(time),
                "downinter" => server.downinter = value().as_deref().and_then(time),
                "backup" => server.is_backup = true,
                "no-backup" => server.is_backup = false,
                "disabled" => server.is_disabled = true,
                "enabled" => server.is_disabled = false,
                "on-marked-down" => server.shuts_down = value().as_deref() == Some("shutdown-sessions"),
                // It is so, or means nothing here.
                "check" | "no-check" => {}
                "resolvers" | "init-addr" | "resolve-prefer" | "resolve-opts" | "resolve-net" | "observe"
                | "error-limit" | "on-error" | "id" | "minconn" | "maxqueue" | "cookie" | "ca-file"
                | "crt" | "verify" | "sni" | "check-sni" | "pool-purge-delay" | "pool-max-conn" => {
                    value();
                }
                "ssl" | "check-ssl" => {
                    self.leave(directive, format!("`{word}`: pgsplit speaks no TLS to a server itself"))
                }
                "send-proxy" | "send-proxy-v2" | "check-send-proxy" => {
                    self.leave(directive, format!("`{word}`: the PROXY protocol is not in this version"));
                }
                "slowstart" | "agent-port" | "agent-addr" | "agent-inter" | "track" | "source" | "usesrc"
                | "on-marked-up" | "interface" | "redir" => {
                    let taken = value().unwrap_or_default();
                    self.leave(directive, format!("`{word} {taken}` has no counterpart"));
                }
                _ => self.leave(directive, format!("`{word}` has no counterpart")),
            }
        }
        server
    }

    /// Whether servers are asked at the REST API of Patroni.
    pub(super) fn is_patroni(&self) -> bool {
        const PATHS: [&str; 14] = [
            "/primary",
            "/master",
            "/leader",
            "/read-write",
            "/standby-leader",
            "/replica",
            "/read-only",
            "/read-only-sync",
            "/sync",
            "/synchronous",
            "/async",
            "/asynchronous",
            "/readiness",
            "/liveness",
        ];
        let Check::Http { path, expects, .. } = &self.check else { return false };
        let path = path.split('?').next().unwrap_or_default();
        let at_its_port = || self.servers.iter().any(|server| server.check_port.as_deref() == Some("8008"));
        PATHS.contains(&path) || (matches!(path, "/" | "/health") && expects.is_none() && at_its_port())
    }

    /// What clients connect to here, with the servers behind each.
    pub(super) fn entrances(&self, backends: &BTreeMap<String, Self>) -> Vec<Entrance> {
        let mut all = Vec::new();
        for bind in &self.binds {
            let behind = if self.kind == "listen" && !self.servers.is_empty() {
                Some(self)
            } else {
                let way = self.ways.iter().find(|way| self.is_for(way, bind) == Some(true));
                way.and_then(|way| backends.get(&way.backend))
            };
            let Some(behind) = behind.filter(|behind| !behind.servers.is_empty() && !behind.is_http) else {
                continue;
            };
            let is_shared = 1 < self.binds.len();
            let name = if is_shared && behind.kind == "backend" { &behind.name } else { &self.name };
            all.push(Entrance {
                name: name.clone(),
                bind: bind.addr.clone(),
                line: bind.line,
                max_connections: self.max_connections.clone(),
                behind: behind.clone(),
            });
        }
        all
    }

    /// The ways to backends that nothing here can follow.
    pub(super) fn unknown_ways(&self, backends: &BTreeMap<String, Self>) -> Vec<(usize, String)> {
        let mut all = Vec::new();
        for way in &self.ways {
            let Way { backend, condition, line } = way;
            let text = if condition.is_empty() {
                format!("default_backend {backend}")
            } else {
                format!("use_backend {backend} {}", condition.join(" "))
            };
            if self.binds.iter().all(|bind| self.is_for(way, bind).is_none()) && !condition.is_empty() {
                all.push((*line, format!("{text} (only the port that clients connect to decides)")));
            } else if !backends.contains_key(backend) {
                all.push((*line, format!("{text} (there is no such backend)")));
            }
        }
        all
    }

    /// Whether connections at `bind` go that way; `None`: something else than the port decides.
    fn is_for(&self, way: &Way, bind: &Bind) -> Option<bool> {
        let Some((word, names)) = way.condition.split_first() else { return Some(true) };
        let port = bind.addr.rsplit_once(':').map_or("", |(_, port)| port);
        let is_it = |words: &[String]| -> Option<bool> {
            let (fetch, values) = words.split_first()?;
            (fetch == "dst_port").then(|| {
                values
                    .iter()
                    .filter(|value| *value != "eq" && *value != "-m" && *value != "int")
                    .any(|value| value == port)
            })
        };
        // `{ dst_port 5001 }` in place, or the name of a condition; several must all hold.
        let found = if names.first().is_some_and(|word| word == "{") {
            let inner = names.get(1..names.len().checked_sub(1)?)?;
            is_it(inner)?
        } else {
            let mut all = true;
            for name in names {
                let is_not = name.starts_with('!');
                all &= is_it(self.acls.get(name.trim_start_matches('!'))?)? != is_not;
            }
            all
        };
        match word.as_str() {
            "if" => Some(found),
            "unless" => Some(!found),
            _ => None,
        }
    }
}

impl Server {
    /// Whether its name says more than its address does.
    pub(super) fn is_name_told(&self) -> bool {
        let is_name = !self.name.is_empty()
            && self.name.len() <= 63
            && self.name.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':'));
        let host = self.addr.rsplit_once(':').map_or(self.addr.as_str(), |(host, _)| host);
        is_name && self.name != host
    }
}

/// Milliseconds where no unit is written, as HAProxy has it; ours with one.
fn time(text: &str) -> Option<String> {
    if text.contains("${") {
        return Some(text.to_owned());
    }
    let with_unit =
        if text.bytes().all(|b| b.is_ascii_digit()) { format!("{text}ms") } else { text.to_owned() };
    let time = parse_duration(&with_unit).ok()?;
    let is_sound = !time.is_zero() && time <= std::time::Duration::from_secs(30 * 24 * 60 * 60);
    is_sound.then(|| humantime::format_duration(time).to_string().replace(' ', ""))
}

/// An address to listen on, in our words.
fn bind_addr(addr: &str) -> Result<String, String> {
    let addr = addr.strip_prefix("ipv4@").or_else(|| addr.strip_prefix("ipv6@")).unwrap_or(addr);
    if addr.starts_with('/') || addr.contains('@') {
        return Err("only TCP addresses can be listened on".to_owned());
    }
    let (host, port) = split(addr).ok_or("it has no port")?;
    if port.contains('-') && !port.contains("${") {
        return Err("a range of ports: write a listener for each".to_owned());
    }
    let host = match host {
        "" | "*" => "*".to_owned(),
        "::" | "[::]" => "[::]".to_owned(),
        "localhost" => "127.0.0.1".to_owned(),
        host if host.contains("${") => host.to_owned(),
        host => match host.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
            Ok(ip) => ip.to_string(),
            Err(_) => return Err("a name cannot be listened on: write its address".to_owned()),
        },
    };
    Ok(format!("{host}:{port}"))
}

/// The address of a server, in our words. `default`: the port that clients connect to.
fn server_addr(addr: &str, default: Option<&str>) -> Result<String, String> {
    let addr = addr.strip_prefix("ipv4@").or_else(|| addr.strip_prefix("ipv6@")).unwrap_or(addr);
    if addr.starts_with('/') || addr.contains('@') {
        return Err("Unix sockets are not in this version".to_owned());
    }
    if addr.is_empty() {
        return Err("it has no address".to_owned());
    }
    let (host, port) = match split(addr) {
        Some((host, port)) if !port.is_empty() => (host, port),
        Some((host, _)) => (host, default.unwrap_or("5432")),
        None => (addr, default.unwrap_or("5432")),
    };
    if port.starts_with(['+', '-']) {
        return Err("a port that depends on the client's: write it out".to_owned());
    }
    let bare = host.trim_matches(['[', ']']);
    let host = if bare.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{bare}]") } else { host.to_owned() };
    Ok(format!("{host}:{port}"))
}

/// Host and port; a variable in braces may hold a colon.
fn split(addr: &str) -> Option<(&str, &str)> {
    let (host, port) = addr.rsplit_once(':')?;
    let is_inside = port.contains(['}', ']']) && !port.contains("${");
    // The last colon of `::1` is none before a port.
    let is_v6 = addr.parse::<std::net::Ipv6Addr>().is_ok() && addr != "::" && !addr.starts_with(":::");
    (!is_inside && !is_v6).then_some((host, port))
}
