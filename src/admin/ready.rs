//! Whether clients can be served, and what is missing if they cannot.

use std::sync::Arc;

use crate::front::shared::Front;
use crate::session::place::is_there_another;
use crate::session::setup::Setup;

/// What keeps the listener or the front of this name from serving, or, when neither is named, any of them; nothing: it can.
/// `None`: there is none of that name.
pub(super) fn missing(
    setup: &Setup,
    fronts: &[Arc<Front>],
    listener: Option<&str>,
    front: Option<&str>,
) -> Option<Vec<String>> {
    let is_asked = |name: &str, asked: Option<&str>, other: Option<&str>| match asked {
        Some(asked) => asked == name,
        None => other.is_none(),
    };
    let mut listeners =
        setup.listeners.iter().filter(|one| is_asked(&one.config.name, listener, front)).peekable();
    let mut fronts = fronts.iter().filter(|one| is_asked(&one.config.name, front, listener)).peekable();
    if listeners.peek().is_none() && fronts.peek().is_none() {
        return None;
    }
    let without_node = listeners.filter(|listener| !is_there_another(listener, &[]));
    let missing = without_node.map(|listener| format!("listener \"{}\" has no node", listener.config.name));
    Some(missing.chain(fronts.flat_map(|front| front.troubles())).collect())
}
