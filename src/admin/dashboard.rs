//! The dashboard: the status as one page for a browser, at `/`.
//!
//! The server paints it whole, so it says everything without a script. `app.js` then keeps it up to date by `/api/v1/stream`, and
//! does nothing that the API does not do for anybody else.
//!
//! # Invariants
//!
//! - What clients and nodes have said is text: the markup here escapes it, and the script sets text only.
//! - Nothing is loaded from elsewhere, nothing stands inline, and the browser is told so: see [`POLICY`].

mod dialogs;
pub(super) mod files;
mod page;
mod rows;
mod spark;
mod words;

use hyper::StatusCode;
use hyper::header::{
    ACCEPT, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY, VARY,
};

use super::reply::{Answer, typed};
pub(super) use page::Page;

/// What the page may load and do: its own two files, and requests to where it came from.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Sessions on the page at most; it says how many more there are.
pub(super) const SESSIONS: usize = 200;
/// Events on the page at most.
pub(super) const EVENTS: usize = 100;

/// Whether who sent these headers shows pages, and is not a terminal.
pub(super) fn is_for_a_browser(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    accepted.any(|accept| accept.to_ascii_lowercase().contains("text/html"))
}

/// The page.
pub(super) fn answer(page: Page<'_>) -> Answer {
    let mut answer = typed(StatusCode::OK, "text/html; charset=utf-8", page.render());
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (VARY, "Accept"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}
