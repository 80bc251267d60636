//! Two relays, the same scenario in turn: the ratios pair by pair.

use super::latency::round;
use super::outcome::Outcome;
use serde::Serialize;
use std::collections::BTreeMap;

/// The rounds of a comparison, each of the relay and then of the other one.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) url: String,
    pub(crate) compared_with: String,
    pub(crate) ratio: BTreeMap<&'static str, Ratio>,
    pub(crate) rounds: Vec<(Outcome, Outcome)>,
}

/// First relay's figure by the second's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) each: Vec<f64>,
    /// Medians of the two.
    pub(crate) values: (f64, f64),
}

impl Comparison {
    pub(crate) fn new(url: &str, compared_with: &str, rounds: Vec<(Outcome, Outcome)>) -> Self {
        let mut columns: BTreeMap<&'static str, Vec<(f64, f64)>> = BTreeMap::new();
        for (one, other) in &rounds {
            for (name, value) in &one.figures {
                if let Some(other) = other.figures.get(name) {
                    columns.entry(name).or_default().push((*value, *other));
                }
            }
        }
        let ratio = columns.into_iter().map(|(name, pairs)| (name, Ratio::of(&pairs))).collect();
        Self { url: url.to_owned(), compared_with: compared_with.to_owned(), ratio, rounds }
    }
}

impl Ratio {
    /// Of rounds, each a figure of the first and one of the second.
    pub(crate) fn of(pairs: &[(f64, f64)]) -> Self {
        let each: Vec<f64> = pairs.iter().map(|(one, other)| round(one / other)).collect();
        let values = (median(pairs.iter().map(|p| p.0).collect()), median(pairs.iter().map(|p| p.1).collect()));
        let values = (round(values.0), round(values.1));
        Self { median: round(median(each.clone())), each, values }
    }
}

/// The middle one, or the mean of the two in the middle; 0 of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_own_ratios() {
        let ratio = Ratio::of(&[(2.0, 1.0), (30.0, 10.0), (8.0, 2.0)]);
        assert_eq!(ratio, Ratio { median: 3.0, each: vec![2.0, 3.0, 4.0], values: (8.0, 2.0) });
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
    }
}
