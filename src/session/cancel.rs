//! Stopping somebody's query.
//!
//! A cancel request comes on a connection of its own and carries no user, only a process id and a secret key. A
//! session whose login could be read has left its key here, so the request goes to its node and nowhere else.
//! A key that is not here may belong to a session that is encrypted, or to one that came through another
//! balancer: then the request goes to every node of the cluster. A wrong node ignores it.
//!
//! A request over TLS is opaque and goes where a session would go.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::net::{dial, peer};
use crate::pg::cancel_key::CancelKey;
use crate::session::negotiate::Client;
use crate::session::shared::{Listener, Shared};
use crate::telemetry::labels::CancelResult;
use crate::topology::Topology;

/// How long a node may take. A stopped server still has the request in its socket and will find it when it goes on,
/// as it would without a balancer: what its kernel has taken cannot be taken back.
const DELIVERY: Duration = Duration::from_secs(5);
/// Requests with an unknown key that one source may send at once: a service that gives up on all its queries in one
/// moment, each of them encrypted, must get through.
const BURST: f64 = 500.0;
/// How many more it may send each second. Guessing a 32-bit key at this pace takes a year and more.
const PER_SECOND: f64 = 100.0;
/// Requests with an unknown key that a node is given at a time. A server makes a process for each, and hundreds at once keep it
/// from answering anything else, its checks among them.
const AT_A_TIME: usize = 8;
/// How long a request may wait for its turn: a burst to a node on the other side of the world takes that long.
const WAIT: Duration = Duration::from_secs(30);
/// Sources remembered at a time.
const SOURCES: usize = 10_000;

/// Whom each key belongs to.
#[derive(Clone, Debug, Default)]
pub struct CancelTable(Arc<Mutex<HashMap<u32, Entries>>>);

/// Those of one process number; one node has it, as a rule.
type Entries = SmallVec<[Arc<Entry>; 1]>;

#[derive(Debug)]
struct Entry {
    key: CancelKey,
    addr: SocketAddr,
}

/// A key in the table, for as long as its session lives.
#[derive(Debug)]
pub struct HeldKey {
    table: CancelTable,
    entry: Arc<Entry>,
}

impl CancelTable {
    /// Remembers that the session with this key is on the node at `addr`.
    #[must_use]
    pub fn insert(&self, key: CancelKey, addr: SocketAddr) -> HeldKey {
        let entry = Arc::new(Entry { key, addr });
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.entry(entry.key.pid).or_default().push(Arc::clone(&entry));
        HeldKey { table: self.clone(), entry }
    }

    /// The node of the session with this key.
    #[must_use]
    pub fn find(&self, key: &CancelKey) -> Option<SocketAddr> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(&key.pid)?.iter().find(|entry| entry.key.matches(key)).map(|entry| entry.addr)
    }
}

impl HeldKey {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &CancelKey {
        &self.entry.key
    }
}

impl Drop for HeldKey {
    fn drop(&mut self) {
        let mut table = self.table.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entries) = table.get_mut(&self.entry.key.pid) {
            entries.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
            if entries.is_empty() {
                table.remove(&self.entry.key.pid);
            }
        }
    }
}

/// Limits how many requests with an unknown key a source may send. A source is a /24 or a /64, as one host
/// easily has many addresses.
#[derive(Debug, Default)]
pub struct SourceLimit(Mutex<HashMap<IpAddr, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl SourceLimit {
    /// Whether one more is within the limit.
    pub fn allows(&self, source: IpAddr, now: Instant) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refilled =
            |bucket: &Bucket| (bucket.left + (now - bucket.at).as_secs_f64() * PER_SECOND).min(BURST);
        if SOURCES <= buckets.len() {
            buckets.retain(|_, bucket| refilled(bucket) < BURST);
            if SOURCES <= buckets.len() {
                return false;
            }
        }
        let bucket = buckets.entry(prefix(source)).or_insert(Bucket { left: BURST, at: now });
        bucket.left = refilled(bucket);
        bucket.at = now;
        let allowed = 1.0 <= bucket.left;
        if allowed {
            bucket.left -= 1.0;
        }
        allowed
    }
}

/// Whose turn it is to be sent to a node, for requests that every node gets.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<HashMap<SocketAddr, Arc<Semaphore>>>>);

/// One of the few that a node is given now.
#[derive(Debug)]
struct Turn {
    turns: Turns,
    at: SocketAddr,
    _permit: OwnedSemaphorePermit,
}

impl Turns {
    /// Waits for a turn at the node at `at`. Cancel safe: the place in the queue is given up.
    async fn take(&self, at: SocketAddr) -> Option<Turn> {
        let node = {
            let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(nodes.entry(at).or_insert_with(|| Arc::new(Semaphore::new(AT_A_TIME))))
        };
        let permit = node.acquire_owned().await.ok()?;
        Some(Turn { turns: self.clone(), at, _permit: permit })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut nodes = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The list's and this one's: nobody else has a turn there, or waits for one.
        if nodes.get(&self.at).is_some_and(|node| Arc::strong_count(node) <= 2) {
            nodes.remove(&self.at);
        }
    }
}

fn prefix(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & !0xff).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

/// Serves a connection that turned out to be a cancel request.
///
/// The client's connection stays open until the nodes have closed theirs: libpq takes its end for the sign that
/// the request has been dealt with.
pub async fn cancel(shared: &Shared, listener: &Listener, client: Client, key: &CancelKey, packet: &[u8]) {
    let source = client.peer().ip();
    let result = match shared.cancels.find(key) {
        Some(addr) if deliver(&[addr], packet).await => CancelResult::Routed,
        Some(_) => CancelResult::Failed,
        None if !shared.cancel_limit.allows(source, Instant::now()) => CancelResult::Limited,
        None => broadcast(listener, packet, &shared.cancel_turns).await,
    };
    peer::leave(client.into_parts().0).await;
    shared.metrics.cancel(result);
    debug!(listener = listener.config.name.as_str(), client = %source, result = result.as_str(), "cancel_request");
}

/// Sends the request to every node, to each as soon as it is its turn there.
async fn broadcast(listener: &Listener, packet: &[u8], turns: &Turns) -> CancelResult {
    let topology = listener.watched.current.borrow().clone();
    let deliveries = TaskTracker::new();
    let tasks: Vec<_> = everywhere(&topology)
        .into_iter()
        .map(|addrs| {
            let (packet, turns) = (packet.to_vec(), turns.clone());
            deliveries.spawn(async move {
                let Some(at) = addrs.first() else { return false };
                let Ok(Some(_turn)) = timeout(WAIT, turns.take(*at)).await else { return false };
                deliver(&addrs, &packet).await
            })
        })
        .collect();
    if tasks.is_empty() {
        return CancelResult::Unknown;
    }
    let mut delivered = false;
    for task in tasks {
        delivered |= task.await.unwrap_or(false);
    }
    if delivered { CancelResult::Broadcast } else { CancelResult::Failed }
}

/// Where a session of the cluster may be. An encrypted one may be on an address that its node's name no longer leads
/// to. No such address comes twice, also when it is back: a second request could hit the session's next query.
fn everywhere(topology: &Topology) -> Vec<Arc<[SocketAddr]>> {
    let there = topology.nodes.iter().map(|node| Arc::clone(&node.addrs));
    let mut everywhere: Vec<_> = there.filter(|addrs| !addrs.is_empty()).collect();
    for departed in topology.departed.iter().filter(|departed| 0 < departed.load.sessions()) {
        let is_new = |addr: &&SocketAddr| !everywhere.iter().any(|addrs| addrs.contains(addr));
        let addrs: Arc<[SocketAddr]> = departed.addrs.iter().filter(is_new).copied().collect();
        if !addrs.is_empty() {
            everywhere.push(addrs);
        }
    }
    everywhere
}

/// Sends the request to one node and waits until it has closed the connection.
async fn deliver(addrs: &[SocketAddr], packet: &[u8]) -> bool {
    let deadline = Instant::now() + DELIVERY;
    let Ok((mut stream, _)) = dial::connect(addrs, deadline).await else { return false };
    let delivered = timeout_at(deadline, async {
        stream.write_all(packet).await?;
        stream.read(&mut [0]).await
    });
    matches!(delivered.await, Ok(Ok(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::load::Load;
    use crate::base::id::NodeId;
    use crate::topology::Departed;

    fn key(pid: u32, secret: &[u8]) -> CancelKey {
        CancelKey::parse(&[&pid.to_be_bytes(), secret].concat()).unwrap()
    }

    #[test]
    fn a_key_is_known_as_long_as_its_session_lives() {
        let table = CancelTable::default();
        let (a, b) = ("10.0.0.1:5432".parse().unwrap(), "10.0.0.2:5432".parse().unwrap());
        let first = table.insert(key(7, b"aaaa"), a);
        let second = table.insert(key(7, b"bbbb"), b);
        assert_eq!(table.find(&key(7, b"aaaa")), Some(a));
        assert_eq!(table.find(&key(7, b"bbbb")), Some(b));
        assert_eq!(table.find(&key(7, b"cccc")), None);
        drop(first);
        assert_eq!(table.find(&key(7, b"aaaa")), None);
        drop(second);
        assert!(table.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_node_that_is_gone_is_asked_while_sessions_on_it_go_on() {
        let load = Arc::new(Load::new(Arc::default(), crate::balance::load::Wakes::All));
        let addr: SocketAddr = "10.0.0.1:5432".parse().unwrap();
        let departed = || Departed { id: NodeId::first(0), addrs: [addr].into(), load: Arc::clone(&load) };
        let topology = Topology { departed: vec![departed(), departed()], ..Topology::default() };
        assert!(everywhere(&topology).is_empty());
        let _session = load.enter(None);
        assert_eq!(everywhere(&topology), [Arc::from([addr])]);
    }

    #[tokio::test]
    async fn a_node_has_few_at_a_time_and_who_waits_for_one_does_not_wait_for_another() {
        let turns = Turns::default();
        let (busy, idle) = ("10.0.0.1:5432".parse().unwrap(), "10.0.0.2:5432".parse().unwrap());
        let mut taken = Vec::new();
        for _ in 0..AT_A_TIME {
            taken.push(turns.take(busy).await.unwrap());
        }
        let mut next = Box::pin(turns.take(busy));
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(turns.take(idle).await.unwrap());
        // What others still have, or wait for, is not forgotten.
        taken.pop();
        let last = next.await.unwrap();
        let mut more = Box::pin(turns.take(busy));
        assert!(futures_util::poll!(&mut more).is_pending());
        drop(more);
        drop((last, taken));
        assert!(turns.0.lock().unwrap().is_empty());
    }

    #[test]
    fn guessing_is_slow_and_only_for_who_guesses() {
        let limit = SourceLimit::default();
        let now = Instant::now();
        let allowed = |host: [u8; 4], at| limit.allows(IpAddr::from(host), at);
        let first: usize =
            (0..1000_u16).map(|n| usize::from(allowed([10, 0, 0, n.to_be_bytes()[1]], now))).sum();
        assert_eq!(first, 500);
        assert!(allowed([10, 0, 1, 1], now));
        assert!(!allowed([10, 0, 0, 1], now + Duration::from_millis(8)));
        assert!(allowed([10, 0, 0, 1], now + Duration::from_millis(12)));
    }

    #[test]
    fn the_memory_for_sources_is_bounded() {
        let limit = SourceLimit::default();
        let now = Instant::now();
        for n in 0..20_000_u32 {
            limit.allows(IpAddr::from((n << 8).to_be_bytes()), now);
        }
        assert!(limit.0.lock().unwrap().len() <= SOURCES);
        assert!(limit.allows(IpAddr::from([200, 0, 0, 1]), now + Duration::from_secs(10)));
    }
}
