//! An `haproxy.cfg` as sections of directives: quotes, escapes, comments and variables as HAProxy reads them.
//!
//! See <https://docs.haproxy.org/3.0/configuration.html#2.2>. What the directives mean is for `take_over.rs`.

use crate::base::text::escaped;

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct Haproxy {
    pub sections: Vec<Section>,
    /// Lines that could not be read: number and why. What stands in them may be a password, and is not kept.
    pub unread: Vec<(usize, &'static str)>,
}

/// `listen ro *:5001` and what follows it.
#[derive(Clone, Debug)]
pub(super) struct Section {
    /// `global`, `defaults`, `listen`, `frontend`, `backend` or one that is about something else.
    pub kind: String,
    pub name: String,
    pub line: usize,
    pub directives: Vec<Directive>,
}

/// One line of a section.
#[derive(Clone, Debug)]
pub(super) struct Directive {
    pub line: usize,
    /// At least one.
    pub words: Vec<String>,
}

/// Every word that begins a section.
/// <https://docs.haproxy.org/3.0/configuration.html#2>
const SECTIONS: [&str; 20] = [
    "global",
    "defaults",
    "listen",
    "frontend",
    "backend",
    "peers",
    "resolvers",
    "userlist",
    "program",
    "mailers",
    "cache",
    "ring",
    "http-errors",
    "fcgi-app",
    "log-forward",
    "log-profile",
    "crt-store",
    "traces",
    "acme",
    "ruleset",
];

/// Behind these stands a keyword, a name, an address or a number.
const NAMED: [&str; 23] = [
    "acl",
    "balance",
    "bind",
    "compression",
    "default_backend",
    "email-alert",
    "http-after-response",
    "http-check",
    "http-request",
    "http-response",
    "maxconn",
    "nbthread",
    "option",
    "presetenv",
    "server",
    "server-template",
    "setenv",
    "stats",
    "tcp-check",
    "tcp-request",
    "tcp-response",
    "timeout",
    "use_backend",
];

impl Haproxy {
    /// Reads all of `text`. What cannot be read is left out and named.
    pub(super) fn read(text: &str) -> Self {
        let mut file = Self::default();
        for (text, line) in text.lines().zip(1..) {
            let words = match words(text) {
                Ok(words) => words,
                Err(why) => {
                    file.unread.push((line, why));
                    continue;
                }
            };
            let Some(first) = words.first() else { continue };
            if SECTIONS.contains(&first.as_str()) {
                let (kind, name) = (first.clone(), words.get(1).cloned().unwrap_or_default());
                let mut section = Section { kind, name, line, directives: Vec::new() };
                // An address on the section's own line, as HAProxy 1.x took it.
                if let ("listen" | "frontend", Some(addr)) = (section.kind.as_str(), words.get(2)) {
                    section.directives.push(Directive { line, words: vec!["bind".to_owned(), addr.clone()] });
                }
                file.sections.push(section);
            } else if let Some(section) = file.sections.last_mut() {
                section.directives.push(Directive { line, words });
            } else {
                file.unread.push((line, "it stands before any section"));
            }
        }
        file
    }
}

impl Directive {
    /// Its first word.
    pub(super) fn key(&self) -> &str {
        self.word(0)
    }

    /// A word, or nothing.
    pub(super) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// The words from `index` on.
    pub(super) fn rest(&self, index: usize) -> &[String] {
        self.words.get(index..).unwrap_or_default()
    }

    /// What of it may be shown: its keyword, and the word behind that where that is a name or a keyword too. Any other word
    /// may be a password.
    pub(super) fn shown(&self) -> String {
        let is_plain =
            |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:/*[]".contains(c));
        let key = Some(self.key()).filter(is_plain).unwrap_or("…");
        let second =
            Some(self.word(1)).filter(|word| !word.is_empty() && NAMED.contains(&key) && is_plain(word));
        escaped([Some(key), second].into_iter().flatten().collect::<Vec<_>>().join(" ").as_bytes(), 70)
    }
}

/// The words of a line, without its comment. Variables become ours: `${NAME}`, `${NAME:-default}`.
///
/// # Errors
/// A quote that does not end.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let escaped = chars.next().ok_or("it ends in the middle of an escape")?;
                word.get_or_insert_default().push(match escaped {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                });
            }
            ('#', None) => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            // HAProxy fills variables in between double quotes only; templates have them bare as well.
            ('$', None | Some('"')) => {
                let word = word.get_or_insert_default();
                let is_braced = chars.next_if_eq(&'{').is_some();
                let mut name = String::new();
                while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
                let mut rest = String::new();
                if is_braced {
                    let mut closed = false;
                    for c in chars.by_ref() {
                        closed = c == '}';
                        if closed {
                            break;
                        }
                        rest.push(c);
                    }
                    if !closed {
                        return Err("a variable is not closed");
                    }
                }
                let default =
                    rest.strip_prefix('-').map(|default| format!(":-{default}")).unwrap_or_default();
                if name.is_empty() {
                    word.push('$');
                } else {
                    word.extend(["${", &name, &default, "}"]);
                }
            }
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_haproxy_does() {
        for (line, expected) in [
            ("  server a 1.2.3.4:5 check # comment", &["server", "a", "1.2.3.4:5", "check"][..]),
            ("option pgsql-check user \"my user\"", &["option", "pgsql-check", "user", "my user"]),
            ("a\\ b 'c\\d' \"e\\\"f\" g\\#h", &["a b", "c\\d", "e\"f", "g#h"]),
            (
                "server a \"${HOST}:5432\" $PORT ${X-1}",
                &["server", "a", "${HOST}:5432", "${PORT}", "${X:-1}"],
            ),
            ("log '$HOST' ''", &["log", "$HOST", ""]),
            ("# only a comment", &[]),
            ("\tbind\t*:1", &["bind", "*:1"]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        for line in ["a \"b", "a 'b", "a \\", "${X"] {
            assert!(words(line).is_err(), "{line}");
        }
    }

    #[test]
    fn lines_and_sections() {
        let text =
            "maxconn 1\nglobal\n maxconn 100\nlisten a *:1\n server x 1:1 check\nbackend \"b\nbackend b\n";
        let file = Haproxy::read(text);
        let names: Vec<_> =
            file.sections.iter().map(|s| (s.kind.as_str(), s.name.as_str(), s.line)).collect();
        assert_eq!(names, [("global", "", 2), ("listen", "a", 4), ("backend", "b", 7)]);
        let server = &file.sections[1].directives[1];
        assert_eq!((server.line, server.words.len(), server.word(3)), (5, 4, "check"));
        assert_eq!(file.sections[1].directives[0].words, ["bind", "*:1"]);
        assert_eq!(file.unread.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 6]);
    }

    #[test]
    fn passwords_are_not_shown() {
        for (line, expected) in [
            ("stats auth admin:canary", "stats auth"),
            ("setenv TOKEN canary", "setenv TOKEN"),
            ("setenv TOKEN=canary", "setenv"),
            ("http-request set-header Authorization canary", "http-request set-header"),
            ("dynamic-cookie-key canary", "dynamic-cookie-key"),
            ("maxconn ${MOST:-canary}", "maxconn"),
            ("admin=canary", "…"),
        ] {
            let words = words(line).unwrap();
            assert_eq!(Directive { line: 1, words }.shown(), expected);
        }
    }
}
