//! What an `haproxy.cfg` means in ours: listeners with targets, nodes, checks; and what has no counterpart, line by line.

use std::collections::BTreeMap;

use super::address::host_of;
use super::draft::{Cluster, Draft, Line, Listener, Node};
use super::entrance::{Entrance, groups};
use super::haproxy::{Directive, Haproxy, Section};
use super::leads::{Leads, leads_to, loses, only_active};
use super::proxy::{Check, Proxy, Rest, Server};

/// Port of a Patroni REST API, unless said otherwise.
const PATRONI: &str = "8008";

/// An option of a server.
type ServerOption = fn(&Server) -> Option<&String>;

/// What was read of the whole file.
#[derive(Debug, Default)]
struct Reading {
    draft: Draft,
    /// By line: what has no counterpart, and why.
    left_out: BTreeMap<(usize, usize), (String, String)>,
}

/// Ours for `text`, which came from `origin`.
///
/// # Errors
/// In words: there is nothing in it to take over.
pub(super) fn take_over(text: &str, origin: &str) -> Result<Draft, String> {
    let file = Haproxy::read(text);
    let mut reading = Reading::default();
    for (line, why) in &file.unread {
        reading.leave_out(*line, "", *why);
    }
    let entrances = reading.entrances(&file);
    if entrances.is_empty() {
        return Err(format!(
            "{origin}: no listen or frontend leads to servers over TCP, so there is nothing to take over"
        ));
    }
    reading.write(&entrances, origin);
    Ok(reading.draft)
}

impl Reading {
    fn leave_out(&mut self, line: usize, what: impl Into<String>, why: impl Into<String>) {
        let (nth, said) = (self.left_out.len(), (what.into(), why.into()));
        // What stands in the defaults is met with each proxy.
        let is_said = self.left_out.iter().any(|((known, _), other)| *known == line && *other == said);
        if !is_said {
            self.left_out.insert((line, nth), said);
        }
    }

    fn leave(&mut self, directive: &Directive, why: &str) {
        self.leave_out(directive.line, directive.shown(), why);
    }

    /// Every address that leads to servers over TCP, with what stands behind it.
    fn entrances(&mut self, file: &Haproxy) -> Vec<Entrance> {
        let mut defaults =
            Section { kind: "defaults".to_owned(), name: String::new(), line: 0, directives: Vec::new() };
        let mut backends: BTreeMap<String, Proxy> = BTreeMap::new();
        let mut doors: Vec<Proxy> = Vec::new();
        for section in &file.sections {
            match section.kind.as_str() {
                "global" => self.global(section),
                "defaults" => {
                    self.defaults(section);
                    defaults = section.clone();
                }
                "listen" | "frontend" | "backend" => {
                    let proxy = Proxy::read(section, &defaults);
                    for (directive, why) in &proxy.left_out {
                        self.leave(directive, why);
                    }
                    if section.kind == "backend" {
                        backends.insert(proxy.name.clone(), proxy);
                    } else {
                        doors.push(proxy);
                    }
                }
                other => {
                    let name =
                        if section.name.is_empty() { String::new() } else { format!(" {}", section.name) };
                    self.leave_out(
                        section.line,
                        format!("{other}{name}"),
                        "such a section has no counterpart",
                    );
                }
            }
        }
        let mut entrances = Vec::new();
        for door in &doors {
            if door.is_stats && door.servers.is_empty() {
                self.stats(door);
            } else if door.is_http {
                let why = "HTTP services go under `http:`, with upstreams instead of servers";
                self.leave_out(door.line, format!("{} {}", door.kind, door.name), why);
            } else {
                entrances.extend(door.entrances(&backends));
            }
            for (line, what, why) in door.unknown_ways(&backends) {
                self.leave_out(line, what, why);
            }
        }
        entrances
    }

    fn global(&mut self, section: &Section) {
        for directive in &section.directives {
            let why = match directive.key() {
                // How the process runs, which is the affair of what starts it.
                "daemon" | "user" | "group" | "uid" | "gid" | "pidfile" | "chroot" | "master-worker"
                | "nbproc" | "description" | "node" | "ulimit-n" | "quiet" | "debug" => continue,
                "maxconn" => "there is no limit for the whole process; each listener has max_connections",
                "log" | "log-send-hostname" => "the log goes to standard error; see `log:`",
                "stats" => "the admin address and its socket are always there; see `admin:`",
                "nbthread" => "write runtime.threads, if one for each core is not meant",
                key if key.starts_with("ssl-") || key.starts_with("tune.ssl") => {
                    "TLS is passed through to the nodes"
                }
                key if key.starts_with("tune.") => "there is nothing to tune",
                _ => "it has no counterpart",
            };
            self.leave(directive, why);
        }
    }

    /// What of the defaults no proxy reads.
    fn defaults(&mut self, section: &Section) {
        for directive in &section.directives {
            match Rest::of(directive) {
                Rest::Read | Rest::Usual => (),
                Rest::LeftOut(why) => self.leave(directive, why),
            }
        }
    }

    fn stats(&mut self, door: &Proxy) {
        let Some(bind) = door.binds.first() else { return };
        if let Some(auth) = &door.stats_auth {
            self.leave(auth, "reading the admin address takes no password, so it stays on 127.0.0.1:8404");
        } else if self.draft.admin.is_none() {
            self.draft.admin = Some(Line::because("bind", bind.addr.clone(), format!("line {}", bind.line)));
        } else {
            self.leave_out(bind.line, format!("bind {}", bind.addr), "there is one admin address");
        }
    }

    fn write(&mut self, entrances: &[Entrance], origin: &str) {
        let groups = groups(entrances);
        let is_several = 1 < groups.len();
        let mut names: Vec<String> = Vec::new();
        for group in &groups {
            let of_group: Vec<&Entrance> = group.iter().filter_map(|index| entrances.get(*index)).collect();
            let name = if is_several {
                of_group.first().map_or_else(String::new, |entrance| own_name(&entrance.name, &names))
            } else {
                "main".to_owned()
            };
            names.push(name.clone());
            let (cluster, leads) = self.cluster(&of_group, &name);
            self.draft.clusters.push(cluster);
            for (entrance, (leads, why)) in of_group.iter().zip(leads) {
                let cluster = is_several.then(|| name.clone());
                self.listener(entrance, leads, why, cluster);
            }
        }
        self.unique_node_names();
        let intro = format!("pgsplit, taken over from {}.", super::plain_name(origin));
        self.draft.intro = vec![
            intro,
            "To look for mistakes: pgsplit check. What a key means: pgsplit config explain KEY.".to_owned(),
        ];
        let all = self.left_out.iter();
        let all = all.map(|((line, _), (what, why))| match what.as_str() {
            "" => format!("line {line}: {why}"),
            _ => format!("line {line}: {what} ({why})"),
        });
        self.draft.not_taken.extend(all);
    }

    fn listener(&mut self, entrance: &Entrance, leads: Leads, why: String, cluster: Option<String>) {
        let name = {
            let taken = self.draft.listeners.iter().filter_map(|listener| listener.lines.first());
            own_name(&entrance.name, &taken.map(|line| line.value.clone()).collect::<Vec<_>>())
        };
        let mut lines = vec![
            Line::new("name", name),
            Line::because("bind", entrance.bind.clone(), format!("line {}", entrance.line)),
        ];
        lines.extend(cluster.map(|name| Line::new("cluster", name)));
        lines.push(Line::because("target", leads.as_str(), why));
        lines.extend(entrance.behind.balance.map(|balance| Line::new("balance", balance)));
        let most = entrance.max_connections.as_ref().or(entrance.behind.max_connections.as_ref());
        lines.extend(most.map(|most| Line::new("max_connections", most.clone())));
        self.draft.listeners.push(Listener { lines });
    }

    /// The nodes of some entrances that share them, and what each entrance leads to and why.
    fn cluster(&mut self, entrances: &[&Entrance], name: &str) -> (Cluster, Vec<(Leads, String)>) {
        let mut servers: Vec<&Server> = Vec::new();
        for server in entrances.iter().flat_map(|entrance| &entrance.behind.servers) {
            if !servers.iter().any(|known| known.addr.eq_ignore_ascii_case(&server.addr)) {
                servers.push(server);
            }
        }
        let is_patroni = entrances.iter().any(|entrance| entrance.behind.is_patroni());
        let user = entrances.iter().find_map(|entrance| match &entrance.behind.check {
            Check::Pgsql { user: Some(user) } => Some(user.clone()),
            _ => None,
        });
        let leads: Vec<(Leads, String)> = entrances.iter().map(|entrance| leads_to(entrance)).collect();
        let needs_role = leads.iter().any(|(leads, _)| leads.needs_role());
        // Without an account roles cannot be found out; then they are what the file makes of each server.
        let primary = (!is_patroni && user.is_none()).then(|| only_active(entrances, &leads)).flatten();
        for entrance in entrances {
            if let Check::Http { path, line, .. } = &entrance.behind.check
                && let Some(why) = loses(path)
            {
                let path = path.split('?').next().unwrap_or_default();
                self.leave_out(*line, format!("{path} of {}", entrance.behind.name), why);
            }
        }
        let asks_a_script =
            entrances.iter().any(|entrance| matches!(entrance.behind.check, Check::Http { .. }));
        let mut nodes = Vec::new();
        for server in &servers {
            nodes.push(self.node(server, entrances, is_patroni, primary));
        }
        let login = !is_patroni && primary.is_none() && needs_role;
        let mut check = Vec::new();
        if is_patroni {
            check.push(Line::because("type", "patroni", "asks the REST API that HAProxy asked"));
        } else if login || user.is_some() {
            let why = match user {
                Some(_) => "needs no rights",
                None => "create it: CREATE ROLE lb_check LOGIN PASSWORD '...'; it needs no rights",
            };
            if !needs_role {
                check.push(Line::because(
                    "type",
                    "startup",
                    "no listener asks for a role, so no login is needed",
                ));
            }
            check.push(Line::because("user", user.clone().unwrap_or_else(|| "lb_check".to_owned()), why));
            if needs_role {
                check.push(super::password_line());
            }
        }
        if asks_a_script && !is_patroni {
            let line = entrances.iter().find_map(|entrance| match &entrance.behind.check {
                Check::Http { line, .. } => Some(*line),
                _ => None,
            });
            let why = "the script it asks is not needed: pgsplit asks PostgreSQL itself";
            self.leave_out(line.unwrap_or(0), "option httpchk", why);
        }
        check.extend(self.check_times(entrances));
        let sessions = sessions(entrances);
        (Cluster { name: name.to_owned(), nodes, check, sessions }, leads)
    }

    fn node(
        &mut self,
        server: &Server,
        entrances: &[&Entrance],
        is_patroni: bool,
        primary: Option<&str>,
    ) -> Node {
        let mut lines = vec![Line::new("addr", server.addr.clone())];
        if server.is_name_told() {
            lines.push(Line::new("name", server.name.clone()));
        }
        if let Some(primary) = primary {
            let is_it = primary.eq_ignore_ascii_case(&server.addr);
            lines.push(Line::because(
                "role",
                if is_it { "primary" } else { "standby" },
                if is_it { "the only server for writes that is no backup" } else { "" },
            ));
        }
        if is_patroni {
            let port = server.check_port.clone().unwrap_or_else(|| PATRONI.to_owned());
            match server.check_host.as_deref().filter(|host| *host != host_of(&server.addr)) {
                Some(host) => lines.push(Line::new("patroni", format!("{host}:{port}"))),
                // Beside the server and at the usual port it is looked for anyway.
                None if port == PATRONI => {}
                None => lines.push(Line::new("patroni", port)),
            }
        }
        let same: Vec<&Server> = entrances
            .iter()
            .flat_map(|entrance| &entrance.behind.servers)
            .filter(|other| other.addr.eq_ignore_ascii_case(&server.addr))
            .collect();
        if server.is_disabled {
            lines.push(Line::because("weight", "0", "was disabled: no new sessions"));
        } else if let Some(weight) = &server.weight {
            lines.push(Line::new("weight", weight.clone()));
        }
        // With roles written or found out, it is the listener's target that keeps sessions off a standby.
        let is_backup = primary.is_none() && same.iter().all(|one| one.is_backup);
        if is_backup {
            lines.push(Line::new("backup", "true"));
        } else if let Some(backup) = same.iter().find(|one| one.is_backup && primary.is_some()) {
            let why = "writes go to the primary alone; after a promotion the roles must be written anew";
            self.leave_out(backup.line, format!("server {} backup", backup.name), why);
        } else if primary.is_none() && !is_patroni && same.iter().any(|one| one.is_backup) {
            let line = same.iter().find(|one| one.is_backup).map_or(0, |one| one.line);
            let why = "it is none elsewhere, and a node is one for all listeners or for none";
            self.leave_out(line, format!("server {} backup", server.name), why);
        }
        if let Some(most) = &server.max_connections {
            lines.push(Line::new("max_connections", most.clone()));
        }
        for other in same.iter().filter(|other| other.line != server.line) {
            for (what, here, there) in [
                ("weight", &server.weight, &other.weight),
                ("maxconn", &server.max_connections, &other.max_connections),
            ] {
                if here != there {
                    let there = there.as_deref().unwrap_or("none");
                    let why = format!("a node has one for all listeners; taken from line {}", server.line);
                    self.leave_out(other.line, format!("server {} {what} {there}", other.name), why);
                }
            }
        }
        self.draft.all_addresses |= server.is_template;
        Node { lines }
    }

    /// The times of checks: the first that is written of each, for a cluster has one of each.
    fn check_times(&mut self, entrances: &[&Entrance]) -> Vec<Line> {
        let servers: Vec<&Server> = entrances.iter().flat_map(|entrance| &entrance.behind.servers).collect();
        let mut lines = Vec::new();
        let keys: [(&'static str, ServerOption); 5] = [
            ("interval", |server| server.inter.as_ref()),
            ("fast_interval", |server| server.fastinter.as_ref()),
            ("down_interval", |server| server.downinter.as_ref()),
            ("rise", |server| server.rise.as_ref()),
            ("fall", |server| server.fall.as_ref()),
        ];
        for (key, value) in keys {
            let Some(first) = servers.iter().find(|server| value(server).is_some()) else { continue };
            let taken = value(first);
            lines.extend(taken.map(|taken| Line::new(key, taken.clone())));
            let others: Vec<&&Server> =
                servers.iter().filter(|server| value(server).is_some() && value(server) != taken).collect();
            for other in others {
                let theirs = value(other).map_or("", String::as_str);
                let why = format!("a cluster has one; taken from line {}", first.line);
                self.leave_out(other.line, format!("server {}: {key} {theirs}", other.name), why);
            }
        }
        let timeout = entrances.iter().find_map(|entrance| entrance.behind.timeout_check.clone());
        lines.extend(timeout.map(|timeout| Line::new("timeout", timeout)));
        lines
    }

    /// Names of nodes are unique over all clusters; one that is taken is left to the address.
    fn unique_node_names(&mut self) {
        let mut seen = Vec::new();
        for node in self.draft.clusters.iter_mut().flat_map(|cluster| &mut cluster.nodes) {
            let name = node.lines.iter().find(|line| line.key == "name").map(|line| line.value.clone());
            let Some(name) = name else { continue };
            if seen.contains(&name) {
                node.lines.retain(|line| line.key != "name");
            } else {
                seen.push(name);
            }
        }
    }
}

fn sessions(entrances: &[&Entrance]) -> Vec<Line> {
    let first = |value: fn(&Proxy) -> Option<&String>| {
        entrances.iter().find_map(|entrance| value(&entrance.behind).cloned())
    };
    let mut lines = Vec::new();
    lines
        .extend(first(|proxy| proxy.timeout_connect.as_ref()).map(|time| Line::new("connect_timeout", time)));
    lines.extend(first(|proxy| proxy.timeout_queue.as_ref()).map(|time| Line::new("queue_timeout", time)));
    lines.extend(first(|proxy| proxy.retries.as_ref()).map(|retries| Line::new("retries", retries)));
    let mut servers = entrances.iter().flat_map(|entrance| &entrance.behind.servers);
    if servers.all(|server| !server.shuts_down) {
        lines.push(Line::because(
            "on_down",
            "keep",
            "as HAProxy without on-marked-down shutdown-sessions; ours is close",
        ));
    }
    lines
}

/// `name`, or with a number behind it when it is taken. Whatever a name cannot hold becomes `-`.
fn own_name(name: &str, taken: &[String]) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':') { c } else { '-' })
        .take(40)
        .collect();
    let plain = if plain.is_empty() { "listener".to_owned() } else { plain };
    // One of them is free: there are more than are taken.
    (1..=taken.len() + 1)
        .map(|n| if n == 1 { plain.clone() } else { format!("{plain}-{n}") })
        .find(|name| !taken.contains(name))
        .unwrap_or(plain)
}
