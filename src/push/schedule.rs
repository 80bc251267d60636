//! When devices are woken that are away.

use crate::proto::device::DeviceId;
use crate::proto::token::TokenKey;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// When, after the first time, a device that stays away is woken again at the earliest. Then it is left alone.
pub const WAKES_AFTER: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(600), Duration::from_secs(3600), Duration::from_secs(6 * 3600)];
/// How often the devices of a token are woken in any hour, together.
pub const WAKES_AN_HOUR: usize = 60;
const HOUR: Duration = Duration::from_secs(3600);

/// A device of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The token.
    pub token: TokenKey,
    /// The device.
    pub device: DeviceId,
}

/// Which devices are to be woken, and when. Times are of a monotonic clock.
///
/// It knows a device from the first message that is kept for it until it is present again, and a token for an hour after
/// a wake.
#[derive(Debug, Default)]
pub struct Schedule {
    away: HashMap<Target, Away>,
    /// Exactly those of `away` that wait.
    due: BTreeSet<(Duration, Target)>,
    /// When devices of each token were woken in the last hour, at most [`WAKES_AN_HOUR`].
    woken: HashMap<TokenKey, VecDeque<Duration>>,
    /// When tokens are next looked through for those whose hour is over.
    sweep_at: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Away {
    /// How often it was woken, at most as often as [`WAKES_AFTER`] has entries.
    sent: usize,
    /// When it was woken first.
    first: Duration,
    /// When it is to be woken next: something was kept since it was woken last.
    due: Option<Duration>,
}

impl Schedule {
    /// A message that wakes was kept for a device that is away.
    pub fn handle_kept(&mut self, now: Duration, target: Target) {
        let away = self.away.entry(target).or_insert(Away { sent: 0, first: now, due: None });
        if away.due.is_some() {
            return;
        }
        let Some(&after) = WAKES_AFTER.get(away.sent) else { return };
        let due = if away.sent == 0 { now } else { now.max(away.first + after) };
        away.due = Some(due);
        self.due.insert((due, target));
    }

    /// The device is there, or is none any more.
    pub fn handle_present(&mut self, target: Target) {
        if let Some(due) = self.away.remove(&target).and_then(|away| away.due) {
            self.due.remove(&(due, target));
        }
    }

    /// Whether a message was kept for a device that has not been there since.
    #[must_use]
    pub fn is_away(&self, target: Target) -> bool {
        self.away.contains_key(&target)
    }

    /// A device that is to be woken now, until there is none.
    pub fn poll_wake(&mut self, now: Duration) -> Option<Target> {
        self.sweep(now);
        while let Some(&(due, target)) = self.due.first().filter(|&&(due, _)| due <= now) {
            self.due.remove(&(due, target));
            let Some(away) = self.away.get_mut(&target) else { continue };
            let woken = self.woken.entry(target.token).or_default();
            while woken.front().is_some_and(|&at| at + HOUR <= now) {
                woken.pop_front();
            }
            if let Some(&oldest) = woken.front().filter(|_| woken.len() >= WAKES_AN_HOUR) {
                // As soon as the token may again.
                away.due = Some(oldest + HOUR);
                self.due.insert((oldest + HOUR, target));
                continue;
            }
            woken.push_back(now);
            if away.sent == 0 {
                away.first = now;
            }
            away.sent += 1;
            away.due = None;
            return Some(target);
        }
        None
    }

    /// When [`Self::poll_wake`] has one next.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Devices that are to be woken, now or later.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.due.len()
    }

    fn sweep(&mut self, now: Duration) {
        if now >= self.sweep_at {
            self.woken.retain(|_, woken| woken.back().is_some_and(|&at| at + HOUR > now));
            self.sweep_at = now + HOUR;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(token: u64, device: u64) -> Target {
        Target { token: TokenKey(token.into()), device: DeviceId(device) }
    }

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(minutes * 60)
    }

    fn poll_all(schedule: &mut Schedule, now: Duration) -> usize {
        std::iter::from_fn(|| schedule.poll_wake(now)).count()
    }

    #[test]
    fn seven_hours_of_a_message_a_minute_are_four_wakes() {
        let mut schedule = Schedule::default();
        let mut wakes = Vec::new();
        for minute in 0..7 * 60 {
            schedule.handle_kept(minutes(minute), target(1, 1));
            wakes.extend(schedule.poll_wake(minutes(minute)).map(|_| minute));
        }
        assert_eq!(wakes, [0, 10, 60, 360]);
        assert_eq!(schedule.waiting(), 0, "then silence");
    }

    #[test]
    fn a_device_is_woken_again_only_for_something_new_and_from_the_start_once_it_was_there() {
        let mut schedule = Schedule::default();
        schedule.handle_kept(minutes(0), target(1, 1));
        assert_eq!(schedule.poll_wake(minutes(0)), Some(target(1, 1)));
        assert_eq!(schedule.next_due(), None);
        schedule.handle_kept(minutes(2), target(1, 1));
        assert_eq!(schedule.poll_wake(minutes(9)), None);
        assert_eq!(schedule.next_due(), Some(minutes(10)), "what came too early is not forgotten");
        assert_eq!(schedule.poll_wake(minutes(10)), Some(target(1, 1)));
        schedule.handle_kept(minutes(11), target(1, 1));
        schedule.handle_present(target(1, 1));
        assert_eq!((schedule.next_due(), schedule.away.len()), (None, 0));
        schedule.handle_kept(minutes(12), target(1, 1));
        assert_eq!(schedule.poll_wake(minutes(12)), Some(target(1, 1)));
    }

    #[test]
    fn a_token_wakes_sixty_times_an_hour_and_the_rest_later() {
        let mut schedule = Schedule::default();
        for device in 0..64 {
            schedule.handle_kept(minutes(0), target(1, device));
        }
        schedule.handle_kept(minutes(0), target(2, 1));
        assert_eq!(poll_all(&mut schedule, minutes(0)), WAKES_AN_HOUR + 1, "another token is not held up");
        assert_eq!(poll_all(&mut schedule, minutes(59)), 0);
        assert_eq!(schedule.next_due(), Some(minutes(60)));
        assert_eq!(poll_all(&mut schedule, minutes(60)), 4);
        assert_eq!(schedule.woken.len(), 1, "a token whose hour is over is forgotten");
        assert_eq!(poll_all(&mut schedule, minutes(125)), 0);
        assert_eq!(schedule.woken.len(), 0);
    }

    proptest! {
        #[test]
        fn no_device_is_woken_more_often_than_the_schedule_says(
            steps in proptest::collection::vec((0..1500_u64, 0..3_u64, 0..8_u8), 1..200)
        ) {
            let mut schedule = Schedule::default();
            let mut now = Duration::ZERO;
            let mut wakes: HashMap<Target, Vec<Duration>> = HashMap::new();
            let mut all: Vec<Duration> = Vec::new();
            for (seconds, device, what) in steps {
                now += Duration::from_secs(seconds);
                let one = target(1, device);
                match what {
                    0 => {
                        schedule.handle_present(one);
                        wakes.remove(&one);
                    }
                    _ => schedule.handle_kept(now, one),
                }
                while let Some(woken) = schedule.poll_wake(now) {
                    let times = wakes.entry(woken).or_default();
                    prop_assert!(times.len() < WAKES_AFTER.len());
                    if let Some(&first) = times.first() {
                        prop_assert!(now >= first + WAKES_AFTER[times.len()]);
                    }
                    times.push(now);
                    all.push(now);
                    prop_assert!(all.iter().filter(|&&at| at + HOUR > now).count() <= WAKES_AN_HOUR);
                }
                prop_assert!(schedule.next_due().is_none_or(|due| due > now));
                prop_assert_eq!(schedule.due.len(), schedule.away.values().filter(|away| away.due.is_some()).count());
            }
        }
    }
}
