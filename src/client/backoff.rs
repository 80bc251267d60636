//! When a lost connection is tried again.

use super::event::Reason;
use std::time::Duration;

/// A connection that held for this long starts the doubling anew.
pub(super) const SETTLED: Duration = Duration::from_secs(30);
/// Where the relay says that it is full, the least to wait, in first waits.
const FULL_FACTOR: u32 = 5;

/// Waits that double, with randomness, so that a crowd does not come back at once.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    /// The next wait: `min <= wait <= max`
    wait: Duration,
}

impl Backoff {
    /// The first wait is `min`, none is longer than `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        let max = max.max(min);
        Self { min, max, wait: min }
    }

    /// A connection was lost that had been up for `held`. How long to wait: from half of the next wait to all of it,
    /// as `random` says, and no less than the relay asked for.
    pub(super) fn handle_loss(
        &mut self,
        held: Duration,
        reason: &Reason,
        asked: Option<Duration>,
        random: u32,
    ) -> Duration {
        if held >= SETTLED {
            self.wait = self.min;
        }
        if matches!(reason, Reason::Closed { code: 1013, .. } | Reason::Http { status: 429 | 503, .. }) {
            self.wait = self.wait.max((self.min * FULL_FACTOR).min(self.max));
        }
        self.next(asked.unwrap_or_default(), random)
    }

    /// The next wait: from half of it to all, as `random` says, and no less than was asked for.
    pub fn next(&mut self, asked: Duration, random: u32) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(self.max);
        (wait / 2 + (wait / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))).max(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: Reason = Reason::Silent;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_long_connection() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut wait = |held| backoff.handle_loss(Duration::from_secs(held), &LOST, None, u32::MAX).as_secs();
        assert_eq!([0; 8].map(&mut wait), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(wait(29), 60);
        assert_eq!(wait(30), 1);
    }

    #[test]
    fn a_wait_is_at_least_half_and_at_least_what_was_asked_for() {
        let mut backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(60));
        assert_eq!(backoff.handle_loss(Duration::ZERO, &LOST, None, 0), Duration::from_secs(2));
        let asked = Some(Duration::from_secs(90));
        assert_eq!(backoff.handle_loss(Duration::ZERO, &LOST, asked, 0), Duration::from_secs(90));
    }

    #[test]
    fn a_full_relay_is_given_more_time_than_one_that_restarts() {
        let closed = |code| Reason::Closed { code, text: String::new() };
        let first = |code| {
            Backoff::new(Duration::from_secs(1), Duration::from_secs(60)).handle_loss(
                Duration::ZERO,
                &closed(code),
                None,
                u32::MAX,
            )
        };
        assert_eq!(first(1012), Duration::from_secs(1));
        assert_eq!(first(1013), Duration::from_secs(5));
    }
}
