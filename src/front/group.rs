//! A group of upstreams as requests see it: one that fits is chosen here, or waited for.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::balance::load::Place;
use crate::balance::pick::{Candidate, Picker};
use crate::config::http;
use crate::front::upstream::keeper::{News, Watched};
use crate::front::upstream::{Current, Instance, Member, Standing};

/// A group of upstreams.
#[derive(Debug)]
pub struct Group {
    /// What the file says.
    pub config: http::Group,
    watched: Watched,
    turns: Mutex<Turns>,
}

#[derive(Debug)]
struct Turns {
    picker: Picker,
    /// Kept from pick to pick, so that picking allocates nothing.
    candidates: Vec<Candidate>,
}

/// The upstream a request goes to, and its place there.
#[derive(Debug)]
pub struct Chosen {
    /// Which one.
    pub instance: Arc<Instance>,
    /// Counted there for as long as this lives.
    pub place: Place,
}

impl Group {
    /// The group that is watched there.
    #[must_use]
    pub fn new(config: http::Group, watched: Watched) -> Self {
        let picker = Picker::new(config.balance, config.upstreams.len(), fastrand::u64(..));
        Self { config, watched, turns: Mutex::new(Turns { picker, candidates: Vec::new() }) }
    }

    /// The same group in another version of its front: it goes on being watched as it is.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::new(self.config.clone(), self.watched.clone())
    }

    /// What is held true of its upstreams now.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.watched.current.borrow())
    }

    /// The place where that is found.
    #[must_use]
    pub fn current(&self) -> Current {
        self.watched.current.clone()
    }

    /// Whether any upstream gets requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.watched.current.borrow().members.iter().any(Member::takes_new)
    }

    /// One that fits and is none of `tried`: by the group's balance, a backup only when no other is up.
    pub fn choose(&self, tried: &[usize], source: IpAddr) -> Option<Chosen> {
        let standing = self.watched.current.borrow();
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let Turns { picker, candidates } = &mut *turns;
        // One whose last check failed comes after those whose did not: it is not down yet, but slow at best.
        let mut is_busy = false;
        for (backup, suspect) in [(false, false), (false, true), (true, false), (true, true)] {
            // A backup is not there to help out when the others are merely busy.
            if backup && is_busy {
                return None;
            }
            let fits = |member: &Member| {
                let instance = &member.instance;
                instance.config.backup == backup && instance.is_suspect() == suspect && member.takes_new()
            };
            candidates.clear();
            for member in standing.members.iter().filter(|member| fits(member)) {
                let instance = &member.instance;
                let (upstream, load) = (&instance.config, instance.load.sessions());
                if tried.contains(&instance.slot) {
                    continue;
                }
                if upstream.max_connections.is_some_and(|limit| limit.get() <= load) {
                    is_busy = true;
                    continue;
                }
                picker.make_room(instance.slot + 1);
                candidates.push(Candidate { index: instance.slot, weight: upstream.weight, load });
            }
            while let Some(picked) = picker.pick(candidates, source) {
                let member = standing.members.iter().find(|member| member.instance.slot == picked.index)?;
                let instance = Arc::clone(&member.instance);
                // The last place may just have been taken by another thread.
                if let Some(place) = instance.load.enter(instance.config.max_connections) {
                    return Some(Chosen { instance, place });
                }
                candidates.retain(|candidate| candidate.index != picked.index);
                is_busy = true;
            }
        }
        None
    }

    /// Whether there is one beside those tried.
    #[must_use]
    pub fn has_another(&self, tried: &[usize]) -> bool {
        let standing = self.watched.current.borrow();
        standing.members.iter().any(|member| member.takes_new() && !tried.contains(&member.instance.slot))
    }

    /// Waits until `deadline` for any upstream to take requests; whether one does. Cancel safe.
    pub async fn ready(&self, deadline: Instant) -> bool {
        let mut current = self.current();
        let ready = current.wait_for(|standing| standing.members.iter().any(Member::takes_new));
        matches!(timeout_at(deadline, ready).await, Ok(Ok(_)))
    }

    /// Like [`Group::choose`], waiting until `deadline` for one to come up or to have room. Cancel safe.
    pub async fn wait(&self, tried: &[usize], source: IpAddr, deadline: Instant) -> Option<Chosen> {
        let mut current = self.current();
        loop {
            // Before looking, so that nothing that happens in between is missed.
            let freed = self.watched.freed.notified();
            current.mark_unchanged();
            if let Some(chosen) = self.choose(tried, source) {
                return Some(chosen);
            }
            let change = async {
                tokio::select! {
                    () = freed => {}
                    _ = current.changed() => {}
                }
            };
            timeout_at(deadline, change).await.ok()?;
        }
    }

    /// Tells the keeper that a request failed.
    pub fn failed(&self, instance: &Arc<Instance>, is_connect: bool, error: &str) {
        let in_a_row = instance.failed();
        let (instance, error) = (Arc::clone(instance), error.to_owned());
        let _ = self.news().try_send(News::Failed { instance, in_a_row, is_connect, error });
    }

    fn news(&self) -> &mpsc::Sender<News> {
        &self.watched.news
    }
}
