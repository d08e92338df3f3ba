//! HTTP fronts, as configurations come and go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::running::Ground;
use crate::config::http::{self, Methods};
use crate::front::admit::Turns;
use crate::front::budget::Budget;
use crate::front::cache::ResponseCache;
use crate::front::database::Database;
use crate::front::group::Group;
use crate::front::shared::Front;
use crate::front::upstream::keeper::{self, Place};
use crate::session::setup::Setup;
use crate::session::shared::{Listener, Shared};
use crate::telemetry::labels::HttpMethod;
use crate::telemetry::shape::FrontShape;

/// What there was and what there is to be.
pub(super) struct Change<'a> {
    pub shared: &'a Shared,
    pub before: &'a [Arc<Front>],
    pub old: &'a Setup,
    pub new: &'a Setup,
}

impl Change<'_> {
    /// The front as it is, if nothing of it is different; else a new version, with those of its groups that are as they were,
    /// and the answers it has stored if they are still those that its upstreams would give.
    pub(super) fn version(&self, ground: &Ground, config: &Arc<http::Front>, addr: SocketAddr) -> Arc<Front> {
        let before = self.before.iter().find(|front| front.config.name == config.name);
        if let Some(before) = before
            && before.addr == addr
            && self.is_same(&before.config, config)
        {
            return Arc::clone(before);
        }
        Arc::new(self.build(ground, before, config, addr))
    }

    fn is_same(&self, before: &http::Front, front: &http::Front) -> bool {
        // What is followed of the listener: see `Database`.
        let followed = |setup, front| {
            let listener: &Arc<Listener> = listener_of(setup, front)?;
            Some((listener.config.name.clone(), listener.config.target, listener.watched.index))
        };
        followed(self.old, before) == followed(self.new, front)
            && *before == http::Front { listener: before.listener, ..front.clone() }
    }

    fn build(
        &self,
        ground: &Ground,
        before: Option<&Arc<Front>>,
        config: &Arc<http::Front>,
        addr: SocketAddr,
    ) -> Front {
        let shared = self.shared;
        let metrics = shared.metrics.add_front(&shape(config));
        let groups = config.groups.iter().enumerate().map(|(group, settings)| {
            let known =
                before.and_then(|before| before.groups.iter().find(|known| known.config == *settings));
            known.map_or_else(
                || {
                    let place = Place {
                        front: Arc::clone(config),
                        group,
                        metrics: Arc::clone(&metrics),
                        refresh: ground.refresh.clone(),
                        workers: ground.threads,
                    };
                    Group::new(settings.clone(), keeper::start(&place, settings, &ground.tasks, &ground.end))
                },
                Group::again,
            )
        });
        let groups = groups.collect();
        let (database, life) = listener_of(self.new, config)
            .map(|listener| {
                let (name, target) = (listener.config.name.as_str(), listener.config.target);
                let current = listener.watched.current.clone();
                Database::follow(&config.name, name, target, current, ground.end.clone())
            })
            .unzip();
        life.map(|life| ground.tasks.spawn(life));
        Front {
            config: Arc::clone(config),
            log: Arc::clone(&ground.requests),
            addr,
            groups,
            turns: Turns::new(&config.limits),
            budget: Budget::new(config.retries.budget, config.limits.max_in_flight.get()),
            cache: cache(before, config),
            database,
            metrics,
            descriptors: shared.descriptors.clone(),
            is_stopping: AtomicBool::new(shared.is_draining()),
            kill: shared.kill.clone(),
        }
    }
}

fn cache(before: Option<&Arc<Front>>, config: &http::Front) -> Option<Arc<ResponseCache>> {
    let settings = config.cache.as_ref()?;
    let kept = before.and_then(|before| {
        let old = &before.config;
        let upstreams = |front: &http::Front| -> Vec<_> {
            front.groups.iter().map(|group| (group.name.clone(), group.upstreams.clone())).collect()
        };
        let is_same = old.cache == config.cache
            && old.routes == config.routes
            && upstreams(old) == upstreams(config)
            && old.forwarded == config.forwarded
            && old.via == config.via;
        before.cache.clone().filter(|_| is_same)
    });
    Some(kept.unwrap_or_else(|| Arc::new(ResponseCache::new(settings))))
}

/// The listener that a front of this setup depends on.
fn listener_of<'s>(setup: &'s Setup, front: &http::Front) -> Option<&'s Arc<Listener>> {
    setup.listeners.get(front.listener?)
}

/// What there is to count at a front.
pub(super) fn shape(front: &http::Front) -> FrontShape {
    let groups = front.groups.iter().map(|group| {
        let upstreams = group.upstreams.iter().map(|upstream| upstream.addr.to_string());
        (group.name.clone(), upstreams.collect())
    });
    let methods = match &front.methods {
        Methods::Any => HttpMethod::ALL.into(),
        Methods::Only(methods) => {
            let named = |method: &HttpMethod| methods.iter().any(|name| name == method.as_str());
            // What is refused is counted as well.
            HttpMethod::ALL.into_iter().filter(|m| named(m) || *m == HttpMethod::Other).collect()
        }
    };
    FrontShape { name: front.name.clone(), groups: groups.collect(), methods }
}
