//! Two configurations beside each other, key by key.

use super::{Change, Effect};
use crate::config::key::{About, Keys};
use crate::config::keys::TOP;
use crate::config::secrets::STRUCK_OUT;
use crate::config::show::{Entry, Shown, Value};

/// Lists in which it matters what comes first: with `balance: first` that says which one is used.
const ORDERED: [&str; 2] = ["nodes", "upstreams"];

/// What was found on the way through both.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// In the order of the file.
    pub changes: Vec<Change>,
    /// Secrets of which only one is known.
    pub hidden: Vec<String>,
}

/// Where one is on the way, and what is told about that place.
#[derive(Clone, Debug)]
struct Place {
    path: String,
    keys: Keys,
    /// Whether names of one's own stand there, and the keys below them.
    is_named: bool,
    effect: Effect,
}

/// Whether two single values are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Same {
    Yes,
    No,
    Unknown,
}

/// Compares all of two configurations.
pub(super) fn compare(old: &Shown, new: &Shown) -> Comparison {
    let (old, new) = (alike(old, new), alike(new, old));
    let mut comparison = Comparison::default();
    let top = Place { path: String::new(), keys: TOP, is_named: false, effect: Effect::Applied };
    comparison.at(&top, &old, &new);
    comparison
}

/// Whether the keys of the only cluster stand at the top.
pub(super) fn is_plain(shown: &Shown) -> bool {
    shown.at("clusters").is_none()
}

/// `shown` in the form in which `other` is: the keys of the only cluster may stand at the top, and the only front need not
/// be in a list. Else all of them would seem to be different.
fn alike(shown: &Shown, other: &Shown) -> Shown {
    let Shown::Mapping(all) = shown else { return shown.clone() };
    let mut all = all.clone();
    if is_plain(shown) && !is_plain(other) && shown.at("nodes").is_some() {
        let is_of_cluster = |entry: &Entry| ["nodes", "check", "sessions"].contains(&entry.key.as_str());
        let (of_cluster, rest) = all.into_iter().partition(is_of_cluster);
        let main = under("clusters", Shown::Mapping(vec![under("main", Shown::Mapping(of_cluster))]));
        all = std::iter::once(main).chain(rest).collect::<Vec<_>>();
    }
    for entry in all.iter_mut().filter(|entry| entry.key == "http") {
        if matches!(entry.value, Shown::Mapping(_)) {
            entry.value = Shown::List(vec![entry.value.clone()]);
        }
    }
    Shown::Mapping(all)
}

fn under(key: &str, value: Shown) -> Entry {
    Entry { key: key.to_owned(), value, is_default: false }
}

impl Place {
    /// The place of a key below this one.
    fn key(&self, key: &str) -> Self {
        if self.is_named {
            return Self { is_named: false, ..self.below(key) };
        }
        let about = self.keys.iter().find(|about| about.name == key);
        Self {
            keys: about.and_then(|about| about.takes.keys()).unwrap_or_default(),
            is_named: about.is_some_and(|about| about.takes.is_named()),
            effect: if about.is_none_or(|about: &About| about.is_reloadable) {
                self.effect
            } else {
                Effect::NeedsRestart
            },
            ..self.below(key)
        }
    }

    fn below(&self, key: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { path: format!("{}{dot}{key}", self.path), ..self.clone() }
    }
}

impl Comparison {
    fn at(&mut self, place: &Place, old: &Shown, new: &Shown) {
        match (old, new) {
            (Shown::Mapping(old), Shown::Mapping(new)) => self.mappings(place, old, new),
            (Shown::List(old), Shown::List(new)) if old.iter().chain(new).all(|one| name(one).is_some()) => {
                self.lists(place, old, new);
            }
            _ => match same(old, new) {
                Same::Yes => {}
                Same::No => self.change(place, Some(old), Some(new)),
                Same::Unknown => self.hidden.push(place.path.clone()),
            },
        }
    }

    fn mappings(&mut self, place: &Place, old: &[Entry], new: &[Entry]) {
        let find = |all: &[Entry], key: &str| all.iter().find(|entry| entry.key == key).cloned();
        for Entry { key, value, .. } in new {
            match find(old, key) {
                Some(before) => self.at(&place.key(key), &before.value, value),
                None => self.change(&place.key(key), None, Some(value)),
            }
        }
        for Entry { key, value, .. } in old.iter().filter(|entry| find(new, &entry.key).is_none()) {
            self.change(&place.key(key), Some(value), None);
        }
    }

    /// Lists whose entries have names, by which they are known.
    fn lists(&mut self, place: &Place, old: &[Shown], new: &[Shown]) {
        let find = |all: &[Shown], wanted: &Shown| all.iter().find(|one| name(one) == name(wanted)).cloned();
        for one in new {
            let at = place.below(&name(one).unwrap_or_default());
            match find(old, one) {
                Some(before) => self.at(&at, &before, one),
                None => self.change(&at, None, Some(&unnamed(one))),
            }
        }
        for one in old.iter().filter(|one| find(new, one).is_none()) {
            self.change(&place.below(&name(one).unwrap_or_default()), Some(&unnamed(one)), None);
        }
        if ORDERED.iter().any(|list| place.path.split('.').next_back() == Some(list)) {
            self.order(place, old, new);
        }
    }

    /// Entries that are in both, in another order.
    fn order(&mut self, place: &Place, old: &[Shown], new: &[Shown]) {
        let names = |all: &[Shown], other: &[Shown]| -> Vec<Shown> {
            let is_in_both = |one: &&Shown| other.iter().any(|another| name(another) == name(one));
            all.iter().filter(is_in_both).filter_map(name).map(|name| Shown::One(Value::Text(name))).collect()
        };
        let (before, after) = (names(old, new), names(new, old));
        if before != after {
            self.change(place, Some(&Shown::List(before)), Some(&Shown::List(after)));
        }
    }

    fn change(&mut self, place: &Place, old: Option<&Shown>, new: Option<&Shown>) {
        let (key, effect) = (place.path.clone(), place.effect);
        self.changes.push(Change { key, old: old.map(in_one), new: new.map(in_one), effect });
    }
}

/// By what an entry of a list is known: its name, or else its address.
fn name(shown: &Shown) -> Option<String> {
    let Shown::Mapping(all) = shown else { return None };
    all.iter().find(|entry| entry.key == key_of_name(all)).and_then(|entry| match &entry.value {
        Shown::One(value) => Some(value.to_string()),
        Shown::List(_) | Shown::Mapping(_) => None,
    })
}

fn key_of_name(all: &[Entry]) -> &'static str {
    if all.iter().any(|entry| entry.key == "name") { "name" } else { "addr" }
}

/// Without what its path says already.
fn unnamed(shown: &Shown) -> Shown {
    let Shown::Mapping(all) = shown else { return shown.clone() };
    let key = key_of_name(all);
    Shown::Mapping(all.iter().filter(|entry| entry.key != key).cloned().collect())
}

/// As it may be shown, in one line.
fn in_one(shown: &Shown) -> String {
    match shown {
        Shown::One(value) => value.to_string(),
        Shown::List(_) | Shown::Mapping(_) => shown.in_flow(),
    }
}

/// Compared as they are written: one side may have come as JSON, which knows no times and sizes.
fn same(old: &Shown, new: &Shown) -> Same {
    match (old, new) {
        (Shown::One(Value::Secret(old)), Shown::One(Value::Secret(new))) => {
            if old == new {
                Same::Yes
            } else {
                Same::No
            }
        }
        (Shown::One(Value::Text(struck)), Shown::One(Value::Secret(secret)))
            if struck == STRUCK_OUT && !secret.is_empty() =>
        {
            Same::Unknown
        }
        (Shown::One(old), Shown::One(new)) if old.to_string() == new.to_string() => Same::Yes,
        (Shown::List(old), Shown::List(new)) if old.len() == new.len() => all_same(old.iter().zip(new)),
        (Shown::Mapping(old), Shown::Mapping(new))
            if old.iter().map(|entry| &entry.key).eq(new.iter().map(|entry| &entry.key)) =>
        {
            all_same(old.iter().map(|entry| &entry.value).zip(new.iter().map(|entry| &entry.value)))
        }
        _ => Same::No,
    }
}

fn all_same<'a>(mut pairs: impl Iterator<Item = (&'a Shown, &'a Shown)>) -> Same {
    if pairs.all(|(old, new)| same(old, new) == Same::Yes) { Same::Yes } else { Same::No }
}
