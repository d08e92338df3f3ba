//! One `listen`, `frontend` or `backend`: what of it counts, with what its defaults say.

use std::collections::BTreeMap;

use super::address::{bind_addr, server_addr, time};
use super::haproxy::{Directive, Section};

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
    pub ways: Vec<Way>,
    /// Conditions by name: the words of each.
    pub acls: BTreeMap<String, Vec<String>>,
    /// What is not taken over, and why.
    pub left_out: Vec<(Directive, String)>,
}

#[derive(Clone, Debug)]
pub(super) struct Bind {
    pub addr: String,
    pub line: usize,
}

/// A way to a backend.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub backend: String,
    /// When; empty: always.
    pub condition: Vec<String>,
    pub line: usize,
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
#[expect(clippy::struct_excessive_bools, reason = "options that are there or not, as HAProxy has them")]
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
                | "retries" | "default_backend" | "use_backend" | "acl" | "http-check" | "stats"
                | "description",
                _,
            )
            | ("option", "httpchk" | "pgsql-check" | "tcp-check")
            | ("timeout", "connect" | "queue" | "check") => Self::Read,
            (
                "option",
                "redispatch" | "tcpka" | "clitcpka" | "srvtcpka" | "dontlognull" | "tcplog" | "httplog"
                | "log-health-checks" | "dontlog-normal" | "abortonclose" | "contstats" | "logasap"
                | "splice-auto" | "splice-request" | "splice-response" | "tcp-smart-accept"
                | "tcp-smart-connect" | "allbackups" | "http-server-close" | "forwardfor",
            )
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
                self.is_stats = true;
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
                "ssl" => "TLS is passed through to the nodes, which need the certificate",
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
                    server.weight = value().filter(|weight| weight.parse::<u16>().is_ok_and(|w| w <= 256));
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
                    self.leave(directive, format!("`{word}`: pgsplit speaks no TLS to a server itself"));
                }
                "send-proxy" | "send-proxy-v2" | "check-send-proxy" => {
                    self.leave(directive, format!("`{word}`: the PROXY protocol is not in this version"));
                }
                "slowstart" | "agent-port" | "agent-addr" | "agent-inter" | "track" | "source" | "usesrc"
                | "on-marked-up" | "interface" | "redir" => {
                    value();
                    self.leave(directive, format!("`{word}` has no counterpart"));
                }
                // Not shown: it may be what an option is set to that is not known here.
                _ => self.leave(directive, "an option has no counterpart"),
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
