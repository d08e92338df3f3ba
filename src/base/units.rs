//! Times and sizes as people write them.

use std::time::Duration;

/// Reads a time with its unit (`500ms`, `2s`, `1m30s`, `1h`); `0` alone means off.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{text}` has no unit: did you mean {text}s or {text}ms?"));
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is not a time such as 500ms, 2s or 1m: {error}"))
}

/// Reads a size with its unit (`512KiB`, `1MiB`, `10MB`); a plain number is bytes.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let size: bytesize::ByteSize =
        text.trim().parse().map_err(|_| format!("`{text}` is not a size such as 16KiB or 1MiB"))?;
    Ok(size.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_its_unit() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("2").unwrap_err(), "`2` has no unit: did you mean 2s or 2ms?");
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("").is_err());
    }

    #[test]
    fn a_size_may_have_one() {
        assert_eq!(parse_size("16KiB"), Ok(16 * 1024));
        assert_eq!(parse_size("100"), Ok(100));
        assert!(parse_size("many").is_err());
    }
}
