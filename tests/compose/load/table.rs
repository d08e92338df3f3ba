//! The counts as text.

use std::fmt::Write as _;
use std::time::Duration;

use crate::ledger::{Kind, Summary, Tally};

const HEAD: [&str; 10] =
    ["step", "kind", "sent", "failed", "cut/retried", "longest gap", "first answer", "per s", "p50", "p99"];
/// Columns of words, which begin at their left; numbers end at their right.
const WORDS: usize = 2;

/// All there is to see at the end.
pub(crate) fn of(steps: &[Summary], total: &Summary) -> String {
    // One step is its own total.
    let sums: Vec<&Summary> = if steps.len() > 1 { vec![total] } else { Vec::new() };
    let all: Vec<&Summary> = steps.iter().chain(sums).collect();
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    let mut sources =
        vec![["step", "kind", "good answers by upstream | by database"].map(str::to_owned).to_vec()];
    for step in all {
        for (kind, tally) in &step.tallies {
            rows.push(row(step, *kind, tally));
            sources.push(vec![step.name.clone(), kind.to_string(), sources_of(*kind, tally)]);
        }
    }
    let mut text = format!("\n{}\n{}", aligned(&rows, WORDS), aligned(&sources, 3));
    for (kind, tally) in &total.tallies {
        if !tally.reasons.0.is_empty() {
            let what = if *kind == Kind::Write { "retried" } else { "cut" };
            let refused =
                if tally.refused > 0 { format!(", {} at login", tally.refused) } else { String::new() };
            let _ = write!(text, "\n{kind}s {what}{refused}: {}", tally.reasons);
        }
        if tally.impossible > 0 {
            let _ = write!(text, "\nFAULT: {} writes were acknowledged by a standby", tally.impossible);
        }
    }
    text
}

fn row(step: &Summary, kind: Kind, tally: &Tally) -> Vec<String> {
    let or_none = |time: Option<String>| time.unwrap_or_else(|| "-".to_owned());
    vec![
        step.name.clone(),
        kind.to_string(),
        tally.sent.to_string(),
        tally.failed.to_string(),
        (tally.cut + tally.retried).to_string(),
        seconds(tally.longest_gap),
        or_none(tally.first.map(seconds)),
        format!("{:.0}/s", per_second(tally.ok, step.length)),
        or_none(tally.latencies.percentile(50).map(short)),
        or_none(tally.latencies.percentile(99).map(short)),
    ]
}

fn sources_of(kind: Kind, tally: &Tally) -> String {
    match kind {
        Kind::Get | Kind::Post if tally.databases.0.is_empty() => tally.upstreams.to_string(),
        Kind::Get | Kind::Post => format!("{} | {}", tally.upstreams, tally.databases),
        Kind::Read | Kind::Write => tally.databases.to_string(),
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts that a run can reach are exact")]
pub(crate) fn per_second(count: u64, length: Duration) -> f64 {
    if length.is_zero() { 0.0 } else { count as f64 / length.as_secs_f64() }
}

fn seconds(time: Duration) -> String {
    let digits = if time < Duration::from_millis(100) { 3 } else { 2 };
    format!("{:.digits$} s", time.as_secs_f64())
}

/// With the unit that fits.
pub(crate) fn short(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    match ms {
        ..10.0 => format!("{ms:.1} ms"),
        ..1000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1000.0),
    }
}

/// The first `words` columns begin at their left, the others end at their right.
fn aligned(rows: &[Vec<String>], words: usize) -> String {
    let length = |text: &String| text.chars().count();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column| rows.iter().filter_map(|row| row.get(column)).map(length).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, &width))| {
            if at < words { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{of, seconds, short};
    use crate::ledger::{Kind, Ledger, Source};
    use std::time::Duration;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn times_are_short() {
        assert_eq!([short(ms(1)), short(ms(12)), short(ms(1250))], ["1.0 ms", "12 ms", "1.25 s"]);
        assert_eq!([seconds(ms(2)), seconds(ms(310))], ["0.002 s", "0.31 s"]);
    }

    #[test]
    fn table_of_two_steps() {
        let mut ledger = Ledger::new(&[Kind::Get], "start");
        let source = |upstream: &str, database: Option<&str>| Source {
            status: Some(200),
            upstream: Some(upstream.to_owned()),
            database: database.map(str::to_owned),
            standby: None,
        };
        let begun = ledger.begin(Kind::Get, ms(1));
        ledger.good(begun, ms(3), &source("users1", Some("db")));
        ledger.step("kill db", ms(1000));
        let begun = ledger.begin(Kind::Get, ms(1000));
        ledger.good(begun, ms(1310), &source("cache", None));
        let begun = ledger.begin(Kind::Get, ms(1311));
        ledger.failed(begun, Some(503), "503");
        ledger.end(ms(2000));
        let expected = "
step     kind  sent  failed  cut/retried  longest gap  first answer  per s     p50     p99
start    get      1       0            0       1.00 s       0.003 s    1/s  2.0 ms  2.0 ms
kill db  get      2       1            0       0.69 s        0.31 s    1/s  310 ms  310 ms
total    get      3       1            0       1.31 s       0.003 s    1/s  2.0 ms  310 ms

step     kind  good answers by upstream | by database
start    get   users1 1 | db 1
kill db  get   cache 1
total    get   cache 1, users1 1 | db 1
";
        assert_eq!(of(&ledger.summaries(), &ledger.total()), expected);
    }
}
