//! Latency percentiles.

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency told apart, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;

/// A histogram of nanoseconds, to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    histogram: Histogram<u64>,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) p99_99: f64,
    pub(crate) max: f64,
}

/// Percentiles, and the curve between them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    #[serde(flatten)]
    pub(crate) percentiles: Percentiles,
    /// Quantile (0 to 1) and microseconds, as far as there are values to tell.
    pub(crate) curve: Vec<(f64, f64)>,
}

impl Default for Recorder {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(100, LONGEST, 3);
        // The bounds are constants that hdrhistogram takes: the lower is above 0, the upper more than twice it.
        Self { histogram: histogram.expect("valid bounds") }
    }
}

impl Recorder {
    /// Takes one latency in nanoseconds; beyond a minute counts as a minute.
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.histogram.saturating_record(nanoseconds);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    pub(crate) fn latency(&self) -> Latency {
        // Ten steps for each further nine; the last is where less than one value would be beyond.
        let nines = (self.histogram.len().max(1) as f64).log10();
        let steps = (nines * 10.0) as i32;
        let curve = (0..=steps).map(|step| {
            let quantile = 1.0 - 10f64.powf(f64::from(-step) / 10.0);
            (quantile, round(self.histogram.value_at_quantile(quantile) as f64 / 1000.0))
        });
        Latency { percentiles: self.percentiles(), curve: curve.collect() }
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let at = |quantile: f64| round(self.histogram.value_at_quantile(quantile) as f64 / 1000.0);
        Percentiles {
            count: self.histogram.len(),
            mean: round(self.histogram.mean() / 1000.0),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: round(self.histogram.max() as f64 / 1000.0),
        }
    }
}

/// To three decimals.
pub(crate) fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_values_recorded() {
        let mut recorder = Recorder::default();
        (1..=10_000u64).for_each(|micros| recorder.record(micros * 1000));
        let p = recorder.percentiles();
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.002;
        assert!(near(p.p50, 5000.0) && near(p.p99, 9900.0) && near(p.p99_99, 9999.0) && near(p.max, 10_000.0), "{p:?}");
        assert!(near(p.mean, 5000.5));
        assert_eq!(p.count, 10_000);
        assert_eq!(Recorder::default().percentiles(), Percentiles::default());
    }
}
