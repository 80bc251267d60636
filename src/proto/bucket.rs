//! Token buckets, kept as one point in time each (GCRA, the generic cell rate algorithm).
//!
//! A bucket that refills by one every interval and holds a burst is the same as a time at which it will be full again:
//! each take moves that time on by one interval, and it may lie at most the burst ahead. Reads no clock: `now` goes in.

use std::time::Duration;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// How fast buckets refill and how much they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds in which one comes back; at least 1.
    interval: u64,
    /// How far ahead, in nanoseconds, a bucket's time may lie for one more take: `interval * (burst - 1)`.
    tolerance: u64,
}

impl Rate {
    /// `count` takes each `period`, and `burst` (at least 1) at once. `None` when `count` is 0: no limit.
    ///
    /// Where the period cannot be divided evenly the interval is rounded up: never more than `count` each period.
    #[must_use]
    pub fn per(count: u64, period: Duration, burst: u64) -> Option<Self> {
        let interval = nanos(period).checked_div(count)?;
        let interval = if interval.saturating_mul(count) < nanos(period) { interval + 1 } else { interval }.max(1);
        Some(Self { interval, tolerance: interval.saturating_mul(burst.saturating_sub(1)) })
    }
}

/// The state of one bucket: 8 bytes. The default is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When the bucket will be full again, in nanoseconds of the clock that `now` comes from.
    full_at: u64,
}

impl Bucket {
    /// Takes one, at `now` on a monotonic clock.
    ///
    /// # Errors
    /// Empty: how long until one is there, in whole milliseconds rounded up, so that a retry after that succeeds.
    pub fn try_take(&mut self, now: Duration, rate: &Rate) -> Result<(), Duration> {
        let now = nanos(now);
        let full_at = self.full_at.max(now);
        let early = (full_at - now).saturating_sub(rate.tolerance);
        if early > 0 {
            return Err(Duration::from_millis(early.div_ceil(NANOS_PER_MILLI)));
        }
        self.full_at = full_at.saturating_add(rate.interval);
        Ok(())
    }
}

/// Nanoseconds, ending at the 584 years that fit.
fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_one_each_interval() {
        let rate = Rate::per(30, MINUTE, 30).unwrap();
        let mut bucket = Bucket::default();
        let start = Duration::from_secs(1000);
        for _ in 0..30 {
            assert_eq!(bucket.try_take(start, &rate), Ok(()));
        }
        assert_eq!(bucket.try_take(start, &rate), Err(Duration::from_secs(2)));
        assert_eq!(bucket.try_take(start + Duration::from_millis(1999), &rate), Err(Duration::from_millis(1)));
        assert_eq!(bucket.try_take(start + Duration::from_secs(2), &rate), Ok(()));
        assert_eq!(bucket.try_take(start + Duration::from_secs(2), &rate), Err(Duration::from_secs(2)));
    }

    #[test]
    fn an_idle_bucket_holds_no_more_than_its_burst() {
        let rate = Rate::per(100, Duration::from_secs(1), 200).unwrap();
        let mut bucket = Bucket::default();
        let taken = (0..1000).filter(|_| bucket.try_take(MINUTE * 1000, &rate).is_ok()).count();
        assert_eq!(taken, 200);
    }

    #[test]
    fn a_count_of_zero_is_no_limit_and_a_burst_of_zero_is_one() {
        assert_eq!(Rate::per(0, MINUTE, 5), None);
        assert_eq!(Rate::per(7, MINUTE, 0), Rate::per(7, MINUTE, 1));
    }

    #[test]
    fn an_interval_that_does_not_divide_evenly_never_gives_more() {
        let rate = Rate::per(3, Duration::from_nanos(10), 1).unwrap();
        let mut bucket = Bucket::default();
        let taken = (0..1000).filter(|&now| bucket.try_take(Duration::from_nanos(now), &rate).is_ok()).count();
        assert!((200..=300).contains(&taken), "{taken}");
    }

    #[test]
    fn the_state_is_eight_bytes() {
        assert_eq!(size_of::<Bucket>(), 8);
    }

    #[test]
    fn extreme_rates_neither_overflow_nor_divide_by_nothing() {
        for (count, period, burst) in
            [(u64::MAX, MINUTE, u64::MAX), (1, Duration::MAX, u64::MAX), (1, Duration::ZERO, 1), (u64::MAX, MINUTE, 1)]
        {
            let rate = Rate::per(count, period, burst).unwrap();
            let mut bucket = Bucket::default();
            assert_eq!(bucket.try_take(Duration::ZERO, &rate), Ok(()));
            let _ = bucket.try_take(Duration::MAX, &rate);
            let _ = bucket.try_take(Duration::ZERO, &rate);
        }
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_the_burst_and_the_rate(
            count in 1..500u64, period_ms in 1..120_000u64, burst in 1..300u64,
            steps in proptest::collection::vec(0..200_000_000u64, 1..600),
        ) {
            let period = Duration::from_millis(period_ms);
            let rate = Rate::per(count, period, burst).unwrap();
            let mut bucket = Bucket::default();
            let mut now = Duration::from_secs(5);
            let mut taken = Vec::new();
            for step in steps {
                now += Duration::from_nanos(step);
                match bucket.try_take(now, &rate) {
                    Ok(()) => taken.push(now),
                    Err(wait) => {
                        prop_assert!(wait > Duration::ZERO);
                        prop_assert_eq!(bucket.clone().try_take(now + wait, &rate), Ok(()));
                        if let Some(too_soon) = wait.checked_sub(Duration::from_millis(1)) {
                            prop_assert!(bucket.clone().try_take(now + too_soon, &rate).is_err());
                        }
                    }
                }
            }
            for (first, &from) in taken.iter().enumerate() {
                for (last, &to) in taken.iter().enumerate().skip(first) {
                    let refilled = (to - from).as_nanos() * u128::from(count) / period.as_nanos();
                    prop_assert!((last - first) as u128 <= refilled + u128::from(burst));
                }
            }
        }
    }
}
