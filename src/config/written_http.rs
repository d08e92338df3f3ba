//! The HTTP fronts as one would write them; `written.rs` has the rest, and says how.

use super::http::{
    Cache, Forwarded, Front, Group, HttpCheck, Limits, LogRequests, Methods, Network, Retries, Route,
    Upstream,
};
use super::rules::shown;
use super::written::{Section, Value, limit, list, plain, size, time};
use super::{Balance, Config};

/// The group of a front that has `upstreams` of its own.
const OWN: &str = "default";

pub(super) fn of_front(config: &Config, front: &Front) -> Vec<Section> {
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
    let listener = listener.and_then(|listener| config.listeners.get(listener));
    let mut keys = vec![("bind", plain(bind))];
    keys.extend(of_limits(limits));
    keys.extend([
        ("routes", list(routes.iter().map(|route| of_route(route, groups)))),
        (
            "methods",
            match methods {
                Methods::Any => plain("any"),
                Methods::Only(methods) => list(methods),
            },
        ),
        ("http2", plain(http2)),
        ("retries", of_retries(retries)),
        (
            "forwarded",
            plain(match forwarded {
                Forwarded::Append => "append",
                Forwarded::Replace => "replace",
                Forwarded::Off => "off",
            }),
        ),
        ("trusted", list(trusted.iter().map(|Network { addr, bits }| format!("{addr}/{bits}")))),
        ("via", plain(via)),
        ("cache", of_cache(cache.as_ref())),
        ("listener", plain(listener.map_or("", |listener| listener.name.as_str()))),
        ("monitor_uri", plain(monitor_uri.as_deref().unwrap_or_default())),
    ]);
    let path = format!("http.{name}");
    let groups = groups.iter().flat_map(|group| of_group(&path, group));
    let groups: Vec<Section> = groups.collect();
    std::iter::once(Section::new(path.clone(), keys)).chain(groups).collect()
}

pub(super) fn log_requests(which: LogRequests) -> Value {
    match which {
        LogRequests::Off => plain("off"),
        LogRequests::Errors => plain("errors"),
        LogRequests::OneOf(share) if share.get() == 1 => plain("all"),
        LogRequests::OneOf(share) => plain(format_args!("1/{share}")),
    }
}

fn of_group(front: &str, group: &Group) -> Vec<Section> {
    let Group { name, upstreams, balance, check, passive, connect_timeout, response_timeout } = group;
    let path = if name == OWN { front.to_owned() } else { format!("{front}.groups.{name}") };
    let keys = vec![
        ("balance", plain(Balance::as_str(*balance))),
        ("check", of_check(check.as_ref())),
        ("passive", plain(passive)),
        ("connect_timeout", time(*connect_timeout)),
        ("response_timeout", time(*response_timeout)),
    ];
    let upstreams = upstreams.iter().map(|Upstream { addr, weight, backup, max_connections }| {
        let keys = vec![
            ("weight", plain(weight)),
            ("backup", plain(backup)),
            ("max_connections", limit(*max_connections)),
        ];
        Section::of_list(format!("{path}.upstreams"), addr, keys)
    });
    std::iter::once(Section::new(path.clone(), keys)).chain(upstreams).collect()
}

fn of_limits(limits: &Limits) -> Vec<(&'static str, Value)> {
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
        ("max_connections", plain(max_connections)),
        ("max_in_flight", plain(max_in_flight)),
        ("queue_size", plain(queue_size)),
        ("queue_timeout", time(*queue_timeout)),
        ("max_header", size(*max_header)),
        ("max_body", size(max_body.unwrap_or_default())),
        ("header_timeout", time(*header_timeout)),
        ("body_timeout", time(*body_timeout)),
        ("idle_timeout", time(*idle_timeout)),
    ]
}

fn of_check(check: Option<&HttpCheck>) -> Value {
    let Some(check) = check else { return plain("off") };
    let HttpCheck { path, host, interval, fast_interval, timeout, rise, fall, expect } = check;
    let expect = expect.iter().map(|codes| match (codes.start(), codes.end()) {
        (from, to) if from == to => from.to_string(),
        (from, to) => format!("{from}-{to}"),
    });
    plain(format_args!(
        "{{path: {path}, host: \"{}\", interval: {}, fast_interval: {}, timeout: {}, rise: {rise}, fall: {fall}, \
         expect: {}}}",
        host.as_deref().unwrap_or_default(),
        shown(*interval),
        shown(*fast_interval),
        shown(*timeout),
        expect.collect::<Vec<_>>().join(",")
    ))
}

fn of_route(route: &Route, groups: &[Group]) -> String {
    let Route { host, path, group } = route;
    let group = groups.get(*group).map_or("", |group| group.name.as_str());
    let host = host.as_ref().map(|host| format!("host: {host}, ")).unwrap_or_default();
    let path = path.as_ref().map(|path| format!("path: {path}, ")).unwrap_or_default();
    format!("{{{host}{path}group: {group}}}")
}

fn of_retries(retries: &Retries) -> Value {
    let Retries { max, methods, statuses, budget } = retries;
    let budget = budget.map_or_else(|| "off".to_owned(), |percent| format!("{percent}%"));
    plain(format_args!(
        "{{max: {max}, methods: {}, statuses: {}, budget: {budget}}}",
        list(methods).shown(),
        list(statuses).shown()
    ))
}

fn of_cache(cache: Option<&Cache>) -> Value {
    let Some(Cache { size: most, max_entry, stale_while_revalidate, stale_if_error }) = cache else {
        return plain("off");
    };
    plain(format_args!(
        "{{size: {}, max_entry: {}, stale_while_revalidate: {}, stale_if_error: {}}}",
        size(*most).shown(),
        size(*max_entry).shown(),
        time(*stale_while_revalidate).shown(),
        time(*stale_if_error).shown()
    ))
}
