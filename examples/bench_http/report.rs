//! From the runs to figures: medians, ratios, a table, a file.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

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

/// The runs of one case: by peer, by round.
pub(crate) type Runs = BTreeMap<Peer, BTreeMap<u32, Run>>;

/// A case with its runs.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) connections: u32,
    /// Whether the answers are large enough for figures by size.
    pub(crate) large: bool,
    pub(crate) logs: bool,
    pub(crate) runs: Runs,
}

impl Measured {
    fn median(&self, peer: Peer, figure: Figure) -> Option<f64> {
        median(self.runs.get(&peer)?.values().filter_map(|run| figure.of(run)).collect())
    }

    /// The median over the rounds of what this peer had as a multiple of what the other had in the same round. A
    /// machine that is slower for a while is so for both.
    fn ratio(&self, peer: Peer, other: Option<Peer>, figure: Figure) -> Option<f64> {
        let others = self.runs.get(&other?)?;
        let of_round = |(round, run): (&u32, &Run)| Some(figure.of(run)? / figure.of(others.get(round)?)?);
        median(self.runs.get(&peer)?.iter().filter_map(of_round).collect())
    }

    /// The proxy with the most requests, and the one with the least work for them.
    fn best(&self, figure: Figure) -> Option<Peer> {
        let proxies = self.runs.keys().filter(|peer| peer.is_proxy());
        let of_all = proxies.filter_map(|&peer| Some((self.median(peer, figure)?, peer)));
        let better = |a: &(f64, Peer), b: &(f64, Peer)| a.0.total_cmp(&b.0);
        let best = match figure {
            Figure::RequestsPerSecond => of_all.max_by(better),
            _ => of_all.min_by(better),
        };
        best.map(|(_, peer)| peer)
    }

    /// For large answers the size counts, because half an answer at the end is work too.
    fn cpu(&self) -> Figure {
        if self.large { Figure::CpuPerMebibyte } else { Figure::CpuPerRequest }
    }

    pub(crate) fn errors(&self, peer: Peer) -> u64 {
        self.runs.get(&peer).map_or(0, |runs| runs.values().map(|run| run.errors).sum())
    }

    /// The fewest lines of a log for each request, where there is a log.
    pub(crate) fn lines_per_request(&self, peer: Peer) -> Option<f64> {
        let runs = self.runs.get(&peer).filter(|_| self.logs)?;
        let of_run = |run: &Run| Some(run.proxy.as_ref()?.log_lines as f64 / run.requests as f64);
        runs.values().filter_map(of_run).min_by(f64::total_cmp)
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
        let peers: Vec<Value> = self.runs.keys().map(|&peer| self.json_of(peer)).collect();
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
        let runs = self.runs.get(&peer).into_iter().flatten().map(|(round, run)| {
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
const NOTHING: &str = "-";
/// Two lines; the second says of what, or compared with whom.
const HEADS: [(&str, &str); 16] = [
    ("case", ""),
    ("peer", ""),
    ("req/s", ""),
    ("req/s", "/nginx"),
    ("req/s", "/best"),
    ("p50", "ms"),
    ("p99", "ms"),
    ("CPU", "us/req"),
    ("CPU", "us/MiB"),
    ("CPU", "/nginx"),
    ("CPU", "/best"),
    ("backend", "us/req"),
    ("RSS", "MiB"),
    ("PSS", "MiB"),
    ("others", "%"),
    ("errors", ""),
];

/// The aligned table.
pub(crate) fn table(results: &[Measured]) -> String {
    let heads = [HEADS.map(|head| head.0.to_owned()).to_vec(), HEADS.map(|head| head.1.to_owned()).to_vec()];
    let mut blocks = vec![heads.to_vec()];
    blocks.extend(results.iter().map(|result| result.runs.keys().map(|&peer| result.cells(peer)).collect()));
    let width = |column: usize| {
        let cells = blocks.iter().flatten().filter_map(|row: &Vec<String>| row.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
    let mut text = String::new();
    for block in &blocks {
        for row in block {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = if column < 2 {
                    write!(line, "{cell:<width$}  ")
                } else {
                    write!(line, "{cell:>width$}  ")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

/// All of it, with every run.
pub(crate) fn file(setup: &Value, results: &[Measured]) -> Value {
    json!({ "setup": setup, "cases": results.iter().map(Measured::json).collect::<Vec<_>>() })
}

/// Median and largest share of the cores that other programs used during the runs.
pub(crate) fn others(results: &[Measured]) -> (f64, f64) {
    let runs = results.iter().flat_map(|result| result.runs.values()).flat_map(BTreeMap::values);
    let shares: Vec<f64> = runs.map(|run| run.others).collect();
    let most = shares.iter().copied().fold(0.0, f64::max);
    (median(shares).unwrap_or(0.0), most)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

fn shown(value: Option<f64>, form: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| NOTHING.to_owned(), form)
}

/// Three digits that mean something, no fewer before the point than there are.
fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        value if value >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}
