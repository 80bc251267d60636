//! Counts of durations by size. Plain cells: one thread records, copies are read.

use std::time::Duration;

/// Upper bounds of the buckets in nanoseconds, from 10 microseconds to 10 seconds; one more bucket has no bound.
const BOUNDS_NS: [u64; 19] = {
    let mut bounds = [0; 19];
    let (mut at, mut decade) = (0, 10_000);
    while at < 19 {
        bounds[at] = match at % 3 {
            0 => decade,
            1 => decade * 5 / 2,
            _ => decade * 5,
        };
        if at % 3 == 2 {
            decade *= 10;
        }
        at += 1;
    }
    bounds
};

/// A histogram of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By bucket; not cumulative.
    counts: [u64; BOUNDS_NS.len() + 1],
    sum_ns: u64,
}

impl Histogram {
    /// Counts `count` observations of `duration`.
    pub fn record(&mut self, duration: Duration, count: u64) {
        // Centuries are beyond what is measured here.
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[BOUNDS_NS.partition_point(|&bound| bound < ns)] += count;
        self.sum_ns = self.sum_ns.saturating_add(ns.saturating_mul(count));
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// How many observations there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All observations together, in seconds.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Each bucket's upper bound in seconds, and how many observations were at most that long.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        BOUNDS_NS.iter().zip(&self.counts).scan(0, |below, (&bound, &count)| {
            *below += count;
            Some((bound as f64 / 1e9, *below))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_run_from_ten_microseconds_to_ten_seconds() {
        let bounds: Vec<f64> = Histogram::default().buckets().map(|(bound, _)| bound).collect();
        assert_eq!(bounds[..4], [1e-5, 2.5e-5, 5e-5, 1e-4]);
        assert_eq!(bounds[18], 10.0);
        assert!(bounds.is_sorted());
    }

    #[test]
    fn an_observation_counts_in_its_bucket_and_all_above() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_micros(10), 1);
        histogram.record(Duration::from_nanos(10_001), 2);
        histogram.record(Duration::from_secs(11), 1);
        let counts: Vec<u64> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts[..3], [1, 3, 3]);
        assert_eq!((counts[18], histogram.count()), (3, 4));
        assert!((histogram.sum_seconds() - 11.000_030_002).abs() < 1e-9);
        let mut twice = histogram;
        twice.add(&histogram);
        assert_eq!(twice.count(), 8);
    }
}
