//! `coralmux-loadtest`: load test and capacity planning for relays that speak the CoralMux wire contract.

mod adversary;
mod bench;
mod cli;
mod disk;
mod generator;
mod hostile;
mod launch;
mod plan;
mod reference;
mod report;
mod scenario;
mod server;
mod target;
mod tls;
mod tokens;

use anyhow::{Context as _, Result};
use cli::{Cli, Command, Common};
use report::compare::Comparison;
use report::html;
use report::outcome::Outcome;
use report::progress::Progress;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use scenario::{Relay, Run, chat, hold, idle, pingpong, slow, storm, upload};
use serde::Serialize;
use server::{Process, find_listener};
use std::path::Path;
use std::process::ExitCode;
use target::Target;

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    raise_nofile();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Pingpong(args) => {
            let plan = args.plan();
            measure(&args.common, plan.pairs, |run| pingpong::run(run, &plan))
        }
        Command::Idle(args) => {
            let plan = args.plan();
            measure(&args.common, plan.pairs, |run| idle::run(run, &plan))
        }
        Command::Chat(args) => {
            let plan = args.plan();
            measure(&args.common, plan.pairs, |run| chat::run(run, &plan))
        }
        Command::Storm(args) => {
            let plan = args.plan();
            measure(&args.common, plan.pairs, |run| storm::run(run, &plan))
        }
        Command::Upload(args) => {
            let plan = args.plan();
            measure(&args.common, plan.pairs + plan.bystanders, |run| upload::run(run, &plan))
        }
        Command::Slow(args) => {
            let plan = args.plan();
            measure(&args.common, plan.pairs, |run| slow::run(run, &plan))
        }
        Command::Hostile(args) => hostile::run(&args),
        Command::Reference { port } => reference::serve(port),
        Command::Bench(args) => bench::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Hold(args) => hold::serve(&args),
    }
}

/// Runs a scenario against the relay, or in turn against two, and shows the result.
fn measure(common: &Common, pairs: usize, scenario: impl Fn(Run<'_>) -> Result<Outcome>) -> Result<()> {
    let prepare = |url: &str, pid: Option<u32>| {
        let target = Target { e2e: common.e2e, ..Target::resolve(url, &common.tls)? };
        let process = pid.map(Process::from).or_else(|| find_listener(target.address));
        let memory_at_start = process.map(Process::memory).transpose()?;
        let tokens = match &common.tokens {
            Some(path) => tokens::from_file(path, pairs)?,
            None => tokens::make(&target, &common.admin_key, pairs)?,
        };
        anyhow::Ok(Relay { target, process, memory_at_start, tokens })
    };
    let run = |relay: &Relay, name: String| {
        let progress = Progress::new(name);
        let outcome = scenario(Run { relay, opening: common.opening(), progress: &progress });
        progress.end();
        outcome
    };
    let relay = prepare(&common.url, common.pid)?;
    let Some(other) = &common.compare else {
        let outcome = run(&relay, String::new())?;
        return show(common, &outcome, || html::single(&outcome));
    };
    let other = prepare(other, common.compare_pid)?;
    let mut rounds = Vec::new();
    for round in 1..=common.rounds {
        let name = |which: &str| format!("{round}/{} {which}", common.rounds);
        rounds.push((run(&relay, name("first"))?, run(&other, name("second"))?));
    }
    let result = Comparison::new(&relay.target.url, &other.target.url, rounds);
    show(common, &result, || html::comparison(&result))
}

fn show(common: &Common, result: &impl Serialize, html: impl FnOnce() -> String) -> Result<()> {
    let json = serde_json::to_string_pretty(result)? + "\n";
    match &common.json {
        Some(path) => write(path, &json)?,
        None => print!("{json}"),
    }
    common.html.as_deref().map_or(Ok(()), |path| write(path, &html()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Each connection is a descriptor: as many as may be.
fn raise_nofile() {
    let limit = getrlimit(Resource::Nofile);
    // Where it fails, the soft limit stays, and opening connections tells.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
