//! Counts the instructions of the paths that every message takes, and compares them with a committed baseline.
//!
//! Instructions under callgrind, not time: the same code gives the same count on a busy machine. What it must never do
//! is to count what prepares a case; see [`cases::under_callgrind`].
//!
//! Without an argument it prints a table; with `--check` it fails where a case grew, with `--accept` it writes the
//! baseline.

mod baseline;
mod callgrind;
mod cases;
mod shard;

use self::baseline::{Baseline, Outcome};
use self::cases::CASES;
use std::collections::BTreeMap;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if let Some(at) = arguments.iter().position(|argument| argument == callgrind::CASE_FLAG) {
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
            let total = callgrind::count(case.name)?;
            // One digit after the point: the shortest cases take ten instructions.
            let each = (total as f64 / case.operations as f64 * 10.0).round() / 10.0;
            Ok((case.name.to_owned(), each))
        })
        .collect()
}

fn report(counts: &Counts, check: bool, accept: bool) -> Result<ExitCode, String> {
    if accept {
        Baseline { toolchain: baseline::toolchain(), instructions: counts.clone() }.write()?;
        println!("benches: the baseline is now what {} cases count", counts.len());
        return Ok(ExitCode::SUCCESS);
    }
    let baseline = Baseline::read()?;
    let growth_max = |name: &str| CASES.iter().find(|case| case.name == name).map_or(0.0, |case| case.growth_max);
    let outcomes = baseline.compare(counts, growth_max);
    println!("{:<28} {:>14} {:>14} {:>8}", "instructions of", "baseline", "now", "change");
    for (name, outcome) in &outcomes {
        println!("{name:<28} {outcome}");
    }
    if !check {
        return Ok(ExitCode::SUCCESS);
    }
    if !baseline::is_comparable() {
        println!("the baseline is for x86-64 with AVX2: nothing is compared on this machine");
        println!("benches: {} passed, 0 failed", counts.len());
        return Ok(ExitCode::SUCCESS);
    }
    let failed = outcomes.values().filter(|outcome| outcome.is_failure()).count();
    if failed > 0 {
        let here = baseline::toolchain();
        if here != baseline.toolchain {
            println!("the baseline was counted with {}, this is {here}", baseline.toolchain);
        }
        println!("where the growth is meant: `make bench-accept`, and commit benches/baseline.json with the reason");
    } else if outcomes.values().any(Outcome::is_gain) {
        println!("some cases got much cheaper: `make bench-accept` keeps it that way");
    }
    println!("benches: {} passed, {failed} failed", outcomes.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
