//! `idle`: density. What a connection costs that does nothing, or next to others that do something.

use super::connect::{connect_pairs, open_all};
use super::pingpong::seconds;
use super::traffic::Pingpong;
use super::window::{Usage, Window};
use super::{Opening, Relay};
use crate::generator::{Net, Role, SECOND};
use crate::report::compare::{Figure, Figures};
use crate::report::latency::round;
use crate::server::{Memory, kernel_slab};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;

/// Pairs that are connected and gone before memory is first read, so that code and first allocations do not count.
const FIRST_PAIRS: usize = 8;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) pairs: usize,
    /// How many of them exchange messages.
    pub(crate) active: usize,
    pub(crate) bytes: usize,
    pub(crate) seconds: f64,
    pub(crate) opening: Opening,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: &'static str,
    pub(crate) url: String,
    pub(crate) connections: usize,
    pub(crate) active_pairs: usize,
    pub(crate) connect_seconds: f64,
    /// Growth of the relay's memory for each connection, in bytes; the most that was seen.
    pub(crate) per_connection: Option<PerConnection>,
    /// The same, with the memory that the relay took for the tokens of this test when they were made.
    pub(crate) per_connection_with_tokens: Option<PerConnection>,
    /// Growth of the kernel's slab caches for each connection, in bytes: both ends of it, where the relay is on this
    /// machine. What else the machine does is in it too.
    pub(crate) slab_per_connection: f64,
    pub(crate) memory_before: Option<Memory>,
    pub(crate) memory_after: Option<Memory>,
    pub(crate) messages: u64,
    pub(crate) usage: Usage,
    pub(crate) errors: BTreeMap<String, u64>,
}

/// Bytes for each connection.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PerConnection {
    pub(crate) rss: f64,
    pub(crate) private: f64,
    pub(crate) anonymous: f64,
}

impl PerConnection {
    fn growth(after: Memory, before: Memory, connections: usize) -> Self {
        let each = |after: u64, before: u64| round((after as f64 - before as f64) / connections as f64);
        Self {
            rss: each(after.rss, before.rss),
            private: each(after.private, before.private),
            anonymous: each(after.anonymous, before.anonymous),
        }
    }
}

impl Figures for Outcome {
    fn figures(&self) -> Vec<Figure> {
        let mut figures = vec![("slab_bytes_per_connection", self.slab_per_connection)];
        figures.extend(self.per_connection.map(|each| ("rss_bytes_per_connection", each.rss)));
        figures.extend(self.usage.server_cores.map(|cores| ("server_cores", cores)));
        figures
    }
}

/// Runs it once. Growth is only what a relay shows that has not served as many connections before.
pub(crate) fn run(relay: &Relay, plan: &Plan) -> Result<Outcome> {
    drop(connect_pairs(relay, plan.pairs.min(FIRST_PAIRS), plan.opening)?);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut net = Net::new(relay.target.clone(), plan.pairs * 2)?;
    for token in &relay.tokens[..plan.pairs] {
        net.add(token, Role::Phone);
        net.add(token, Role::Agent);
    }
    let memory = |relay: &Relay| relay.process.map(|process| process.memory()).transpose();
    let (memory_before, slab_before) = (memory(relay)?, kernel_slab()?);
    let connect_seconds = open_all(&mut net, plan.opening)?;
    let mut game = Pingpong::new(net.len(), plan.bytes, 1)?;
    (0..plan.active.min(plan.pairs)).for_each(|pair| game.serve(&mut net, pair, 1));

    // A second in which what connecting left to do is done.
    let settled = net.now() + SECOND;
    net.run(&mut game, settled, |_, _| false)?;
    let slab = kernel_slab()? as f64 - slab_before as f64;
    let (window, before) = (Window::open(relay.process)?, game.forwarded);
    let end = net.now() + seconds(plan.seconds);
    let mut memory_after = memory(relay)?;
    while net.now() < end {
        let until = (net.now() + SECOND).min(end);
        net.run(&mut game, until, |_, _| false)?;
        let now = memory(relay)?;
        memory_after = now.max_by_rss(memory_after);
    }
    let usage = window.close()?;
    let growth = |after: Option<Memory>, before| after.zip(before).map(|(a, b)| PerConnection::growth(a, b, net.len()));
    Ok(Outcome {
        scenario: "idle",
        url: relay.target.url.clone(),
        connections: net.len(),
        active_pairs: plan.active,
        connect_seconds: round(connect_seconds),
        per_connection: growth(memory_after, memory_before),
        per_connection_with_tokens: growth(memory_after, relay.memory_at_start),
        slab_per_connection: round(slab / net.len() as f64),
        memory_before,
        memory_after,
        messages: game.forwarded - before,
        usage,
        errors: game.errors,
    })
}

trait MaxByRss {
    fn max_by_rss(self, other: Self) -> Self;
}

impl MaxByRss for Option<Memory> {
    fn max_by_rss(self, other: Self) -> Self {
        [self, other].into_iter().flatten().max_by_key(|memory| memory.rss)
    }
}
