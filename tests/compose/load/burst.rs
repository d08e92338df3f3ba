//! Thousands of connections that are opened first and then used all at once.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::lookup_host;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::args::Burst;
use crate::caller::{Caller, Failure};
use crate::descriptors;
use crate::histogram::Histogram;
use crate::ledger::{Counts, Source};
use crate::report::{self, millis, seconds};
use crate::screen::{note, say};
use crate::table::{per_second, short};

/// Connects at a time: a listen backlog is not what is measured.
const CONNECTS: usize = 256;
/// Failures told at once; the others are only counted.
const TOLD: u64 = 10;

#[derive(Default)]
struct Seen {
    complete: u64,
    failed: u64,
    reopened: u64,
    latencies: Histogram,
    statuses: Counts,
    upstreams: Counts,
    databases: Counts,
    errors: Counts,
}

/// What the connections have in common.
struct Turn {
    count: u64,
    timeout: Duration,
    connects: Semaphore,
    /// The last request that was begun.
    number: AtomicU64,
    go: watch::Receiver<bool>,
    seen: Mutex<Seen>,
}

/// Whether all went well.
pub(crate) async fn burst(options: Burst) -> Result<bool, String> {
    descriptors::make_room(options.concurrency)?;
    let mut target = options.target;
    // Once, not ten thousand times.
    let place = (target.host.as_str(), target.port);
    let mut addrs = lookup_host(place).await.map_err(|error| format!("{}: {error}", target.host))?;
    let addr = addrs.next().ok_or_else(|| format!("{}: no address", target.host))?;
    drop(addrs);
    target.host = addr.ip().to_string();

    let (go, gone) = watch::channel(false);
    let turn = Arc::new(Turn {
        count: options.count,
        timeout: options.timeout,
        connects: Semaphore::new(CONNECTS),
        number: AtomicU64::new(0),
        go: gone,
        seen: Mutex::default(),
    });
    let tasks = TaskTracker::new();
    let mut opening = JoinSet::new();
    let begin = Instant::now();
    for _ in 0..options.concurrency {
        opening.spawn(open(Arc::clone(&turn), Caller::new(target.clone(), tasks.clone())));
    }
    let mut asking = JoinSet::new();
    let mut unopened = 0_u64;
    while let Some(opened) = opening.join_next().await {
        match opened {
            Ok(Ok(caller)) => drop(asking.spawn(ask(Arc::clone(&turn), caller))),
            Ok(Err(error)) => {
                unopened += 1;
                turn.trouble(&format!("a connection did not open: {error}"));
            }
            Err(panic) => return Err(panic.to_string()),
        }
    }
    let opening_took = begin.elapsed();
    if asking.is_empty() {
        return Err("not one connection could be opened".to_owned());
    }
    say(&format!("open: {} connections in {}", asking.len(), short(opening_took)));

    let begin = Instant::now();
    go.send_replace(true);
    while asking.join_next().await.is_some() {}
    let took = begin.elapsed();

    let seen = turn.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let open = u64::from(options.concurrency) - unopened;
    say(&text(&seen, options.count, (open, unopened), (opening_took, took)));
    if let Some(file) = &options.report {
        report::save(file, &as_json(&seen, options.count, (open, unopened), (opening_took, took)))?;
    }
    Ok(seen.failed == 0 && unopened == 0 && seen.complete == options.count)
}

async fn open(turn: Arc<Turn>, mut caller: Caller) -> Result<Caller, String> {
    let _permit = turn.connects.acquire().await.map_err(|error| error.to_string())?;
    caller.open(turn.timeout).await?;
    Ok(caller)
}

async fn ask(turn: Arc<Turn>, mut caller: Caller) {
    let mut go = turn.go.clone();
    if go.wait_for(|go| *go).await.is_err() {
        return;
    }
    loop {
        let number = turn.number.fetch_add(1, Relaxed) + 1;
        if number > turn.count {
            return;
        }
        let begin = Instant::now();
        let answer = caller.call(number, turn.timeout).await;
        turn.record(answer, begin.elapsed(), std::mem::take(&mut caller.reopened));
    }
}

impl Turn {
    fn record(&self, answer: Result<Source, Failure>, latency: Duration, reopened: u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.reopened += reopened;
        let (status, trouble) = match answer {
            Ok(source) => {
                seen.complete += 1;
                seen.latencies.add(latency);
                seen.upstreams.add(source.upstream.as_deref().unwrap_or("-"));
                if let Some(database) = &source.database {
                    seen.databases.add(database);
                }
                (source.status, None)
            }
            Err(failure) => {
                seen.failed += 1;
                (failure.status, Some(failure.text))
            }
        };
        if let Some(status) = status {
            seen.statuses.add(&status.to_string());
        }
        drop(seen);
        if let Some(trouble) = trouble {
            self.trouble(&trouble);
        }
    }

    fn trouble(&self, text: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.errors.add(text);
        let count: u64 = seen.errors.0.values().sum();
        drop(seen);
        if count <= TOLD {
            let rest = if count == TOLD { " (more of these are only counted)" } else { "" };
            note(&format!("failed: {text}{rest}"));
        }
    }
}

type Connections = (u64, u64);
type Times = (Duration, Duration);

fn text(seen: &Seen, count: u64, (open, unopened): Connections, (opening, took): Times) -> String {
    let or_none = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), short);
    let mut text = format!(
        "\nconnections  {open} open, {unopened} not, in {}\n\
         requests     {count} in {}, {:.0}/s\n\
         complete     {}\n\
         failed       {}\n\
         latency      p50 {}, p99 {}, max {}\n\
         statuses     {}\n\
         upstreams    {}",
        short(opening),
        short(took),
        per_second(seen.complete, took),
        seen.complete,
        seen.failed,
        or_none(seen.latencies.percentile(50)),
        or_none(seen.latencies.percentile(99)),
        or_none(seen.latencies.max()),
        seen.statuses,
        seen.upstreams,
    );
    for (name, counts) in [("databases    ", &seen.databases), ("errors       ", &seen.errors)] {
        if !counts.0.is_empty() {
            text.extend(["\n", name, &counts.to_string()]);
        }
    }
    text
}

fn as_json(seen: &Seen, count: u64, (open, unopened): Connections, (opening, took): Times) -> Value {
    json!({
        "connections": {"open": open, "not_open": unopened, "seconds": seconds(opening)},
        "count": count,
        "complete": seen.complete,
        "failed": seen.failed,
        "reopened": seen.reopened,
        "seconds": seconds(took),
        "per_s": per_second(seen.complete, took).round(),
        "p50_ms": seen.latencies.percentile(50).map(millis),
        "p99_ms": seen.latencies.percentile(99).map(millis),
        "max_ms": seen.latencies.max().map(millis),
        "statuses": seen.statuses.0,
        "upstreams": seen.upstreams.0,
        "databases": seen.databases.0,
        "errors": seen.errors.0,
    })
}
