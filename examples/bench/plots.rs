//! Bars for people in a hurry: one file for each kind of figure, readable on a light and on a dark page.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::prelude::{DrawingArea, IntoDrawingArea, Rectangle, SVGBackend, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, IntoTextStyle, RGBColor, TextStyle};

use crate::cases::Unit;
use crate::measuring::table::significant;
use crate::peers::Peer;
use crate::report::{Figure, Measured};

/// A figure of all cases with a unit.
struct Plot {
    file: &'static str,
    title: &'static str,
    unit: Unit,
    figure: Figure,
}

const PLOTS: [Plot; 5] = [
    Plot {
        file: "cpu-transaction.svg",
        title: "CPU time of the proxy for a transaction, \u{b5}s (less is better)",
        unit: Unit::Transaction,
        figure: Figure::CpuPerUnit,
    },
    Plot {
        file: "p99-transaction.svg",
        title: "Slowest transaction of a hundred, ms (less is better)",
        unit: Unit::Transaction,
        figure: Figure::P99Ms,
    },
    Plot {
        file: "cpu-session.svg",
        title: "CPU time of the proxy to connect, query and leave, \u{b5}s (less is better)",
        unit: Unit::Session,
        figure: Figure::CpuPerUnit,
    },
    Plot {
        file: "cpu-megabyte.svg",
        title: "CPU time of the proxy for a megabyte, \u{b5}s (less is better)",
        unit: Unit::Megabyte,
        figure: Figure::CpuPerUnit,
    },
    Plot {
        file: "memory-session.svg",
        title: "Memory of the proxy for an idle session, bytes (less is better)",
        unit: Unit::Idle,
        figure: Figure::PrivatePerSession,
    },
];

/// Far enough from white and from black.
const GREY: RGBColor = RGBColor(118, 131, 144);
const OF_OTHERS: RGBColor = RGBColor(145, 157, 169);
const OF_PGSPLIT: RGBColor = RGBColor(33, 139, 255);

const WIDTH: u32 = 760;
const TITLE: u32 = 36;
const CASE: u32 = 26;
const BAR: u32 = 18;
const BELOW_CASE: u32 = 10;
/// Where bars begin, and how long the longest of a case is.
const LEFT: u32 = 130;
const LONGEST: f64 = 540.0;

/// A case with what its peers had.
type Group = (&'static str, Vec<(Peer, f64)>);

/// Draws what was measured; what was not is left out, and files of an earlier time stay.
pub(crate) fn draw(dir: &Path, results: &[Measured]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    for plot in &PLOTS {
        let groups = plot.groups(results);
        if !groups.is_empty() {
            fs::write(dir.join(plot.file), svg(plot.title, &groups)?)?;
        }
    }
    Ok(())
}

impl Plot {
    fn groups(&self, results: &[Measured]) -> Vec<Group> {
        let fitting = results.iter().filter(|result| result.case.load.unit() == self.unit);
        let of_case = |result: &Measured| {
            let peers = result.runs.peers();
            let values = peers.filter_map(|peer| Some((peer, result.median(peer, self.figure)?)));
            (result.case.name, values.collect())
        };
        fitting.map(of_case).filter(|(_, values): &Group| !values.is_empty()).collect()
    }
}

/// The bars of a case are to the scale of its longest: only within a case is anything compared.
fn svg(title: &str, groups: &[Group]) -> Result<String, Box<dyn Error>> {
    let bars: u32 = groups.iter().map(|(_, values)| u32::try_from(values.len()).unwrap_or(0)).sum();
    let cases = u32::try_from(groups.len())?;
    let height = TITLE + cases * (CASE + BELOW_CASE) + bars * BAR;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        write(&area, title, (0, TITLE / 2), style(19, HPos::Left))?;
        let mut y = TITLE;
        for (case, values) in groups {
            write(&area, case, (0, y + CASE / 2), style(17, HPos::Left))?;
            y += CASE;
            let longest = values.iter().map(|&(_, value)| value).fold(0.0, f64::max);
            for &(peer, value) in values {
                bar(&area, peer, value, longest, y)?;
                y += BAR;
            }
            y += BELOW_CASE;
        }
        area.present()?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn bar(area: &Area, peer: Peer, value: f64, longest: f64, y: u32) -> Result<(), Box<dyn Error>> {
    let color = if peer == Peer::Pgsplit { OF_PGSPLIT } else { OF_OTHERS };
    let share = if longest > 0.0 { value / longest } else { 0.0 };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "pixels, from 0 to the longest"
    )]
    let end = LEFT + (LONGEST * share).round() as u32;
    area.draw(&Rectangle::new([at(LEFT, y + 2)?, at(end, y + BAR - 2)?], color.filled()))?;
    write(area, peer.name(), (LEFT - 8, y + BAR / 2), style(15, HPos::Right))?;
    write(area, &significant(value), (end + 6, y + BAR / 2), style(15, HPos::Left))
}

fn write(area: &Area, text: &str, (x, y): (u32, u32), style: TextStyle) -> Result<(), Box<dyn Error>> {
    Ok(area.draw(&Text::new(text.to_owned(), at(x, y)?, style))?)
}

fn at(x: u32, y: u32) -> Result<(i32, i32), std::num::TryFromIntError> {
    Ok((i32::try_from(x)?, i32::try_from(y)?))
}

fn style(size: u32, side: HPos) -> TextStyle<'static> {
    let style = ("sans-serif", size).into_font().color(&GREY).into_text_style(&(WIDTH, TITLE));
    style.pos(Pos::new(side, VPos::Center))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_of_a_case_has_a_bar_with_its_name_and_value() {
        let values = vec![(Peer::Haproxy, 20.0), (Peer::Pgsplit, 10.0)];
        let text = svg("a title", &[("select-1", values)]).unwrap();
        for expected in
            ["a title", "select-1", "haproxy", "20.0", "pgsplit", "10.0", "width=\"540\"", "width=\"270\""]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn a_case_in_which_nothing_was_used_is_drawn_too() {
        assert!(svg("a title", &[("idle", vec![(Peer::Nginx, 0.0)])]).is_ok());
    }
}
