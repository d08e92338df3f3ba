//! What was asked in which step, and what came of it.
//!
//! A request belongs to the step in which it began, whenever its answer comes. A gap belongs to the step in which
//! nothing came, whenever what was awaited began.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::gap::Gap;
use crate::histogram::Histogram;

/// Texts of failures kept for the report, for each step and kind.
const ERRORS: usize = 10;
/// Different reasons to do something again, likewise.
const REASONS: usize = 20;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Get,
    Post,
    Read,
    Write,
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// A request under way.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) kind: Kind,
    step: usize,
    at: Duration,
}

/// Where a good answer came from, as far as it says so.
#[derive(Clone, Default)]
pub(crate) struct Source {
    pub(crate) status: Option<u16>,
    pub(crate) upstream: Option<String>,
    pub(crate) database: Option<String>,
    /// Whether the database is a standby.
    pub(crate) standby: Option<bool>,
}

#[derive(Clone, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    /// Sessions that ended within a read, or could not begin for one, which was then done again.
    pub(crate) cut: u64,
    /// The same for writes.
    pub(crate) retried: u64,
    /// Those of both that could not begin.
    pub(crate) refused: u64,
    /// Kept connections that were closed before a request was put on them.
    pub(crate) reopened: u64,
    /// Writes that a standby says to have made.
    pub(crate) impossible: u64,
    /// From the begin of the step to the first good answer to what began in it.
    pub(crate) first: Option<Duration>,
    pub(crate) longest_gap: Duration,
    pub(crate) latencies: Histogram,
    pub(crate) statuses: Counts,
    pub(crate) upstreams: Counts,
    pub(crate) databases: Counts,
    pub(crate) roles: Counts,
    pub(crate) reasons: Counts,
    pub(crate) errors: Vec<String>,
}

impl Tally {
    fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.ok += other.ok;
        self.failed += other.failed;
        self.cut += other.cut;
        self.retried += other.retried;
        self.refused += other.refused;
        self.reopened += other.reopened;
        self.impossible += other.impossible;
        self.latencies.merge(&other.latencies);
        self.statuses.merge(&other.statuses);
        self.upstreams.merge(&other.upstreams);
        self.databases.merge(&other.databases);
        self.roles.merge(&other.roles);
        self.reasons.merge(&other.reasons);
        let room = ERRORS.saturating_sub(self.errors.len());
        self.errors.extend(other.errors.iter().take(room).cloned());
    }
}

/// How often each of some words came.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts(pub(crate) BTreeMap<String, u64>);

impl Counts {
    pub(crate) fn add(&mut self, word: &str) {
        match self.0.get_mut(word) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(word.to_owned(), 1)),
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (word, count) in &other.0 {
            *self.0.entry(word.clone()).or_default() += count;
        }
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|(word, count)| format!("{word} {count}")).collect();
        f.write_str(&if words.is_empty() { "-".to_owned() } else { words.join(", ") })
    }
}

/// One row of rows: a step, or all of them.
pub(crate) struct Summary {
    pub(crate) name: String,
    /// From the start of the program.
    pub(crate) begun: Duration,
    pub(crate) length: Duration,
    pub(crate) tallies: BTreeMap<Kind, Tally>,
}

struct Step {
    name: String,
    begun: Duration,
    ended: Option<Duration>,
    tallies: BTreeMap<Kind, (Tally, Gap)>,
}

/// Times are counted from the start of the program.
pub(crate) struct Ledger {
    kinds: Vec<Kind>,
    steps: Vec<Step>,
    /// Across all steps.
    gaps: BTreeMap<Kind, Gap>,
    good: BTreeMap<Kind, u64>,
}

impl Ledger {
    pub(crate) fn new(kinds: &[Kind], step: &str) -> Self {
        let begin = |&kind: &Kind| (kind, Gap::begin(Duration::ZERO));
        let good = kinds.iter().map(|&kind| (kind, 0)).collect();
        let gaps = kinds.iter().map(begin).collect();
        let mut ledger = Self { kinds: kinds.to_vec(), steps: Vec::new(), gaps, good };
        ledger.step(step, Duration::ZERO);
        ledger
    }

    pub(crate) fn step(&mut self, name: &str, at: Duration) {
        self.end_step(at);
        let fresh = |&kind: &Kind| (kind, (Tally::default(), Gap::begin(at)));
        let tallies = self.kinds.iter().map(fresh).collect();
        self.steps.push(Step { name: name.to_owned(), begun: at, ended: None, tallies });
    }

    /// Nothing begins any more.
    pub(crate) fn end(&mut self, at: Duration) {
        self.end_step(at);
        self.gaps.values_mut().for_each(|gap| gap.close(at));
    }

    fn end_step(&mut self, at: Duration) {
        if let Some(step) = self.steps.last_mut().filter(|step| step.ended.is_none()) {
            step.ended = Some(at);
            step.tallies.values_mut().for_each(|(_, gap)| gap.close(at));
        }
    }

    pub(crate) fn begin(&mut self, kind: Kind, at: Duration) -> Begun {
        let begun = Begun { kind, step: self.steps.len().saturating_sub(1), at };
        if let Some(tally) = self.tally(begun) {
            tally.sent += 1;
        }
        begun
    }

    pub(crate) fn good(&mut self, begun: Begun, at: Duration, source: &Source) {
        let Begun { kind, step, .. } = begun;
        let of_now = self.steps.last_mut().and_then(|step| step.tallies.get_mut(&kind));
        let of_now = of_now.map(|(_, gap)| gap);
        self.gaps.get_mut(&kind).into_iter().chain(of_now).for_each(|gap| gap.answer(at));
        *self.good.entry(kind).or_default() += 1;
        let Some(step) = self.steps.get_mut(step) else { return };
        let step_begun = step.begun;
        let Some((tally, _)) = step.tallies.get_mut(&kind) else { return };
        tally.ok += 1;
        tally.first.get_or_insert(at.saturating_sub(step_begun));
        tally.latencies.add(at.saturating_sub(begun.at));
        if let Some(status) = source.status {
            tally.statuses.add(&status.to_string());
        }
        let of_roles = source.standby.map(|standby| if standby { "standby" } else { "primary" });
        for (counts, word) in [
            (&mut tally.upstreams, source.upstream.as_deref()),
            (&mut tally.databases, source.database.as_deref()),
            (&mut tally.roles, of_roles),
        ] {
            if let Some(word) = word {
                counts.add(word);
            }
        }
        if kind == Kind::Write && source.standby == Some(true) {
            tally.impossible += 1;
        }
    }

    /// How often this kind has failed in this step, this time counted.
    pub(crate) fn failed(&mut self, begun: Begun, status: Option<u16>, error: &str) -> u64 {
        let Some(tally) = self.tally(begun) else { return 0 };
        tally.failed += 1;
        if let Some(status) = status {
            tally.statuses.add(&status.to_string());
        }
        if tally.errors.len() < ERRORS {
            tally.errors.push(error.to_owned());
        }
        tally.failed
    }

    /// A session is gone, or did not begin (`refused`); the same is done again on a fresh one.
    pub(crate) fn again(&mut self, begun: Begun, reason: &str, refused: bool) {
        let Some(tally) = self.tally(begun) else { return };
        let count = if begun.kind == Kind::Write { &mut tally.retried } else { &mut tally.cut };
        *count += 1;
        tally.refused += u64::from(refused);
        if tally.reasons.0.len() < REASONS || tally.reasons.0.contains_key(reason) {
            tally.reasons.add(reason);
        }
    }

    pub(crate) fn reopened(&mut self, begun: Begun) {
        if let Some(tally) = self.tally(begun) {
            tally.reopened += 1;
        }
    }

    /// Good answers until now.
    pub(crate) fn good_of_each(&self) -> Vec<u64> {
        self.good.values().copied().collect()
    }

    /// The steps in which something was sent, and those that a script named.
    pub(crate) fn summaries(&self) -> Vec<Summary> {
        let is_used = |step: &Step| step.tallies.values().any(|(tally, _)| tally.sent > 0);
        let steps = self.steps.iter().enumerate();
        steps.filter(|(at, step)| *at > 0 || is_used(step)).map(|(_, step)| step.summary()).collect()
    }

    pub(crate) fn total(&self) -> Summary {
        let steps = self.summaries();
        let mut tallies: BTreeMap<Kind, Tally> = BTreeMap::new();
        for step in &steps {
            for (kind, of_step) in &step.tallies {
                let tally = tallies.entry(*kind).or_default();
                tally.merge(of_step);
                tally.longest_gap = self.gaps.get(kind).map(Gap::longest).unwrap_or_default();
            }
        }
        let begun = steps.first().map(|step| step.begun).unwrap_or_default();
        for (kind, tally) in &mut tallies {
            let first = |step: &Summary| Some(step.begun + step.tallies.get(kind)?.first?);
            tally.first = steps.iter().filter_map(first).min().map(|at| at.saturating_sub(begun));
        }
        let length = steps.iter().map(|step| step.length).sum();
        Summary { name: "total".to_owned(), begun, length, tallies }
    }

    fn tally(&mut self, begun: Begun) -> Option<&mut Tally> {
        let step = self.steps.get_mut(begun.step)?;
        step.tallies.get_mut(&begun.kind).map(|(tally, _)| tally)
    }
}

impl Step {
    fn summary(&self) -> Summary {
        let finished = |(kind, (tally, gap)): (&Kind, &(Tally, Gap))| {
            (*kind, Tally { longest_gap: gap.longest(), ..tally.clone() })
        };
        let length = self.ended.unwrap_or(self.begun).saturating_sub(self.begun);
        let tallies = self.tallies.iter().map(finished).collect();
        Summary { name: self.name.clone(), begun: self.begun, length, tallies }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Ledger, Source};
    use std::time::Duration;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn answers_go_to_the_step_of_their_request_and_gaps_to_their_time() {
        let mut ledger = Ledger::new(&[Kind::Get], "start");
        ledger.step("one", ms(0));
        let early = ledger.begin(Kind::Get, ms(10));
        ledger.good(early, ms(20), &Source::default());
        let late = ledger.begin(Kind::Get, ms(30));
        ledger.step("two", ms(100));
        ledger.good(late, ms(150), &Source::default());
        let last = ledger.begin(Kind::Get, ms(160));
        ledger.good(last, ms(190), &Source::default());
        ledger.end(ms(200));

        let steps = ledger.summaries();
        let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["one", "two"], "nothing was sent before");
        let (one, two) = (&steps[0].tallies[&Kind::Get], &steps[1].tallies[&Kind::Get]);
        assert_eq!((one.sent, one.ok, one.first, one.longest_gap), (2, 2, Some(ms(20)), ms(80)));
        assert_eq!((two.sent, two.ok, two.first, two.longest_gap), (1, 1, Some(ms(90)), ms(50)));
        let total = ledger.total();
        let get = &total.tallies[&Kind::Get];
        assert_eq!((total.length, get.sent, get.longest_gap), (ms(200), 3, ms(130)));
    }

    #[test]
    fn what_comes_after_the_end_counts_but_makes_no_gap() {
        let mut ledger = Ledger::new(&[Kind::Read], "start");
        let begun = ledger.begin(Kind::Read, ms(10));
        ledger.again(begun, "57P01", false);
        ledger.end(ms(50));
        ledger.good(begun, ms(500), &Source::default());
        let read = &ledger.summaries()[0].tallies[&Kind::Read];
        assert_eq!((read.ok, read.cut, read.longest_gap), (1, 1, ms(50)));
        assert_eq!(read.latencies.max(), Some(ms(490)));
    }

    #[test]
    fn a_standby_that_writes_is_seen() {
        let mut ledger = Ledger::new(&[Kind::Write], "start");
        let begun = ledger.begin(Kind::Write, ms(10));
        ledger.good(begun, ms(20), &Source { standby: Some(true), ..Source::default() });
        ledger.end(ms(50));
        assert_eq!(ledger.total().tallies[&Kind::Write].impossible, 1);
    }
}
