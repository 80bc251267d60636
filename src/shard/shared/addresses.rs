//! What each client address is up to before it authenticates: connections under way and failed tries.
//!
//! A fixed table of counters that all shards share without a lock. An address has the slot that its keyed hash names;
//! two addresses may share one (with 65,536 slots, rarely), and then share their allowance. Memory stays the same
//! however many addresses come.

use crate::sys::net::counted_as;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const SLOTS: usize = 1 << 16;
/// Failed tries are forgiven one by one, each after that long.
const FORGIVEN_AFTER_SEC: u64 = 30;
/// Failed tries that cost nothing yet.
const FREE_FAILURES: u64 = 3;
/// What the first failure past those costs; each further one doubles it.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// What a failure costs at the most: well within the authentication timeout.
const DELAY_MAX: Duration = Duration::from_secs(5);

/// Nobody outside can tell which addresses share a slot.
#[cfg(not(test))]
type Keyed = std::hash::RandomState;
/// In the simulation everything follows from the seed, and so does who shares a slot.
#[cfg(test)]
type Keyed = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

/// The table.
pub struct Addresses {
    hasher: Keyed,
    /// Connections that have not authenticated.
    connections: Box<[AtomicU64]>,
    /// The Unix second at which all failures are forgiven.
    failures: Box<[AtomicU64]>,
}

impl Default for Addresses {
    fn default() -> Self {
        let slots = || (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { hasher: Keyed::default(), connections: slots(), failures: slots() }
    }
}

impl Addresses {
    /// Counts a connection that has not authenticated, unless the address has `max` of them (0: no maximum).
    #[must_use]
    pub fn try_enter(&self, address: IpAddr, max: u64) -> bool {
        super::try_count(&self.connections[self.slot(address)], max)
    }

    /// Gives back what [`Addresses::try_enter`] counted.
    pub fn leave(&self, address: IpAddr) {
        self.connections[self.slot(address)].fetch_sub(1, Relaxed);
    }

    /// Counts a failed try and says for how long its answer is to be held back.
    #[must_use]
    pub fn delay_after_failure(&self, address: IpAddr, now_unix_sec: u64) -> Duration {
        let slot = &self.failures[self.slot(address)];
        let forgiven_at = slot.load(Relaxed).max(now_unix_sec) + FORGIVEN_AFTER_SEC;
        // Two shards at once may count one failure for two: it only makes the delay a little shorter.
        slot.store(forgiven_at, Relaxed);
        let failures = (forgiven_at - now_unix_sec).div_ceil(FORGIVEN_AFTER_SEC);
        match failures.saturating_sub(FREE_FAILURES) {
            0 => Duration::ZERO,
            past => FIRST_DELAY.saturating_mul(1 << (past - 1).min(16)).min(DELAY_MAX),
        }
    }

    fn slot(&self, address: IpAddr) -> usize {
        self.hasher.hash_one(counted_as(address)) as usize % SLOTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_allowance_and_gets_it_back() {
        let table = Addresses::default();
        let address = IpAddr::from([192, 0, 2, 1]);
        assert!(table.try_enter(address, 2));
        assert!(table.try_enter(address, 2));
        assert!(!table.try_enter(address, 2));
        table.leave(address);
        assert!(table.try_enter(address, 2));
        assert!(table.try_enter(address, 0));
    }

    #[test]
    fn all_of_a_64_are_one_client() {
        let table = Addresses::default();
        let [one, two] = ["2001:db8::1", "2001:db8::ffff:2"].map(|text| text.parse().unwrap());
        assert!(table.try_enter(one, 1));
        assert!(!table.try_enter(two, 1));
    }

    #[test]
    fn failures_slow_down_and_are_forgiven() {
        let table = Addresses::default();
        let address = IpAddr::from([192, 0, 2, 2]);
        let delays: Vec<_> = (0..12).map(|_| table.delay_after_failure(address, 1000).as_millis()).collect();
        assert_eq!(delays[..6], [0, 0, 0, 100, 200, 400]);
        assert_eq!(delays[11], 5000);
        assert_eq!(table.delay_after_failure(address, 1000 + 12 * 30).as_millis(), 0);
    }
}
