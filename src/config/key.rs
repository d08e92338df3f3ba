//! What a key of the file is: its name, what it takes, and what is told about it.
//!
//! One `Key` is what the parser reads by, what a fault lists, and what `pgsplit config explain`, the JSON Schema and
//! the reference show. So they cannot tell different things.

use super::words::Word;

/// A size with its unit, or bytes.
pub(super) const SIZE_PATTERN: &str = "^[0-9.]+ ?[kKmMgGtTpPeE]?i?[bB]?$";
/// A time with its unit, or 0 where that may stand.
pub(super) const TIME_PATTERN: &str = "^(0|([0-9]+ *[A-Za-z]+ *)+)$";

/// A key whose value is read as a `T`.
pub(super) struct Key<T: 'static> {
    pub about: About,
    pub word: &'static Word<T>,
}

/// What is told about a key.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// What may be written after it.
    pub takes: Takes,
    /// What holds without it.
    pub default: Without,
    /// A value that can be written; empty: none says more than the default does.
    pub example: &'static str,
    /// What it does, in a sentence or two.
    pub meaning: &'static str,
    /// Whether a reload applies a change of it; else it needs a restart.
    pub is_reloadable: bool,
}

/// What holds while a key is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// It must be written.
    Required,
    /// This value, as it would be written.
    Value(&'static str),
    /// Something that no value says.
    Words(&'static str),
}

/// What may be written after a key.
#[derive(Clone, Copy, Debug)]
pub enum Takes {
    /// A single value.
    One(Form),
    /// A list of single values.
    Many(Form),
    /// A mapping of these keys.
    Mapping(Keys),
    /// A list, each entry of which is such.
    List(&'static Takes),
    /// A mapping of names of one's own to such.
    Named(&'static Takes),
    /// Any of these.
    Either(&'static [Takes]),
}

/// The keys of a mapping, in the order they are listed in.
pub type Keys = &'static [About];

/// A sort of single value.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Any text.
    Text,
    /// Text that is never shown.
    Secret,
    /// `true`, `off` and the like.
    YesNo,
    /// A whole number.
    Number {
        /// The smallest.
        min: u32,
        /// The largest.
        max: u32,
    },
    /// A time with its unit.
    Time {
        /// Whether 0 may stand for none.
        or_zero: bool,
    },
    /// A size with its unit.
    Size {
        /// Whether 0 may stand for none.
        or_zero: bool,
    },
    /// One of these words.
    Words(&'static [&'static str]),
    /// Text of a certain look.
    Like {
        /// What it is called, in Markdown.
        what: &'static str,
        /// A regular expression for it, as JSON Schema knows them.
        pattern: &'static str,
    },
    /// `off`, or such.
    OrOff(&'static Form),
}

impl<T> Key<T> {
    /// A key that is read as `word`.
    pub(super) const fn new(
        name: &'static str,
        word: &'static Word<T>,
        default: Without,
        example: &'static str,
        meaning: &'static str,
    ) -> Self {
        Self { about: About::new(name, Takes::One(word.form), default, example, meaning), word }
    }

    /// A key whose value is a list, each entry of which is read as `word`.
    pub(super) const fn list(
        name: &'static str,
        word: &'static Word<T>,
        default: Without,
        example: &'static str,
        meaning: &'static str,
    ) -> Self {
        Self { about: About::new(name, Takes::Many(word.form), default, example, meaning), word }
    }

    /// The same, but something else may stand there as well, or instead.
    pub(super) const fn taking(self, takes: Takes) -> Self {
        Self { about: About { takes, ..self.about }, word: self.word }
    }

    /// The same, which only a restart applies.
    pub(super) const fn at_restart(self) -> Self {
        Self { about: self.about.at_restart(), word: self.word }
    }
}

impl About {
    pub(super) const fn new(
        name: &'static str,
        takes: Takes,
        default: Without,
        example: &'static str,
        meaning: &'static str,
    ) -> Self {
        Self { name, takes, default, example, meaning, is_reloadable: true }
    }

    /// The same, which only a restart applies.
    pub(super) const fn at_restart(self) -> Self {
        Self { is_reloadable: false, ..self }
    }
}

impl Takes {
    /// The mapping it may be, or a list or names of which each entry may be.
    #[must_use]
    pub fn keys(self) -> Option<Keys> {
        match self {
            Self::One(_) | Self::Many(_) => None,
            Self::Mapping(keys) => Some(keys),
            Self::List(inner) | Self::Named(inner) => inner.keys(),
            Self::Either(all) => all.iter().find_map(|takes| takes.keys()),
        }
    }

    /// Whether names of one's own stand between it and its [`Self::keys`].
    #[must_use]
    pub fn is_named(self) -> bool {
        match self {
            Self::Named(_) => true,
            Self::Either(all) => all.iter().any(|takes| takes.is_named()),
            Self::One(_) | Self::Many(_) | Self::Mapping(_) | Self::List(_) => false,
        }
    }

    /// Whether it may be a list of mappings.
    #[must_use]
    pub fn is_list(self) -> bool {
        match self {
            Self::List(_) => true,
            Self::Either(all) => all.iter().any(|takes| takes.is_list()),
            Self::One(_) | Self::Many(_) | Self::Mapping(_) | Self::Named(_) => false,
        }
    }

    /// `time`, `mapping or off`: Markdown for a table.
    #[must_use]
    pub fn in_words(self) -> String {
        match self {
            Self::One(form) => form.in_words(),
            Self::Many(form) => format!("list of {}", form.in_words()),
            Self::Mapping(_) => "mapping".to_owned(),
            Self::List(_) => "list".to_owned(),
            Self::Named(_) => "mapping of names".to_owned(),
            Self::Either(all) => {
                let words: Vec<String> = all.iter().map(|takes| takes.in_words()).collect();
                words.join(" or ")
            }
        }
    }
}

impl Form {
    /// `time`, `0 to 256`: Markdown for a table.
    #[must_use]
    pub fn in_words(self) -> String {
        match self {
            Self::Text | Self::Secret => "text".to_owned(),
            Self::YesNo => "yes or no".to_owned(),
            Self::Number { min, max } if min == max => format!("`{min}`"),
            Self::Number { min, max } => format!("{min} to {max}"),
            Self::Time { or_zero: true } => "time or 0".to_owned(),
            Self::Time { or_zero: false } => "time".to_owned(),
            Self::Size { or_zero: true } => "size or 0".to_owned(),
            Self::Size { or_zero: false } => "size".to_owned(),
            Self::Words(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
            Self::Like { what, .. } => what.to_owned(),
            Self::OrOff(form) => format!("{} or `off`", form.in_words()),
        }
    }
}

impl Without {
    /// Markdown for a table.
    #[must_use]
    pub fn in_words(self) -> String {
        match self {
            Self::Required => "required".to_owned(),
            Self::Value("") => "`\"\"`".to_owned(),
            Self::Value(value) => format!("`{value}`"),
            Self::Words(words) => words.to_owned(),
        }
    }
}
