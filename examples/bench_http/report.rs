//! From the runs to figures: medians, ratios, a table, a file.

use serde_json::{Value, json};

use crate::measuring::figures::{self, Better, Compared};
use crate::measuring::table::{self, Column, NOTHING, figure, shown, significant, text};
use crate::peers::Peer;

/// What one run of a case against a peer measured.
pub(crate) struct Run {
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) errors: u64,
    /// Of the proxy; `None` without one.
    pub(crate) proxy: Option<Proxy>,
    /// Nanoseconds on a CPU.
    pub(crate) backend_cpu: u64,
    /// The same of the program that asks.
    pub(crate) client_cpu: u64,
    /// Share of all cores that was used by programs that have nothing to do with this.
    pub(crate) others: f64,
}

impl figures::Run for Run {
    fn others(&self) -> f64 {
        self.others
    }

    fn errors(&mut self) -> &mut u64 {
        &mut self.errors
    }
}

/// What a proxy used for a run.
pub(crate) struct Proxy {
    /// Nanoseconds on a CPU.
    pub(crate) cpu: u64,
    pub(crate) rss_kib: u64,
    pub(crate) pss_kib: u64,
    /// Written for these requests.
    pub(crate) log_lines: u64,
}

/// A figure that is compared.
#[derive(Clone, Copy)]
enum Figure {
    RequestsPerSecond,
    P50Ms,
    P99Ms,
    CpuPerRequest,
    CpuPerMebibyte,
    BackendCpuPerRequest,
    RssMib,
    PssMib,
    Others,
}

impl Figure {
    fn of(self, run: &Run) -> Option<f64> {
        let requests = run.requests as f64;
        let mebibytes = run.bytes as f64 / f64::from(1 << 20);
        let us = |ns: u64| ns as f64 / 1e3;
        let proxy = run.proxy.as_ref();
        let value = match self {
            Self::RequestsPerSecond => requests / run.seconds,
            Self::P50Ms => us(run.p50_us),
            Self::P99Ms => us(run.p99_us),
            Self::CpuPerRequest => us(proxy?.cpu) / requests,
            Self::CpuPerMebibyte => us(proxy?.cpu) / mebibytes,
            Self::BackendCpuPerRequest => us(run.backend_cpu) / requests,
            Self::RssMib => proxy?.rss_kib as f64 / 1024.0,
            Self::PssMib => proxy?.pss_kib as f64 / 1024.0,
            Self::Others => run.others,
        };
        Some(value).filter(|value| value.is_finite())
    }
}

/// A case with its runs.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) connections: u32,
    /// Whether the answers are large enough for figures by size.
    pub(crate) large: bool,
    pub(crate) logs: bool,
    pub(crate) runs: Compared<Peer, Run>,
}

impl Measured {
    fn median(&self, peer: Peer, figure: Figure) -> Option<f64> {
        self.runs.median(peer, |run| figure.of(run))
    }

    fn ratio(&self, peer: Peer, other: Option<Peer>, figure: Figure) -> Option<f64> {
        self.runs.ratio(peer, other, |run| figure.of(run))
    }

    /// The proxy with the most requests, and the one with the least work for them.
    fn best(&self, figure: Figure) -> Option<Peer> {
        let better = match figure {
            Figure::RequestsPerSecond => Better::More,
            _ => Better::Less,
        };
        self.runs.best(better, Peer::is_proxy, |run| figure.of(run))
    }

    /// For large answers the size counts, because half an answer at the end is work too.
    fn cpu(&self) -> Figure {
        if self.large { Figure::CpuPerMebibyte } else { Figure::CpuPerRequest }
    }

    pub(crate) fn errors(&self, peer: Peer) -> u64 {
        self.runs.of(peer).map(|(_, run)| run.errors).sum()
    }

    /// The fewest lines of a log for each request, where there is a log.
    pub(crate) fn lines_per_request(&self, peer: Peer) -> Option<f64> {
        let of_run = |run: &Run| Some(run.proxy.as_ref()?.log_lines as f64 / run.requests as f64);
        let of_all = self.runs.of(peer).filter(|_| self.logs).filter_map(|(_, run)| of_run(run));
        of_all.min_by(f64::total_cmp)
    }

    fn cells(&self, peer: Peer) -> Vec<String> {
        let value = |figure| shown(self.median(peer, figure), significant);
        let ratio = |other, figure| shown(self.ratio(peer, other, figure), |ratio| format!("{ratio:.2}"));
        // The best of the proxies; what comes without one is not among them.
        let to_best = |figure| ratio(self.best(figure).filter(|_| peer.is_proxy()), figure);
        let throughput = Figure::RequestsPerSecond;
        let mebibyte = if self.large { value(Figure::CpuPerMebibyte) } else { NOTHING.to_owned() };
        vec![
            self.name.to_owned(),
            peer.name().to_owned(),
            value(throughput),
            ratio(NGINX, throughput),
            to_best(throughput),
            value(Figure::P50Ms),
            value(Figure::P99Ms),
            value(Figure::CpuPerRequest),
            mebibyte,
            ratio(NGINX, self.cpu()),
            to_best(self.cpu()),
            value(Figure::BackendCpuPerRequest),
            value(Figure::RssMib),
            value(Figure::PssMib),
            shown(self.median(peer, Figure::Others), |share| format!("{:.0}", share * 100.0)),
            self.errors(peer).to_string(),
        ]
    }

    fn json(&self) -> Value {
        let peers: Vec<Value> = self.runs.peers().map(|peer| self.json_of(peer)).collect();
        json!({
            "case": self.name,
            "connections": self.connections,
            "answer_bytes": if self.large { 1 << 20 } else { 1 << 10 },
            "request_logs": self.logs,
            "peers": peers,
        })
    }

    fn json_of(&self, peer: Peer) -> Value {
        let value = |figure| self.median(peer, figure);
        let best = |figure| self.best(figure).map(Peer::name);
        let ratio = |other, figure| self.ratio(peer, other, figure);
        let throughput = Figure::RequestsPerSecond;
        let runs = self.runs.of(peer).map(|(round, run)| {
            let proxy = run.proxy.as_ref().map(|proxy| {
                json!({
                    "cpu_ns": proxy.cpu,
                    "rss_kib": proxy.rss_kib,
                    "pss_kib": proxy.pss_kib,
                    "log_lines": proxy.log_lines,
                })
            });
            json!({
                "round": round + 1,
                "seconds": run.seconds,
                "requests": run.requests,
                "bytes": run.bytes,
                "p50_us": run.p50_us,
                "p99_us": run.p99_us,
                "errors": run.errors,
                "proxy": proxy,
                "backend_cpu_ns": run.backend_cpu,
                "client_cpu_ns": run.client_cpu,
                "others_share_of_cores": run.others,
            })
        });
        json!({
            "peer": peer.name(),
            "requests_per_second": value(throughput),
            "requests_per_second_to_nginx": ratio(NGINX, throughput),
            "requests_per_second_to_best": ratio(self.best(throughput), throughput),
            "best_by_requests": best(throughput),
            "p50_ms": value(Figure::P50Ms),
            "p99_ms": value(Figure::P99Ms),
            "cpu_us_per_request": value(Figure::CpuPerRequest),
            "cpu_us_per_mebibyte": value(Figure::CpuPerMebibyte).filter(|_| self.large),
            "cpu_to_nginx": ratio(NGINX, self.cpu()),
            "cpu_to_best": ratio(self.best(self.cpu()), self.cpu()),
            "best_by_cpu": best(self.cpu()),
            "backend_cpu_us_per_request": value(Figure::BackendCpuPerRequest),
            "rss_mib": value(Figure::RssMib),
            "pss_mib": value(Figure::PssMib),
            "errors": self.errors(peer),
            "others_share_of_cores": value(Figure::Others),
            "runs": runs.collect::<Vec<_>>(),
        })
    }
}

const NGINX: Option<Peer> = Some(Peer::Nginx);
const COLUMNS: [Column; 16] = [
    text("case"),
    text("peer"),
    figure("req/s", ""),
    figure("req/s", "/nginx"),
    figure("req/s", "/best"),
    figure("p50", "ms"),
    figure("p99", "ms"),
    figure("CPU", "us/req"),
    figure("CPU", "us/MiB"),
    figure("CPU", "/nginx"),
    figure("CPU", "/best"),
    figure("backend", "us/req"),
    figure("RSS", "MiB"),
    figure("PSS", "MiB"),
    figure("others", "%"),
    figure("errors", ""),
];

/// The aligned table, a block for each case.
pub(crate) fn table(results: &[Measured]) -> String {
    let block = |result: &Measured| result.runs.peers().map(|peer| result.cells(peer)).collect();
    table::table(&COLUMNS, results.iter().map(block).collect())
}

/// All of it, with every run.
pub(crate) fn file(setup: &Value, results: &[Measured]) -> Value {
    json!({ "setup": setup, "cases": results.iter().map(Measured::json).collect::<Vec<_>>() })
}

/// Median and largest share of the cores that other programs used during the runs.
pub(crate) fn others(results: &[Measured]) -> (f64, f64) {
    figures::others(results.iter().flat_map(|result| result.runs.all()))
}
