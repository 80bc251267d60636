//! When to renew, and when to try again. Pure: time and chance are passed in.

use std::time::Duration;

/// The longest wait that a CA's `Retry-After` can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// What kept a certificate from being issued, as far as trying again goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The CA was not there, or answered with an error of its own: it may be back any moment.
    Away,
    /// The CA said no, because of something that a person has to mend. Let's Encrypt counts five refusals an hour, and
    /// an attempt may be two.
    Refused,
}

/// How long to wait after the `failures`-th failure in a row. `chance` is from 0 to 1.
pub(super) fn retry_delay(trouble: Trouble, failures: u32, retry_after: Option<Duration>, chance: f64) -> Duration {
    let (first, longest) = match trouble {
        Trouble::Away => (Duration::from_secs(4), Duration::from_secs(3600)),
        Trouble::Refused => (Duration::from_secs(15 * 60), Duration::from_secs(6 * 3600)),
    };
    let doublings = failures.saturating_sub(1).min(16);
    let delay = first.saturating_mul(1 << doublings).min(longest);
    // From three to five quarters: relays that failed together do not come back together.
    let delay = delay.mul_f64(0.75 + chance.clamp(0.0, 1.0) / 2.0);
    delay.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
}

/// The Unix second at which a certificate is renewed: after two thirds of its life, or up to a twentieth of it earlier.
pub(super) fn renew_at(not_before: u64, not_after: u64, chance: f64) -> u64 {
    let life = not_after.saturating_sub(not_before);
    let early = (life as f64 / 20.0 * chance.clamp(0.0, 1.0)) as u64;
    not_before + life / 3 * 2 + life % 3 * 2 / 3 - early
}

/// The same where the CA suggested a window (ARI, RFC 9773): a moment in it. But not in the first two-hundredth of the
/// certificate's life (ten hours of ninety days), whatever the CA suggests, so that one that always says "now" is not
/// asked for a certificate a second; and not in the last tenth, where no time is left for trying again.
pub(super) fn renew_in(window: (u64, u64), not_before: u64, not_after: u64, chance: f64) -> u64 {
    let life = not_after.saturating_sub(not_before);
    let within = window.1.saturating_sub(window.0) as f64 * chance.clamp(0.0, 1.0);
    let suggested = window.0 + within as u64;
    suggested.clamp(not_before + life / 200, not_before + life / 10 * 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        assert_eq!(renew_at(0, 90 * DAY, 0.0), 60 * DAY);
        assert_eq!(renew_at(0, 90 * DAY, 1.0), 60 * DAY - 90 * DAY / 20);
        assert_eq!(renew_at(100, 106, 0.5), 104);
        assert_eq!(renew_at(100, 100, 0.5), 100);
        assert_eq!(renew_at(100, 0, 0.5), 100, "a certificate that never was");
    }

    #[test]
    fn a_suggested_window_is_kept_within_reason() {
        let renew = |window, chance| renew_in(window, 0, 200 * DAY, chance);
        assert_eq!(renew((50 * DAY, 52 * DAY), 0.5), 51 * DAY);
        assert_eq!(renew((0, 0), 0.5), DAY, "at once, but not in a circle");
        assert_eq!(renew((199 * DAY, 400 * DAY), 0.5), 180 * DAY);
        assert_eq!(renew((60 * DAY, 50 * DAY), 0.5), 60 * DAY);
        assert_eq!(renew_in((5, 9), 10, 10, 0.5), 10);
    }

    #[test]
    fn failures_double_the_wait_within_bounds() {
        let seconds = |trouble, failures| retry_delay(trouble, failures, None, 0.5).as_secs();
        assert_eq!([1, 2, 3, 4].map(|n| seconds(Trouble::Away, n)), [4, 8, 16, 32]);
        assert_eq!([1, 2, 3].map(|n| seconds(Trouble::Refused, n)), [900, 1800, 3600]);
        assert_eq!((seconds(Trouble::Away, u32::MAX), seconds(Trouble::Refused, u32::MAX)), (3600, 6 * 3600));
        assert_eq!(retry_delay(Trouble::Away, 1, None, 0.0), Duration::from_secs(3));
        assert_eq!(retry_delay(Trouble::Away, 1, None, 1.0), Duration::from_secs(5));
    }

    #[test]
    fn what_the_ca_asks_for_is_waited_within_a_day() {
        let asked = |seconds| retry_delay(Trouble::Away, 1, Some(Duration::from_secs(seconds)), 0.5).as_secs();
        assert_eq!((asked(1), asked(7200), asked(u64::MAX)), (4, 7200, DAY));
    }
}
