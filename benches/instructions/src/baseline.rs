//! The committed counts, and what a new count means beside them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::process::Command;

/// The counts of x86-64 with AVX2.
pub(crate) const X86: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../baseline.json");
/// Those of 64-bit ARM.
const ARM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../baseline-arm64.json");
/// Those of what this program was built for.
pub(crate) const HERE: &str = if cfg!(target_arch = "aarch64") { ARM } else { X86 };

/// The committed counts.
#[derive(Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// What compiled them, as `rustc --version` names it.
    pub(crate) toolchain: String,
    /// Instructions of one operation, by case.
    pub(crate) instructions: BTreeMap<String, f64>,
}

/// What became of a case.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    /// It stands in both, and may grow by this part of what it was before.
    Compared { before: f64, now: f64, growth_max: f64 },
    /// The baseline does not know it.
    New { now: f64 },
    /// The baseline alone knows it.
    Gone { before: f64 },
}

impl Baseline {
    pub(crate) fn read(path: &str) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))
    }

    pub(crate) fn write(&self, path: &str) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        fs::write(path, text + "\n").map_err(|error| format!("{path}: {error}"))
    }

    pub(crate) fn compare(
        &self,
        counts: &BTreeMap<String, f64>,
        growth_max: impl Fn(&str) -> f64,
    ) -> BTreeMap<String, Outcome> {
        let before = self.instructions.iter().map(|(name, &before)| {
            let outcome = match counts.get(name) {
                Some(&now) => Outcome::Compared { before, now, growth_max: growth_max(name) },
                None => Outcome::Gone { before },
            };
            (name.clone(), outcome)
        });
        let new = counts.iter().filter(|(name, _)| !self.instructions.contains_key(*name));
        before.chain(new.map(|(name, &now)| (name.clone(), Outcome::New { now }))).collect()
    }
}

impl Outcome {
    fn growth(self) -> f64 {
        match self {
            Self::Compared { before, now, .. } => now / before - 1.0,
            Self::New { .. } | Self::Gone { .. } => 0.0,
        }
    }

    /// It grew too much, or the baseline is not of these cases.
    pub(crate) fn is_failure(&self) -> bool {
        !matches!(self, Self::Compared { growth_max, .. } if self.growth() <= *growth_max)
    }

    /// It shrank by as much as would fail the other way.
    pub(crate) fn is_gain(&self) -> bool {
        matches!(self, Self::Compared { growth_max, .. } if self.growth() < -growth_max)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Compared { before, now, .. } => {
                write!(f, "{before:>14.1} {now:>14.1} {:>+7.1}%", self.growth() * 100.0)?;
                if self.is_failure() { f.write_str("  TOO MUCH") } else { Ok(()) }
            }
            Self::New { now } => write!(f, "{:>14} {now:>14.1}  NOT IN THE BASELINE", ""),
            Self::Gone { before } => write!(f, "{before:>14.1} {:>14}  NO SUCH CASE", ""),
        }
    }
}

/// A case's count on 64-bit ARM, as a multiple of x86-64's.
pub(crate) struct Ratio {
    pub(crate) ratio: f64,
    pub(crate) ratio_max: f64,
}

impl Ratio {
    pub(crate) fn is_failure(&self) -> bool {
        self.ratio > self.ratio_max
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {:.2}, at most {:.2}", self.ratio, self.ratio_max)?;
        if self.is_failure() { f.write_str("  TOO MUCH") } else { Ok(()) }
    }
}

/// Whether counts of this machine can be held against the baseline: on ARM always, because the core is QEMU's.
pub(crate) fn is_comparable() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(target_arch = "aarch64");
}

/// What compiles here.
pub(crate) fn toolchain() -> String {
    let version = Command::new("rustc").arg("--version").output();
    version.map_or_else(|_| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, f64)]) -> BTreeMap<String, f64> {
        counts.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    }

    fn failures(before: &[(&str, f64)], now: &[(&str, f64)]) -> Vec<String> {
        let baseline = Baseline { toolchain: String::new(), instructions: counts(before) };
        let growth_max = |name: &str| if name == "strict" { 0.01 } else { 0.10 };
        let outcomes = baseline.compare(&counts(now), growth_max).into_iter();
        outcomes.filter(|(_, outcome)| outcome.is_failure()).map(|(name, _)| name).collect()
    }

    #[test]
    fn as_much_more_as_a_case_may_grow_passes_and_a_bit_more_does_not() {
        assert!(failures(&[("a", 1000.0), ("b", 1000.0)], &[("a", 1099.9), ("b", 1.0)]).is_empty());
        assert_eq!(failures(&[("a", 1000.0), ("b", 1000.0)], &[("a", 1100.1), ("b", 1000.0)]), ["a"]);
    }

    #[test]
    fn each_case_has_a_bound_of_its_own() {
        let before = [("a", 1000.0), ("strict", 1000.0)];
        assert!(failures(&before, &[("a", 1090.0), ("strict", 1009.9)]).is_empty());
        assert_eq!(failures(&before, &[("a", 1090.0), ("strict", 1010.1)]), ["strict"]);
    }

    #[test]
    fn a_case_that_one_of_the_two_does_not_know_fails() {
        assert_eq!(failures(&[("a", 1.0), ("gone", 1.0)], &[("a", 1.0), ("new", 1.0)]), ["gone", "new"]);
    }

    #[test]
    fn the_committed_baselines_are_of_these_cases() {
        let mut cases: Vec<_> = crate::cases::CASES.iter().map(|case| case.name).collect();
        cases.sort_unstable();
        for path in [X86, ARM] {
            assert_eq!(Baseline::read(path).unwrap().instructions.keys().collect::<Vec<_>>(), cases, "{path}");
        }
    }

    #[test]
    fn as_much_more_on_arm_as_a_case_may_take_passes_and_a_bit_more_does_not() {
        assert!(!Ratio { ratio: 1.15, ratio_max: 1.15 }.is_failure());
        assert!(Ratio { ratio: 1.16, ratio_max: 1.15 }.is_failure());
    }

    #[test]
    fn the_cases_do_what_they_say() {
        crate::cases::CASES.iter().for_each(|case| (case.run)());
    }
}
