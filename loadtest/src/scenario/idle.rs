//! `idle`: density. What a connection costs that does nothing, or next to others that do something.

use super::Run;
use super::connect::{add_pairs, connect_pairs, open_all};
use super::hold::Holders;
use super::measure::{Load as _, measure, warm_up};
use super::traffic::Pingpong;
use crate::generator::{Net, SECOND, Template};
use crate::report::outcome::Outcome;
use crate::server::{Memory, kernel_slab};
use anyhow::Result;
use std::time::Duration;

/// Pairs that are connected and gone before memory is first read, so that code and first allocations do not count.
const FIRST_PAIRS: usize = 8;
const SETTLING: Duration = Duration::from_millis(300);
/// In which what connecting left to do is done.
const AFTER_CONNECTING: f64 = 1.0;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) pairs: usize,
    /// How many of them exchange messages.
    pub(crate) active: usize,
    pub(crate) bytes: usize,
    pub(crate) seconds: f64,
}

/// Runs it once. Growth of memory is only what a relay shows that has not served as many connections before.
pub(crate) fn run(run: Run<'_>, plan: &Plan) -> Result<Outcome> {
    let relay = run.relay;
    drop(connect_pairs(run, plan.pairs.min(FIRST_PAIRS))?);
    std::thread::sleep(SETTLING);
    // What this process has no descriptors for, others hold.
    let own_pairs = plan.pairs.min(Net::capacity() / 2);
    let mut net = Net::new(relay.target.clone(), own_pairs * 2)?;
    add_pairs(&mut net, relay, own_pairs);
    let memory = || relay.process.map(|process| process.memory()).transpose();
    let (before, slab_before) = (memory()?, kernel_slab()?);
    let begun = net.now();
    open_all(run, &mut net)?;
    let holders = Holders::start(run, own_pairs..plan.pairs)?;
    let connect_seconds = (net.now() - begun) as f64 / SECOND as f64;
    let template = |kind| Template::envelope(kind, plan.bytes, 1);
    let active = plan.active.min(own_pairs);
    let mut game = Pingpong::new(template("chat.send")?, template("chat.done")?, net.len(), 0..active);
    game.start(&mut net, 1);
    warm_up(run, &mut net, &mut game, AFTER_CONNECTING)?;
    let slab = kernel_slab()? as f64 - slab_before as f64;
    let first = memory()?;
    let measured = measure(run, &mut net, &mut game, plan.seconds, |_, _| false)?;
    let after = [first, memory()?].into_iter().flatten().max_by_key(|memory| memory.rss);

    let connections = (plan.pairs * 2) as f64;
    let growth = |of: fn(&Memory) -> u64, since: Option<Memory>| {
        let (after, before) = (after.as_ref().map(of)?, since.as_ref().map(of)?);
        Some((after as f64 - before as f64) / connections)
    };
    let mut outcome = Outcome::new("idle", &relay.target.url, "messages", measured)
        .setting("pairs", plan.pairs)
        .setting("active_pairs", active)
        .setting("generator_processes", 1 + holders.processes())
        .setting("bytes", plan.bytes)
        .figure("connect_seconds", connect_seconds)
        // Both ends of each connection, where the relay is on this machine; and whatever else the machine did.
        .figure("kernel_slab_bytes_per_connection", slab / connections)
        .figure_if("rss_bytes_per_connection", growth(|memory| memory.rss, before))
        .figure_if("private_bytes_per_connection", growth(|memory| memory.private, before))
        .figure_if("anonymous_bytes_per_connection", growth(|memory| memory.anonymous, before))
        // What it took for the tokens of this test counts as well here.
        .figure_if("rss_bytes_per_connection_with_tokens", growth(|memory| memory.rss, relay.memory_at_start));
    if active > 0 {
        let count = game.count();
        outcome = outcome.figure("messages", count as f64);
    }
    outcome.errors = game.errors;
    holders.end()?;
    Ok(outcome)
}
