//! What is different between two configurations, key by key, and what a reload does about it. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Config;
use super::written::{Section, is_plain, sections};

/// What a reload cannot change, and why: the threads of a process hold its connections, each its own.
const NEEDS_RESTART: [&str; 1] = ["runtime.threads"];

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
    // Where the keys of a cluster stand in one of the two only, they would all seem to be different.
    let is_plain = is_plain(old) && is_plain(new);
    let (old, new) = (sections(old, is_plain), sections(new, is_plain));
    let by_path = |sections: &[Section]| -> BTreeMap<String, Section> {
        sections.iter().map(|section| (section.id(), section.clone())).collect()
    };
    let (olds, news) = (by_path(&old), by_path(&new));
    let mut changes = Vec::new();
    for section in &new {
        match olds.get(&section.id()) {
            Some(before) => changes.extend(within(before, section)),
            None => changes.push(Change::new(section.path.clone(), None, Some(section.in_one()))),
        }
    }
    let gone = old.iter().filter(|section| !news.contains_key(&section.id()));
    changes.extend(gone.map(|section| Change::new(section.path.clone(), Some(section.in_one()), None)));
    changes.extend(reordered(&old, &new));
    Diff { changes }
}

/// Takes over into `new` what only another start can change, so that it is what the process runs by.
pub fn keep_until_restart(old: &Config, new: &mut Config) {
    new.runtime.threads = old.runtime.threads;
}

/// The keys that are different in two sections of one name.
fn within(old: &Section, new: &Section) -> Vec<Change> {
    let keys = new.keys.iter().map(|(key, _)| key);
    let only_old = old.keys.iter().map(|(key, _)| key).filter(|key| new.value(key).is_none());
    let different = keys.chain(only_old).filter(|key| old.value(key) != new.value(key));
    let change = |key: &&'static str| {
        let shown = |section: &Section| section.value(key).map(|value| value.shown().to_owned());
        Change::new(format!("{}.{key}", new.path), shown(old), shown(new))
    };
    different.map(change).collect()
}

/// Nodes that stand in another order: with `balance: first` that says which one is used.
fn reordered(old: &[Section], new: &[Section]) -> Vec<Change> {
    let lists = |sections: &[Section]| {
        let mut lists: Vec<(String, Vec<String>)> = Vec::new();
        for section in sections {
            let Some(list) = &section.list else { continue };
            let name = section.name().to_owned();
            match lists.iter_mut().find(|(known, _)| known == list) {
                Some((_, names)) => names.push(name),
                None => lists.push((list.clone(), vec![name])),
            }
        }
        lists
    };
    let (old, new) = (lists(old), lists(new));
    let change = |(list, names): &(String, Vec<String>)| {
        let (_, before) = old.iter().find(|(known, _)| known == list)?;
        let both = |of: &[String], other: &[String]| -> Vec<String> {
            of.iter().filter(|name| other.contains(name)).cloned().collect()
        };
        let (before, after) = (both(before, names), both(names, before));
        let shown = |names: &[String]| Some(format!("[{}]", names.join(", ")));
        (before != after).then(|| Change::new(list.clone(), shown(&before), shown(&after)))
    };
    new.iter().filter_map(change).collect()
}

impl Section {
    /// Where it stands, unique: a front and its own group share a path.
    fn id(&self) -> String {
        let first = self.keys.first().map_or("", |(key, _)| *key);
        format!("{} {first}", self.path)
    }
}

impl Change {
    fn new(key: String, old: Option<String>, new: Option<String>) -> Self {
        let needs_restart = NEEDS_RESTART.contains(&key.as_str());
        let effect = if needs_restart { Effect::NeedsRestart } else { Effect::Applied };
        Self { key, old, new, effect }
    }
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
