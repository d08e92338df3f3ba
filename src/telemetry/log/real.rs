//! Numbers with a fraction.

use std::fmt::Write;

/// From here on a number is written as it is: more digits behind the point would be made up.
const LARGE: f64 = 1e9;
const MILLION: u64 = 1_000_000;

/// Adds a number, to 6 digits behind the point: a microsecond of a second. `whole` follows one that has none there. Adds
/// nothing, and says so, for what is not a number.
///
/// There are four in the line of each session. `std::fmt` would look for the shortest text that reads back the same, which
/// with so few digits is known.
pub(super) fn push_real(out: &mut String, number: f64, whole: &str) -> bool {
    if !number.is_finite() {
        return false;
    }
    if LARGE <= number.abs() {
        let _ = write!(out, "{number}{}", if number.fract() == 0.0 { whole } else { "" });
        return true;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole, and at most 10^15"
    )]
    let millionths = (number.abs() * 1e6).round() as u64;
    let mut digits = itoa::Buffer::new();
    if number.is_sign_negative() {
        out.push('-');
    }
    out.push_str(digits.format(millionths / MILLION));
    // With a one before them, or noughts at the beginning would be missing.
    let fraction =
        digits.format(MILLION + millionths % MILLION).trim_end_matches('0').get(1..).unwrap_or_default();
    if fraction.is_empty() {
        out.push_str(whole);
    } else {
        out.push('.');
        out.push_str(fraction);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(number: f64, whole: &str) -> String {
        let mut out = String::new();
        assert_eq!(push_real(&mut out, number, whole), !out.is_empty());
        out
    }

    #[test]
    fn a_number_has_a_point_where_it_must() {
        assert_eq!(text(0.0, ".0"), "0.0");
        assert_eq!(text(-12.0, ""), "-12");
        assert_eq!(text(0.000_001_4, ".0"), "0.000001");
        assert_eq!(text(12.402_000_04, ".0"), "12.402");
        assert_eq!(text(999_999_999.999_999_9, ".0"), "1000000000.0");
        assert_eq!(text(1e16, ".0"), "10000000000000000.0");
        assert_eq!(text(f64::NAN, ".0"), "");
    }

    proptest! {
        #[test]
        fn it_is_the_shortest_text(number in prop_oneof![-1e9..1e9, -10.0..10.0, -1e-5..1e-5]) {
            prop_assert_eq!(text(number, ""), ((number * 1e6_f64).round() / 1e6).to_string());
        }
    }
}
