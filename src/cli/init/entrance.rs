//! Where clients connect, and which servers stand behind each such place.

use std::collections::BTreeMap;

use super::proxy::{Bind, Proxy, Way};

/// An address that clients connect to, and the servers behind it.
#[derive(Clone, Debug)]
pub(super) struct Entrance {
    pub name: String,
    pub bind: String,
    pub line: usize,
    pub max_connections: Option<String>,
    pub behind: Proxy,
}

impl Proxy {
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

    /// The ways to backends that nothing here can follow: line, text, and why.
    pub(super) fn unknown_ways(
        &self,
        backends: &BTreeMap<String, Self>,
    ) -> Vec<(usize, String, &'static str)> {
        let mut all = Vec::new();
        for way in &self.ways {
            let Way { backend, condition, line } = way;
            let text = if condition.is_empty() {
                format!("default_backend {backend}")
            } else {
                format!("use_backend {backend}")
            };
            if self.binds.iter().all(|bind| self.is_for(way, bind).is_none()) && !condition.is_empty() {
                all.push((*line, text, "only the port that clients connect to decides"));
            } else if !backends.contains_key(backend) {
                all.push((*line, text, "there is no such backend"));
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

/// Which entrances share servers, as indices: each such group is a cluster.
pub(super) fn groups(entrances: &[Entrance]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(Vec<usize>, Vec<String>)> = Vec::new();
    for (index, entrance) in entrances.iter().enumerate() {
        let addrs: Vec<String> =
            entrance.behind.servers.iter().map(|server| server.addr.to_ascii_lowercase()).collect();
        let (shared, apart): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|(_, known)| known.iter().any(|addr| addrs.contains(addr)));
        let mut joined = (Vec::new(), Vec::new());
        for (indices, addrs) in shared {
            joined.0.extend(indices);
            joined.1.extend(addrs);
        }
        joined.0.push(index);
        joined.1.extend(addrs);
        groups = apart;
        groups.push(joined);
    }
    let mut groups: Vec<Vec<usize>> = groups.into_iter().map(|(indices, _)| indices).collect();
    groups.sort();
    groups
}
