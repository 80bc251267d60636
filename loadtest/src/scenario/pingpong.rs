//! `pingpong`: saturation, or a rate. What a forwarded message costs and how long it takes.

use super::Run;
use super::connect::connect_pairs;
use super::measure::{measure, warm_up};
use super::traffic::Pingpong;
use crate::generator::Template;
use crate::report::outcome::Outcome;
use anyhow::{Result, ensure};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) pairs: usize,
    pub(crate) bytes: usize,
    /// Messages in flight for each pair.
    pub(crate) depth: usize,
    /// Forwarded messages a second in all, questions and answers, instead of a depth.
    pub(crate) rate: Option<f64>,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
    /// Whether each message leaves in a call of its own; otherwise all answers to what one read brought leave together.
    pub(crate) single_sends: bool,
    /// Whether the generator sleeps when there is nothing to do.
    pub(crate) sleeps: bool,
}

/// Runs it once.
pub(crate) fn run(run: Run<'_>, plan: &Plan) -> Result<Outcome> {
    let (mut net, connect_seconds) = connect_pairs(run, plan.pairs)?;
    net.set_spins(!plan.sleeps);
    let copies_max = if plan.single_sends { 1 } else { plan.depth };
    let question = Template::envelope("chat.send", plan.bytes, copies_max)?;
    let answer = Template::envelope("chat.done", plan.bytes, copies_max)?;
    let mut game = Pingpong::new(question, answer, net.len(), 0..plan.pairs);
    match plan.rate {
        Some(rate) => game.start_at_rate(&net, rate / 2.0),
        None => game.start(&mut net, plan.depth),
    }
    warm_up(run, &mut net, &mut game, plan.warm_up)?;
    let measured = measure(run, &mut net, &mut game, plan.seconds, |_, _| false)?;
    let messages = measured.count;
    ensure!(messages > 0, "no message was forwarded; {:?}", game.errors);
    let mut outcome = Outcome::new("pingpong", &run.relay.target.url, "messages", measured)
        .setting("pairs", plan.pairs)
        .setting("bytes", plan.bytes)
        .setting("generator_sleeps", plan.sleeps)
        .setting("single_sends", plan.single_sends)
        .figure("connect_seconds", connect_seconds)
        .throughput("messages_per_second", "server_cpu_us_per_message", messages)
        .latency("message", "latency_p50_us", "latency_p99_us", &game.latency)
        .latency("round trip", "round_trip_p50_us", "round_trip_p99_us", &game.round_trip);
    outcome = match plan.rate {
        Some(rate) => outcome.setting("rate", rate),
        None => outcome.setting("depth", plan.depth),
    };
    outcome.errors = game.errors;
    Ok(outcome)
}
