//! A real cluster under Patroni: switchover, failover and what else happens there, under load.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "tests")]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::balancer::{Balancer, binary};
use crate::support::client::{connect, value, which_node};
use crate::support::patroni::{Patroni, missing};
use crate::support::wait::{wait_at_most, wait_until};

/// Reads and writes that go on until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
    readers: JoinSet<()>,
    writer: JoinSet<u64>,
}

impl Load {
    /// Three who open a session for each read, and one who writes numbers, one after the other, each until it is told that it
    /// is there.
    async fn start(balancer: &Balancer) -> Self {
        let client = connect(balancer.rw()).await.unwrap();
        value(&client, "create table t (n int primary key); insert into t values (0) returning n")
            .await
            .unwrap();
        let (stop, read, written) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let readers = (0..3).map(|_| reads(balancer.ro(), Arc::clone(&read), Arc::clone(&stop))).collect();
        let writer = JoinSet::from_iter([writes(balancer.rw(), Arc::clone(&written), Arc::clone(&stop))]);
        let load = Self { stop, read, written, readers, writer };
        load.goes_on("at first").await;
        load
    }

    /// Waits until more has been read and written.
    async fn goes_on(&self, when: &str) {
        let now = || (self.read.load(Ordering::SeqCst), self.written.load(Ordering::SeqCst));
        let (read, written) = now();
        wait_at_most(Duration::from_secs(60), &format!("reads and writes to go on {when}"), async || {
            let (reads, writes) = now();
            if read + 50 <= reads && written + 50 <= writes { Ok(()) } else { Err((reads, writes)) }
        })
        .await;
    }

    /// Ends it; whoever met what should not be says so now.
    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.readers.join_all().await;
        self.writer.join_all().await;
    }
}

/// That a read fails is a failure. After a failover Patroni stops a standby that has got more of the old primary's log than the
/// new one, to rewind it: what such a server is answering goes with it, once for each time one is stopped.
async fn reads(addr: SocketAddr, count: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let mut cut = 0;
    while !stop.load(Ordering::SeqCst) {
        let read = async {
            let client = connect(addr).await?;
            value(&client, "select 1").await
        };
        match read.await {
            Ok(_) => drop(count.fetch_add(1, Ordering::SeqCst)),
            Err(error) => {
                cut += 1;
                let is_cut = error.is_closed() || error.code().is_some_and(|code| code.code() == "57P01");
                assert!(is_cut && cut <= 3, "a read failed: {error:?}");
            }
        }
    }
}

/// A write that fails, as it must when its server goes, is done again on another session.
async fn writes(addr: SocketAddr, count: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> u64 {
    let (mut n, mut session) = (0, None);
    while !stop.load(Ordering::SeqCst) {
        let client = match session.take() {
            Some(client) => client,
            None => match connect(addr).await {
                Ok(client) => client,
                Err(error) => {
                    // Whoever waits in line is not refused; a session may be ended while it logs in.
                    let is_cut =
                        error.is_closed() || error.code().is_some_and(|code| code.code().starts_with("57P"));
                    assert!(is_cut, "a writer was refused: {error:?}");
                    continue;
                }
            },
        };
        let sql = format!("insert into t values ({}) on conflict do nothing returning 1", n + 1);
        if client.simple_query(&sql).await.is_ok() {
            n += 1;
            count.store(n, Ordering::SeqCst);
            session = Some(client);
        }
    }
    n
}

/// Where a new session comes to.
async fn leads_to(listener: SocketAddr) -> std::net::IpAddr {
    which_node(&connect(listener).await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn reads_and_writes_go_on_under_patroni() {
    if let Some(program) = missing() {
        eprintln!("SKIPPED: no {program} here; `make patroni` installs Patroni and etcd");
        return;
    }
    let cluster = Patroni::start(3).await;
    let balancer =
        Balancer::start(&(cluster.config() + "sessions: {queue_timeout: 1m, answer_timeout: 10s}\n")).await;
    balancer.wait_ready().await;
    let first = cluster.primary().await.unwrap();
    let second = (first + 1) % 3;
    let node = balancer.node(&format!("n{first}")).await;
    assert_eq!((&node["role"], &node["role_from"]), (&"primary".into(), &"check".into()), "{node}");
    assert_eq!(
        (&node["patroni"]["state"], &node["patroni"]["paused"]),
        (&"running".into(), &false.into()),
        "{node}"
    );
    probing_shows_what_patroni_says(&cluster, first).await;

    let load = Load::start(&balancer).await;
    cluster.switch_over(first, second).await;
    let changed = balancer.wait_log("primary_changed", |_| true).await;
    assert_eq!(changed["node"], format!("n{second}"), "{changed}");
    load.goes_on("after the switchover").await;
    cluster.wait_whole().await;
    balancer.wait_ready().await;
    load.goes_on("in peace").await;
    let written = load.written.load(Ordering::SeqCst);
    let client = connect(balancer.rw()).await.unwrap();
    let found = value(&client, &format!("select count(*) from t where n <= {written}")).await.unwrap();
    assert_eq!(
        found,
        (written + 1).to_string(),
        "what was acknowledged before and during the switchover is there"
    );
    drop(client);

    cluster.member(second).kill9();
    balancer.wait_health(&format!("n{second}"), "down").await;
    let after = cluster.wait_failover_from(second).await;
    wait_until("sessions to come to the new primary", async || {
        leads_to(balancer.rw()).await == cluster.member(after).addr.ip()
    })
    .await;
    load.goes_on("after the failover").await;
    cluster.member(second).start_patroni();
    cluster.wait_whole().await;
    balancer.wait_ready().await;
    load.goes_on("with all of them again").await;
    load.end().await;
    assert!(balancer.metric("pgsplit_connections_rejected_total").await < 0.5, "{}", balancer.err());

    a_tag_keeps_reads_away(&cluster, &balancer).await;
    a_paused_cluster_goes_on_without_its_patroni(&cluster, &balancer).await;
    a_primary_whose_patroni_died_is_left_for_the_one_that_was_promoted(&cluster, &balancer).await;
}

/// The tag `noloadbalance`, set and removed while everything runs.
async fn a_tag_keeps_reads_away(cluster: &Patroni, balancer: &Balancer) {
    let primary = cluster.primary().await.unwrap();
    let [tagged, other] = [1, 2].map(|more| (primary + more) % 3);
    let (name, ip) = (format!("n{tagged}"), cluster.member(tagged).addr.ip());
    wait_until("reads to go there", async || leads_to(balancer.ro()).await == ip).await;
    cluster.member(tagged).set_tags("noloadbalance: true");
    balancer
        .wait_log("patroni_noloadbalance", |line| line["node"] == *name && line["noloadbalance"] == true)
        .await;
    assert_eq!(balancer.node(&name).await["patroni"]["noloadbalance"], true);
    for _ in 0..10 {
        assert_eq!(leads_to(balancer.ro()).await, cluster.member(other).addr.ip());
    }
    assert_eq!(balancer.node(&name).await["health"], "up");
    cluster.member(tagged).set_tags("");
    balancer
        .wait_log("patroni_noloadbalance", |line| line["node"] == *name && line["noloadbalance"] == false)
        .await;
    wait_until("reads to go there again", async || leads_to(balancer.ro()).await == ip).await;
}

/// Patroni is killed where the primary is, and everywhere else, while its servers live: nobody is cut off.
async fn a_paused_cluster_goes_on_without_its_patroni(cluster: &Patroni, balancer: &Balancer) {
    let primary = cluster.primary().await.unwrap();
    let sessions = [connect(balancer.rw()).await.unwrap(), connect(balancer.ro()).await.unwrap()];
    cluster.set_paused(true).await;
    balancer.wait_log("patroni_paused", |line| line["paused"] == true).await;
    wait_at_most(Duration::from_secs(60), "all of Patroni to know", async || {
        let status = balancer.status().await;
        if status["nodes"].as_array().unwrap().iter().all(|node| node["patroni"]["paused"] == true) {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    for i in 0..3 {
        cluster.member(i).kill9_patroni();
    }
    for i in 0..3 {
        let name = format!("n{i}");
        let api = cluster.member(i).api;
        let says = format!("Patroni at {api}: connection refused; its role is the one that was last known");
        balancer.wait_log("check_warning", |line| line["node"] == *name && line["error"] == *says).await;
        let node = balancer.node(&name).await;
        let role = if i == primary { "primary" } else { "standby" };
        assert_eq!((&node["health"], &node["role"]), (&"up".into(), &role.into()), "{node}");
    }
    assert_eq!(leads_to(balancer.rw()).await, cluster.member(primary).addr.ip());
    assert_ne!(leads_to(balancer.ro()).await, cluster.member(primary).addr.ip());
    for i in 0..3 {
        cluster.member(i).start_patroni();
    }
    wait_at_most(Duration::from_secs(60), "Patroni to take over again", async || {
        cluster.primary().await == Some(primary)
    })
    .await;
    for session in &sessions {
        assert_eq!(value(session, "select 1").await.unwrap(), "1");
    }
    cluster.set_paused(false).await;
    balancer.wait_log("patroni_paused", |line| line["paused"] == false).await;
    cluster.wait_whole().await;
}

/// Unless it is paused, Patroni promotes another one then, while the old one goes on: two primaries, of which one is right.
async fn a_primary_whose_patroni_died_is_left_for_the_one_that_was_promoted(
    cluster: &Patroni,
    balancer: &Balancer,
) {
    let old = cluster.primary().await.unwrap();
    let session = connect(balancer.rw()).await.unwrap();
    assert_eq!(which_node(&session).await.unwrap(), cluster.member(old).addr.ip());
    cluster.member(old).kill9_patroni();
    let new = cluster.wait_failover_from(old).await;
    let name = format!("n{old}");
    wait_until("the old primary to be known", async || balancer.node(&name).await["superseded"] == true)
        .await;
    assert_eq!(leads_to(balancer.rw()).await, cluster.member(new).addr.ip());
    value(&session, "select 1").await.unwrap_err();
    cluster.member(old).start_patroni();
    wait_at_most(Duration::from_secs(60), "it to be a standby", async || {
        let node = balancer.node(&name).await;
        if node["role"] == "standby" && node["superseded"] == false { Ok(()) } else { Err(node) }
    })
    .await;
}

/// `pgsplit probe --patroni`, and without it at the wrong port.
async fn probing_shows_what_patroni_says(cluster: &Patroni, primary: usize) {
    let member = cluster.member(primary);
    let probe = async |addr: SocketAddr, more: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("probe").arg(addr.to_string()).args(more).env_remove("PGUSER");
        let output = tokio::process::Command::from(command).output().await.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, shown) = probe(member.addr, &[&format!("--patroni={}", member.api)]).await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("primary, running, timeline 1, written 0/"), "{shown}");
    assert!(shown.ends_with("\naccepting connections, primary\n"), "{shown}");
    if member.api.port() == 8008 {
        let (code, shown) = probe(member.api, &["--timeout", "300ms"]).await;
        assert_eq!(code, Some(2), "{shown}");
        let (api, ip) = (member.api, member.api.ip());
        let says = format!(
            "no answer: startup: no answer within 300ms: is this the Patroni API? use patroni: {api} and addr: {ip}:5432"
        );
        assert!(shown.contains(&says), "{shown}");
    }
}
