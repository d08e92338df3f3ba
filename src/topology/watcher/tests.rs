//! When looks begin, with a clock that moves by itself and a server that does what the test says.

use super::*;
use crate::balance::judge::{Judge, Verdict};
use crate::topology::Topology;
use crate::topology::check::{Facts, Failure};
use std::sync::Mutex;
use std::time::SystemTime;
use tokio::sync::watch::channel;
use tokio::time::{advance, sleep};
use tokio_util::task::TaskTracker;

const MS: Duration = Duration::from_millis(1);

/// What the server does with a look that begins at a time: how long it takes to answer, and whether it does at all.
type Server = fn(Duration) -> (Duration, bool);

/// A node that is watched, and the times of everything since the start.
struct Watched {
    reports: mpsc::Receiver<Reported>,
    hurry: Arc<Notify>,
    settings: Check,
    begun: Arc<Mutex<Vec<Duration>>>,
    start: Instant,
    stop: CancellationToken,
}

fn report(outcome: Outcome) -> Report {
    let (at, took) = (SystemTime::UNIX_EPOCH, Duration::ZERO);
    Report { at, took, steps: Vec::new(), addrs: Vec::new(), outcome }
}

fn silence() -> Report {
    let text = "no answer".to_owned();
    report(Outcome::Failed(Failure {
        step: "startup",
        sqlstate: None,
        text,
        answered: false,
        shows_life: false,
    }))
}

impl Watched {
    fn new(check: &str, server: Server) -> Self {
        let yaml = format!("{{nodes: [{{addr: a, role: primary}}], check: {{{check}}}}}");
        let config = config::Config::from_yaml(&yaml, "test", &|_| None).unwrap();
        let cluster = &config.clusters[0];
        let (begun, start) = (Arc::<Mutex<Vec<Duration>>>::default(), Instant::now());
        let (reporter, reports) = mpsc::channel(1);
        let hurry = Arc::<Notify>::default();
        let watch = Watch {
            id: NodeId::first(0),
            node: Arc::clone(&cluster.nodes[0]),
            only_at: None,
            settings: cluster.check.clone(),
            current: channel(Arc::new(Topology::starting(cluster, &Arc::default()))).1,
            hurry: Arc::clone(&hurry),
            reports: reporter,
        };
        let (times, stop, timeout) = (Arc::clone(&begun), CancellationToken::new(), cluster.check.timeout);
        let look = move |_: Arc<Watch>| {
            let now = start.elapsed();
            times.lock().unwrap().push(now);
            let (takes, answers) = server(now);
            async move {
                sleep(takes.min(timeout)).await;
                if answers && takes < timeout { report(Outcome::Up(Facts::default())) } else { silence() }
            }
        };
        TaskTracker::new().spawn(watch_by(look, watch, stop.clone()));
        Self { reports, hurry, settings: cluster.check.clone(), begun, start, stop }
    }

    /// Judges as the keeper does, and calls `now` after each report, until it says stop.
    async fn judge(&mut self, mut now: impl FnMut(Option<Verdict>, &Report) -> bool) {
        let mut judge = Judge::new(self.settings.rise, self.settings.fall);
        while let Some(Reported { report, pace, .. }) = self.reports.recv().await {
            let verdict = judge.observe(matches!(report.outcome, Outcome::Up(_)));
            let is_changing = 0 < judge.progress().0;
            pace.send(if is_changing { self.settings.fast_interval } else { self.settings.interval })
                .unwrap();
            if now(verdict, &report) {
                return;
            }
        }
    }

    fn begun(&self) -> Vec<Duration> {
        self.begun.lock().unwrap().clone()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_frozen_node_is_down_after_one_timeout_and_not_after_three() {
    const FROZEN: Duration = Duration::from_millis(10_200);
    for _ in 0..200 {
        let frozen = |now| if now < FROZEN { (MS, true) } else { (Duration::MAX, false) };
        let mut node = Watched::new("", frozen);
        let start = node.start;
        node.judge(|verdict, _| verdict == Some(Verdict::Down)).await;
        let took = start.elapsed().saturating_sub(FROZEN);
        let Check { interval, timeout, fast_interval, .. } = node.settings;
        assert!(took <= interval + timeout + 2 * fast_interval + 5 * MS, "{took:?}");
        assert!(took <= Duration::from_millis(3005), "{took:?} with the defaults");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_answers_is_looked_at_once_an_interval() {
    let mut node = Watched::new("", |_| (20 * MS, true));
    let start = node.start;
    node.judge(|_, _| Duration::from_secs(100) < start.elapsed()).await;
    let begun = node.begun();
    let gaps = begun.windows(2).map(|pair| pair[1].abs_diff(pair[0]));
    assert!(gaps.clone().all(|gap| (800 * MS..=1021 * MS).contains(&gap)), "{:?}", gaps.collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn no_more_looks_run_at_a_time_than_verdicts_are_needed() {
    for (fall, most) in [(1, 1), (2, 2), (5, 5)] {
        let check = format!("fall: {fall}, timeout: 10s, interval: 10s, fast_interval: 100ms");
        let node = Watched::new(&check, |_| (Duration::MAX, false));
        for _ in 0..100 {
            node.hurry.notify_one();
            advance(90 * MS).await;
        }
        assert_eq!(node.begun().len(), most, "fall {fall}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_complaint_begins_a_look_beside_one_that_runs() {
    let node = Watched::new("fast_interval: 1s", |_| (Duration::MAX, false));
    sleep(10 * MS).await;
    node.hurry.notify_one();
    sleep(100 * MS).await;
    node.hurry.notify_one();
    sleep(100 * MS).await;
    assert_eq!(node.begun(), [Duration::ZERO, COMPLAINT_PAUSE, 110 * MS]);
}

#[tokio::test(start_paused = true)]
async fn complaints_of_a_node_that_answers_do_not_become_a_flood() {
    let mut node = Watched::new("", |_| (MS, true));
    let hurry = Arc::clone(&node.hurry);
    TaskTracker::new().spawn(async move {
        loop {
            hurry.notify_one();
            sleep(MS).await;
        }
    });
    let start = node.start;
    node.judge(|_, _| Duration::from_secs(1) < start.elapsed()).await;
    assert!((15..=21).contains(&node.begun().len()), "{:?}", node.begun());
}

#[tokio::test(start_paused = true)]
async fn of_a_look_that_was_overtaken_only_its_failure_counts() {
    // The first look is slow, and what it says comes after what the second one says.
    for answers in [true, false] {
        let server: Server = if answers {
            |now| if now == Duration::ZERO { (900 * MS, true) } else { (MS, true) }
        } else {
            |now| if now == Duration::ZERO { (Duration::MAX, false) } else { (MS, true) }
        };
        let mut node = Watched::new("", server);
        let mut found = Vec::new();
        let (start, all) = (node.start, &mut found);
        node.judge(|_, report| {
            all.push((start.elapsed(), matches!(report.outcome, Outcome::Up(_))));
            all.len() == 2
        })
        .await;
        let second = (if answers { 1001 } else { 1000 } * MS, answers);
        assert_eq!(
            found,
            [(501 * MS, true), second],
            "nothing of one that took 900 ms, but of one that failed"
        );
    }
}
