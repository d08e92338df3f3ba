//! Times and sizes in a few characters.

use std::time::{Duration, SystemTime};

use crate::base::text::harmless_json;

/// `12 s`, `41 m`, `3h 4m`, `3d 4h`.
pub(super) fn time(seconds: f64) -> String {
    // Negative where two clocks differ.
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} m"),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// How long ago a time of RFC 3339 was; empty where it is none.
pub(super) fn ago(at: &str) -> String {
    seconds_since(at).map(time).unwrap_or_default()
}

pub(super) fn seconds_since(at: &str) -> Option<f64> {
    let at = humantime::parse_rfc3339(at).ok()?;
    Some(SystemTime::now().duration_since(at).unwrap_or_default().as_secs_f64())
}

/// `1.2 ms`, `2.5 s`.
pub(super) fn short(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.1} s") }
}

/// `512 B`, `4.1 KiB`.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

/// JSON on one line, for programs; on a terminal it is harmless.
pub(super) fn json(value: &serde_json::Value) -> String {
    harmless_json(&value.to_string())
}

/// `1 session`, `2 sessions`.
pub(super) fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, expected) in [
            (-3.0, "0 s"),
            (59.9, "59 s"),
            (61.0, "1 m"),
            (3661.0, "1h 1m"),
            (273_600.0, "3d 4h"),
            (f64::NAN, "0 s"),
        ] {
            assert_eq!(time(seconds), expected);
        }
        assert_eq!((short(0.0012), short(2.5)), ("1.2 ms".to_owned(), "2.5 s".to_owned()));
        assert_eq!(ago("yesterday"), "");
        assert_eq!(
            (count(1, "session"), count(0, "session")),
            ("1 session".to_owned(), "0 sessions".to_owned())
        );
    }
}
