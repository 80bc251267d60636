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
mod stream;
mod world;

use self::world::World;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
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

/// What a seed came to.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    digest: Digest,
    /// How often it met what, by name.
    met: BTreeMap<&'static str, u64>,
}

/// Runs a seed; what it came to, or what was found not to hold.
fn run(seed: u64) -> Result<Ran, String> {
    run_with(seed, false)
}

/// As [`run`]; `is_hungry`: with little memory in any case.
fn run_with(seed: u64, is_hungry: bool) -> Result<Ran, String> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, is_hungry);
        world.run()?;
        let mut met = BTreeMap::new();
        world.met().for_each(|(name, count)| *met.entry(name).or_default() += count);
        Ok(Ran { digest: world.digest(), met })
    }));
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!(
            "panic: {}",
            text.or_else(|| panic.downcast_ref().map(|text: &&str| (*text).to_owned())).unwrap_or_default()
        ))
    })
}

/// Runs `count` seeds from `first` on, on all cores; how often what was met, by name.
///
/// # Panics
/// One of them fails; the text says which, and how it is run again.
fn run_all(first: u64, count: u64) -> BTreeMap<&'static str, u64> {
    let next = AtomicU64::new(first);
    let (failed, met) = (Mutex::new(Vec::new()), Mutex::new(BTreeMap::new()));
    let work = || {
        while failed.lock().unwrap().is_empty() {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= first + count {
                return;
            }
            match run(seed) {
                Ok(ran) => {
                    let mut met = met.lock().unwrap();
                    ran.met.into_iter().for_each(|(name, count)| *met.entry(name).or_default() += count);
                }
                Err(broken) => failed.lock().unwrap().push((seed, broken)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    if let Some((seed, broken)) = failed.into_inner().unwrap().into_iter().min() {
        panic!("seed {seed} fails: {broken}\nrun it again: make simulate SEEDS=1 FROM={seed}");
    }
    met.into_inner().unwrap()
}

/// What the seeds of the tests are to meet, or they would prove nothing of it.
const MET: [&str; 32] = [
    "DAILY_QUOTA_EXCEEDED",
    "FULL",
    "INVALID_MESSAGE",
    "MESSAGE_TOO_LARGE",
    "PEER_OFFLINE",
    "RATE_LIMITED",
    "UNAUTHORIZED",
    "accept errors",
    "acks",
    "auth_timeout",
    "busy",
    "client",
    "gave_way",
    "gone",
    "handshake",
    "handshakes",
    "http",
    "message_timeout",
    "moved",
    "no_proxy_header",
    "not moved",
    "not_utf8",
    "of devices",
    "pauses for the peer",
    "protocol",
    "replaced",
    "restart",
    "revoked",
    "silent",
    "slow_consumer",
    "turned_away",
    "waits for memory",
];

#[test]
fn two_thousand_seeds() {
    let met = run_all(1, 2000);
    for name in MET {
        assert!(met.get(name).is_some_and(|&count| count > 0), "{name} is not met any more: {met:?}");
    }
}

#[test]
fn a_seed_runs_the_same_way_each_time() {
    for seed in 1..40 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

/// `make simulate` says which.
#[test]
#[ignore = "for as many seeds as one likes"]
fn many_seeds() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let met = run_all(number("FROM").unwrap_or(1), number("SEEDS").unwrap_or(100_000));
    println!("{met:?}");
}
