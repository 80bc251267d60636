//! No two nodes ever admit to a slot, whatever happens; and each rule is needed for that.

use super::simulation::Simulation;
use super::*;

const SEEDS: u64 = 2000;

/// Two minutes with faults, after which all heals. How often two nodes admitted, and whether each slot has one again.
fn two_minutes(seed: u64, mutation: Option<Mutation>) -> (u64, bool) {
    let mut simulation = Simulation::new(seed, 2 + (seed % 4) as usize, mutation);
    simulation.begin_faults(15.0);
    simulation.run(120.0);
    simulation.heal();
    let healed = simulation.time() + 60.0;
    simulation.run(healed);
    (simulation.violations, simulation.admitting().iter().all(|&count| count == 1))
}

fn seeds() -> u64 {
    std::env::var("CORALMUX_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn two_nodes_never_admit_to_a_slot_and_after_all_has_healed_one_does() {
    for seed in 0..seeds() {
        assert_eq!(two_minutes(seed, None), (0, true), "seed {seed}");
    }
}

/// The first seed that finds what is wrong without a rule.
fn found(mutation: Mutation) -> Option<u64> {
    (0..seeds()).find(|&seed| two_minutes(seed, Some(mutation)).0 != 0)
}

/// The others are in the cases below.
#[test]
fn a_rule_that_is_left_out_is_found() {
    for mutation in [Mutation::LeaseFromSending, Mutation::AdmitWhileGiving, Mutation::AnyBoot, Mutation::NoPending] {
        let seed = found(mutation);
        println!("{mutation:?}: seed {seed:?}");
        assert!(seed.is_some(), "{mutation:?}");
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A node that owns slot 0 and holds a lease, with a second one in the map.
fn owner_of_a_slot(mutation: Option<Mutation>) -> Authority {
    let mut node = Authority::new(1, 7);
    node.mutation = mutation;
    let map = Map { members: BTreeMap::from([(1, 0), (2, 0)]), owners: vec![Some(1), Some(2)] };
    assert!(node.handle_map(seconds(100.0), 10, 0, map));
    echo(&mut node, 100.0);
    let Some(Proposal { base: 10, map }) = node.poll_proposal(seconds(100.0)) else { panic!() };
    assert_eq!(map.members[&1], 1, "it enters");
    assert!(!node.admits(seconds(100.0), 0), "not before it has read that");
    assert!(node.handle_map(seconds(100.1), 11, 10, map));
    assert!(node.admits(seconds(100.1), 0) && !node.admits(seconds(100.1), 1));
    node
}

/// A heartbeat that was sent then comes back at once.
fn echo(node: &mut Authority, at: f64) {
    node.handle_heartbeat(seconds(at), Heartbeat { node: 1, boot: 7, sent: seconds(at) });
}

#[test]
fn a_lease_is_over_when_it_is_over_and_only_the_map_gives_it_back() {
    let mut node = owner_of_a_slot(None);
    assert!(node.admits(seconds(107.9), 0) && !node.admits(seconds(108.0), 0));
    echo(&mut node, 109.0);
    assert!(!node.admits(seconds(109.0), 0), "another node may have decided meanwhile");
    let Some(Proposal { base: 11, map }) = node.poll_proposal(seconds(109.0)) else { panic!() };
    assert_eq!(map.members[&1], 2);
    assert_eq!(node.poll_proposal(seconds(109.1)), None, "one at a time");
    assert!(node.handle_map(seconds(109.2), 12, 11, map));
    assert!(node.admits(seconds(109.2), 0));

    let mut mutated = owner_of_a_slot(Some(Mutation::NoLapse));
    echo(&mut mutated, 109.0);
    assert!(mutated.admits(seconds(109.0), 0), "the rule makes the difference");
}

/// The removal was decided while the lease was over, and is on its way when a heartbeat comes back.
#[test]
fn of_a_removal_and_a_node_that_is_there_again_one_wins() {
    let mut node = owner_of_a_slot(None);
    let removed = without(node.map(), 1);
    echo(&mut node, 109.0);
    let entered = node.poll_proposal(seconds(109.0)).unwrap();
    assert_eq!(entered.base, 11, "made from the same map as the removal: the log takes one of them");
    assert!(node.handle_map(seconds(109.1), 12, 11, removed));
    assert!(!node.admits(seconds(109.2), 0));
    assert_eq!(node.map().owners, [Some(2), Some(2)]);
    let again = node.poll_proposal(seconds(109.2)).unwrap();
    assert_eq!((again.base, again.map.members[&1]), (12, 1), "it is a member again, and owns nothing");
    assert!(node.handle_map(seconds(109.3), 13, 12, again.map));
    assert!(node.is_fresh(seconds(109.3)) && !node.admits(seconds(109.3), 0));
}

/// The process stops while its authority is on its way, and reads what has come meanwhile one after the other.
#[test]
fn authority_that_comes_when_the_lease_is_over_again_is_none() {
    let mut node = owner_of_a_slot(None);
    echo(&mut node, 109.0);
    let entered = node.poll_proposal(seconds(109.0)).unwrap();
    assert!(node.handle_map(seconds(120.0), 12, 11, entered.map));
    echo(&mut node, 120.0);
    assert!(!node.admits(seconds(120.0), 0));
    assert!(node.poll_proposal(seconds(120.0)).is_some_and(|again| again.base == 12));
}

#[test]
fn a_map_that_was_made_from_another_one_is_passed_over() {
    for mutation in [None, Some(Mutation::AnyBase)] {
        let mut node = owner_of_a_slot(mutation);
        let forked = without(node.map(), 2);
        assert_eq!(node.handle_map(seconds(101.0), 13, 10, forked), mutation.is_some());
        assert_eq!(node.admits(seconds(101.0), 1), mutation.is_some(), "broken compare-and-swap forks nobody");
    }
}

#[test]
fn a_node_is_dead_when_a_heartbeat_sent_after_its_time_has_come_back_and_none_of_its_own() {
    for mutation in [None, Some(Mutation::DeadByClock)] {
        let mut node = owner_of_a_slot(mutation);
        node.handle_heartbeat(seconds(101.0), Heartbeat { node: 2, boot: 3, sent: seconds(5.0) });
        for at in 102..=110 {
            echo(&mut node, f64::from(at));
        }
        assert_eq!(node.poll_proposal(seconds(110.9)), None, "sent too early");
        // Its own watch may have stalled.
        assert_eq!(node.poll_proposal(seconds(112.0)).is_some(), mutation.is_some());
    }
    let mut node = owner_of_a_slot(None);
    node.handle_heartbeat(seconds(101.0), Heartbeat { node: 2, boot: 3, sent: seconds(5.0) });
    echo(&mut node, 105.0);
    node.handle_heartbeat(seconds(112.0), Heartbeat { node: 1, boot: 7, sent: seconds(111.0) });
    let Some(Proposal { base: 11, map }) = node.poll_proposal(seconds(112.0)) else { panic!() };
    assert_eq!((map.members.keys().copied().collect::<Vec<_>>(), map.owners), (vec![1], vec![Some(1), Some(1)]));
    assert_eq!(node.poll_proposal(seconds(112.0)), None, "it is on its way");
    node.handle_refusal(seconds(112.1), 11);
    assert!(node.poll_proposal(seconds(112.1)).is_some(), "again, since it has failed");
}

#[test]
fn a_slot_is_given_away_by_who_stops_first() {
    let mut node = owner_of_a_slot(None);
    assert_eq!((node.give(seconds(101.0), 1, 2), node.give(seconds(101.0), 0, 9)), (None, None));
    let given = node.give(seconds(101.0), 0, 2).unwrap();
    assert!(!node.admits(seconds(101.0), 0), "until it is known what has become of it");
    echo(&mut node, 102.0);
    assert!(node.admits(seconds(102.0), 0), "sent behind it: it has come to nothing");
    let again = node.give(seconds(102.0), 0, 2).unwrap();
    assert_eq!(again, given);
    assert!(node.handle_map(seconds(102.1), 12, 11, again.map));
    assert!(!node.admits(seconds(102.1), 0));
}

/// What says nothing of a proposal does not end it: a heartbeat of the same instant, which may have been sent before it, and
/// the answer to an earlier one.
#[test]
fn a_proposal_is_on_its_way_until_its_own_end_is_known() {
    for mutation in [None, Some(Mutation::SameInstant), Some(Mutation::AnyRefusal)] {
        let mut node = owner_of_a_slot(mutation);
        assert!(node.give(seconds(101.0), 0, 2).is_some());
        echo(&mut node, 101.0);
        assert_eq!(node.admits(seconds(101.1), 0), mutation == Some(Mutation::SameInstant));
        node.handle_refusal(seconds(101.2), 10);
        assert_eq!(node.admits(seconds(101.2), 0), mutation.is_some());
        node.handle_refusal(seconds(101.3), 11);
        assert!(node.admits(seconds(101.3), 0));
    }
}

#[test]
fn another_connection_is_a_lease_that_was_over() {
    let mut node = owner_of_a_slot(None);
    assert!(node.give(seconds(101.0), 0, 2).is_some());
    node.handle_new_connection();
    echo(&mut node, 101.1);
    assert!(!node.admits(seconds(101.1), 0), "what was sent on the old one may still come");
    assert!(node.poll_proposal(seconds(101.1)).is_some_and(|entered| entered.map.members[&1] == 2));
}

/// The longest time for which a slot had no owner, over some seeds.
fn longest(nodes: usize, until: f64, script: fn(&mut Simulation)) -> f64 {
    let runs = (0..20).map(|seed| {
        let mut simulation = Simulation::new(seed, nodes, None);
        simulation.moves = false;
        simulation.run(15.0);
        simulation.forget_past();
        script(&mut simulation);
        simulation.run(until);
        assert_eq!(simulation.violations, 0);
        simulation.longest()
    });
    runs.fold(0.0, f64::max)
}

#[test]
fn a_slot_is_without_owner_for_as_long_as_the_lease_says() {
    // A node dies with its host: its lease, and the time until that is noticed.
    for nodes in [2, 3] {
        let dead = longest(nodes, 60.0, |simulation| simulation.kill(1));
        assert!((10.0..14.0).contains(&dead), "{dead}");
    }
    // One that is cut off stops by itself before others go on.
    let cut = longest(3, 60.0, |simulation| simulation.cut_off(1));
    assert!((2.0..7.0).contains(&cut), "{cut}");
    // Without NATS nobody admits newcomers, from the end of the lease to its return.
    let away = longest(3, 90.0, |simulation| simulation.stop_nats(30.0));
    assert!((20.0..32.0).contains(&away), "{away}");
}
