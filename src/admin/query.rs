//! What stands behind the `?` of a request.

use std::str::FromStr;

use percent_encoding::percent_decode_str;

use super::refusal::Refusal;

/// The parameters of a request, each of which may stand there once.
#[derive(Debug)]
pub(super) struct Query<'q>(Vec<(&'q str, String)>);

impl<'q> Query<'q> {
    /// Reads them; `known` are those that there are.
    ///
    /// # Errors
    /// One that is not known: it was meant to say something, and what it says must not be passed over.
    pub(super) fn read(query: Option<&'q str>, known: &[&str]) -> Result<Self, Refusal> {
        let mut all: Vec<(&str, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                let known = match known {
                    [] => "it takes none".to_owned(),
                    known => format!("there are {}", known.join(", ")),
                };
                return Err(Refusal::Parameter { known });
            }
            if all.iter().any(|(other, _)| *other == name) {
                return Err(Refusal::Twice { name: name.to_owned() });
            }
            // As forms of pages write it.
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value).decode_utf8_lossy().into_owned();
            all.push((name, value));
        }
        Ok(Self(all))
    }

    /// One of them as it stands there; an empty one is as good as none.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// One of them, as `read` reads it.
    ///
    /// # Errors
    /// It is not `what`.
    pub(super) fn get<T>(
        &self,
        name: &str,
        what: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match read(text) {
            Some(value) => Ok(Some(value)),
            None => Err(Refusal::Value { name: name.to_owned(), what: what.to_owned() }),
        }
    }

    /// One of them, a whole number.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        // The standard library takes a sign as well.
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        self.get(name, "a whole number", |text| text.parse().ok().filter(|_| is_plain(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_the_unknown_refused() {
        let query = Query::read(Some("user=a%26b+c&limit=10&node="), &["user", "limit", "node"]).unwrap();
        assert_eq!((query.text("user"), query.text("node")), (Some("a&b c"), None));
        assert_eq!(query.number::<u32>("limit").unwrap(), Some(10));
        assert!(query.number::<u32>("user").is_err());
        assert!(Query::read(None, &[]).is_ok());
        let error = |query| Query::read(Some(query), &["user", "limit"]).unwrap_err();
        assert_eq!(error("usr=a").hint(), "there are user, limit");
        let told = error("<script>=1").to_string();
        assert!(!told.contains("script"), "what came from anywhere is not said again");
        assert_eq!(error("user=a&user=b").to_string(), "user stands there twice");
        for wrong in ["limit=-1", "limit=%2B1", "limit=1e3", "limit=99999999999999999999"] {
            let query = Query::read(Some(wrong), &["limit"]).unwrap();
            assert!(query.number::<u64>("limit").is_err(), "{wrong}");
        }
    }
}
