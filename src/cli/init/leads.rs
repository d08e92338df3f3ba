//! Which role the servers have that an entrance leads to.

use super::entrance::Entrance;
use super::proxy::Check;

/// What a listener leads to, as far as the file tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leads {
    Primary,
    Standby,
    PreferStandby,
    Any,
}

impl Leads {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
            Self::Any => "any",
        }
    }

    pub(super) const fn needs_role(self) -> bool {
        matches!(self, Self::Primary | Self::Standby)
    }
}

/// Where an entrance leads, and what tells that.
pub(super) fn leads_to(entrance: &Entrance) -> (Leads, String) {
    match &entrance.behind.check {
        Check::Http { path, line, expects, .. } => {
            let path = path.split('?').next().unwrap_or_default();
            let by_path = match path {
                "/primary" | "/master" | "/leader" | "/read-write" => Some(Leads::Primary),
                // The leader of a standby cluster takes no writes.
                "/standby-leader" | "/replica" | "/read-only-sync" | "/sync" | "/synchronous" | "/async"
                | "/asynchronous" => Some(Leads::Standby),
                "/read-only" | "/health" | "/liveness" | "/readiness" => Some(Leads::Any),
                "/" if entrance.behind.is_patroni() => Some(Leads::Primary),
                _ => None,
            };
            if let Some(leads) = by_path {
                return (leads, format!("line {line} asks {path}"));
            }
            match expects.as_deref() {
                Some("master" | "primary" | "leader") => return (Leads::Primary, format!("line {line}")),
                Some("standby" | "slave" | "replica") => return (Leads::Standby, format!("line {line}")),
                _ => {}
            }
        }
        Check::None | Check::Pgsql { .. } => {}
    }
    let words: Vec<String> = [&entrance.name, &entrance.behind.name]
        .iter()
        .flat_map(|name| name.split(|c: char| !c.is_ascii_alphabetic()))
        .map(str::to_ascii_lowercase)
        .collect();
    let says = |all: &[&str]| words.iter().any(|word| all.iter().any(|known| word == known));
    let active = entrance.behind.servers.iter().filter(|server| !server.is_backup).count();
    if says(&["rw", "write", "writes", "writer", "primary", "master", "leader", "readwrite"]) {
        return (Leads::Primary, "its name says so".to_owned());
    }
    if says(&[
        "ro", "read", "reads", "reader", "replica", "replicas", "standby", "standbys", "slave", "slaves",
        "readonly",
    ]) {
        return (Leads::PreferStandby, "its name says so".to_owned());
    }
    let backups = entrance.behind.servers.len() - active;
    if active == 1 && 0 < backups {
        return (Leads::Any, "one server and its backups, whatever their role".to_owned());
    }
    (Leads::Any, "no check tells primary from standby".to_owned())
}

/// What a path of Patroni asks for beyond the role.
pub(super) fn loses(path: &str) -> Option<&'static str> {
    match path.split('?').next().unwrap_or_default() {
        "/sync" | "/synchronous" | "/read-only-sync" => {
            Some("that a standby is a synchronous one is not asked for: any takes sessions")
        }
        "/async" | "/asynchronous" => {
            Some("that a standby is no synchronous one is not asked for: any takes sessions")
        }
        "/standby-leader" => Some("the leader of a standby cluster is a standby like the others"),
        _ => None,
    }
}

/// The one server that writes go to while it is there: the role it has must be primary.
pub(super) fn only_active<'e>(entrances: &[&'e Entrance], leads: &[(Leads, String)]) -> Option<&'e str> {
    let mut all =
        entrances.iter().zip(leads).filter(|(_, (leads, _))| *leads == Leads::Primary).map(|(one, _)| {
            let mut active = one.behind.servers.iter().filter(|server| !server.is_backup);
            match (active.next(), active.next()) {
                (Some(only), None) => Some(only.addr.as_str()),
                _ => None,
            }
        });
    let first = all.next().flatten()?;
    all.all(|other| other == Some(first)).then_some(first)
}
