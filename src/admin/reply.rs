//! What is answered: text for people, JSON for programs.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::base::text::harmless_json;

/// An answer.
pub(super) type Answer = Response<Body>;
/// What an answer holds: all of it, or what comes in the course of time.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

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
