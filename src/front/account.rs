//! What is learnt about one request, its line in the log, and its counts.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{Request, StatusCode, Uri};
use tokio::time::Instant;
use tracing::info;

use crate::base::text::escaped;
use crate::config::http::LogRequests;
use crate::front::caller::Caller;
use crate::front::shared::Front;
use crate::front::upload::Fate;
use crate::front::upstream::Instance;
use crate::telemetry::front::AnsweredBy;
use crate::telemetry::labels::{Cached, CodeClass, HttpMethod, HttpRejection, HttpRetry};

/// Longest path in a log line.
const PATH_MOST: usize = 512;

/// The account of one request. It closes when it is dropped, with the last byte of the answer or the client's leaving.
pub struct Account {
    front: Arc<Front>,
    caller: Arc<Caller>,
    begun: Instant,
    method: HttpMethod,
    method_name: Option<String>,
    uri: Uri,
    authority: String,
    group: Option<usize>,
    upstream: Option<Arc<Instance>>,
    status: Option<u16>,
    refused: Option<HttpRejection>,
    cached: Option<Cached>,
    retries: Vec<&'static str>,
    queue: Duration,
    connect: Option<Duration>,
    response: Option<Duration>,
    upload: Option<Arc<Fate>>,
    /// Bytes of the answer's body.
    bytes: u64,
    tunnel: Option<(Arc<AtomicU64>, Arc<AtomicU64>)>,
    id: Option<HeaderValue>,
    /// Whether it asks for the front's own health.
    is_monitor: bool,
    is_whole: bool,
    /// Whether its upstream cut it.
    is_broken: bool,
}

impl Account {
    /// Opens the account of a request whose head is here.
    #[must_use]
    pub fn open<B>(front: &Arc<Front>, caller: &Arc<Caller>, request: &Request<B>) -> Box<Self> {
        caller.pulse.request_begun();
        let method = HttpMethod::from_name(request.method().as_str());
        // Boxed, as it goes from hand to hand with the answer.
        Box::new(Self {
            front: Arc::clone(front),
            caller: Arc::clone(caller),
            begun: Instant::now(),
            method,
            method_name: (method == HttpMethod::Other)
                .then(|| escaped(request.method().as_str().as_bytes(), 20)),
            uri: request.uri().clone(),
            authority: String::new(),
            group: None,
            upstream: None,
            status: None,
            refused: None,
            cached: None,
            retries: Vec::new(),
            queue: Duration::ZERO,
            connect: None,
            response: None,
            upload: None,
            bytes: 0,
            tunnel: None,
            id: None,
            is_monitor: false,
            is_whole: false,
            is_broken: false,
        })
    }

    /// When its head was here.
    #[must_use]
    pub const fn begun(&self) -> Instant {
        self.begun
    }

    /// The host it is for.
    pub fn set_authority(&mut self, authority: &str) {
        authority.clone_into(&mut self.authority);
    }

    /// It asks for the front's own health. Whoever does so does it every second: it is neither logged nor
    /// counted.
    pub const fn set_monitor(&mut self) {
        self.is_monitor = true;
    }

    /// The group it goes to.
    pub const fn set_group(&mut self, group: usize) {
        self.group = Some(group);
    }

    /// Its id, as the upstream sees it.
    pub fn set_id(&mut self, id: HeaderValue) {
        self.id = Some(id);
    }

    /// Where the fate of its body can be seen.
    pub fn set_upload(&mut self, fate: Option<Arc<Fate>>) {
        self.upload = fate;
    }

    /// The upstream that it is sent to.
    pub fn set_upstream(&mut self, instance: &Arc<Instance>) {
        self.upstream = Some(Arc::clone(instance));
    }

    /// Time spent waiting for a turn or an upstream.
    pub fn add_queue(&mut self, waited: Duration) {
        self.queue += waited;
        self.front.metrics.queue_wait(waited);
    }

    /// Time a new connection took.
    pub fn add_connect(&mut self, took: Duration) {
        self.connect = Some(self.connect.unwrap_or_default() + took);
    }

    /// It is given to another upstream.
    pub fn add_retry(&mut self, reason: HttpRetry) {
        self.front.metrics.retry(reason);
        self.retries.push(reason.as_str());
    }

    /// What the cache had for it.
    pub fn set_cached(&mut self, cached: Cached) {
        self.front.metrics.cache(cached);
        self.cached = Some(cached);
    }

    /// The head of the answer is here.
    pub fn set_status(&mut self, status: StatusCode) {
        self.status = Some(status.as_u16());
        self.response = Some(self.begun.elapsed());
    }

    /// pgsplit itself answers.
    pub fn set_refused(&mut self, reason: HttpRejection) {
        self.front.metrics.reject(reason);
        self.refused = Some(reason);
    }

    /// So many more bytes of the answer's body have been passed on.
    pub fn add_bytes(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// The upstream has broken the answer off.
    pub const fn set_broken(&mut self) {
        self.is_broken = true;
    }

    /// All there is of the answer has been handed over.
    pub const fn set_whole(&mut self) {
        self.is_whole = true;
    }

    /// Its connection goes on as another protocol: where bytes from the client and to it are counted from now on.
    pub fn tunnel(&mut self) -> (Arc<AtomicU64>, Arc<AtomicU64>) {
        let counts = (Arc::default(), Arc::default());
        self.tunnel.insert(counts).clone()
    }

    /// Bytes of body, or of another protocol: from the client, to it.
    fn bytes(&self) -> (u64, u64) {
        match &self.tunnel {
            Some((received, sent)) => (received.load(Ordering::Relaxed), sent.load(Ordering::Relaxed)),
            None => (self.upload.as_ref().map_or(0, |fate| fate.bytes()), self.bytes),
        }
    }

    fn is_normal(&self) -> bool {
        self.is_whole && self.status.is_some_and(|status| status < 500) && self.retries.is_empty()
    }

    fn is_logged(&self) -> bool {
        match **self.front.log.load() {
            LogRequests::Off => false,
            LogRequests::Errors => !self.is_normal(),
            LogRequests::OneOf(n) => !self.is_normal() || n.get() == 1 || fastrand::u32(0..n.get()) == 0,
        }
    }

    fn is_from_cache(&self) -> bool {
        matches!(self.cached, Some(Cached::Hit | Cached::Stale)) && self.refused.is_none()
    }

    fn answered_by(&self) -> AnsweredBy {
        match (&self.upstream, self.group) {
            _ if self.is_from_cache() => AnsweredBy::Cache,
            (Some(instance), Some(group)) if self.refused.is_none() => {
                AnsweredBy::Upstream(group, instance.upstream)
            }
            _ => AnsweredBy::Nobody,
        }
    }

    fn log(&self, took: Duration) {
        let seconds = |time: Duration| time.as_secs_f64();
        let (received, sent) = self.bytes();
        let group = self.group.and_then(|group| self.front.groups.get(group));
        let end = match (self.is_whole, self.status) {
            (true, _) => "complete",
            (false, Some(_)) => "cut",
            (false, None) if self.front.kill.is_cancelled() => "drain",
            (false, None) => "client_left",
        };
        info!(
            id = self.id.as_ref().and_then(|id| id.to_str().ok()),
            front = self.front.config.name.as_str(),
            client = %self.caller.client.addr,
            method = self.method_name.as_deref().unwrap_or(self.method.as_str()),
            host = self.authority.as_str(),
            // The query may hold what nobody else should read.
            path = %path(&self.uri),
            status = self.status,
            end,
            group = group.map(|group| group.config.name.as_str()),
            upstream = self.upstream.as_ref().map(|instance| instance.config.addr.to_string()),
            addr = self.upstream.as_ref().map(|instance| instance.addr.to_string()),
            refused = self.refused.map(HttpRejection::as_str),
            cache = self.cached.map(Cached::as_str),
            queue_s = seconds(self.queue),
            connect_s = self.connect.map(seconds),
            response_s = self.response.map(seconds),
            duration_s = seconds(took),
            received_bytes = received,
            sent_bytes = sent,
            retries = self.retries.len(),
            retry_reasons = self.retries.join(","),
            "request"
        );
    }
}

fn path(uri: &Uri) -> Cow<'_, str> {
    let path = uri.path();
    let is_plain = path.len() <= PATH_MOST && path.bytes().all(|b| b.is_ascii_graphic());
    if is_plain { Cow::Borrowed(path) } else { Cow::Owned(escaped(path.as_bytes(), PATH_MOST)) }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.is_monitor {
            let took = self.begun.elapsed();
            let code = self.status.map_or(CodeClass::None, CodeClass::of);
            self.front.metrics.request(self.answered_by(), self.method, code, took);
            if self.is_logged() {
                self.log(took);
            }
        }
        self.caller.request_ended(!self.is_whole && !self.is_broken);
    }
}
