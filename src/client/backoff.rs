//! When a lost connection is tried again.

use super::event::Reason;
use super::options::{WAIT_MAX, WAIT_MIN};
use std::time::Duration;

/// After a connection that worked, the first try comes within this time, or the first wait if that is shorter.
const QUICK: Duration = Duration::from_millis(500);
/// A connection that broke sooner than this may be one of many that the relay breaks.
const SHORT: Duration = Duration::from_secs(5);
/// From so many of them in a row on, each counts as a try that failed.
const SHORT_MAX: u32 = 3;
/// The longest wait after a connection that worked, however short it was: the network may be good again at any time.
const SHORT_WAIT_MAX: Duration = Duration::from_secs(8);
/// Where the relay sent the client away: a connection that held for this long starts the doubling anew.
const SETTLED: Duration = Duration::from_secs(30);
/// Where the relay says that it is full, the least to wait, in first waits.
const FULL_FACTOR: u32 = 5;

/// Waits that double, with randomness, so that a crowd does not come back at once.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    /// The next wait: `min <= wait <= max`
    wait: Duration,
    /// Connections that worked and broke within [`SHORT`], in a row.
    short: u32,
}

impl Default for Backoff {
    /// The waits of a client with the usual options.
    fn default() -> Self {
        Self::new(WAIT_MIN, WAIT_MAX)
    }
}

impl Backoff {
    /// The first wait is `min`, none is longer than `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        let max = max.max(min);
        Self { min, max, wait: min, short: 0 }
    }

    /// A connection was lost that had been authenticated for `held`, or did not get so far. How long to wait, no less than
    /// the relay asked for: after one that worked only a moment, of which `random` says how much; after a try that failed
    /// from half of the next wait to all of it.
    pub fn handle_loss(
        &mut self,
        held: Option<Duration>,
        reason: &Reason,
        asked: Option<Duration>,
        random: u32,
    ) -> Duration {
        if let Some(held) = held {
            self.short = if held < SHORT { self.short.saturating_add(1) } else { 0 };
        }
        let was_sent_away =
            matches!(reason, Reason::Closed { code: 1012 | 1013, .. } | Reason::Http { status: 429 | 503, .. });
        if held.is_some() && self.short < SHORT_MAX && !was_sent_away {
            self.wait = self.min;
            return part(QUICK.min(self.min), random).max(asked.unwrap_or_default());
        }
        if held.is_some_and(|held| held >= SETTLED) {
            self.wait = self.min;
        }
        if held.is_some() && !was_sent_away {
            self.wait = self.wait.min(SHORT_WAIT_MAX.max(self.min));
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
        (wait / 2 + part(wait / 2, random)).max(asked)
    }
}

/// As much of `wait` as `random` says.
fn part(wait: Duration, random: u32) -> Duration {
    wait.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: Reason = Reason::Silent;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(60))
    }

    fn lost(backoff: &mut Backoff, held: Option<u64>, random: u32) -> u128 {
        backoff.handle_loss(held.map(Duration::from_secs), &LOST, None, random).as_millis()
    }

    #[test]
    fn waits_grow_with_tries_that_fail_and_not_with_connections_that_worked() {
        let mut backoff = backoff();
        let mut wait = |held| lost(&mut backoff, held, u32::MAX);
        assert_eq!([None; 8].map(&mut wait), [1, 2, 4, 8, 16, 32, 60, 60].map(|seconds| seconds * 1000));
        assert_eq!(
            [Some(5), Some(3600), Some(6), None, None, Some(5)].map(&mut wait),
            [500, 500, 500, 1000, 2000, 500]
        );
    }

    #[test]
    fn a_relay_that_breaks_its_connections_is_not_stormed() {
        let mut backoff = backoff();
        let mut wait = |held| lost(&mut backoff, held, u32::MAX);
        assert_eq!([Some(1), Some(4), Some(1), Some(0), Some(1)].map(&mut wait), [500, 500, 1000, 2000, 4000]);
        assert_eq!([Some(5), Some(1), Some(1), Some(1)].map(&mut wait), [500, 500, 500, 1000]);
        assert_eq!([Some(1); 5].map(&mut wait), [2000, 4000, 8000, 8000, 8000]);
        assert_eq!([None, None, Some(1), None].map(&mut wait), [16_000, 32_000, 8000, 16_000]);
    }

    #[test]
    fn a_crowd_comes_back_spread_and_one_that_was_sent_away_as_the_relay_says() {
        let mut spread: Vec<_> = (0..5).map(|part| lost(&mut backoff(), Some(60), u32::MAX / 4 * part)).collect();
        spread.dedup();
        assert_eq!(spread.len(), 5);
        assert_eq!((spread[0], lost(&mut backoff(), Some(60), u32::MAX)), (0, 500));
        let restart = Reason::Closed { code: 1012, text: String::new() };
        let wait = backoff().handle_loss(Some(SETTLED), &restart, None, 0);
        assert_eq!(wait, Duration::from_millis(500), "from half of the first wait on");
    }

    #[test]
    fn a_wait_is_at_least_half_and_at_least_what_was_asked_for() {
        let mut backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(60));
        assert_eq!(backoff.handle_loss(None, &LOST, None, 0), Duration::from_secs(2));
        let asked = Some(Duration::from_secs(90));
        assert_eq!(backoff.handle_loss(None, &LOST, asked, 0), Duration::from_secs(90));
    }

    #[test]
    fn a_full_relay_is_given_more_time_than_one_that_restarts() {
        let closed = |code| Reason::Closed { code, text: String::new() };
        let first = |code| backoff().handle_loss(None, &closed(code), None, u32::MAX);
        assert_eq!(first(1012), Duration::from_secs(1));
        assert_eq!(first(1013), Duration::from_secs(5));
    }
}
