//! Faults and warnings as they are found, before there is a report.

use std::path::PathBuf;

use super::report::{Fault, Report};
use super::source::{Pos, Source};

/// Faults, and warnings, that are shown; nobody reads on. To show one is to look through the file for its line, and a file may
/// have as many as lines.
const SHOWN: usize = 100;

/// Collects everything that is found, so that nothing stops at the first fault.
pub(super) struct Findings<'s> {
    source: &'s Source<'s>,
    faults: List,
    warnings: List,
    /// Files that were read beside the text.
    pub files: Vec<PathBuf>,
}

impl<'s> Findings<'s> {
    pub(super) fn new(source: &'s Source<'s>) -> Self {
        Self { source, faults: List::default(), warnings: List::default(), files: Vec::new() }
    }

    pub(super) fn source(&self) -> &'s Source<'s> {
        self.source
    }

    /// Something that keeps the configuration from being used.
    pub(super) fn fault(&mut self, path: &str, at: Pos, message: &str) -> &mut Fault {
        let source = self.source;
        self.faults.push(|| source.fault(path, at, message))
    }

    /// A fault about two places; `at` is the later one.
    pub(super) fn clash(
        &mut self,
        path: &str,
        at: (Pos, &str),
        first: (Pos, &str),
        message: &str,
    ) -> &mut Fault {
        let related = self.faults.has_room().then(|| self.source.excerpt(first.0, first.1)).flatten();
        let fault = self.fault(path, at.0, message);
        if let Some(excerpt) = &mut fault.excerpt {
            at.1.clone_into(&mut excerpt.label);
        }
        fault.related = related;
        fault
    }

    /// Something that does not.
    pub(super) fn warning(&mut self, path: &str, at: Pos, message: &str) -> &mut Fault {
        let source = self.source;
        self.warnings.push(|| source.fault(path, at, message))
    }

    pub(super) fn add(&mut self, fault: Fault) {
        self.faults.push(|| fault);
    }

    /// How many faults there are by now.
    pub(super) fn count(&self) -> usize {
        self.faults.shown.len() + self.faults.more
    }

    /// Everything, in the order of the file; what stands at no line comes last.
    pub(super) fn into_report(self) -> Report {
        let origin = self.source.origin.clone();
        let [faults, warnings] =
            [(self.faults, "faults"), (self.warnings, "warnings")].map(|(list, what)| list.all(what));
        Report { origin, faults, warnings, files: self.files }
    }
}

/// Those that are shown, and how many are not.
#[derive(Default)]
struct List {
    shown: Vec<Fault>,
    more: usize,
    /// Takes what is said of one that is not shown.
    unshown: Fault,
}

impl List {
    fn has_room(&self) -> bool {
        self.shown.len() < SHOWN
    }

    fn push(&mut self, fault: impl FnOnce() -> Fault) -> &mut Fault {
        if self.has_room() {
            self.shown.push(fault());
            self.shown.last_mut().unwrap_or(&mut self.unshown)
        } else {
            self.more += 1;
            &mut self.unshown
        }
    }

    /// All of them, in the order of the file; what stands at no line comes last.
    fn all(self, what: &str) -> Vec<Fault> {
        let Self { mut shown, more, .. } = self;
        shown.sort_by_key(|fault| fault.place.unwrap_or((usize::MAX, 0)));
        if more != 0 {
            shown.push(Fault::new("", &format!("{more} more {what}, not shown")));
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError};

    #[test]
    fn a_file_full_of_faults_shows_the_first_ones_and_counts_the_rest() {
        use std::fmt::Write;
        let keys = (0..1234).fold(String::new(), |mut keys, n| {
            let _ = writeln!(keys, "  no-key-{n}: 1");
            keys
        });
        let read = Config::from_yaml(&format!("nodes: [a]\ncheck:\n{keys}"), "config.yaml", &|_| None);
        let Err(ConfigError::Invalid(report)) = read else { panic!("{read:?}") };
        assert_eq!(report.faults.len(), SHOWN + 1);
        assert_eq!(report.faults[0].place, Some((3, 3)));
        assert_eq!(report.faults[SHOWN].message, "1134 more faults, not shown");
    }
}
