//! How often one client address may register. No clock: `now` is passed in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// The hour that registrations are counted in; it begins with an address's first one.
const WINDOW_MS: u64 = 3_600_000;

/// Addresses that are counted at once; with all of them taken, new ones wait. So a flood from very many addresses can
/// make at most this many times the hourly limit of tokens an hour.
const ADDRESSES_MAX: usize = 65_536;

/// How often the table is looked through for hours that are over, when it is full.
const SWEEP_MS: u64 = 10_000;

/// The counts of all addresses.
#[derive(Debug)]
pub(super) struct RegisterLimit {
    /// Registrations an hour for each address; 0: no limit.
    per_hour: u64,
    windows: HashMap<u128, Window>,
    swept_ms: u64,
}

#[derive(Debug)]
struct Window {
    started_ms: u64,
    /// From 1 to `per_hour`, 0 only after a [`RegisterLimit::give_back`].
    count: u64,
}

impl Window {
    /// Milliseconds until the hour is over; `None` when it is. A clock that was set back ends it too.
    fn left_ms(&self, now_ms: u64) -> Option<u64> {
        let passed = now_ms.checked_sub(self.started_ms)?;
        WINDOW_MS.checked_sub(passed).filter(|&left| left > 0)
    }
}

impl RegisterLimit {
    pub(super) fn new(per_hour: u64) -> Self {
        Self { per_hour, windows: HashMap::new(), swept_ms: 0 }
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
        let network = network_of(address);
        if self.windows.len() >= ADDRESSES_MAX && !self.windows.contains_key(&network) {
            self.make_room(now_ms)?;
        }
        let window = self.windows.entry(network).or_insert(Window { started_ms: now_ms, count: 0 });
        match window.left_ms(now_ms) {
            Some(left) if window.count >= self.per_hour => return Err(left),
            Some(_) => window.count += 1,
            None => *window = Window { started_ms: now_ms, count: 1 },
        }
        Ok(())
    }

    /// Takes back a registration that came to nothing.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        if let Some(window) = self.windows.get_mut(&network_of(address)) {
            window.count = window.count.saturating_sub(1);
        }
    }

    fn make_room(&mut self, now_ms: u64) -> Result<(), u64> {
        if now_ms.abs_diff(self.swept_ms) >= SWEEP_MS {
            self.swept_ms = now_ms;
            self.windows.retain(|_, window| window.left_ms(now_ms).is_some());
        }
        if self.windows.len() < ADDRESSES_MAX { Ok(()) } else { Err(SWEEP_MS) }
    }
}

/// What counts as one address: an IPv4 address, also one mapped into IPv6; of IPv6 the /64, for a home has a whole one.
fn network_of(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => Ipv6Addr::to_bits(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => v6.to_bits() & (u128::MAX << 64),
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
    fn the_table_is_bounded_and_recovers() {
        let mut limit = RegisterLimit::new(1);
        for n in 0..ADDRESSES_MAX as u32 {
            assert_eq!(limit.take(20_000, std::net::Ipv4Addr::from_bits(n).into()), Ok(()));
        }
        let late = ip("203.0.113.9");
        assert_eq!(limit.take(20_000, late), Err(SWEEP_MS));
        assert_eq!(limit.windows.len(), ADDRESSES_MAX);
        assert_eq!(limit.take(20_000 + WINDOW_MS, late), Ok(()));
        assert_eq!(limit.windows.len(), 1);
    }

    #[test]
    fn zero_lifts_the_limit_and_keeps_no_table() {
        let mut limit = RegisterLimit::new(0);
        assert!((0..1000).all(|n| limit.take(n, ip("192.0.2.1")).is_ok()));
        assert!(limit.windows.is_empty());
    }
}
