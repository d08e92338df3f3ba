//! Answers kept for other clients (RFC 9111): what is fresh is given at once, what is missing is fetched once for all
//! who ask for it, and what is stale is better than nothing (RFC 5861).
//!
//! It touches no socket: a front [asks](ResponseCache::look) it, fetches when told to, and [shows](Fetch::settle) it
//! what came. Times come from the caller.

mod asked;
mod conditions;
mod directives;
mod entry;
mod fetch;
mod flight;
mod key;
mod passes;
mod store;
mod terms;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Response, StatusCode, request};
use tokio::time::Instant;

use crate::config;
use asked::Asked;
use entry::Entry;
pub use entry::Mark;
pub use fetch::{Fetch, Keeping, Settled};
use flight::{End, Flights, Goal, Lead, Turn};
use key::Key;
use passes::Passes;
use store::{Found, Store};

/// The answers that one front keeps.
#[derive(Debug)]
pub struct ResponseCache {
    settings: config::http::Cache,
    store: Store,
    flights: Arc<Flights>,
    passes: Passes,
    /// Bytes of bodies that are being kept and have not ended yet.
    gathering: AtomicU64,
}

/// What is known of the answer to a request. Answers are whole, with `Age` and `X-Cache`; where the client has them
/// already they are a 304, and to HEAD they come without their body.
#[derive(Debug)]
pub enum Look {
    /// Nothing: the request has nothing to do with the cache, and neither has its answer.
    Bypass,
    /// A fresh one.
    Hit(Response<Bytes>),
    /// A stale one that may be given.
    Stale {
        /// The answer.
        answer: Response<Bytes>,
        /// Exactly one of those who get it has to fetch a fresh one, in the background.
        refresh: Option<Fetch>,
    },
    /// None: it has to be fetched.
    Fetch(Fetch),
    /// None, and the client wants none that has to be fetched: 504.
    OnlyIfCached,
}

/// A request, and what there is for it.
struct Sight<'a> {
    request: &'a request::Parts,
    asked: Asked,
    goal: Goal,
    epoch: store::Epoch,
    found: Found,
}

impl ResponseCache {
    /// An empty one.
    #[must_use]
    pub fn new(settings: &config::http::Cache) -> Self {
        Self {
            store: Store::new(settings.size, settings.max_entry),
            settings: settings.clone(),
            flights: Arc::default(),
            passes: Passes::new(),
            gathering: AtomicU64::new(0),
        }
    }

    /// What is known of the answer to `request`, which is sent to `authority`. Waits at most until `deadline` for
    /// another caller's fetch; `now` is the time of the call.
    ///
    /// Its headers should be those that the upstream will see, as far as answers depend on them: `Vary` speaks of
    /// those.
    ///
    /// Cancel safe: who stops waiting leaves nothing behind.
    pub async fn look(
        self: &Arc<Self>,
        request: &request::Parts,
        authority: &str,
        now: SystemTime,
        deadline: Instant,
    ) -> Look {
        let Some(asked) = Asked::of(request) else { return Look::Bypass };
        let began = Instant::now();
        let key = Key::of(request, authority);
        let mut waited = None;
        loop {
            let now = now.checked_add(began.elapsed()).unwrap_or(now);
            let sight = self.sight(request, asked, &key);
            if let Some(look) = self.stored(&sight, now) {
                return look;
            }
            if asked.only_if_cached {
                return Look::OnlyIfCached;
            }
            if asked.head {
                // Its answer would be of no use for a GET.
                return Look::Bypass;
            }
            // Who has waited for this once in vain does not wait again: others may, and nobody would come to an end.
            if waited.as_ref() == Some(&sight.goal) || self.goes_alone(&sight) {
                return Look::Fetch(self.fetch(&sight, None));
            }
            match self.flights.turn(&sight.goal, sight.epoch) {
                Turn::Lead(lead) if self.is_current(&sight) => {
                    return Look::Fetch(self.fetch(&sight, Some(lead)));
                }
                // Somebody was just ready.
                Turn::Lead(_) => {}
                Turn::Wait(wait) => match wait.end(deadline).await {
                    End::Landed => waited = Some(sight.goal),
                    End::Abandoned => {}
                    End::Failed => {
                        let stale = self.look_stale(request, authority, now);
                        return stale.map_or_else(
                            || Look::Fetch(self.fetch(&self.sight(request, asked, &key), None)),
                            |answer| Look::Stale { answer, refresh: None },
                        );
                    }
                    End::Late => return Look::Fetch(self.fetch(&sight, None)),
                },
            }
        }
    }

    /// The same when nothing can be fetched now: what is stored and may still be given.
    #[must_use]
    pub fn look_stale(
        &self,
        request: &request::Parts,
        authority: &str,
        now: SystemTime,
    ) -> Option<Response<Bytes>> {
        let asked = Asked::of(request)?;
        // That a client wants its answer checked is a wish (RFC 9111 §5.2.1), and cannot be met.
        let found = self.store.find(&Key::of(request, authority), &request.headers, asked.cookies);
        let entry = found.entry?;
        let allowed = entry.terms.stale_if_error.max(entry.terms.stale_while_revalidate);
        let mark = if entry.left(now).is_some() { Mark::Hit } else { Mark::Stale };
        entry.may_be_given(allowed, now).then(|| entry.give(&request.headers, asked.head, mark, now))
    }

    /// Forgets all answers of a URL, also those that are being fetched.
    pub fn invalidate(&self, authority: &str, path_and_query: &str) {
        self.store.invalidate(&Key::new(authority, path_and_query));
    }

    /// An upstream answered `request` with `status`: if that changed what is behind the URL, its answers are forgotten
    /// (RFC 9111 §4.4).
    pub fn note(&self, request: &request::Parts, authority: &str, status: StatusCode) {
        if !request.method.is_safe() && (status.is_success() || status.is_redirection()) {
            self.store.invalidate(&Key::of(request, authority));
        }
    }

    /// What the stored answers take, in bytes: bodies, headers, URLs and what it takes to keep them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.store.bytes()
    }

    /// How many answers are stored.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.store.entries()
    }

    fn sight<'a>(&self, request: &'a request::Parts, asked: Asked, key: &Key) -> Sight<'a> {
        // Before the store is looked at: what is invalidated in between must count as invalidated.
        let epoch = self.store.epoch(key);
        let found = self.store.find(key, &request.headers, asked.cookies);
        let goal = Goal { key: key.clone(), cookies: asked.cookies, variant: found.variant };
        Sight { request, asked, goal, epoch, found }
    }

    /// The stored answer, if it can be given as it is.
    fn stored(self: &Arc<Self>, sight: &Sight<'_>, now: SystemTime) -> Option<Look> {
        let Sight { request, asked, found, .. } = sight;
        let entry = found.entry.as_ref()?;
        let give = |mark| entry.give(&request.headers, asked.head, mark, now);
        if asked.wants_newer(entry.age(now), entry.left(now).unwrap_or_default()) {
            return None;
        }
        if entry.left(now).is_some() {
            return Some(Look::Hit(give(Mark::Hit)));
        }
        entry.may_be_given(entry.terms.stale_while_revalidate, now).then(|| {
            let refresh = self.refresh(sight).map(|lead| self.fetch(sight, Some(lead)));
            Look::Stale { answer: give(Mark::Stale), refresh }
        })
    }

    /// The right to refresh a stale answer, unless somebody has it or has just done so. A HEAD cannot: what it fetches
    /// has no body.
    fn refresh(&self, sight: &Sight<'_>) -> Option<Lead> {
        if sight.asked.head {
            return None;
        }
        match self.flights.turn(&sight.goal, sight.epoch) {
            Turn::Lead(lead) if self.is_current(sight) => Some(lead),
            _ => None,
        }
    }

    /// Whether a fetch for this request is of no use for others, or would be wasted time for them.
    fn goes_alone(&self, sight: &Sight<'_>) -> bool {
        sight.found.entry.as_deref().is_some_and(Entry::is_never_fresh)
            || sight.asked.insists()
            || self.passes.remembers(&sight.goal)
    }

    /// Whether the store still has what was seen.
    fn is_current(&self, sight: &Sight<'_>) -> bool {
        let now = self.store.find(&sight.goal.key, &sight.request.headers, sight.asked.cookies);
        now.is_as(&sight.found)
    }

    fn fetch(self: &Arc<Self>, sight: &Sight<'_>, lead: Option<Lead>) -> Fetch {
        let Sight { request, asked, goal, epoch, found } = sight;
        Fetch::new(self, *asked, &request.headers, goal.clone(), *epoch, found.entry.clone(), lead)
    }
}

#[cfg(test)]
mod tests;
