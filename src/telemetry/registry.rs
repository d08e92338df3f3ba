//! Registers what [`catalog`](super::catalog) describes on a recorder of our own.

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, NoopRecorder, Recorder};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::catalog::{ALL, Described, Kind};

const METADATA: Metadata<'static> = Metadata::new("pgsplit", Level::INFO, None);

/// Where series are registered.
pub(super) struct Registry(Box<dyn Recorder + Send + Sync>);

impl Registry {
    /// A recorder that nobody else has, with every metric described, and what renders it.
    pub(super) fn new() -> (Self, PrometheusHandle) {
        // Only an empty list of buckets is an error, and a test of the catalogue sees that there is none.
        let recorder = builder().unwrap_or_default().build_recorder();
        for metric in ALL {
            let (name, help) = (KeyName::from(metric.name), metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        }
        let handle = recorder.handle();
        (Self(Box::new(recorder)), handle)
    }

    /// Throws everything away.
    pub(super) fn nowhere() -> Self {
        Self(Box::new(NoopRecorder))
    }

    /// A counter with these label values; it exists from now on.
    pub(super) fn counter(&self, what: &Described, values: &[&str]) -> Counter {
        self.0.register_counter(&key(what, values), &METADATA)
    }

    /// A gauge with these label values; it exists from now on.
    pub(super) fn gauge(&self, what: &Described, values: &[&str]) -> Gauge {
        self.0.register_gauge(&key(what, values), &METADATA)
    }

    /// A histogram with these label values; it exists from now on.
    pub(super) fn histogram(&self, what: &Described, values: &[&str]) -> Histogram {
        self.0.register_histogram(&key(what, values), &METADATA)
    }
}

/// Buckets for every histogram: one without would be shown as a summary, which cannot be added up over instances.
fn builder() -> Result<PrometheusBuilder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
        }
    }
    Ok(builder)
}

fn key(what: &Described, values: &[&str]) -> Key {
    debug_assert_eq!(what.labels.len(), values.len(), "{}", what.name);
    let labels: Vec<Label> =
        what.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(what.name, labels)
}
