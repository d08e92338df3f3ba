//! Tables for a terminal: as wide as it is, less important columns left out where there is no room.

use crate::base::text::escaped;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub head: &'static str,
    /// Numbers stand on the right.
    pub on_right: bool,
    /// 0: always there; of the others the one with the highest is left out first.
    pub rank: u8,
}

/// What stands in a column.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    paint: Paint,
}

/// How a cell looks where there are colours; what it means is in its words as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Good,
    Bad,
    Odd,
}

/// How wide a table may be, and whether it has colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    pub width: usize,
    pub has_colours: bool,
}

impl Cell {
    /// Whatever the text is, it stays in its cell.
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self { text: escaped(text.as_ref().as_bytes(), 200), paint: Paint::Plain }
    }

    pub(super) fn painted(text: impl AsRef<str>, paint: Paint) -> Self {
        Self { paint, ..Self::new(text) }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl Paint {
    /// `text` in this colour.
    pub(super) fn on(self, text: &str, screen: Screen) -> String {
        let code = match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Odd => "33",
            Self::Plain => return text.to_owned(),
        };
        if screen.has_colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

pub(super) const fn left(head: &'static str, rank: u8) -> Column {
    Column { head, on_right: false, rank }
}

pub(super) const fn right(head: &'static str, rank: u8) -> Column {
    Column { head, on_right: true, rank }
}

/// The table, a line for its head and one for each of `rows`. The last column that is left is cut where it must be.
pub(super) fn table(columns: &[Column], rows: &[Vec<Cell>], screen: Screen) -> String {
    const GAP: usize = 2;
    /// Enough for the cause of most faults.
    const LAST: usize = 28;
    let width_of = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(Cell::width);
        let head = columns.get(index).map_or(0, |column| column.head.chars().count());
        cells.fold(head, usize::max)
    };
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    // The last column may be cut to this before others are left out for it.
    let needed = |shown: &[usize]| -> usize {
        let last = shown.last().copied();
        let widths = shown
            .iter()
            .map(|&index| if Some(index) == last { width_of(index).min(LAST) } else { width_of(index) });
        widths.sum::<usize>() + GAP * shown.len().saturating_sub(1)
    };
    while screen.width < needed(&shown) {
        let rank = |index: &usize| columns.get(*index).map_or(0, |column| column.rank);
        let Some(least) = shown.iter().copied().max_by_key(rank).filter(|index| 0 < rank(index)) else {
            break;
        };
        shown.retain(|index| *index != least);
    }
    let mut out = String::new();
    let heads: Vec<Cell> = columns.iter().map(|column| Cell::new(column.head)).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        let mut used = 0;
        for (nth, &index) in shown.iter().enumerate() {
            let (Some(column), Some(cell)) = (columns.get(index), row.get(index)) else { continue };
            let is_last = nth + 1 == shown.len();
            let mut text = cell.text.clone();
            if is_last {
                let room = screen.width.saturating_sub(used).max(1);
                if room < cell.width() {
                    text = text.chars().take(room.saturating_sub(1)).chain(['…']).collect();
                }
            }
            let width = width_of(index);
            let pad = " ".repeat(width.saturating_sub(text.chars().count()));
            let text = cell.paint.on(&text, screen);
            let (before, after) = if column.on_right { (pad, String::new()) } else { (String::new(), pad) };
            line.extend([before, text, after]);
            if !is_last {
                line.push_str("  ");
            }
            used += width + GAP;
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] =
        [left("NODE", 0), left("ADDRESS", 2), right("SESSIONS", 1), left("CHECK", 0)];

    fn rows() -> Vec<Vec<Cell>> {
        let row = |cells: [&str; 4]| cells.map(Cell::new).to_vec();
        vec![
            row(["db1", "10.0.0.11:5432", "3", "login ok"]),
            row(["db2", "10.0.0.12:5432", "112", "connect: connection refused by the host"]),
        ]
    }

    fn plain(width: usize) -> String {
        table(&COLUMNS, &rows(), Screen { width, has_colours: false })
    }

    #[test]
    fn a_wide_one_shows_all() {
        let expected = "\
NODE  ADDRESS         SESSIONS  CHECK
db1   10.0.0.11:5432         3  login ok
db2   10.0.0.12:5432       112  connect: connection refused by the host
";
        assert_eq!(plain(80), expected);
    }

    #[test]
    fn a_narrow_one_leaves_out_what_matters_least() {
        for (width, has_address, has_sessions) in [(60, true, true), (50, false, true), (30, false, false)] {
            let text = plain(width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            let shown = (text.contains("ADDRESS"), text.contains("SESSIONS"), text.contains('…'));
            assert_eq!(shown, (has_address, has_sessions, true), "{width}:\n{text}");
        }
        assert!(plain(1).contains("db1"), "what is always there stays");
    }

    #[test]
    fn nothing_breaks_out_of_a_cell() {
        let row =
            vec![Cell::new("a\x1b[2Jb\nc"), Cell::new(""), Cell::new(""), Cell::painted("up", Paint::Good)];
        let text = table(&COLUMNS, &[row], Screen { width: 80, has_colours: true });
        assert!(text.contains("a\\x1b[2Jb\\x0ac") && text.contains("\x1b[32mup\x1b[0m"), "{text}");
        assert_eq!(text.lines().count(), 2);
    }
}
