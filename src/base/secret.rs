//! Text that must not be seen.

use std::fmt;

/// A password or token. `Debug` prints `***`; there is no `Display` and no serialisation.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `guess` is the text; never for an empty one. How long that takes says nothing about the text but, at most,
    /// its length.
    #[must_use]
    pub fn is(&self, guess: &[u8]) -> bool {
        let text = self.0.as_bytes();
        let pairs = guess.iter().zip(text.iter().cycle());
        // Hidden from the optimiser, which could otherwise leave the loop at the first difference.
        let differs = pairs.fold(0, |differs, (a, b)| std::hint::black_box(differs | (a ^ b)));
        differs == 0 && guess.len() == text.len() && !text.is_empty()
    }

    /// Whether there is nothing to hide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_text_is_it() {
        let secret = Secret::new("abcabc");
        assert!(secret.is(b"abcabc"));
        for guess in ["", "abc", "abcab", "abcabd", "bbcabc", "abcabcabcabc", "ABCABC"] {
            assert!(!secret.is(guess.as_bytes()), "{guess}");
        }
        assert!(!Secret::default().is(b"") && !Secret::default().is(b"a"));
    }
}
