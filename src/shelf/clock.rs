//! The clock that messages age by. It follows the wall clock where that goes as time goes, and the time that passes where it
//! does not: a clock that is set, however far, makes nothing older or younger.

use std::time::Duration;

/// By how much the wall clock may go wrong between two looks and is still believed.
const DRIFT_MAX: Duration = Duration::from_secs(5 * 60);
/// A longer time between two runs of the relay is not believed.
const PAUSE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// See the module. All in Unix seconds, but for the time that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    told: u64,
    wall: u64,
    passed: Duration,
}

impl Clock {
    /// At the start of a run, with what [`Clock::saved`] gave at the end of the one before.
    #[must_use]
    pub(super) fn start(saved: Option<(u64, u64)>, wall: u64, passed: Duration) -> Self {
        let (told, wall_then) = saved.unwrap_or((wall, wall));
        let pause = wall.checked_sub(wall_then).filter(|&pause| pause <= PAUSE_MAX.as_secs()).unwrap_or(0);
        Self { told: told.saturating_add(pause), wall, passed }
    }

    /// What it says now that the wall clock says `wall` and so much time has passed since some moment.
    pub(super) fn advance(&mut self, wall: u64, passed: Duration) -> u64 {
        let really = passed.saturating_sub(self.passed);
        let shown = wall.checked_sub(self.wall).map(Duration::from_secs);
        let is_believed = shown.is_some_and(|shown| shown.abs_diff(really) <= DRIFT_MAX);
        // Whole seconds are taken, and the rest of the time that has passed stays for the next look.
        let step = match shown {
            Some(shown) if is_believed => {
                self.passed = passed;
                shown
            }
            _ => {
                let step = Duration::from_secs(really.as_secs());
                self.passed += step;
                step
            }
        };
        self.wall = wall;
        self.told = self.told.saturating_add(step.as_secs());
        self.told
    }

    /// What the next run begins with.
    #[must_use]
    pub(super) fn saved(&self) -> (u64, u64) {
        (self.told, self.wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: u64 = 1_709_208_000;
    const DAY: u64 = 24 * 3600;
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn it_goes_as_time_goes() {
        let mut clock = Clock::start(None, NOON, Duration::ZERO);
        for minute in 1..=10_000u32 {
            assert_eq!(clock.advance(NOON + u64::from(minute) * 60, MINUTE * minute), NOON + u64::from(minute) * 60);
        }
        let saved = clock.saved();
        let resumed = Clock::start(Some(saved), saved.1 + 8 * DAY, Duration::ZERO);
        assert_eq!(resumed.told, saved.0 + 8 * DAY, "the time between two runs counts");
        let resumed = Clock::start(Some(saved), saved.1 + 400 * DAY, Duration::ZERO);
        assert_eq!(resumed.told, saved.0, "more than a year is a clock that was set");
        let resumed = Clock::start(Some(saved), saved.1 - DAY, Duration::ZERO);
        assert_eq!(resumed.told, saved.0, "and so is one that goes back");
    }

    proptest! {
        #[test]
        fn a_clock_that_is_set_makes_nothing_older_than_it_is(
            steps in prop::collection::vec((0u64..3600, prop::option::of(any::<i32>()), 0u64..2000), 1..200),
        ) {
            let mut clock = Clock::start(None, NOON, Duration::ZERO);
            let (mut wall, mut passed, mut jumps) = (NOON, Duration::ZERO, 0u64);
            for (seconds, jump, millis) in steps {
                passed += Duration::from_secs(seconds) + Duration::from_millis(millis);
                wall = wall.saturating_add(seconds);
                if let Some(jump) = jump {
                    wall = wall.saturating_add_signed(i64::from(jump));
                    jumps += 1;
                }
                let told = clock.advance(wall, passed);
                // Small steps are believed, and the milliseconds that the wall clock does not show are not made up for.
                let most = NOON + passed.as_secs() + jumps * (DRIFT_MAX.as_secs() + 1);
                prop_assert!((NOON..=most).contains(&told), "{told} is not in {NOON}..={most}");
            }
        }
    }
}
