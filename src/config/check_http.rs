//! The HTTP fronts, from as written to as they can be run; `check.rs` does the rest.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use super::check::{at_least_one, or, words_or};
use super::file::File;
use super::file_http::{
    FileCache, FileFront, FileGroup, FileHttpCheck, FileLimits, FileMethods, FileRetries, FileRoute,
    FileService, FileUpstream,
};
use super::finding::Findings;
use super::http::{Cache, Forwarded, Front, Group, HttpCheck, Limits, Methods, Retries, Route, Upstream};
use super::table::{Given, closest};
use super::{Balance, Listener, rules_http};

/// Of the only front that does not say otherwise.
const PORT: u16 = 8080;
const NAME: &str = "http";
/// What may be asked for, and sent twice, unless written: what only reads.
const METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];
const MIB: u64 = 1 << 20;

/// Checks the fronts of `file`. `host` is that of default addresses.
pub(super) fn check_fronts(
    file: &File,
    listeners: &[Listener],
    host: IpAddr,
    f: &mut Findings<'_>,
) -> Vec<Front> {
    rules_http::front_names(&file.fronts, f);
    file.fronts.iter().filter_map(|front| check_front(front, file, listeners, host, f)).collect()
}

/// Where `front` listens; `None`: what it says is wrong.
pub(super) fn bind_of(front: &FileFront, host: IpAddr) -> Option<Given<SocketAddr>> {
    let default =
        || Given { value: SocketAddr::new(host, PORT), at: front.at, path: format!("{}.bind", front.path) };
    front.bind.clone().or_else(|| front.has_default_bind.then(default))
}

fn check_front(
    file: &FileFront,
    whole: &File,
    listeners: &[Listener],
    host: IpAddr,
    f: &mut Findings<'_>,
) -> Option<Front> {
    let before = f.count();
    let bind = bind_of(file, host);
    for group in &file.groups {
        rules_http::upstreams(group, f);
        if let Some(bind) = &bind {
            rules_http::loops(group, bind.value, listeners, f);
        }
    }
    let groups: Vec<Group> = file.groups.iter().map(|group| check_group(group, &file.service)).collect();
    rules_http::check_times(file, &groups, f);
    let routes = check_routes(file, f);
    let methods = check_methods(file.methods.as_ref());
    rules_http::retried_methods(&file.retries, &methods, f);
    let front = Front {
        name: or(file.name.as_ref(), NAME.to_owned()),
        bind: bind?.value,
        groups,
        routes,
        http2: or(file.http2.as_ref(), true),
        limits: check_limits(&file.limits),
        retries: check_retries(&file.retries, &methods),
        methods,
        forwarded: or(file.forwarded.as_ref(), Forwarded::Append),
        trusted: file.trusted.iter().map(|network| network.value).collect(),
        via: or(file.via.as_ref(), false),
        cache: file.cache.as_ref().and_then(|cache| check_cache(cache, f)),
        listener: check_listener(file, whole, listeners, f),
        monitor_uri: or(file.monitor_uri.as_ref(), None),
    };
    if file.is_sound && f.count() == before {
        rules_http::unreached(file, f);
    }
    Some(front)
}

fn check_group(file: &FileGroup, shared: &FileService) -> Group {
    let own = &file.service;
    Group {
        name: file.name.value.clone(),
        upstreams: file.upstreams.value.iter().filter_map(check_upstream).collect(),
        balance: or(own.balance.as_ref().or(shared.balance.as_ref()), Balance::Leastconn),
        check: check_check(own.check.as_ref(), shared.check.as_ref()),
        passive: or(own.passive.as_ref().or(shared.passive.as_ref()), true),
        connect_timeout: or(
            own.connect_timeout.as_ref().or(shared.connect_timeout.as_ref()),
            Duration::from_secs(1),
        ),
        response_timeout: or(
            own.response_timeout.as_ref().or(shared.response_timeout.as_ref()),
            Duration::from_secs(30),
        ),
    }
}

fn check_upstream(file: &FileUpstream) -> Option<Upstream> {
    Some(Upstream {
        addr: file.addr.as_ref()?.value.clone(),
        weight: or(file.weight.as_ref(), 100).try_into().unwrap_or(u16::MAX),
        backup: or(file.backup.as_ref(), false),
        max_connections: NonZeroU32::new(or(file.max_connections.as_ref(), 0)),
    })
}

/// What a group leaves out is that of its front, key by key.
fn check_check(own: Option<&FileHttpCheck>, shared: Option<&FileHttpCheck>) -> Option<HttpCheck> {
    if own.or(shared).is_some_and(|check| check.is_off) {
        return None;
    }
    let none = FileHttpCheck::default();
    let (own, shared) = (own.unwrap_or(&none), shared.unwrap_or(&none));
    let interval = or(own.interval.as_ref().or(shared.interval.as_ref()), Duration::from_secs(2));
    Some(HttpCheck {
        path: or(own.path.as_ref().or(shared.path.as_ref()), "/health".to_owned()),
        host: or(own.host.as_ref().or(shared.host.as_ref()), None),
        interval,
        // Never slower than the ordinary rhythm, which somebody may have made faster than this.
        fast_interval: or(
            own.fast_interval.as_ref().or(shared.fast_interval.as_ref()),
            Duration::from_millis(500).min(interval),
        ),
        timeout: or(own.timeout.as_ref().or(shared.timeout.as_ref()), Duration::from_secs(1)),
        rise: at_least_one(own.rise.as_ref().or(shared.rise.as_ref()), 2),
        fall: at_least_one(own.fall.as_ref().or(shared.fall.as_ref()), 3),
        expect: or(own.expect.as_ref().or(shared.expect.as_ref()), std::iter::once(200..=399).collect()),
    })
}

/// Several groups have routes, or there is a fault already.
fn check_routes(front: &FileFront, f: &mut Findings<'_>) -> Vec<Route> {
    let written = front.routes.as_ref().filter(|routes| !routes.value.is_empty());
    let Some(routes) = written else {
        return vec![Route { host: None, path: None, group: 0 }];
    };
    routes.value.iter().filter_map(|route| check_route(route, &front.groups, f)).collect()
}

fn check_route(file: &FileRoute, groups: &[FileGroup], f: &mut Findings<'_>) -> Option<Route> {
    let name = file.group.as_ref()?;
    let group = groups.iter().position(|group| group.name.value == name.value);
    // Without any, that is what is wrong.
    if group.is_none() && !groups.is_empty() {
        let known: Vec<&str> = groups.iter().map(|group| group.name.value.as_str()).collect();
        let instead = closest(&name.value, &known).map_or_else(
            || format!("there is {}", words_or(&known)),
            |near| format!("did you mean `{near}`?"),
        );
        f.fault(&name.path, name.at, &format!("no group is named `{}`; {instead}", name.value));
    }
    Some(Route { host: or(file.host.as_ref(), None), path: or(file.prefix.as_ref(), None), group: group? })
}

fn check_methods(file: Option<&FileMethods>) -> Methods {
    match file {
        None => Methods::Only(METHODS.map(str::to_owned).into()),
        Some(FileMethods::Any) => Methods::Any,
        Some(FileMethods::Only(written)) => Methods::Only(values(written)),
    }
}

fn check_limits(file: &FileLimits) -> Limits {
    Limits {
        max_connections: at_least_one(file.max_connections.as_ref(), 10_000),
        max_in_flight: at_least_one(file.max_in_flight.as_ref(), 2000),
        queue_size: or(file.queue_size.as_ref(), 20_000),
        queue_timeout: or(file.queue_timeout.as_ref(), Duration::from_secs(5)),
        max_header: or(file.max_header.as_ref(), 32 * 1024),
        max_body: or(file.max_body.as_ref(), Some(MIB)),
        header_timeout: or(file.header_timeout.as_ref(), Duration::from_secs(10)),
        body_timeout: or(file.body_timeout.as_ref(), Duration::from_secs(30)),
        idle_timeout: or(file.idle_timeout.as_ref(), Duration::from_secs(60)),
    }
}

fn check_retries(file: &FileRetries, allowed: &Methods) -> Retries {
    let default =
        || METHODS.into_iter().filter(|method| is_allowed(method, allowed)).map(str::to_owned).collect();
    let statuses = file.statuses.as_ref().map(|statuses| values(statuses));
    Retries {
        max: or(file.max.as_ref(), 2),
        methods: file.methods.as_ref().map_or_else(default, |methods| values(methods)),
        statuses: statuses
            .unwrap_or_else(|| vec![502, 503, 504])
            .into_iter()
            .filter_map(|status| u16::try_from(status).ok())
            .collect(),
        budget: or(file.budget.as_ref(), Some(20)),
    }
}

fn check_cache(file: &FileCache, f: &mut Findings<'_>) -> Option<Cache> {
    let size = or(file.size.as_ref(), Some(64 * MIB))?;
    rules_http::entry_size(file, size, f);
    Some(Cache {
        size,
        max_entry: or(file.max_entry.as_ref(), MIB.min(size)),
        stale_while_revalidate: or(file.stale_while_revalidate.as_ref(), Duration::from_secs(10)),
        stale_if_error: or(file.stale_if_error.as_ref(), Duration::from_secs(60)),
    })
}

fn check_listener(
    front: &FileFront,
    whole: &File,
    listeners: &[Listener],
    f: &mut Findings<'_>,
) -> Option<usize> {
    let written = front.listener.as_ref()?;
    let name = written.value.as_ref()?;
    // One with a fault of its own is not among those that can be run, but is no less there.
    let known: Vec<&str> = match &whole.listeners {
        Some(all) => {
            all.value.iter().filter_map(|l| l.name.as_ref()).map(|name| name.value.as_str()).collect()
        }
        None => listeners.iter().map(|listener| listener.name.as_str()).collect(),
    };
    if known.is_empty() && f.count() == 0 {
        let message = "without `nodes` there are no listeners, and no database to depend on";
        f.fault(&written.path, written.at, message);
    } else if !known.contains(&name.as_str()) && !known.is_empty() {
        let message = format!("no listener is named `{name}`; there is {}", words_or(&known));
        f.fault(&written.path, written.at, &message);
    }
    // The index is only kept by a configuration without faults.
    listeners.iter().position(|listener| listener.name == *name)
}

pub(super) fn is_allowed(method: &str, allowed: &Methods) -> bool {
    match allowed {
        Methods::Any => true,
        Methods::Only(methods) => methods.iter().any(|allowed| allowed == method),
    }
}

/// What was written, each once.
fn values<T: Clone + PartialEq>(written: &[Given<T>]) -> Vec<T> {
    let mut all: Vec<T> = Vec::with_capacity(written.len());
    for given in written {
        if !all.contains(&given.value) {
            all.push(given.value.clone());
        }
    }
    all
}
