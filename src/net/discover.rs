//! Where a name leads, asked again and again: containers and pods come and go under one name.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::net::dial::{io_text, resolve};

/// Longest time for one lookup.
const LOOKUP: Duration = Duration::from_secs(5);
/// An address is given up when its name has not led there for so many lookups: an answer may hold only some.
const ABSENCES: u32 = 2;

/// Somebody who knows where names lead.
pub trait Resolve: Clone + Send + Sync + 'static {
    /// The addresses of `host`, at least one.
    ///
    /// # Errors
    /// What the resolver said, or that it said nothing in time.
    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Resolve for System {
    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send {
        resolve(host, port, Instant::now() + LOOKUP)
    }
}

/// A name that is to be followed.
#[derive(Clone, Debug)]
pub struct Name {
    /// Name, or address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How often it is looked up.
    pub refresh: Refresh,
}

/// How often names are looked up; clones change together, also while names are followed.
#[derive(Clone, Debug)]
pub struct Refresh(Arc<AtomicU64>);

impl Refresh {
    /// From one lookup to the next, to the millisecond.
    #[must_use]
    pub fn every(time: Duration) -> Self {
        let refresh = Self(Arc::default());
        refresh.set(time);
        refresh
    }

    /// So often from the next lookup on.
    pub fn set(&self, time: Duration) {
        self.0.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// What has been found out about a name.
#[derive(Debug)]
pub enum Finding {
    /// The addresses it leads to, sorted and at least one. Told when they have changed.
    Addrs(Vec<SocketAddr>),
    /// It has never led anywhere so far, and why. Told after each lookup.
    Nothing(io::Error),
}

/// Looks `name` up for as long as it is polled, and tells what it finds, wrapped by `wrap`. While the resolver fails the
/// last addresses stay. A host that is an address is told once. Ends when nobody listens.
///
/// Cancel safe: what was not told will not be.
pub async fn follow<M>(
    name: Name,
    resolver: impl Resolve,
    listener: mpsc::Sender<M>,
    wrap: impl Fn(Finding) -> M,
) {
    let Name { host, port, refresh } = name;
    if let Ok(ip) = host.parse::<IpAddr>() {
        let _ = listener.send(wrap(Finding::Addrs(vec![SocketAddr::new(ip, port)]))).await;
        return;
    }
    let mut known = Known::default();
    let mut failed = false;
    loop {
        let finding = match resolver.resolve(&host, port).await {
            Ok(addrs) => {
                failed = false;
                known.look(&addrs).then(|| Finding::Addrs(known.addrs()))
            }
            Err(error) => {
                // Said once, not every few seconds.
                if !std::mem::replace(&mut failed, true) {
                    let hint = if known.0.is_empty() {
                        "it has led nowhere so far"
                    } else {
                        "the addresses it last led to stay in use"
                    };
                    warn!(host, port, error = io_text(&error), hint, "lookup_failed");
                }
                known.0.is_empty().then_some(Finding::Nothing(error))
            }
        };
        if let Some(finding) = finding
            && listener.send(wrap(finding)).await.is_err()
        {
            return;
        }
        // Not exactly, so that many balancers and names do not fall into step.
        sleep(refresh.get().mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// The addresses a name leads to, and how many lookups in a row have missed each.
#[derive(Debug, Default)]
struct Known(BTreeMap<SocketAddr, u32>);

impl Known {
    /// Takes in an answer; whether the addresses have changed by it.
    fn look(&mut self, found: &[SocketAddr]) -> bool {
        let before = self.addrs();
        self.0.values_mut().for_each(|absences| *absences += 1);
        self.0.extend(found.iter().map(|addr| (*addr, 0)));
        self.0.retain(|_, absences| *absences < ABSENCES);
        before != self.addrs()
    }

    fn addrs(&self) -> Vec<SocketAddr> {
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio_util::task::TaskTracker;

    /// Answers as it was last told to; without a word it fails.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Script(Arc<Mutex<Vec<SocketAddr>>>);

    impl Script {
        /// From now on the name leads to these last bytes of `10.0.0.x:5432`.
        pub(crate) fn say(&self, hosts: &[u8]) {
            self.say_exactly(hosts.iter().map(|host| addr(*host)).collect());
        }

        /// From now on the name leads there.
        pub(crate) fn say_exactly(&self, addrs: Vec<SocketAddr>) {
            *self.0.lock().unwrap() = addrs;
        }
    }

    impl Resolve for Script {
        async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
            let addrs = self.0.lock().unwrap().clone();
            if addrs.is_empty() { Err(io::Error::other("no such host")) } else { Ok(addrs) }
        }
    }

    pub(crate) fn addr(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 5432))
    }

    fn name(host: &str) -> Name {
        Name { host: host.to_owned(), port: 5432, refresh: Refresh::every(Duration::from_secs(5)) }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_leaves_when_two_lookups_miss_it() {
        let script = Script::default();
        let (sender, mut told) = mpsc::channel(9);
        TaskTracker::new().spawn(follow(name("db"), script.clone(), sender, |finding| finding));
        let mut next = async || match told.recv().await.unwrap() {
            Finding::Addrs(addrs) => addrs,
            Finding::Nothing(_) => Vec::new(),
        };
        assert_eq!(next().await, []);
        script.say(&[2, 1, 2]);
        assert_eq!(next().await, [addr(1), addr(2)]);
        let began = Instant::now();
        // A resolver that fails takes nothing away, however often.
        script.say(&[]);
        sleep(Duration::from_secs(60)).await;
        script.say(&[1, 2]);
        sleep(Duration::from_secs(6)).await;
        script.say(&[2, 3]);
        assert_eq!(next().await, [addr(1), addr(2), addr(3)]);
        assert!(Duration::from_secs(66) <= began.elapsed());
        let joined = Instant::now();
        assert_eq!(next().await, [addr(2), addr(3)]);
        assert!(Duration::from_secs(4) < joined.elapsed() && joined.elapsed() < Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_told_once_and_never_looked_up() {
        let (sender, mut told) = mpsc::channel(9);
        TaskTracker::new().spawn(follow(name("::1"), Script::default(), sender, |finding| finding));
        assert!(
            matches!(told.recv().await, Some(Finding::Addrs(addrs)) if addrs == ["[::1]:5432".parse().unwrap()])
        );
        assert!(told.recv().await.is_none());
    }

    #[test]
    fn an_answer_that_holds_only_some_takes_nothing_away() {
        let mut known = Known::default();
        assert!(known.look(&[addr(1), addr(2)]));
        assert!(!known.look(&[addr(1)]));
        assert!(!known.look(&[addr(2)]));
        assert!(!known.look(&[addr(1)]));
        assert!(known.look(&[addr(1)]));
    }
}
