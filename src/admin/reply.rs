//! What is answered: text for people, JSON for programs.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::base::text::harmless_json;

/// An answer.
pub(super) type Answer = Response<Body>;
/// What an answer holds: all of it, or what comes in the course of time.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Why something is not done.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    #[serde(skip)]
    pub status: StatusCode,
    /// What is wrong.
    pub error: String,
    /// What to do about it.
    pub hint: String,
    /// How to prove who one is, where that is what lacks.
    #[serde(skip)]
    pub challenge: Option<&'static str>,
    /// What may be done there, where the method is what is wrong.
    #[serde(skip)]
    pub allow: Option<String>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, error: error.into(), hint: hint.into(), challenge: None, allow: None }
    }

    pub(super) fn bad(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, hint)
    }

    pub(super) fn not_found(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, hint)
    }

    /// As JSON in the API, and in words elsewhere.
    pub(super) fn answer(&self, is_api: bool) -> Answer {
        let mut answer = if is_api {
            json(self.status, self)
        } else {
            let hint = if self.hint.is_empty() { String::new() } else { format!("; {}", self.hint) };
            text(self.status, format!("{}{hint}\n", self.error))
        };
        let headers = answer.headers_mut();
        if let Some(how) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(how));
        }
        if let Some(allow) = self.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        answer
    }
}

pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let body = serde_json::to_string_pretty(body).unwrap_or_default() + "\n";
    typed(status, "application/json", harmless_json(&body))
}

pub(super) fn text(status: StatusCode, body: String) -> Answer {
    typed(status, "text/plain; charset=utf-8", body)
}

pub(super) fn typed(status: StatusCode, kind: &'static str, body: String) -> Answer {
    with_body(status, kind, Full::new(Bytes::from(body)).boxed_unsync())
}

pub(super) fn with_body(status: StatusCode, kind: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

/// On one line.
pub(super) fn compact(body: &impl Serialize) -> String {
    harmless_json(&serde_json::to_string(body).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::text::is_harmless;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_reads_back_and_is_harmless(text in ".*|[\u{0}-\u{ff}\u{2000}-\u{206f}\u{feff}]*") {
            let shown = compact(&serde_json::json!({"a": text}));
            prop_assert!(shown.chars().all(is_harmless));
            let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
            prop_assert_eq!(read["a"].as_str(), Some(text.as_str()));
        }
    }
}
