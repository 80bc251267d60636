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
        self.take_held()
    }

    /// How many events wait for a line, if any do: there will be no later one.
    #[must_use]
    pub fn take_held(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.held)).filter(|&held| held != 0)
    }
}

/// One place that logs each event on a line of its own, as long as they are few.
#[derive(Clone, Copy, Debug)]
pub struct Capped {
    lines_max: u32,
    /// Lines in this period. `lines <= lines_max`.
    lines: u32,
    /// Events of this period without a line.
    held: u64,
}

impl Capped {
    /// A place that writes at most `lines_max` lines in a period, which [`Self::end_period`] ends.
    #[must_use]
    pub const fn new(lines_max: u32) -> Self {
        Self { lines_max, lines: 0, held: 0 }
    }

    /// Counts an event; whether it is to have its line.
    #[must_use]
    pub fn handle_event(&mut self) -> bool {
        let has_line = self.lines < self.lines_max;
        if has_line {
            self.lines += 1;
        } else {
            self.held += 1;
        }
        has_line
    }

    /// Begins a new period; how many events of the last one had no line.
    #[must_use]
    pub fn end_period(&mut self) -> u64 {
        self.lines = 0;
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_events_have_their_lines_and_the_rest_of_a_flood_is_counted() {
        let mut place = Capped::new(3);
        assert_eq!((0..10).filter(|_| place.handle_event()).count(), 3);
        assert_eq!(place.end_period(), 7);
        assert!(place.handle_event());
        assert_eq!(place.end_period(), 0);
    }

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
        assert_eq!(site.handle_event(at(6001)), None);
        assert_eq!(site.take_held(), Some(1), "nor is it at the end");
        assert_eq!(site.take_held(), None);
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
