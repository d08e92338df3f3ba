//! Who is the primary, through every order in which servers can die, be promoted and come back.

use super::*;
use crate::topology::check::Lineage;

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
async fn a_copy_that_somebody_promotes_takes_nothing_from_a_living_primary() {
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
    assert!(!hurried(&hurry).await, "but not again and again");
    keeper.sees(1, Role::Primary);
    assert_eq!(keeper.pace(keeper.id(1)), usual);
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
