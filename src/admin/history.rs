//! The last minutes, second by second: what a page draws, and how many sessions a second come.
//!
//! Only figures that are there anyway are looked at, once a second.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::view::time;
use crate::base::id::NodeId;
use crate::session::shared::{Listener, Shared};
use crate::telemetry::metrics::Totals;

/// How often [`History::sample`] is to be called.
pub(super) const STEP: Duration = Duration::from_secs(1);
/// Samples that are kept: five minutes.
const KEPT: usize = 300;
/// What comes in a second is shown as the mean of so many.
const MEAN_OF: usize = 10;

/// The last minutes.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Samples>);

#[derive(Debug, Default)]
struct Samples {
    kept: VecDeque<Sample>,
    /// The totals at the last sample.
    last: Option<Totals>,
    /// Sessions so far, at each of the last seconds.
    listeners: HashMap<usize, VecDeque<u64>>,
    nodes: HashMap<(usize, NodeId), VecDeque<u64>>,
}

/// One second.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: SystemTime,
    sessions: u64,
    waiting: u64,
    new: u64,
    rejected: u64,
    to_node_bytes: u64,
    to_client_bytes: u64,
}

/// The last second, in sum over all listeners.
#[derive(Debug, Default, Serialize)]
pub(super) struct TotalsView {
    pub(super) sessions: u64,
    pub(super) waiting: u64,
    pub(super) new_per_second: u64,
    pub(super) rejected_per_second: u64,
    pub(super) to_node_bytes_per_second: u64,
    pub(super) to_client_bytes_per_second: u64,
}

/// All that is kept, the oldest first: one figure a second for each.
#[derive(Debug, Serialize)]
pub(super) struct HistoryView {
    /// The time of the last figures; `null` when there are none yet.
    pub(super) until: Option<String>,
    pub(super) step_seconds: f64,
    pub(super) sessions: Vec<u64>,
    pub(super) waiting: Vec<u64>,
    pub(super) new: Vec<u64>,
    pub(super) rejected: Vec<u64>,
    pub(super) to_node_bytes: Vec<u64>,
    pub(super) to_client_bytes: Vec<u64>,
}

impl History {
    /// Looks at everything once.
    pub(super) fn sample(&self, shared: &Shared) {
        let (setup, totals) = (shared.setup(), shared.metrics.totals());
        let sessions = setup.listeners.iter().map(|listener| u64::from(listener.active())).sum();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let waiting = setup.listeners.iter().map(|listener| count(listener.waiting().0)).sum();
        let accepted = |l: &Arc<Listener>| (l.index, shared.metrics.listener(l.index).accepted());
        let listeners: Vec<_> = setup.listeners.iter().map(accepted).collect();
        let nodes = setup.clusters.iter().flat_map(|watched| {
            let cluster = watched.index;
            let ids: Vec<_> = watched.current.borrow().nodes.iter().map(|node| node.id).collect();
            ids.into_iter().map(move |id| ((cluster, id), shared.metrics.sessions_of(cluster, id)))
        });
        let nodes: Vec<_> = nodes.collect();
        let mut samples = self.samples();
        keep(&mut samples.listeners, listeners);
        keep(&mut samples.nodes, nodes);
        samples.add(totals, sessions, waiting);
    }

    /// The last second.
    pub(super) fn totals(&self) -> TotalsView {
        let Some(last) = self.samples().kept.back().copied() else { return TotalsView::default() };
        TotalsView {
            sessions: last.sessions,
            waiting: last.waiting,
            new_per_second: last.new,
            rejected_per_second: last.rejected,
            to_node_bytes_per_second: last.to_node_bytes,
            to_client_bytes_per_second: last.to_client_bytes,
        }
    }

    /// All that is kept.
    pub(super) fn all(&self) -> HistoryView {
        let samples = self.samples();
        let each = |figure: fn(&Sample) -> u64| samples.kept.iter().map(figure).collect();
        HistoryView {
            until: samples.kept.back().map(|sample| time(sample.at)),
            step_seconds: STEP.as_secs_f64(),
            sessions: each(|sample| sample.sessions),
            waiting: each(|sample| sample.waiting),
            new: each(|sample| sample.new),
            rejected: each(|sample| sample.rejected),
            to_node_bytes: each(|sample| sample.to_node_bytes),
            to_client_bytes: each(|sample| sample.to_client_bytes),
        }
    }

    /// Connections a second that a listener has accepted of late.
    pub(super) fn new_of_listener(&self, index: usize) -> f64 {
        rate(self.samples().listeners.get(&index))
    }

    /// Sessions a second that have reached a node of late.
    pub(super) fn new_of_node(&self, cluster: usize, id: NodeId) -> f64 {
        rate(self.samples().nodes.get(&(cluster, id)))
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Samples {
    fn add(&mut self, totals: Totals, sessions: u64, waiting: u64) {
        let last = self.last.replace(totals).unwrap_or(totals);
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Sample {
            at: SystemTime::now(),
            sessions,
            waiting,
            new: totals.accepted.saturating_sub(last.accepted),
            rejected: totals.rejected.saturating_sub(last.rejected),
            to_node_bytes: totals.to_node_bytes.saturating_sub(last.to_node_bytes),
            to_client_bytes: totals.to_client_bytes.saturating_sub(last.to_client_bytes),
        });
    }
}

/// Keeps a sum for each that there is, and nothing for those that there are not any more.
fn keep<K: std::hash::Hash + Eq>(all: &mut HashMap<K, VecDeque<u64>>, now: Vec<(K, u64)>) {
    let mut before = std::mem::take(all);
    for (key, sum) in now {
        let mut sums = before.remove(&key).unwrap_or_default();
        // The mean of ten seconds lies between eleven moments.
        if MEAN_OF < sums.len() {
            sums.pop_front();
        }
        sums.push_back(sum);
        all.insert(key, sums);
    }
}

fn rate(sums: Option<&VecDeque<u64>>) -> f64 {
    let sums = sums.map(|sums| (sums.front(), sums.back(), sums.len()));
    let Some((Some(first), Some(last), moments @ 2..)) = sums else { return 0.0 };
    let figure = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let seconds = figure(u64::try_from(moments - 1).unwrap_or(u64::MAX));
    (figure(last.saturating_sub(*first)) / seconds * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_what_has_come_since_the_one_before() {
        let history = History::default();
        assert_eq!(history.all().until, None);
        let totals = |accepted| Totals { accepted, rejected: 2 * accepted, ..Totals::default() };
        for n in 0..400_u64 {
            history.samples().add(totals(1000 + n * 3), n, 1);
        }
        let all = history.all();
        assert_eq!((all.new.len(), all.sessions[0], all.sessions[299]), (KEPT, 100, 399));
        assert!(all.new.iter().all(|new| *new == 3) && all.rejected.iter().all(|rejected| *rejected == 6));
        assert_eq!((history.totals().new_per_second, history.totals().waiting), (3, 1));
        let first = History::default();
        first.samples().add(totals(1000), 0, 0);
        assert_eq!(first.all().new, [0], "what came before anybody looked is not of this second");
    }

    #[test]
    fn what_comes_of_late_is_a_mean_and_who_is_gone_is_forgotten() {
        let mut all = HashMap::new();
        let mut at = |second: u64, of: &[&'static str]| {
            keep(&mut all, of.iter().map(|name| (*name, second * second)).collect());
            ["a", "b"].map(|name| rate(all.get(name)).to_string())
        };
        assert_eq!(at(0, &["a"]), ["0", "0"]);
        assert_eq!(at(1, &["a"]), ["1", "0"]);
        assert_eq!(at(2, &["a", "b"]), ["2", "0"]);
        for second in 3..=20 {
            at(second, &["a", "b"]);
        }
        // From 11 squared to 21 squared in ten seconds.
        assert_eq!(at(21, &["b"]), ["0", "32"]);
    }
}
