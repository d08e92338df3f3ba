//! Whether clients can be served, and what is missing if they cannot.

use std::sync::Arc;

use crate::front::shared::Front;
use crate::session::place::is_there_another;
use crate::session::setup::Setup;

/// What keeps the listener and the front of these names from serving, or, when neither is named, any of them; nothing: they can.
/// `None`: there is none of a name that is asked for.
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
    let is_unknown = |asked: Option<&str>, is_none: bool| asked.is_some() && is_none;
    if is_unknown(listener, listeners.peek().is_none()) || is_unknown(front, fronts.peek().is_none()) {
        return None;
    }
    let without_node = listeners.filter(|listener| !is_there_another(listener, &[]));
    let missing = without_node.map(|listener| format!("listener \"{}\" has no node", listener.config.name));
    Some(missing.chain(fronts.flat_map(|front| front.troubles())).collect())
}
