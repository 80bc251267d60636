//! `slow`: agents stream to all phones, and a share of the phones hardly reads.
//!
//! What the others notice of it, what the relay keeps for the slow ones, and whether it gives them up in the end.

use super::Run;
use super::connect::{add_pairs, open_all};
use super::measure::{Load, measure, warm_up};
use super::pace::Pace;
use crate::generator::envelope::describe;
use crate::generator::{Handler, Id, Net, SECOND, Template};
use crate::report::latency::Recorder;
use crate::report::outcome::Outcome;
use crate::server::Process;
use anyhow::{Result, ensure};
use std::collections::{BTreeMap, VecDeque};

/// Of a slow phone, in bytes: what it does not read then waits at the relay and not in its own kernel.
const RECEIVE_BUFFER: usize = 4096;
/// How often a slow phone reads.
const SLOW_READ_INTERVAL: u64 = SECOND / 4;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) pairs: usize,
    /// The share of phones that are slow, 0 to 1.
    pub(crate) share: f64,
    /// What a slow phone reads a second.
    pub(crate) slow_bytes: usize,
    /// Messages a second to each phone, and their size.
    pub(crate) rate: f64,
    pub(crate) bytes: usize,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
}

impl Plan {
    /// The first so many pairs have slow phones.
    fn slow_pairs(&self) -> usize {
        (self.pairs as f64 * self.share.clamp(0.0, 1.0)).ceil() as usize
    }
}

struct Streams {
    plan: Plan,
    piece: Template,
    pace: Pace,
    next_slow_read: u64,
    /// Of each pair with a fast phone: when what is on its way was due.
    sent: Vec<VecDeque<u64>>,
    closed: Vec<bool>,
    slow_closed: u64,
    /// Messages that an agent could not send, because the relay had stopped reading from it.
    held_back: u64,
    recording: bool,
    received: u64,
    latency: Recorder,
    errors: BTreeMap<String, u64>,
}

impl Streams {
    fn is_slow(&self, id: Id) -> bool {
        id / 2 < self.plan.slow_pairs()
    }
}

impl Handler for Streams {
    fn handle_message(&mut self, _net: &mut Net, id: Id, bytes: u64, head: &[u8], now: u64) {
        if self.piece.matches(bytes, head) {
            self.received += 1;
            if let Some(due) = self.sent[id / 2].pop_front()
                && self.recording
                && !self.is_slow(id)
            {
                self.latency.record(now.saturating_sub(due));
            }
            return;
        }
        let kind = describe(head);
        // Where a slow phone has been given up, its agent is told so.
        if kind != "status" && !(kind == "PEER_OFFLINE" && self.is_slow(id)) {
            *self.errors.entry(kind).or_default() += 1;
        }
    }

    fn handle_closed(&mut self, _net: &mut Net, id: Id, why: String) {
        self.closed[id / 2] = true;
        if self.is_slow(id) {
            self.slow_closed += 1;
        } else {
            *self.errors.entry(why).or_default() += 1;
        }
    }

    fn handle_time(&mut self, net: &mut Net, now: u64) -> u64 {
        while let Some((number, due)) = self.pace.take(now) {
            let pair = (number % self.plan.pairs as u64) as usize;
            let agent = pair * 2 + 1;
            if self.closed[pair] {
                continue;
            }
            if self.is_slow(agent) && !net.is_drained(agent) {
                self.held_back += 1;
                continue;
            }
            self.sent[pair].push_back(due);
            net.send(agent, &self.piece, 1);
        }
        if now >= self.next_slow_read {
            self.next_slow_read = now + SLOW_READ_INTERVAL;
            let bytes = (self.plan.slow_bytes as u64 * SLOW_READ_INTERVAL / SECOND).max(1) as usize;
            for pair in 0..self.plan.slow_pairs() {
                net.read_some(self, pair * 2, bytes);
            }
        }
        self.pace.next().min(self.next_slow_read)
    }
}

impl Load for Streams {
    fn count(&self) -> u64 {
        self.received
    }

    fn set_recording(&mut self, recording: bool) {
        self.recording = recording;
    }
}

/// Runs it once.
pub(crate) fn run(run: Run<'_>, plan: &Plan) -> Result<Outcome> {
    ensure!(plan.pairs > 0, "this takes at least one pair");
    let slow = plan.slow_pairs();
    let mut net = Net::new(run.relay.target.clone(), plan.pairs * 2)?;
    add_pairs(&mut net, run.relay, plan.pairs);
    (0..slow).for_each(|pair| net.set_receive_buffer(pair * 2, RECEIVE_BUFFER));
    open_all(run, &mut net)?;
    (0..slow).for_each(|pair| net.pause(pair * 2));
    let rss_before = run.relay.process.map(Process::rss).transpose()?;
    let mut streams = Streams {
        plan: *plan,
        piece: Template::envelope("chat.stream", plan.bytes, 1)?,
        pace: Pace::new(net.now(), plan.rate * plan.pairs as f64),
        next_slow_read: 0,
        sent: vec![VecDeque::new(); plan.pairs],
        closed: vec![false; plan.pairs],
        slow_closed: 0,
        held_back: 0,
        recording: false,
        received: 0,
        latency: Recorder::default(),
        errors: BTreeMap::new(),
    };
    warm_up(run, &mut net, &mut streams, plan.warm_up)?;
    let measured = measure(run, &mut net, &mut streams, plan.seconds, |_, _| false)?;
    let messages = measured.count;
    let rss_most = measured.series.iter().filter_map(|sample| sample.rss_bytes).max();
    let growth = rss_most.zip(rss_before).map(|(most, before)| most.saturating_sub(before) as f64);
    let mut outcome = Outcome::new("slow", &run.relay.target.url, "messages", measured)
        .setting("pairs", plan.pairs)
        .setting("slow_phones", slow)
        .setting("slow_bytes", plan.slow_bytes)
        .setting("rate", plan.rate)
        .setting("bytes", plan.bytes)
        .throughput("messages_per_second", "server_cpu_us_per_message", messages)
        .figure("slow_phones_closed", streams.slow_closed as f64)
        .figure("held_back_messages", streams.held_back as f64)
        .figure_if("rss_growth_bytes_per_slow_phone", growth.filter(|_| slow > 0).map(|bytes| bytes / slow as f64))
        .latency("to phones that read", "latency_p50_us", "latency_p99_us", &streams.latency);
    outcome.errors = streams.errors;
    Ok(outcome)
}
