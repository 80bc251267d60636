//! Bandwidth quotas: payload bytes in a UTC day and a UTC month.
//!
//! Times are Unix milliseconds and go in; no clock is read. Days are 86,400,000 ms, as Unix time has them. Months are
//! computed here rather than by a library: the calendars of those end with the year 9999, while a stored or clocked day may
//! be any that 32 bits count and must not panic, and the libraries for phones and agents compile this module too.

/// The milliseconds of a day.
pub const DAY_MS: u64 = 86_400_000;

/// Days from 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: u64 = 719_468;

/// The UTC day: days since 1970-01-01, ending at the last one that 32 bits count.
#[must_use]
pub const fn day_of(unix_ms: u64) -> u32 {
    let day = unix_ms / DAY_MS;
    if day > u32::MAX as u64 { u32::MAX } else { day as u32 }
}

/// The UTC month (year * 12 + month - 1) of a UTC day.
#[must_use]
pub const fn month_of_day(day: u32) -> u32 {
    // Howard Hinnant's `civil_from_days`: years begin on 1 March, so that the leap day is a year's last.
    let days = day as u64 + DAYS_BEFORE_1970;
    let era_day = days % 146_097;
    let era_year = (era_day - era_day / 1460 + era_day / 36_524 - era_day / 146_096) / 365;
    let year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    let month_from_march = (5 * year_day + 2) / 153;
    let march_year = days / 146_097 * 400 + era_year;
    (march_year * 12 + month_from_march + 2) as u32
}

/// The first UTC day of a month as [`month_of_day`] counts them; 0 for those before 1970.
#[must_use]
pub const fn first_day_of_month(month: u32) -> u32 {
    // Howard Hinnant's `days_from_civil`, for the first day of a month. Months from March on.
    let Some(months) = (month as u64).checked_sub(2) else { return 0 };
    let (year, month_from_march) = (months / 12, months % 12);
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month_from_march + 2) / 5;
    let day = days.saturating_sub(DAYS_BEFORE_1970);
    if day > u32::MAX as u64 { u32::MAX } else { day as u32 }
}

/// What a token has used in the current windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// The UTC day that `day_bytes` counts, as [`day_of`] has it.
    pub day: u32,
    /// The UTC month that `month_bytes` counts, as [`month_of_day`] has it.
    pub month: u32,
    /// Payload bytes in `day`.
    pub day_bytes: u64,
    /// Payload bytes in `month`.
    pub month_bytes: u64,
}

/// A quota that a message would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The day's.
    Daily {
        /// Until the UTC day ends.
        retry_after_ms: u64,
    },
    /// The month's.
    Monthly {
        /// Until the UTC month ends.
        retry_after_ms: u64,
    },
}

impl Used {
    /// Zeroes the windows that have ended.
    ///
    /// Windows never move back for a clock that was put back by up to a day: what was used stays where it was counted.
    /// A clock put back further was wrong before, and the windows follow it with their bytes, lest they stay closed
    /// until that far future.
    pub fn roll(&mut self, unix_ms: u64) {
        // A month ends together with a day, so while the day lasts there is nothing to divide.
        let begins = u64::from(self.day) * DAY_MS;
        if unix_ms >= begins + DAY_MS {
            self.enter(unix_ms);
        } else if unix_ms + DAY_MS < begins {
            self.day = day_of(unix_ms);
            self.month = month_of_day(self.day);
        }
    }

    #[cold]
    fn enter(&mut self, unix_ms: u64) {
        (self.day, self.day_bytes) = (day_of(unix_ms), 0);
        let month = month_of_day(self.day);
        if month != self.month {
            (self.month, self.month_bytes) = (month, 0);
        }
    }

    /// Counts a message of `bytes`, after rolling the windows. A quota of 0 is none.
    ///
    /// # Errors
    /// Either quota would be exceeded: nothing is counted. The month's is named where both are.
    pub fn try_charge(
        &mut self,
        unix_ms: u64,
        bytes: u64,
        daily_quota_bytes: u64,
        monthly_quota_bytes: u64,
    ) -> Result<(), Exceeded> {
        self.roll(unix_ms);
        let day_bytes = self.day_bytes.saturating_add(bytes);
        let month_bytes = self.month_bytes.saturating_add(bytes);
        if monthly_quota_bytes != 0 && month_bytes > monthly_quota_bytes {
            let ends = u64::from(first_day_of_month(self.month.saturating_add(1))) * DAY_MS;
            return Err(Exceeded::Monthly { retry_after_ms: ends.saturating_sub(unix_ms) });
        }
        if daily_quota_bytes != 0 && day_bytes > daily_quota_bytes {
            let ends = (u64::from(self.day) + 1) * DAY_MS;
            return Err(Exceeded::Daily { retry_after_ms: ends.saturating_sub(unix_ms) });
        }
        (self.day_bytes, self.month_bytes) = (day_bytes, month_bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn month_of(unix_ms: u64) -> u32 {
        month_of_day(day_of(unix_ms))
    }

    fn day_ends_ms(unix_ms: u64) -> u64 {
        (unix_ms / DAY_MS + 1).saturating_mul(DAY_MS)
    }

    fn month_ends_ms(unix_ms: u64) -> u64 {
        u64::from(first_day_of_month(month_of(unix_ms) + 1)) * DAY_MS
    }

    /// Year and month (from 1) and the lengths of both, counted day by day from 1970.
    fn calendar() -> impl Iterator<Item = (u32, u32, u32)> {
        let leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        (1970..).flat_map(move |year| {
            (1..=12).map(move |month| match month {
                2 => (year, month, if leap(year) { 29 } else { 28 }),
                4 | 6 | 9 | 11 => (year, month, 30),
                _ => (year, month, 31),
            })
        })
    }

    #[test]
    fn windows_are_those_of_the_calendar_to_the_year_2410() {
        let mut day = 0u32;
        for (year, month, days) in calendar().take_while(|&(year, ..)| year < 2410) {
            let ends = u64::from(day + days) * DAY_MS;
            for _ in 0..days {
                let begins = u64::from(day) * DAY_MS;
                for unix_ms in [begins, begins + 1, begins + DAY_MS / 2, begins + DAY_MS - 1] {
                    assert_eq!(day_of(unix_ms), day);
                    assert_eq!(month_of(unix_ms), year * 12 + month - 1);
                    assert_eq!(day_ends_ms(unix_ms), begins + DAY_MS);
                    assert_eq!(month_ends_ms(unix_ms), ends, "{year}-{month}");
                }
                day += 1;
            }
        }
        assert_eq!(month_of(1_707_451_200_000), 2024 * 12 + 1);
    }

    const NOON: u64 = 1_709_208_000_000; // 2024-02-29 12:00 UTC

    fn used_at(unix_ms: u64, bytes: u64) -> Used {
        let mut used = Used::default();
        used.try_charge(unix_ms, bytes, 0, 0).unwrap();
        used
    }

    #[test]
    fn a_quota_is_used_up_to_its_last_byte_and_the_refused_costs_nothing() {
        let mut used = used_at(NOON, 600);
        assert_eq!(used.try_charge(NOON, 400, 1000, 0), Ok(()));
        let full = used;
        let daily = Err(Exceeded::Daily { retry_after_ms: DAY_MS / 2 });
        assert_eq!(used.try_charge(NOON, 1, 1000, 5000), daily);
        assert_eq!(used.try_charge(NOON, u64::MAX, 1000, 0), daily);
        assert_eq!(used, full);
        assert_eq!(used.try_charge(NOON, 0, 1000, 1000), Ok(()));
        assert_eq!(used.try_charge(NOON, u64::MAX, 0, 0), Ok(()));
        assert_eq!(used.day_bytes, u64::MAX);
    }

    #[test]
    fn the_month_is_named_where_both_are_used_up() {
        let mut used = used_at(NOON - DAY_MS * 3, 1000);
        // Twelve hours of the 29th are left, the leap year's last day of February.
        let monthly = Err(Exceeded::Monthly { retry_after_ms: DAY_MS / 2 });
        assert_eq!(used.try_charge(NOON, 1, 1000, 1000), monthly);
        assert_eq!((used.day_bytes, used.month_bytes), (0, 1000));
        let mut both = used_at(NOON - DAY_MS, 1000);
        assert_eq!(
            both.try_charge(NOON - DAY_MS, 1, 1000, 1000),
            Err(Exceeded::Monthly { retry_after_ms: DAY_MS + DAY_MS / 2 })
        );
        assert_eq!(both.try_charge(NOON + DAY_MS / 2, 1, 1000, 1000), Ok(()));
        assert_eq!((both.day_bytes, both.month_bytes), (1, 1));
    }

    #[test]
    fn a_retry_after_the_time_named_succeeds_and_one_before_does_not() {
        let mut used = used_at(NOON, 10);
        let Err(Exceeded::Daily { retry_after_ms }) = used.try_charge(NOON, 1, 10, 0) else { panic!("charged") };
        assert!(used.try_charge(NOON + retry_after_ms - 1, 1, 10, 0).is_err());
        assert_eq!(used.try_charge(NOON + retry_after_ms, 1, 10, 0), Ok(()));
    }

    #[test]
    fn a_clock_put_back_wipes_nothing() {
        let midnight = day_ends_ms(NOON);
        let mut used = used_at(NOON, 5);
        used.try_charge(midnight, 7, 0, 0).unwrap();
        used.try_charge(midnight - 1, 1, 0, 0).unwrap();
        let march = month_of(midnight);
        assert_eq!((used.day, used.day_bytes, used.month, used.month_bytes), (day_of(midnight), 8, march, 8));

        // A clock that was years ahead does not keep its window closed until then.
        let mut ahead = used_at(NOON + 4000 * DAY_MS, 5);
        ahead.try_charge(NOON, 1, 0, 0).unwrap();
        assert_eq!((ahead.day, ahead.day_bytes, ahead.month_bytes), (day_of(NOON), 6, 6));
        ahead.roll(midnight);
        assert_eq!((ahead.day_bytes, ahead.month_bytes), (0, 0));
    }

    #[test]
    fn times_out_of_this_world_do_not_panic() {
        for unix_ms in [0, u64::MAX, u64::MAX / 2, DAY_MS * u64::from(u32::MAX)] {
            let mut used = Used { day: u32::MAX, month: u32::MAX, ..Used::default() };
            let _ = used.try_charge(unix_ms, 5, 1, 0);
            let _ = used.try_charge(unix_ms, 5, 0, 1);
            let _ = (day_ends_ms(unix_ms), month_ends_ms(unix_ms));
        }
    }

    proptest! {
        #[test]
        fn usage_is_what_was_charged_in_the_window(
            steps in proptest::collection::vec((0..40 * DAY_MS, 1..1000u64), 1..60),
            daily in 0..4000u64, monthly in 0..6000u64,
        ) {
            let (mut used, mut now, mut charged) = (Used::default(), NOON, Vec::new());
            for (step, bytes) in steps {
                // Mostly small steps, now and then over several windows.
                now += if step % 5 == 0 { step } else { step % (DAY_MS / 3) };
                let sum = |within: &dyn Fn(u64) -> bool| -> u64 {
                    charged.iter().filter(|&&(at, _)| within(at)).map(|&(_, bytes): &(u64, u64)| bytes).sum()
                };
                let day = sum(&|at| day_of(at) == day_of(now));
                let month = sum(&|at| month_of(at) == month_of(now));
                let expected = if monthly != 0 && month + bytes > monthly {
                    Err(Exceeded::Monthly { retry_after_ms: month_ends_ms(now) - now })
                } else if daily != 0 && day + bytes > daily {
                    Err(Exceeded::Daily { retry_after_ms: day_ends_ms(now) - now })
                } else {
                    Ok(())
                };
                prop_assert_eq!(used.try_charge(now, bytes, daily, monthly), expected);
                if expected.is_ok() {
                    charged.push((now, bytes));
                }
                used.roll(now);
                let added = if expected.is_ok() { bytes } else { 0 };
                prop_assert_eq!((used.day_bytes, used.month_bytes), (day + added, month + added));
            }
        }
    }
}
