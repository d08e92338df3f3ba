//! The rows of the page's tables: what stands in each cell, and its markup.
//!
//! A row without contents is what `app.js` makes new rows of, so the markup stands here alone. It finds a cell's text by
//! `data-f`.

mod event;
mod front;
mod listener;
mod node;
mod session;

use maud::{Markup, html};

use super::words;
pub(super) use event::EventCells;
pub(super) use front::{FrontCells, UpstreamCells};
pub(super) use listener::ListenerCells;
pub(super) use node::NodeCells;
pub(super) use session::SessionCells;

/// A number, and what it may be at most.
#[derive(Debug, Default)]
struct Share {
    now: String,
    /// ` / 100`, or nothing.
    of: String,
    percent: Option<u64>,
}

impl Share {
    fn new(now: u32, limit: Option<u32>) -> Self {
        let percent = limit.map(|limit| (u64::from(now) * 100 / u64::from(limit.max(1))).min(100));
        let of = limit.map(|limit| format!(" / {}", words::count(u64::from(limit)))).unwrap_or_default();
        Self { now: words::count(u64::from(now)), of, percent }
    }

    fn markup(&self) -> Markup {
        html! {
            span data-f="now" { (self.now) } span.of data-f="of" { (self.of) }
            svg.bar viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" focusable="false"
                hidden[self.percent.is_none()] {
                rect.full width="100" height="4" {} rect.part width=(self.percent.unwrap_or(0)) height="4" {}
            }
        }
    }
}

/// The colour of a state. The state is always written beside it.
fn tone(state: &str) -> &'static str {
    match state {
        "up" => "ok",
        "down" => "bad",
        "drain" | "maint" => "off",
        _ => "warn",
    }
}

/// A state in its colour.
fn pill(tone: &str, words: &str) -> Markup {
    html! { span.pill data-tone=(tone) data-f="state" { (words) } }
}
