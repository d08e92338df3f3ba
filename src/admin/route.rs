//! Which paths there are, and what may be done with each. Pure.

use std::borrow::Cow;

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::refusal::Refusal;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Page,
    Script,
    Style,
    Metrics,
    Health,
    Readiness,
    Status,
    Listeners,
    Pause,
    Resume,
    Nodes,
    ChangeNode,
    Http,
    Sessions,
    Kill,
    KillMany,
    Events,
    Stream,
    Reload,
    Upgrade,
    Config,
    OpenApi,
}

/// One path.
#[derive(Debug)]
pub(super) struct Route {
    /// `{}` stands for one part of a path, and may be anything; at the end, for all that is left: a node may be called `db/2`.
    pub path: &'static str,
    pub methods: &'static [(Method, Action)],
    /// Whether it is for machines that know no name of ours: then the Host of a request does not matter.
    pub is_for_any_host: bool,
}

/// All there are.
pub(super) const ROUTES: &[Route] = &[
    page("/", &[(Method::GET, Action::Page)]),
    page("/dashboard/app.js", &[(Method::GET, Action::Script)]),
    page("/dashboard/style.css", &[(Method::GET, Action::Style)]),
    for_machines("/metrics", &[(Method::GET, Action::Metrics)]),
    for_machines("/healthz", &[(Method::GET, Action::Health)]),
    for_machines("/readyz", &[(Method::GET, Action::Readiness)]),
    page("/api/v1/status", &[(Method::GET, Action::Status)]),
    page("/api/v1/listeners", &[(Method::GET, Action::Listeners)]),
    page("/api/v1/listeners/{}/pause", &[(Method::POST, Action::Pause)]),
    page("/api/v1/listeners/{}/resume", &[(Method::POST, Action::Resume)]),
    page("/api/v1/nodes", &[(Method::GET, Action::Nodes)]),
    page("/api/v1/nodes/{}", &[(Method::PATCH, Action::ChangeNode)]),
    page("/api/v1/http", &[(Method::GET, Action::Http)]),
    page("/api/v1/sessions", &[(Method::GET, Action::Sessions), (Method::DELETE, Action::KillMany)]),
    page("/api/v1/sessions/{}", &[(Method::DELETE, Action::Kill)]),
    page("/api/v1/events", &[(Method::GET, Action::Events)]),
    page("/api/v1/stream", &[(Method::GET, Action::Stream)]),
    page("/api/v1/reload", &[(Method::POST, Action::Reload)]),
    page("/api/v1/upgrade", &[(Method::POST, Action::Upgrade)]),
    page("/api/v1/config", &[(Method::GET, Action::Config)]),
    page("/api/v1/openapi.json", &[(Method::GET, Action::OpenApi)]),
];

const fn page(path: &'static str, methods: &'static [(Method, Action)]) -> Route {
    Route { path, methods, is_for_any_host: false }
}

const fn for_machines(path: &'static str, methods: &'static [(Method, Action)]) -> Route {
    Route { path, methods, is_for_any_host: true }
}

/// Whether what goes wrong there is told as JSON.
pub(super) fn is_api(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

/// The route of a path, and what stands where it has `{}`; nothing, where it has none.
///
/// # Errors
/// There is no such path.
pub(super) fn find(path: &str) -> Result<(&'static Route, Cow<'_, str>), Refusal> {
    let found = ROUTES.iter().find_map(|route| Some((route, fits(route.path, path)?)));
    found.ok_or_else(|| Refusal::NoPage { is_api: is_api(path) })
}

impl Route {
    /// What is done there by this method. Whoever may GET may also ask for the head alone.
    ///
    /// # Errors
    /// Nothing is.
    pub(super) fn action(&self, method: &Method) -> Result<Action, Refusal> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let found = self.methods.iter().find(|(known, _)| known == method);
        found.map(|(_, action)| *action).ok_or_else(|| {
            let names = self.methods.iter().map(|(method, _)| match *method {
                Method::GET => "GET, HEAD",
                ref other => other.as_str(),
            });
            Refusal::Method { allow: names.collect::<Vec<_>>().join(", ") }
        })
    }
}

/// Whether `path` is one of `pattern`, and what stands where that has `{}`.
fn fits<'p>(pattern: &str, path: &'p str) -> Option<Cow<'p, str>> {
    let Some((before, after)) = pattern.split_once("{}") else {
        return (pattern == path).then_some(Cow::Borrowed(""));
    };
    let part = path.strip_prefix(before)?.strip_suffix(after)?;
    (after.is_empty() || !part.contains('/')).then(|| percent_decode_str(part).decode_utf8_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;

    fn action(method: &Method, path: &str) -> Result<(Action, String), (StatusCode, Option<String>)> {
        let told = |refusal: Refusal| {
            let status = refusal.status();
            (status, if let Refusal::Method { allow } = refusal { Some(allow) } else { None })
        };
        let (route, part) = find(path).map_err(told)?;
        Ok((route.action(method).map_err(told)?, part.into_owned()))
    }

    #[test]
    fn a_path_names_what_to_do_and_with_what() {
        for (method, path, expected) in [
            (Method::GET, "/", (Action::Page, "")),
            (Method::HEAD, "/api/v1/status", (Action::Status, "")),
            (Method::POST, "/api/v1/listeners/rw/pause", (Action::Pause, "rw")),
            (Method::POST, "/api/v1/listeners/rw/resume", (Action::Resume, "rw")),
            (Method::POST, "/api/v1/listeners/a%3Ab/pause", (Action::Pause, "a:b")),
            (Method::POST, "/api/v1/listeners/a%2Fb/pause", (Action::Pause, "a/b")),
            (Method::POST, "/api/v1/listeners/%ff/pause", (Action::Pause, "\u{fffd}")),
            (Method::POST, "/api/v1/listeners//pause", (Action::Pause, "")),
            (Method::PATCH, "/api/v1/nodes/db1", (Action::ChangeNode, "db1")),
            (Method::PATCH, "/api/v1/nodes/db%2F2", (Action::ChangeNode, "db/2")),
            (Method::PATCH, "/api/v1/nodes/db/2", (Action::ChangeNode, "db/2")),
            (Method::DELETE, "/api/v1/sessions", (Action::KillMany, "")),
            (Method::DELETE, "/api/v1/sessions/s-1f", (Action::Kill, "s-1f")),
        ] {
            let (wanted, part) = expected;
            assert_eq!(action(&method, path), Ok((wanted, part.to_owned())), "{path}");
        }
        for path in [
            "",
            "/x",
            "/api",
            "/api/v1",
            "/api/v1/",
            "/api/v2/status",
            "/api/v1/status/",
            "//api/v1/status",
            "/api/v1/listeners/pause",
            "/api/v1/listeners/rw",
            "/api/v1/listeners/rw/drain",
            "/api/v1/listeners/a/b/pause",
        ] {
            assert_eq!(action(&Method::GET, path), Err((StatusCode::NOT_FOUND, None)), "{path}");
        }
    }

    #[test]
    fn who_asks_by_another_method_is_told_the_right_ones() {
        let refused = |allow: &str| Err((StatusCode::METHOD_NOT_ALLOWED, Some(allow.to_owned())));
        assert_eq!(action(&Method::POST, "/metrics"), refused("GET, HEAD"));
        assert_eq!(action(&Method::PUT, "/api/v1/sessions"), refused("GET, HEAD, DELETE"));
        assert_eq!(action(&Method::HEAD, "/api/v1/listeners/rw/pause"), refused("POST"));
    }
}
