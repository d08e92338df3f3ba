//! Events, and the status every second, to who stays to listen (Server-Sent Events).
//!
//! A follower takes what there is when it has room for it; nothing is kept for it meanwhile. Events that are gone by then are
//! counted, and it is told how many; of the status it gets the latest.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::query::Query;
use super::refusal::Refusal;
use super::reply::{Answer, compact, with_body};
use crate::telemetry::events::{Event, Events, Followed, Follower};

/// Something is sent at least this often, so that who is gone is noticed.
const BEAT: Duration = Duration::from_secs(15);

/// Places of those who follow, by one way in.
#[derive(Clone, Debug)]
pub(super) struct Seats {
    free: Arc<Semaphore>,
    all: usize,
}

impl Seats {
    pub(super) fn new(all: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(all)), all }
    }
}

/// The status as it is sent every second.
#[derive(Debug)]
pub(super) struct Statuses(watch::Sender<Bytes>);

impl Default for Statuses {
    fn default() -> Self {
        Self(watch::Sender::new(Bytes::new()))
    }
}

impl Statuses {
    /// Whether anybody would see one.
    pub(super) fn has_followers(&self) -> bool {
        0 < self.0.receiver_count()
    }

    /// The status of this second.
    pub(super) fn publish(&self, status: &impl serde::Serialize) {
        self.0.send_replace(status_frame(status));
    }

    fn follow(&self) -> watch::Receiver<Bytes> {
        let mut statuses = self.0.subscribe();
        statuses.mark_unchanged();
        statuses
    }
}

/// Who follows, and what it is yet to be sent.
struct Following {
    /// Sent before all else.
    first: Option<Bytes>,
    events: Follower,
    node: Option<String>,
    statuses: Option<watch::Receiver<Bytes>>,
    beat: Interval,
    _place: OwnedSemaphorePermit,
}

impl Following {
    async fn next(&mut self) -> Bytes {
        if let Some(first) = self.first.take() {
            return first;
        }
        let Self { events, node, statuses, beat, .. } = self;
        loop {
            let followed = tokio::select! {
                followed = events.next() => followed,
                status = next_status(statuses.as_mut()) => return status,
                _ = beat.tick() => return Bytes::from_static(b": still here\n\n"),
            };
            match followed {
                Followed::Event(event) if is_about(&event, node.as_deref()) => {
                    return frame(Some(event.id), "event", &*event);
                }
                Followed::Event(_) => {}
                Followed::Missed(missed) => {
                    return frame(None, "missed", &serde_json::json!({ "missed": missed }));
                }
            }
        }
    }
}

/// The status that comes next; never, for who does not follow it. Cancel safe.
async fn next_status(statuses: Option<&mut watch::Receiver<Bytes>>) -> Bytes {
    if let Some(statuses) = statuses
        && statuses.changed().await.is_ok()
    {
        return statuses.borrow_and_update().clone();
    }
    std::future::pending().await
}

/// Whether an event is about a node; all are about none in particular.
pub(super) fn is_about(event: &Event, node: Option<&str>) -> bool {
    node.is_none_or(|node| event.fields.get("node").is_some_and(|name| name == node))
}

/// Events from now on, or from the number after the one that was seen last.
///
/// # Errors
/// Too many follow already.
pub(super) fn events(
    events: &Events,
    query: &Query<'_>,
    headers: &HeaderMap,
    seats: &Seats,
) -> Result<Answer, Refusal> {
    let follower = events.follow(seen(events, query, headers)?);
    follow(follower, query.text("node"), None, Bytes::from_static(b"retry: 2000\n\n"), seats)
}

/// The same, and the status at once and every second.
///
/// # Errors
/// Too many follow already.
pub(super) fn stream(
    events: &Events,
    query: &Query<'_>,
    headers: &HeaderMap,
    (statuses, first): (&Statuses, &impl serde::Serialize),
    seats: &Seats,
) -> Result<Answer, Refusal> {
    let follower = events.follow(seen(events, query, headers)?);
    let first = [&b"retry: 2000\n\n"[..], &status_frame(first)].concat();
    follow(follower, None, Some(statuses.follow()), first.into(), seats)
}

/// The number of the event that was seen last: a browser that comes back says it in a header.
fn seen(events: &Events, query: &Query<'_>, headers: &HeaderMap) -> Result<u64, Refusal> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    Ok(last.or(query.number("since")?).unwrap_or_else(|| events.last_id()))
}

fn follow(
    events: Follower,
    node: Option<&str>,
    statuses: Option<watch::Receiver<Bytes>>,
    first: Bytes,
    seats: &Seats,
) -> Result<Answer, Refusal> {
    let place = Arc::clone(&seats.free).try_acquire_owned().map_err(|_| Refusal::Followers(seats.all))?;
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.reset();
    let node = node.map(str::to_owned);
    let following = Following { first: Some(first), events, node, statuses, beat, _place: place };
    let frames = unfold(following, |mut following| async move {
        let bytes = following.next().await;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), following))
    });
    let body = StreamBody::new(frames).boxed_unsync();
    let mut answer = with_body(StatusCode::OK, "text/event-stream", body);
    // It ends with its connection.
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(answer)
}

fn status_frame(status: &impl serde::Serialize) -> Bytes {
    frame(None, "status", status)
}

fn frame(id: Option<u64>, event: &str, data: &impl serde::Serialize) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    // JSON on one line has no end of a line in it.
    Bytes::from(format!("{id}event: {event}\ndata: {}\n\n", compact(data)))
}
