//! The cache between a request and its upstream: what is stored goes out, what is fetched is kept.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::http::response;
use hyper::{Request, Response};
use tokio::time::Instant;

use crate::front::Outcome;
use crate::front::account::Account;
use crate::front::answer::{Answer, Passing};
use crate::front::cache::{Fetch, Look, Mark, ResponseCache, Settled};
use crate::front::deliver::{Delivered, Delivery};
use crate::front::refusal::Refusal;
use crate::front::upload::Upload;
use crate::telemetry::labels::Cached;

/// How long a request waits for what another one is fetching before it fetches that itself.
const OTHERS_FETCH: Duration = Duration::from_secs(1);

/// Answers from the cache what it can, and asks an upstream for the rest.
///
/// Cancel safe as far as the cache goes: a fetch that is dropped lets others fetch.
///
/// # Errors
/// The refusal that the client gets: only when there is no stored answer to give in its place.
pub async fn consult(
    cache: &Arc<ResponseCache>,
    delivery: Delivery,
    upload: Upload,
    account: &mut Account,
) -> Result<Outcome, Refusal> {
    if !upload.is_empty() {
        // What was asked for is not in the URL alone.
        return bypass(cache, &delivery, upload, account).await;
    }
    let database_is_gone = delivery.front.database.as_ref().is_some_and(|database| !database.is_there());
    if database_is_gone
        && let Some(stored) = cache.look_stale(&delivery.head, &delivery.authority, SystemTime::now())
    {
        return Ok(give(stored, account));
    }
    // Somebody else's fetch comes at the pace of somebody else's client.
    let patience = delivery.deadline.min(Instant::now() + OTHERS_FETCH);
    let look = cache.look(&delivery.head, &delivery.authority, SystemTime::now(), patience).await;
    match look {
        Look::Hit(stored) => Ok(give(stored, account)),
        Look::Stale { answer, refresh } => {
            if let Some(fetch) = refresh {
                let tasks = delivery.caller.tasks.clone();
                let kill = delivery.front.kill.clone();
                tasks.spawn(kill.run_until_cancelled_owned(refreshed(delivery, fetch)));
            }
            Ok(give(answer, account))
        }
        Look::OnlyIfCached => Err(Refusal::NotCached),
        Look::Bypass => bypass(cache, &delivery, upload, account).await,
        Look::Fetch(fetch) => fetched(delivery, fetch, upload, account).await,
    }
}

/// Asks an upstream, and keeps nothing; but an answer to a change makes what is stored out of date.
async fn bypass(
    cache: &ResponseCache,
    delivery: &Delivery,
    upload: Upload,
    account: &mut Account,
) -> Result<Outcome, Refusal> {
    account.set_cached(Cached::Bypass);
    let is_plain = upload.is_empty();
    let outcome = delivery.pass(upload, account).await;
    match &outcome {
        Ok(Outcome::Passing(head, _)) => cache.note(&delivery.head, &delivery.authority, head.status()),
        // A HEAD, for one, which is answered from what a GET has left.
        Err(refusal) if is_plain && !refusal.is_of_the_client() => {
            let stored = cache.look_stale(&delivery.head, &delivery.authority, SystemTime::now());
            if let Some(stored) = stored {
                return Ok(give(stored, account));
            }
        }
        _ => {}
    }
    outcome
}

/// A stored answer, and what it is: it says so itself.
fn give(stored: Response<Bytes>, account: &mut Account) -> Outcome {
    let mark = stored.headers().get("x-cache").map(http::HeaderValue::as_bytes);
    account.set_cached(match mark {
        Some(b"stale") => Cached::Stale,
        Some(b"revalidated") => Cached::Revalidated,
        _ => Cached::Hit,
    });
    Outcome::Whole(stored)
}

/// Fetches an answer that is missing or out of date.
async fn fetched(
    mut delivery: Delivery,
    fetch: Fetch,
    upload: Upload,
    account: &mut Account,
) -> Result<Outcome, Refusal> {
    fetch.conditions(&mut delivery.head.headers);
    let delivered = match delivery.send(upload, false, account).await {
        Ok(delivered) => delivered,
        Err(refusal) if refusal.is_of_the_client() => return Err(refusal),
        Err(refusal) => {
            return fetch.fail(SystemTime::now()).map(|stale| give(stale, account)).ok_or(refusal);
        }
    };
    let head = head_of(&delivered);
    let has_already = fetch.not_modified(&head);
    match fetch.settle(&head, SystemTime::now()) {
        Settled::Stored(stored) => {
            delivered.discard(delivery.worker);
            Ok(give(stored, account))
        }
        Settled::Pass => {
            account.set_cached(Cached::Miss);
            let (head, passing) = delivery.receive(delivered)?;
            Ok(passed(head, passing))
        }
        Settled::Keep(keeping) => {
            account.set_cached(Cached::Miss);
            let (head, mut passing) = delivery.receive(delivered)?;
            passing.keep(keeping);
            match has_already {
                None => Ok(passed(head, passing)),
                // The client has it, but the cache does not.
                Some(not_modified) => {
                    let kill = delivery.front.kill.clone();
                    let read = kill.run_until_cancelled_owned(read(Answer::passing(passing, None)));
                    delivery.caller.tasks.spawn(read);
                    Ok(Outcome::Whole(not_modified))
                }
            }
        }
    }
}

fn passed(mut head: Response<()>, passing: Passing) -> Outcome {
    Mark::Miss.set(head.headers_mut());
    Outcome::Passing(head, passing)
}

/// The head of an answer, without its body.
fn head_of(delivered: &Delivered) -> response::Parts {
    let response = &delivered.answered.response;
    let mut head = Response::new(());
    *head.status_mut() = response.status();
    head.headers_mut().clone_from(response.headers());
    head.into_parts().0
}

/// Fetches, behind the client's back, what replaces the stale answer it was given.
async fn refreshed(mut delivery: Delivery, fetch: Fetch) {
    delivery.deadline = Instant::now() + delivery.front.config.limits.queue_timeout;
    fetch.conditions(&mut delivery.head.headers);
    let request = Request::from_parts(delivery.head.clone(), ());
    let mut account = Account::open(&delivery.front, &delivery.caller, &request);
    account.set_authority(&delivery.authority);
    account.set_group(delivery.group);
    let delivered = match delivery.send(Upload::Empty, false, &mut account).await {
        Ok(delivered) => delivered,
        Err(refusal) => {
            account.set_refused(refusal.reason());
            account.set_whole();
            drop(fetch.fail(SystemTime::now()));
            return;
        }
    };
    account.set_status(delivered.answered.response.status());
    match fetch.settle(&head_of(&delivered), SystemTime::now()) {
        Settled::Keep(keeping) => {
            let Ok((_, mut passing)) = delivery.receive(delivered) else { return };
            passing.keep(keeping);
            read(Answer::passing(passing, Some(account))).await;
        }
        Settled::Stored(_) | Settled::Pass => {
            account.set_whole();
            delivered.discard(delivery.worker);
        }
    }
}

/// Reads an answer to its end, for the cache alone.
async fn read(mut answer: Answer) {
    while let Some(Ok(_)) = answer.frame().await {}
}
