//! A fetch of an answer that is missing or stale, up to its place in the store.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, ETAG, LAST_MODIFIED};
use http::{HeaderMap, Response, StatusCode, response};

use super::asked::Asked;
use super::entry::{Entry, Mark, not_modified};
use super::flight::{End, Goal, Lead};
use super::store::Epoch;
use super::terms::Terms;
use super::{ResponseCache, conditions};

/// Answers that are as good as none.
const FAILURES: [StatusCode; 4] = [
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// The right, and the duty, to fetch an answer. Dropped without [`settle`](Fetch::settle) or [`fail`](Fetch::fail) it
/// lets another of those who wait for it fetch.
#[derive(Debug)]
pub struct Fetch(Box<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Arc<ResponseCache>,
    asked: Asked,
    /// What the client sent, for `Vary` and its own conditions.
    request: HeaderMap,
    goal: Goal,
    /// When the fetch began.
    epoch: Epoch,
    /// What there was for the request.
    stored: Option<Arc<Entry>>,
    /// Those who wait; `None`: nobody does.
    lead: Option<Lead>,
}

/// What to do with an upstream's answer.
#[derive(Debug)]
pub enum Settled {
    /// Pass it on, do not keep it.
    Pass,
    /// Pass it on, and show its body to this as it comes.
    Keep(Keeping),
    /// Give this stored answer in its place: it is a 304 to our question, or an error while there is a stale answer
    /// that may be given.
    Stored(Response<Bytes>),
}

impl Fetch {
    pub(super) fn new(
        cache: &Arc<ResponseCache>,
        asked: Asked,
        request: &HeaderMap,
        goal: Goal,
        epoch: Epoch,
        stored: Option<Arc<Entry>>,
        lead: Option<Lead>,
    ) -> Self {
        let (cache, request) = (Arc::clone(cache), request.clone());
        Self(Box::new(Inner { cache, asked, request, goal, epoch, stored, lead }))
    }

    /// Puts our question whether the stored answer is still right in place of the client's conditions, in the headers
    /// that go to the upstream.
    ///
    /// With nothing stored, a fetch that others wait for has the client's conditions taken away: its 304 would help
    /// nobody else.
    pub fn conditions(&self, headers: &mut HeaderMap) {
        match &self.0.stored {
            Some(stored) => conditions::ask_about(stored.headers(), headers),
            None if self.0.lead.is_some() => conditions::forget(headers),
            None => {}
        }
    }

    /// The stored answer to give if the fetch fails, when one may be given.
    #[must_use]
    pub fn stale_on_error(&self, now: SystemTime) -> Option<Response<Bytes>> {
        let Inner { cache, asked, request, goal, epoch, stored, .. } = &*self.0;
        let entry = stored.as_ref().filter(|entry| entry.may_be_given(entry.terms.stale_if_error, now))?;
        // It may have been invalidated since.
        (cache.store.epoch(&goal.key) == *epoch).then(|| {
            let mark = if entry.left(now).is_some() { Mark::Hit } else { Mark::Stale };
            entry.give(request, asked.head, mark, now)
        })
    }

    /// No upstream has answered. Those who wait get the stale answer too, when it may be given, or go on by themselves.
    #[must_use]
    pub fn fail(mut self, now: SystemTime) -> Option<Response<Bytes>> {
        let stale = self.stale_on_error(now);
        self.0.end(End::Failed);
        stale
    }

    /// The 304 for a client that has the answer already whose head came for it; to be asked for before
    /// [`settle`](Fetch::settle). The body has to be fetched all the same, if it is to be kept.
    ///
    /// Needed since [`conditions`](Fetch::conditions) may have taken the client's own conditions away.
    #[must_use]
    pub fn not_modified(&self, response: &response::Parts) -> Option<Response<Bytes>> {
        let has =
            response.status == StatusCode::OK && conditions::client_has(&self.0.request, &response.headers);
        has.then(|| {
            let mut response = not_modified(&response.headers);
            Mark::Miss.set(response.headers_mut());
            response
        })
    }

    /// Decides by the head of the upstream's answer, as it came; `now` is when.
    #[must_use]
    pub fn settle(mut self, response: &response::Parts, now: SystemTime) -> Settled {
        if FAILURES.contains(&response.status) {
            return self.fail(now).map_or(Settled::Pass, Settled::Stored);
        }
        let inner = &mut *self.0;
        if response.status == StatusCode::NOT_MODIFIED {
            let asked_about = |entry: &Arc<Entry>| {
                entry.headers().contains_key(ETAG) || entry.headers().contains_key(LAST_MODIFIED)
            };
            let stored = inner.stored.clone().filter(asked_about);
            // Else it is what the client itself asked.
            let settled =
                stored.map_or(Settled::Pass, |stored| Settled::Stored(inner.renew(&stored, response, now)));
            inner.end(End::Landed);
            return settled;
        }
        let length = content_length(&response.headers);
        let terms = inner.terms(response.status, &response.headers, now);
        if let Some(terms) = terms.filter(|_| inner.has_room_for(length)) {
            return Settled::Keep(self.keep(response, terms, length.ok().flatten(), now));
        }
        inner.give_up();
        Settled::Pass
    }

    fn keep(self, response: &response::Parts, terms: Terms, length: Option<u64>, now: SystemTime) -> Keeping {
        let inner = self.0;
        let (status, headers) = (response.status, &response.headers);
        let entry = Entry::new(&inner.goal.key, &inner.request, status, headers, terms, now);
        let gathered = Gathered { cache: Arc::clone(&inner.cache), body: Vec::new(), counted: 0 };
        Keeping(Box::new(Gathering { fetch: inner, entry, length, gathered: Some(gathered) }))
    }
}

impl Inner {
    fn terms(&self, status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Option<Terms> {
        Terms::of(self.asked.cookies, status, headers, &self.cache.settings, now)
    }

    fn has_room_for(&self, length: Result<Option<u64>, Unreadable>) -> bool {
        length.is_ok_and(|length| length.is_none_or(|length| length <= self.cache.settings.max_entry))
    }

    /// Takes over what a 304 says; answers with the stored answer that is good again.
    fn renew(&self, stored: &Arc<Entry>, response: &response::Parts, now: SystemTime) -> Response<Bytes> {
        let Self { cache, asked, request, goal, epoch, .. } = self;
        let give = |entry: &Entry| entry.give(request, asked.head, Mark::Revalidated, now);
        if !conditions::speaks_of(&response.headers, stored.headers()) {
            // It answered our question, but names another: once more, and then a whole one.
            cache.store.forget(&goal.key, stored);
            return give(stored);
        }
        let (status, headers) = stored.renewed(&response.headers);
        let terms = self.terms(status, &headers, now);
        let is_kept = terms.is_some();
        let terms = terms.unwrap_or_else(|| stored.terms.clone());
        let entry = Entry::new(&goal.key, request, status, &headers, terms, now);
        let entry = entry.with_body(&goal.key, stored.body());
        let answer = give(&entry);
        if is_kept {
            cache.store.keep(&goal.key, entry, Some(stored), *epoch);
        } else {
            cache.store.forget(&goal.key, stored);
        }
        answer
    }

    /// The answer is not kept: what there was before it is out of date, and nobody should wait for the next.
    fn give_up(&mut self) {
        if let Some(stored) = self.stored.take() {
            self.cache.store.forget(&self.goal.key, &stored);
        }
        self.cache.passes.remember(&self.goal);
        self.end(End::Landed);
    }

    fn end(&mut self, end: End) {
        if let Some(lead) = self.lead.take() {
            lead.end(end);
        }
    }
}

/// An answer that is being kept. Dropped before [`finish`](Keeping::finish) nothing is stored, and another of those
/// who wait fetches.
#[derive(Debug)]
pub struct Keeping(Box<Gathering>);

#[derive(Debug)]
struct Gathering {
    fetch: Box<Inner>,
    entry: Entry,
    /// Of the body, as announced.
    length: Option<u64>,
    /// `None`: given up.
    gathered: Option<Gathered>,
}

/// The part of a body that has come, counted while it lives.
#[derive(Debug)]
struct Gathered {
    cache: Arc<ResponseCache>,
    body: Vec<u8>,
    counted: u64,
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.cache.gathering.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

impl Gathered {
    /// Adds a copy of `piece`; not when bodies under way would then take more than the whole cache may.
    fn add(&mut self, piece: &[u8]) -> bool {
        let bytes = piece.len() as u64;
        let added = reserve(&self.cache.gathering, bytes, self.cache.settings.size);
        if added {
            self.counted += bytes;
            self.body.extend_from_slice(piece);
        }
        added
    }
}

impl Keeping {
    /// Shows the next piece of the body. `false`: it has become too large and is not kept; further pieces change
    /// nothing.
    pub fn add(&mut self, piece: &Bytes) -> bool {
        let Gathering { fetch, gathered: place, .. } = &mut *self.0;
        let Some(gathered) = place else { return false };
        let whole = gathered.counted.saturating_add(piece.len() as u64);
        let is_too_large = fetch.cache.settings.max_entry < whole;
        if !is_too_large && gathered.add(piece) {
            return true;
        }
        *place = None;
        if is_too_large {
            fetch.give_up();
        } else {
            // There is no room now; that says nothing of the next time.
            fetch.end(End::Landed);
        }
        false
    }

    /// The body is complete: stores the answer, and those who wait get it. Not one that is shorter or longer than it
    /// said.
    pub fn finish(self) {
        let Gathering { mut fetch, entry, length, gathered } = *self.0;
        let Some(mut gathered) = gathered else { return };
        if length.is_some_and(|length| length != gathered.counted) {
            return;
        }
        // No larger than it is counted.
        let body = Bytes::from(mem::take(&mut gathered.body).into_boxed_slice());
        let Inner { cache, goal, stored, epoch, .. } = &*fetch;
        let entry = entry.with_body(&goal.key, body);
        cache.store.keep(&goal.key, entry, stored.as_ref(), *epoch);
        drop(gathered);
        fetch.end(End::Landed);
    }
}

/// A `Content-Length` that is none.
#[derive(Clone, Copy, Debug)]
struct Unreadable;

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Unreadable> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.any(|other| other != length) {
        return Err(Unreadable);
    }
    let length = length.to_str().ok().and_then(|length| length.parse().ok());
    length.map(Some).ok_or(Unreadable)
}

fn reserve(counter: &AtomicU64, bytes: u64, limit: u64) -> bool {
    let add = |now: u64| now.checked_add(bytes).filter(|sum| *sum <= limit);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}
