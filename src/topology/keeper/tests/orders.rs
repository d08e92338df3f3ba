//! What people want of nodes, and what the keeper makes of it.

use super::*;
use crate::base::role::Target;
use crate::topology::check::Lineage;
use crate::topology::choose::fitting;
use crate::topology::order::{AdminState, By, Done, Order, OrderError, Weigh};

const DRAIN: AdminState = AdminState::Drain;
const MAINT: AdminState = AdminState::Maint;
const READY: AdminState = AdminState::Ready;

fn order(admin: Option<AdminState>, weight: Option<Weigh>) -> Order {
    Order { admin, weight, by: By { way: "api", client: "test".into() } }
}

impl Keeper {
    pub(super) fn put(&mut self, name: &str, admin: AdminState) -> Done {
        self.obey(name, &order(Some(admin), None)).unwrap()
    }

    fn weighs(&mut self, name: &str, weigh: Weigh) -> u16 {
        self.obey(name, &order(None, Some(weigh))).unwrap().node.weight
    }

    fn fits(&self, target: Target) -> Vec<usize> {
        fitting(&self.publish.borrow(), target, |_| true).iter().map(|node| node.id.place).collect()
    }

    fn trouble(&self, node: usize) -> Trouble {
        self.node(node).troubles.now()
    }
}

/// A primary and two standbys.
fn three() -> Keeper {
    let mut keeper = keeper(THREE);
    keeper.sees(0, Role::Primary);
    keeper.sees(1, Role::Standby);
    keeper.sees(2, Role::Standby);
    keeper
}

const DRAINING: Trouble = Trouble {
    is_unreachable: false,
    is_demoted: false,
    is_lagging: false,
    is_leaving: false,
    is_draining: true,
};

#[tokio::test(start_paused = true)]
async fn a_drained_node_is_watched_and_gets_nobody_until_it_is_ready() {
    let mut keeper = three();
    let done = keeper.put("b", DRAIN);
    assert_eq!((done.node.state().as_str(), done.notes.len()), ("drain", 0));
    assert_eq!(keeper.fits(Target::Standby), [2]);
    assert_eq!(keeper.node(1).in_words(), "b in drain");
    let told = Trouble { is_demoted: true, ..DRAINING };
    assert_eq!(keeper.trouble(1), told, "what is the matter with a standby is still so");
    for _ in 0..3 {
        keeper.fails(1);
    }
    assert_eq!((keeper.node(1).health().as_str(), keeper.states()[1]), ("down", "drain"));
    (0..2).for_each(|_| keeper.sees(1, Role::Standby));
    assert_eq!((keeper.node(1).health().as_str(), keeper.states()[1]), ("up", "drain"), "it survives that");
    assert_eq!(keeper.fits(Target::Standby), [2]);
    keeper.put("b", READY);
    assert_eq!(keeper.fits(Target::Standby), [1, 2]);
    assert_eq!(keeper.trouble(1), Trouble { is_demoted: true, ..Trouble::default() });
}

#[tokio::test(start_paused = true)]
async fn a_node_in_maint_is_unknown_and_then_looked_at_as_after_a_start() {
    for comes_well in [true, false] {
        let mut keeper = three();
        keeper.watch(keeper.id(1));
        for _ in 0..3 {
            keeper.fails(1);
        }
        keeper.put("b", MAINT);
        assert!(keeper.places.get(keeper.id(1)).unwrap().watched.is_none(), "nobody looks there");
        assert_eq!((keeper.states()[1], keeper.node(1).verdict), ("maint", Verdict::Starting));
        // What was under way.
        keeper.sees(1, Role::Primary);
        keeper.fails(1);
        keeper.apply_met(keeper.id(1), &Met::Failure("refused".into()));
        assert!(!keeper.apply_met(keeper.id(1), &Met::Role { in_recovery: false }));
        assert_eq!((keeper.node(1).verdict, keeper.node(1).role()), (Verdict::Starting, Some(Role::Standby)));
        let notes = keeper.put("b", READY).notes;
        assert_eq!(notes, ["b gets sessions after its first good check"]);
        assert!(keeper.places.get(keeper.id(1)).unwrap().watched.is_some());
        assert_eq!((keeper.states()[1], keeper.fits(Target::Standby)), ("starting", vec![2]));
        if comes_well {
            keeper.sees(1, Role::Standby);
            assert_eq!((keeper.states()[1], keeper.node(1).held_back()), ("up", None));
        } else {
            keeper.fails(1);
            keeper.sees(1, Role::Standby);
            assert_eq!(keeper.states()[1], "going_up", "the first look has decided");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn from_maint_to_drain_it_is_looked_at_again() {
    let mut keeper = three();
    keeper.put("b", MAINT);
    keeper.put("b", DRAIN);
    assert!(keeper.places.get(keeper.id(1)).unwrap().watched.is_some());
    keeper.sees(1, Role::Standby);
    assert_eq!((keeper.node(1).health().as_str(), keeper.states()[1]), ("up", "drain"));
}

#[tokio::test(start_paused = true)]
async fn a_drained_primary_stays_the_primary_until_another_one_turns_up() {
    let mut keeper = three();
    let notes = keeper.put("a", DRAIN).notes;
    assert_eq!(notes, ["a is the only primary: writes wait until a promotion or `ready`"]);
    assert_eq!((keeper.writes_go_to(), keeper.fits(Target::Primary)), (Some(0), vec![]));
    assert_eq!(keeper.trouble(0), DRAINING);
    keeper.sees(0, Role::Primary);
    keeper.put("a", READY);
    assert_eq!(keeper.fits(Target::Primary), [0]);
    keeper.put("a", DRAIN);
    for _ in 0..3 {
        keeper.fails(0);
    }
    assert_eq!(keeper.writes_go_to(), None);
    keeper.sees(0, Role::Primary);
    assert_eq!(keeper.writes_go_to(), Some(0), "it was awaited");
    // Without a timeline, and beside one that is well.
    keeper.sees(1, Role::Primary);
    assert_eq!((keeper.writes_go_to(), keeper.fits(Target::Primary)), (Some(1), vec![1]));
    keeper.put("a", READY);
    keeper.sees(0, Role::Primary);
    assert_eq!((keeper.fits(Target::Primary), keeper.node(0).is_superseded), (vec![1], true));
    assert!(keeper.trouble(0).is_demoted);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_a_primary_beside_it_takes_the_place_of_a_drained_one() {
    let mut keeper = three();
    keeper.sees(1, Role::Primary);
    keeper.sees(0, Role::Primary);
    assert_eq!(keeper.writes_go_to(), Some(0));
    keeper.put("b", DRAIN);
    keeper.put("a", DRAIN);
    assert_eq!(keeper.writes_go_to(), Some(0), "the other one gets nobody, either");
    keeper.put("b", READY);
    assert_eq!(keeper.writes_go_to(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn of_two_ways_to_one_database_a_drained_one_is_left_without_a_cut() {
    let written = "{nodes: [{addr: a:1, role: primary}, b:1], check: {user: u}}";
    for yaml in [written, THREE] {
        let mut keeper = keeper(yaml);
        let facts = Facts {
            role: Some(Role::Primary),
            lineage: Some(Lineage { system: 7, timeline: 4 }),
            is_ready: true,
            ..Facts::default()
        };
        keeper.report(0, Outcome::Up(facts.clone()));
        advance(Duration::from_secs(1)).await;
        keeper.report(1, Outcome::Up(facts.clone()));
        assert_eq!(keeper.writes_go_to(), Some(0));
        assert_eq!(keeper.put("a", DRAIN).notes, [""; 0]);
        assert_eq!((keeper.writes_go_to(), keeper.trouble(0)), (Some(1), DRAINING), "{yaml}");
        keeper.put("a", READY);
        keeper.report(0, Outcome::Up(facts));
        assert_eq!(keeper.writes_go_to(), Some(1), "it lives, so it stays");
        assert!(keeper.fits(Target::Any).contains(&0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_in_maint_is_not_awaited_and_a_promotion_wins() {
    let mut keeper = three();
    let (usual, fast) = (keeper.cluster.check.interval, keeper.cluster.check.fast_interval);
    let notes = keeper.put("a", MAINT).notes;
    assert_eq!(notes, ["a is the only primary: writes wait until a promotion or `ready`"]);
    assert_eq!((keeper.writes_go_to(), keeper.pace(keeper.id(1))), (None, usual));
    // Back again, and nothing has happened.
    keeper.put("a", READY);
    assert_eq!(keeper.pace(keeper.id(1)), fast, "now it is awaited");
    keeper.sees(0, Role::Primary);
    assert_eq!((keeper.writes_go_to(), keeper.pace(keeper.id(1))), (Some(0), usual));
    keeper.put("a", MAINT);
    keeper.sees(1, Role::Primary);
    assert_eq!(keeper.writes_go_to(), Some(1));
    keeper.put("a", READY);
    keeper.sees(0, Role::Primary);
    assert_eq!((keeper.writes_go_to(), keeper.fits(Target::Any)), (Some(1), vec![1, 2]));
}

#[tokio::test(start_paused = true)]
async fn time_in_maint_is_no_time_down_and_each_change_is_counted_once() {
    let mut keeper = three();
    for _ in 0..3 {
        keeper.fails(1);
    }
    advance(Duration::from_secs(10)).await;
    keeper.put("b", MAINT);
    keeper.put("b", MAINT);
    advance(Duration::from_secs(100)).await;
    keeper.put("b", READY);
    keeper.sees(1, Role::Standby);
    let shown = keeper.metrics.render(&crate::telemetry::now::Now::default());
    let has = |line: &str| assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
    has("pgsplit_node_state_changes_total{node=\"b\",to=\"maint\"} 1");
    has("pgsplit_node_state_changes_total{node=\"b\",to=\"starting\"} 1");
    has("pgsplit_node_down_seconds_total{node=\"b\"} 10");
}

#[tokio::test(start_paused = true)]
async fn a_weight_is_set_and_taken_back() {
    let mut keeper = three();
    assert_eq!(keeper.weighs("b", Weigh::By(0)), 0);
    assert_eq!(keeper.fits(Target::Standby), [2]);
    assert_eq!(keeper.node(1).in_words(), "b has weight 0");
    assert_eq!(keeper.trouble(1), Trouble { is_demoted: true, ..Trouble::default() }, "nobody has to go");
    keeper.put("b", DRAIN);
    keeper.put("b", READY);
    assert_eq!(keeper.node(1).weight, 0, "that is another matter");
    assert_eq!(keeper.weighs("b", Weigh::By(256)), 256);
    assert_eq!(keeper.weighs("b", Weigh::AsWritten), 100);
    let too_much = order(Some(DRAIN), Some(Weigh::By(257)));
    assert_eq!(keeper.obey("b", &too_much).unwrap_err(), OrderError::Weight);
    assert_eq!(keeper.states()[1], "up", "all of it or nothing");
}

#[tokio::test(start_paused = true)]
async fn the_answer_says_what_is_left() {
    let mut keeper = three();
    assert_eq!(keeper.put("b", DRAIN).notes, [""; 0]);
    let notes = keeper.put("c", DRAIN).notes;
    assert_eq!(notes, ["no other standby takes sessions: `prefer-standby` reads from the primary"]);
    let notes = keeper.put("a", DRAIN).notes;
    assert_eq!(notes, ["no other node takes sessions: new ones wait until one does, or until `ready`"]);
    for _ in 0..3 {
        keeper.fails(1);
    }
    let notes = keeper.put("b", READY).notes;
    assert_eq!(notes, ["b down 0s (refused): it gets sessions when its checks pass"]);
}

#[tokio::test(start_paused = true)]
async fn an_order_names_one_node_also_of_several_addresses() {
    let mut keeper = keeper("{nodes: [{addr: db}, {addr: 10.0.0.9, name: c}], check: {user: u}}");
    keeper.put("db", DRAIN);
    keeper.finds(&[1, 2]);
    assert_eq!(
        keeper.states(),
        ["drain", "starting", "starting"],
        "the first of them is the one that was meant"
    );
    assert_eq!(keeper.put("db/2", MAINT).node.id.place, 2);
    let error = keeper.obey("db/3", &order(Some(DRAIN), None)).unwrap_err();
    assert_eq!(error.to_string(), "no such node; there are db, db/2 and c");
    // Another address is another node.
    keeper.finds(&[1, 3]);
    assert_eq!(keeper.states(), ["drain", "starting", "starting"]);
}

#[tokio::test(start_paused = true)]
async fn orders_are_answered_while_the_keeper_keeps() {
    let (cluster, metrics) =
        cluster("{nodes: [{addr: '127.0.0.1:1', role: primary}], check: {type: tcp, interval: 1h}}");
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let dns = config::Dns { refresh: Duration::from_secs(5), all_addresses: false };
    let watched = start(&cluster, 0, dns, &metrics, &tasks, &stop);
    let done = watched.order("127.0.0.1", order(Some(DRAIN), None)).await.unwrap();
    assert_eq!(done.node.admin, DRAIN);
    assert_eq!(watched.current.borrow().nodes[0].admin, DRAIN, "and seen by all");
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    let late = watched.order("127.0.0.1", order(Some(READY), None)).await;
    assert!(matches!(late, Err(OrderError::Over(_))));
}
