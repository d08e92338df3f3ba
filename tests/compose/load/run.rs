//! The steady load: workers, and the script that says by lines what happens to the servers meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin, stdin};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::Run;
use crate::caller::Caller;
use crate::ledger::{Begun, Kind, Ledger, Source};
use crate::queries::{self, Database};
use crate::screen::{complain, note, say};
use crate::{report, requests, table};

/// Failures told at once, for each step and kind; the others are only counted.
const TOLD: u64 = 5;
/// Longest `wait`.
const WAIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The ledger with its clock, shared by all workers.
pub(crate) struct Book {
    start: Instant,
    ledger: Mutex<Ledger>,
    pause: Duration,
    end: CancellationToken,
}

impl Book {
    fn new(kinds: &[Kind], pause: Duration) -> Self {
        let ledger = Mutex::new(Ledger::new(kinds, "start"));
        Self { start: Instant::now(), ledger, pause, end: CancellationToken::new() }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.end.is_cancelled()
    }

    /// Between two requests of a worker.
    pub(crate) async fn pause(&self) {
        let _ = timeout(self.pause, self.end.cancelled()).await;
        // Without a pause an answer that is there at once must not keep the thread.
        tokio::task::yield_now().await;
    }

    pub(crate) fn begin(&self, kind: Kind) -> Begun {
        self.ledger().begin(kind, self.now())
    }

    pub(crate) fn good(&self, begun: Begun, source: &Source) {
        if begun.kind == Kind::Write && source.standby == Some(true) {
            let database = source.database.as_deref().unwrap_or("-");
            note(&format!("FAULT: {database} says that it is a standby and has written"));
        }
        self.ledger().good(begun, self.now(), source);
    }

    pub(crate) fn failed(&self, begun: Begun, status: Option<u16>, text: &str) {
        let count = self.ledger().failed(begun, status, text);
        if count <= TOLD {
            let rest = if count == TOLD { " (more of these in this step are only counted)" } else { "" };
            note(&format!("{} failed: {text}{rest}", begun.kind));
        }
    }

    pub(crate) fn again(&self, begun: Begun, reason: &str, refused: bool) {
        self.ledger().again(begun, reason, refused);
    }

    pub(crate) fn reopened(&self, begun: Begun) {
        self.ledger().reopened(begun);
    }
}

/// Whether all went well.
pub(crate) async fn run(options: Run) -> Result<bool, String> {
    let mut signals = Signals::new()?;
    let book = Arc::new(Book::new(&kinds(&options), options.pause));
    let mut workers = JoinSet::new();
    start(&options, &book, &mut workers);
    tokio::select! {
        () = obey(&book) => {}
        () = signals.next() => {}
    }
    book.ledger().end(book.now());
    book.end.cancel();
    tokio::select! {
        () = async { while workers.join_next().await.is_some() {} } => {}
        () = signals.next() => complain("load: interrupted again; what is under way is not awaited"),
    }

    let ledger = book.ledger();
    let (steps, total) = (ledger.summaries(), ledger.total());
    say(&table::of(&steps, &total));
    if let Some(file) = &options.report {
        report::save(file, &report::of(&steps, &total))?;
    }
    let failed = total.tallies.values().any(|tally| tally.failed > 0);
    let impossible = total.tallies.values().any(|tally| tally.impossible > 0);
    Ok((options.may_fail || !failed) && !impossible)
}

fn kinds(options: &Run) -> Vec<Kind> {
    let is_post = |wanted: bool| options.targets.iter().any(|target| target.is_post() == wanted);
    let kinds = [
        (Kind::Get, is_post(false)),
        (Kind::Post, is_post(true)),
        (Kind::Read, !options.reads.is_empty()),
        (Kind::Write, !options.writes.is_empty()),
    ];
    kinds.into_iter().filter_map(|(kind, used)| used.then_some(kind)).collect()
}

fn start(options: &Run, book: &Arc<Book>, workers: &mut JoinSet<()>) {
    let tasks = TaskTracker::new();
    for target in &options.targets {
        let kind = if target.is_post() { Kind::Post } else { Kind::Get };
        for _ in 0..options.workers {
            let caller = Caller::new(target.clone(), tasks.clone());
            workers.spawn(requests::ask(Arc::clone(book), kind, caller, options.timeout));
        }
    }
    let database = |config: &tokio_postgres::Config| {
        Arc::new(Database::new(config.clone(), tasks.clone(), options.timeout, options.fresh_every))
    };
    for config in &options.reads {
        let database = database(config);
        for _ in 0..options.workers {
            workers.spawn(queries::read(Arc::clone(book), Arc::clone(&database)));
        }
    }
    let mut writer = 0;
    for config in &options.writes {
        let database = database(config);
        for _ in 0..options.workers {
            workers.spawn(queries::write(Arc::clone(book), Arc::clone(&database), writer));
            writer += 1;
        }
    }
}

/// Does what standard input says, until it ends or says `end`.
async fn obey(book: &Book) {
    let mut lines: Lines<BufReader<Stdin>> = BufReader::new(stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = line.trim();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, rest.trim()) {
            ("", _) => {}
            // What a script starts meanwhile may inherit the other end of this input, which then never ends.
            ("end", "") => return,
            ("step", name) if !name.is_empty() => {
                book.ledger().step(name, book.now());
                say(&format!("step {name}"));
            }
            ("wait", number) if number.parse::<u64>().is_ok() => {
                let more = number.parse().unwrap_or_default();
                say(if wait(book, more).await { "ok" } else { "timeout" });
            }
            _ => say(&format!("error: {line:?} is neither `step TEXT`, `wait N` nor `end`")),
        }
    }
}

/// Whether so many more good answers of each kind came in time.
async fn wait(book: &Book, more: u64) -> bool {
    let before = book.ledger().good_of_each();
    let enough = || {
        let now = book.ledger().good_of_each();
        now.iter().zip(&before).all(|(now, before)| now - before >= more)
    };
    let waiting = async {
        while !enough() {
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(WAIT, waiting).await.is_ok()
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
