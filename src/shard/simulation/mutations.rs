//! Proof that the simulation finds what it looks for: with a mistake in the shard, one of the first seeds fails, and says what
//! does not hold.

use super::run_with;
use crate::shard::mutation::{Mutation, make};

/// One of so many seeds finds each mistake.
const SEEDS: u64 = 400;

/// The first seed from `first` on that finds a mistake, and how it puts it.
fn found(mutation: Mutation, is_hungry: bool, first: u64) -> Option<(u64, String)> {
    make(Some(mutation));
    let found = (first..first + SEEDS).find_map(|seed| run_with(seed, is_hungry).err().map(|broken| (seed, broken)));
    make(None);
    found
}

/// It is found as one of these kinds of things that do not hold. `is_hungry`: with little memory. `first` is a seed that is
/// not far from one that finds it, which saves time.
#[track_caller]
fn expect(mutation: Mutation, is_hungry: bool, first: u64, kinds: &[&str]) {
    let Some((seed, broken)) = found(mutation, is_hungry, first) else {
        panic!("{mutation:?} is not found by {SEEDS} seeds")
    };
    let is_expected = kinds.iter().any(|kind| broken.starts_with(kind));
    assert!(is_expected, "{mutation:?} is found by seed {seed} as {broken}");
    println!("{mutation:?}: seed {seed}: {broken}");
    assert_eq!(run_with(seed, is_hungry).err(), None, "the seed fails for no other reason");
}

#[test]
fn a_phase_that_does_not_follow_is_found() {
    expect(Mutation::AnyPhase, true, 320, &["gauge:", "panic:"]);
}

#[test]
fn a_waiter_for_memory_that_is_lost_is_found() {
    expect(Mutation::LostWaiter, true, 1, &["waiter:"]);
}

#[test]
fn an_id_whose_generation_is_not_compared_is_found() {
    expect(Mutation::StaleId, true, 20, &["id:"]);
}

#[test]
fn a_counter_that_counts_twice_is_found() {
    expect(Mutation::CountedTwice, false, 1, &["counter:"]);
}

#[test]
fn a_reader_that_is_not_let_go_on_is_found() {
    expect(Mutation::LostRelief, false, 260, &["deaf:"]);
}

#[test]
fn an_extension_that_is_left_behind_is_found() {
    expect(Mutation::ExtLeftBehind, false, 1, &["ext:"]);
}

#[test]
fn bytes_that_overtake_others_are_found() {
    expect(Mutation::Overtaken, false, 1, &["blame:", "order:", "bytes:"]);
}
