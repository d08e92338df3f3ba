//! Faults of a configuration, shown to the person who wrote it.
//!
//! A fault shows its own line and no other, and that line with its secrets struck out: the text is made safe
//! when the [`Fault`] is made (`source.rs`), so no way of printing a report can give one away.

use std::fmt;
use std::fmt::Write;
use std::path::PathBuf;

use crate::base::text::escaped;

/// Longest message; what a fault quotes from the file may be of any length.
const MESSAGE_MAX: usize = 600;

/// Everything that is wrong with one configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was read: a file name, or the flag it came from.
    pub origin: String,
    /// What keeps it from being used, in the order of the file.
    pub faults: Vec<Fault>,
    /// What does not.
    pub warnings: Vec<Fault>,
    /// Files with secrets that it names, whether or not they could be read.
    pub files: Vec<PathBuf>,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// The key, as in `listeners[0].bind`; empty when the text as a whole is wrong.
    pub path: String,
    /// Line and column, 1 first; `None`: it stands at no line, as with an environment variable.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
    /// What to do about it, when the message does not say.
    pub help: Option<String>,
    /// The line, with secrets struck out.
    pub excerpt: Option<Excerpt>,
    /// A second line it is about, such as the first use of a name.
    pub related: Option<Excerpt>,
}

/// One line of the text, and the part of it that is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// Number of the line, 1 first.
    pub line: usize,
    /// The line, safe to print.
    pub text: String,
    /// Characters before the marked part.
    pub skip: usize,
    /// Characters marked, at least 1.
    pub width: usize,
    /// Written under the mark.
    pub label: String,
}

impl Fault {
    /// A fault that has no place.
    #[must_use]
    pub fn new(path: impl Into<String>, message: &str) -> Self {
        Self {
            path: escaped(path.into().as_bytes(), MESSAGE_MAX),
            message: escaped(message.as_bytes(), MESSAGE_MAX),
            ..Self::default()
        }
    }

    /// Says what to do about it.
    pub(super) fn help(&mut self, help: impl AsRef<str>) -> &mut Self {
        self.help = Some(escaped(help.as_ref().as_bytes(), MESSAGE_MAX));
        self
    }

    /// Key and message.
    fn headline(&self) -> String {
        if self.path.is_empty() { self.message.clone() } else { format!("{}: {}", self.path, self.message) }
    }

    fn place(&self, origin: &str) -> String {
        match self.place {
            Some((line, column)) => format!("{origin}:{line}:{column}"),
            None => origin.to_owned(),
        }
    }

    /// The fault in one line: `config.yaml:3:13  check.interval: …`.
    #[must_use]
    pub fn line(&self, origin: &str) -> String {
        let help = self.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{}  {}{help}", self.place(origin), self.headline())
    }

    /// The fault as a compiler would show it, with its line and a mark under the part that is meant.
    #[must_use]
    pub fn block(&self, origin: &str, word: &str) -> String {
        let mut out = format!("{word}: {}\n", self.headline());
        let excerpts = [self.related.as_ref(), self.excerpt.as_ref()];
        let mut shown: Vec<&Excerpt> = excerpts.into_iter().flatten().collect();
        shown.sort_by_key(|excerpt| excerpt.line);
        let margin = shown.iter().map(|excerpt| excerpt.line.to_string().len()).max().unwrap_or(1);
        if self.place.is_some() {
            let _ = writeln!(out, "{:margin$}--> {}", "", self.place(origin));
        }
        let mut last = None;
        for excerpt in &shown {
            if last.is_none() {
                let _ = writeln!(out, "{:margin$} |", "");
            } else if last != Some(excerpt.line.saturating_sub(1)) && last != Some(excerpt.line) {
                out.push_str("...\n");
            }
            if last != Some(excerpt.line) {
                let _ = writeln!(out, "{:<margin$} | {}", excerpt.line, excerpt.text);
            }
            let is_related = self.related.as_ref().is_some_and(|related| std::ptr::eq(related, *excerpt));
            let mark = if is_related { "-" } else { "^" }.repeat(excerpt.width.max(1));
            let under = format!("{:margin$} | {:skip$}{mark} {}", "", "", excerpt.label, skip = excerpt.skip);
            let _ = writeln!(out, "{}", under.trim_end());
            last = Some(excerpt.line);
        }
        if let Some(help) = &self.help {
            if !shown.is_empty() {
                let _ = writeln!(out, "{:margin$} |", "");
            }
            let _ = writeln!(out, "{:margin$} = help: {help}", "");
        }
        out
    }
}

impl Report {
    /// One line for each fault, then one for each warning; for logs and answers to a reload.
    #[must_use]
    pub fn lines(&self) -> String {
        let all = || self.faults.iter().chain(&self.warnings);
        let width = all().map(|fault| fault.place(&self.origin).chars().count()).max().unwrap_or(0);
        let mut out = String::new();
        for (fault, word) in self
            .faults
            .iter()
            .map(|fault| (fault, ""))
            .chain(self.warnings.iter().map(|fault| (fault, "warning: ")))
        {
            let help = fault.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            let place = fault.place(&self.origin);
            let _ = writeln!(out, "{place:width$}  {word}{}{help}", fault.headline());
        }
        out
    }

    /// One block for each fault and each warning; for people at a terminal.
    #[must_use]
    pub fn blocks(&self) -> String {
        let faults = self.faults.iter().map(|fault| fault.block(&self.origin, "error"));
        let warnings = self.warnings.iter().map(|fault| fault.block(&self.origin, "warning"));
        faults.chain(warnings).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.lines().trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(line: usize, text: &str, skip: usize, width: usize, label: &str) -> Excerpt {
        Excerpt { line, text: text.into(), skip, width, label: label.into() }
    }

    #[test]
    fn a_block_marks_both_lines() {
        let fault = Fault {
            place: Some((12, 11)),
            excerpt: Some(excerpt(12, "    bind: 127.0.0.1:6433", 10, 14, "bound again here")),
            related: Some(excerpt(3, "    bind: 127.0.0.1:6433", 10, 14, "first bound here")),
            help: Some("give one another port".into()),
            ..Fault::new("listeners[1].bind", "two listeners bind the same address")
        };
        let expected = "\
error: listeners[1].bind: two listeners bind the same address
  --> config.yaml:12:11
   |
3  |     bind: 127.0.0.1:6433
   |           -------------- first bound here
...
12 |     bind: 127.0.0.1:6433
   |           ^^^^^^^^^^^^^^ bound again here
   |
   = help: give one another port
";
        assert_eq!(fault.block("config.yaml", "error"), expected);
        assert_eq!(
            fault.line("config.yaml"),
            "config.yaml:12:11  listeners[1].bind: two listeners bind the same address (give one another port)"
        );
    }

    #[test]
    fn a_fault_without_a_line_has_no_arrow() {
        let fault = Fault::new("PGSPLIT_ADMIN", "`x` is no\naddress");
        assert_eq!(fault.block("environment", "error"), "error: PGSPLIT_ADMIN: `x` is no\\x0aaddress\n");
        assert_eq!(fault.line("environment"), "environment  PGSPLIT_ADMIN: `x` is no\\x0aaddress");
    }

    #[test]
    fn lines_are_in_columns() {
        let mut report = Report { origin: "c.yaml".into(), ..Report::default() };
        report.faults.push(Fault { place: Some((3, 13)), ..Fault::new("check.rise", "is wrong") });
        report.warnings.push(Fault::new("nodes", "are few"));
        assert_eq!(
            report.lines(),
            "c.yaml:3:13  check.rise: is wrong\nc.yaml       warning: nodes: are few\n"
        );
    }
}
