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
use hyper::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Request, Response};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::front::account::Account;
use crate::front::answer::Passing;
use crate::front::group::{Chosen, Group};
use crate::front::refusal::Refusal;
use crate::front::shared::Front;
use crate::front::upload::{Broken, Upload};
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
    sent: &Sent<'_>,
    upload: Upload,
    account: &mut Account,
) -> Result<Answered, Refusal> {
    let retries = &front.config.retries;
    let may_repeat = upload.is_empty() && retries.methods.iter().any(|m| m == sent.head.method.as_str());
    let fate = upload.fate();
    let mut upload = Some(upload);
    let mut tried: Vec<usize> = Vec::new();
    let mut repeats = 0;
    let mut pause = PAUSE;
    front.budget.earn();
    loop {
        let chosen = choose(front, group, &tried, sent, account).await?;
        tried.push(chosen.instance.slot);
        account.set_upstream(&chosen.instance);
        let body = upload.take().unwrap_or(Upload::Empty);
        let attempt = attempt(front, group, sent, &chosen, &tried, body, may_repeat, account).await;
        let (miss, unsent) = match attempt {
            Ok((response, link)) => {
                let status = response.status().as_u16();
                let is_as_good_as_none = retries.statuses.contains(&status);
                if is_as_good_as_none {
                    group.failed(&chosen.instance, false, &format!("answered {status}"));
                } else {
                    chosen.instance.succeeded();
                }
                let another = is_as_good_as_none && may_repeat && repeats < retries.max;
                if another && group.has_another(&tried) && front.budget.spend() {
                    repeats += 1;
                    account.add_retry(HttpRetry::Status);
                    Answered { response, link, chosen }.discard(sent.worker);
                    continue;
                }
                return Ok(Answered { response, link, chosen });
            }
            Err(missed) => missed,
        };
        if let Some(broken) = fate.as_ref().and_then(|fate| fate.broken()) {
            return Err(blame(broken, front));
        }
        tell(group, &chosen.instance, &miss);
        drop(chosen);
        upload = unsent;
        let reason = miss.reason();
        let may_go_on = match &miss {
            // Nothing was sent: no upstream is the worse for another try.
            Miss::Connect(_) | Miss::Own => {
                upload.is_some() && (group.has_another(&tried) || Instant::now() < sent.deadline)
            }
            _ if upload.is_some() || may_repeat => repeats < retries.max && front.budget.spend(),
            _ => false,
        };
        if !may_go_on {
            return Err(miss.refusal());
        }
        if !matches!(miss, Miss::Connect(_) | Miss::Own) {
            repeats += 1;
        }
        if group.has_another(&tried) {
            account.add_retry(reason);
        } else {
            tried.clear();
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MOST);
        }
    }
}

/// The upstream to try next. When none fits, one is waited for.
async fn choose(
    front: &Front,
    group: &Group,
    tried: &[usize],
    sent: &Sent<'_>,
    account: &mut Account,
) -> Result<Chosen, Refusal> {
    if let Some(chosen) = group.choose(tried, sent.source) {
        return Ok(chosen);
    }
    let _waiting = front.turns.wait(&front.metrics)?;
    let begun = Instant::now();
    // Whoever was tried before may be the first to be back.
    let chosen = group.wait(&[], sent.source, sent.deadline).await;
    account.add_queue(begun.elapsed());
    chosen.ok_or_else(|| Refusal::NoUpstream(group.config.name.clone()))
}

/// One upstream asked once. With the failure comes the body, when nothing of the request was sent.
#[expect(clippy::too_many_arguments, reason = "everything that one attempt is about, and nothing is kept")]
async fn attempt(
    front: &Front,
    group: &Group,
    sent: &Sent<'_>,
    chosen: &Chosen,
    tried: &[usize],
    upload: Upload,
    may_repeat: bool,
    account: &mut Account,
) -> Result<(Response<Incoming>, Link), (Miss, Option<Upload>)> {
    let instance = &chosen.instance;
    let mut upload = upload;
    let mut kept = if sent.is_upgrade { None } else { instance.take_link(sent.worker) };
    loop {
        let was_kept = kept.is_some();
        let mut link = match kept.take() {
            Some(link) => link,
            None => match open(front, group, instance, account).await {
                Ok(link) => link,
                Err(miss) => return Err((miss, Some(upload))),
            },
        };
        instance.requests.fetch_add(1, Ordering::Relaxed);
        let request = request(sent.head, upload, instance);
        let answer = in_time(link.send(request), group, instance, tried, may_repeat).await;
        let mut error = match answer {
            Ok(Ok(response)) => return Ok((response, link)),
            Ok(Err(error)) => error,
            Err(miss) => return Err((miss, None)),
        };
        let unsent = error.take_message().map(Request::into_body);
        match unsent {
            // Closed by the upstream while nobody used it: that says nothing of the upstream.
            Some(unsent) if was_kept => upload = unsent,
            None if was_kept && may_repeat => upload = Upload::Empty,
            unsent => return Err((Miss::Reset(error.into_error().to_string()), unsent)),
        }
    }
}

/// A new connection.
async fn open(
    front: &Front,
    group: &Group,
    instance: &Instance,
    account: &mut Account,
) -> Result<Link, Miss> {
    let Some(descriptor) = front.descriptors.for_node() else {
        return Err(Miss::Own);
    };
    let begun = Instant::now();
    let opened = Link::open(instance.addr, begun + group.config.connect_timeout, Some(descriptor)).await;
    account.add_connect(begun.elapsed());
    opened.map_err(|error| if is_own_fault(&error) { Miss::Own } else { Miss::Connect(io_text(&error)) })
}

/// Waits for an answer's head: for as long as the group allows, and no longer than the upstream is sound, if there
/// is another and the request may be repeated.
async fn in_time<T>(
    answer: impl Future<Output = T>,
    group: &Group,
    instance: &Instance,
    tried: &[usize],
    may_repeat: bool,
) -> Result<T, Miss> {
    let begun = Instant::now();
    let until = begun + group.config.response_timeout;
    let mut answer = pin!(answer);
    if let Ok(answer) = timeout(SILENCE.min(group.config.response_timeout), answer.as_mut()).await {
        return Ok(answer);
    }
    instance.hurry.notify_one();
    let suspected = async {
        loop {
            instance.suspected().await;
            if group.has_another(tried) {
                return;
            }
            sleep(SILENCE).await;
        }
    };
    tokio::select! {
        answer = answer.as_mut() => Ok(answer),
        () = sleep_until(until) => Err(Miss::Timeout),
        () = suspected, if may_repeat => Err(Miss::Down),
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

/// Tells the keeper what was met.
fn tell(group: &Group, instance: &Arc<Instance>, miss: &Miss) {
    match miss {
        Miss::Connect(error) => group.failed(instance, true, error),
        Miss::Reset(error) => group.failed(instance, false, error),
        Miss::Timeout => group.failed(instance, false, "no answer in time"),
        Miss::Down | Miss::Own => {}
    }
}

fn blame(broken: Broken, front: &Front) -> Refusal {
    match broken {
        Broken::TooLarge => Refusal::BodyTooLarge(front.config.limits.max_body.unwrap_or(u64::MAX)),
        Broken::TooSlow => Refusal::SlowBody,
        Broken::Client => Refusal::BadRequest("the body is malformed or incomplete"),
    }
}

impl Miss {
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
