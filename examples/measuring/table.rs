//! An aligned table.

use std::fmt::Write;

/// In a cell without a figure.
pub(crate) const NOTHING: &str = "-";

/// A column: its head, and below it of what its figures are or compared with whom.
pub(crate) struct Column {
    pub(crate) head: &'static str,
    pub(crate) unit: &'static str,
    /// Texts stand to the left, figures to the right.
    pub(crate) is_text: bool,
}

pub(crate) const fn text(head: &'static str) -> Column {
    Column { head, unit: "", is_text: true }
}

pub(crate) const fn figure(head: &'static str, unit: &'static str) -> Column {
    Column { head, unit, is_text: false }
}

/// Blocks of rows, with an empty line between two of them.
pub(crate) fn table(columns: &[Column], blocks: Vec<Vec<Vec<String>>>) -> String {
    let line = |of: fn(&Column) -> &str| columns.iter().map(|column| of(column).to_owned()).collect();
    let heads = vec![line(|column| column.head), line(|column| column.unit)];
    let blocks: Vec<Vec<Vec<String>>> = std::iter::once(heads).chain(blocks).collect();
    let width = |column: usize| {
        let cells = blocks.iter().flatten().filter_map(|row| row.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for block in blocks.iter().filter(|block| !block.is_empty()) {
        for row in block {
            let mut line = String::new();
            for ((column, cell), width) in columns.iter().zip(row).zip(&widths) {
                let _ = if column.is_text {
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

/// A figure, or that there is none.
pub(crate) fn shown(value: Option<f64>, form: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| NOTHING.to_owned(), form)
}

/// Three digits that mean something, no fewer before the point than there are.
pub(crate) fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        value if value >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_to_the_left_and_figures_to_the_right() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let found = table(
            &[text("peer"), figure("rate", "/s")],
            vec![vec![row("a", "1")], vec![], vec![row("longer", "10000")]],
        );
        assert_eq!(found, "peer     rate\n           /s\n\na           1\n\nlonger  10000");
    }

    #[test]
    fn three_digits_count() {
        for (value, expected) in
            [(0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1234.5, "1234")]
        {
            assert_eq!(significant(value), expected);
        }
    }
}
