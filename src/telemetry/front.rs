//! Figures of one HTTP front.

use std::time::Duration;

use metrics::Histogram;

use super::catalog;
use super::count::{Count, Counted, Counts, Level};
use super::labels::{Cached, CodeClass, HttpMethod, HttpRejection, HttpRetry};
use super::registry::Registry;
use super::shape::FrontShape;

/// Who answers what no upstream does.
const OWN: [&str; 2] = ["none", "cache"];

/// Figures of one HTTP front.
pub struct FrontMetrics {
    methods: Vec<HttpMethod>,
    accepted: Count,
    accept_errors: Count,
    connections: Level,
    rejected: Counts<{ HttpRejection::ALL.len() }>,
    retries: Counts<{ HttpRetry::ALL.len() }>,
    cached: Counts<{ Cached::ALL.len() }>,
    in_flight: Level,
    waiting: Level,
    queue_wait: Histogram,
    own: Vec<AnswerMetrics>,
    groups: Vec<Vec<UpstreamMetrics>>,
    nowhere: UpstreamMetrics,
}

/// Figures of one upstream as the file names it, whatever number of addresses that leads to.
pub struct UpstreamMetrics {
    answers: AnswerMetrics,
    ejections: Count,
}

struct AnswerMetrics {
    /// By method and class.
    requests: Vec<Counts<{ CodeClass::ALL.len() }>>,
    duration: Histogram,
}

/// Who answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweredBy {
    /// pgsplit itself.
    Nobody,
    /// The cache.
    Cache,
    /// An upstream: places of its group and in it.
    Upstream(usize, usize),
}

impl FrontMetrics {
    pub(super) fn new(registry: &Registry, shape: &FrontShape) -> Self {
        let name = shape.name.as_str();
        let upstream = |group: &str, upstream: &str| UpstreamMetrics {
            answers: AnswerMetrics::new(registry, shape, group, upstream),
            ejections: Count::new(registry.counter(&catalog::HTTP_EJECTIONS, &[name, group, upstream])),
        };
        let groups = shape
            .groups
            .iter()
            .map(|(group, upstreams)| upstreams.iter().map(|addr| upstream(group, addr)).collect());
        let nowhere = Registry::nowhere();
        Self {
            methods: shape.methods.clone(),
            accepted: Count::new(registry.counter(&catalog::HTTP_ACCEPTED, &[name])),
            accept_errors: Count::new(registry.counter(&catalog::HTTP_ACCEPT_ERRORS, &[name])),
            connections: Level::new(registry.gauge(&catalog::HTTP_CONNECTIONS, &[name])),
            rejected: Counts::new(
                HttpRejection::ALL
                    .map(|why| registry.counter(&catalog::HTTP_REJECTED, &[name, why.as_str()])),
            ),
            retries: Counts::new(
                HttpRetry::ALL.map(|why| registry.counter(&catalog::HTTP_RETRIES, &[name, why.as_str()])),
            ),
            cached: Counts::new(
                Cached::ALL.map(|what| registry.counter(&catalog::HTTP_CACHE, &[name, what.as_str()])),
            ),
            in_flight: Level::new(registry.gauge(&catalog::HTTP_IN_FLIGHT, &[name])),
            waiting: Level::new(registry.gauge(&catalog::HTTP_WAITING, &[name])),
            queue_wait: registry.histogram(&catalog::HTTP_QUEUE_WAIT, &[name]),
            own: OWN.map(|own| AnswerMetrics::new(registry, shape, "none", own)).into(),
            groups: groups.collect(),
            nowhere: UpstreamMetrics {
                answers: AnswerMetrics::new(&nowhere, shape, "", ""),
                ejections: Count::new(nowhere.counter(&catalog::HTTP_EJECTIONS, &["", "", ""])),
            },
        }
    }

    /// A connection was accepted.
    pub fn accept(&self) {
        self.accepted.one();
    }

    /// An accept call failed.
    pub fn accept_error(&self) {
        self.accept_errors.one();
    }

    /// A client is connected for as long as the guard lives.
    pub fn connection_guard(&self) -> Counted {
        self.connections.enter()
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.value()
    }

    /// Clients connected now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.value()
    }

    /// A request or a connection was refused.
    pub fn reject(&self, why: HttpRejection) {
        self.rejected.one(why.index());
    }

    /// Refused so far, for all reasons.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected.total()
    }

    /// A request was given to another upstream.
    pub fn retry(&self, why: HttpRetry) {
        self.retries.one(why.index());
    }

    /// What the cache had for a request.
    pub fn cache(&self, what: Cached) {
        self.cached.one(what.index());
    }

    /// A request is passed on for as long as the guard lives.
    pub fn in_flight_guard(&self) -> Counted {
        self.in_flight.enter()
    }

    /// Requests passed on now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.value()
    }

    /// A request waits for as long as the guard lives.
    pub fn waiting_guard(&self) -> Counted {
        self.waiting.enter()
    }

    /// Requests that wait now.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.value()
    }

    /// A request has waited this long, whether its turn came or not.
    pub fn queue_wait(&self, waited: Duration) {
        self.queue_wait.record(waited);
    }

    /// A request was answered, or its client left. A method that the front does not pass on counts as another.
    pub fn request(&self, by: AnsweredBy, method: HttpMethod, code: CodeClass, took: Duration) {
        let answers = match by {
            AnsweredBy::Nobody => self.own.first(),
            AnsweredBy::Cache => self.own.get(1),
            AnsweredBy::Upstream(group, upstream) => Some(&self.upstream(group, upstream).answers),
        };
        let Some(answers) = answers else { return };
        let method = if self.methods.contains(&method) { method } else { HttpMethod::Other };
        if let Some(codes) = answers.requests.get(method.index()) {
            codes.one(code.index());
        }
        answers.duration.record(took);
    }

    /// An upstream was put aside.
    pub fn eject(&self, group: usize, upstream: usize) {
        self.upstream(group, upstream).ejections.one();
    }

    fn upstream(&self, group: usize, upstream: usize) -> &UpstreamMetrics {
        self.groups.get(group).and_then(|group| group.get(upstream)).unwrap_or(&self.nowhere)
    }

    pub(super) fn publish(&self) {
        self.accepted.publish();
        self.accept_errors.publish();
        self.connections.publish();
        self.rejected.publish();
        self.retries.publish();
        self.cached.publish();
        self.in_flight.publish();
        self.waiting.publish();
        self.own.iter().for_each(AnswerMetrics::publish);
        for upstream in self.groups.iter().flatten() {
            upstream.answers.publish();
            upstream.ejections.publish();
        }
    }
}

impl AnswerMetrics {
    /// A series for each method that the front passes on, and for all others together.
    fn new(registry: &Registry, shape: &FrontShape, group: &str, upstream: &str) -> Self {
        let nowhere = Registry::nowhere();
        let of_method = |method: HttpMethod| {
            let registry = if shape.methods.contains(&method) { registry } else { &nowhere };
            Counts::new(CodeClass::ALL.map(|code| {
                let labels = [shape.name.as_str(), group, upstream, method.as_str(), code.as_str()];
                registry.counter(&catalog::HTTP_REQUESTS, &labels)
            }))
        };
        Self {
            requests: HttpMethod::ALL.map(of_method).into(),
            duration: registry.histogram(&catalog::HTTP_DURATION, &[&shape.name, group, upstream]),
        }
    }

    fn publish(&self) {
        self.requests.iter().for_each(Counts::publish);
    }
}
