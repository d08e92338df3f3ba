//! How many sessions log in to a node at a time, and in which order those come that must wait for that.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::support::balancer::Balancer;
use crate::support::postgres::{Postgres, Settings};
use crate::support::wait::wait_until;
use crate::support::wire::{FakeNode, Login, ServerError, Wire, login_answer, ready, startup};
use crate::tools::{Notes, in_order, whole};

/// A node on which a login takes until the test gives it a permit.
struct Doorkeeper {
    node: FakeNode,
    /// Logins that have begun.
    begun: Arc<AtomicU64>,
    permits: Arc<Semaphore>,
    /// Startup packets, in the order in which they came.
    came: Notes<Vec<u8>>,
}

impl Doorkeeper {
    async fn start() -> Self {
        let (begun, permits, came) = (Arc::<AtomicU64>::default(), Arc::new(Semaphore::new(0)), Notes::new());
        let (counter, gate, notes) = (Arc::clone(&begun), Arc::clone(&permits), came.clone());
        let node = FakeNode::start(move |mut wire| {
            let (counter, gate, notes) = (Arc::clone(&counter), Arc::clone(&gate), notes.clone());
            async move {
                let Ok(packet) = wire.startup_packet().await else { return };
                notes.add(packet);
                counter.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                let _ = wire.send(&login_answer(1, &[0, 0, 0, 1], true)).await;
                let _ = wire.message().await;
            }
        })
        .await;
        Self { node, begun, permits, came }
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }
}

/// A patient balancer before these nodes: nobody is passed over for being slow.
async fn before(nodes: impl IntoIterator<Item = SocketAddr>) -> Balancer {
    let sessions = "sessions: {answer_timeout: 1m, connect_timeout: 1m, queue_timeout: 1m}\n";
    let balancer = Balancer::start(&in_order(nodes, sessions)).await;
    balancer.wait_ready().await;
    balancer
}

async fn waiting(balancer: &Balancer) -> u64 {
    balancer.status().await["listeners"][0]["waiting"].as_u64().unwrap()
}

/// Logs in as this user, and stays.
async fn log_in(addr: SocketAddr, user: String) -> (Wire, Result<Login, ServerError>) {
    let mut wire = Wire::connect(addr).await.unwrap();
    let login = wire.login(&user, "postgres").await.unwrap();
    (wire, login)
}

#[tokio::test]
async fn few_log_in_at_first_and_more_with_each_that_succeeds() {
    let doorkeeper = Doorkeeper::start().await;
    let balancer = before([doorkeeper.node.addr()]).await;
    let mut sessions = JoinSet::new();
    for n in 0..40 {
        sessions.spawn(log_in(balancer.rw(), format!("u{n}")));
    }
    wait_until("the others to wait", async || waiting(&balancer).await == 32).await;
    wait_until("the first to be under way", async || doorkeeper.begun() == 8).await;
    // Each that succeeds makes room for itself and for one more.
    doorkeeper.permits.add_permits(4);
    wait_until("more to come", async || doorkeeper.begun() == 16).await;
    // Those on their way have kept their places in line.
    assert_eq!((waiting(&balancer).await, doorkeeper.begun()), (32, 16));
    doorkeeper.permits.add_permits(100);
    assert!(sessions.join_all().await.into_iter().all(|(_, login)| login.is_ok()));
    assert_eq!(whole(balancer.metric("pgsplit_connections_rejected_total").await), 0);
}

#[tokio::test]
async fn who_came_first_is_let_in_first() {
    let doorkeeper = Doorkeeper::start().await;
    let balancer = before([doorkeeper.node.addr()]).await;
    let mut sessions = JoinSet::new();
    for n in 0..8 {
        sessions.spawn(log_in(balancer.rw(), format!("early{n}")));
    }
    wait_until("the first to be under way", async || doorkeeper.begun() == 8).await;
    for n in 0..10 {
        sessions.spawn(log_in(balancer.rw(), format!("late{n}")));
        wait_until("it to stand in line", async || waiting(&balancer).await == n + 1).await;
    }
    for n in 0..5 {
        doorkeeper.permits.add_permits(1);
        wait_until("the next two to come", async || doorkeeper.begun() == 8 + 2 * (n + 1)).await;
    }
    let came = doorkeeper.came.all();
    let user = |packet: &Vec<u8>| {
        String::from_utf8_lossy(packet).split('\0').find(|w| w.starts_with("late")).map(str::to_owned)
    };
    let late: Vec<_> = came.iter().filter_map(user).collect();
    // Two start at a time, on connections of their own.
    let places: Vec<usize> =
        late.iter().map(|user| user["late".len()..].parse::<usize>().unwrap() / 2).collect();
    assert!(places.is_sorted(), "{late:?}");
    doorkeeper.permits.add_permits(100);
    sessions.join_all().await;
}

#[tokio::test]
async fn who_dawdles_in_a_login_holds_nobody_up() {
    let (go, gone) = watch::channel(false);
    // Asks for a password and waits for it, which a client may let it do for a minute.
    let node = FakeNode::start(move |mut wire| {
        let mut gone = gone.clone();
        async move {
            let Ok(packet) = wire.startup_packet().await else { return };
            if String::from_utf8_lossy(&packet).contains("dawdler") {
                let _ = wire.send(&crate::support::wire::message(b'R', &[0, 0, 0, 3])).await;
                let _ = gone.wait_for(|gone| *gone).await;
            } else {
                let _ = wire.send(&login_answer(1, &[0, 0, 0, 1], true)).await;
                let _ = wire.message().await;
            }
        }
    })
    .await;
    let balancer = before([node.addr()]).await;
    let mut dawdlers = Vec::new();
    // So many that a second for each eight of them would be too long.
    for _ in 0..400 {
        let mut wire = Wire::connect(balancer.rw()).await.unwrap();
        wire.send(&startup(&[("user", "dawdler")])).await.unwrap();
        dawdlers.push(wire);
    }
    let (_wire, login) = log_in(balancer.rw(), "app".into()).await;
    login.unwrap();
    go.send_replace(true);
}

#[tokio::test]
async fn a_storm_of_readers_does_not_spill_over_to_the_primary() {
    let standby = Doorkeeper::start().await;
    let primary = FakeNode::start(|mut wire| async move {
        if wire.startup_packet().await.is_ok() {
            let _ = wire.send(&[login_answer(1, &[0, 0, 0, 1], false), ready(b'I')].concat()).await;
            let _ = wire.message().await;
        }
    })
    .await;
    let config = format!(
        "nodes: [{{addr: \"{}\", role: standby}}, {{addr: \"{}\", role: primary}}]\ncheck: {{type: tcp, interval: 200ms, passive: no}}\nsessions: {{answer_timeout: 1m, connect_timeout: 1m}}\n",
        standby.node.addr(),
        primary.addr()
    );
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let active = "pgsplit_sessions_active{listener=\"ro\"}";
    let mut sessions = JoinSet::new();
    for n in 0..30 {
        sessions.spawn(log_in(balancer.ro(), format!("u{n}")));
    }
    let ro = async || balancer.status().await["listeners"][1]["waiting"].as_u64().unwrap();
    wait_until("the others to wait", async || ro().await == 22).await;
    standby.permits.add_permits(100);
    let _kept = sessions.join_all().await;
    wait_until("all to be there", async || whole(balancer.metric(active).await) == 30).await;
    assert_eq!(standby.begun(), 30, "all went to the standby");
}

#[tokio::test]
async fn a_server_that_comes_back_is_not_knocked_over() {
    // Each of these is a process of the server's: with all at once it would refuse half of them.
    let server = Postgres::start_new(Settings::default().max_connections(100)).await;
    let config = crate::support::cluster::config_for([server.addr()]) + "sessions: {queue_timeout: 1m}\n";
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    server.kill9().await;
    balancer.wait_health("n0", "down").await;
    let mut sessions = JoinSet::new();
    for n in 0..200 {
        let addr = balancer.rw();
        sessions.spawn(async move {
            let (mut wire, login) = log_in(addr, "app".to_owned()).await;
            login.map(drop)?;
            wire.query(&format!("select {n}")).await.unwrap();
            wire.send(&crate::support::wire::terminate()).await.unwrap();
            Ok::<_, ServerError>(())
        });
    }
    wait_until("all to wait", async || waiting(&balancer).await == 200).await;
    server.start().await;
    let failed: Vec<_> = sessions.join_all().await.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let most = server.log().matches("too many clients").count();
    assert_eq!(most, 0, "nobody was refused by the server");
}
