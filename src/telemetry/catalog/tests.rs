//! Tests of the module above.

use super::*;

#[test]
fn names_follow_the_rules() {
    for metric in ALL {
        let twins = ALL.iter().filter(|other| other.name == metric.name).count();
        assert_eq!(twins, 1, "{} is listed twice", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        assert!(metric.help.is_ascii() && !metric.help.contains(['\\', '\n']), "{}", metric.name);
        if let Kind::Histogram(buckets) = metric.kind {
            assert!(!buckets.is_empty() && buckets.is_sorted(), "{}", metric.name);
        }
    }
}

#[test]
fn the_document_has_one_row_for_each() {
    let document = include_str!("../../../docs/metrics.md");
    let rows: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
    for metric in ALL {
        let labels = if metric.labels.is_empty() { "–".to_owned() } else { metric.labels.join(", ") };
        let start = format!("| `{}` | {} | {} |", metric.name, metric.kind.as_str(), labels);
        assert!(rows.iter().any(|row| row.starts_with(&start)), "no row in docs/metrics.md: {start}");
    }
    assert_eq!(rows.len(), ALL.len(), "docs/metrics.md has a row for a metric that does not exist");
}
