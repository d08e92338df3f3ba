//! The HTTP front: a reverse proxy before the services that read from the databases.
//!
//! A [`worker`](crate::net::worker) is handed a client's connection and runs [`connection::converse`]; each of its
//! requests is one call of [`serve`]. The steps, in the order of a request's life:
//!
//! 1. [`gate`]: is the request's head framed in one way only? ([`framing`])
//! 2. [`request`]: may it be asked for, and for which host?
//! 3. [`route`]: which group of upstreams?
//! 4. [`cache`]: is a stored answer good enough?
//! 5. [`admit`]: is there room, or a place to wait? [`database`]: and is the database there?
//! 6. [`forward`]: the headers that the upstream gets
//! 7. [`exchange`]: send it; if that comes to nothing and may be repeated, to another upstream ([`budget`])
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
//! - An answer is never held in memory but by the cache: an upstream sends as fast as the client reads.

pub mod accept;
pub mod account;
pub mod admit;
pub mod answer;
pub mod budget;
pub mod connection;
pub mod database;
pub mod exchange;
pub mod forward;
pub mod framing;
pub mod gate;
pub mod group;
pub mod pulse;
pub mod refusal;
pub mod request;
pub mod route;
pub mod shared;
pub mod upgrade;
pub mod upload;
pub mod upstream;

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderValue, UPGRADE, VIA};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Uri, Version};

use account::Account;
use answer::{Answer, Passing};
use connection::Caller;
use exchange::{Answered, Sent};
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
    let (head, body) = request.into_parts();
    let is_http1 = head.version < Version::HTTP_2;
    let mut account = Account::open(front, caller, &head);
    match live(front, worker, caller, head, body, &mut account).await {
        Ok(Outcome::Passing(head, passing)) => {
            account.set_status(head.status().as_u16());
            head.map(|()| Answer::passing(passing, account))
        }
        Ok(Outcome::Upgraded(response, client, answered)) => {
            account.set_status(StatusCode::SWITCHING_PROTOCOLS.as_u16());
            // The account goes on with the connection: the answer that begins it needs one that says nothing.
            let Answered { response: mut upstream, chosen, .. } = answered;
            let life = upgrade::tunnel(client, &mut upstream, chosen, account);
            caller.tunnels.spawn(front.kill.clone().run_until_cancelled_owned(life));
            response.map(|()| Answer::nothing())
        }
        Err(refusal) => {
            let answer = refusal.answer(is_http1);
            account.set_refused(refusal.reason());
            account.set_status(answer.status().as_u16());
            answer.map(|bytes: Bytes| Answer::whole(bytes, account))
        }
    }
}

/// How a request that is not refused goes on.
enum Outcome {
    /// An upstream's answer is passed on.
    Passing(Response<()>, Passing),
    /// The connection goes on as another protocol.
    Upgraded(Response<()>, OnUpgrade, Answered),
}

/// From a request's head to the head of its answer.
async fn live(
    front: &Arc<Front>,
    worker: usize,
    caller: &Arc<Caller>,
    mut head: Parts,
    body: Incoming,
    account: &mut Account,
) -> Result<Outcome, Refusal> {
    let asked = request::examine(&front.config, &head)?;
    account.set_authority(&asked.authority);
    let at = route::route(&front.config.routes, &asked.authority, head.uri.path()).ok_or(Refusal::NoRoute)?;
    let group = front.groups.get(at).ok_or(Refusal::NoRoute)?;
    account.set_group(at);
    let limits = &front.config.limits;
    request::check_length(&head, limits.max_body)?;

    let deadline = account.begun() + limits.queue_timeout;
    let turn = admit::admit(front, account, deadline).await?;

    let protocol = asked.is_upgrade.then(|| head.headers.get(UPGRADE).cloned()).flatten();
    account.set_id(forward::prepare(&mut head.headers, &front.config, &caller.client, &asked.authority));
    address(&mut head, &asked.authority);
    if let Some(protocol) = &protocol {
        say_upgrade(&mut head.headers, protocol.clone());
    }
    let client = head.extensions.remove::<OnUpgrade>();
    let (upload, fate) = Upload::new(body, limits.max_body, limits.body_timeout);
    account.set_upload(Arc::clone(&fate));
    let source = caller.client.addr.ip();
    let sent = Sent { head: &head, source, worker, deadline, is_upgrade: protocol.is_some() };
    let mut answered = exchange::exchange(front, group, &sent, upload, &fate, account).await?;

    let response = strip(&mut answered.response, front);
    match (response.status(), client, protocol) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(client), Some(protocol)) => {
            let mut response = response;
            say_upgrade(response.headers_mut(), protocol);
            Ok(Outcome::Upgraded(response, client, answered))
        }
        // Nobody asked for another protocol.
        (StatusCode::SWITCHING_PROTOCOLS, ..) => Err(Refusal::Reset),
        _ => {
            let Answered { response: body, link, chosen } = answered;
            let timeout = limits.body_timeout;
            let passing = Passing::new(body.into_body(), link, worker, chosen, Some(turn), timeout);
            Ok(Outcome::Passing(response, passing))
        }
    }
}

/// Makes the target what a server expects, a path; and the Host what the request is for.
fn address(head: &mut Parts, authority: &str) {
    if head.uri.authority().is_some() || !head.headers.contains_key(HOST) {
        if let Some(path) = head.uri.path_and_query() {
            head.uri = Uri::from(path.clone());
        }
        if let Ok(host) = HeaderValue::from_str(authority) {
            head.headers.insert(HOST, host);
        }
    }
}

fn say_upgrade(headers: &mut hyper::HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// The head of an answer as the client gets it.
fn strip(answer: &mut Response<Incoming>, front: &Front) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    forward::strip_hop_by_hop(response.headers_mut());
    if front.config.via {
        response.headers_mut().append(VIA, HeaderValue::from_static("1.1 pgsplit"));
    }
    response
}
