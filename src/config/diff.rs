//! What is different between two configurations, key by key, and what a reload does about it. Pure.

mod compare;
mod running;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::secrets::STRUCK_OUT;
use super::show::{Shown, show};
use super::{Cluster, Config, Node};
use crate::base::secret::Secret;
use compare::{Comparison, compare, is_plain};

/// What is different, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Diff {
    /// One for each key, and one for each entry that came or went as a whole.
    pub changes: Vec<Change>,
}

/// One key that is different.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `check.interval`, `nodes.db1.weight`; of an entry that is new or gone `nodes.db1`.
    pub key: String,
    /// As one would write it, secrets struck out; `None`: it was not there.
    pub old: Option<String>,
    /// The same; `None`: it is no longer there.
    pub new: Option<String>,
    /// What a reload does about it.
    pub effect: Effect,
}

/// What a reload does about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It goes by it from then on.
    Applied,
    /// It goes on as before; another start goes by it.
    NeedsRestart,
}

/// What is different in `new`.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Diff {
    let (old_shown, new_shown) = (show(old), show(new));
    let Comparison { mut changes, .. } = compare(&old_shown, &new_shown);
    let is_plain = is_plain(&old_shown) && is_plain(&new_shown);
    changes.extend(passwords(&old.clusters, &new.clusters, is_plain));
    Diff { changes }
}

/// What is different in `new` from what a running pgsplit shows of itself, and which secrets there may be other ones: it
/// shows none.
#[must_use]
pub fn diff_to_running(running: &Shown, new: &Config) -> (Diff, Vec<String>) {
    let Comparison { changes, hidden } = compare(running, &show(new));
    (Diff { changes }, hidden)
}

/// Takes over into `new` what only another start can change, so that it is what the process runs by. These are the keys whose
/// [`is_reloadable`](super::key::About::is_reloadable) is false.
pub fn keep_until_restart(old: &Config, new: &mut Config) {
    new.runtime.threads = old.runtime.threads;
}

/// Passwords from `~/.pgpass`, which are no keys of the file.
fn passwords(old: &[Arc<Cluster>], new: &[Arc<Cluster>], is_plain: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    for cluster in new {
        let Some(before) = old.iter().find(|other| other.name == cluster.name) else { continue };
        let prefix = if is_plain { String::new() } else { format!("clusters.{}.", cluster.name) };
        for Node { name, password, .. } in cluster.nodes.iter().map(|node| &**node) {
            let Some(before) = before.nodes.iter().find(|node| node.name == *name) else { continue };
            if before.password != *password {
                let shown = |secret: &Option<Secret>| secret.as_ref().map(|_| STRUCK_OUT.to_owned());
                let key = format!("{prefix}nodes.{name}.password");
                let (old, new) = (shown(&before.password), shown(password));
                changes.push(Change { key, old, new, effect: Effect::Applied });
            }
        }
    }
    changes
}

impl Diff {
    /// Whether nothing is different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The keys with this effect, in one line; empty when there are none.
    #[must_use]
    pub fn keys(&self, effect: Effect) -> String {
        let keys = self.changes.iter().filter(|change| change.effect == effect);
        keys.map(|change| change.key.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Whether a reload goes by any of it.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.changes.iter().any(|change| change.effect == Effect::Applied)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "~ {key}: {} -> {}", quoted(old), quoted(new))?,
            (None, Some(new)) => write!(f, "+ {key}: {new}")?,
            (Some(old), None) => write!(f, "- {key}: {old}")?,
            (None, None) => write!(f, "~ {key}")?,
        }
        match self.effect {
            Effect::Applied => Ok(()),
            Effect::NeedsRestart => f.write_str("  (needs a restart)"),
        }
    }
}

fn quoted(value: &str) -> &str {
    if value.is_empty() { "\"\"" } else { value }
}

impl fmt::Display for Diff {
    /// One line for each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.iter().try_for_each(|change| writeln!(f, "{change}"))
    }
}

#[cfg(test)]
mod tests;
