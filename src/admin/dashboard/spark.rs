//! The line of the last minutes in a card. Pure; `app.js` draws it the same way when news come.

use std::fmt::Write;

/// Seconds that a line shows.
pub(super) const WIDTH: usize = 300;
/// Its height.
pub(super) const HEIGHT: u64 = 40;

/// The path of a line through these figures, one a second, the latest at the right edge; nothing where there are fewer than two.
pub(super) fn line(figures: &[u64]) -> String {
    let figures = figures.get(figures.len().saturating_sub(WIDTH)..).unwrap_or_default();
    let mut path = String::new();
    if figures.len() < 2 {
        return path;
    }
    let most = figures.iter().copied().max().unwrap_or(0).max(1);
    let first = WIDTH - figures.len();
    for (at, figure) in figures.iter().enumerate() {
        let letter = if at == 0 { 'M' } else { 'L' };
        // In tenths; a line at the very edge would be cut in half.
        let height = u128::from(HEIGHT - 4) * 10 * u128::from(*figure) / u128::from(most);
        let y = u128::from(HEIGHT - 2) * 10 - height;
        let _ = write!(path, "{letter}{} {}.{}", first + at, y / 10, y % 10);
    }
    path
}

/// The same, closed along the bottom.
pub(super) fn area(figures: &[u64]) -> String {
    let line = line(figures);
    if line.is_empty() {
        return line;
    }
    let first = WIDTH - figures.len().min(WIDTH);
    format!("{line}L{} {HEIGHT}L{first} {HEIGHT}Z", WIDTH - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_the_right_and_its_highest_point_is_on_top() {
        assert_eq!(line(&[0, 1, 2]), "M297 38.0L298 20.0L299 2.0");
        assert_eq!(area(&[0, 2]), "M298 38.0L299 2.0L299 40L298 40Z");
        assert_eq!(line(&[0, 0]), "M298 38.0L299 38.0", "nothing lies on the ground");
        assert_eq!((line(&[7]), area(&[])), (String::new(), String::new()));
        let long = line(&vec![u64::MAX; 400]);
        assert!(long.starts_with("M0 2.0L1 2.0") && long.ends_with("L299 2.0"));
    }
}
