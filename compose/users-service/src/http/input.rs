//! What clients ask for, and how it is refused.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::Serialize;

use crate::users::Wanted;

const LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;
/// Of the text to look for.
const MAX_LETTERS: usize = 100;
/// Of a wrong value that is shown again.
const MAX_SHOWN: usize = 100;

/// A value that is not taken.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Wrong {
    error: String,
    parameter: String,
    got: String,
    allowed: String,
}

impl Wrong {
    fn new(parameter: &str, got: &str, allowed: impl Display) -> Self {
        let cut = |text: &str| text.chars().take(MAX_SHOWN).collect::<String>();
        let (parameter, got, allowed) = (cut(parameter), cut(got), allowed.to_string());
        Self { error: format!("{parameter}: {got:?} came, allowed is {allowed}"), parameter, got, allowed }
    }
}

/// The query of `GET /users`. A name that is not known is refused: it is a slip that would go unseen.
pub(super) fn wanted(query: &str) -> Result<Wanted, Wrong> {
    let (mut limit, mut after, mut text) = (None, None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let twice = match &*name {
            "limit" => limit.replace(number("limit", &value, &(1..=MAX_LIMIT))?).is_some(),
            "after" => after.replace(number("after", &value, &(0..=i64::MAX))?).is_some(),
            "q" => text.replace(searched(&value)?).is_some(),
            _ => return Err(Wrong::new(&name, &value, "no other parameter than limit, after and q")),
        };
        if twice {
            return Err(Wrong::new(&name, &value, "the parameter once"));
        }
    }
    Ok(Wanted {
        limit: limit.unwrap_or(LIMIT),
        after: after.unwrap_or(0),
        text: text.filter(|text| !text.is_empty()),
    })
}

/// The last part of `/users/{id}`.
pub(super) fn id(text: &str) -> Result<i64, Wrong> {
    number("id", text, &(1..=i64::MAX))
}

fn number<T>(name: &str, text: &str, allowed: &RangeInclusive<T>) -> Result<T, Wrong>
where
    T: FromStr + PartialOrd + Display,
{
    // `parse` would also take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && allowed.contains(number));
    let (least, most) = (allowed.start(), allowed.end());
    number.ok_or_else(|| Wrong::new(name, text, format_args!("a whole number from {least} to {most}")))
}

fn searched(text: &str) -> Result<String, Wrong> {
    // PostgreSQL has no text with a zero in it.
    if text.contains('\0') || text.chars().count() > MAX_LETTERS {
        return Err(Wrong::new(
            "q",
            text,
            format_args!("a text of at most {MAX_LETTERS} letters, none of them zero"),
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_a_default() {
        assert_eq!(wanted(""), Ok(Wanted { limit: 20, after: 0, text: None }));
        assert_eq!(wanted("q="), Ok(Wanted { limit: 20, after: 0, text: None }));
        let all = Wanted { limit: 100, after: 7, text: Some("50% a".to_owned()) };
        assert_eq!(wanted("limit=100&after=7&q=50%25+a"), Ok(all));
    }

    #[test]
    fn a_refusal_names_parameter_value_and_what_is_allowed() {
        for (query, parameter, got) in [
            ("limit=0", "limit", "0"),
            ("limit=101", "limit", "101"),
            ("limit=%2B5", "limit", "+5"),
            ("limit=", "limit", ""),
            ("after=-1", "after", "-1"),
            ("after=9223372036854775808", "after", "9223372036854775808"),
            ("limit=1&limit=2", "limit", "2"),
            ("q=a%00b", "q", "a\0b"),
            ("Limit=1", "Limit", "1"),
        ] {
            let wrong = wanted(query).unwrap_err();
            assert_eq!((wrong.parameter.as_str(), wrong.got.as_str()), (parameter, got), "{query}");
            assert!(wrong.error.contains(&wrong.allowed), "{query}");
        }
        let long = wanted(&format!("q={}", "é".repeat(101))).unwrap_err();
        assert_eq!(long.got.chars().count(), MAX_SHOWN);
        assert!(wanted(&format!("q={}", "é".repeat(100))).is_ok());
        assert!(id("0").is_err() && id("x").is_err() && id("1").is_ok());
    }
}
