//! A request sent to an upstream, and to another one when that comes to nothing.
//!
//! Nothing is sent twice that may not be: a request goes to another upstream only while its client has seen nothing of
//! an answer, and then only when nothing of it was sent, or when it has no body and its method may be repeated.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Request, Response};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::front::account::Account;
use crate::front::answer::Passing;
use crate::front::group::{Chosen, Group};
use crate::front::refusal::Refusal;
use crate::front::shared::Front;
use crate::front::upload::{Broken, Fate, Upload};
use crate::front::upstream::Instance;
use crate::front::upstream::link::Link;
use crate::net::dial::{io_text, is_own_fault};
use crate::telemetry::labels::HttpRetry;

/// An upstream that says nothing for so long is checked at once. Who waits for it moves on when that fails.
const SILENCE: Duration = Duration::from_millis(250);
/// Before the same upstreams are tried again; doubled each time,
const PAUSE: Duration = Duration::from_millis(50);
/// up to this.
const PAUSE_MOST: Duration = Duration::from_secs(1);

/// What is sent.
pub struct Sent<'a> {
    /// Method, target and headers as the upstream gets them.
    pub head: &'a Parts,
    /// Who asked.
    pub source: IpAddr,
    /// The worker it runs on.
    pub worker: usize,
    /// Until when an upstream may be waited for.
    pub deadline: Instant,
    /// Whether the connection may go on as another protocol: then it is a new one.
    pub is_upgrade: bool,
}

/// An answer's head, and where its body will come from.
pub struct Answered {
    /// The answer.
    pub response: Response<Incoming>,
    /// The connection it comes by.
    pub link: Link,
    /// Who answers.
    pub chosen: Chosen,
}

impl Answered {
    /// Throws the answer away, and keeps its connection if the rest of it is already here.
    pub fn discard(self, worker: usize) {
        Passing::new(self.response.into_body(), self.link, worker, self.chosen, None, SILENCE).discard();
    }
}

/// Why an upstream gave no answer.
#[derive(Debug)]
enum Miss {
    /// It could not be connected to.
    Connect(String),
    /// It broke off.
    Reset(String),
    /// It did not answer in time.
    Timeout,
    /// It was found suspect while its answer was awaited.
    Down,
    /// This machine is out of descriptors or ports.
    Own,
}

/// Sends the request until somebody answers.
///
/// Not cancel safe: an answer may be lost, as when a client leaves.
///
/// # Errors
/// The refusal that the client gets.
pub async fn exchange(
    front: &Front,
    group: &Group,
    sent: Sent<'_>,
    upload: Upload,
    account: &mut Account,
) -> Result<Answered, Refusal> {
    let may_repeat = upload.is_empty() && front.config.retries.may_repeat(sent.head.method.as_str());
    front.budget.earn();
    let fate = upload.fate();
    let (tried, repeats, pause) = (Vec::new(), 0, PAUSE);
    Exchange { front, group, sent, account, fate, may_repeat, tried, repeats, pause }.run(upload).await
}

/// A request on its way to an answer.
struct Exchange<'a> {
    front: &'a Front,
    group: &'a Group,
    sent: Sent<'a>,
    account: &'a mut Account,
    /// What becomes of its body, if it has one.
    fate: Option<Arc<Fate>>,
    /// Whether it may be sent again although something of it was.
    may_repeat: bool,
    /// Who was asked, since all were.
    tried: Vec<usize>,
    /// How often it was sent again.
    repeats: u32,
    /// How long to wait before all are asked once more.
    pause: Duration,
}

impl Exchange<'_> {
    async fn run(mut self, upload: Upload) -> Result<Answered, Refusal> {
        let mut upload = upload;
        loop {
            let chosen = self.choose().await?;
            self.tried.push(chosen.instance.slot);
            self.account.set_upstream(&chosen.instance);
            let (miss, unsent) = match self.attempt(&chosen, upload).await {
                Ok((mut response, link)) => {
                    settle_framing(&mut response)?;
                    let answered = Answered { response, link, chosen };
                    if !self.wants_another(&answered) {
                        return Ok(answered);
                    }
                    answered.discard(self.sent.worker);
                    upload = Upload::Empty;
                    continue;
                }
                Err(missed) => missed,
            };
            if let Some(broken) = self.fate.as_ref().and_then(|fate| fate.broken()) {
                return Err(self.blame(broken));
            }
            self.tell(&chosen.instance, &miss);
            drop(chosen);
            if !self.may_go_on(&miss, unsent.is_some()) {
                return Err(miss.refusal());
            }
            upload = unsent.unwrap_or(Upload::Empty);
            self.go_on(&miss).await;
        }
    }

    /// The upstream to try next. When none fits, one is waited for.
    async fn choose(&mut self) -> Result<Chosen, Refusal> {
        let Self { front, group, sent, .. } = self;
        if let Some(chosen) = group.choose(&self.tried, sent.source) {
            return Ok(chosen);
        }
        let _waiting = front.turns.wait(&front.metrics)?;
        let begun = Instant::now();
        // Whoever was tried before may be the first to be back.
        let chosen = group.wait(&[], sent.source, sent.deadline).await;
        self.account.add_queue(begun.elapsed());
        chosen.ok_or_else(|| Refusal::NoUpstream(group.config.name.clone()))
    }

    /// One upstream asked once. With the failure comes the body, when nothing of the request was sent.
    async fn attempt(
        &mut self,
        chosen: &Chosen,
        mut upload: Upload,
    ) -> Result<(Response<Incoming>, Link), (Miss, Option<Upload>)> {
        let instance = &chosen.instance;
        let mut kept = if self.sent.is_upgrade { None } else { instance.take_link(self.sent.worker) };
        loop {
            let was_kept = kept.is_some();
            let mut link = match kept.take() {
                Some(link) => link,
                None => match self.open(instance).await {
                    Ok(link) => link,
                    Err(miss) => return Err((miss, Some(upload))),
                },
            };
            instance.requests.fetch_add(1, Ordering::Relaxed);
            let request = request(self.sent.head, upload, instance);
            let mut error = match self.in_time(link.send(request), instance).await {
                Ok(Ok(response)) => return Ok((response, link)),
                Ok(Err(error)) => error,
                Err(miss) => return Err((miss, None)),
            };
            let unsent = error.take_message().map(Request::into_body);
            match unsent {
                // Closed by the upstream while nobody used it: that says nothing of the upstream.
                Some(unsent) if was_kept => upload = unsent,
                None if was_kept && self.may_repeat => upload = Upload::Empty,
                unsent => return Err((Miss::Reset(error.into_error().to_string()), unsent)),
            }
        }
    }

    /// A new connection.
    async fn open(&mut self, instance: &Instance) -> Result<Link, Miss> {
        let descriptor = self.front.descriptors.for_node().ok_or(Miss::Own)?;
        let begun = Instant::now();
        let deadline = begun + self.group.config.connect_timeout;
        let opened = Link::open(instance.addr, deadline, Some(descriptor)).await;
        self.account.add_connect(begun.elapsed());
        opened.map_err(|error| if is_own_fault(&error) { Miss::Own } else { Miss::Connect(io_text(&error)) })
    }

    /// Waits for an answer's head: for as long as the group allows, and no longer than the upstream is sound, if
    /// there is another and the request may be repeated.
    async fn in_time<T>(&self, answer: impl Future<Output = T>, instance: &Instance) -> Result<T, Miss> {
        let limit = self.group.config.response_timeout;
        let begun = Instant::now();
        let mut answer = pin!(answer);
        if let Ok(answer) = timeout(SILENCE.min(limit), answer.as_mut()).await {
            return Ok(answer);
        }
        if self.fate.is_none() {
            instance.hurry.notify_one();
        }
        // While a body is being sent, its last piece counts: the upstream has not been asked yet.
        let late = async {
            let mut last = begun;
            loop {
                sleep_until(last + limit).await;
                match self.fate.as_ref().and_then(|fate| fate.last()).filter(|piece| last < *piece) {
                    Some(piece) => last = piece,
                    None => return,
                }
            }
        };
        let suspected = async {
            loop {
                instance.suspected().await;
                if self.group.has_another(&self.tried) {
                    return;
                }
                sleep(SILENCE).await;
            }
        };
        tokio::select! {
            answer = answer.as_mut() => Ok(answer),
            () = late => Err(Miss::Timeout),
            () = suspected, if self.may_repeat => Err(Miss::Down),
        }
    }

    /// Notes what an answer says of its upstream; whether it is as good as none, and somebody else may be asked.
    fn wants_another(&mut self, answered: &Answered) -> bool {
        let (retries, instance) = (&self.front.config.retries, &answered.chosen.instance);
        let status = answered.response.status().as_u16();
        if !retries.statuses.contains(&status) {
            instance.succeeded();
            return false;
        }
        self.group.failed(instance, false, &format!("answered {status}"));
        let wants = self.may_repeat
            && self.repeats < retries.max
            && self.group.has_another(&self.tried)
            && self.front.budget.spend();
        if wants {
            self.repeats += 1;
            self.account.add_retry(HttpRetry::Status);
        }
        wants
    }

    /// Whether there may be another try after a failure.
    fn may_go_on(&mut self, miss: &Miss, is_unsent: bool) -> bool {
        if miss.is_before_sending() {
            // No upstream is the worse for another try.
            return is_unsent && (self.group.has_another(&self.tried) || Instant::now() < self.sent.deadline);
        }
        self.repeats += 1;
        (is_unsent || self.may_repeat)
            && self.repeats <= self.front.config.retries.max
            && self.front.budget.spend()
    }

    /// To the next upstream at once; when all have been asked, to the same ones after a while.
    async fn go_on(&mut self, miss: &Miss) {
        let has_another = self.group.has_another(&self.tried);
        if has_another || !miss.is_before_sending() {
            self.account.add_retry(miss.reason());
        }
        if has_another {
            return;
        }
        self.tried.clear();
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MOST);
    }

    /// Tells the keeper what was met.
    fn tell(&self, instance: &Arc<Instance>, miss: &Miss) {
        match miss {
            Miss::Connect(error) => self.group.failed(instance, true, error),
            Miss::Reset(error) => self.group.failed(instance, false, error),
            Miss::Timeout => self.group.failed(instance, false, "no answer in time"),
            Miss::Down | Miss::Own => {}
        }
    }

    fn blame(&self, broken: Broken) -> Refusal {
        match broken {
            Broken::TooLarge => Refusal::BodyTooLarge(self.front.config.limits.max_body.unwrap_or(u64::MAX)),
            Broken::TooSlow => Refusal::SlowBody,
            Broken::Client => Refusal::BadRequest("the body is malformed or incomplete"),
        }
    }
}

/// Two lengths are two readings: that in chunks is the one that holds. See RFC 9112, section 6.3. Another coding than
/// chunks cannot be passed on: nobody would be told of it.
fn settle_framing(response: &mut Response<Incoming>) -> Result<(), Refusal> {
    if response.body().size_hint().exact().is_some() {
        return Ok(());
    }
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    match headers.get(TRANSFER_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Err(Refusal::Reset),
        _ => Ok(()),
    }
}

fn request(head: &Parts, upload: Upload, instance: &Instance) -> Request<Upload> {
    // The library sends no body of unknown length with a GET unless it is told to.
    let is_chunked = !upload.is_empty() && upload.size_hint().exact().is_none();
    let mut request = Request::new(upload);
    request.method_mut().clone_from(&head.method);
    request.uri_mut().clone_from(&head.uri);
    let headers = request.headers_mut();
    headers.clone_from(&head.headers);
    if is_chunked {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // A client of HTTP/1.0 need not say whom it means.
    if !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::try_from(instance.config.addr.to_string())
    {
        headers.insert(HOST, host);
    }
    request
}

impl Miss {
    /// Whether nothing can have been sent.
    const fn is_before_sending(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Own)
    }

    const fn reason(&self) -> HttpRetry {
        match self {
            Self::Connect(_) | Self::Own => HttpRetry::Connect,
            Self::Reset(_) => HttpRetry::Reset,
            Self::Timeout => HttpRetry::Timeout,
            Self::Down => HttpRetry::Down,
        }
    }

    const fn refusal(&self) -> Refusal {
        match self {
            Self::Connect(_) | Self::Own => Refusal::Connect,
            Self::Reset(_) => Refusal::Reset,
            Self::Timeout | Self::Down => Refusal::Timeout,
        }
    }
}
