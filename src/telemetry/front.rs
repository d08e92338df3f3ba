//! Figures of one HTTP front.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics::Histogram;

use super::catalog;
use super::count::{Count, Counted, Counts, Level};
use super::labels::{Cached, CodeClass, HttpMethod, HttpRejection, HttpRetry};
use super::registry::Registry;
use super::shape::FrontShape;

/// Who answers what no upstream does.
const OWN: [&str; 2] = ["none", "cache"];

/// Figures of one HTTP front, as one configuration has it.
pub struct FrontMetrics {
    methods: Vec<HttpMethod>,
    lasting: Arc<Lasting>,
    /// By place of the group and in it.
    groups: Vec<Vec<Arc<UpstreamMetrics>>>,
    nowhere: UpstreamMetrics,
}

/// What all configurations of a front count into.
pub(super) struct Lasting {
    name: String,
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
    upstreams: Mutex<Vec<Arc<UpstreamMetrics>>>,
}

/// Figures of one upstream as the file names it, whatever number of addresses that leads to.
pub struct UpstreamMetrics {
    group: String,
    upstream: String,
    answers: AnswerMetrics,
    ejections: Count,
}

struct AnswerMetrics {
    /// By method and class; only methods that were ever passed on.
    requests: [OnceLock<Counts<{ CodeClass::ALL.len() }>>; HttpMethod::ALL.len()],
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

impl Lasting {
    pub(super) fn new(registry: &Registry, name: &str) -> Self {
        Self {
            name: name.to_owned(),
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
            own: OWN.map(|own| AnswerMetrics::new(registry, [name, "none", own])).into(),
            upstreams: Mutex::default(),
        }
    }

    /// The label.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The figures of an upstream; they exist from now on.
    fn upstream(&self, registry: &Registry, group: &str, upstream: &str) -> Arc<UpstreamMetrics> {
        let mut all = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().find(|known| known.group == group && known.upstream == upstream) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(UpstreamMetrics::new(registry, &self.name, group, upstream));
        all.push(Arc::clone(&fresh));
        fresh
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
        for upstream in &*self.upstreams.lock().unwrap_or_else(PoisonError::into_inner) {
            upstream.answers.publish();
            upstream.ejections.publish();
        }
    }
}

impl UpstreamMetrics {
    fn new(registry: &Registry, front: &str, group: &str, upstream: &str) -> Self {
        let labels = [front, group, upstream];
        Self {
            group: group.to_owned(),
            upstream: upstream.to_owned(),
            answers: AnswerMetrics::new(registry, labels),
            ejections: Count::new(registry.counter(&catalog::HTTP_EJECTIONS, &labels)),
        }
    }
}

impl FrontMetrics {
    /// Those of a front of this shape, which go on from what it has counted so far.
    pub(super) fn new(registry: &Registry, shape: &FrontShape, lasting: &Arc<Lasting>) -> Self {
        let upstream = |group: &str, addr: &str| {
            let upstream = lasting.upstream(registry, group, addr);
            upstream.answers.pass_on(registry, [&shape.name, group, addr], &shape.methods);
            upstream
        };
        let groups = shape
            .groups
            .iter()
            .map(|(group, upstreams)| upstreams.iter().map(|addr| upstream(group, addr)).collect());
        let groups = groups.collect();
        for (answers, own) in lasting.own.iter().zip(OWN) {
            answers.pass_on(registry, [&shape.name, "none", own], &shape.methods);
        }
        Self {
            methods: shape.methods.clone(),
            lasting: Arc::clone(lasting),
            groups,
            nowhere: UpstreamMetrics::new(&Registry::nowhere(), "", "", ""),
        }
    }

    /// A connection was accepted.
    pub fn accept(&self) {
        self.lasting.accepted.one();
    }

    /// An accept call failed.
    pub fn accept_error(&self) {
        self.lasting.accept_errors.one();
    }

    /// A client is connected for as long as the guard lives.
    pub fn connection_guard(&self) -> Counted {
        self.lasting.connections.enter()
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.lasting.accepted.value()
    }

    /// Clients connected now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.lasting.connections.value()
    }

    /// A request or a connection was refused.
    pub fn reject(&self, why: HttpRejection) {
        self.lasting.rejected.one(why.index());
    }

    /// Refused so far, for all reasons.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.lasting.rejected.total()
    }

    /// A request was given to another upstream.
    pub fn retry(&self, why: HttpRetry) {
        self.lasting.retries.one(why.index());
    }

    /// What the cache had for a request.
    pub fn cache(&self, what: Cached) {
        self.lasting.cached.one(what.index());
    }

    /// A request is passed on for as long as the guard lives.
    pub fn in_flight_guard(&self) -> Counted {
        self.lasting.in_flight.enter()
    }

    /// Requests passed on now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.lasting.in_flight.value()
    }

    /// A request waits for as long as the guard lives.
    pub fn waiting_guard(&self) -> Counted {
        self.lasting.waiting.enter()
    }

    /// Requests that wait now.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.lasting.waiting.value()
    }

    /// A request has waited this long, whether its turn came or not.
    pub fn queue_wait(&self, waited: Duration) {
        self.lasting.queue_wait.record(waited);
    }

    /// A request was answered, or its client left. A method that the front does not pass on counts as another.
    pub fn request(&self, by: AnsweredBy, method: HttpMethod, code: CodeClass, took: Duration) {
        let answers = match by {
            AnsweredBy::Nobody => self.lasting.own.first(),
            AnsweredBy::Cache => self.lasting.own.get(1),
            AnsweredBy::Upstream(group, upstream) => Some(&self.upstream(group, upstream).answers),
        };
        let Some(answers) = answers else { return };
        let method = if self.methods.contains(&method) { method } else { HttpMethod::Other };
        if let Some(codes) = answers.requests.get(method.index()).and_then(OnceLock::get) {
            codes.one(code.index());
        }
        answers.duration.record(took);
    }

    /// An upstream was put aside.
    pub fn eject(&self, group: usize, upstream: usize) {
        self.upstream(group, upstream).ejections.one();
    }

    fn upstream(&self, group: usize, upstream: usize) -> &UpstreamMetrics {
        self.groups.get(group).and_then(|group| group.get(upstream)).map_or(&self.nowhere, |found| found)
    }
}

impl AnswerMetrics {
    fn new(registry: &Registry, labels: [&str; 3]) -> Self {
        let duration = registry.histogram(&catalog::HTTP_DURATION, &labels);
        Self { requests: std::array::from_fn(|_| OnceLock::new()), duration }
    }

    /// A series for each of these methods, if it has none yet.
    fn pass_on(&self, registry: &Registry, [front, group, upstream]: [&str; 3], methods: &[HttpMethod]) {
        for (method, requests) in HttpMethod::ALL.into_iter().zip(&self.requests) {
            if methods.contains(&method) {
                requests.get_or_init(|| {
                    Counts::new(CodeClass::ALL.map(|code| {
                        let labels = [front, group, upstream, method.as_str(), code.as_str()];
                        registry.counter(&catalog::HTTP_REQUESTS, &labels)
                    }))
                });
            }
        }
    }

    fn publish(&self) {
        self.requests.iter().filter_map(OnceLock::get).for_each(Counts::publish);
    }
}
