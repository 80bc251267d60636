//! Counts the instructions of the paths that every message takes, and compares them with a committed baseline.
//!
//! Instructions, not time: the same code gives the same count on a busy machine. What it must never do is to count what
//! prepares a case; see [`cases::under_count`].
//!
//! Without an argument it prints a table; with `--check` it fails where a case grew, or takes too much more on 64-bit ARM
//! than on x86-64; with `--accept` it writes the baseline.

mod baseline;
mod cases;
mod counter;
mod shard;

use self::baseline::{Baseline, Outcome, Ratio};
use self::cases::CASES;
use std::collections::BTreeMap;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if let Some(at) = arguments.iter().position(|argument| argument == counter::CASE_FLAG) {
        let name = arguments.get(at + 1).map_or("", String::as_str);
        CASES.iter().filter(|case| case.name == name).for_each(|case| (case.run)());
        return ExitCode::SUCCESS;
    }
    match count_all().and_then(|counts| report(&counts, has("--check"), has("--accept"))) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            println!("benches: 0 passed, {} failed", CASES.len());
            ExitCode::FAILURE
        }
    }
}

/// Instructions of one operation, by case.
type Counts = BTreeMap<String, f64>;

fn count_all() -> Result<Counts, String> {
    CASES
        .iter()
        .map(|case| {
            let total = counter::count(case.name)?;
            // One digit after the point: the shortest cases take ten instructions.
            let each = (total as f64 / case.operations as f64 * 10.0).round() / 10.0;
            Ok((case.name.to_owned(), each))
        })
        .collect()
}

fn report(counts: &Counts, check: bool, accept: bool) -> Result<ExitCode, String> {
    if accept {
        let baseline = Baseline { toolchain: baseline::toolchain(), instructions: counts.clone() };
        baseline.write(baseline::HERE)?;
        println!("benches: the baseline is now what {} cases count", counts.len());
        return Ok(ExitCode::SUCCESS);
    }
    let baseline = Baseline::read(baseline::HERE)?;
    // What the counts of another architecture are held against; those of x86-64 have only the baseline.
    let reference = if cfg!(target_arch = "x86_64") { None } else { Some(Baseline::read(baseline::X86)?) };
    let case_of = |name: &str| CASES.iter().find(|case| case.name == name);
    let outcomes = baseline.compare(counts, |name| case_of(name).map_or(0.0, |case| case.growth_max));
    let ratios: BTreeMap<_, _> = outcomes
        .keys()
        .filter_map(|name| {
            let x86 = reference.as_ref()?.instructions.get(name)?;
            Some((name, Ratio { ratio: counts.get(name)? / x86, ratio_max: case_of(name)?.arm_max }))
        })
        .collect();
    print!("{:<28} {:>14} {:>14} {:>8}", "instructions of", "baseline", "now", "change");
    println!("{}", if reference.is_some() { "  of x86-64's" } else { "" });
    for (name, outcome) in &outcomes {
        print!("{name:<28} {outcome}");
        println!("{}", ratios.get(name).map_or_else(String::new, Ratio::to_string));
    }
    if !check {
        return Ok(ExitCode::SUCCESS);
    }
    if !baseline::is_comparable() {
        println!("the baseline is for x86-64 with AVX2: nothing is compared on this machine");
        println!("benches: {} passed, 0 failed", counts.len());
        return Ok(ExitCode::SUCCESS);
    }
    let is_failure =
        |name: &String, outcome: &Outcome| outcome.is_failure() || ratios.get(name).is_some_and(Ratio::is_failure);
    let failed = outcomes.iter().filter(|(name, outcome)| is_failure(name, outcome)).count();
    if failed > 0 {
        let here = baseline::toolchain();
        if here != baseline.toolchain {
            println!("the baseline was counted with {}, this is {here}", baseline.toolchain);
        }
        println!("where the growth is meant: accept it (benches/README.md), and commit the baseline with the reason");
    } else if outcomes.values().any(Outcome::is_gain) {
        println!("some cases got much cheaper: accepting that keeps it that way");
    }
    println!("benches: {} passed, {failed} failed", outcomes.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
