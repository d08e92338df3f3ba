//! Another version of the file: who stays, who comes, who goes.

use super::addresses::DNS;
use super::*;
use crate::base::role::Target;
use crate::config::Dns;
use crate::topology::choose::fitting;
use crate::topology::order::{AdminState, By, Order, Weigh};

const PLAIN: Dns = Dns { all_addresses: false, ..DNS };

impl Keeper {
    fn reads(&mut self, yaml: &str, dns: Dns) {
        let (cluster, _) = cluster(yaml);
        self.reconfigure(&cluster, dns);
    }

    fn is_watched(&self, place: usize) -> bool {
        self.places.get(self.id(place)).unwrap().watched.is_some()
    }

    /// Places and sessions of those who have departed.
    fn departed(&self) -> Vec<(usize, u32)> {
        let topology = self.publish.borrow();
        topology.departed.iter().map(|one| (one.id.place, one.load.sessions())).collect()
    }
}

/// A primary and two standbys, `a`, `b` and `c`, that are watched.
fn three() -> Keeper {
    let mut keeper = keeper(THREE);
    keeper.sees(0, Role::Primary);
    keeper.sees(1, Role::Standby);
    keeper.sees(2, Role::Standby);
    keeper.watch_all();
    keeper
}

#[tokio::test(start_paused = true)]
async fn who_stays_keeps_what_is_known_and_takes_the_new_settings() {
    let mut keeper = three();
    keeper.fails(1);
    let order =
        Order { admin: Some(AdminState::Drain), weight: None, by: By { way: "api", client: String::new() } };
    keeper.obey("c", &order).unwrap();
    let (before, ids) = (keeper.node(1).clone(), [0, 1, 2].map(|place| keeper.id(place)));
    let _session = before.load.enter(None);
    let yaml = "{nodes: [c:1, {addr: b:1, weight: 7, backup: true, max_connections: 9}, a:1], check: {user: u, max_lag: 10s}}";
    keeper.reads(yaml, PLAIN);
    assert_eq!(keeper.names(), ["c", "b", "a"], "in the order of the new file");
    assert_eq!([0, 1, 2].map(|place| keeper.id(place)), ids);
    let now = keeper.node(1).clone();
    assert!(Arc::ptr_eq(&now.load, &before.load) && Arc::ptr_eq(&now.troubles, &before.troubles));
    assert!(Arc::ptr_eq(&now.valve, &before.valve));
    assert_eq!((now.verdict, now.role, now.progress), (before.verdict, before.role, before.progress));
    assert_eq!((now.weight, now.config.backup), (7, true));
    assert_eq!(now.config.max_connections.map(u32::from), Some(9));
    assert_eq!((keeper.states()[2], keeper.writes_go_to()), ("drain", Some(0)));
    assert_eq!(keeper.departed(), []);
    assert_eq!([0, 1, 2].map(|place| keeper.is_watched(place)), [true; 3]);
}

#[tokio::test(start_paused = true)]
async fn other_checks_are_made_from_now_on() {
    let mut keeper = three();
    keeper.fails(1);
    let before = [0, 1, 2].map(|place| Arc::clone(&keeper.places.get(keeper.id(place)).unwrap().hurry));
    keeper.reads("{nodes: [a:1, b:1, c:1], check: {user: u, fall: 2, interval: 5s}}", PLAIN);
    assert_eq!((keeper.node(1).progress, keeper.states()[1]), ((1, 2), "going_down"));
    keeper.fails(1);
    assert_eq!(keeper.states()[1], "down");
    assert_eq!(keeper.pace(keeper.id(0)), Duration::from_secs(5));
    for (place, before) in before.iter().enumerate() {
        assert!(keeper.is_watched(place));
        assert!(Arc::ptr_eq(before, &keeper.places.get(keeper.id(place)).unwrap().hurry));
    }
}

#[tokio::test(start_paused = true)]
async fn a_weight_set_by_hand_holds_until_the_file_says_something_new() {
    let mut keeper = three();
    let by = || By { way: "api", client: String::new() };
    keeper.obey("b", &Order { admin: None, weight: Some(Weigh::By(7)), by: by() }).unwrap();
    keeper.reads(&THREE.replace("10s", "20s"), PLAIN);
    assert_eq!(keeper.node(1).weight, 7);
    keeper.reads("{nodes: [a:1, {addr: b:1, weight: 50}, c:1], check: {user: u}}", PLAIN);
    assert_eq!(keeper.node(1).weight, 50);
}

#[tokio::test(start_paused = true)]
async fn a_role_may_be_written_and_taken_back() {
    let mut keeper = three();
    keeper.reads("{nodes: [a:1, b:1, {addr: c:1, role: primary}], check: {user: u}}", PLAIN);
    assert_eq!(keeper.node(2).role(), Some(Role::Primary));
    assert_eq!(keeper.node(2).role.unwrap().from, RoleSource::File);
    keeper.reads(THREE, PLAIN);
    assert_eq!(keeper.node(2).role(), Some(Role::Primary), "until somebody looks");
    keeper.sees(2, Role::Standby);
    assert_eq!(keeper.node(2).role(), Some(Role::Standby));
}

#[tokio::test(start_paused = true)]
async fn who_is_taken_out_departs_and_its_place_waits_for_one_of_its_name() {
    let mut keeper = three();
    let (troubles, load) = (keeper.node(0).troubles.clone(), Arc::clone(&keeper.node(0).load));
    let (old, session) = (keeper.id(0), load.enter(None));
    keeper.reads("{nodes: [b:1, c:1, d:1], check: {user: u}}", PLAIN);
    assert_eq!(keeper.names(), ["b", "c", "d"]);
    assert_eq!(keeper.departed(), [(0, 1)], "it is counted");
    assert_eq!(keeper.publish.borrow().departed[0].addrs.len(), 1, "and cancel requests still find it");
    assert!(troubles.now().is_draining && !troubles.now().is_demoted, "{:?}", troubles.now());
    assert_eq!((keeper.id(3).place, keeper.states()[2]), (3, "starting"), "a place of its own");
    assert!(keeper.is_watched(3));
    keeper.sees(3, Role::Primary);
    assert_eq!(keeper.writes_go_to(), Some(3));
    assert!(!troubles.now().is_demoted, "who writes there may come to the end of what it does");
    keeper.reads("{nodes: [b:1, c:1, d:1, a:1], check: {user: u}}", PLAIN);
    let new = keeper.id(0);
    assert_eq!((new.place, new.life), (old.place, old.life + 1));
    assert_eq!(
        (keeper.names(), keeper.departed()),
        (vec!["b".into(), "c".into(), "d".into(), "a".into()], vec![(0, 1)])
    );
    assert_eq!(keeper.node(0).load.sessions(), 0);
    drop(session);
    keeper.sees(3, Role::Primary);
    assert_eq!(keeper.departed(), []);
}

#[tokio::test(start_paused = true)]
async fn another_address_is_another_node() {
    let mut keeper = three();
    let old = keeper.id(1);
    let _session = keeper.node(1).load.enter(None);
    keeper.reads("{nodes: [a:1, {name: b, addr: b:2}, c:1], check: {user: u}}", PLAIN);
    let new = keeper.id(1);
    assert_eq!((new.place, new.life, keeper.states()[1]), (1, old.life + 1, "starting"));
    assert_eq!(keeper.departed(), [(1, 1)]);
    assert!(keeper.is_watched(1));
    assert_eq!(keeper.node(1).config.addr.port, 2);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_taken_out_is_awaited_by_nobody() {
    let mut keeper = three();
    keeper.reads("{nodes: [b:1, c:1], check: {user: u}}", PLAIN);
    assert_eq!((keeper.writes_go_to(), keeper.pace(keeper.id(1))), (None, keeper.cluster.check.interval));
    let topology = keeper.publish.borrow().clone();
    let reads: Vec<_> = fitting(&topology, Target::Any, |_| true).iter().map(|node| node.id.place).collect();
    assert_eq!(reads, [1, 2], "they are up throughout");
}

#[tokio::test(start_paused = true)]
async fn a_name_may_be_followed_from_now_on_and_no_more() {
    let yaml = "{nodes: [{addr: db}, {addr: 10.0.0.9, name: c}], check: {user: u}}";
    let mut keeper = keeper(yaml);
    keeper.watch_all();
    keeper.sees(0, Role::Primary);
    let (first, session) = (keeper.id(0), keeper.node(0).load.enter(None));
    // What is there serves until it is known where the name leads; it last led to one of them.
    keeper.reads(yaml, DNS);
    assert!(keeper.is_watched(0) && keeper.node(0).is_up());
    keeper.places.get_mut(first).unwrap().node.addrs = Arc::new([crate::net::discover::tests::addr(2)]);
    keeper.finds(&[1, 2]);
    assert_eq!(keeper.names(), ["db@2", "db/2@1", "c"]);
    assert_eq!((keeper.id(0), keeper.writes_go_to()), (first, Some(0)));
    assert!(keeper.is_watched(0) && keeper.is_watched(2));
    keeper.sees(2, Role::Standby);
    let other = keeper.node(2).load.enter(None);
    let troubles = keeper.node(2).troubles.clone();
    keeper.reads(yaml, PLAIN);
    assert_eq!((keeper.names(), keeper.departed()), (vec!["db".into(), "c".into()], vec![(2, 1)]));
    assert!(troubles.now().is_leaving && !troubles.now().is_draining);
    assert_eq!((keeper.id(0), keeper.writes_go_to(), keeper.node(0).load.sessions()), (first, Some(0), 1));
    // News of a name that is followed no more.
    keeper.apply_found(Found { number: 1, finding: Finding::Addrs(Vec::new()) });
    assert_eq!(keeper.names(), ["db", "c"]);
    drop((session, other));
}

#[tokio::test(start_paused = true)]
async fn all_depart_and_the_cluster_may_come_back() {
    let (cluster, metrics) =
        cluster("{nodes: [{addr: '127.0.0.1:1', role: primary}], check: {type: tcp, interval: 1h}}");
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let watched = start(&cluster, 0, PLAIN, &metrics, &tasks, &stop);
    let (id, load) = {
        let topology = watched.current.borrow();
        (topology.nodes[0].id, Arc::clone(&topology.nodes[0].load))
    };
    let session = load.enter(None);
    watched.depart().await.unwrap();
    assert!(watched.current.borrow().nodes.is_empty());
    assert_eq!(watched.current.borrow().departed.len(), 1);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(watched.current.borrow().departed.len(), 1);
    drop(session);
    let mut current = watched.current.clone();
    current.wait_for(|topology| topology.departed.is_empty()).await.unwrap();
    watched.reconfigure(cluster, PLAIN).await.unwrap();
    let back = watched.current.borrow().nodes[0].id;
    assert_eq!((back.place, back.life), (id.place, id.life + 1));
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    assert!(watched.depart().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_look_that_is_under_way_ends_by_itself_when_its_node_goes() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let yaml = format!(
        "{{nodes: [{{addr: '{}', role: primary}}], check: {{type: startup}}}}",
        listener.local_addr().unwrap()
    );
    let (cluster, metrics) = cluster(&yaml);
    let keeper = keeper_of(&cluster, &metrics);
    let (reports, mut reported) = mpsc::channel(1);
    let watch = Watch {
        id: keeper.id(0),
        node: Arc::clone(&cluster.nodes[0]),
        only_at: None,
        settings: cluster.check.clone(),
        current: keeper.publish.subscribe(),
        hurry: Arc::default(),
        reports,
    };
    let (tasks, gone) = (TaskTracker::new(), CancellationToken::new());
    tasks.spawn(watcher::watch(watch, gone.clone(), CancellationToken::new()));
    let (mut stream, _) = listener.accept().await.unwrap();
    gone.cancel();
    // It waits for an answer until its time is over, and does not hang up before that.
    let began = Instant::now();
    let mut asked = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut asked).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), cluster.check.timeout.as_secs());
    tasks.close();
    tasks.wait().await;
    assert!(reported.recv().await.is_none(), "nobody is told");
}
