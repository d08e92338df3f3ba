//! What is done to the servers.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Config;

use crate::load::app;
use crate::network::{Drops, Silence};
use crate::support::client::{config, connect_with};
use crate::support::cluster::Cluster;
use crate::support::gate::{Gate, Mode};
use crate::support::postgres::{Postgres, Settings, Stop};
use crate::support::process::{Signal, signal};

/// From the loss of a primary to the promotion, as long as a hasty failover tool takes.
const UNTIL_PROMOTION: Duration = Duration::from_secs(1);
/// How long a server stays full.
const FULL: Duration = Duration::from_secs(15);
const SLOTS: u32 = 40;
const POLL: Duration = Duration::from_millis(30);
/// For the cluster to take writes again.
const PATIENCE: Duration = Duration::from_secs(20);

/// A row of the matrix. `n0` begins as the primary, `n1` and `n2` follow it; it is always `n1` that is promoted, and
/// the standby that something is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillStandby,
    KillPrimary,
    StopStandby,
    StopPrimary,
    DropStandby,
    RestartStandby,
    RestartPrimary,
    FullStandby,
    /// But for the places that superusers have.
    FullForApp,
    Switchover,
    Demotion,
    TwoPrimaries,
    Postmaster,
    /// Nothing happens to a server; requests to cancel are counted.
    Cancel,
}

impl Fault {
    pub(crate) const ALL: [Self; 14] = [
        Self::KillStandby,
        Self::KillPrimary,
        Self::StopStandby,
        Self::StopPrimary,
        Self::DropStandby,
        Self::RestartStandby,
        Self::RestartPrimary,
        Self::FullStandby,
        Self::FullForApp,
        Self::Switchover,
        Self::Demotion,
        Self::TwoPrimaries,
        Self::Postmaster,
        Self::Cancel,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillStandby => "kill-standby",
            Self::KillPrimary => "kill-primary",
            Self::StopStandby => "stop-standby",
            Self::StopPrimary => "stop-primary",
            Self::DropStandby => "drop-standby",
            Self::RestartStandby => "restart-standby",
            Self::RestartPrimary => "restart-primary",
            Self::FullStandby => "full-standby",
            Self::FullForApp => "full-for-app",
            Self::Switchover => "switchover",
            Self::Demotion => "demotion",
            Self::TwoPrimaries => "two-primaries",
            Self::Postmaster => "postmaster",
            Self::Cancel => "cancel",
        }
    }

    pub(crate) fn settings(self) -> Settings {
        let settings = Settings::default();
        match self {
            Self::FullStandby | Self::FullForApp => settings.max_connections(SLOTS),
            _ if self.promotes_in_order() => settings
                .option("synchronous_standby_names", "ANY 1 (*)")
                .option("synchronous_commit", "remote_apply"),
            _ => settings,
        }
    }

    /// The primary is replaced, so no acknowledged write may be missing afterwards.
    fn promotes_in_order(self) -> bool {
        matches!(self, Self::KillPrimary | Self::StopPrimary | Self::Switchover | Self::Demotion)
    }

    /// Whose sessions cannot be kept, or must not be.
    pub(crate) fn lost(self) -> Option<usize> {
        match self {
            Self::KillStandby | Self::StopStandby | Self::DropStandby | Self::RestartStandby => Some(1),
            Self::KillPrimary
            | Self::StopPrimary
            | Self::RestartPrimary
            | Self::Switchover
            | Self::Demotion
            | Self::TwoPrimaries => Some(0),
            Self::FullStandby | Self::FullForApp | Self::Postmaster | Self::Cancel => None,
        }
    }

    /// The primaries in the end.
    pub(crate) fn survivors(self) -> &'static [usize] {
        match self {
            Self::TwoPrimaries => &[0, 1],
            _ if self.promotes_in_order() => &[1],
            _ => &[0],
        }
    }

    /// How long to look at least.
    pub(crate) fn least(self) -> Duration {
        Duration::from_secs(match self {
            Self::FullStandby | Self::FullForApp => 20,
            Self::Postmaster => 30,
            Self::TwoPrimaries => 15,
            _ => 10,
        })
    }
}

/// What has been done, and when.
pub(crate) struct Struck {
    /// The first of it.
    pub(crate) at: Instant,
    /// Until when the server may still have taken sessions that it then took with it.
    pub(crate) gone: Option<Instant>,
    pub(crate) promotion: Option<Promotion>,
    /// Undone when dropped.
    _held: Held,
}

/// When a new primary was there.
#[derive(Clone, Copy)]
pub(crate) struct Promotion {
    /// `pg_promote` returned.
    pub(crate) at: Instant,
    /// It acknowledged a write of somebody who asked it directly; `None`: not in time.
    pub(crate) writes: Option<Instant>,
}

/// What lasts until the end of the row.
enum Held {
    Nothing,
    Silence { _silence: Silence },
    Sessions { _filling: JoinSet<()> },
}

impl Fault {
    /// Does it. `gates` stand before the servers when packets cannot be dropped.
    pub(crate) async fn strike(
        self,
        cluster: &Cluster,
        drops: Drops,
        gates: &[Gate],
    ) -> Result<Struck, String> {
        let (primary, standby) = (cluster.node(0), cluster.node(1));
        let at = Instant::now();
        let mut held = Held::Nothing;
        match self {
            Self::KillStandby => standby.kill9().await,
            Self::KillPrimary => primary.kill9().await,
            Self::StopStandby => standby.sigstop(),
            Self::StopPrimary => primary.sigstop(),
            Self::DropStandby => match (drops, gates.get(1)) {
                (Drops::Relay, Some(gate)) => gate.set(Mode::Drop).await,
                _ => held = Held::Silence { _silence: Silence::around(standby.addr().ip())? },
            },
            Self::RestartStandby => standby.stop(Stop::Fast).await,
            Self::RestartPrimary | Self::Switchover | Self::Demotion => primary.stop(Stop::Fast).await,
            Self::FullStandby => held = Held::Sessions { _filling: fill(config(standby.addr())) },
            Self::FullForApp => held = Held::Sessions { _filling: fill(app(standby.addr())) },
            Self::Postmaster => signal(standby.pid(), Signal::STOP),
            Self::TwoPrimaries | Self::Cancel => {}
        }
        let gone = self.lost().filter(|_| self != Self::TwoPrimaries).map(|_| Instant::now());
        let mut promotion = None;
        match self {
            Self::RestartStandby => standby.start().await,
            Self::RestartPrimary => primary.start().await,
            Self::KillPrimary | Self::StopPrimary => {
                sleep(UNTIL_PROMOTION.saturating_sub(at.elapsed())).await;
                promotion = Some(promote(cluster, true).await);
            }
            Self::Switchover => promotion = Some(promote(cluster, true).await),
            Self::Demotion => {
                let demote = primary.start_as_standby_of(standby);
                promotion = Some(tokio::join!(promote(cluster, true), demote).0);
            }
            Self::TwoPrimaries => promotion = Some(promote(cluster, false).await),
            _ => {}
        }
        Ok(Struck { at, gone, promotion, _held: held })
    }
}

/// Promotes `n1`, and may lead `n2` to it.
async fn promote(cluster: &Cluster, followed: bool) -> Promotion {
    let promoted = async {
        cluster.node(1).promote().await;
        let at = Instant::now();
        if followed {
            cluster.node(2).follow(cluster.node(1)).await;
        }
        at
    };
    let (at, writes) = tokio::join!(promoted, timeout(PATIENCE, first_write(cluster.node(1))));
    Promotion { at, writes: writes.ok() }
}

/// When `server` first acknowledges a write.
async fn first_write(server: &Postgres) -> Instant {
    let mut id = 0;
    loop {
        id -= 1;
        if server.try_sql(&format!("insert into writes values ({id})")).await.is_ok() {
            return Instant::now();
        }
        sleep(POLL).await;
    }
}

/// Takes every place that this role can have, each one that becomes free too, for a while.
fn fill(config: Config) -> JoinSet<()> {
    let mut filling = JoinSet::new();
    filling.spawn(async move {
        let mut taken = Vec::new();
        let _ = timeout(FULL, async {
            loop {
                match connect_with(config.clone()).await {
                    Ok(client) => taken.push(client),
                    Err(_) => sleep(POLL).await,
                }
            }
        })
        .await;
    });
    filling
}
