//! The members of `Cache-Control`.

use std::time::Duration;

use http::HeaderMap;
use http::header::CACHE_CONTROL;

/// What RFC 9111 §1.2.2 has a cache take for a number of seconds that is too large; over 68 years.
const LONGEST: Duration = Duration::from_secs(1 << 31);

/// What one request or answer says in all its `Cache-Control` lines: names in lower case, values unquoted.
#[derive(Debug, Default)]
pub(super) struct Directives(Vec<(String, Option<String>)>);

impl Directives {
    /// Of these headers. Commas within quotes split too: what should be hidden by quotes then only ever forbids
    /// more, for no directive that allows something takes a list.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut directives = Vec::new();
        for line in headers.get_all(CACHE_CONTROL) {
            // A line with strange bytes may still say `no-store` beside them.
            let line = String::from_utf8_lossy(line.as_bytes());
            directives.extend(line.split(',').filter_map(directive));
        }
        Self(directives)
    }

    /// Whether it is said, with a value or without.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }

    /// The time it gives, at most [`LONGEST`]; the least when it is said twice, none at all when it cannot be read.
    pub(super) fn time(&self, name: &str) -> Option<Duration> {
        let said = self.0.iter().filter(|(other, _)| other == name);
        said.map(|(_, value)| value.as_deref().map_or(Duration::ZERO, seconds)).min()
    }
}

fn directive(text: &str) -> Option<(String, Option<String>)> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.trim().trim_matches('"').to_owned())),
        None => (text, None),
    };
    let name = name.trim().to_ascii_lowercase();
    (!name.is_empty()).then_some((name, value))
}

/// Seconds in decimal, as `Age` and many directives have them; anything else counts as none.
pub(super) fn seconds(text: &str) -> Duration {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Duration::ZERO;
    }
    text.parse().map_or(LONGEST, Duration::from_secs).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&'static str]) -> Directives {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, http::HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        Directives::of(&headers)
    }

    #[test]
    fn names_in_any_case_on_any_line() {
        let said = of(&["Max-Age=5 , PUBLIC", ",, no-store"]);
        assert!(said.has("public") && said.has("no-store") && said.has("max-age") && !said.has("private"));
        assert!(of(&["private=\"set-cookie, x\""]).has("private"));
        assert!(of(&["\u{fc}, no-store"]).has("no-store"));
    }

    #[test]
    fn times() {
        for (line, time) in [
            ("max-age=5", Some(5)),
            ("max-age=\"5\"", Some(5)),
            ("max-age = 5", Some(5)),
            ("max-age=5, max-age=3", Some(3)),
            ("max-age=99999999999999999999999", Some(1 << 31)),
            ("max-age=-1", Some(0)),
            ("max-age=+1", Some(0)),
            ("max-age", Some(0)),
            ("max-age=x", Some(0)),
            ("max-agent=5", None),
        ] {
            assert_eq!(of(&[line]).time("max-age"), time.map(Duration::from_secs), "{line}");
        }
    }
}
