//! The HTTP fronts as one would write them; `show.rs` has the rest, and says how.

use super::http::{
    Cache, Forwarded, Front, Group, HttpCheck, Limits, LogRequests, Methods, Network, Retries, Route,
    Upstream,
};
use super::show::{Shown, entry, limit, list, mapping, number, size, text, time, yes_no};
use super::{Balance, Config, keys_http as keys};

/// The group of a front that has `upstreams` of its own.
const OWN: &str = "default";

/// `http`; `None`: there is none.
pub(super) fn fronts(config: &Config) -> Option<Shown> {
    match config.fronts.as_slice() {
        [] => None,
        [only] => Some(front(config, only)),
        several => Some(Shown::List(several.iter().map(|one| front(config, one)).collect())),
    }
}

fn front(config: &Config, front: &Front) -> Shown {
    let Front {
        name,
        bind,
        groups,
        routes,
        methods,
        http2,
        limits,
        retries,
        forwarded,
        trusted,
        via,
        cache,
        listener,
        monitor_uri,
    } = front;
    let mut all = vec![("name", text(name)), ("bind", text(bind))];
    match groups.as_slice() {
        [only] if only.name == OWN => all.extend(group(only)),
        several => {
            let named = |one: &Group| entry(&one.name, mapping(keys::GROUP, group(one)));
            all.push(("groups", Shown::Mapping(several.iter().map(named).collect())));
        }
    }
    all.push(("routes", Shown::List(routes.iter().map(|one| route(one, groups)).collect())));
    let methods = match methods {
        Methods::Any => text("any"),
        Methods::Only(methods) => list(methods),
    };
    all.extend([("methods", methods), ("http2", yes_no(*http2))]);
    all.extend(of_limits(limits));
    let forwarded = match forwarded {
        Forwarded::Append => "append",
        Forwarded::Replace => "replace",
        Forwarded::Off => "off",
    };
    let listener = listener.and_then(|listener| config.listeners.get(listener));
    all.extend([
        ("retries", of_retries(retries)),
        ("forwarded", text(forwarded)),
        ("trusted", list(trusted.iter().map(|Network { addr, bits }| format!("{addr}/{bits}")))),
        ("via", yes_no(*via)),
        ("cache", of_cache(cache.as_ref())),
        ("listener", text(listener.map_or("", |listener| listener.name.as_str()))),
        ("monitor_uri", text(monitor_uri.as_deref().unwrap_or_default())),
    ]);
    mapping(keys::HTTP, all)
}

fn group(group: &Group) -> Vec<(&'static str, Shown)> {
    let Group { name: _, upstreams, balance, check, passive, connect_timeout, response_timeout } = group;
    vec![
        ("upstreams", Shown::List(upstreams.iter().map(upstream).collect())),
        ("balance", text(Balance::as_str(*balance))),
        ("check", of_check(check.as_ref())),
        ("passive", yes_no(*passive)),
        ("connect_timeout", time(*connect_timeout)),
        ("response_timeout", time(*response_timeout)),
    ]
}

fn upstream(upstream: &Upstream) -> Shown {
    let Upstream { addr, weight, backup, max_connections } = upstream;
    let all = vec![
        ("addr", text(addr)),
        ("weight", number(*weight)),
        ("backup", yes_no(*backup)),
        ("max_connections", limit(*max_connections)),
    ];
    mapping(keys::UPSTREAM, all)
}

fn of_check(check: Option<&HttpCheck>) -> Shown {
    let Some(check) = check else { return text("off") };
    let HttpCheck { path, host, interval, fast_interval, timeout, rise, fall, expect } = check;
    let expect = expect.iter().map(|codes| match (codes.start(), codes.end()) {
        (from, to) if from == to => from.to_string(),
        (from, to) => format!("{from}-{to}"),
    });
    let all = vec![
        ("path", text(path)),
        ("host", text(host.as_deref().unwrap_or_default())),
        ("interval", time(*interval)),
        ("fast_interval", time(*fast_interval)),
        ("timeout", time(*timeout)),
        ("rise", number(rise.get())),
        ("fall", number(fall.get())),
        ("expect", text(expect.collect::<Vec<_>>().join(","))),
    ];
    mapping(keys::HTTP_CHECK, all)
}

fn route(route: &Route, groups: &[Group]) -> Shown {
    let Route { host, path, group } = route;
    let mut all = Vec::new();
    all.extend(host.as_ref().map(|host| ("host", text(host))));
    all.extend(path.as_ref().map(|path| ("path", text(path))));
    all.extend(groups.get(*group).map(|group| ("group", text(&group.name))));
    mapping(keys::ROUTE, all)
}

fn of_limits(limits: &Limits) -> Vec<(&'static str, Shown)> {
    let Limits {
        max_connections,
        max_in_flight,
        queue_size,
        queue_timeout,
        max_header,
        max_body,
        header_timeout,
        body_timeout,
        idle_timeout,
    } = limits;
    vec![
        ("max_connections", number(max_connections.get())),
        ("max_in_flight", number(max_in_flight.get())),
        ("queue_size", number(*queue_size)),
        ("queue_timeout", time(*queue_timeout)),
        ("max_header", size(*max_header)),
        ("max_body", size(max_body.unwrap_or_default())),
        ("header_timeout", time(*header_timeout)),
        ("body_timeout", time(*body_timeout)),
        ("idle_timeout", time(*idle_timeout)),
    ]
}

fn of_retries(retries: &Retries) -> Shown {
    let Retries { max, methods, statuses, budget } = retries;
    let budget = budget.map_or_else(|| "off".to_owned(), |percent| format!("{percent}%"));
    let statuses = statuses.iter().map(|status| number(*status)).collect();
    let all = vec![
        ("max", number(*max)),
        ("methods", list(methods)),
        ("statuses", Shown::List(statuses)),
        ("budget", text(budget)),
    ];
    mapping(keys::HTTP_RETRIES, all)
}

fn of_cache(cache: Option<&Cache>) -> Shown {
    let Some(Cache { size: most, max_entry, stale_while_revalidate, stale_if_error }) = cache else {
        return text("off");
    };
    let all = vec![
        ("size", size(*most)),
        ("max_entry", size(*max_entry)),
        ("stale_while_revalidate", time(*stale_while_revalidate)),
        ("stale_if_error", time(*stale_if_error)),
    ];
    mapping(keys::CACHE, all)
}

/// `log.requests`.
pub(super) fn log_requests(which: LogRequests) -> Shown {
    match which {
        LogRequests::Off => text("off"),
        LogRequests::Errors => text("errors"),
        LogRequests::OneOf(share) if share.get() == 1 => text("all"),
        LogRequests::OneOf(share) => text(format_args!("1/{share}")),
    }
}
