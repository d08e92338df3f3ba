//! The HTTP front: a reverse proxy before the services that read from the databases.
//!
//! A [`worker`](crate::net::worker) is handed a client's connection and runs [`connection::converse`]; each of its
//! requests is one call of [`serve`]. The steps, in the order of a request's life:
//!
//! 1. [`gate`]: is the request's head framed in one way only? ([`framing`])
//! 2. [`request`]: may it be asked for, and for which host? ([`monitor`]: unless it asks for the front's own health)
//! 3. [`route`]: which group of upstreams?
//! 4. [`consult`]: is a stored answer good enough? ([`cache`])
//! 5. [`admit`]: is there room, or a place to wait? [`database`]: and is the database there?
//! 6. [`forward`]: the headers that the upstream gets
//! 7. [`deliver`], [`exchange`]: send it; if that comes to nothing and may be repeated, to another upstream ([`budget`])
//! 8. [`answer`]: pass the answer's body on as it comes; or [`upgrade`], and pass everything on
//! 9. [`account`]: one line in the log, and the counters
//!
//! [`upstream`] is the control side: where upstreams are, and how they fare.
//!
//! # Invariants
//!
//! - Every request is answered, within the times that the file gives, or its connection is closed.
//! - No byte of a request reaches an upstream before its head has been read in full and can be read in one way only.
//! - A request's body is never sent twice, and nothing is repeated once a byte of its answer has gone out.
//! - What was counted up is counted down by a guard's `Drop`.
//! - Only the cache collects answers. Of any other a few pieces are in memory: an upstream sends as fast as the client
//!   reads.

pub mod accept;
pub mod account;
pub mod admit;
pub mod answer;
pub mod budget;
pub mod cache;
pub mod caller;
pub mod connection;
pub mod consult;
pub mod database;
pub mod deliver;
pub mod desk;
pub mod exchange;
pub mod forward;
pub mod framing;
pub mod gate;
pub mod group;
pub mod monitor;
pub mod pulse;
pub mod refusal;
pub mod request;
pub mod route;
pub mod shared;
pub mod upgrade;
pub mod upload;
pub mod upstream;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};

use account::Account;
use answer::{Answer, Passing};
use caller::Caller;
use deliver::Delivery;
use exchange::Answered;
use refusal::Refusal;
use shared::Front;
use upload::Upload;

/// Serves one request. Infallible: what goes wrong is an answer too.
pub async fn serve(
    front: &Arc<Front>,
    worker: usize,
    caller: &Arc<Caller>,
    request: Request<Incoming>,
) -> Response<Answer> {
    let is_http1 = request.version() < Version::HTTP_2;
    let is_head = request.method() == Method::HEAD;
    // What comes after these is not looked at, so nothing may: see `framing::Follows::Anything`.
    let is_last = is_http1
        && (request.headers().contains_key(TRANSFER_ENCODING) || request.headers().contains_key(UPGRADE));
    let mut account = Account::open(front, caller, &request);
    let lived = live(front, worker, caller, request, &mut account).await;
    let mut response = answer(caller, account, lived, is_http1, is_head);
    if !is_http1 {
        response = response.map(|answer| answer.read_by(caller));
    }
    let is_stopping = is_http1 && front.is_stopping.load(Ordering::Relaxed);
    if (is_last || is_stopping) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// How a request went on, as an answer.
fn answer(
    caller: &Arc<Caller>,
    mut account: Box<Account>,
    lived: Result<Outcome, Refusal>,
    is_http1: bool,
    is_head: bool,
) -> Response<Answer> {
    // For HTTP/2 the library leaves it to us that there is no body in answer to HEAD.
    let whole = |response: Response<Bytes>, account| {
        let (mut head, bytes) = response.into_parts();
        if is_head {
            head.headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from(bytes.len()));
        }
        Response::from_parts(head, Answer::whole(if is_head { Bytes::new() } else { bytes }, account))
    };
    match lived {
        Ok(Outcome::Passing(head, passing)) => {
            account.set_status(head.status());
            head.map(|()| Answer::passing(passing, Some(account)))
        }
        Ok(Outcome::Whole(response)) => {
            account.set_status(response.status());
            whole(response, account)
        }
        Ok(Outcome::Upgraded(head, client, answered)) => {
            account.set_status(StatusCode::SWITCHING_PROTOCOLS);
            // The account goes on with the connection.
            let life = upgrade::tunnel(client, answered, account);
            caller.tasks.spawn(caller.cut.clone().run_until_cancelled_owned(life));
            head.map(|()| Answer::nothing())
        }
        Err(refusal) => {
            let response = refusal.answer(is_http1);
            account.set_refused(refusal.reason());
            account.set_status(response.status());
            whole(response, account)
        }
    }
}

/// How a request that is not refused goes on.
pub enum Outcome {
    /// An upstream's answer is passed on.
    Passing(Response<()>, Passing),
    /// An answer that is all here: a stored one, or the front's own.
    Whole(Response<Bytes>),
    /// The connection goes on as another protocol.
    Upgraded(Response<()>, OnUpgrade, Answered),
}

/// From a request's head to the head of its answer.
async fn live(
    front: &Arc<Front>,
    worker: usize,
    caller: &Arc<Caller>,
    request: Request<Incoming>,
    account: &mut Account,
) -> Result<Outcome, Refusal> {
    let (mut head, body) = request.into_parts();
    let asked = request::examine(&front.config, &head)?;
    account.set_authority(&asked.authority);
    if let Some(health) = monitor::health(front, &head) {
        account.set_monitor();
        return Ok(Outcome::Whole(health));
    }
    let group =
        route::route(&front.config.routes, &asked.authority, head.uri.path()).ok_or(Refusal::NoRoute)?;
    account.set_group(group);
    let limits = &front.config.limits;
    request::check_length(&head, limits.max_body)?;

    let upgrade = asked.upgrade(&mut head);
    account.set_id(forward::prepare(&mut head, &front.config, &caller.client, &asked.authority));
    let upload = Upload::new(body, limits.max_body, limits.body_timeout);
    account.set_upload(upload.fate());
    let delivery = Delivery {
        front: Arc::clone(front),
        caller: Arc::clone(caller),
        worker,
        group,
        head,
        authority: asked.authority,
        deadline: account.begun() + limits.queue_timeout,
    };
    match (&front.cache, upgrade) {
        (_, Some(upgrade)) => upgrade::ask(delivery, upgrade, upload, account).await,
        (Some(cache), None) => consult::consult(cache, delivery, upload, account).await,
        (None, None) => delivery.pass(upload, account).await,
    }
}
