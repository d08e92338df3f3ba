//! What has happened of late: the log's events once more, kept in memory for who looks in or follows.
//!
//! Whoever logs an event has recorded it here; nothing else need be done. Kept are the latest [`KEPT`] of level info and above,
//! whatever the log's own level is, but not the lines of single sessions and requests, which would push all others out.
//!
//! # Invariants
//!
//! - Recording waits for nobody who reads, and who reads slowly costs no memory: followers look into the same ring, and are told
//!   how many events were gone before they came to them.
//! - Memory is bounded: in the number of events, and in the length of each of their texts.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tracing::{Level, Metadata};

use super::log;

/// Events that are kept.
pub const KEPT: usize = 1000;
/// A text longer than this, in bytes, is cut.
const TEXT_MAX: usize = 1000;
/// Whose lines tell of single sessions and requests.
const OF_ONE: [&str; 3] = ["::session::account", "::front::account", "::front::connection"];

/// One event.
#[derive(Debug, Serialize)]
pub struct Event {
    /// Its number since pgsplit started; 1 is the first.
    pub id: u64,
    /// When it was.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// `info`, `warn` or `error`.
    pub level: &'static str,
    /// What it was: a constant name.
    pub event: String,
    /// The rest of the log's line.
    pub fields: Map<String, Value>,
}

/// The latest events; a handle, all of which are for the same ones.
#[derive(Clone, Default)]
pub struct Events(Arc<Inner>);

#[derive(Default)]
struct Inner {
    ring: Mutex<Ring>,
    /// Wakes those who follow.
    news: watch::Sender<()>,
}

#[derive(Default)]
struct Ring {
    last: u64,
    kept: VecDeque<Arc<Event>>,
}

/// What comes next to one who follows.
#[derive(Clone, Debug)]
pub enum Followed {
    /// An event.
    Event(Arc<Event>),
    /// So many events were gone before they could be had.
    Missed(u64),
}

/// One who follows.
pub struct Follower {
    events: Events,
    news: watch::Receiver<()>,
    seen: u64,
}

impl Events {
    /// Whether events of this kind are kept.
    pub(super) fn keeps(metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        *metadata.level() <= Level::INFO
            && target.starts_with(env!("CARGO_PKG_NAME"))
            && !OF_ONE.iter().any(|module| target.ends_with(module))
    }

    /// Keeps an event.
    pub(super) fn record(&self, event: &tracing::Event<'_>) {
        let (name, mut fields) = log::as_object(event);
        fields.values_mut().for_each(cut);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            _ => "info",
        };
        {
            let mut ring = self.ring();
            ring.last += 1;
            let event = Event { id: ring.last, at: SystemTime::now(), level, event: name, fields };
            if ring.kept.len() == KEPT {
                ring.kept.pop_front();
            }
            ring.kept.push_back(Arc::new(event));
        }
        self.0.news.send_replace(());
    }

    /// The latest `limit` of those that fit and came after number `since`, in their order.
    #[must_use]
    pub fn since(&self, since: u64, limit: usize, fits: impl Fn(&Event) -> bool) -> Vec<Arc<Event>> {
        let ring = self.ring();
        let found = ring.kept.iter().rev().take_while(|event| since < event.id).filter(|event| fits(event));
        let mut found: Vec<_> = found.take(limit).map(Arc::clone).collect();
        found.reverse();
        found
    }

    /// The number of the latest; 0 when there is none.
    #[must_use]
    pub fn last_id(&self) -> u64 {
        self.ring().last
    }

    /// Follows from the first event after number `seen` on. A number that no event has had yet is one of another process,
    /// before a restart: then all that there are come.
    #[must_use]
    pub fn follow(&self, seen: u64) -> Follower {
        let seen = if self.last_id() < seen { 0 } else { seen };
        Follower { events: self.clone(), news: self.0.news.subscribe(), seen }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// The next event, or how many were missed before it. Cancel safe.
    pub async fn next(&mut self) -> Followed {
        loop {
            self.news.mark_unchanged();
            if let Some(followed) = self.look() {
                return followed;
            }
            // Its sender is in our own hand.
            let _ = self.news.changed().await;
        }
    }

    fn look(&mut self) -> Option<Followed> {
        let ring = self.events.ring();
        let first = ring.kept.front()?.id;
        let missed = first.saturating_sub(self.seen + 1);
        if 0 < missed {
            self.seen = first - 1;
            return Some(Followed::Missed(missed));
        }
        let event = ring.kept.get(usize::try_from(self.seen + 1 - first).ok()?)?;
        self.seen = event.id;
        Some(Followed::Event(Arc::clone(event)))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("last", &self.last_id()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("seen", &self.seen).finish_non_exhaustive()
    }
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*at))
}

fn cut(value: &mut Value) {
    if let Value::String(text) = value
        && TEXT_MAX < text.len()
    {
        let end = (0..=TEXT_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use serde_json::json;
    use tracing::dispatcher::with_default;
    use tracing::{debug, error, info, warn};

    /// What `happens` leaves here when the log has this level.
    fn events(level: &str, happens: impl FnOnce()) -> Events {
        let settings = log::LogSettings { filter: level, format: log::Format::Json, ansi: false };
        let (dispatch, guard) = log::start(settings, std::io::sink()).unwrap();
        with_default(&dispatch, happens);
        guard.events()
    }

    fn names(events: &Events) -> Vec<String> {
        events.since(0, usize::MAX, |_| true).iter().map(|event| event.event.clone()).collect()
    }

    #[test]
    fn what_the_log_says_of_the_whole_is_kept_whatever_its_level() {
        for level in ["off", "error", "info", "trace", "pgsplit::nowhere=debug", "warn,[span]=debug"] {
            let events = events(level, || {
                debug!("fine");
                info!("one");
                info!(target: "pgsplit::session::account", "session_end");
                info!(target: "pgsplit::front::account", "request");
                info!(target: "pgsplit::front::connection", "request_refused");
                warn!(target: "hyper::proto", "theirs");
                warn!("two");
                error!("three");
            });
            assert_eq!(names(&events), ["one", "two", "three"], "{level}");
            assert_eq!(events.last_id(), 3);
        }
    }

    #[test]
    fn an_event_keeps_its_fields_and_their_types_in_the_order_of_the_log() {
        let events = events("info", || {
            let none: Option<&str> = None;
            warn!(node = "db3", to = "down", cause = none, took_s = 0.25, fall = 3_u64, "node_state");
        });
        let event = serde_json::to_value(&*events.since(0, 1, |_| true)[0]).unwrap();
        assert!(humantime::parse_rfc3339(event["at"].as_str().unwrap()).is_ok());
        assert_eq!((&event["id"], &event["level"]), (&json!(1), &json!("warn")));
        assert_eq!(event["event"], "node_state");
        let fields = json!({"node": "db3", "to": "down", "took_s": 0.25, "fall": 3, "cause": null});
        assert_eq!(event["fields"], fields);
        assert_eq!(event["fields"].to_string(), fields.to_string());
    }

    #[test]
    fn the_latest_are_asked_for_by_number_and_by_what_fits() {
        let events = events("info", || (0..KEPT + 10).for_each(|n| info!(odd = n % 2 == 1, "n")));
        let ids = |since, limit, fits: fn(&Event) -> bool| {
            events.since(since, limit, fits).iter().map(|event| event.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(0, usize::MAX, |_| true).len(), KEPT);
        assert_eq!(ids(0, 2, |_| true), [1009, 1010]);
        assert_eq!(ids(1008, 10, |_| true), [1009, 1010]);
        assert_eq!(ids(0, 2, |event| event.fields["odd"] == true), [1008, 1010]);
        assert_eq!(ids(1010, 10, |_| true), [0; 0]);
        assert_eq!(ids(u64::MAX, 10, |_| true), [0; 0]);
    }

    #[test]
    fn long_texts_are_cut() {
        let events = events("info", || info!(text = "ä".repeat(TEXT_MAX), "long"));
        let text = events.since(0, 1, |_| true)[0].fields["text"].as_str().unwrap().to_owned();
        assert!(text.len() <= TEXT_MAX + 3 && text.ends_with("ä…"), "{}", text.len());
    }

    fn told(follower: &mut Follower) -> Option<Result<u64, u64>> {
        follower.next().now_or_never().map(|followed| match followed {
            Followed::Event(event) => Ok(event.id),
            Followed::Missed(missed) => Err(missed),
        })
    }

    #[test]
    fn who_follows_gets_all_that_comes_and_who_is_slow_is_told_what_it_missed() {
        let settings = log::LogSettings { filter: "info", format: log::Format::Json, ansi: false };
        let (dispatch, guard) = log::start(settings, std::io::sink()).unwrap();
        let events = guard.events();
        let happen = |n: usize| with_default(&dispatch, || (0..n).for_each(|_| info!("n")));
        let mut early = events.follow(0);
        assert_eq!(told(&mut early), None);
        happen(2);
        let (mut late, mut of_another) = (events.follow(2), events.follow(77));
        assert_eq!([told(&mut early), told(&mut early), told(&mut early)], [Some(Ok(1)), Some(Ok(2)), None]);
        assert_eq!((told(&mut late), told(&mut of_another)), (None, Some(Ok(1))));
        happen(KEPT + 5);
        assert_eq!([told(&mut late), told(&mut late)], [Some(Err(5)), Some(Ok(8))]);
        assert_eq!((told(&mut late), told(&mut of_another)), (Some(Ok(9)), Some(Err(6))));
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let settings = log::LogSettings { filter: "info", format: log::Format::Json, ansi: false };
        let (dispatch, guard) = log::start(settings, std::io::sink()).unwrap();
        let mut follower = guard.events().follow(0);
        let follows = async { follower.next().await };
        let (followed, ()) = tokio::join!(follows, async { with_default(&dispatch, || info!("now")) });
        assert!(matches!(followed, Followed::Event(event) if event.event == "now"));
    }
}
