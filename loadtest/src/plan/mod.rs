//! `plan`: how much a relay on this machine can carry, what is the first limit, and which settings that takes.
//!
//! It never mixes what was measured with what follows from it: each line of the plan says which of the two it is.

mod limits;
mod text;

use crate::cli::PlanArgs;
use crate::generator::Template;
use crate::launch::{Binaries, Server, pin_to, usable_cores};
use crate::report::latency::round;
use crate::report::progress::Progress;
use crate::scenario::{Opening, Relay, Run, idle, pingpong};
use anyhow::{Context as _, Result, ensure};
use limits::{Limit, Machine};
use serde::Serialize;
use std::time::Duration;

/// Pairs that exchange messages where rates are tried.
const ACTIVE_PAIRS: usize = 200;
/// Each connection is pinged in this time at least once.
const REST_SECONDS: f64 = 31.0;
const WARM_UP: f64 = 0.5;
/// Each halves what is not known about the highest rate.
const TRIALS: u32 = 6;
/// A rate counts as kept where so much of it was forwarded.
const KEPT: f64 = 0.98;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) pairs: usize,
    pub(crate) server_cores: usize,
    /// Whether relay and generator had to share the only core.
    pub(crate) shared_core: bool,
    /// User-space memory of an idle connection, with its part of the token.
    pub(crate) user_bytes_per_connection: f64,
    /// Half of what both ends took.
    pub(crate) kernel_bytes_per_connection: f64,
    /// CPU at rest for each connection, in cores.
    pub(crate) rest_cores_per_connection: f64,
    /// Messages a second with nothing held back, whatever their latency.
    pub(crate) saturated_per_second: f64,
    pub(crate) message_bytes: usize,
    pub(crate) p99_wanted_us: f64,
    /// The highest rate that was kept within that latency, and the latency then.
    pub(crate) rate_per_second: f64,
    pub(crate) rate_p99_us: f64,
    /// What others took of the machine meanwhile, at the worst.
    pub(crate) others_cores: f64,
}

/// What follows from it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) measured: Measured,
    pub(crate) machine: Machine,
    /// How many idle pairs each of these allows, fewest first.
    pub(crate) limits: Vec<Limit>,
}

/// Measures, and prints the plan.
pub(crate) fn run(args: &PlanArgs) -> Result<()> {
    ensure!(args.pairs >= ACTIVE_PAIRS, "at least {ACTIVE_PAIRS} pairs are needed");
    let cores = usable_cores()?;
    let (generator, server) = cores.split_last().context("no core may be used")?;
    let shared_core = server.is_empty();
    let server = if shared_core { &cores[..] } else { server };
    pin_to(*generator)?;
    let binaries = Binaries { relay: args.relay.clone(), reference: None };
    let (server_process, relay) = Server::relay(&binaries, server, args.pairs)?;
    let machine = Machine::read(&relay)?;
    let measured = measure(args, &relay, server.len(), shared_core)?;
    drop(server_process);
    let limits = machine.limits(&measured);
    let plan = Plan { measured, machine, limits };
    print!("{}", text::of(&plan));
    let Some(path) = &args.json else { return Ok(()) };
    let json = serde_json::to_string_pretty(&plan)? + "\n";
    std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}

fn measure(args: &PlanArgs, relay: &Relay, server_cores: usize, shared_core: bool) -> Result<Measured> {
    Template::envelope("chat.send", args.bytes, 1)?;
    let progress = Progress::new("");
    let run = Run { relay, opening: Opening { concurrency: 64, ramp_up: Duration::ZERO }, progress: &progress };
    let rest = idle::Plan { pairs: args.pairs, active: 0, bytes: args.bytes, seconds: REST_SECONDS };
    let rest = idle::run(run, &rest)?;
    let mut others = rest.usage.others_cores;

    let load = pingpong::Plan {
        pairs: ACTIVE_PAIRS,
        bytes: args.bytes,
        depth: 4,
        rate: None,
        seconds: args.seconds,
        warm_up: WARM_UP,
        single_sends: true,
        sleeps: shared_core,
    };
    let saturated_per_second = pingpong::run(run, &load)?.figure_of("messages_per_second")?;
    let p99_wanted_us = args.p99_ms * 1000.0;
    let (mut kept, mut kept_p99, mut too_much) = (0.0, 0.0, saturated_per_second);
    for _ in 0..TRIALS {
        let rate = (kept + too_much) / 2.0;
        let outcome = pingpong::run(run, &pingpong::Plan { rate: Some(rate), ..load })?;
        others = others.max(outcome.usage.others_cores);
        let p99 = outcome.figure_of("latency_p99_us")?;
        if p99 <= p99_wanted_us && outcome.figure_of("messages_per_second")? >= rate * KEPT {
            (kept, kept_p99) = (rate, p99);
        } else {
            too_much = rate;
        }
    }
    progress.end();
    let connections = (args.pairs * 2) as f64;
    Ok(Measured {
        pairs: args.pairs,
        server_cores,
        shared_core,
        user_bytes_per_connection: rest.figure_of("rss_bytes_per_connection_with_tokens")?.max(0.0),
        kernel_bytes_per_connection: round(rest.figure_of("kernel_slab_bytes_per_connection")?.max(0.0) / 2.0),
        rest_cores_per_connection: rest.figure_of("server_cores")? / connections,
        saturated_per_second,
        message_bytes: args.bytes,
        p99_wanted_us,
        rate_per_second: kept.round(),
        rate_p99_us: kept_p99,
        others_cores: others,
    })
}
