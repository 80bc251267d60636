//! How often one client address may register, and of IPv6 also the networks around it. No clock: `now` is passed in.

use crate::sys::net::{Group, forget_least, groups_of};
use std::collections::HashMap;
use std::net::IpAddr;

/// The hour that registrations are counted in; it begins with an address's first one.
const WINDOW_MS: u64 = 3_600_000;

/// Networks that are counted at once, some 5 MB. With more of them, those that registered least are forgotten: a full table
/// keeps nobody from registering.
const GROUPS_MAX: usize = 65_536;

/// The counts of all networks.
#[derive(Debug)]
pub(super) struct RegisterLimit {
    /// Registrations an hour for each client address; 0: no limit.
    per_hour: u64,
    windows: HashMap<Group, Window>,
}

#[derive(Debug)]
struct Window {
    started_ms: u64,
    count: u64,
    /// Times as much as one address that the network may register.
    share: u64,
}

impl Window {
    /// Milliseconds until the hour is over; `None` when it is. A clock that was set back ends it too.
    fn left_ms(&self, now_ms: u64) -> Option<u64> {
        let passed = now_ms.checked_sub(self.started_ms)?;
        WINDOW_MS.checked_sub(passed).filter(|&left| left > 0)
    }

    /// What is remembered for longest: whatever has used most of what it may, and of those what began last.
    fn weight(&self) -> (u64, u64) {
        (self.count * 16 / self.share, self.started_ms)
    }
}

impl RegisterLimit {
    pub(super) fn new(per_hour: u64) -> Self {
        Self { per_hour, windows: HashMap::new() }
    }

    /// Another limit holds from now on; what was counted stays.
    pub(super) fn set_per_hour(&mut self, per_hour: u64) {
        self.per_hour = per_hour;
    }

    /// Counts a registration.
    ///
    /// # Errors
    /// Milliseconds after which the address may try again.
    pub(super) fn take(&mut self, now_ms: u64, address: IpAddr) -> Result<(), u64> {
        if self.per_hour == 0 {
            return Ok(());
        }
        let waits = groups_of(address).filter_map(|(group, share)| {
            let window = self.windows.get(&group)?;
            window.left_ms(now_ms).filter(|_| window.count >= self.per_hour.saturating_mul(share))
        });
        if let Some(wait) = waits.max() {
            return Err(wait);
        }
        for (group, share) in groups_of(address) {
            if self.windows.len() >= GROUPS_MAX && !self.windows.contains_key(&group) {
                forget_least(&mut self.windows, GROUPS_MAX, |window| {
                    window.left_ms(now_ms).is_some().then(|| window.weight())
                });
            }
            let fresh = Window { started_ms: now_ms, count: 0, share };
            let window = self.windows.entry(group).or_insert(fresh);
            if window.left_ms(now_ms).is_none() {
                (window.started_ms, window.count) = (now_ms, 0);
            }
            window.count += 1;
        }
        Ok(())
    }

    /// Takes back a registration that came to nothing.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        for (group, _) in groups_of(address) {
            if let Some(window) = self.windows.get_mut(&group) {
                window.count = window.count.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn five_an_hour_and_then_the_rest_of_the_hour_is_named() {
        let mut limit = RegisterLimit::new(5);
        for minute in 0..5 {
            assert_eq!(limit.take(minute * 60_000, ip("192.0.2.1")), Ok(()));
        }
        assert_eq!(limit.take(600_000, ip("192.0.2.1")), Err(3_000_000));
        assert_eq!(limit.take(600_000, ip("192.0.2.2")), Ok(()));
        assert_eq!(limit.take(3_600_000, ip("192.0.2.1")), Ok(()));
    }

    #[test]
    fn an_ipv6_64_counts_as_one_and_mapped_ipv4_as_ipv4() {
        let mut limit = RegisterLimit::new(1);
        assert_eq!(limit.take(0, ip("2001:db8:1:2::1")), Ok(()));
        assert!(limit.take(0, ip("2001:db8:1:2:ffff::9")).is_err());
        assert_eq!(limit.take(0, ip("2001:db8:1:3::1")), Ok(()));
        assert_eq!(limit.take(0, ip("::ffff:192.0.2.7")), Ok(()));
        assert!(limit.take(0, ip("192.0.2.7")).is_err());
        assert_eq!(limit.take(0, ip("::ffff:192.0.2.8")), Ok(()));
    }

    #[test]
    fn a_registration_that_failed_does_not_count() {
        let mut limit = RegisterLimit::new(1);
        assert_eq!(limit.take(0, ip("192.0.2.1")), Ok(()));
        limit.give_back(ip("192.0.2.1"));
        assert_eq!(limit.take(1, ip("192.0.2.1")), Ok(()));
        assert!(limit.take(2, ip("192.0.2.1")).is_err());
    }

    #[test]
    fn one_ipv6_48_has_sixteen_addresses_worth_of_registrations_and_keeps_nobody_else_out() {
        let mut limit = RegisterLimit::new(5);
        let network = 0x2001_0db8_0001_u128 << 80;
        let taken = (0..=u16::MAX).filter(|&n| {
            let address = std::net::Ipv6Addr::from_bits(network | u128::from(n) << 64 | 1);
            limit.take(0, address.into()).is_ok()
        });
        assert_eq!(taken.count(), 5 * 16, "and no more, however many networks it has");
        assert!(limit.take(0, ip("2001:db8:1:ffff::1")).is_err());
        assert_eq!(limit.take(0, ip("2001:db8:2::1")), Ok(()), "another /48");
        assert_eq!(limit.take(0, ip("192.0.2.1")), Ok(()));
        let mut limit = RegisterLimit::new(5);
        let of_56 = (0..=255_u128).filter(|n| {
            let address = std::net::Ipv6Addr::from_bits(network | n << 64 | 1);
            limit.take(0, address.into()).is_ok()
        });
        assert_eq!(of_56.count(), 20, "four addresses' worth of a /56");
        assert_eq!(limit.take(0, ip("2001:db8:1:100::1")), Ok(()), "the next /56");
    }

    #[test]
    fn a_full_table_keeps_nobody_out_and_remembers_those_at_their_limit() {
        let mut limit = RegisterLimit::new(2);
        for _ in 0..2 {
            assert_eq!(limit.take(0, ip("203.0.113.9")), Ok(()));
        }
        for n in 0..3 * GROUPS_MAX as u32 {
            assert_eq!(limit.take(1000, std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()), Ok(()));
            assert!(limit.windows.len() <= GROUPS_MAX);
        }
        assert!(limit.take(2000, ip("203.0.113.9")).is_err());
        assert_eq!(limit.take(1001 + WINDOW_MS, ip("203.0.113.9")), Ok(()));
    }

    #[test]
    fn zero_lifts_the_limit_and_keeps_no_table() {
        let mut limit = RegisterLimit::new(0);
        assert!((0..1000).all(|n| limit.take(n, ip("192.0.2.1")).is_ok()));
        assert!(limit.windows.is_empty());
    }
}
