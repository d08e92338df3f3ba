//! The front's own health at a path of its own, for whatever stands before it: a cloud's load balancer, another proxy.
//! Named after `monitor-uri` of HAProxy.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use crate::front::shared::Front;

/// The answer to a request for the front's health, whatever host it names; `None`: it is for an upstream.
pub fn health(front: &Front, head: &Parts) -> Option<Response<Bytes>> {
    let asked = front.config.monitor_uri.as_deref()?;
    if head.uri.path() != asked || !matches!(head.method, Method::GET | Method::HEAD) {
        return None;
    }
    // In public, so no word of what is behind: `/readyz` on the admin address tells that.
    let (status, text) = if front.is_stopping.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if front.is_ready() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    };
    let mut answer = Response::new(Bytes::from_static(text.as_bytes()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(answer)
}
