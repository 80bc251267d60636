//! `pingpong`: saturation. What a forwarded message costs.

use super::connect::connect_pairs;
use super::traffic::Pingpong;
use super::window::{Usage, Window};
use super::{Opening, Relay};
use crate::generator::SECOND;
use crate::report::compare::{Figure, Figures};
use crate::report::latency::{Percentiles, round};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::collections::BTreeMap;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) pairs: usize,
    pub(crate) bytes: usize,
    pub(crate) depth: usize,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
    /// Whether the generator sleeps when there is nothing to do.
    pub(crate) sleeps: bool,
    pub(crate) opening: Opening,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: &'static str,
    pub(crate) url: String,
    pub(crate) pairs: usize,
    pub(crate) bytes: usize,
    pub(crate) depth: usize,
    pub(crate) connect_seconds: f64,
    /// Forwarded by the relay in the window: each round trip is two.
    pub(crate) messages: u64,
    pub(crate) messages_per_second: f64,
    pub(crate) server_cpu_us_per_message: Option<f64>,
    /// From one side's sending to the other's receiving, in microseconds.
    pub(crate) latency_us: Percentiles,
    pub(crate) usage: Usage,
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Figures for Outcome {
    fn figures(&self) -> Vec<Figure> {
        let mut figures = vec![
            ("messages_per_second", self.messages_per_second),
            ("latency_p50_us", self.latency_us.p50),
            ("latency_p99_us", self.latency_us.p99),
        ];
        figures.extend(self.server_cpu_us_per_message.map(|cpu| ("server_cpu_us_per_message", cpu)));
        figures
    }
}

/// Runs it once.
pub(crate) fn run(relay: &Relay, plan: &Plan) -> Result<Outcome> {
    let (mut net, connect_seconds) = connect_pairs(relay, plan.pairs, plan.opening)?;
    net.set_spins(!plan.sleeps);
    let mut game = Pingpong::new(net.len(), plan.bytes, plan.depth)?;
    (0..plan.pairs).for_each(|pair| game.serve(&mut net, pair, plan.depth));
    let warm = net.now() + seconds(plan.warm_up);
    net.run(&mut game, warm, |_, _| false)?;

    let window = Window::open(relay.process)?;
    let before = game.forwarded;
    game.recording = true;
    let end = net.now() + seconds(plan.seconds);
    net.run(&mut game, end, |_, _| false)?;
    let usage = window.close()?;
    let messages = game.forwarded - before;
    ensure!(messages > 0, "no message was forwarded; {:?}", game.errors);
    Ok(Outcome {
        scenario: "pingpong",
        url: relay.target.url.clone(),
        pairs: plan.pairs,
        bytes: plan.bytes,
        depth: plan.depth,
        connect_seconds: round(connect_seconds),
        messages,
        messages_per_second: (messages as f64 / usage.seconds).round(),
        server_cpu_us_per_message: usage.server_cpu_us.map(|us| round(us / messages as f64)),
        latency_us: game.latency.percentiles(),
        usage,
        errors: game.errors,
    })
}

pub(crate) fn seconds(value: f64) -> u64 {
    (value * SECOND as f64) as u64
}
