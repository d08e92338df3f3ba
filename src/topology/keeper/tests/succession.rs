//! Who is the primary, through every order in which servers can die, be promoted and come back.

use super::*;
use crate::topology::check::Lineage;
use crate::topology::keeper::rivals::Rivalry;

/// A cluster in which 0 is the primary and the others follow it.
async fn settled(yaml: &str) -> Keeper {
    let mut keeper = keeper(yaml);
    keeper.sees(0, Role::Primary);
    for node in 1..keeper.states().len() {
        keeper.sees(node, Role::Standby);
    }
    advance(Duration::from_secs(10)).await;
    keeper
}

impl Keeper {
    fn goes_down(&mut self, node: usize) {
        (0..3).for_each(|_| self.fails(node));
    }

    fn comes_back(&mut self, node: usize, role: Role) {
        (0..2).for_each(|_| self.sees(node, role));
    }

    fn sees_timeline(&mut self, node: usize, timeline: u32) {
        let (role, lineage) = (Some(Role::Primary), Some(Lineage { system: 7, timeline }));
        self.report(node, Outcome::Up(Facts { role, lineage, is_ready: true, ..Facts::default() }));
    }

    fn sees_started(&mut self, node: usize, seconds: u64) {
        let (role, started) = (Some(Role::Primary), Some(Duration::from_secs(seconds)));
        self.report(node, Outcome::Up(Facts { role, started, ..Facts::default() }));
    }

    fn is_superseded(&self, node: usize) -> bool {
        self.node(node).is_superseded
    }

    /// Those of which it has been said that they live beside the primary.
    fn said(&self) -> Vec<usize> {
        let said = self.places.records().filter(|record| record.rivalry == Rivalry::Said);
        said.map(|record| record.node.id.place).collect()
    }

    fn session_fails(&mut self, node: usize) {
        self.apply_met(self.id(node), &Met::Failure("reset".into()));
        self.publish();
    }

    fn gets_sessions(&self, node: usize) -> bool {
        let topology = self.publish.borrow();
        let any = crate::topology::choose::fitting(&topology, crate::base::role::Target::Any, |_| true);
        any.iter().any(|fitting| fitting.id.place == node)
    }
}

#[tokio::test(start_paused = true)]
async fn a_promotion_takes_effect_once_a_check_of_the_old_primary_fails() {
    let mut keeper = settled(THREE).await;
    keeper.sees(1, Role::Primary);
    assert_eq!(keeper.writes_go_to(), Some(0), "both are well");
    keeper.session_fails(0);
    assert_eq!(keeper.writes_go_to(), Some(0), "a session is no check");
    keeper.fails(0);
    assert_eq!(keeper.writes_go_to(), Some(1));
    keeper.sees(0, Role::Primary);
    assert_eq!(keeper.writes_go_to(), Some(1), "it does not come back");
    assert!(!keeper.gets_sessions(0), "nor is it read from");
    keeper.fails(1);
    assert_eq!(keeper.writes_go_to(), Some(1));
    keeper.goes_down(1);
    assert_eq!(keeper.writes_go_to(), None, "rather nobody than an old primary");
    keeper.comes_back(1, Role::Primary);
    assert_eq!(keeper.writes_go_to(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn the_order_may_be_the_other_one() {
    let mut keeper = settled(THREE).await;
    keeper.fails(0);
    assert_eq!(keeper.writes_go_to(), Some(0));
    keeper.sees(1, Role::Primary);
    assert_eq!(keeper.writes_go_to(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn without_timelines_a_promotion_beside_a_living_primary_takes_nothing_from_it() {
    let mut keeper = settled(THREE).await;
    keeper.sees(1, Role::Primary);
    keeper.sees(0, Role::Primary);
    keeper.fails(0);
    keeper.fails(0);
    assert_eq!(keeper.writes_go_to(), Some(0), "it has passed a check since");
    keeper.fails(0);
    assert_eq!(keeper.writes_go_to(), Some(1), "now it is down");
}

#[tokio::test(start_paused = true)]
async fn an_old_primary_that_came_back_is_no_successor() {
    let mut keeper = settled(THREE).await;
    keeper.goes_down(2);
    keeper.comes_back(2, Role::Primary);
    assert!(!keeper.gets_sessions(2));
    keeper.fails(0);
    keeper.sees(1, Role::Primary);
    assert_eq!(keeper.writes_go_to(), Some(1), "who was promoted, and not who was there before");
    keeper.goes_down(1);
    keeper.goes_down(0);
    assert_eq!(keeper.writes_go_to(), None);
}

#[tokio::test(start_paused = true)]
async fn there_and_back_again() {
    let mut keeper = settled(THREE).await;
    keeper.goes_down(0);
    keeper.sees(1, Role::Primary);
    keeper.comes_back(0, Role::Standby);
    assert!(keeper.gets_sessions(0), "it follows now");
    keeper.fails(1);
    keeper.sees(0, Role::Primary);
    assert_eq!(keeper.writes_go_to(), Some(0));
    keeper.sees(1, Role::Primary);
    keeper.fails(0);
    assert_eq!(keeper.writes_go_to(), Some(0), "that 1 was promoted once is past");
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_primary_changes_nothing() {
    let mut keeper = settled(THREE).await;
    keeper.goes_down(0);
    assert_eq!(keeper.writes_go_to(), None);
    keeper.comes_back(0, Role::Primary);
    assert_eq!(keeper.writes_go_to(), Some(0));
    assert!(keeper.gets_sessions(0));
}

#[tokio::test(start_paused = true)]
async fn a_node_of_weight_0_inherits_nothing() {
    let mut keeper = settled("{nodes: [a:1, {addr: b:1, weight: 0}], check: {user: u}}").await;
    keeper.sees(1, Role::Primary);
    keeper.fails(0);
    assert_eq!(keeper.writes_go_to(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn of_primaries_that_were_there_from_the_start_the_first_is_the_one() {
    let mut keeper = keeper(THREE);
    keeper.sees(0, Role::Primary);
    advance(Duration::from_secs(1)).await;
    keeper.sees(1, Role::Primary);
    assert_eq!(keeper.writes_go_to(), Some(0));
    assert!(keeper.gets_sessions(1), "nobody knows which of them is old");
    keeper.fails(0);
    assert_eq!(keeper.writes_go_to(), Some(0));
    keeper.goes_down(0);
    assert_eq!(keeper.writes_go_to(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn roles_in_the_file_are_not_argued_with() {
    let mut keeper = keeper("nodes: [{addr: a:1, role: primary}, {addr: b:1, role: replica}]");
    keeper.sees(0, Role::Primary);
    keeper.sees(1, Role::Primary);
    keeper.fails(0);
    assert_eq!(keeper.writes_go_to(), Some(0));
    keeper.goes_down(0);
    assert_eq!(keeper.writes_go_to(), None);
    keeper.comes_back(0, Role::Primary);
    assert_eq!(keeper.writes_go_to(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn while_a_primary_is_awaited_standbys_are_looked_at_quickly() {
    let mut keeper = keeper(THREE);
    let (usual, fast) = (keeper.cluster.check.interval, keeper.cluster.check.fast_interval);
    keeper.sees(1, Role::Standby);
    assert_eq!(keeper.pace(keeper.id(1)), usual, "there never was one");
    keeper.sees(0, Role::Primary);
    assert_eq!(keeper.pace(keeper.id(1)), usual);
    keeper.fails(0);
    assert_eq!(keeper.pace(keeper.id(1)), fast);
    let hurry = Arc::clone(&keeper.places.get(keeper.id(1)).unwrap().hurry);
    let hurried = async |hurry: &Notify| tokio::time::timeout(Duration::ZERO, hurry.notified()).await.is_ok();
    assert!(hurried(&hurry).await, "and at once");
    keeper.goes_down(0);
    assert_eq!(keeper.pace(keeper.id(1)), fast, "also when it is down");
    assert_eq!(keeper.pace(keeper.id(0)), fast, "it may come back");
    assert!(!hurried(&hurry).await, "but not again and again");
    keeper.sees(1, Role::Primary);
    assert_eq!(keeper.pace(keeper.id(1)), usual);
    assert_eq!(keeper.pace(keeper.id(0)), keeper.cluster.check.down_interval);
    keeper.comes_back(0, Role::Standby);
    keeper.sees(1, Role::Standby);
    assert_eq!(keeper.pace(keeper.id(0)), fast, "a primary may also step down");
}

#[tokio::test(start_paused = true)]
async fn who_was_down_when_it_lost_its_place_does_not_get_it_back() {
    for timelines in [None, Some((1, 2))] {
        let mut keeper = settled(THREE).await;
        let sees = |keeper: &mut Keeper, node: usize| match timelines {
            None => keeper.sees(node, Role::Primary),
            Some((old, new)) => keeper.sees_timeline(node, if node == 0 { old } else { new }),
        };
        sees(&mut keeper, 0);
        keeper.goes_down(0);
        sees(&mut keeper, 1);
        assert_eq!(keeper.writes_go_to(), Some(1));
        keeper.goes_down(1);
        (0..2).for_each(|_| sees(&mut keeper, 0));
        assert_eq!(keeper.writes_go_to(), None, "{timelines:?}");
        assert!(!keeper.gets_sessions(0));
        (0..2).for_each(|_| sees(&mut keeper, 1));
        assert_eq!(keeper.writes_go_to(), Some(1));
        assert!(!keeper.gets_sessions(0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_primary_that_was_made_anew_is_known_by_its_timeline() {
    let mut keeper = settled(THREE).await;
    keeper.sees_timeline(0, 1);
    keeper.goes_down(0);
    keeper.sees_timeline(1, 2);
    keeper.goes_down(1);
    // It was a standby of 1 for a moment in which nobody looked.
    (0..2).for_each(|_| keeper.sees_timeline(0, 3));
    assert_eq!(keeper.writes_go_to(), Some(0));
    (0..2).for_each(|_| keeper.sees_timeline(1, 2));
    assert!(!keeper.gets_sessions(1));
}

#[tokio::test(start_paused = true)]
async fn of_primaries_that_were_there_from_the_start_the_later_timeline_is_the_one() {
    let mut keeper = keeper(THREE);
    keeper.sees_timeline(0, 4);
    keeper.sees_timeline(1, 5);
    assert_eq!(keeper.writes_go_to(), Some(1));
    assert!(!keeper.gets_sessions(0));
    keeper.goes_down(1);
    assert_eq!(keeper.writes_go_to(), None);
}

#[tokio::test(start_paused = true)]
async fn two_ways_to_the_same_database_are_both_good() {
    let mut keeper = keeper(THREE);
    keeper.sees_timeline(0, 4);
    keeper.sees_timeline(1, 4);
    keeper.goes_down(0);
    assert_eq!(keeper.writes_go_to(), Some(1));
    (0..2).for_each(|_| keeper.sees_timeline(0, 4));
    assert!(keeper.gets_sessions(0));
    keeper.goes_down(1);
    assert_eq!(keeper.writes_go_to(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn servers_of_different_origin_are_not_compared() {
    let mut keeper = keeper(THREE);
    keeper.sees_timeline(0, 1);
    let (role, lineage) = (Some(Role::Primary), Some(Lineage { system: 8, timeline: 9 }));
    keeper.report(1, Outcome::Up(Facts { role, lineage, ..Facts::default() }));
    assert_eq!(keeper.writes_go_to(), Some(0));
    assert!(keeper.gets_sessions(0) && keeper.gets_sessions(1));
    keeper.goes_down(0);
    (0..2).for_each(|_| keeper.sees_timeline(0, 1));
    assert_eq!(keeper.writes_go_to(), Some(1));
    assert!(keeper.gets_sessions(0));
}

#[tokio::test(start_paused = true)]
async fn the_later_timeline_takes_the_place_at_once() {
    let mut keeper = settled(THREE).await;
    keeper.sees_timeline(0, 1);
    keeper.sees_timeline(1, 2);
    assert_eq!(keeper.writes_go_to(), Some(1), "though it was a standby, and the other one is well");
    assert!(keeper.is_superseded(0) && !keeper.gets_sessions(0));
    keeper.sees_timeline(0, 1);
    keeper.sees_timeline(2, 3);
    assert_eq!(keeper.writes_go_to(), Some(2));
    keeper.goes_down(2);
    keeper.sees_timeline(1, 2);
    assert_eq!(keeper.writes_go_to(), None, "rather nobody than an old primary");
}

#[tokio::test(start_paused = true)]
async fn of_two_promotions_the_later_timeline_is_the_one_whichever_was_seen_last() {
    let mut keeper = settled(THREE).await;
    keeper.sees_timeline(0, 1);
    keeper.goes_down(0);
    keeper.apply_met(keeper.id(1), &Met::Role { in_recovery: false });
    keeper.sees_timeline(1, 3);
    keeper.sees_timeline(2, 2);
    assert_eq!(keeper.writes_go_to(), Some(1));
    assert!(!keeper.gets_sessions(2));
}

#[tokio::test(start_paused = true)]
async fn a_later_timeline_has_to_be_fit_for_the_place() {
    let mut keeper = settled("{nodes: [a:1, {addr: b:1, weight: 0}, c:1], check: {user: u}}").await;
    keeper.sees_timeline(0, 1);
    keeper.sees_timeline(1, 9);
    assert_eq!(keeper.writes_go_to(), Some(0), "weight 0");
    keeper.fails(2);
    keeper.apply_met(keeper.id(2), &Met::Role { in_recovery: false });
    keeper.publish();
    assert_eq!(keeper.writes_go_to(), Some(0), "failing");
    keeper.sees_timeline(2, 2);
    assert_eq!(keeper.writes_go_to(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_was_restarted_in_between_has_been_away() {
    for restart_is_seen_first in [true, false] {
        let mut keeper = settled(THREE).await;
        keeper.sees_started(0, 100);
        keeper.sees(1, Role::Standby);
        advance(Duration::from_secs(1)).await;
        if restart_is_seen_first {
            keeper.sees_started(0, 200);
            assert_eq!(keeper.writes_go_to(), Some(0), "nobody was promoted");
            keeper.sees(1, Role::Primary);
        } else {
            keeper.sees(1, Role::Primary);
            assert_eq!(keeper.writes_go_to(), Some(0));
            advance(Duration::from_secs(1)).await;
            keeper.sees_started(0, 200);
        }
        assert_eq!(keeper.writes_go_to(), Some(1), "{restart_is_seen_first}");
        assert!(keeper.is_superseded(0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_before_a_standby_was_seen_excuses_no_promotion() {
    let mut keeper = settled(THREE).await;
    keeper.sees_started(0, 100);
    keeper.sees_started(0, 200);
    advance(Duration::from_secs(1)).await;
    keeper.sees(1, Role::Standby);
    advance(Duration::from_secs(1)).await;
    keeper.sees(1, Role::Primary);
    keeper.sees_started(0, 200);
    assert_eq!(keeper.writes_go_to(), Some(0), "it was there all the time");
    keeper.fails(0);
    assert_eq!(keeper.writes_go_to(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn two_primaries_are_said_once_while_the_other_one_lives() {
    let mut keeper = settled(THREE).await;
    let both_pass = async |keeper: &mut Keeper| {
        advance(Duration::from_secs(1)).await;
        keeper.sees(0, Role::Primary);
        keeper.sees(1, Role::Primary);
    };
    // Frozen: it has passed its checks so far.
    keeper.sees(1, Role::Primary);
    advance(Duration::from_secs(1)).await;
    keeper.sees(1, Role::Primary);
    assert_eq!(keeper.said(), [0; 0]);
    keeper.goes_down(0);
    assert_eq!((keeper.writes_go_to(), keeper.said()), (Some(1), vec![]));

    keeper.comes_back(0, Role::Primary);
    assert_eq!(keeper.said(), [0; 0], "the other one may have been stopped");
    both_pass(&mut keeper).await;
    assert_eq!(keeper.said(), [0]);
    // The proper one is restarted beside it.
    keeper.goes_down(1);
    assert_eq!(keeper.said(), [0]);
    keeper.comes_back(1, Role::Primary);
    both_pass(&mut keeper).await;
    assert_eq!((keeper.writes_go_to(), keeper.said()), (Some(1), vec![0]));
    // Another coming is another episode.
    keeper.goes_down(0);
    assert_eq!(keeper.said(), [0; 0]);
    keeper.comes_back(0, Role::Primary);
    both_pass(&mut keeper).await;
    assert_eq!(keeper.said(), [0]);
}
