//! A configuration about to be written: what goes in, and the comments beside it.

use std::fmt::Write;

use crate::base::text::escaped;
use crate::config::show::quoted;

/// What a new file holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    /// Sentences at the top.
    pub intro: Vec<String>,
    pub clusters: Vec<Cluster>,
    /// None: the two default ones.
    pub listeners: Vec<Listener>,
    pub all_addresses: bool,
    /// `admin.bind`.
    pub admin: Option<Line>,
    /// What is said at the end, one line each.
    pub notes: Vec<String>,
    /// What of another file has no counterpart, one line each.
    pub not_taken: Vec<String>,
}

/// A group of nodes and its settings.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    pub name: String,
    pub nodes: Vec<Node>,
    pub check: Vec<Line>,
    pub sessions: Vec<Line>,
}

/// One entry of `nodes`.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub lines: Vec<Line>,
}

/// One entry of `listeners`.
#[derive(Clone, Debug, Default)]
pub(super) struct Listener {
    pub lines: Vec<Line>,
}

/// A key, its value, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub key: &'static str,
    pub value: String,
    pub why: String,
}

impl Line {
    pub(super) fn new(key: &'static str, value: impl Into<String>) -> Self {
        Self { key, value: value.into(), why: String::new() }
    }

    pub(super) fn because(key: &'static str, value: impl Into<String>, why: impl Into<String>) -> Self {
        Self { key, value: value.into(), why: why.into() }
    }
}

impl Line {
    /// The value as it stands in the file. A name that looks like a number is a name all the same.
    fn shown(&self) -> String {
        const TEXTS: [&str; 4] = ["name", "user", "dbname", "cluster"];
        let is_bare = self.value == "true" || self.value.parse::<u64>().is_ok();
        if is_bare && !TEXTS.contains(&self.key) { self.value.clone() } else { quoted(&self.value) }
    }
}

impl Draft {
    /// The file.
    pub(super) fn in_words(&self) -> String {
        let mut out = String::new();
        for sentence in &self.intro {
            comment(&mut out, sentence);
        }
        match self.clusters.as_slice() {
            [only] => only.write("", &mut out),
            several => {
                out.push_str("\nclusters:\n");
                for cluster in several {
                    let _ = writeln!(out, "  {}:", quoted(&cluster.name));
                    cluster.write("    ", &mut out);
                }
            }
        }
        if !self.listeners.is_empty() {
            out.push_str(
                "\n# Where clients connect: put one of these addresses into DATABASE_URL.\nlisteners:\n",
            );
            for listener in &self.listeners {
                entry(&listener.lines, "  ", &mut out);
            }
        }
        if self.all_addresses {
            out.push_str(
                "\n# Each address that a name leads to is a node of its own.\ndns:\n  all_addresses: true\n",
            );
        }
        if let Some(bind) = &self.admin {
            out.push_str("\n# Dashboard, metrics, status.\nadmin:\n");
            lines(std::slice::from_ref(bind), "  ", &mut out);
        }
        if !self.notes.is_empty() {
            out.push('\n');
            self.notes.iter().for_each(|note| comment(&mut out, note));
        }
        if !self.not_taken.is_empty() {
            out.push_str("\n# Not taken over:\n");
            self.not_taken.iter().for_each(|note| comment(&mut out, note));
        }
        out
    }
}

impl Cluster {
    fn write(&self, margin: &str, out: &mut String) {
        if margin.is_empty() {
            out.push_str("\n# The PostgreSQL servers.\n");
        }
        let _ = writeln!(out, "{margin}nodes:");
        for node in &self.nodes {
            entry(&node.lines, &format!("{margin}  "), out);
        }
        for (name, about, all) in [
            ("check", "How they are looked at.", &self.check),
            ("sessions", "How sessions are set up.", &self.sessions),
        ] {
            if all.is_empty() {
                continue;
            }
            if margin.is_empty() {
                let _ = writeln!(out, "\n# {about}");
            }
            let _ = writeln!(out, "{margin}{name}:");
            lines(all, &format!("{margin}  "), out);
        }
    }
}

/// An entry of a list.
fn entry(all: &[Line], margin: &str, out: &mut String) {
    let mut text = String::new();
    lines(all, &format!("{margin}  "), &mut text);
    let text = text.strip_prefix(margin).unwrap_or(&text);
    let _ = write!(out, "{margin}-{}", text.strip_prefix(' ').unwrap_or(text));
}

/// Keys under one another, their comments in a column.
fn lines(all: &[Line], margin: &str, out: &mut String) {
    let shown = |line: &Line| format!("{margin}{}: {}", line.key, line.shown());
    let wide = all.iter().filter(|line| !line.why.is_empty()).map(|line| shown(line).chars().count()).max();
    for line in all {
        let text = shown(line);
        if line.why.is_empty() {
            let _ = writeln!(out, "{text}");
        } else {
            let wide = wide.unwrap_or(0);
            let _ = writeln!(out, "{text:<wide$}  # {}", one_line(&line.why));
        }
    }
}

/// A sentence as comment lines.
fn comment(out: &mut String, sentence: &str) {
    const WIDTH: usize = 98;
    let sentence = one_line(sentence);
    let indent = if sentence.starts_with("line ") { "  " } else { "" };
    let mut line = "#".to_owned();
    for word in sentence.split(' ') {
        if WIDTH < line.chars().count() + 1 + word.chars().count() && 2 < line.len() {
            let _ = writeln!(out, "{}", line.trim_end());
            line = format!("#{indent}");
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

/// Whatever it says, it stays in its comment.
fn one_line(text: &str) -> String {
    escaped(text.as_bytes(), 400)
}
