//! How what the schedule says is done.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::clients::World;
use super::ledger::Ledger;
use super::log::Log;
use super::schedule::{Death, Fault, Step, Whom};
use crate::support::balancer::Balancer;
use crate::support::client::connect;
use crate::support::cluster::Cluster;
use crate::support::gate::{Direction, Gate, Mode};
use crate::support::postgres::{Postgres, Stop};
use crate::support::process::Signal;
use crate::support::wait::wait_until;
use crate::support::wire::{Wire, query, startup};

/// What waits for a standby to have what is written: any of them, or nobody while there may be none.
const ANY_STANDBY: &str = "ANY 1 (*)";

/// All that can break.
#[derive(Debug)]
pub struct Stage {
    /// The servers.
    pub cluster: Arc<Cluster>,
    /// One before each of them, in their order.
    pub gates: Vec<Gate>,
    /// The one that is tried.
    pub balancer: Arc<Balancer>,
    /// Its log.
    pub log: Log,
    /// Where it is written down what was done.
    pub ledger: Arc<Ledger>,
}

impl Stage {
    /// Does it, and mends it again.
    pub async fn perform(&self, step: Step, world: &World) {
        let at = self.index(step.whom);
        let (node, gate, ip) = (self.cluster.node(at), &self.gates[at], self.cluster.node(at).addr().ip());
        let during = sleep(step.lasts);
        match step.fault {
            Fault::Kill { refuses } => {
                let _cut = self.ledger.cuts(ip);
                if refuses {
                    gate.set(Mode::Refuse).await;
                }
                node.kill9().await;
                during.await;
                node.start().await;
                gate.set(Mode::Pass).await;
            }
            Fault::Restart => {
                let _cut = self.ledger.cuts(ip);
                node.restart(Stop::Fast).await;
            }
            Fault::Stop => {
                let _cut = self.ledger.cuts(ip);
                node.sigstop();
                during.await;
                node.sigcont();
            }
            Fault::Freeze => {
                let _cut = self.ledger.cuts(ip);
                gate.set(Mode::Freeze).await;
                during.await;
                gate.set(Mode::Pass).await;
            }
            Fault::Drop | Fault::Reset => {
                let _cut = self.ledger.cuts(ip);
                gate.set(if step.fault == Fault::Drop { Mode::Drop } else { Mode::Reset }).await;
                during.await;
                // What has lost bytes must not go on: a real network would have sent them again.
                gate.set(Mode::Reset).await;
                wait_until("the gate to have reset all", async || gate.open() == 0).await;
                gate.set(Mode::Pass).await;
            }
            Fault::Cut(after) => {
                let _cut = self.ledger.cuts(ip);
                self.set_for(gate, Mode::Cut(Direction::ToClient, after), step.lasts).await;
            }
            Fault::Refuse => {
                // As long as anybody there hears from a server nobody on it may be cut. Who writes always hears; who reads
                // is elsewhere by then.
                let _cut = (step.whom != Whom::Primary).then(|| self.ledger.cuts(ip));
                self.set_for(gate, Mode::Refuse, step.lasts).await;
            }
            Fault::Delay(millis) => {
                self.set_for(gate, Mode::Delay(Duration::from_millis(millis)), step.lasts).await;
            }
            Fault::Slice(size) => self.set_for(gate, Mode::Slice(size), step.lasts).await,
            Fault::Full => fill(node, step.lasts).await,
            Fault::ReplayPause => {
                node.sql("select pg_wal_replay_pause()").await;
                during.await;
                node.sql("select pg_wal_replay_resume()").await;
            }
            Fault::Promote(death) => self.promote(at, death, step.lasts).await,
            Fault::TwoPrimaries => self.two_primaries(at, step.lasts).await,
            Fault::ClientResets => break_off(world).await,
            Fault::StopBalancer => {
                self.balancer.signal(Signal::STOP);
                during.await;
                self.balancer.signal(Signal::CONT);
            }
            Fault::LogStall => {
                self.log.stall(true);
                during.await;
                self.log.stall(false);
            }
        }
    }

    /// Whether a write waits until a standby has it, on every server that runs.
    pub async fn guard(&self, is_guarded: bool) {
        for node in self.cluster.nodes().iter().filter(|node| node.is_running()) {
            set_standby_names(node, is_guarded).await;
        }
    }

    /// Who is meant.
    fn index(&self, whom: Whom) -> usize {
        let primary = self.primary();
        match whom {
            Whom::Primary => primary,
            Whom::Standby(i) => {
                (0..self.gates.len()).filter(|&node| node != primary).nth(i).expect("a standby")
            }
        }
    }

    fn primary(&self) -> usize {
        let addr = self.cluster.primary().addr();
        self.cluster.nodes().iter().position(|node| node.addr() == addr).expect("one of them")
    }

    async fn set_for(&self, gate: &Gate, mode: Mode, lasts: Duration) {
        gate.set(mode).await;
        sleep(lasts).await;
        gate.set(Mode::Pass).await;
    }

    async fn promote(&self, old: usize, death: Death, lasts: Duration) {
        let _cut = self.ledger.cuts(self.cluster.node(old).addr().ip());
        match death {
            Death::Killed => self.cluster.node(old).kill9().await,
            Death::Stopped => self.cluster.node(old).stop(Stop::Fast).await,
        }
        let new = self.most_advanced(old).await;
        self.cluster.fail_over_to(new).await;
        self.ledger.say(&format!("n{new} is the primary now"));
        let (promoted, sql) =
            (Instant::now(), "select count(*) from pg_stat_replication where state = 'streaming'");
        wait_until("a standby to follow it", async || self.cluster.node(new).value(sql).await != "0").await;
        self.ledger.took("time until a standby followed the new primary", promoted.elapsed());
        sleep(lasts).await;
        self.cluster.node(old).recreate_standby_of(self.cluster.node(new)).await;
    }

    /// The standby that has everything that any standby has: what was acknowledged is on one of them.
    async fn most_advanced(&self, old: usize) -> usize {
        let mut best = (None, 0);
        for (i, node) in self.cluster.nodes().iter().enumerate().filter(|&(i, _)| i != old) {
            let sql =
                "select (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0')::bigint";
            let has: Option<u64> = node.value(sql).await.parse().ok();
            if best.0 < has {
                best = (has, i);
            }
        }
        best.1
    }

    async fn two_primaries(&self, old: usize, lasts: Duration) {
        let count = self.gates.len();
        let (new, third) = ((old + 1) % count, (old + 2) % count);
        let [lost, wins, other] = [old, new, third].map(|i| self.cluster.node(i));
        // The old one goes on to acknowledge what it alone has, and the new one needs nobody.
        self.guard(false).await;
        let all = lost.value("select pg_current_wal_lsn()").await;
        // From here on, so that what was acknowledged before is on the one that is promoted.
        self.ledger.loses(lost.addr().ip());
        let has_all = format!("select pg_last_wal_replay_lsn() >= '{all}'");
        wait_until("the next primary to have all", async || wins.value(&has_all).await == "t").await;
        let _cut = self.ledger.cuts(lost.addr().ip());
        self.cluster.fail_over_to(new).await;
        self.ledger.deposed(lost.addr().ip());
        self.ledger.say(&format!("n{new} is a primary, too, beside n{old}"));
        sleep(lasts).await;
        lost.stop(Stop::Fast).await;
        self.ledger.cleared(lost.addr().ip());
        lost.recreate_standby_of(wins).await;
        self.ledger.say(&format!("n{old} follows n{new}"));
        // It may have more of the old primary than the new one ever had.
        let _cut = self.ledger.cuts(other.addr().ip());
        other.stop(Stop::Fast).await;
        other.recreate_standby_of(wins).await;
        self.guard(true).await;
    }
}

async fn set_standby_names(node: &Postgres, is_guarded: bool) {
    let names = if is_guarded { ANY_STANDBY } else { "" };
    node.sql(&format!("alter system set synchronous_standby_names = '{names}'")).await;
    node.sql("select pg_reload_conf()").await;
}

/// Takes every connection of a server, and every one that becomes free.
async fn fill(node: &Postgres, lasts: Duration) {
    let began = Instant::now();
    let mut taken = Vec::new();
    while began.elapsed() < lasts {
        match connect(node.addr()).await {
            Ok(client) => taken.push(client),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Clients that go away at every step of a session's life.
async fn break_off(world: &World) {
    let login = startup(&[("user", "postgres"), ("database", "postgres")]);
    for i in 0..40 {
        let addr = if i % 2 == 0 { world.rw } else { world.ro };
        let Ok(mut wire) = Wire::connect(addr).await else { continue };
        let _ = match i / 2 % 5 {
            0 => Ok(()),
            1 => wire.send(&login[..i]).await,
            2 => wire.send(&login).await,
            3 => wire.send(&[&login[..], &query("select repeat('x', 10000000)")].concat()).await,
            _ => match wire.login("postgres", "postgres").await {
                Ok(Ok(_)) => wire.send(&query("select repeat('x', 10000000)")).await,
                _ => Ok(()),
            },
        };
        if i % 3 == 0 {
            drop(wire);
        } else {
            wire.reset();
        }
    }
}
