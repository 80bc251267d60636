//! A guard against floods in the log: what repeats is counted, and said once a period. Pure.

use std::time::{Duration, Instant};

/// One place that logs, and how often it did since its last line.
///
/// The first event is said at once; those within `period` of a line are held back and said together by the first
/// event after it, or by [`Self::poll_line`] when none comes.
#[derive(Clone, Copy, Debug)]
pub struct Summed {
    period: Duration,
    /// When the last line was written.
    said: Option<Instant>,
    /// Events since then.
    held: u64,
}

impl Summed {
    /// A place that writes at most one line in `period`.
    #[must_use]
    pub const fn new(period: Duration) -> Self {
        Self { period, said: None, held: 0 }
    }

    /// Counts an event; how many the line to be written now stands for, this one included, if one is due.
    #[must_use]
    pub fn handle_event(&mut self, now: Instant) -> Option<u64> {
        self.held = self.held.saturating_add(1);
        self.poll_line(now)
    }

    /// How many events the line to be written now stands for, if there are any that wait and a line is due.
    #[must_use]
    pub fn poll_line(&mut self, now: Instant) -> Option<u64> {
        let due = self.said.is_none_or(|said| now.saturating_duration_since(said) >= self.period);
        if self.held == 0 || !due {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_period_and_every_event_is_counted_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut site = Summed::new(Duration::from_secs(1));
        assert_eq!(site.poll_line(at(0)), None, "nothing happened");
        assert_eq!(site.handle_event(at(0)), Some(1), "the first is said at once");
        assert_eq!(site.handle_event(at(1)), None);
        assert_eq!(site.handle_event(at(999)), None);
        assert_eq!(site.handle_event(at(1000)), Some(3));
        assert_eq!(site.poll_line(at(5000)), None, "all is said");
        assert_eq!(site.handle_event(at(5000)), Some(1), "a quiet place speaks at once");
        assert_eq!(site.handle_event(at(5001)), None);
        assert_eq!(site.poll_line(at(5999)), None);
        assert_eq!(site.poll_line(at(6000)), Some(1), "the last of a flood is not forgotten");
    }

    #[test]
    fn a_thousand_events_in_ten_periods_are_eleven_lines() {
        let start = Instant::now();
        let mut site = Summed::new(Duration::from_millis(100));
        let said: Vec<u64> = (0..1000).filter_map(|ms| site.handle_event(start + Duration::from_millis(ms))).collect();
        assert_eq!(said.len(), 10);
        let rest = site.poll_line(start + Duration::from_secs(2)).unwrap();
        assert_eq!(said.iter().sum::<u64>() + rest, 1000);
    }
}
