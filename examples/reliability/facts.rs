//! From what the clients met to the figures of one run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::faults::{Fault, Struck};
use crate::load::{Attempt, Diary, Side};

/// A fresh connection that has waited so long when the run ends counts as failed; a younger one does not count.
const HUNG: Duration = Duration::from_secs(5);
/// Before the fault, in which everything must have worked.
const CALM: Duration = Duration::from_secs(1);
/// A cut client sees its end a moment after its server's.
const LATE: Duration = Duration::from_millis(100);

/// What clients met on one listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct Service {
    pub(crate) failed: usize,
    pub(crate) of: usize,
    /// Seconds to the answer or to the failure.
    pub(crate) slowest: f64,
    /// Seconds between two fresh connections that worked.
    pub(crate) without: f64,
}

/// The sessions that only listened on the lost node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) sessions: usize,
    /// Seconds, for each that was told.
    pub(crate) after: Vec<f64>,
    pub(crate) how: Vec<String>,
}

/// The figures of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) reads: Service,
    pub(crate) writes: Service,
    pub(crate) told: Told,
    pub(crate) in_flight: usize,
    pub(crate) needless: usize,
    /// Seconds from the promotion to the first acknowledged write through the proxy, and directly; `None`: none.
    pub(crate) promotion: Option<(Option<f64>, Option<f64>)>,
    pub(crate) acknowledged: usize,
    pub(crate) missing: Option<usize>,
    pub(crate) two_primaries: Option<TwoPrimaries>,
    /// Of requests to cancel: lost, sent.
    pub(crate) cancels: Option<(usize, usize)>,
    /// Before the fault.
    pub(crate) failed_in_calm: usize,
    pub(crate) errors: BTreeMap<String, usize>,
    pub(crate) seconds: f64,
}

/// Who acknowledged writes once there were two.
#[derive(Clone, Debug, Default)]
pub(crate) struct TwoPrimaries {
    pub(crate) old: usize,
    pub(crate) new: usize,
    /// Seconds from the first write of the new primary to the last one of the old.
    pub(crate) both: f64,
    /// Seconds from the promotion to the last write of the old primary.
    pub(crate) old_until: f64,
}

/// Whether every fresh connection of the last `span` worked, and none waits.
pub(crate) fn is_healthy(diary: &Diary, span: Duration) -> bool {
    let now = Instant::now();
    let attempts = diary.attempts();
    let worked = |side| {
        let good = |attempt: &&Attempt| {
            attempt.side == side
                && matches!(&attempt.end, Some((at, Ok(()))) if now.duration_since(*at) < span)
        };
        attempts.iter().any(|attempt| good(&attempt))
    };
    let bad = |attempt: &Attempt| match &attempt.end {
        Some((at, result)) => {
            let slow = at.duration_since(attempt.begun) > Duration::from_secs(1);
            now.duration_since(*at) < span && (result.is_err() || slow)
        }
        None => now.duration_since(attempt.begun) > Duration::from_secs(1),
    };
    worked(Side::Ro) && worked(Side::Rw) && !attempts.iter().any(bad)
}

/// Whether every session that listened on the lost node knows of it.
pub(crate) fn all_told(diary: &Diary, fault: Fault) -> bool {
    // Of two primaries either may go on to be the one.
    let Some(lost) = fault.lost().filter(|_| fault != Fault::TwoPrimaries) else { return true };
    let listening = diary.idle().iter().filter(|(_, node)| *node == Some(lost)).count();
    let told = diary.cuts().iter().filter(|cut| cut.idle && cut.node == Some(lost)).count();
    told >= listening
}

impl Facts {
    /// Of a run that ends now.
    pub(crate) fn of(fault: Fault, struck: &Struck, diary: &Diary, names: &[String]) -> Self {
        let now = Instant::now();
        let attempts = diary.attempts();
        let mut facts = Self { seconds: seconds(struck.at, now), ..Self::default() };
        facts.reads = facts.service(Side::Ro, &attempts, struck, now);
        facts.writes = facts.service(Side::Rw, &attempts, struck, now);
        facts.sessions(fault, struck, diary, names);
        let acked = diary.acked();
        facts.acknowledged = acked.len();
        if let Some(promotion) = struck.promotion {
            let first = acked.iter().filter(|acked| acked.node == Some(1)).map(|acked| acked.at).min();
            let since = |at: Instant| seconds(promotion.at, at);
            facts.promotion = Some((first.map(since), promotion.writes.map(since)));
            if fault == Fault::TwoPrimaries {
                let after = |node: usize| {
                    let of_node = acked.iter().filter(move |acked| acked.node == Some(node));
                    of_node.map(|acked| acked.at).filter(|&at| at >= promotion.at)
                };
                let both = after(0).max().zip(first).map_or(0.0, |(last, first)| seconds(first, last));
                facts.two_primaries = Some(TwoPrimaries {
                    old: after(0).count(),
                    new: after(1).count(),
                    both: both.max(0.0),
                    old_until: after(0).max().map_or(0.0, since),
                });
            }
        }
        facts
    }

    fn service(&mut self, side: Side, attempts: &[Attempt], struck: &Struck, now: Instant) -> Service {
        let begin = struck.at.checked_sub(CALM).unwrap_or(struck.at);
        let mut service = Service::default();
        let mut good = vec![begin, now];
        for attempt in attempts.iter().filter(|attempt| attempt.side == side) {
            let ended = attempt.end.as_ref().map_or(now, |(at, _)| *at);
            if ended < struck.at {
                self.failed_in_calm += usize::from(matches!(attempt.end, Some((_, Err(_)))));
            }
            if ended < begin {
                continue;
            }
            let took = seconds(attempt.begun, ended);
            match &attempt.end {
                None if now.duration_since(attempt.begun) < HUNG => continue,
                None => {
                    service.failed += 1;
                    self.count(side, "no answer to the end");
                }
                Some((at, Ok(()))) => good.push(*at),
                Some((_, Err(failure))) => {
                    // It was on the server when that was taken away.
                    let in_time = struck.gone.is_some_and(|gone| attempt.begun <= gone + LATE);
                    if failure.logged_in && failure.session_over && in_time {
                        self.in_flight += 1;
                        continue;
                    }
                    service.failed += 1;
                    self.count(side, &failure.text);
                }
            }
            service.of += 1;
            service.slowest = service.slowest.max(took);
        }
        good.sort();
        let pauses = good.iter().zip(good.iter().skip(1)).map(|(&one, &next)| seconds(one, next));
        service.without = pauses.fold(0.0, f64::max);
        service
    }

    fn sessions(&mut self, fault: Fault, struck: &Struck, diary: &Diary, names: &[String]) {
        let lost = fault.lost();
        let listening = diary.idle();
        self.told.sessions = listening.iter().filter(|(_, node)| lost.is_some() && *node == lost).count();
        for cut in diary.cuts() {
            if cut.at < struck.at {
                self.failed_in_calm += 1;
            } else if cut.node == lost && lost.is_some() {
                if cut.idle {
                    self.told.after.push(seconds(struck.at, cut.at));
                    if !self.told.how.contains(&cut.how) {
                        self.told.how.push(cut.how);
                    }
                } else {
                    self.in_flight += 1;
                }
            } else {
                self.needless += 1;
                let node = cut.node.and_then(|node| names.get(node)).map_or("?", String::as_str);
                let at = seconds(struck.at, cut.at);
                self.count(cut.side, &format!("session on {node} cut after {at:.1} s: {}", cut.how));
            }
        }
    }

    fn count(&mut self, side: Side, text: &str) {
        let listener = if side == Side::Ro { "ro" } else { "rw" };
        *self.errors.entry(format!("{listener}: {text}")).or_default() += 1;
    }

    pub(crate) fn json(&self) -> Value {
        let service = |service: &Service| {
            json!({
                "failed": service.failed,
                "of": service.of,
                "slowest_seconds": service.slowest,
                "longest_without_seconds": service.without,
            })
        };
        json!({
            "reads": service(&self.reads),
            "writes": service(&self.writes),
            "listening_sessions_on_lost_node": self.told.sessions,
            "told_after_seconds": self.told.after,
            "told_how": self.told.how,
            "cut_in_flight": self.in_flight,
            "cut_without_need": self.needless,
            "promotion_to_write_seconds": self.promotion.map(|both| both.0),
            "promotion_to_direct_write_seconds": self.promotion.map(|both| both.1),
            "acknowledged_writes": self.acknowledged,
            "acknowledged_writes_missing": self.missing,
            "two_primaries": self.two_primaries.as_ref().map(|two| json!({
                "writes_old": two.old,
                "writes_new": two.new,
                "both_seconds": two.both,
                "old_until_seconds": two.old_until,
            })),
            "cancels_lost": self.cancels.map(|cancels| cancels.0),
            "cancels_sent": self.cancels.map(|cancels| cancels.1),
            "failed_before_the_fault": self.failed_in_calm,
            "errors": self.errors,
            "observed_seconds": self.seconds,
        })
    }
}

/// Negative when `to` was before `from`.
fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() - from.saturating_duration_since(to).as_secs_f64()
}
