//! Two primaries side by side, said once.
//!
//! Not each moment in which two nodes call themselves primary is worth a word: a promotion is often seen before the old
//! primary has been found dead. So it is said once both have passed a check since they were first seen beside each other;
//! and not again until the other one has been down, or a standby, whatever the cluster's primary does meanwhile.

use tokio::time::Instant;
use tracing::warn;

use crate::topology::keeper::Keeper;
use crate::topology::keeper::record::Record;

/// How a node stands to the cluster's primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rivalry {
    /// It is that one, or no living primary.
    None,
    /// It has been a living primary beside it since then.
    Since(Instant),
    /// And that has been said.
    Said,
}

impl Keeper {
    /// Says so when a second primary has turned up.
    pub(super) fn warn_of_two_primaries(&mut self) {
        let primary =
            self.primary.and_then(|id| self.places.get(id)).filter(|primary| primary.node.is_sound());
        let (primary, passed) =
            (primary.map(|primary| primary.node.id), primary.and_then(|primary| primary.passed));
        let mut is_news = false;
        for record in self.places.records_mut() {
            record.rivalry = match record.rivalry {
                _ if self.primary == Some(record.node.id) || !record.is_living_primary() => Rivalry::None,
                Rivalry::None if primary.is_some() => Rivalry::Since(Instant::now()),
                Rivalry::Since(since)
                    if Some(since) < passed.min(record.passed) && record.node.is_sound() =>
                {
                    is_news = true;
                    Rivalry::Said
                }
                unchanged => unchanged,
            };
        }
        if is_news {
            self.say_two_primaries();
        }
    }

    fn say_two_primaries(&self) {
        let names = |among: fn(&Record) -> bool| {
            let living = self.places.records().filter(|record| record.is_living_primary() && among(record));
            living.map(|record| record.node.config.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let old = Some(names(|record| record.node.is_superseded)).filter(|old| !old.is_empty());
        let used = self.primary.and_then(|id| self.places.get(id));
        let used = used.map_or("", |record| record.node.config.name.as_str());
        warn!(nodes = names(|_| true), old, writes_go_to = used, "two_primaries");
    }
}
