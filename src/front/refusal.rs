//! Why a request is answered by pgsplit itself, and with what.

use bytes::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::base::text::escaped;
use crate::config::http::Methods;
use crate::telemetry::labels::HttpRejection;

/// Says in one word why there is no other answer.
pub const REASON: HeaderName = HeaderName::from_static("x-pgsplit-reason");
/// When to come again: about as long as a check needs to find an upstream up.
const SOON: HeaderValue = HeaderValue::from_static("1");

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It can be read in more than one way, or names no host.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// Its body is larger than allowed.
    #[error("the request's body is larger than {0} bytes")]
    BodyTooLarge(u64),
    /// It sent no more of its body in time.
    #[error("no more of the request's body came in time")]
    SlowBody,
    /// Its method is not passed on.
    #[error("{method} is not passed on: {allowed} are")]
    Method {
        /// Escaped.
        method: String,
        /// For the Allow header.
        allowed: String,
    },
    /// No route fits.
    #[error("no route fits this host and path")]
    NoRoute,
    /// As many wait as may.
    #[error("too many requests are waiting")]
    QueueFull,
    /// It waited too long for its turn.
    #[error("waited too long for its turn")]
    QueueTimeout,
    /// No upstream fits.
    #[error("no upstream is up for group \"{0}\"")]
    NoUpstream(String),
    /// The database is gone.
    #[error("the database behind listener \"{0}\" is not there")]
    Database(String),
    /// No upstream could be connected to.
    #[error("no upstream could be connected to")]
    Connect,
    /// An upstream broke off.
    #[error("the upstream broke off before its answer, or did not answer in HTTP")]
    Reset,
    /// An upstream did not answer in time.
    #[error("no upstream answered in time")]
    Timeout,
    /// Only a stored answer was asked for.
    #[error("no stored answer, and no other was asked for")]
    NotCached,
}

impl Refusal {
    /// The refusal of a method.
    #[must_use]
    pub fn method(method: &str, allowed: &Methods) -> Self {
        let allowed = match allowed {
            Methods::Any => "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE".to_owned(),
            Methods::Only(methods) => methods.join(", "),
        };
        Self::Method { method: escaped(method.as_bytes(), 20), allowed }
    }

    /// Its label.
    #[must_use]
    pub const fn reason(&self) -> HttpRejection {
        match self {
            Self::BadRequest(_) => HttpRejection::BadRequest,
            Self::BodyTooLarge(_) => HttpRejection::Body,
            Self::SlowBody => HttpRejection::Slow,
            Self::Method { .. } => HttpRejection::Method,
            Self::NoRoute => HttpRejection::NoRoute,
            Self::QueueFull => HttpRejection::QueueFull,
            Self::QueueTimeout => HttpRejection::QueueTimeout,
            Self::NoUpstream(_) => HttpRejection::NoUpstream,
            Self::Database(_) => HttpRejection::Database,
            Self::Connect => HttpRejection::Connect,
            Self::Reset => HttpRejection::Reset,
            Self::Timeout => HttpRejection::Timeout,
            Self::NotCached => HttpRejection::NotCached,
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::QueueFull
            | Self::QueueTimeout
            | Self::NoUpstream(_)
            | Self::Database(_)
            | Self::Connect => StatusCode::SERVICE_UNAVAILABLE,
            Self::Reset => StatusCode::BAD_GATEWAY,
            Self::Timeout | Self::NotCached => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Whether it is the client's own doing, and no upstream could have helped.
    #[must_use]
    pub const fn is_of_the_client(&self) -> bool {
        matches!(
            self,
            Self::BadRequest(_)
                | Self::BodyTooLarge(_)
                | Self::SlowBody
                | Self::Method { .. }
                | Self::NoRoute
        )
    }

    /// Whether the client's connection cannot be used for another request: what comes next on it may be the rest of
    /// this one.
    const fn ends_connection(&self) -> bool {
        matches!(self, Self::BadRequest(_) | Self::BodyTooLarge(_) | Self::SlowBody)
    }

    /// The answer: JSON for programs, a reason for people who look at headers.
    #[must_use]
    pub fn answer(&self, is_http1: bool) -> Response<Bytes> {
        let body = serde_json::json!({ "error": self.to_string() });
        let mut answer = Response::new(Bytes::from(format!("{body}\n")));
        *answer.status_mut() = self.status();
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REASON, HeaderValue::from_static(self.reason().as_str()));
        if self.status().is_server_error() {
            headers.insert(RETRY_AFTER, SOON);
        }
        if let Self::Method { allowed, .. } = self
            && let Ok(allowed) = HeaderValue::try_from(allowed)
        {
            headers.insert(ALLOW, allowed);
        }
        if is_http1 && self.ends_connection() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}
