//! Rules about more than one value of an HTTP front; `rules.rs` has the others.

use std::collections::HashMap;
use std::net::SocketAddr;

use bytesize::ByteSize;

use super::Listener;
use super::check_http::is_allowed;
use super::file_http::{FileCache, FileFront, FileGroup, FileHttpCheck, FileRetries, FileRoute};
use super::finding::Findings;
use super::http::{Group, Methods};
use super::rules::{leads_to, shown, slow_check};
use super::source::Pos;

/// Names of fronts are metric labels.
pub(super) fn front_names(fronts: &[FileFront], f: &mut Findings<'_>) {
    let mut seen: HashMap<&str, Pos> = HashMap::new();
    for name in fronts.iter().filter_map(|front| front.name.as_ref()) {
        if let Some(first) = seen.insert(&name.value, name.at) {
            let message = format!("two fronts are named `{}`", name.value);
            f.clash(&name.path, (name.at, "again here"), (first, "first here"), &message);
        }
    }
}

/// One group's list of upstreams.
pub(super) fn upstreams(group: &FileGroup, f: &mut Findings<'_>) {
    let mut seen: HashMap<(String, u16), Pos> = HashMap::new();
    for upstream in &group.upstreams.value {
        let Some(addr) = &upstream.addr else { continue };
        let key = (addr.value.host.to_ascii_lowercase(), addr.value.port);
        if let Some(first) = seen.insert(key, addr.at) {
            let message = format!("the upstream {} is written twice", addr.value);
            f.clash(&upstream.path, (addr.at, "again here"), (first, "first here"), &message);
        }
    }
    let mut weights = group.upstreams.value.iter().map(|upstream| upstream.weight.as_ref());
    if !group.upstreams.value.is_empty()
        && weights.all(|weight| weight.is_some_and(|weight| weight.value == 0))
    {
        let message = "every upstream has weight 0: no request could ever be passed on";
        f.fault(&group.upstreams.path, group.upstreams.at, message);
    }
}

/// An upstream that is the front itself would make every request go round for ever; one that is a listener
/// would never understand it.
pub(super) fn loops(group: &FileGroup, bind: SocketAddr, listeners: &[Listener], f: &mut Findings<'_>) {
    for upstream in &group.upstreams.value {
        let Some(addr) = &upstream.addr else { continue };
        let listener = listeners.iter().find(|listener| leads_to(&addr.value, listener.bind));
        let message = if leads_to(&addr.value, bind) {
            format!("{} is this front itself", addr.value)
        } else if let Some(listener) = listener {
            format!("{} is pgsplit's own listener `{}`, which speaks no HTTP", addr.value, listener.name)
        } else {
            continue;
        };
        f.fault(&upstream.path, addr.at, &message);
    }
}

/// A method that never comes here need not be sent twice.
pub(super) fn retried_methods(retries: &FileRetries, allowed: &Methods, f: &mut Findings<'_>) {
    for method in retries.methods.iter().flatten() {
        if !is_allowed(&method.value, allowed) {
            let message = format!("`{}` is not one of `methods`, so there is nothing to retry", method.value);
            f.fault(&method.path, method.at, &message);
        }
    }
}

/// One answer must fit.
pub(super) fn entry_size(cache: &FileCache, size: u64, f: &mut Findings<'_>) {
    if let Some(entry) = cache.max_entry.as_ref().filter(|entry| entry.value > size) {
        let (entry_size, size) = (ByteSize(entry.value), ByteSize(size));
        let message = format!("{entry_size} is more than the whole cache holds ({size})");
        f.fault(&entry.path, entry.at, &message);
    }
}

/// Times of checks that work, but not as one would expect: once for what the front says, and once for each group
/// that says otherwise.
pub(super) fn check_times(front: &FileFront, groups: &[Group], f: &mut Findings<'_>) {
    let times = |check: Option<&FileHttpCheck>| {
        let check = check?;
        check.timeout.as_ref().or(check.interval.as_ref()).map(|time| time.at)
    };
    let shared = times(front.service.check.as_ref());
    let mut has_warned = false;
    for (group, file) in groups.iter().zip(&front.groups) {
        let Some(check) = group.check.as_ref().filter(|check| check.timeout > check.interval) else {
            continue;
        };
        let own = times(file.service.check.as_ref());
        if !front.is_sound || (own.is_none() && has_warned) {
            continue;
        }
        has_warned |= own.is_none();
        let owner = if own.is_some() { &file.name.path } else { &front.path };
        let at = own.or(shared).unwrap_or(Pos::NOWHERE);
        let found_after = shown(check.timeout.saturating_mul(check.fall.get()));
        let found_after = format!("fall x timeout = {found_after}");
        let (path, times) = (format!("{owner}.check.timeout"), (check.interval, check.timeout));
        slow_check(&path, at, ("an upstream", &found_after), times, f);
    }
}

/// Routes and groups that are there for nothing.
pub(super) fn unreached(front: &FileFront, f: &mut Findings<'_>) {
    let Some(routes) = front.routes.as_ref().filter(|routes| !routes.value.is_empty()) else { return };
    for (index, route) in routes.value.iter().enumerate() {
        let Some(earlier) = routes.value.iter().take(index).find(|earlier| covers(earlier, route)) else {
            continue;
        };
        let message = format!("is never reached: {} fits all of it before", earlier.path);
        f.warning(&route.path, route.at, &message);
    }
    for group in &front.groups {
        let leads_here =
            |route: &FileRoute| route.group.as_ref().is_some_and(|name| name.value == group.name.value);
        if !routes.value.iter().any(leads_here) {
            f.warning(&group.name.path, group.name.at, "no route leads to this group");
        }
    }
}

/// Whether every request that fits `later` fits `earlier`.
fn covers(earlier: &FileRoute, later: &FileRoute) -> bool {
    let host = |route: &FileRoute| route.host.as_ref().and_then(|host| host.value.clone());
    let prefix = |route: &FileRoute| route.prefix.as_ref().and_then(|prefix| prefix.value.clone());
    let host_covers = match (host(earlier), host(later)) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(later)) => {
            earlier == later || earlier.strip_prefix('*').is_some_and(|end| later.ends_with(end))
        }
    };
    let path_covers = match (prefix(earlier), prefix(later)) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(later)) => {
            later.strip_prefix(&earlier).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    };
    host_covers && path_covers
}
