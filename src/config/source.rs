//! The text a configuration was read from: where things stand in it, and how a line of it may be shown.

use std::ops::Range;

use super::report::{Excerpt, Fault};
use super::secrets::{STRUCK_OUT, is_secret_key, url_passwords, without_url_passwords};

/// Where a value stands in the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pos {
    /// 1 first; 0: nowhere, as the value was not read from a text.
    pub line: usize,
    /// In characters, 1 first.
    pub column: usize,
    /// Characters it takes up on its line; at least 1.
    pub width: usize,
}

impl Pos {
    /// Of a value that stands in no text.
    pub(super) const NOWHERE: Self = Self { line: 0, column: 0, width: 0 };
}

/// A text and what must not be shown of it.
pub(super) struct Source<'t> {
    /// File name, or the flag it came from.
    pub origin: String,
    text: &'t str,
    /// Byte ranges of secret values, once the text could be read as YAML.
    hidden: Vec<Range<usize>>,
    /// Whether `hidden` is complete. Until then lines are judged by their look.
    is_understood: bool,
}

impl<'t> Source<'t> {
    /// A text of which nothing is known yet.
    pub(super) fn new(origin: &str, text: &'t str) -> Self {
        Self { origin: origin.to_owned(), text, hidden: Vec::new(), is_understood: false }
    }

    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// From now on `hidden` is struck out, and passwords in URLs; nothing else, if that is the whole text.
    pub(super) fn understood(&mut self, hidden: Vec<Range<usize>>, is_whole: bool) {
        self.hidden = hidden;
        self.is_understood = is_whole;
    }

    /// A fault at `pos`.
    pub(super) fn fault(&self, path: &str, pos: Pos, message: &str) -> Fault {
        let mut fault = Fault::new(without_url_passwords(path), &without_url_passwords(message));
        if pos.line > 0 {
            fault.place = Some((pos.line, pos.column.max(1)));
            fault.excerpt = self.excerpt(pos, "");
        }
        fault
    }

    /// The line of `pos`, its secrets struck out and `pos` marked.
    pub(super) fn excerpt(&self, pos: Pos, label: &str) -> Option<Excerpt> {
        let (start, line) = self.line(pos.line)?;
        let hidden = self.hidden_in(start, line, pos.line);
        let (mut text, mut skip, mut width) = (String::new(), 0, 0);
        let mark = pos.column.saturating_sub(1);
        let marked = mark..mark.saturating_add(pos.width.max(1));
        let mut was_hidden = false;
        for (index, (at, c)) in line.char_indices().enumerate() {
            let is_hidden = hidden.iter().any(|range| range.contains(&(start + at)));
            let shown = match (is_hidden, was_hidden) {
                (true, true) => "",
                (true, false) => STRUCK_OUT,
                // A control character would move the mark, or the terminal's cursor.
                (false, _) if c.is_control() => " ",
                (false, _) => line.get(at..at + c.len_utf8()).unwrap_or_default(),
            };
            was_hidden = is_hidden;
            let count = shown.chars().count();
            if index < marked.start {
                skip += count;
            } else if marked.contains(&index) {
                width += count;
            }
            text.push_str(shown);
        }
        let text = crate::base::text::escaped(text.trim_end().as_bytes(), usize::MAX);
        Some(Excerpt { line: pos.line, text, skip, width: width.max(1), label: label.to_owned() })
    }

    /// Number `line` (1 first) and the byte it starts at.
    fn line(&self, line: usize) -> Option<(usize, &'t str)> {
        let text = lines(self.text).nth(line.checked_sub(1)?)?;
        Some((text.as_ptr() as usize - self.text.as_ptr() as usize, text))
    }

    fn hidden_in(&self, start: usize, line: &str, number: usize) -> Vec<Range<usize>> {
        let shift = |(from, to): (usize, usize)| start + from..start + to;
        let mut hidden = self.hidden.clone();
        hidden.extend(url_passwords(line).into_iter().map(shift));
        if !self.is_understood {
            hidden.extend(self.guess(line, number).map(|from| start + from..start + line.len()));
        }
        hidden
    }

    /// From which byte on a line that YAML could not make sense of may hold a secret.
    fn guess(&self, line: &str, number: usize) -> Option<usize> {
        if let Some(from) = secret_value(line) {
            return Some(from);
        }
        // The rest of what the nearest key above it began, if that may go on for several lines.
        let above: Vec<&str> = lines(self.text).take(number.saturating_sub(1)).collect();
        let owner = above.iter().rev().find(|line| looks_like_entry(line)).copied().unwrap_or_default();
        let begun = secret_value(owner).and_then(|from| owner.get(from..)).map(str::trim_start);
        let goes_on =
            begun.is_some_and(|value| value.is_empty() || value.starts_with(['|', '>', '"', '\'', '[', '{']));
        let is_explicit = line.trim_start().starts_with([':', '?']);
        (goes_on || (begun.is_some() && !looks_like_entry(line)) || is_explicit).then_some(0)
    }
}

/// The lines as YAML counts them: a carriage return alone ends one as well.
/// <https://yaml.org/spec/1.2.2/#54-line-break-characters>
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.filter(|text| !text.is_empty())?;
        let (line, after) = match text.find(['\r', '\n']) {
            Some(end) => {
                let (line, after) = text.split_at(end);
                let end = if after.starts_with("\r\n") { 2 } else { 1 };
                (line, after.get(end..))
            }
            None => (text, None),
        };
        rest = after;
        Some(line)
    })
}

/// Whether the line starts an entry of its own.
fn looks_like_entry(line: &str) -> bool {
    let line = line.trim_start_matches([' ', '-', '{', '[', ',']);
    let name = line.find([':', ' ']).and_then(|end| line.get(..end)).unwrap_or_default();
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name && line.get(name.len()..).is_some_and(|rest| rest.starts_with(':'))
}

/// Where the value of the line's first secret key starts.
fn secret_value(line: &str) -> Option<usize> {
    line.char_indices().filter(|(_, c)| matches!(c, ':' | '=')).find_map(|(at, _)| {
        let before = line.get(..at)?.trim_end().trim_end_matches(['"', '\'']);
        let name_at = before.rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')));
        let name = before.get(name_at.map_or(0, |at| at + before.get(at..).map_or(1, first_len))..)?;
        is_secret_key(name).then_some(at + 1)
    })
}

fn first_len(text: &str) -> usize {
    text.chars().next().map_or(1, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, line: usize) -> String {
        Source::new("x", text).excerpt(Pos { line, column: 1, width: 1 }, "").unwrap().text
    }

    #[test]
    fn a_line_yaml_cannot_read_is_judged_by_its_look() {
        assert_eq!(shown("check:\n\tpassword: hunter2", 2), " password:***");
        assert_eq!(
            shown("check: {user: a, \"password\": hunter2, x: 1}", 1),
            "check: {user: a, \"password\":***"
        );
        assert_eq!(shown("password: |\n  hunter2\n more", 2), "***");
        assert_eq!(shown("password: >-\n  a\n hunter2: b", 3), "***");
        assert_eq!(shown("? password\n: hunter2", 2), "***");
        assert_eq!(shown("interval: 2s: 3", 1), "interval: 2s: 3");
        assert_eq!(shown("nodes: [postgres://u:hunter2@db1]", 1), "nodes: [postgres://u:***@db1]");
    }

    #[test]
    fn the_mark_follows_what_is_struck_out() {
        let text = "{password: hunter2, rol: x}\r\n";
        let mut source = Source::new("x", text);
        source.understood(std::iter::once(11..18).collect(), true);
        let excerpt = source.excerpt(Pos { line: 1, column: 21, width: 3 }, "").unwrap();
        assert_eq!(excerpt.text, "{password: ***, rol: x}");
        assert_eq!((excerpt.skip, excerpt.width), (16, 3));
    }

    #[test]
    fn lines_end_where_yaml_ends_them() {
        let text = "a\rb\r\n\nc\r\r\nd\n";
        assert_eq!(lines(text).collect::<Vec<_>>(), ["a", "b", "", "c", "", "d"]);
        assert_eq!(shown(text, 4), "c");
        assert_eq!(shown("nodes: []\rcheck: {password: hunter2", 2), "check: {password:***");
    }

    #[test]
    fn a_place_outside_the_text_shows_nothing() {
        assert!(Source::new("x", "a").excerpt(Pos { line: 9, column: 1, width: 1 }, "").is_none());
        assert!(Source::new("x", "a").excerpt(Pos { line: 1, column: usize::MAX, width: 9 }, "").is_some());
    }
}
