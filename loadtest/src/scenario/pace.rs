//! Open-loop timing: what is due when, whether or not what was due before has been answered.

use crate::generator::SECOND;

/// Evenly spaced moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    start: u64,
    per_second: f64,
    taken: u64,
}

impl Pace {
    /// The first moment is `start`. `per_second` is above 0.
    pub(crate) fn new(start: u64, per_second: f64) -> Self {
        Self { start, per_second, taken: 0 }
    }

    /// No moment at all.
    pub(crate) fn never() -> Self {
        Self { start: u64::MAX, per_second: 1.0, taken: 0 }
    }

    /// The next moment, in nanoseconds.
    pub(crate) fn next(&self) -> u64 {
        self.start + (self.taken as f64 * SECOND as f64 / self.per_second) as u64
    }

    /// Takes the next moment, where it has come: its number and when it was due.
    pub(crate) fn take(&mut self, now: u64) -> Option<(u64, u64)> {
        let (number, due) = (self.taken, self.next());
        (due <= now).then(|| {
            self.taken += 1;
            (number, due)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_is_told_late_but_with_its_own_time() {
        let mut pace = Pace::new(1000, 1e6);
        assert_eq!(pace.take(999), None);
        assert_eq!(pace.take(1000), Some((0, 1000)));
        assert_eq!(pace.take(1500), None);
        assert_eq!([pace.take(9000), pace.take(9000)], [Some((1, 2000)), Some((2, 3000))]);
        assert_eq!(pace.next(), 4000);
        assert_eq!(Pace::never().take(u64::MAX - 1), None);
    }
}
