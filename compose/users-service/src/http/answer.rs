//! Answers: always JSON, and never more about the inside than a client can use.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

/// An answer that nobody keeps, unless it is given other words.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Only maps with keys that are no texts cannot be written, and there are none.
    let mut response = Response::new(Body::from(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An error in one sentence.
pub(super) fn error(status: StatusCode, text: &str) -> Response {
    json(status, &json!({ "error": text }))
}

/// What another instance, or this one a moment later, may answer better.
pub(super) fn unavailable(text: &str) -> Response {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
