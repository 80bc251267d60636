//! UTC days, months and written times. All but [`unix_now`] have the time passed in.

use crate::proto::quota::day_of;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second that is written with four digits of year: 9999-12-31T23:59:59Z.
pub const LAST_SECOND: u64 = 253_402_300_799;

/// The time of day since 1970, for whoever has not been given it; zero on a clock that says less. Never for durations: the
/// clock may be set.
#[must_use]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The UTC month (year * 12 + month - 1) of a UTC day.
#[must_use]
pub fn month_of_day(day: u32) -> u32 {
    let (year, month, _) = civil(day);
    year * 12 + month - 1
}

/// The first UTC day of a UTC month (year * 12 + month - 1); 0 for a month before 1970.
#[must_use]
pub fn first_day_of_month(month: u32) -> u32 {
    days(i64::from(month / 12), i64::from(month % 12 + 1), 1).map_or(0, |d| u32::try_from(d).unwrap_or(0))
}

/// A Unix second as RFC 3339 in UTC: `2026-02-08T20:00:00Z`. Later than [`LAST_SECOND`] reads as that.
#[must_use]
pub fn write_rfc3339(unix: u64) -> String {
    let unix = unix.min(LAST_SECOND);
    let (year, month, day) = civil(day_of(unix * 1000));
    let second = unix % 86_400;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// The Unix second of an RFC 3339 time with its offset, from 1970 on; fractions of a second are dropped.
#[must_use]
pub fn read_rfc3339(text: &str) -> Option<u64> {
    let (local, rest) = read_date_time(text, "Tt")?;
    let offset = read_offset(rest)?;
    u64::try_from(local - offset).ok().filter(|&unix| unix <= LAST_SECOND)
}

/// The Unix second of a time as other programs write it into SQLite: `2024-02-08 20:00:00` (UTC), RFC 3339, or either
/// with a fraction, an offset and more behind it.
#[must_use]
pub fn read_lenient(text: &str) -> Option<u64> {
    let (local, rest) = read_date_time(text.trim(), "Tt ")?;
    let offset = rest.split_whitespace().next().and_then(read_offset).unwrap_or(0);
    u64::try_from(local - offset).ok()
}

/// Reads `YYYY-MM-DD?hh:mm:ss[.fraction]`, where `?` is one of `separators`: seconds since 1970 as if in UTC, and the
/// rest of the text.
fn read_date_time<'t>(text: &'t str, separators: &str) -> Option<(i64, &'t str)> {
    let head = text.get(..19)?;
    let shape = b"dddd-dd-dd?dd:dd:dd";
    let fits = head.bytes().zip(shape).all(|(byte, &wanted)| match wanted {
        b'd' => byte.is_ascii_digit(),
        b'?' => separators.as_bytes().contains(&byte),
        other => byte == other,
    });
    if !fits {
        return None;
    }
    let number = |from: usize, to: usize| head.get(from..to).and_then(|digits| digits.parse::<i64>().ok());
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // 60 is a leap second; it counts as the second after 59.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let day = days(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let rest = text.get(19..)?;
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => {
            let end = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            (end.len() < fraction.len()).then_some(end)?
        }
        None => rest,
    };
    Some((day * 86_400 + hour * 3600 + minute * 60 + second, rest))
}

/// Reads `Z`, `+hh:mm` or `+hhmm`: seconds east of UTC.
fn read_offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let digits = digits.replacen(':', "", 1);
    if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: i64 = digits.parse().ok()?;
    (number / 100 < 24 && number % 100 < 60).then_some(sign * (number / 100 * 3600 + number % 100 * 60))
}

/// Year, month and day of the month of a UTC day, in the proleptic Gregorian calendar: the months of a year that begins
/// in March follow a straight line, which puts the leap day at its end.
fn civil(day: u32) -> (u32, u32, u32) {
    let shifted = u64::from(day) + 719_468; // days since 0000-03-01
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    // `day` is below 2^32, so the year is below 12 million.
    (year as u32, month as u32, day_of_month as u32)
}

/// Days since 1970-01-01 of a date; `None` where there is no such date.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let from_march = (month + 9) % 12;
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * from_march + 2) / 5 + day - 1 - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_centuries_reads_back() {
        let mut last = (1969, 12, 31);
        for day in 0..146_097 {
            let now = civil(day);
            assert_eq!(days(now.0.into(), now.1.into(), now.2.into()), Some(day.into()));
            assert!(now > last, "{last:?} then {now:?}");
            last = now;
            let first = first_day_of_month(month_of_day(day));
            assert_eq!(first + now.2 - 1, day);
        }
        assert_eq!(last, (2369, 12, 31));
    }

    #[test]
    fn known_times() {
        // Checked with `date -u -d @…`.
        assert_eq!(write_rfc3339(1_707_422_400), "2024-02-08T20:00:00Z");
        assert_eq!(write_rfc3339(LAST_SECOND), "9999-12-31T23:59:59Z");
        assert_eq!(write_rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(month_of_day(day_of(1_707_422_400_000)), 2024 * 12 + 1);
        for same in ["2024-02-08T20:00:00Z", "2024-02-08t21:30:00.25+01:30", "2024-02-08T15:00:00-05:00"] {
            assert_eq!(read_rfc3339(same), Some(1_707_422_400), "{same}");
        }
    }

    #[test]
    fn a_time_that_is_not_rfc_3339_is_refused() {
        let bad = [
            "",
            "2024",
            "2024-02-08",
            "2024-02-08 20:00:00Z",
            "2024-02-08T20:00:00",
            "2024-02-30T20:00:00Z",
            "2024-02-08T24:00:00Z",
            "2024-02-08T20:00:00.Z",
            "2024-02-08T20:00:00+1",
            "2024-02-08T20:00:00+25:00",
            "1969-12-31T23:59:59Z",
            "2024-13-01T00:00:00Z",
            "2024-02-08T20:00:0éZ",
            "2024-02-08T20:00:00Z ",
        ];
        for text in bad {
            assert_eq!(read_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn the_ways_in_which_go_programs_write_times_are_read() {
        let ways = [
            "2024-02-08 20:00:00",
            " 2024-02-08 20:00:00 ",
            "2024-02-08T20:00:00Z",
            "2024-02-08 20:00:00.123456789+00:00",
            "2024-02-08 20:00:00.5 +0000 UTC m=+0.01",
            "2024-02-08 21:00:00 +0100 CET",
            "2024-02-08 15:00:00-05:00",
        ];
        for text in ways {
            assert_eq!(read_lenient(text), Some(1_707_422_400), "{text}");
        }
        assert_eq!(read_lenient("yesterday"), None);
    }
}
