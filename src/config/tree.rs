//! YAML as a tree in which every key and value knows its place.
//!
//! The file is read into this tree first and into `file.rs` from it, because serde stops at the first unknown
//! key or wrong type, and a person wants to see all of them. Whatever YAML itself cannot read is the one
//! fault that hides others.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};

use super::report::Fault;
use super::secrets::is_secret_key;
use super::source::{Pos, Source};

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub at: Pos,
    pub kind: Kind,
}

/// What a value is. Numbers and words are text here: only the key says what they should be.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    Scalar(Scalar),
    Seq(Vec<Value>),
    Map(Vec<(Key, Value)>),
    /// Already reported; whoever meets it says nothing more.
    Bad,
}

/// A single value as text.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub text: String,
    /// As in the file, when `text` comes from the environment or another place and so must not be shown.
    pub written: Option<String>,
}

/// A key and its place.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub name: String,
    pub at: Pos,
}

/// Reads the text of `source`, and tells it what to hide.
///
/// # Errors
/// What YAML found wrong. When that is only a key written twice, there is a tree nevertheless.
pub(super) fn parse(source: &mut Source<'_>) -> (Option<Value>, Option<Fault>) {
    let text = source.text();
    let error = match read(text, serde_yaml::DuplicateKeyPolicy::Error) {
        Ok(raw) => return (Some(understand(raw, source, true)), None),
        Err(error) => error,
    };
    let fault = yaml_fault(&error, source);
    let is_duplicate = matches!(error.without_snippet(), serde_yaml::Error::DuplicateMappingKey { .. });
    let raw =
        is_duplicate.then(|| read(text, serde_yaml::DuplicateKeyPolicy::FirstWins)).and_then(Result::ok);
    (raw.map(|raw| understand(raw, source, false)), Some(fault))
}

fn read(
    text: &str,
    duplicate_keys: serde_yaml::DuplicateKeyPolicy,
) -> Result<Spanned<Raw>, serde_yaml::Error> {
    let options = serde_yaml::options! {
        duplicate_keys: duplicate_keys,
        with_snippet: false,
        non_finite_float_policy: serde_yaml::NonFiniteFloatPolicy::PassThrough,
    };
    serde_yaml::from_str_with_options(text, options)
}

/// A fault of YAML itself, in our words where the crate's are about its own interface.
fn yaml_fault(error: &serde_yaml::Error, source: &Source<'_>) -> Fault {
    use serde_yaml::Error;
    let error = error.without_snippet();
    let pos = error.location().map_or(Pos { line: 1, column: 1, width: 1 }, |at| pos_of(&at, source.text()));
    let message = match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` is written twice"),
        Error::DuplicateMappingKey { key: None, .. } => "a key is written twice".to_owned(),
        Error::Eof { .. } => "the text ends in the middle of a value".to_owned(),
        Error::MultipleDocuments { .. } => {
            "only one document is read: remove `---` and what follows".to_owned()
        }
        Error::UnknownAnchor { .. } => "no value has the name this `*` refers to".to_owned(),
        Error::Budget { .. } => "nested or repeated too much to be a configuration".to_owned(),
        // The scanner's own sentences; they speak of characters and places, not of values.
        Error::ExternalMessage { msg, .. } => {
            let msg = msg.split(" at byte").next().unwrap_or(msg);
            format!("not valid YAML: {}", msg.trim_end_matches('.'))
        }
        _ => "not valid YAML: this cannot stand here".to_owned(),
    };
    let mut fault = source.fault("", pos, &message);
    let line = source.text().lines().nth(pos.line.saturating_sub(1)).unwrap_or_default();
    if line.contains("${") {
        fault.help("put a value that holds `${` in quotes: YAML reads a bare `{` as a mapping");
    }
    fault
}

fn pos_of(at: &Location, text: &str) -> Pos {
    let line = usize::try_from(at.line()).unwrap_or(0);
    let column = usize::try_from(at.column()).unwrap_or(0);
    let length = bytes_of(at)
        .and_then(|range| text.get(range))
        .map_or(1, |part| part.lines().next().unwrap_or_default().trim_end().chars().count());
    Pos { line, column, width: length.max(1) }
}

fn bytes_of(at: &Location) -> Option<Range<usize>> {
    let start = usize::try_from(at.span().byte_offset()?).ok()?;
    let length = usize::try_from(at.span().byte_len()?).ok()?;
    Some(start..start.checked_add(length)?)
}

/// Gives every number its text back, and finds what must be hidden.
fn understand(raw: Spanned<Raw>, source: &mut Source<'_>, is_whole: bool) -> Value {
    let mut builder = Builder { text: source.text(), hidden: Vec::new() };
    let value = builder.value(raw, false);
    let hidden = builder.hidden;
    source.understood(hidden, is_whole);
    value
}

struct Builder<'t> {
    text: &'t str,
    hidden: Vec<Range<usize>>,
}

impl Builder<'_> {
    fn value(&mut self, raw: Spanned<Raw>, is_secret: bool) -> Value {
        let at = pos_of(&raw.referenced, self.text);
        let kind = match raw.value {
            Raw::Null => Kind::Null,
            Raw::Text(text) => {
                Kind::Scalar(Scalar { text, written: self.alias(&raw.referenced, &raw.defined) })
            }
            Raw::Plain => {
                let text = bytes_of(&raw.defined).and_then(|range| self.text.get(range)).unwrap_or_default();
                let written = self.alias(&raw.referenced, &raw.defined);
                Kind::Scalar(Scalar { text: text.trim().to_owned(), written })
            }
            Raw::Seq(items) => Kind::Seq(items.into_iter().map(|item| self.value(item, is_secret)).collect()),
            Raw::Map(entries) => Kind::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        if is_secret {
                            self.hide(&key.defined);
                        }
                        let is_secret = is_secret || is_secret_key(&key.value);
                        let name = Key { at: pos_of(&key.referenced, self.text), name: key.value };
                        (name, self.value(value, is_secret))
                    })
                    .collect(),
            ),
        };
        if is_secret && matches!(kind, Kind::Scalar(_)) {
            self.hide(&raw.defined);
            self.hide(&raw.referenced);
        }
        Value { at, kind }
    }

    /// The name a value is used by when it stands elsewhere in the file, perhaps as a secret.
    fn alias(&self, referenced: &Location, defined: &Location) -> Option<String> {
        let text = || bytes_of(referenced).and_then(|range| self.text.get(range)).unwrap_or("this");
        (referenced != defined).then(|| text().trim().to_owned())
    }

    fn hide(&mut self, at: &Location) {
        // Whatever has no known end is hidden to the end of the text.
        let range = bytes_of(at).unwrap_or(0..self.text.len());
        if !self.text.get(range.clone()).is_some_and(is_only_a_name) {
            self.hidden.push(range);
        }
    }
}

/// Whether a value is a `${NAME}` and nothing else: what it stands for is secret, the name is not.
fn is_only_a_name(text: &str) -> bool {
    let text = text.trim_matches(['"', '\'']);
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
}

/// The tree as serde builds it. A plain number has no text here, only its place.
#[derive(Debug)]
enum Raw {
    Null,
    Text(String),
    Plain,
    Seq(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries: Vec<(Spanned<String>, Spanned<Raw>)> = Vec::new();
        while let Some(key) = map.next_key()? {
            entries.push((key, map.next_value()?));
        }
        Ok(Raw::Map(entries))
    }
}
