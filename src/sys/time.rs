//! Times as they are written, in UTC. All but [`unix_now`] have the time passed in. The calendar is that of the `time` crate;
//! the months that quotas count, which go past its last year, are in `proto::quota`.
//!
//! Reading is done here: `time` takes any character between date and time, refuses an offset without a colon, and knows a
//! leap second only at the end of a month. The API accepts what it always has, and nothing else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime};

/// The last second that is written with four digits of year: 9999-12-31T23:59:59Z.
pub const LAST_SECOND: u64 = 253_402_300_799;

/// The time of day since 1970, for whoever has not been given it; zero on a clock that says less. Never for durations: the
/// clock may be set.
#[must_use]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A Unix second as RFC 3339 in UTC: `2026-02-08T20:00:00Z`. Later than [`LAST_SECOND`] reads as that.
#[must_use]
pub fn write_rfc3339(unix: u64) -> String {
    let second = i64::try_from(unix.min(LAST_SECOND)).unwrap_or_default();
    // The years from 1970 to 9999 are all in range, and all can be written.
    let time = OffsetDateTime::from_unix_timestamp(second).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
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
    let number = |from: usize| head.get(from..from + 2).and_then(|digits| digits.parse::<u8>().ok());
    let (hour, minute, second) = (number(11)?, number(14)?, number(17)?);
    // 60 is a leap second; it counts as the second after 59.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (year, month) = (head.get(..4)?.parse().ok()?, Month::try_from(number(5)?).ok()?);
    let midnight = Date::from_calendar_date(year, month, number(8)?).ok()?.midnight().assume_utc();
    let rest = text.get(19..)?;
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => {
            let end = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            (end.len() < fraction.len()).then_some(end)?
        }
        None => rest,
    };
    let of_day = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Some((midnight.unix_timestamp() + of_day, rest))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_centuries_reads_back() {
        let mut last = "1969-12-31T23:59:59Z".to_owned();
        for day in 0..146_097 {
            let now = write_rfc3339(day * 86_400);
            assert_eq!(read_rfc3339(&now), Some(day * 86_400));
            assert!(now > last, "{last} then {now}");
            last = now;
        }
        assert_eq!(last, "2369-12-31T00:00:00Z");
    }

    #[test]
    fn known_times() {
        // Checked with `date -u -d @…`.
        assert_eq!(write_rfc3339(1_707_422_400), "2024-02-08T20:00:00Z");
        assert_eq!(write_rfc3339(LAST_SECOND), "9999-12-31T23:59:59Z");
        assert_eq!(write_rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
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
