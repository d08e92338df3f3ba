//! Prometheus text: what the exporter renders, and the few families that it cannot.
//!
//! The exporter knows no gauge that goes away when its value is not known, and no counter with a fraction. Those
//! families are written here, in the same [text format](https://prometheus.io/docs/instrumenting/exposition_formats/).

use std::fmt::Write;

use super::catalog::Described;

/// Families with values that may be missing or have a fraction.
#[derive(Default)]
pub(super) struct Families(String);

impl Families {
    /// Adds one family with the samples that are known. Without any, its description still shows that it exists.
    pub(super) fn add<'a>(
        &mut self,
        what: &Described,
        samples: impl IntoIterator<Item = (Vec<&'a str>, Option<f64>)>,
    ) {
        let Described { name, kind, help, .. } = what;
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
        for (values, figure) in samples {
            let Some(figure) = figure else { continue };
            let labels: Vec<String> = what
                .labels
                .iter()
                .zip(values)
                .map(|(label, value)| format!("{label}=\"{}\"", escape(value)))
                .collect();
            let _ = match labels.as_slice() {
                [] => writeln!(self.0, "{name} {figure}"),
                labels => writeln!(self.0, "{name}{{{}}} {figure}", labels.join(",")),
            };
        }
        self.0.push('\n');
    }

    /// These families and those of the exporter's text, in the order of their names: two scrapes can be compared,
    /// and people find things.
    pub(super) fn merge(self, exporter: &str) -> String {
        let mut families: Vec<&str> =
            exporter.split_terminator("\n\n").chain(self.0.split_terminator("\n\n")).collect();
        families.sort_unstable();
        let mut out = String::with_capacity(exporter.len() + self.0.len());
        for family in families {
            let mut lines: Vec<&str> = family.lines().collect();
            // `#` sorts before any name. The buckets of a histogram have an order of their own.
            if !family.contains("_bucket{") {
                lines.sort_unstable();
            }
            for line in lines {
                out.push_str(line);
                out.push('\n');
            }
        }
        out
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
