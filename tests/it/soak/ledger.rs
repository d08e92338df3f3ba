//! What was promised, what happened, and where the two differ.
//!
//! The clients report what they saw, the schedule what it did. Whatever cannot be explained by what was done is wrong,
//! and the first wrong ends the run.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::log::Log;
use super::session::{End, Refused, Session, Stage};

/// How long after a promotion beside a living primary pgsplit may still let clients write to that one. Checks come
/// every 0.3 s and have 1 s; the rest is for a busy machine.
pub const DEPOSED: Duration = Duration::from_secs(4);

/// How long anybody may wait who reads, or whose server is gone without a word. A check each 0.3 s with 1 s finds that out in
/// less than two; the rest is for a busy machine.
pub const TOLD: Duration = Duration::from_secs(6);

/// How long after its end a fault may still be what cut a session.
const ECHO: Duration = Duration::from_secs(3);

/// All that is known about a run.
#[derive(Debug)]
pub struct Ledger {
    seed: u64,
    began: Instant,
    log: Log,
    /// Something is wrong: nothing that comes after it is of interest.
    pub failed: CancellationToken,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// The schedule as it was carried out.
    story: Vec<String>,
    wrongs: Vec<String>,
    /// The end of pgsplit's log when the first wrong was seen.
    log: String,
    faults: Vec<Happening>,
    losers: Vec<Loser>,
    acked: Vec<Ack>,
    counts: BTreeMap<String, u64>,
    longest: BTreeMap<&'static str, Duration>,
}

/// A fault that takes time.
#[derive(Debug)]
struct Happening {
    node: IpAddr,
    until: Option<Instant>,
}

/// A primary beside which another one was made.
#[derive(Debug)]
struct Loser {
    node: IpAddr,
    /// What is written to it from now on is lost.
    from: Instant,
    /// The other one is there.
    since: Option<Instant>,
    until: Option<Instant>,
}

/// A write that the server said was done.
#[derive(Clone, Copy, Debug)]
struct Ack {
    writer: u32,
    seq: u32,
    node: IpAddr,
    at: Instant,
}

/// A fault that goes on until it is dropped.
#[must_use = "a fault that is dropped at once explains nothing"]
pub struct Ongoing<'a>(&'a Ledger, usize);

impl Drop for Ongoing<'_> {
    fn drop(&mut self) {
        if let Some(fault) = self.0.book().faults.get_mut(self.1) {
            fault.until = Some(Instant::now());
        }
    }
}

impl Ledger {
    /// An empty one.
    pub fn new(seed: u64, log: Log) -> Self {
        Self { seed, began: Instant::now(), log, failed: CancellationToken::new(), book: Mutex::default() }
    }

    /// Time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Something was done.
    pub fn say(&self, text: &str) {
        let line = format!("{:8.3} s  {text}", self.elapsed().as_secs_f64());
        eprintln!("{line}");
        self.book().story.push(line);
    }

    /// Something that must not be.
    pub fn wrong(&self, text: &str) {
        let line = format!("{:8.3} s  {text}", self.elapsed().as_secs_f64());
        let mut book = self.book();
        if book.wrongs.is_empty() {
            book.log = self.log.last(12);
        }
        // What goes wrong goes wrong for many; the first ones say it.
        if book.wrongs.len() < 40 {
            book.wrongs.push(line);
        }
        self.failed.cancel();
    }

    /// One more of what is reported at the end.
    pub fn count(&self, what: impl Into<String>) {
        *self.book().counts.entry(what.into()).or_default() += 1;
    }

    /// How long something took; the longest is reported at the end.
    pub fn took(&self, what: &'static str, time: Duration) {
        let mut book = self.book();
        let longest = book.longest.entry(what).or_default();
        *longest = time.max(*longest);
    }

    /// From now on sessions on this node may be cut.
    pub fn cuts(&self, node: IpAddr) -> Ongoing<'_> {
        let mut book = self.book();
        book.faults.push(Happening { node, until: None });
        Ongoing(self, book.faults.len() - 1)
    }

    /// What is written to this primary from now on is lost by the cluster itself.
    pub fn loses(&self, node: IpAddr) {
        self.book().losers.push(Loser { node, from: Instant::now(), since: None, until: None });
    }

    /// The other primary is there now.
    pub fn deposed(&self, node: IpAddr) {
        self.change_loser(node, |loser| loser.since = Some(Instant::now()));
    }

    /// It is a primary no longer.
    pub fn cleared(&self, node: IpAddr) {
        self.change_loser(node, |loser| loser.until = Some(Instant::now()));
    }

    fn change_loser(&self, node: IpAddr, change: impl FnOnce(&mut Loser)) {
        if let Some(loser) = self.book().losers.iter_mut().rev().find(|loser| loser.node == node) {
            change(loser);
        }
    }

    /// Something was begun on this node now, by a session that is there to write or that is new.
    pub fn began_on(&self, who: &str, node: IpAddr, at: Instant) {
        let late = |loser: &Loser| {
            loser.node == node
                && loser.until.is_none()
                && loser.since.is_some_and(|since| DEPOSED < at.saturating_duration_since(since))
        };
        let is_late = self.book().losers.iter().any(late);
        if is_late {
            self.wrong(&format!("{who}: works on {node}, which was replaced more than {DEPOSED:?} ago"));
        }
    }

    /// A session has begun.
    pub fn opened(&self, who: &str, is_rw: bool, session: &Session, asked: Instant) {
        self.took("login", asked.elapsed());
        self.count(format!("sessions: {}", if is_rw { "rw" } else { "ro" }));
        if is_rw && session.is_on_standby {
            let (node, client) = (session.node, session.client);
            self.wrong(&format!("{who}: a session to write begins on the standby {node} (client {client})"));
        }
        if !is_rw && TOLD < asked.elapsed() {
            self.wrong(&format!("{who}: waits for {:?} for a session on {}", asked.elapsed(), session.node));
        }
        self.began_on(who, session.node, asked);
    }

    /// A write was acknowledged that was sent then.
    pub fn acked(&self, writer: u32, seq: u32, node: IpAddr, sent: Instant) {
        self.book().acked.push(Ack { writer, seq, node, at: Instant::now() });
        self.began_on(&format!("writer {writer}"), node, sent);
    }

    /// A session could not be opened. Reads must always be served.
    pub fn refused(&self, who: &str, is_rw: bool, asked: Instant, refused: &Refused) {
        let Refused { stage, end, client } = refused;
        match (stage, end) {
            (Stage::Begun, end) => self.ended(who, None, end),
            // No primary for as long as clients wait: the schedule can be that slow on a busy machine.
            (Stage::Unanswered, End::Told(error)) if is_rw && error.code == "57P03" => {
                self.count(format!("writers refused: {}", error.message));
                self.took("wait for a primary in vain", asked.elapsed());
            }
            (stage, end) => self.wrong(&format!(
                "{who}: refused ({stage:?}) after {:?}: {end:?} (client {client:?})",
                asked.elapsed()
            )),
        }
    }

    /// A session has ended that its client had not ended; on `None` it was not known yet where it was.
    pub fn ended(&self, who: &str, session: Option<&Session>, end: &End) {
        let node = session.map(|session| session.node);
        let place = session.map(|session| (session.node, session.client));
        match end {
            End::Late => return self.wrong(&format!("{who}: waits for more than 20 s, on {place:?}")),
            End::Garbage(what) => return self.wrong(&format!("{who}: not PostgreSQL: {what}, on {place:?}")),
            End::Told(error) if !matches!(error.code.as_str(), "57P01" | "57P02" | "57P03" | "40001") => {
                return self.wrong(&format!("{who}: is told {error:?}, on {place:?}"));
            }
            End::Told(_) | End::Closed | End::Broke(_) => {}
        }
        let now = Instant::now();
        let explains = |fault: &Happening| {
            node.is_none_or(|node| fault.node == node) && fault.until.is_none_or(|until| now < until + ECHO)
        };
        let is_explained = self.book().faults.iter().rev().take(50).any(explains);
        if is_explained {
            self.count(match end {
                End::Told(error) => format!("cut: told {} {}", error.code, error.message),
                End::Broke(how) => format!("cut: {how}"),
                _ => "cut: without words".to_owned(),
            });
        } else {
            self.wrong(&format!("{who}: cut without need: {end:?}, on {place:?}"));
        }
    }

    /// Whether anything was the matter with this node not long ago.
    pub fn has_trouble(&self, node: IpAddr, since: Instant) -> bool {
        let meets =
            |fault: &Happening| fault.node == node && fault.until.is_none_or(|until| since < until + ECHO);
        self.book().faults.iter().any(meets)
    }

    /// Compares the writes that are in the database at the end with those that were acknowledged.
    pub fn settle(&self, stored: &HashSet<(u32, u32)>) {
        let (lost, excused) = {
            let book = self.book();
            let missing = book.acked.iter().filter(|ack| !stored.contains(&(ack.writer, ack.seq)));
            let (excused, lost): (Vec<_>, Vec<_>) = missing.copied().partition(|ack| {
                let lost_there = |loser: &Loser| {
                    loser.node == ack.node
                        && loser.from <= ack.at
                        && loser.until.is_none_or(|until| ack.at < until)
                };
                book.losers.iter().any(lost_there)
            });
            (lost, excused)
        };
        for ack in &excused {
            let book = self.book();
            let losers = book.losers.iter().filter(|loser| loser.node == ack.node && loser.from <= ack.at);
            let since = losers.filter_map(|loser| loser.since).next_back();
            drop(book);
            let late = since.map(|since| ack.at.saturating_duration_since(since)).unwrap_or_default();
            self.took("time for which a replaced primary went on to acknowledge writes", late);
        }
        for ack in lost.iter().take(5) {
            let at = ack.at.duration_since(self.began).as_secs_f64();
            self.wrong(&format!(
                "{} acknowledged writes are lost, such as {} of writer {}, acknowledged by {} at {at:.3} s",
                lost.len(),
                ack.seq,
                ack.writer,
                ack.node
            ));
        }
        let (acked, excused) = (self.book().acked.len(), excused.len());
        let mut book = self.book();
        book.counts.insert("writes acknowledged".to_owned(), acked as u64);
        book.counts.insert("writes stored".to_owned(), stored.len() as u64);
        book.counts.insert("writes lost by the cluster (two primaries)".to_owned(), excused as u64);
    }

    /// What the run was like, for people.
    pub fn summary(&self) -> String {
        let book = self.book();
        let mut text = format!("seed {}, {:.0} s\n", self.seed, self.elapsed().as_secs_f64());
        for (what, count) in &book.counts {
            let _ = writeln!(text, "{count:10}  {what}");
        }
        for (what, time) in &book.longest {
            let _ = writeln!(text, "{:10.3}  s, the longest {what}", time.as_secs_f64());
        }
        text
    }

    /// All about a run that failed.
    pub fn report(&self) -> String {
        let summary = self.summary();
        let notable = self.log.notable();
        let notable: Vec<_> = notable.lines().collect();
        let book = self.book();
        let log = if book.log.is_empty() { self.log.last(12) } else { book.log.clone() };
        format!(
            "SEED={}\n\nwrong:\n{}\n\nthe schedule so far:\n{}\n\nthe last of pgsplit's log:\n{log}\n\nof it, what is \
             not about one session:\n{}\n\n{summary}",
            self.seed,
            book.wrongs.join("\n"),
            book.story.join("\n"),
            notable[notable.len().saturating_sub(40)..].join("\n"),
        )
    }

    /// Whether something is wrong.
    pub fn has_failed(&self) -> bool {
        !self.book().wrongs.is_empty()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a series of figures grows by in an hour, by the line that fits best.
#[expect(clippy::cast_precision_loss, reason = "figures of a chart")]
pub fn growth_per_hour(samples: &[(Duration, u64)]) -> f64 {
    let n = samples.len() as f64;
    let hours = |(at, _): &(Duration, u64)| at.as_secs_f64() / 3600.0;
    let mean_x = samples.iter().map(hours).sum::<f64>() / n;
    let mean_y = samples.iter().map(|(_, y)| *y as f64).sum::<f64>() / n;
    let (mut xy, mut xx) = (0.0, 0.0);
    for sample in samples {
        let (x, y) = (hours(sample) - mean_x, sample.1 as f64 - mean_y);
        xy += x * y;
        xx += x * x;
    }
    if xx == 0.0 { 0.0 } else { xy / xx }
}

#[test]
fn growth_is_the_slope_of_the_line() {
    let line: Vec<_> = (0..60).map(|i| (Duration::from_secs(i * 60), 1000 + i)).collect();
    assert!((growth_per_hour(&line) - 60.0).abs() < 0.001);
    assert!(growth_per_hour(&line[..1]).abs() < 0.001);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::wire::ServerError;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 9, 9, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 9, 9, 2));

    fn ledger() -> Ledger {
        Ledger::new(1, Log::default())
    }

    fn told(code: &str) -> End {
        End::Told(ServerError { code: code.to_owned(), ..ServerError::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn an_acknowledged_write_that_is_gone_is_wrong_unless_the_cluster_lost_it() {
        let ledger = ledger();
        ledger.loses(HERE);
        ledger.acked(1, 1, HERE, Instant::now());
        ledger.acked(1, 2, THERE, Instant::now());
        ledger.settle(&HashSet::from([(1, 2)]));
        assert!(!ledger.has_failed(), "{}", ledger.report());
        ledger.settle(&HashSet::from([(1, 1)]));
        assert!(ledger.report().contains("1 acknowledged writes are lost, such as 2 of writer 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_works_on_a_replaced_primary_for_too_long_is_wrong() {
        let ledger = ledger();
        ledger.loses(HERE);
        ledger.deposed(HERE);
        tokio::time::advance(DEPOSED).await;
        ledger.began_on("somebody", HERE, Instant::now());
        assert!(!ledger.has_failed());
        tokio::time::advance(Duration::from_millis(1)).await;
        ledger.began_on("somebody", THERE, Instant::now());
        assert!(!ledger.has_failed());
        ledger.began_on("somebody", HERE, Instant::now());
        assert!(ledger.has_failed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_is_wrong_unless_a_fault_explains_it() {
        for (cut, end, is_wrong) in [
            (true, End::Closed, false),
            (true, told("57P01"), false),
            (true, told("57014"), true),
            (true, End::Late, true),
            (true, End::Garbage(String::new()), true),
            (false, End::Broke(String::new()), true),
            (false, told("57P01"), true),
        ] {
            let ledger = ledger();
            if cut {
                drop(ledger.cuts(HERE));
            }
            ledger.ended("somebody", None, &end);
            assert_eq!(ledger.has_failed(), is_wrong, "{end:?}");
        }
        let ledger = ledger();
        drop(ledger.cuts(HERE));
        tokio::time::advance(ECHO).await;
        ledger.ended("somebody", None, &End::Closed);
        assert!(ledger.has_failed(), "that was too long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_is_refused_is_wrong_and_a_write_may_be() {
        for (is_rw, code, is_wrong) in [(true, "57P03", false), (true, "53300", true), (false, "57P03", true)]
        {
            let ledger = ledger();
            let refused = Refused { stage: Stage::Unanswered, end: told(code), client: None };
            ledger.refused("somebody", is_rw, Instant::now(), &refused);
            assert_eq!(ledger.has_failed(), is_wrong, "{is_rw} {code}");
        }
    }
}
