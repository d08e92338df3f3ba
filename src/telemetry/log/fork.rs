//! The log, and beside it the events, which its filter does not rule.
//!
//! One decision for a place in the code, taken once, so that a line that is no event costs nothing more for there being events;
//! filters of single layers would be asked again for each line.

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Dispatch, Event, Metadata};

use crate::telemetry::events::Events;

/// A subscriber that writes lines, and those who keep events.
pub(super) struct Fork<S> {
    pub(super) log: S,
    pub(super) events: Events,
}

impl<S: Subscriber> Subscriber for Fork<S> {
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.log.on_register_dispatch(dispatch);
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let logged = self.log.register_callsite(metadata);
        if logged.is_never() && Events::keeps(metadata) { Interest::always() } else { logged }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.log.enabled(metadata) || (metadata.is_event() && Events::keeps(metadata))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.log.max_level_hint().map(|level| level.max(LevelFilter::INFO))
    }

    fn event_enabled(&self, event: &Event<'_>) -> bool {
        Events::keeps(event.metadata()) || self.log.event_enabled(event)
    }

    fn event(&self, event: &Event<'_>) {
        if Events::keeps(event.metadata()) {
            self.events.record(event);
            if !self.log.enabled(event.metadata()) || !self.log.event_enabled(event) {
                return;
            }
        }
        self.log.event(event);
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.log.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.log.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.log.record_follows_from(span, follows);
    }

    fn enter(&self, span: &Id) {
        self.log.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.log.exit(span);
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.log.clone_span(span)
    }

    fn try_close(&self, span: Id) -> bool {
        self.log.try_close(span)
    }
}
