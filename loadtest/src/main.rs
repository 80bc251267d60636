//! `coralmux-loadtest`: load test and capacity planning for relays that speak the CoralMux wire contract.

mod cli;
mod generator;
mod reference;
mod report;
mod scenario;
mod server;
mod target;
mod tokens;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use cli::{Cli, Command, Common};
use report::compare::{Comparison, Figures};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use scenario::{Relay, idle, pingpong};
use serde::Serialize;
use server::{Process, find_listener};
use target::Target;

fn main() -> Result<()> {
    let cli = Cli::parse();
    raise_nofile();
    match cli.command {
        Command::Pingpong(args) => {
            let plan = args.plan();
            measure(&args.common, plan.pairs, |relay| pingpong::run(relay, &plan))
        }
        Command::Reference { port } => reference::serve(port),
        Command::Idle(args) => {
            let plan = args.plan();
            measure(&args.common, plan.pairs, |relay| idle::run(relay, &plan))
        }
    }
}

/// Runs a scenario against the relay, or in turn against two, and shows the result.
fn measure<T: Figures>(common: &Common, pairs: usize, run: impl Fn(&Relay) -> Result<T>) -> Result<()> {
    let relay = prepare(common, &common.url, common.pid, pairs)?;
    let Some(other) = &common.compare else { return show(common, &run(&relay)?) };
    let other = prepare(common, other, common.compare_pid, pairs)?;
    let mut rounds = Vec::new();
    for _ in 0..common.rounds {
        rounds.push((run(&relay)?, run(&other)?));
    }
    show(common, &Comparison::new(&relay.target.url, &other.target.url, rounds))
}

fn prepare(common: &Common, url: &str, pid: Option<u32>, pairs: usize) -> Result<Relay> {
    let target = Target::resolve(url)?;
    let process = pid.map(|pid| Process { pid }).or_else(|| find_listener(target.address));
    let memory_at_start = process.map(Process::memory).transpose()?;
    let tokens = match &common.tokens {
        Some(path) => tokens::from_file(path, pairs)?,
        None => tokens::make(&target, &common.admin_key, pairs)?,
    };
    Ok(Relay { target, process, memory_at_start, tokens })
}

fn show(common: &Common, result: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(result)?;
    match &common.json {
        Some(path) => std::fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display())),
        None => {
            println!("{json}");
            Ok(())
        }
    }
}

/// Each connection is a descriptor: as many as may be.
fn raise_nofile() {
    let limit = getrlimit(Resource::Nofile);
    // Where it fails, the soft limit stays, and opening connections tells.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
