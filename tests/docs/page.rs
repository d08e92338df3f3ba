//! Markdown, as far as the documents use it: headings, links, and tables.

use std::collections::{HashMap, HashSet};

/// A page, line by line, without what stands in blocks of code.
#[derive(Debug)]
pub(crate) struct Page {
    lines: Vec<(usize, String)>,
}

/// A link and the line it stands in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) line: usize,
    pub(crate) target: String,
}

impl Page {
    pub(crate) fn new(text: &str) -> Self {
        let mut fence: Option<char> = None;
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let begin = line.trim_start();
            let mark = begin.chars().next().filter(|mark| matches!(mark, '`' | '~'));
            let marks = mark.map_or(0, |mark| begin.chars().take_while(|c| *c == mark).count());
            match fence {
                Some(opened) if mark == Some(opened) && 3 <= marks => fence = None,
                Some(_) => {}
                None if 3 <= marks => fence = mark,
                None => lines.push((number + 1, line.to_owned())),
            }
        }
        Self { lines }
    }

    /// What can stand behind the `#` of a link to this page, as GitHub makes it of headings.
    pub(crate) fn anchors(&self) -> HashSet<String> {
        let mut seen = HashMap::new();
        let headings = self.lines.iter().filter_map(|(_, line)| heading(line));
        headings
            .map(|(_, text)| {
                let slug = slug(text);
                let before = seen.entry(slug.clone()).or_insert(0);
                *before += 1;
                if *before == 1 { slug } else { format!("{slug}-{}", *before - 1) }
            })
            .collect()
    }

    /// All links and pictures.
    pub(crate) fn links(&self) -> Vec<Link> {
        let mut found = Vec::new();
        for (line, text) in &self.lines {
            let text = without_code(text);
            let mut rest = text.as_str();
            while let Some((_, after)) = rest.split_once("](") {
                let end = after.find(')').unwrap_or(after.len());
                let target = after[..end].split_whitespace().next().unwrap_or_default();
                found.push(Link { line: *line, target: target.to_owned() });
                rest = &after[end..];
            }
        }
        found
    }

    /// What stands below a heading of the second level, up to the next one of any.
    #[track_caller]
    pub(crate) fn section(&self, title: &str) -> Self {
        let is_heading = |line: &str| heading(line).is_some();
        let is_it = |line: &str| heading(line) == Some((2, title));
        let mut lines = self.lines.iter().skip_while(|(_, line)| !is_it(line));
        assert!(lines.next().is_some(), "there is no section {title}");
        let lines = lines.take_while(|(_, line)| !is_heading(line)).cloned().collect();
        Self { lines }
    }

    /// The rows of its tables, cell by cell, without their heads.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let cells = |line: &str| {
            let line = line.replace("\\|", "\u{0}");
            let line = line.trim().trim_start_matches('|').trim_end_matches('|').to_owned();
            line.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect::<Vec<_>>()
        };
        let is_row = |line: &str| line.starts_with('|');
        let is_rule = |line: &str| is_row(line) && line.chars().all(|c| "|-: ".contains(c));
        let mut rows = Vec::new();
        let mut is_body = false;
        for (_, line) in &self.lines {
            match line.as_str() {
                line if is_rule(line) => is_body = true,
                line if is_row(line) && is_body => rows.push(cells(line)),
                line if is_row(line) => {}
                _ => is_body = false,
            }
        }
        rows
    }
}

/// The pieces of code in a cell.
pub(crate) fn code(cell: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = cell;
    while let Some(start) = rest.find('`') {
        let marks = rest[start..].chars().take_while(|c| *c == '`').count();
        let fence = "`".repeat(marks);
        let Some(end) = rest[start + marks..].find(&fence) else { break };
        let piece = &rest[start + marks..start + marks + end];
        // Two marks and a space are how code with a mark in it is written.
        pieces.push(if 1 < marks { piece.trim().to_owned() } else { piece.to_owned() });
        rest = &rest[start + marks + end + marks..];
    }
    pieces
}

/// Level and text of a heading.
fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.chars().take_while(|c| *c == '#').count();
    let text = line[level..].strip_prefix(' ')?;
    (1..=6).contains(&level).then_some((level, text.trim()))
}

fn slug(text: &str) -> String {
    let text = text.to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn without_code(line: &str) -> String {
    let mut line = line.to_owned();
    for piece in code(&line) {
        if !piece.is_empty() {
            line = line.replacen(&format!("`{piece}`"), "", 1);
        }
    }
    line
}

#[test]
fn headings_become_anchors() {
    let page =
        Page::new("# A `b.c`, d!\n## Twice\n```\n# not this\n```\n## Twice\n### Nodes_that come & go\n#no\n");
    let mut anchors: Vec<_> = page.anchors().into_iter().collect();
    anchors.sort();
    assert_eq!(anchors, ["a-bc-d", "nodes_that-come--go", "twice", "twice-1"]);
}

#[test]
fn links_are_found_outside_of_code() {
    let page = Page::new("a [b](c.md#d) ![e](f.png \"g\") `[h](i)`\n\n~~~\n[j](k)\n~~~\n[l `m`](n)");
    let targets: Vec<_> = page.links().into_iter().map(|link| (link.line, link.target)).collect();
    assert_eq!(targets, [(1, "c.md#d".to_owned()), (1, "f.png".to_owned()), (6, "n".to_owned())]);
}

#[test]
fn tables_are_read_row_by_row() {
    let page = Page::new(
        "## A\n| x | y |\n|---|---|\n| `a\\|b` | c |\n\n| z |\n|--|\n| `d`, `` e`f `` |\n## B\n| no |\n|-|\n| no |\n",
    );
    let rows = page.section("A").rows();
    assert_eq!(rows, [vec!["`a|b`", "c"], vec!["`d`, `` e`f ``"]]);
    assert_eq!(code(&rows[1][0]), ["d", "e`f"]);
}
