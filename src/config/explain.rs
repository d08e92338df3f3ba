//! What each key of the file means, for people: one key in full, all of them in a list, the tables of the reference.

use std::fmt::Write;

use super::key::{About, Keys, Takes, Without};
use super::keys::TOP;
use super::table::closest;

/// A key and where it stands.
#[derive(Clone, Debug)]
pub struct Explained {
    /// `check.interval`, `nodes[].addr`, `http.groups.NAME.upstreams[].addr`.
    pub path: String,
    /// What is told about it.
    pub about: &'static About,
}

/// Every key, each once: what is alike in several places stands where it comes first.
#[must_use]
pub fn all() -> Vec<Explained> {
    let mut sections = Vec::new();
    walk("", TOP, &mut sections);
    sections
        .into_iter()
        .flat_map(|(prefix, keys)| keys.iter().map(move |about| Explained::below(&prefix, about)))
        .collect()
}

/// Each mapping of the file with what stands before its keys. One that has nothing of its own is left out, as are those
/// that were met before.
fn walk(prefix: &str, keys: Keys, found: &mut Vec<(String, Keys)>) {
    let is_known = |about: &About| {
        found.iter().flat_map(|(_, keys)| *keys).any(|known| std::ptr::eq(known.meaning, about.meaning))
    };
    if keys.iter().all(is_known) {
        return;
    }
    found.push((prefix.to_owned(), keys));
    // What stands under a name of one's own comes last: it may be what stands without one as well.
    let (named, plain): (Vec<&'static About>, Vec<&'static About>) =
        keys.iter().partition(|about| about.takes.is_named());
    for about in plain.into_iter().chain(named) {
        if let Some(inner) = about.takes.keys() {
            walk(&inside(prefix, about), inner, found);
        }
    }
}

/// What stands before the keys of the mapping under a key.
fn inside(prefix: &str, about: &'static About) -> String {
    let Explained { path, .. } = Explained::below(prefix, about);
    match about.takes {
        takes if takes.is_named() => format!("{path}.NAME"),
        // One front is a mapping, and most have one.
        Takes::Either(_) => path,
        takes if takes.is_list() => format!("{path}[]"),
        _ => path,
    }
}

/// The keys that `asked` may mean: a whole path, as in a fault or in [`all`], or the end of one.
///
/// # Errors
/// None; in words, with what may have been meant.
pub fn find(asked: &str) -> Result<Vec<Explained>, String> {
    if let Some(found) = at(asked) {
        return Ok(vec![found]);
    }
    let all = all();
    let ends = |path: &str| path.strip_suffix(asked).is_some_and(|before| before.ends_with('.'));
    let found: Vec<Explained> = all.iter().filter(|key| ends(&key.path)).cloned().collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let last = asked.rsplit('.').next().unwrap_or_default();
    let by_path: Vec<&str> = all.iter().map(|key| key.path.as_str()).collect();
    let by_name: Vec<&str> = all.iter().map(|key| key.about.name).collect();
    let near = closest(asked, &by_path).or_else(|| closest(last, &by_name));
    let near = near.map_or_else(
        || "`pgsplit config explain` lists all".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    // Not more than a line of whatever was asked.
    let asked: String = asked.chars().take(60).collect();
    Err(format!("no key is called `{}`; {near}", crate::base::text::escaped(asked.as_bytes(), 60)))
}

fn is_in(keys: Keys) -> impl Fn(&&str) -> bool {
    move |part| keys.iter().any(|about| about.name == *part)
}

/// The key at a path, with any numbers of lists and names of one's own in it.
fn at(asked: &str) -> Option<Explained> {
    let mut keys = TOP;
    let mut path = String::new();
    let mut parts = asked.split('.').peekable();
    loop {
        let part = parts.next()?;
        let name = part.split_once('[').map_or(part, |(name, _)| name);
        let about = keys.iter().find(|about| about.name == name)?;
        if parts.peek().is_none() {
            return Some(Explained::below(&path, about));
        }
        if about.takes.is_named() {
            parts.next();
            parts.peek()?;
        }
        path = inside(&path, about);
        keys = about.takes.keys()?;
        // A reload calls what is in a list by its name, which may have points in it: `listeners.rw.bind`.
        while about.takes.is_list() && !parts.peek().is_some_and(is_in(keys)) && 1 < parts.clone().count() {
            parts.next();
        }
    }
}

impl Explained {
    fn below(prefix: &str, about: &'static About) -> Self {
        let dot = if prefix.is_empty() { "" } else { "." };
        Self { path: format!("{prefix}{dot}{}", about.name), about }
    }

    /// All that is told about it.
    #[must_use]
    pub fn in_words(&self) -> String {
        let Self { path, about } = self;
        let mut out = format!("{path}\n\n");
        let mut meaning = about.meaning.chars();
        let capital = meaning.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
        let _ = writeln!(out, "{capital}{}.\n", meaning.as_str().trim_end_matches('.'));
        let _ = writeln!(out, "  type     {}", about.takes.in_words().replace('`', ""));
        let default = match about.default {
            Without::Value("") => "\"\"".to_owned(),
            default => default.in_words().replace('`', ""),
        };
        let _ = writeln!(out, "  default  {default}");
        if !about.example.is_empty() {
            let _ = writeln!(out, "  example  {}: {}", about.name, about.example);
        }
        let change = if about.is_reloadable { "is applied by a reload" } else { "needs a restart" };
        let _ = writeln!(out, "  change   {change}");
        if let Some(keys) = about.takes.keys() {
            let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
            let _ = writeln!(out, "  keys     {}", names.join(", "));
        }
        out
    }
}

/// Every key with its default and what it means, in lines of at most `width` characters where that is possible.
#[must_use]
pub fn list(width: usize) -> String {
    let all = all();
    let column = |text: &dyn Fn(&Explained) -> String| {
        all.iter().map(|key| text(key).chars().count()).max().unwrap_or(0)
    };
    let default = |key: &Explained| match key.about.default {
        Without::Value("") => "\"\"".to_owned(),
        Without::Value(value) => value.to_owned(),
        Without::Required => "required".to_owned(),
        Without::Words(_) => "-".to_owned(),
    };
    let (wide, far) = (column(&|key| key.path.clone()), column(&default));
    let mut out = String::new();
    for key in &all {
        let line =
            format!("{:<wide$}  {:<far$}  {}", key.path, default(key), key.about.meaning.replace('`', ""));
        let cut: String = if width < line.chars().count() {
            line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
        } else {
            line
        };
        let _ = writeln!(out, "{}", cut.trim_end());
    }
    out
}

/// What stands before the tables of the reference.
const BEFORE: &str = "\
# Configuration reference

Every key of the file. `pgsplit config explain --markdown` prints this page, from the table that the file is read by; a test holds
the two together. What the keys do together, how values are written, and where secrets come from is in
[configuration.md](configuration.md). Unless the last column says otherwise, a [reload](operations.md#reload) applies a change.
";

/// Where more is told about a mapping, each in Markdown.
pub(super) const MORE: [(&str, &str); 16] = [
    ("nodes[]", "[Names with several addresses](configuration.md#names-with-several-addresses)"),
    ("listeners[]", "[Targets](configuration.md#listeners)"),
    ("listeners[].tls", "[What clients see](operations.md#what-clients-see)"),
    ("check", "[Health checks](health-checks.md), [Patroni](patroni.md)"),
    ("sessions", "[What clients see](operations.md#what-clients-see)"),
    ("sessions.keepalive", "[What clients see](operations.md#what-clients-see)"),
    ("http", "[The HTTP front](http-front.md)"),
    ("http.upstreams[]", "[Health](http-front.md#health)"),
    ("http.check", "[Health](http-front.md#health)"),
    ("http.retries", "[Retries](http-front.md#retries)"),
    ("http.cache", "[Cache](http-front.md#cache)"),
    ("dns", "[Names with several addresses](configuration.md#names-with-several-addresses)"),
    (
        "admin",
        "[The admin address](configuration.md#the-admin-address), [Secrets](configuration.md#secrets), \
         [The API](operations.md#the-api)",
    ),
    (
        "log",
        "[The session log](operations.md#the-session-log), [Lines of the log](troubleshooting.md#lines-of-the-log)",
    ),
    ("runtime", "[Signals](operations.md#signals)"),
    ("http.routes[]", "[Step by step](http-front.md#step-by-step)"),
];

/// The page of the reference, a heading and a table for each mapping, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut sections = Vec::new();
    walk("", TOP, &mut sections);
    let mut out = BEFORE.to_owned();
    for (prefix, keys) in sections {
        let heading = if prefix.is_empty() { "Top level".to_owned() } else { format!("`{prefix}`") };
        let _ = write!(out, "\n## {heading}\n\n");
        if let Some((_, more)) = MORE.iter().find(|(about, _)| *about == prefix) {
            let _ = write!(out, "More: {more}.\n\n");
        }
        out.push_str("| Key | Type | Default | Example | Meaning |\n|---|---|---|---|---|\n");
        for about in keys {
            let restart = if about.is_reloadable { "" } else { ". A change needs a restart" };
            let cells = [
                format!("`{}`", about.name),
                about.takes.in_words(),
                about.default.in_words(),
                format!("`{}`", about.example),
                format!("{}{restart}", about.meaning),
            ];
            let _ = writeln!(out, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
    }
    out
}
