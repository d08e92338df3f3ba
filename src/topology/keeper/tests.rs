//! What the keeper makes of the news, with a clock that the test moves.

use super::*;
use crate::config::Config;
use crate::telemetry::labels::NodeState;
use crate::telemetry::shape::{ClusterShape, Shape};
use crate::topology::check::Facts;
use crate::topology::check::patroni::Said;
use crate::topology::trouble::Trouble;
use crate::topology::{Lag, Node};
use record::FULL_FOR;
use std::time::SystemTime;
use tokio::time::advance;

/// The only cluster of a file, and what counts for it.
fn cluster(yaml: &str) -> (Arc<config::Cluster>, Arc<Metrics>) {
    let config = Config::from_yaml(yaml, "test", &|_| None).unwrap();
    let cluster = Arc::clone(&config.clusters[0]);
    let nodes: Vec<_> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let clusters = vec![ClusterShape { name: cluster.name.clone(), nodes }];
    let metrics = Metrics::new(&Shape {
        version: "0",
        clusters,
        listeners: Vec::new(),
        fronts: Vec::new(),
        workers: 1,
    });
    (cluster, Arc::new(metrics))
}

/// A keeper of the nodes of a file; nobody looks at them but the test.
fn keeper(yaml: &str) -> Keeper {
    let (cluster, metrics) = cluster(yaml);
    keeper_of(&cluster, &metrics)
}

fn keeper_of(cluster: &Arc<config::Cluster>, metrics: &Arc<Metrics>) -> Keeper {
    // Those who would look at nodes end before they begin.
    let (reports, stop) = (mpsc::channel(1).0, CancellationToken::new());
    stop.cancel();
    let (names, _) = Names::new(&System, &TaskTracker::new(), &stop);
    let watchers = Watchers { reports, tasks: TaskTracker::new(), stop };
    Keeper::new(cluster, 0, metrics, &Arc::default(), watchers, names)
}

const THREE: &str = "{nodes: [a:1, b:1, c:1], check: {user: u, max_lag: 10s}}";

impl Keeper {
    fn report(&mut self, node: usize, outcome: Outcome) {
        let report = Report {
            at: SystemTime::UNIX_EPOCH,
            took: Duration::from_millis(1),
            steps: Vec::new(),
            addrs: vec!["127.0.0.1:1".parse().unwrap()],
            outcome,
        };
        self.apply_report(self.id(node), report);
        self.publish();
    }

    /// Who has the place now.
    fn id(&self, place: usize) -> NodeId {
        self.places.records().map(|record| record.node.id).find(|id| id.place == place).unwrap()
    }

    fn node(&self, node: usize) -> &Node {
        &self.places.get(self.id(node)).unwrap().node
    }

    fn sees(&mut self, node: usize, role: Role) {
        self.report(node, Outcome::Up(Facts { role: Some(role), is_ready: true, ..Facts::default() }));
    }

    fn sees_lag(&mut self, node: usize, lsn: u64, age: u64) {
        let (role, replay_age) = (Some(Role::Standby), Some(Duration::from_secs(age)));
        self.report(node, Outcome::Up(Facts { role, lsn: Some(lsn), replay_age, ..Facts::default() }));
    }

    fn fails(&mut self, node: usize) {
        let failure = crate::topology::check::Failure {
            step: "connect",
            sqlstate: None,
            text: "refused".into(),
            answered: false,
            shows_life: false,
        };
        self.report(node, Outcome::Failed(failure));
    }

    fn states(&self) -> Vec<&'static str> {
        self.places.records().map(|record| record.node.state().as_str()).collect()
    }

    fn writes_go_to(&self) -> Option<usize> {
        self.publish.borrow().primary().map(|node| node.id.place)
    }
}

mod addresses;
mod orders;
mod reconfigure;
mod simulation;
mod succession;

#[tokio::test(start_paused = true)]
async fn the_first_look_decides_and_then_it_takes_a_row() {
    let mut keeper = keeper(THREE);
    assert_eq!(keeper.states(), ["starting"; 3]);
    keeper.sees(0, Role::Primary);
    keeper.fails(1);
    assert_eq!(keeper.states(), ["up", "down", "starting"]);
    keeper.sees(2, Role::Standby);
    keeper.fails(0);
    keeper.fails(0);
    assert_eq!(keeper.states()[0], "going_down");
    keeper.fails(0);
    keeper.sees(1, Role::Standby);
    assert_eq!(keeper.states()[..2], ["down", "going_up"]);
    keeper.sees(1, Role::Standby);
    assert_eq!(keeper.states()[..2], ["down", "up"]);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_paused_for_as_long_as_any_patroni_that_answers_says_so() {
    let mut keeper = keeper("{nodes: [a:1, b:1, c:1], check: {type: patroni}}");
    let says = |keeper: &mut Keeper, node: usize, is_paused: Option<bool>| {
        let patroni = is_paused.map(|is_paused| Said { is_paused, ..Said::default() });
        keeper.report(node, Outcome::Up(Facts { patroni, ..Facts::default() }));
        keeper.is_paused
    };
    assert!(!says(&mut keeper, 0, Some(false)));
    assert!(says(&mut keeper, 1, Some(true)), "one knows it earlier than the other");
    assert!(says(&mut keeper, 0, Some(true)));
    assert!(says(&mut keeper, 0, None));
    assert!(says(&mut keeper, 1, None), "nobody says otherwise");
    assert!(!says(&mut keeper, 0, Some(false)), "the other one may never answer again");
    assert!(says(&mut keeper, 2, Some(true)));
    keeper.fails(2);
    assert!(!says(&mut keeper, 0, Some(false)));
}

#[tokio::test(start_paused = true)]
async fn a_node_without_which_there_is_none_is_up_at_once() {
    let mut keeper = keeper(THREE);
    (0..3).for_each(|node| keeper.fails(node));
    keeper.sees(1, Role::Standby);
    assert_eq!(keeper.states(), ["down", "up", "down"], "the first of all");
    keeper.sees(2, Role::Standby);
    assert_eq!(keeper.states(), ["down", "up", "going_up"], "this one can wait");
    keeper.sees(0, Role::Primary);
    assert_eq!(keeper.states()[0], "going_up", "nobody awaits a primary that never was");
    keeper.sees(0, Role::Primary);
    (0..3).for_each(|_| keeper.fails(0));
    keeper.sees(0, Role::Standby);
    assert_eq!(keeper.states()[0], "going_up", "a standby is not what is awaited");
    keeper.fails(0);
    keeper.sees(0, Role::Primary);
    assert_eq!((keeper.states()[0], keeper.writes_go_to()), ("up", Some(0)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_and_goes_is_on_probation_and_its_end_is_published() {
    let mut keeper = keeper(THREE);
    keeper.sees(0, Role::Primary);
    keeper.sees(1, Role::Standby);
    let held = async |keeper: &mut Keeper| {
        (0..3).for_each(|_| keeper.fails(1));
        (0..2).for_each(|_| keeper.sees(1, Role::Standby));
        keeper.node(1).held_back().map(|left| left.as_millis())
    };
    assert_eq!(held(&mut keeper).await, None, "once is no habit");
    assert_eq!(held(&mut keeper).await, Some(1000));
    assert_eq!(held(&mut keeper).await, Some(2000));
    assert_eq!(keeper.pace(keeper.id(1)), keeper.cluster.check.interval);
    advance(Duration::from_millis(1600)).await;
    assert_eq!(keeper.pace(keeper.id(1)), Duration::from_millis(500), "400 ms are left");
    assert!(keeper.node(1).in_words().ends_with("standby, held back"));
    advance(Duration::from_millis(400)).await;
    assert_eq!(keeper.node(1).held_back(), None);
    assert_eq!(keeper.pace(keeper.id(1)), keeper.cluster.check.interval);
    keeper.fails(0);
    (0..2).for_each(|_| keeper.fails(0));
    keeper.sees(0, Role::Primary);
    assert_eq!(keeper.node(0).held_back(), None, "each for itself");
}

#[tokio::test(start_paused = true)]
async fn a_full_node_is_up_and_comes_back_by_itself() {
    let mut keeper = keeper(THREE);
    keeper.sees(0, Role::Primary);
    keeper.apply_met(NodeId::first(0), &Met::Full("sorry".into()));
    assert_eq!(keeper.states()[0], "full");
    assert!(keeper.node(0).is_up());
    advance(FULL_FOR + Duration::from_millis(1)).await;
    assert_eq!(keeper.states()[0], "up");
    keeper.report(0, Outcome::Full("sorry".into()));
    assert_eq!(keeper.states()[0], "full");
    keeper.sees(0, Role::Primary);
    assert_eq!(keeper.node(0).state(), NodeState::Up);
}

#[tokio::test(start_paused = true)]
async fn sessions_can_take_a_node_out_but_silence_alone_cannot() {
    let mut keeper = keeper(THREE);
    keeper.sees(0, Role::Primary);
    for _ in 0..9 {
        keeper.apply_met(NodeId::first(0), &Met::Silence);
    }
    assert_eq!(keeper.states()[0], "up");
    for _ in 0..3 {
        keeper.apply_met(NodeId::first(0), &Met::Failure("refused".into()));
    }
    assert_eq!(keeper.states()[0], "down");
}

#[tokio::test(start_paused = true)]
async fn good_news_can_be_told_before_the_rest() {
    let mut keeper = keeper(THREE);
    keeper.sees(0, Role::Standby);
    let record = keeper.places.get(keeper.id(0)).unwrap();
    let told = || record.node.troubles.now();
    assert!(told().is_demoted && !told().is_lagging);
    let trouble = Trouble { is_lagging: true, ..Trouble::default() };
    record.tell_sessions(trouble, Tell::Better);
    assert_eq!(told(), Trouble::default());
    record.tell_sessions(trouble, Tell::All);
    assert_eq!(told(), trouble);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_cut_before_anybody_has_listened() {
    let mut keeper = keeper(THREE);
    keeper.sees(0, Role::Primary);
    let is_cut = |keeper: &Keeper| keeper.node(0).troubles.now().is_unreachable;
    for _ in 0..2 {
        keeper.apply_met(NodeId::first(0), &Met::Failure("refused".into()));
    }
    keeper.fails(0);
    keeper.fails(0);
    assert_eq!((keeper.states()[0], is_cut(&keeper)), ("down", false), "all in one moment");
    advance(keeper.cluster.check.fast_interval).await;
    keeper.fails(0);
    assert!(is_cut(&keeper), "time enough to have heard something");
    keeper.sees(0, Role::Primary);
    assert!(!is_cut(&keeper));
}

#[tokio::test(start_paused = true)]
async fn with_passive_off_sessions_say_nothing() {
    let mut keeper = keeper("{nodes: [{addr: a:1, role: primary}], check: {passive: false}}");
    keeper.sees(0, Role::Primary);
    for _ in 0..9 {
        keeper.apply_met(NodeId::first(0), &Met::Failure("refused".into()));
    }
    assert_eq!(keeper.states(), ["up"]);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_could_not_be_made_is_not_held_against_the_node() {
    let mut keeper = keeper(THREE);
    keeper.sees(0, Role::Primary);
    for _ in 0..9 {
        keeper.report(0, Outcome::NotMade("too many open files".into()));
        assert_eq!(keeper.pace(keeper.id(0)), keeper.cluster.check.fast_interval, "a fresh one soon");
    }
    assert_eq!(keeper.states()[0], "up");
    // Two that heard nothing, and then again and again one that could not listen.
    for _ in 0..2 {
        keeper.fails(0);
        advance(Duration::from_secs(3)).await;
    }
    for _ in 0..9 {
        keeper.report(0, Outcome::NotMade("this process did not get to run".into()));
        advance(Duration::from_secs(3)).await;
    }
    assert_eq!((keeper.states()[0], keeper.node(0).troubles.now().is_unreachable), ("going_down", false));
    keeper.fails(0);
    assert!(!keeper.node(0).troubles.now().is_unreachable, "its silence has only begun");
}

#[tokio::test(start_paused = true)]
async fn a_warning_is_remembered_through_checks_that_could_not_be_made() {
    let mut keeper = keeper(THREE);
    let warning = Some("28P01 wrong".to_owned());
    keeper.report(0, Outcome::Up(Facts { warning: warning.clone(), ..Facts::default() }));
    keeper.report(0, Outcome::NotMade("this process did not get to run".into()));
    assert_eq!(keeper.places.get(keeper.id(0)).unwrap().warning, warning, "so that it is logged once");
}

#[tokio::test(start_paused = true)]
async fn an_old_primary_that_returns_does_not_take_over() {
    let mut keeper = keeper(THREE);
    keeper.sees(0, Role::Primary);
    keeper.sees(1, Role::Standby);
    assert_eq!(keeper.writes_go_to(), Some(0));
    (0..3).for_each(|_| keeper.fails(0));
    assert_eq!(keeper.writes_go_to(), None);
    advance(Duration::from_secs(5)).await;
    assert!(keeper.apply_met(NodeId::first(1), &Met::Role { in_recovery: false }));
    keeper.publish();
    assert_eq!(keeper.writes_go_to(), Some(1));
    advance(Duration::from_secs(5)).await;
    (0..2).for_each(|_| keeper.sees(0, Role::Primary));
    assert_eq!(keeper.writes_go_to(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_written_role_wins_over_what_is_seen() {
    let mut keeper = keeper("nodes: [{addr: a:1, role: primary}, {addr: b:1, role: replica}]");
    keeper.sees(0, Role::Primary);
    keeper.sees(1, Role::Primary);
    keeper.apply_met(NodeId::first(1), &Met::Role { in_recovery: false });
    assert_eq!(keeper.node(1).role(), Some(Role::Standby));
}

#[tokio::test(start_paused = true)]
async fn lag_counts_only_against_what_the_primary_has_written() {
    let mut keeper = keeper(THREE);
    keeper.report(0, Outcome::Up(Facts { role: Some(Role::Primary), lsn: Some(1000), ..Facts::default() }));
    keeper.sees_lag(1, 1000, 3600);
    assert_eq!(keeper.node(1).lag, Lag { time: Some(Duration::ZERO), bytes: Some(0) });
    keeper.sees_lag(1, 900, 3600);
    assert_eq!(keeper.node(1).lag.bytes, Some(100));
    assert!(!keeper.node(1).is_lagging, "one late look is not enough");
    keeper.sees_lag(1, 900, 3600);
    assert!(keeper.node(1).is_lagging);
    keeper.sees_lag(1, 1000, 0);
    keeper.sees_lag(1, 1000, 0);
    assert!(!keeper.node(1).is_lagging);
}
