//! A listener's row.

use maud::{Markup, html};

use super::{Share, pill};
use crate::admin::dashboard::words::{self, UNKNOWN};
use crate::admin::view::ListenerView;

/// A listener's row.
#[derive(Debug, Default)]
pub(in crate::admin::dashboard) struct ListenerCells {
    name: String,
    bind: String,
    state: &'static str,
    tone: &'static str,
    target: String,
    balance: String,
    to: String,
    why: String,
    sessions: Share,
    waiting: String,
    oldest: String,
    new: String,
    rejected: String,
    /// What its button does: `Pause` or `Resume`.
    action: &'static str,
}

impl ListenerCells {
    pub(in crate::admin::dashboard) fn of(listener: &ListenerView) -> Self {
        let (state, tone) = match (listener.paused, listener.ready) {
            (true, _) => ("paused", "warn"),
            (false, true) => ("open", "ok"),
            (false, false) => ("no node", "bad"),
        };
        let to = listener.new_sessions_go_to.join(", ");
        Self {
            name: listener.name.clone(),
            bind: listener.bind.clone(),
            state,
            tone,
            target: listener.target.to_owned(),
            balance: listener.balance.to_owned(),
            to: if to.is_empty() { "nowhere: they wait".to_owned() } else { to },
            why: listener.why.clone(),
            sessions: Share::new(listener.sessions, Some(listener.limit)),
            waiting: words::many(listener.waiting),
            oldest: if listener.waiting == 0 {
                UNKNOWN.to_owned()
            } else {
                words::age(listener.oldest_wait_seconds)
            },
            new: words::rate(listener.new_per_second),
            rejected: words::count(listener.rejected_total),
            action: if listener.paused { "Resume" } else { "Pause" },
        }
    }

    pub(in crate::admin::dashboard) fn row(&self) -> Markup {
        html! {
            tr data-key=(self.name) data-tone=(self.tone) {
                th scope="row" data-label="Listener" {
                    span.name data-f="name" { (self.name) } span.under data-f="bind" { (self.bind) }
                }
                td data-label="State" { (pill(self.tone, self.state)) }
                td data-label="Target" {
                    span data-f="target" { (self.target) } span.under data-f="balance" { (self.balance) }
                }
                td.why data-label="New sessions go to" {
                    span.name data-f="to" { (self.to) } span.under data-f="why" { (self.why) }
                }
                td.number data-label="Sessions" { (self.sessions.markup()) }
                td.number data-label="Waiting" data-f="waiting" { (self.waiting) }
                td.number data-label="Oldest wait" data-f="oldest" { (self.oldest) }
                td.number data-label="New/s" data-f="new" { (self.new) }
                td.number data-label="Rejected" data-f="rejected" { (self.rejected) }
                td.action {
                    button type="button" data-do="pause" aria-label={ (self.action) " " (self.name) } { (self.action) "…" }
                }
            }
        }
    }
}
