//! The table that `bench` prints, row by row as it is measured.

use crate::report::compare::Ratio;
use crate::report::plot::short;
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::path::Path;

/// What a figure may be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    name: String,
    bound: Bound,
    value: f64,
    holds: bool,
    note: String,
}

impl Row {
    pub(super) fn new(name: &str, bound: Bound, value: f64, note: String) -> Self {
        Self { name: name.to_owned(), bound, value, holds: bound.holds(value), note }
    }

    /// The median ratio; relay and reference themselves and how far the rounds lay apart go into the note.
    pub(super) fn ratio(name: &str, bound: Bound, ratio: &Ratio, unit: &str) -> Self {
        let least = ratio.each.iter().copied().fold(f64::MAX, f64::min);
        let most = ratio.each.iter().copied().fold(f64::MIN, f64::max);
        let (one, other) = (short(ratio.values.0), short(ratio.values.1));
        Self::new(name, bound, ratio.median, format!("{one} / {other} {unit}; rounds {least:.2} to {most:.2}"))
    }
}

impl Row {
    /// With more in its note.
    #[must_use]
    pub(super) fn noted(mut self, more: &str) -> Self {
        self.note = format!("{}; {more}", self.note);
        self
    }
}

/// The rows so far.
pub(super) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Prints the head.
    pub(super) fn begin() -> Self {
        println!("| figure | bound | measured | | |\n| --- | --- | --- | --- | --- |");
        Self { rows: Vec::new() }
    }

    pub(super) fn put(&mut self, row: Row) {
        let bound = match row.bound {
            Bound::AtMost(value) => format!("≤ {value:.2}"),
            Bound::AtLeast(value) => format!("≥ {value:.2}"),
        };
        let verdict = if row.holds { "" } else { "missed" };
        println!("| {} | {bound} | {:.3} | {verdict} | {} |", row.name, row.value, row.note);
        self.rows.push(row);
    }

    /// Writes the rows as JSON as well, where wanted.
    pub(super) fn end(self, json: Option<&Path>) -> Result<()> {
        let missed = self.rows.iter().filter(|row| !row.holds).count();
        println!("\n{} of {} figures within their bounds", self.rows.len() - missed, self.rows.len());
        let Some(path) = json else { return Ok(()) };
        let text = serde_json::to_string_pretty(&self.rows)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_holds_on_its_own_side() {
        assert!(Row::new("a", Bound::AtMost(1.1), 1.1, String::new()).holds);
        assert!(!Row::new("a", Bound::AtMost(1.1), 1.11, String::new()).holds);
        assert!(Row::new("a", Bound::AtLeast(0.9), 0.95, String::new()).holds);
        assert!(!Row::new("a", Bound::AtLeast(0.9), 0.89, String::new()).holds);
    }
}
