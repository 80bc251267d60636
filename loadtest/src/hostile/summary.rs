//! The table that `hostile` prints, kind by kind as it is measured.

use crate::adversary::Kind;
use crate::report::compare::{Comparison, Ratio};
use crate::report::plot::short;
use serde::Serialize;
use std::collections::BTreeMap;

/// The most that the others' p99 may grow.
const RATIO_MAX: f64 = 1.5;

/// What the others noticed of one kind.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) kind: String,
    pub(crate) about: String,
    /// Whether nobody was cut off, nothing was lost or refused, and p99 stayed within its bound.
    pub(crate) holds: bool,
    /// Whether the relay was not itself again a minute after the attack.
    pub(crate) stuck: bool,
    pub(crate) cut_off: u64,
    pub(crate) lost_messages: u64,
    /// In all rounds, calm ones too.
    pub(crate) errors: BTreeMap<String, u64>,
    /// The relay's resident memory at its most, under attack.
    pub(crate) rss_most_megabytes: f64,
    pub(crate) comparison: Comparison,
}

impl Summary {
    pub(super) fn new(name: &str, kinds: &[&'static Kind], comparison: Comparison, stuck: bool) -> Self {
        let sum = |figure: &str| -> u64 {
            let both = comparison.rounds.iter().flat_map(|(attacked, calm)| [attacked, calm]);
            both.filter_map(|outcome| outcome.figures.get(figure)).sum::<f64>() as u64
        };
        let mut errors = BTreeMap::new();
        for (what, count) in comparison.rounds.iter().flat_map(|(one, two)| one.errors.iter().chain(&two.errors)) {
            *errors.entry(what.clone()).or_default() += count;
        }
        let most = comparison.rounds.iter().filter_map(|(attacked, _)| attacked.figures.get("rss_most_megabytes"));
        let (cut_off, lost_messages) = (sum("cut_off"), sum("lost_messages"));
        let p99 = comparison.ratio.get("latency_p99_us").map_or(f64::MAX, |ratio| ratio.median);
        Self {
            kind: name.to_owned(),
            about: match kinds {
                [kind] => kind.about.to_owned(),
                _ => "all kinds at once".to_owned(),
            },
            holds: p99 <= RATIO_MAX && !stuck && cut_off + lost_messages == 0 && errors.is_empty(),
            stuck,
            cut_off,
            lost_messages,
            rss_most_megabytes: most.copied().fold(0.0, f64::max),
            errors,
            comparison,
        }
    }

    /// A figure under attack and in calm, each the median of its rounds, and the median of their ratios.
    pub(crate) fn ratio(&self, figure: &str) -> Option<&Ratio> {
        self.comparison.ratio.get(figure)
    }

    fn line(&self) -> String {
        let milliseconds = |figure: &str| match self.ratio(figure) {
            None => "none arrived".to_owned(),
            Some(ratio) => format!("{} / {}", short(ratio.values.0 / 1e3), short(ratio.values.1 / 1e3)),
        };
        let ratio = |figure: &str| self.ratio(figure).map_or("-".to_owned(), |ratio| format!("{:.2}", ratio.median));
        let spread = self.ratio("latency_p99_us").map_or(String::new(), |ratio| {
            let least = ratio.each.iter().copied().fold(f64::MAX, f64::min);
            let most = ratio.each.iter().copied().fold(f64::MIN, f64::max);
            format!("{least:.2} to {most:.2}")
        });
        let errors: Vec<_> = self.errors.iter().map(|(what, count)| format!("{what} ({count})")).collect();
        format!(
            "| {} | {} | {} | {} | **{}** | {spread} | {} | {} | {} | {} | {:.0} | {} |",
            self.kind,
            milliseconds("latency_p50_us"),
            ratio("latency_p50_us"),
            milliseconds("latency_p99_us"),
            ratio("latency_p99_us"),
            milliseconds("image_p99_us"),
            milliseconds("newcomer_p99_us"),
            self.cut_off,
            self.lost_messages,
            self.rss_most_megabytes,
            match (self.stuck, errors.is_empty()) {
                (true, _) => format!("STUCK {}", errors.join(", ")),
                (false, true) => "none".to_owned(),
                (false, false) => errors.join(", "),
            }
        )
    }
}

/// The rows so far.
pub(super) struct Table {
    rows: Vec<Summary>,
}

impl Table {
    /// Prints the head.
    pub(super) fn begin() -> Self {
        println!(
            "| kind | p50, ms, attacked / calm | ratio | p99, ms | ratio | rounds | image p99, ms | newcomer p99, ms | cut off \
             | lost | most MB | errors |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        );
        Self { rows: Vec::new() }
    }

    pub(super) fn put(&mut self, row: Summary) {
        println!("{}", row.line());
        self.rows.push(row);
    }

    pub(super) fn end(self) -> Vec<Summary> {
        let held = self.rows.iter().filter(|row| row.holds).count();
        println!(
            "\n{held} of {} kinds: nobody cut off, nothing lost or refused, p99 within {RATIO_MAX} of calm",
            self.rows.len()
        );
        self.rows
    }
}
