//! Every key about HTTP; `keys.rs` has the others. `file_http.rs` reads them.

#![allow(clippy::wildcard_imports, reason = "a module for each section, and nothing but keys in it")]

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::http::{Forwarded, Network};
use super::key::Without::{Required, Value, Words};
use super::key::{About, Key, Keys, Takes};
use super::keys::OFF;
use super::{Balance, NodeAddr, words, words_http};

const AN_UPSTREAM: Takes = Takes::Either(&[Takes::One(words_http::UPSTREAM.form), Takes::Mapping(UPSTREAM)]);
const A_LIST: Takes = Takes::List(&AN_UPSTREAM);

/// `http`
pub(super) const HTTP: Keys = &[
    front::NAME.about,
    front::BIND.about,
    front::UPSTREAMS,
    service::BALANCE.about,
    service::CHECK,
    service::PASSIVE.about,
    service::CONNECT_TIMEOUT.about,
    service::RESPONSE_TIMEOUT.about,
    front::GROUPS,
    front::ROUTES,
    front::METHODS.about,
    front::HTTP2.about,
    front::MAX_CONNECTIONS.about,
    front::MAX_IN_FLIGHT.about,
    front::QUEUE_SIZE.about,
    front::QUEUE_TIMEOUT.about,
    front::MAX_HEADER.about,
    front::MAX_BODY.about,
    front::HEADER_TIMEOUT.about,
    front::BODY_TIMEOUT.about,
    front::IDLE_TIMEOUT.about,
    front::RETRIES.about,
    front::FORWARDED.about,
    front::TRUSTED.about,
    front::VIA.about,
    front::CACHE_OF.about,
    front::LISTENER.about,
    front::MONITOR_URI.about,
];
/// `http.groups.NAME`
pub(super) const GROUP: Keys = &[
    GROUP_UPSTREAMS,
    service::BALANCE.about,
    service::CHECK,
    service::PASSIVE.about,
    service::CONNECT_TIMEOUT.about,
    service::RESPONSE_TIMEOUT.about,
];
const GROUP_UPSTREAMS: About =
    About::new("upstreams", A_LIST, Required, "[users1:8080]", "instances of the service");

pub(super) mod front {
    use super::*;

    pub(in crate::config) const NAME: Key<String> = Key::new(
        "name",
        &words::NAME,
        Value("http"),
        "api",
        "unique among the fronts; a label in metrics and logs",
    );
    pub(in crate::config) const BIND: Key<SocketAddr> =
        Key::new("bind", &words::BIND, Value("127.0.0.1:8080"), "0.0.0.0:80", "unique, unless the port is 0");
    pub(in crate::config) const UPSTREAMS: About = About::new(
        "upstreams",
        A_LIST,
        Words("required, or `groups`"),
        "[users1:8080]",
        "instances of the only service, the group `default`",
    );
    pub(in crate::config) const GROUPS: About = About::new(
        "groups",
        Takes::Named(&Takes::Either(&[Takes::Mapping(GROUP), A_LIST])),
        Words("–"),
        "{users: [users1:8080]}",
        "services by name, instead of `upstreams`: each a list of upstreams, or a mapping. What a group leaves out is that \
         of its front, in `check` key by key",
    );
    pub(in crate::config) const ROUTES: About = About::new(
        "routes",
        Takes::List(&Takes::Mapping(ROUTE)),
        Words("everything to the only group"),
        "[{group: default}]",
        "which request goes to which group, the first that fits; required with several groups. A request that fits none \
         is answered 404",
    );
    pub(in crate::config) const METHODS: Key<String> = Key::list(
        "methods",
        &words_http::METHOD,
        Value("[GET, HEAD, OPTIONS]"),
        "any",
        "what may be asked for; anything else is answered 405. In upper case. TRACE and CONNECT are never passed on. \
         Unless it is `any`, headers that name another method (`X-HTTP-Method-Override` and the like) are removed",
    )
    .taking(Takes::Either(&[
        Takes::Many(words_http::METHOD.form),
        Takes::One(words_http::ANY_METHOD.form),
    ]));
    pub(in crate::config) const HTTP2: Key<bool> = Key::new(
        "http2",
        &words::YES_NO,
        Value("true"),
        "false",
        "whether clients may speak HTTP/2 without TLS, from the first byte on",
    );
    pub(in crate::config) const MAX_CONNECTIONS: Key<u32> = Key::new(
        "max_connections",
        &words::CONNECTIONS,
        Value("10000"),
        "2000",
        "client connections at a time",
    );
    pub(in crate::config) const MAX_IN_FLIGHT: Key<u32> =
        Key::new("max_in_flight", &words::CONNECTIONS, Value("2000"), "100", "requests passed on at a time");
    pub(in crate::config) const QUEUE_SIZE: Key<u32> = Key::new(
        "queue_size",
        &words::QUEUE_SIZE,
        Value("20000"),
        "0",
        "requests that may wait beyond that, for whatever",
    );
    pub(in crate::config) const QUEUE_TIMEOUT: Key<Duration> = Key::new(
        "queue_timeout",
        &words::TIME,
        Value("5s"),
        "1s",
        "from a request's head: how long it may wait for its turn, for an upstream that fits, for one that can be connected \
         to, for the database; 0: not at all",
    );
    pub(in crate::config) const MAX_HEADER: Key<u64> =
        Key::new("max_header", &words_http::HEADER_SIZE, Value("32KiB"), "16KiB", "largest request head");
    pub(in crate::config) const MAX_BODY: Key<Option<u64>> = Key::new(
        "max_body",
        &words_http::BODY_SIZE,
        Value("1MiB"),
        "20MB",
        "largest request body; 0: no limit",
    );
    pub(in crate::config) const HEADER_TIMEOUT: Key<Duration> = Key::new(
        "header_timeout",
        &words::SOME_TIME,
        Value("10s"),
        "5s",
        "from the first byte of a request, or from the connection for its first one, to the end of its head",
    );
    pub(in crate::config) const BODY_TIMEOUT: Key<Duration> = Key::new(
        "body_timeout",
        &words::SOME_TIME,
        Value("30s"),
        "10s",
        "longest pause within a body, of the client or of the upstream; and how long a client may stop reading",
    );
    pub(in crate::config) const IDLE_TIMEOUT: Key<Duration> = Key::new(
        "idle_timeout",
        &words::SOME_TIME,
        Value("60s"),
        "5m",
        "longest pause between two requests on a client's connection",
    );
    pub(in crate::config) const RETRIES: Key<u32> = Key::new(
        "retries",
        &words::RETRIES,
        Words("all defaults"),
        "0",
        "how a request is given to another upstream; a number is `max`",
    )
    .taking(Takes::Either(&[Takes::Mapping(HTTP_RETRIES), Takes::One(words::RETRIES.form)]));
    pub(in crate::config) const FORWARDED: Key<Forwarded> = Key::new(
        "forwarded",
        &words_http::FORWARDED,
        Value("append"),
        "off",
        "`X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`. `append`: what a trusted peer says is kept, and ours added to \
         `X-Forwarded-For` and `Forwarded`; what anyone else says is replaced. `replace`: replaced, whoever says it. `off`: \
         removed",
    );
    pub(in crate::config) const TRUSTED: Key<Network> = Key::list(
        "trusted",
        &words_http::NETWORK,
        Value("[]"),
        "[10.0.0.0/8, 192.0.2.1]",
        "whose `X-Forwarded-*` and `Forwarded` are believed. A harmless `X-Request-Id` is kept from anyone",
    );
    pub(in crate::config) const VIA: Key<bool> = Key::new(
        "via",
        &words::YES_NO,
        Value("false"),
        "true",
        "whether requests and answers say in `Via` that they passed here",
    );
    pub(in crate::config) const CACHE_OF: Key<Option<u64>> = Key::new(
        "cache",
        &words_http::CACHE_SIZE,
        Value("off"),
        "64MiB",
        "answers kept for other clients; a size is `size`",
    )
    .taking(Takes::Either(&[Takes::Mapping(CACHE), Takes::One(words_http::CACHE_SIZE.form)]));
    pub(in crate::config) const LISTENER: Key<Option<String>> = Key::new(
        "listener",
        &words_http::LISTENER,
        Value(""),
        "ro",
        "the listener by which its services reach their database; it must be one of `listeners`. While no node fits it, \
         stored answers go out past their time, and other requests wait",
    );
    pub(in crate::config) const MONITOR_URI: Key<Option<String>> = Key::new(
        "monitor_uri",
        &words_http::MONITOR,
        Value(""),
        "/healthz",
        "GET and HEAD of exactly this path, with any query and for whatever host, are answered by the front itself: 200 \
         while it can serve, 503 while it cannot. (`methods` must allow them; a front that drains takes no connection.) For \
         a load balancer that stands before this one; no upstream is asked, and nothing is logged or counted. `\"\"`: every \
         path is an upstream's",
    );
}

/// Keys that stand in a front, or in a group of it.
pub(super) mod service {
    use super::*;

    pub(in crate::config) const BALANCE: Key<Balance> = Key::new(
        "balance",
        &words::BALANCE,
        Value("leastconn"),
        "roundrobin",
        "how one of several upstreams is chosen",
    );
    pub(in crate::config) const CHECK: About = About::new(
        "check",
        Takes::Either(&[Takes::Mapping(HTTP_CHECK), OFF]),
        Words("all defaults"),
        "{path: /ready}",
        "how upstreams are checked; `off`: not at all, they count as up",
    );
    pub(in crate::config) const PASSIVE: Key<bool> = Key::new(
        "passive",
        &words::YES_NO,
        Value("true"),
        "false",
        "whether failures of real requests put an upstream aside for a while, 1 second to 60",
    );
    pub(in crate::config) const CONNECT_TIMEOUT: Key<Duration> = Key::new(
        "connect_timeout",
        &words::SOME_TIME,
        Value("1s"),
        "500ms",
        "one TCP connect to an upstream",
    );
    pub(in crate::config) const RESPONSE_TIMEOUT: Key<Duration> = Key::new(
        "response_timeout",
        &words::SOME_TIME,
        Value("30s"),
        "10s",
        "from the request, its body included, sent to the head of the answer, for each try",
    );
}

/// `http.upstreams[]`
pub(super) const UPSTREAM: Keys =
    &[upstream::ADDR.about, upstream::WEIGHT.about, upstream::BACKUP.about, upstream::MAX_CONNECTIONS.about];
pub(super) mod upstream {
    use super::*;

    pub(in crate::config) const ADDR: Key<NodeAddr> =
        Key::new("addr", &words_http::UPSTREAM, Required, "users1:8080", "where the instance listens");
    pub(in crate::config) const WEIGHT: Key<u32> =
        Key::new("weight", &words::WEIGHT, Value("100"), "50", "share of the requests; 0: no new ones");
    pub(in crate::config) const BACKUP: Key<bool> =
        Key::new("backup", &words::YES_NO, Value("false"), "true", "only used when no other fits");
    pub(in crate::config) const MAX_CONNECTIONS: Key<u32> = Key::new(
        "max_connections",
        &words::NODE_CONNECTIONS,
        Value("0"),
        "80",
        "most requests at a time, for each address; 0: no limit",
    );
}

/// `http.check`
pub(super) const HTTP_CHECK: Keys = &[
    check::PATH.about,
    check::HOST.about,
    check::INTERVAL.about,
    check::FAST_INTERVAL.about,
    check::TIMEOUT.about,
    check::RISE.about,
    check::FALL.about,
    check::EXPECT.about,
];
pub(super) mod check {
    use super::*;

    pub(in crate::config) const PATH: Key<String> =
        Key::new("path", &words_http::CHECK_PATH, Value("/health"), "/ready", "what is asked for");
    pub(in crate::config) const HOST: Key<Option<String>> = Key::new(
        "host",
        &words_http::CHECK_HOST,
        Value(""),
        "users.example.com",
        "the `Host` header; `\"\"`: the address of the upstream",
    );
    pub(in crate::config) const INTERVAL: Key<Duration> = Key::new(
        "interval",
        &words::SOME_TIME,
        Value("2s"),
        "5s",
        "from one check of an upstream to the next",
    );
    pub(in crate::config) const FAST_INTERVAL: Key<Duration> = Key::new(
        "fast_interval",
        &words::SOME_TIME,
        Value("500ms"),
        "200ms",
        "the same while it is changing state, or requests fail; never longer than `interval` unless written so",
    );
    pub(in crate::config) const TIMEOUT: Key<Duration> = Key::new(
        "timeout",
        &words::SOME_TIME,
        Value("1s"),
        "800ms",
        "longest time for one check. Longer than `interval`: a warning",
    );
    pub(in crate::config) const RISE: Key<u32> =
        Key::new("rise", &words::TIMES_IN_A_ROW, Value("2"), "1", "good checks in a row to come up");
    pub(in crate::config) const FALL: Key<u32> =
        Key::new("fall", &words::TIMES_IN_A_ROW, Value("3"), "2", "bad checks in a row to go down");
    pub(in crate::config) const EXPECT: Key<Vec<RangeInclusive<u16>>> = Key::new(
        "expect",
        &words_http::EXPECT,
        Value("200-399"),
        "\"200,204\"",
        "which answers are good: codes and ranges, with `,` between them",
    );
}

/// `http.routes[]`
pub(super) const ROUTE: Keys = &[route::HOST.about, route::PATH.about, route::GROUP.about];
pub(super) mod route {
    use super::*;

    pub(in crate::config) const HOST: Key<Option<String>> = Key::new(
        "host",
        &words_http::ROUTE_HOST,
        Words("every host"),
        "\"*.example.com\"",
        "without a port; `*.` stands for every name that ends so",
    );
    pub(in crate::config) const PATH: Key<Option<String>> = Key::new(
        "path",
        &words_http::ROUTE_PATH,
        Words("every path"),
        "/users",
        "the start of the path: `/users` fits `/users` and `/users/7`, not `/users2`. Compared as it was sent, without \
         decoding",
    );
    pub(in crate::config) const GROUP: Key<String> =
        Key::new("group", &words::NAME, Required, "default", "where such a request goes");
}

/// `http.retries`
pub(super) const HTTP_RETRIES: Keys =
    &[retries::MAX.about, retries::METHODS.about, retries::STATUSES.about, retries::BUDGET.about];
pub(super) mod retries {
    use super::*;

    pub(in crate::config) const MAX: Key<u32> = Key::new(
        "max",
        &words::RETRIES,
        Value("2"),
        "1",
        "other upstreams tried before the client sees an error; 0: none. Upstreams that cannot be connected to do not \
         count",
    );
    pub(in crate::config) const METHODS: Key<String> = Key::list(
        "methods",
        &words_http::METHOD_TWICE,
        Words("GET, HEAD and OPTIONS, as far as they are allowed"),
        "[GET]",
        "which requests may be sent twice, if they have no body: only GET, HEAD, OPTIONS, PUT and DELETE, and only those \
         `methods` of the front allows",
    );
    pub(in crate::config) const STATUSES: Key<u32> = Key::list(
        "statuses",
        &words_http::STATUS,
        Value("[502, 503, 504]"),
        "[503]",
        "answers that are as good as none: another upstream is tried, and after three in a row `passive` puts theirs aside",
    );
    pub(in crate::config) const BUDGET: Key<Option<u32>> = Key::new(
        "budget",
        &words_http::BUDGET,
        Value("20%"),
        "50%",
        "retries for each hundred requests, beyond ten; up to `max_in_flight` are saved up. `off`: no such limit",
    );
}

/// `http.cache`
pub(super) const CACHE: Keys = &[
    cache::SIZE.about,
    cache::MAX_ENTRY.about,
    cache::STALE_WHILE_REVALIDATE.about,
    cache::STALE_IF_ERROR.about,
];
pub(super) mod cache {
    use super::*;

    pub(in crate::config) const SIZE: Key<Option<u64>> = Key::new(
        "size",
        &words_http::CACHE_SIZE,
        Value("64MiB"),
        "1GiB",
        "most bytes of all answers together; 0: no cache",
    );
    pub(in crate::config) const MAX_ENTRY: Key<u64> = Key::new(
        "max_entry",
        &words_http::ENTRY_SIZE,
        Value("1MiB"),
        "256KiB",
        "largest single answer; not more than `size`",
    );
    pub(in crate::config) const STALE_WHILE_REVALIDATE: Key<Duration> = Key::new(
        "stale_while_revalidate",
        &words::TIME,
        Value("10s"),
        "1m",
        "how long after it went stale an answer may be given while a fresh one is fetched, unless it says so itself",
    );
    pub(in crate::config) const STALE_IF_ERROR: Key<Duration> =
        Key::new("stale_if_error", &words::TIME, Value("60s"), "1h", "the same when no fresh one can be had");
}
