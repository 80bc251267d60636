//! A relay that is driven without a kernel: one to three shards, clients that behave well and clients that do not, and a
//! network, a clock and an order of events that all follow from one number, the seed.
//!
//! After each turn and at the end it is looked at whether what must always hold does: no byte of one token reaches
//! another; messages come in order, none twice, none lost while both ends are there; what is counted is what there is;
//! nothing grows over its bound; and when everybody has gone, nothing is left of them.
//!
//! `make simulate SEEDS=100000 FROM=1` runs more seeds than the tests do, and `make simulate SEEDS=1 FROM=n` one again.

mod client;
mod control;
mod framing;
mod inspect;
mod ledger;
mod mutations;
mod plan;
mod rogue;
mod scene;
mod world;

use self::world::World;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A sum of all that has happened, for two runs to be compared: FNV-1a, by words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn add(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            self.0 = (self.0 ^ u64::from_le_bytes(padded)).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
        }
    }
}

/// Runs a seed; what it came to, or what was found not to hold.
fn run(seed: u64) -> Result<Digest, String> {
    run_with(seed, false)
}

/// As [`run`]; `is_hungry`: with little memory in any case.
fn run_with(seed: u64, is_hungry: bool) -> Result<Digest, String> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, is_hungry);
        world.run().map(|()| world.digest())
    }));
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!(
            "panic: {}",
            text.or_else(|| panic.downcast_ref().map(|text: &&str| (*text).to_owned())).unwrap_or_default()
        ))
    })
}

/// Runs `count` seeds from `first` on, on all cores.
///
/// # Panics
/// One of them fails; the text says which, and how it is run again.
fn run_all(first: u64, count: u64) {
    let next = AtomicU64::new(first);
    let work = || {
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= first + count || !failed.is_empty() {
                return failed;
            }
            failed.extend(run(seed).err().map(|broken| (seed, broken)));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut failed: Vec<(u64, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    failed.sort_unstable();
    if let Some((seed, broken)) = failed.first() {
        panic!("seed {seed} fails: {broken}\nrun it again: make simulate SEEDS=1 FROM={seed}");
    }
}

#[test]
fn two_thousand_seeds() {
    run_all(1, 2000);
}

#[test]
fn a_seed_runs_the_same_way_each_time() {
    for seed in 1..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

/// `make simulate` says which.
#[test]
#[ignore = "for as many seeds as one likes"]
fn many_seeds() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    run_all(number("FROM").unwrap_or(1), number("SEEDS").unwrap_or(100_000));
}
