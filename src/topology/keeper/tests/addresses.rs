//! Nodes that are addresses of one name: which there are, what they are called, who gets sessions.

use std::task::{Context, Waker};

use super::*;
use crate::base::role::Target;
use crate::config::Dns;
use crate::net::discover::tests::{Script, addr};
use crate::topology::check::Failure;
use crate::topology::choose::fitting;
use tokio::sync::oneshot;
use tokio::time::sleep;

const TWO: &str = "{nodes: [{addr: db, max_connections: 7}, {addr: 10.0.0.9, name: c}], check: {user: u}}";
const DNS: Dns = Dns { refresh: Duration::from_secs(5), all_addresses: true };

impl Keeper {
    pub(super) fn finds(&mut self, hosts: &[u8]) {
        let finding = Finding::Addrs(hosts.iter().map(|host| addr(*host)).collect());
        self.apply_found(Found { of: 0, finding });
        self.publish();
    }

    /// The nodes that are published, as `name@last byte of the address`.
    fn names(&self) -> Vec<String> {
        names(&self.publish.borrow())
    }

    fn takes_sessions(&self) -> Vec<String> {
        let topology = self.publish.borrow();
        fitting(&topology, Target::Any, |_| true).iter().map(|node| node.config.name.clone()).collect()
    }
}

fn names(topology: &Topology) -> Vec<String> {
    let name = |node: &Node| match node.only_at.map(|addr| addr.ip().to_string()) {
        Some(ip) => format!("{}@{}", node.config.name, ip.rsplit('.').next().unwrap()),
        None => node.config.name.clone(),
    };
    topology.nodes.iter().map(name).collect()
}

#[tokio::test(start_paused = true)]
async fn each_address_is_a_node_and_takes_sessions_after_its_first_good_check() {
    let mut keeper = keeper(TWO);
    assert_eq!(keeper.names(), ["db", "c"]);
    keeper.finds(&[1, 2]);
    assert_eq!(keeper.names(), ["db@1", "db/2@2", "c"]);
    assert_eq!(keeper.takes_sessions(), [""; 0]);
    assert_eq!(keeper.node(2).config.max_connections.map(u32::from), Some(7));
    assert_eq!(&*keeper.node(2).addrs, [addr(2)]);
    keeper.sees(2, Role::Standby);
    keeper.sees(1, Role::Standby);
    assert_eq!(keeper.takes_sessions(), ["db/2", "c"], "in the order of the file");
    keeper.finds(&[1, 2, 3]);
    keeper.fails(3);
    assert_eq!(keeper.takes_sessions(), ["db/2", "c"]);
    // What was known of an address that stays is still known.
    assert_eq!(keeper.node(2).role(), Some(Role::Standby));
}

#[tokio::test(start_paused = true)]
async fn a_free_place_goes_to_the_next_address_and_the_list_does_not_grow() {
    let mut keeper = keeper(TWO);
    keeper.finds(&[1, 2, 3]);
    keeper.finds(&[2, 3]);
    assert_eq!(keeper.names(), ["db/2@2", "db/3@3", "c"]);
    keeper.finds(&[2, 3, 4]);
    assert_eq!(keeper.names(), ["db@4", "db/2@2", "db/3@3", "c"]);
    for host in 10..90 {
        keeper.finds(&[host, host + 1, host + 2]);
    }
    assert_eq!(keeper.publish.borrow().nodes.iter().map(|node| node.id.place).max(), Some(3));
    assert!(keeper.publish.borrow().nodes.iter().any(|node| 20 < node.id.life));
}

#[tokio::test(start_paused = true)]
async fn what_is_told_of_one_that_is_gone_is_not_held_against_its_successor() {
    let mut keeper = keeper(TWO);
    keeper.finds(&[1]);
    let old = keeper.id(0);
    keeper.finds(&[2]);
    assert_ne!(old, keeper.id(0));
    keeper.apply_met(old, &Met::Failure("refused".into()));
    assert!(!keeper.apply_met(old, &Met::Role { in_recovery: false }));
    let failure = Failure {
        step: "connect",
        sqlstate: None,
        text: "refused".into(),
        answered: false,
        shows_life: false,
    };
    let late = Report { outcome: Outcome::Failed(failure), ..Report::of_lookup(&std::io::Error::other("x")) };
    keeper.apply_report(old, late);
    assert_eq!((keeper.states()[0], keeper.node(0).role()), ("starting", None));
    assert!(keeper.publish.borrow().node(old).is_none());
}

#[tokio::test(start_paused = true)]
async fn sessions_on_an_address_that_is_gone_end_by_themselves() {
    let mut keeper = keeper(TWO);
    keeper.finds(&[1, 2]);
    keeper.sees(0, Role::Primary);
    let session = keeper.node(0).load.enter(None).unwrap();
    keeper.finds(&[2, 3]);
    let departed =
        |keeper: &Keeper| keeper.publish.borrow().departed.iter().map(|one| one.addr).collect::<Vec<_>>();
    assert_eq!(departed(&keeper), [addr(1)], "so that cancel requests still find it");
    assert_eq!(keeper.node(0).load.sessions(), 0);
    keeper.sees(0, Role::Standby);
    assert_eq!(departed(&keeper), [addr(1)]);
    drop(session);
    keeper.sees(0, Role::Standby);
    assert_eq!(departed(&keeper), []);
}

#[tokio::test(start_paused = true)]
async fn sessions_on_an_address_that_is_gone_are_told_so_and_who_is_the_primary_now() {
    let mut keeper = keeper(TWO);
    keeper.finds(&[1, 2]);
    keeper.sees(0, Role::Primary);
    keeper.sees(1, Role::Standby);
    let (troubles, _session) = (keeper.node(0).troubles.clone(), keeper.node(0).load.enter(None));
    let mut watch = troubles.watch();
    let mut is_told = || watch.poll_news(&Context::from_waker(Waker::noop())).is_ready();
    assert!(is_told() && !is_told());
    assert_eq!(troubles.now(), Trouble::default());
    keeper.finds(&[2]);
    assert!(is_told(), "whoever waits for it hears it");
    assert_eq!(troubles.now(), Trouble { is_leaving: true, ..Trouble::default() });
    keeper.sees(1, Role::Primary);
    assert!(is_told());
    assert!(troubles.now().is_demoted && troubles.now().is_leaving);
}

#[tokio::test(start_paused = true)]
async fn of_several_written_primaries_the_first_to_be_up_gets_the_writes() {
    let mut keeper = keeper("nodes: [{addr: db, role: primary}]");
    keeper.finds(&[1, 2]);
    keeper.sees(1, Role::Standby);
    assert_eq!(keeper.writes_go_to(), Some(1));
    advance(Duration::from_secs(1)).await;
    keeper.sees(0, Role::Standby);
    assert_eq!(keeper.writes_go_to(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn names_are_followed_while_the_keeper_keeps() {
    let script = Script::default();
    let keeper = keeper(TWO);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let names_of = Names::of(&keeper.cluster, DNS);
    assert!(names_of.has(0) && !names_of.has(1));
    let mut current = keeper.publish.subscribe();
    let found = names_of.follow(&script, &tasks, &stop);
    let (reports, reported) = mpsc::channel(1);
    let (_outcomes, met) = Outcomes::channel();
    tasks.spawn(keeper.keep(News { reported, met, found, asked: Orders::channel().1 }, stop.clone()));
    let mut until = async |wanted: &[&str]| {
        let wait = current.wait_for(|topology| names(topology) == wanted);
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("in time").unwrap().clone()
    };
    let seen = until(&["db", "c"]).await;
    assert_eq!(seen.nodes[0].state(), NodeState::Starting);
    sleep(Duration::from_secs(1)).await;
    let seen = until(&["db", "c"]).await;
    assert_eq!(seen.nodes[0].in_words(), "db down 0s (no such host)");
    script.say(&[1, 2]);
    let seen = until(&["db@1", "db/2@2", "c"]).await;
    let good = Facts { role: Some(Role::Primary), ..Facts::default() };
    let report = Report { outcome: Outcome::Up(good), ..Report::of_lookup(&std::io::Error::other("x")) };
    let (pace, next) = oneshot::channel();
    reports.send(Reported { id: seen.nodes[1].id, report, pace }).await.unwrap();
    next.await.unwrap();
    assert!(until(&["db@1", "db/2@2", "c"]).await.nodes[1].is_up());
    // Nobody knows the name any more: all stays.
    script.say(&[]);
    sleep(Duration::from_secs(60)).await;
    assert!(until(&["db@1", "db/2@2", "c"]).await.nodes[1].is_up());
    script.say(&[2]);
    let seen = until(&["db/2@2", "c"]).await;
    assert!(seen.nodes[0].is_up());
    script.say(&[2, 3]);
    until(&["db@3", "db/2@2", "c"]).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

#[test]
fn addresses_are_never_looked_up_and_names_only_when_asked() {
    let yaml = "nodes: [{addr: 10.0.0.1, role: primary}, \"[::1]:5432\", \"[fe80::1%eth0]:5432\", db]";
    let config = Config::from_yaml(yaml, "test", &|_| None).unwrap();
    let has = |dns| {
        let names = Names::of(&config.clusters[0], dns);
        (0..4).map(|of| names.has(of)).collect::<Vec<_>>()
    };
    assert_eq!(has(DNS), [false, false, false, true]);
    assert_eq!(has(Dns { all_addresses: false, ..DNS }), [false; 4]);
}

/// Listeners on one port of several addresses of this machine.
async fn listeners() -> [tokio::net::TcpListener; 2] {
    loop {
        let first = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = tokio::net::TcpListener::bind(("127.0.0.2", port)).await {
            return [first, second];
        }
    }
}

/// With real checks, and so with a real clock.
#[tokio::test]
async fn each_address_is_checked_by_itself_until_it_is_gone() {
    let [first, second] = listeners().await;
    let addrs = [first.local_addr().unwrap(), second.local_addr().unwrap()];
    let text = "{nodes: [{addr: db, role: primary}], check: {type: tcp, interval: 10ms, timeout: 5s}}";
    let (cluster, metrics) = cluster(text);
    let (tasks, stop, script) = (TaskTracker::new(), CancellationToken::new(), Script::default());
    let dns = Dns { refresh: Duration::from_millis(20), all_addresses: true };
    script.say_exactly(addrs.to_vec());
    let watched = start_with(&script, &cluster, 0, dns, &metrics, &tasks, &stop);
    let mut current = watched.current.clone();
    let mut until = async |wanted: &[&str]| {
        let is_so = |topology: &Arc<Topology>| {
            let up = topology.nodes.iter().filter(|node| node.is_up());
            up.map(|node| node.config.name.as_str()).eq(wanted.iter().copied())
        };
        let wait = current.wait_for(is_so);
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time").unwrap().clone()
    };
    let seen = until(&["db", "db/2"]).await;
    assert_eq!(seen.nodes.iter().map(|node| node.addrs.to_vec()).collect::<Vec<_>>(), addrs.map(|a| vec![a]));
    drop(second);
    until(&["db"]).await;
    script.say_exactly(vec![addrs[0]]);
    let wait = async |nodes| {
        let mut current = current.clone();
        let wait = current.wait_for(|topology| topology.nodes.len() == nodes);
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time").unwrap();
    };
    wait(1).await;
    // Nobody looks there any more.
    let second = tokio::net::TcpListener::bind(addrs[1]).await.unwrap();
    let look = tokio::time::timeout(Duration::from_millis(200), second.accept()).await;
    assert!(look.is_err(), "{look:?}");
    script.say_exactly(addrs.to_vec());
    wait(2).await;
    second.accept().await.unwrap();
    stop.cancel();
    tasks.close();
    tokio::time::timeout(Duration::from_secs(20), tasks.wait()).await.expect("all tasks end");
}
