//! The counts as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::ledger::{Kind, Summary, Tally};
use crate::table::per_second;

pub(crate) fn of(steps: &[Summary], total: &Summary) -> Value {
    let of_step = |step: &Summary| {
        json!({
            "name": step.name,
            "begun_s": seconds(step.begun),
            "seconds": seconds(step.length),
            "kinds": kinds(step),
        })
    };
    json!({
        "steps": steps.iter().map(of_step).collect::<Vec<_>>(),
        "seconds": seconds(total.length),
        "total": kinds(total),
    })
}

/// Writes `report` to `file`.
pub(crate) fn save(file: &Path, report: &Value) -> Result<(), String> {
    fs::write(file, format!("{report:#}\n")).map_err(|error| format!("--report {}: {error}", file.display()))
}

fn kinds(step: &Summary) -> BTreeMap<String, Value> {
    let of_kind = |(kind, tally): (&Kind, &Tally)| (kind.to_string(), of_tally(tally, step.length));
    step.tallies.iter().map(of_kind).collect()
}

fn of_tally(tally: &Tally, length: Duration) -> Value {
    json!({
        "sent": tally.sent,
        "ok": tally.ok,
        "failed": tally.failed,
        "cut": tally.cut,
        "retried": tally.retried,
        "refused": tally.refused,
        "reopened": tally.reopened,
        "impossible": tally.impossible,
        "longest_gap_s": seconds(tally.longest_gap),
        "first_s": tally.first.map(seconds),
        "per_s": rounded(per_second(tally.ok, length)),
        "p50_ms": tally.latencies.percentile(50).map(millis),
        "p99_ms": tally.latencies.percentile(99).map(millis),
        "max_ms": tally.latencies.max().map(millis),
        "statuses": tally.statuses.0,
        "upstreams": tally.upstreams.0,
        "databases": tally.databases.0,
        "roles": tally.roles.0,
        "reasons": tally.reasons.0,
        "errors": tally.errors,
    })
}

pub(crate) fn seconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64())
}

pub(crate) fn millis(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1000.0)
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
