//! A listener paused or resumed by hand.

use std::sync::Arc;

use hyper::StatusCode;
use tracing::info;

use super::guard::Asker;
use super::refusal::Refusal;
use super::reply::{Answer, json};
use super::view::Seen;
use crate::session::shared::Listener;

/// Pauses a listener, or resumes it. What is so already is no fault.
///
/// # Errors
/// There is no such listener.
pub(super) fn set(seen: Seen<'_>, name: &str, pause: bool, asker: &Asker<'_>) -> Result<Answer, Refusal> {
    let listener = seen.setup.listener(name).ok_or_else(|| unknown(seen, name))?;
    // Asked before: who is let in has left the line a moment later.
    let (waiting, _) = listener.waiting();
    let is_changed = listener.set_paused(pause);
    if is_changed {
        let (name, by, client) = (listener.config.name.as_str(), asker.by, asker.peer);
        if pause {
            info!(listener = name, client = %client, by, waiting, "listener_paused");
        } else {
            info!(listener = name, client = %client, by, waiting, "listener_resumed");
        }
    }
    let mut view = seen.listener(listener);
    if is_changed && !pause {
        view.waiting = waiting;
    }
    Ok(json(StatusCode::OK, &view))
}

/// Names what there is, never what was asked for: that came from anywhere.
fn unknown(seen: Seen<'_>, name: &str) -> Refusal {
    let quoted = |listener: &Arc<Listener>| format!("\"{}\"", listener.config.name);
    let names: Vec<_> = seen.setup.listeners.iter().map(quoted).collect();
    let there_are = match names.as_slice() {
        [] => "there are none".to_owned(),
        [only] => format!("there is {only}"),
        [others @ .., last] => format!("there are {} and {last}", others.join(", ")),
    };
    if seen.fronts.iter().any(|front| front.config.name == name) {
        Refusal::Front { there_are }
    } else {
        Refusal::NoListener { there_are }
    }
}
