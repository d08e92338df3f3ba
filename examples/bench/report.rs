//! From the runs to figures: medians, ratios, tables, a file.

use serde_json::{Value, json};

use crate::cases::{Case, Unit};
use crate::latency::Latency;
use crate::measuring::figures::{self, Better, Compared};
use crate::measuring::table::{Column, figure, shown, significant, table, text};
use crate::peers::Peer;

/// What one run of a case against a peer measured.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) seconds: f64,
    /// Transactions, sessions or megabytes.
    pub(crate) units: f64,
    pub(crate) latency: Option<Latency>,
    pub(crate) errors: u64,
    /// Of the proxy; `None` without one.
    pub(crate) proxy: Option<Proxy>,
    /// Of sessions that only stay.
    pub(crate) idle: Option<Idle>,
    /// Share of all cores that was used by programs that have nothing to do with this.
    pub(crate) others: f64,
}

/// What a proxy used for a run.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Nanoseconds on a CPU.
    pub(crate) cpu: u64,
    /// Threads that ended during the run, whose time is not counted.
    pub(crate) ended_threads: usize,
    /// With the sessions of the run, where they last so long.
    pub(crate) pss_kib: u64,
    pub(crate) private_kib: u64,
}

/// What so many sessions added to a proxy.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) sessions: u32,
    pub(crate) pss_kib: u64,
    pub(crate) private_kib: u64,
    /// Times that a thread woke, each second.
    pub(crate) wake_ups: f64,
}

impl figures::Run for Run {
    fn others(&self) -> f64 {
        self.others
    }

    fn errors(&mut self) -> &mut u64 {
        &mut self.errors
    }
}

/// A figure that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    Rate,
    P50Ms,
    P99Ms,
    MaxMs,
    CpuPerUnit,
    PssMib,
    PrivatePerSession,
    PssPerSession,
    WakeUps,
    Others,
}

impl Figure {
    pub(crate) fn of(self, run: &Run) -> Option<f64> {
        let ms = |us: u64| us as f64 / 1e3;
        let bytes_each = |kib: u64, idle: &Idle| kib as f64 * 1024.0 / f64::from(idle.sessions);
        // Only root sees the memory of a container's processes.
        let seen = |kib: u64| Some(kib).filter(|&kib| kib > 0);
        let (proxy, idle) = (run.proxy.as_ref(), run.idle.as_ref());
        let value = match self {
            Self::Rate => Some(run.units).filter(|&units| units > 0.0)? / run.seconds,
            Self::P50Ms => ms(run.latency?.p50),
            Self::P99Ms => ms(run.latency?.p99),
            Self::MaxMs => ms(run.latency?.max),
            Self::CpuPerUnit => proxy?.cpu as f64 / 1e3 / run.units,
            Self::PssMib => seen(proxy?.pss_kib)? as f64 / 1024.0,
            Self::PrivatePerSession => bytes_each(seen(idle?.private_kib)?, idle?),
            Self::PssPerSession => bytes_each(seen(idle?.pss_kib)?, idle?),
            Self::WakeUps => idle?.wake_ups,
            Self::Others => run.others,
        };
        Some(value).filter(|value| value.is_finite())
    }
}

/// A case with its runs.
pub(crate) struct Measured {
    pub(crate) case: &'static Case,
    pub(crate) runs: Compared<Peer, Run>,
}

impl Measured {
    pub(crate) fn median(&self, peer: Peer, figure: Figure) -> Option<f64> {
        self.runs.median(peer, |run| figure.of(run))
    }

    fn ratio(&self, peer: Peer, other: Option<Peer>, figure: Figure) -> Option<f64> {
        self.runs.ratio(peer, other, |run| figure.of(run))
    }

    /// The best of the proxies.
    fn best(&self, figure: Figure) -> Option<Peer> {
        let better = if figure == Figure::Rate { Better::More } else { Better::Less };
        self.runs.best(better, Peer::is_proxy, |run| figure.of(run))
    }

    fn to_best(&self, peer: Peer, figure: Figure) -> Option<f64> {
        self.ratio(peer, self.best(figure).filter(|_| peer.is_proxy()), figure)
    }

    pub(crate) fn errors(&self, peer: Peer) -> u64 {
        self.runs.of(peer).map(|(_, run)| run.errors).sum()
    }

    fn unit(&self) -> Unit {
        self.case.load.unit()
    }

    fn cells(&self, peer: Peer) -> Vec<String> {
        let value = |figure| shown(self.median(peer, figure), significant);
        let whole = |figure| shown(self.median(peer, figure), |value| format!("{value:.0}"));
        let times = |ratio| shown(ratio, |ratio| format!("{ratio:.2}"));
        let others = shown(self.median(peer, Figure::Others), |share| format!("{:.0}", share * 100.0));
        let mut cells = vec![self.case.name.to_owned(), peer.name().to_owned()];
        if self.unit() == Unit::Idle {
            cells.extend([
                whole(Figure::PrivatePerSession),
                times(self.to_best(peer, Figure::PrivatePerSession)),
                whole(Figure::PssPerSession),
                value(Figure::PssMib),
                value(Figure::WakeUps),
            ]);
        } else {
            cells.extend([
                self.unit().name().to_owned(),
                value(Figure::Rate),
                times(self.ratio(peer, Some(Peer::Direct), Figure::Rate)),
                times(self.to_best(peer, Figure::Rate)),
                value(Figure::P50Ms),
                value(Figure::P99Ms),
                value(Figure::MaxMs),
                value(Figure::CpuPerUnit),
                times(self.to_best(peer, Figure::CpuPerUnit)),
                value(Figure::PssMib),
            ]);
        }
        cells.extend([others, self.errors(peer).to_string()]);
        cells
    }

    fn json(&self) -> Value {
        let peers: Vec<Value> = self.runs.peers().map(|peer| self.json_of(peer)).collect();
        json!({
            "case": self.case.name,
            "unit": self.unit().name(),
            "tls": self.case.tls,
            "best_by_rate": self.best(Figure::Rate).map(Peer::name),
            "best_by_cpu": self.best(Figure::CpuPerUnit).map(Peer::name),
            "best_by_private_memory": self.best(Figure::PrivatePerSession).map(Peer::name),
            "peers": peers,
        })
    }

    fn json_of(&self, peer: Peer) -> Value {
        let value = |figure| self.median(peer, figure);
        let runs = self.runs.of(peer).map(|(round, run)| run.json(round));
        json!({
            "peer": peer.name(),
            "rate_per_second": value(Figure::Rate),
            "rate_to_direct": self.ratio(peer, Some(Peer::Direct), Figure::Rate),
            "rate_to_best": self.to_best(peer, Figure::Rate),
            "p50_ms": value(Figure::P50Ms),
            "p99_ms": value(Figure::P99Ms),
            "max_ms": value(Figure::MaxMs),
            "cpu_us_per_unit": value(Figure::CpuPerUnit),
            "cpu_to_best": self.to_best(peer, Figure::CpuPerUnit),
            "pss_mib": value(Figure::PssMib),
            "private_bytes_per_session": value(Figure::PrivatePerSession),
            "private_to_best": self.to_best(peer, Figure::PrivatePerSession),
            "pss_bytes_per_session": value(Figure::PssPerSession),
            "wake_ups_per_second": value(Figure::WakeUps),
            "errors": self.errors(peer),
            "others_share_of_cores": value(Figure::Others),
            "runs": runs.collect::<Vec<_>>(),
        })
    }
}

impl Run {
    fn json(&self, round: u32) -> Value {
        json!({
            "round": round + 1,
            "seconds": self.seconds,
            "units": self.units,
            "p50_us": self.latency.map(|latency| latency.p50),
            "p99_us": self.latency.map(|latency| latency.p99),
            "max_us": self.latency.map(|latency| latency.max),
            "errors": self.errors,
            "proxy": self.proxy.as_ref().map(|proxy| json!({
                "cpu_ns": proxy.cpu,
                "ended_threads": proxy.ended_threads,
                "pss_kib": proxy.pss_kib,
                "private_kib": proxy.private_kib,
            })),
            "idle": self.idle.as_ref().map(|idle| json!({
                "sessions": idle.sessions,
                "pss_growth_kib": idle.pss_kib,
                "private_growth_kib": idle.private_kib,
                "wake_ups_per_second": idle.wake_ups,
            })),
            "others_share_of_cores": self.others,
        })
    }
}

const COLUMNS: [Column; 14] = [
    text("case"),
    text("peer"),
    text("unit"),
    figure("rate", "/s"),
    figure("rate", "/direct"),
    figure("rate", "/best"),
    figure("p50", "ms"),
    figure("p99", "ms"),
    figure("max", "ms"),
    figure("CPU", "us/unit"),
    figure("CPU", "/best"),
    figure("PSS", "MiB"),
    figure("others", "%"),
    figure("errors", ""),
];

const IDLE_COLUMNS: [Column; 9] = [
    text("case"),
    text("peer"),
    figure("private", "B/session"),
    figure("private", "/best"),
    figure("PSS", "B/session"),
    figure("PSS", "MiB"),
    figure("wake-ups", "/s"),
    figure("others", "%"),
    figure("errors", ""),
];

/// A table of what is done, and one of what only stays; neither when there is nothing in it.
pub(crate) fn tables(results: &[Measured]) -> Vec<String> {
    let of = |columns: &[Column], idle: bool| {
        let fitting = results.iter().filter(|result| (result.unit() == Unit::Idle) == idle);
        let block = |result: &Measured| result.runs.peers().map(|peer| result.cells(peer)).collect();
        let blocks: Vec<Vec<Vec<String>>> = fitting.map(block).collect();
        if blocks.iter().all(Vec::is_empty) { None } else { Some(table(columns, blocks)) }
    };
    [of(&COLUMNS, false), of(&IDLE_COLUMNS, true)].into_iter().flatten().collect()
}

/// All of it, with every run.
pub(crate) fn file(setup: &Value, results: &[Measured]) -> Value {
    json!({ "setup": setup, "cases": results.iter().map(Measured::json).collect::<Vec<_>>() })
}

/// Median and largest share of the cores that other programs used during the runs.
pub(crate) fn others(results: &[Measured]) -> (f64, f64) {
    figures::others(results.iter().flat_map(|result| result.runs.all()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_by_its_unit() {
        let proxy = Proxy { cpu: 50_000_000, ended_threads: 0, pss_kib: 2048, private_kib: 1024 };
        let run = Run { seconds: 2.0, units: 1000.0, proxy: Some(proxy), ..Run::default() };
        assert_eq!(Figure::Rate.of(&run), Some(500.0));
        assert_eq!(Figure::CpuPerUnit.of(&run), Some(50.0));
        assert_eq!(Figure::PssMib.of(&run), Some(2.0));
        assert_eq!(Figure::P50Ms.of(&run), None);
        assert_eq!(Figure::PrivatePerSession.of(&run), None);
    }

    #[test]
    fn memory_is_counted_by_session_and_nothing_by_no_unit() {
        let idle = Idle { sessions: 1000, pss_kib: 2000, private_kib: 1000, wake_ups: 3.5 };
        let run = Run { seconds: 2.0, idle: Some(idle), ..Run::default() };
        assert_eq!(Figure::PrivatePerSession.of(&run), Some(1024.0));
        assert_eq!(Figure::PssPerSession.of(&run), Some(2048.0));
        assert_eq!(Figure::WakeUps.of(&run), Some(3.5));
        assert_eq!(Figure::Rate.of(&run), None);
        assert_eq!(Figure::CpuPerUnit.of(&run), None);
    }
}
