//! Bandwidth quotas: payload bytes in a UTC day and a UTC month.
//!
//! Times are Unix milliseconds and go in; no clock is read. Days are 86,400,000 ms, as Unix time has them.

const DAY_MS: u64 = 86_400_000;

/// The UTC day: days since 1970-01-01, ending at the last one that 32 bits count.
#[must_use]
pub const fn day_of(unix_ms: u64) -> u32 {
    let day = unix_ms / DAY_MS;
    if day > u32::MAX as u64 { u32::MAX } else { day as u32 }
}

/// The UTC month: year * 12 + month - 1.
#[must_use]
pub const fn month_of(unix_ms: u64) -> u32 {
    // Howard Hinnant's `civil_from_days`: years begin on 1 March, so that the leap day is a year's last.
    let days = day_of(unix_ms) as u64 + 719_468;
    let era_day = days % 146_097;
    let era_year = (era_day - era_day / 1460 + era_day / 36_524 - era_day / 146_096) / 365;
    let year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    let month_from_march = (5 * year_day + 2) / 153;
    let march_year = days / 146_097 * 400 + era_year;
    (march_year * 12 + month_from_march + 2) as u32
}

/// When the UTC day ends: its successor's first millisecond.
#[must_use]
pub const fn day_ends_ms(unix_ms: u64) -> u64 {
    (unix_ms / DAY_MS + 1).saturating_mul(DAY_MS)
}

/// When the UTC month ends: its successor's first millisecond.
#[must_use]
pub const fn month_ends_ms(unix_ms: u64) -> u64 {
    month_begins_ms(month_of(unix_ms) + 1)
}

/// The first millisecond of a month as [`month_of`] counts them; 0 for those before 1970.
const fn month_begins_ms(month: u32) -> u64 {
    // Howard Hinnant's `days_from_civil`, for the first day of a month. Months from March on.
    let Some(months) = (month as u64).checked_sub(2) else { return 0 };
    let (year, month_from_march) = (months / 12, months % 12);
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month_from_march + 2) / 5;
    days.saturating_sub(719_468) * DAY_MS
}

/// What a token has used in the current windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// The UTC day that `day_bytes` counts, as [`day_of`] has it.
    pub day: u32,
    /// The UTC month that `month_bytes` counts, as [`month_of`] has it.
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
            (self.day, self.month) = (day_of(unix_ms), month_of(unix_ms));
        }
    }

    #[cold]
    fn enter(&mut self, unix_ms: u64) {
        (self.day, self.day_bytes) = (day_of(unix_ms), 0);
        let month = month_of(unix_ms);
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
            let ends = month_begins_ms(self.month.saturating_add(1));
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
