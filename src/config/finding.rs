//! Faults and warnings as they are found, before there is a report.

use std::path::PathBuf;

use super::report::{Fault, Report};
use super::source::{Pos, Source};

/// Collects everything that is found, so that nothing stops at the first fault.
pub(super) struct Findings<'s> {
    source: &'s Source<'s>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    /// Files that were read beside the text.
    pub files: Vec<PathBuf>,
}

impl<'s> Findings<'s> {
    pub(super) fn new(source: &'s Source<'s>) -> Self {
        Self { source, faults: Vec::new(), warnings: Vec::new(), files: Vec::new() }
    }

    pub(super) fn source(&self) -> &'s Source<'s> {
        self.source
    }

    /// Something that keeps the configuration from being used.
    pub(super) fn fault(&mut self, path: &str, at: Pos, message: &str) -> &mut Fault {
        push(&mut self.faults, self.source.fault(path, at, message))
    }

    /// A fault about two places; `at` is the later one.
    pub(super) fn clash(
        &mut self,
        path: &str,
        at: (Pos, &str),
        first: (Pos, &str),
        message: &str,
    ) -> &mut Fault {
        let source = self.source;
        let fault = self.fault(path, at.0, message);
        if let Some(excerpt) = &mut fault.excerpt {
            at.1.clone_into(&mut excerpt.label);
        }
        fault.related = source.excerpt(first.0, first.1);
        fault
    }

    /// Something that does not.
    pub(super) fn warning(&mut self, path: &str, at: Pos, message: &str) -> &mut Fault {
        push(&mut self.warnings, self.source.fault(path, at, message))
    }

    pub(super) fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// How many faults there are by now.
    pub(super) fn count(&self) -> usize {
        self.faults.len()
    }

    /// Everything, in the order of the file; what stands at no line comes last.
    pub(super) fn into_report(mut self) -> Report {
        let place = |fault: &Fault| fault.place.unwrap_or((usize::MAX, 0));
        self.faults.sort_by_key(place);
        self.warnings.sort_by_key(place);
        let origin = self.source.origin.clone();
        Report { origin, faults: self.faults, warnings: self.warnings, files: self.files }
    }
}

fn push(list: &mut Vec<Fault>, fault: Fault) -> &mut Fault {
    let at = list.len();
    list.push(fault);
    // Just pushed: the slot is there, and the list is never empty here.
    list.get_mut(at).unwrap_or_else(|| unreachable!("a fault was just pushed"))
}
