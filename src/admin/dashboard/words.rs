//! Figures as a person reads them. Pure; `app.js` says them in the same words, which a test compares.

use std::time::{Duration, SystemTime};

use crate::admin::verdict;

/// What stands where nothing is known.
pub(super) const UNKNOWN: &str = "–";
/// Between groups of three digits: narrow, and no place to break a line.
const GAP: char = '\u{202f}';
const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// A number of things: `12 345`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.char_indices() {
        if 0 < at && (digits.len() - at).is_multiple_of(3) {
            out.push(GAP);
        }
        out.push(digit);
    }
    out
}

/// How many there are, as `usize`.
pub(super) fn many(n: usize) -> String {
    count(u64::try_from(n).unwrap_or(u64::MAX))
}

/// How many come in a second: `0`, `0.4`, `12`.
pub(super) fn rate(per_second: f64) -> String {
    if 10.0 <= per_second {
        return format!("{:.0}", per_second.floor());
    }
    let text = format!("{per_second:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// An amount of data: `512 B`, `1.2 KiB`.
pub(super) fn bytes(n: u64) -> String {
    let mut unit = 0;
    let mut whole = n;
    let mut rest = 0;
    while 1024 <= whole && unit + 1 < UNITS.len() {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 || 10 <= whole {
        return format!("{whole} {name}");
    }
    format!("{whole}.{} {name}", rest * 10 / 1024)
}

/// A short time: `0.8 ms`, `12 ms`, `1.2 s`.
pub(super) fn span(seconds: f64) -> String {
    let ms = seconds * 1e3;
    match ms {
        ..10.0 => format!("{ms:.1} ms"),
        ..1000.0 => format!("{:.0} ms", ms.floor()),
        _ => format!("{seconds:.1} s"),
    }
}

/// How long something has lasted: `12 s`, `5 min`, `3 h`, `4 d`.
pub(super) fn age(seconds: f64) -> String {
    verdict::age(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// How long it has been since a time in the words of RFC 3339.
pub(super) fn since(at: &str, now: SystemTime) -> String {
    let at = humantime::parse_rfc3339(at).unwrap_or(now);
    verdict::age(now.duration_since(at).unwrap_or_default())
}

/// The hour of the day in such a time, in UTC: `10:02:11`.
pub(super) fn hour(at: &str) -> &str {
    at.get(11..19).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]
        );
        assert_eq!([0.0, 0.44, 9.9, 10.6, 1200.0].map(rate), ["0", "0.4", "9.9", "10", "1200"]);
        let amounts = [0, 1023, 1024, 1_290, 10_240, 1 << 20, u64::MAX].map(bytes);
        assert_eq!(amounts, ["0 B", "1023 B", "1.0 KiB", "1.2 KiB", "10 KiB", "1.0 MiB", "16777215 TiB"]);
        let spans = [0.0, 0.00084, 0.0123, 0.9999, 1.25].map(span);
        assert_eq!(spans, ["0.0 ms", "0.8 ms", "12 ms", "999 ms", "1.2 s"]);
        assert_eq!([0.9, 119.0, 7199.0, -1.0].map(age), ["0 s", "119 s", "119 min", "0 s"]);
    }

    #[test]
    fn times_are_told_from_now() {
        let now = humantime::parse_rfc3339("2026-11-21T10:02:11Z").unwrap();
        assert_eq!(since("2026-11-21T10:01:59.500Z", now), "11 s");
        assert_eq!(since("2026-11-21T10:02:12Z", now), "0 s");
        assert_eq!(hour("2026-11-21T10:02:11.482Z"), "10:02:11");
        assert_eq!(hour("?"), "?");
    }
}
