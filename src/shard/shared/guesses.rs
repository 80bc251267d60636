//! Wrong admin keys, by whom they came from. Each costs a while, and more the more there are; after very many none is
//! looked at any more for a time, the right one neither: an address that guesses learns nothing then.
//!
//! Exact, so that nobody is slowed for others, and bounded: where too many addresses guess, those that did so least are
//! forgotten. Of IPv6 a client may have whole networks to choose from, so these count too ([`groups_of`]).

use crate::sys::net::{Group, forget_least, groups_of};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Wrong keys are forgiven one by one, each after that long.
const FORGIVEN_AFTER_MS: u64 = 30_000;
/// Wrong keys that cost nothing yet.
const FREE: u64 = 3;
/// What the first one past those costs; each further one doubles it.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// What one costs at the most.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// What one costs at the least that is not looked at.
const HELD_MIN: Duration = Duration::from_secs(1);
/// So many that are not forgiven yet, and no further key is looked at.
const TRIES_MAX: u64 = 20;
/// Networks that are kept: some 500 KB.
const GROUPS_MAX: usize = 8192;

/// The networks that wrong keys came from, and the Unix millisecond at which all of theirs are forgiven.
#[derive(Debug, Default)]
pub struct Guesses(Mutex<HashMap<Group, u64>>);

impl Guesses {
    /// How long no key from an address is looked at; `None`: it is.
    #[must_use]
    pub fn wait(&self, address: IpAddr, now_unix_ms: u64) -> Option<Duration> {
        let all = self.all();
        let waits = groups_of(address).filter_map(|(group, _)| {
            let outstanding = all.get(&group)?.checked_sub(now_unix_ms)?;
            outstanding.checked_sub((TRIES_MAX - 1) * FORGIVEN_AFTER_MS)
        });
        waits.max().filter(|&wait| wait > 0).map(Duration::from_millis)
    }

    /// What a wait that [`Guesses::wait`] asks for comes to: for how long its answer is held back, so that asking again and
    /// again costs the relay next to nothing, and the whole seconds that are left to wait then.
    #[must_use]
    pub fn told_after(wait: Duration) -> (Duration, u64) {
        let held = wait.clamp(HELD_MIN, DELAY_MAX);
        let left = wait.saturating_sub(held).as_millis().div_ceil(1000) as u64;
        (held, left.max(1))
    }

    /// Counts a wrong key and says for how long its answer is to be held back.
    #[must_use]
    pub fn delay_after(&self, address: IpAddr, now_unix_ms: u64) -> Duration {
        let mut all = self.all();
        let mut outstanding = 0;
        for (group, share) in groups_of(address) {
            if all.len() >= GROUPS_MAX && !all.contains_key(&group) {
                forget_least(&mut all, GROUPS_MAX, |&forgiven_at| (forgiven_at > now_unix_ms).then_some(forgiven_at));
            }
            let forgiven_at = all.entry(group).or_insert(now_unix_ms);
            // A clock that was set back does not make the time longer.
            let left = forgiven_at.saturating_sub(now_unix_ms).min(TRIES_MAX * FORGIVEN_AFTER_MS);
            *forgiven_at = now_unix_ms + left + FORGIVEN_AFTER_MS / share;
            outstanding = outstanding.max(left + FORGIVEN_AFTER_MS / share);
        }
        match outstanding.div_ceil(FORGIVEN_AFTER_MS).saturating_sub(FREE) {
            0 => Duration::ZERO,
            past => FIRST_DELAY.saturating_mul(1 << (past - 1).min(16)).min(DELAY_MAX),
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Group, u64>> {
        // Each change is whole before anything in it can panic.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn guess(guesses: &Guesses, address: &str, times: u64) {
        for _ in 0..times {
            let _ = guesses.delay_after(ip(address), NOW);
        }
    }

    #[test]
    fn guesses_slow_down_then_are_not_looked_at_and_are_forgiven_one_by_one() {
        let guesses = Guesses::default();
        let delays: Vec<_> = (0..20).map(|_| guesses.delay_after(ip("192.0.2.1"), NOW).as_millis()).collect();
        assert_eq!(delays[..6], [0, 0, 0, 100, 200, 400]);
        assert_eq!(delays[19], 5000);
        let wait = guesses.wait(ip("192.0.2.1"), NOW).unwrap();
        assert_eq!(wait, Duration::from_secs(30));
        assert_eq!(guesses.wait(ip("192.0.2.1"), NOW + 30_000), None);
        assert_eq!(guesses.wait(ip("192.0.2.2"), NOW), None, "others are not slowed");
        assert_eq!(guesses.delay_after(ip("192.0.2.1"), NOW + 600_000), Duration::ZERO, "all are forgiven");
    }

    #[test]
    fn whoever_has_many_ipv6_networks_has_few_tries_in_all() {
        let guesses = Guesses::default();
        guess(&guesses, "2001:db8:1:1::1", 19);
        assert_eq!(guesses.wait(ip("2001:db8:1:1::2"), NOW), None);
        guess(&guesses, "2001:db8:1:1::3", 1);
        assert!(guesses.wait(ip("2001:db8:1:1::2"), NOW).is_some(), "the same /64");
        assert_eq!(guesses.wait(ip("2001:db8:1:2::1"), NOW), None, "another one");
        for network in 2..5 {
            guess(&guesses, &format!("2001:db8:1:{network}::1"), 20);
        }
        assert!(guesses.wait(ip("2001:db8:1:ff::1"), NOW).is_some(), "the same /56");
        assert_eq!(guesses.wait(ip("2001:db8:1:100::1"), NOW), None, "another /56 of the /48");
        for network in 1..=13 {
            guess(&guesses, &format!("2001:db8:1:{network:x}00::1"), 20);
        }
        assert!(guesses.wait(ip("2001:db8:1:ffff::1"), NOW).is_some(), "the same /48");
        assert_eq!(guesses.wait(ip("2001:db8:2::1"), NOW), None, "another /48");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_those_that_tried_least() {
        let guesses = Guesses::default();
        guess(&guesses, "192.0.2.1", 20);
        for n in 0..3 * GROUPS_MAX as u32 {
            let _ = guesses.delay_after(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into(), NOW);
        }
        assert!(guesses.all().len() <= GROUPS_MAX);
        assert!(guesses.wait(ip("192.0.2.1"), NOW).is_some(), "the worst of them is remembered");
        assert_eq!(guesses.wait(ip("198.51.100.1"), NOW), None, "a full table keeps nobody out");
    }

    #[test]
    fn who_is_not_looked_at_is_told_so_late() {
        let told = |ms| Guesses::told_after(Duration::from_millis(ms));
        assert_eq!(told(30_000), (DELAY_MAX, 25));
        assert_eq!(told(5_001), (DELAY_MAX, 1));
        assert_eq!(told(2_000), (Duration::from_secs(2), 1));
        assert_eq!(told(1), (HELD_MIN, 1));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out_for_longer() {
        let guesses = Guesses::default();
        guess(&guesses, "192.0.2.1", 25);
        let _ = guesses.delay_after(ip("192.0.2.1"), NOW - 86_400_000);
        let wait = guesses.wait(ip("192.0.2.1"), NOW - 86_400_000).unwrap();
        assert!(wait <= Duration::from_secs(60), "{wait:?}");
    }
}
