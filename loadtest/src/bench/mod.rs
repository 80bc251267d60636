//! `bench`: what a relay costs more than the least a relay can cost.
//!
//! Relay and reference run on one core, one of them working at a time, and the generator runs on another one. Rows
//! that are ratios are measured in turn, round by round, and the median of the rounds' own ratios counts: what the
//! machine does besides hits both alike.

mod mailbox;
mod table;
mod tls;

use crate::cli::BenchArgs;
use crate::launch::{Binaries, Server, pin_to};
use crate::report::compare::{Comparison, Ratio};
use crate::report::outcome::Outcome;
use crate::report::progress::Progress;
use crate::scenario::{Opening, Relay, Run, idle, pingpong, storm};
use anyhow::{Context as _, Result};

use std::time::Duration;
use table::{Bound, Row, Table};

/// Pairs of the largest scenario among the ratios.
const PAIRS_MANY: usize = 4000;
const PAIRS_FEW: usize = 100;
const PAIRS_IDLE: usize = 9000;
const PAIRS_ACTIVE: usize = 1000;
const PAIRS_TWO_SHARDS: usize = 1000;
const WARM_UP: f64 = 0.5;
/// At rest each connection is pinged in this time at least once.
const REST_SECONDS: f64 = 31.0;
const CPU: &str = "server_cpu_us_per_message";
const RSS: &str = "rss_bytes_per_connection";

/// CPU of a message: name, pairs, bytes, depth, and the most that the ratio may be.
const MESSAGES: [(&str, usize, usize, usize, f64); 9] = [
    ("CPU per message, 256 B, 100 pairs", PAIRS_FEW, 256, 1, 1.10),
    ("CPU per message, 256 B, 1,000 pairs", 1000, 256, 1, 1.10),
    ("CPU per message, 256 B, 4,000 pairs", PAIRS_MANY, 256, 1, 1.15),
    ("CPU per message, 256 B, 16 in flight, 8 pairs", 8, 256, 16, 0.50),
    ("CPU per message, 256 B, 16 in flight, 100 pairs", 100, 256, 16, 0.50),
    ("CPU per message, 4 KiB, 100 pairs", 100, 4 << 10, 1, 1.10),
    ("CPU per message, 64 KiB, 100 pairs", 100, 64 << 10, 1, 1.20),
    ("CPU per message, 1 MB, 20 pairs", 20, 1_000_000, 1, 1.20),
    ("CPU per message, 5 MB, 4 pairs", 4, 5_000_000, 1, 1.20),
];
const FEW: usize = 0;

/// Measures all rows, or those that are wanted, and prints the table.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    pin_to(args.generator_core)?;
    let binaries = Binaries { relay: args.relay.clone(), reference: args.reference.clone() };
    let mut bench = Bench { args, binaries, table: Table::begin() };
    if args.tls {
        bench.tls()?;
        return bench.table.end(args.json.as_deref());
    }
    if args.mailbox {
        bench.mailbox()?;
        return bench.table.end(args.json.as_deref());
    }
    bench.messages()?;
    bench.growth()?;
    bench.storm()?;
    bench.memory()?;
    bench.shards()?;
    bench.table.end(args.json.as_deref())
}

struct Bench<'a> {
    args: &'a BenchArgs,
    binaries: Binaries,
    table: Table,
}

impl Bench<'_> {
    fn wants(&self, name: &str) -> bool {
        self.args.only.as_ref().is_none_or(|only| name.to_lowercase().contains(&only.to_lowercase()))
    }

    /// Both on the server's core, with tokens for as many pairs as any row compares them with.
    fn relay_and_reference(&self) -> Result<[(Server, Relay); 2]> {
        let core = self.args.server_core;
        let relay = Server::relay(&self.binaries, &[core], PAIRS_MANY)?;
        Ok([relay, Server::reference(&self.binaries, core, PAIRS_MANY)?])
    }

    /// The same scenario of relay and reference in turn.
    fn in_turn(
        &self,
        relay: &Relay,
        reference: &Relay,
        scenario: impl Fn(Run<'_>) -> Result<Outcome>,
    ) -> Result<Comparison> {
        let mut rounds = Vec::new();
        for number in 1..=self.args.rounds.max(1) {
            let name = |which: &str| format!("{number}/{} {which}", self.args.rounds);
            rounds.push((one(relay, &name("relay"), &scenario)?, one(reference, &name("reference"), &scenario)?));
        }
        Ok(Comparison::new(&relay.target.url, &reference.target.url, rounds))
    }

    /// What messages cost, and how long they take.
    fn messages(&mut self) -> Result<()> {
        let latency = "p99 latency at half of saturation";
        let rows: Vec<_> = MESSAGES
            .iter()
            .enumerate()
            .filter(|(number, row)| self.wants(row.0) || (self.wants(latency) && *number == FEW))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let [(_one, relay), (_other, reference)] = self.relay_and_reference()?;
        let mut saturated = 0.0;
        for (number, &(name, pairs, bytes, depth, at_most)) in rows {
            let plan = self.plan(pairs, bytes, depth);
            let result = self.in_turn(&relay, &reference, |run| pingpong::run(run, &plan))?;
            let ratio = ratio(&result, CPU)?;
            if number == FEW {
                saturated = result.ratio["messages_per_second"].values.1;
            }
            self.table.put(Row::ratio(name, Bound::AtMost(at_most), ratio, "µs"));
        }
        if self.wants(latency) && saturated > 0.0 {
            let plan = pingpong::Plan { rate: Some(saturated / 2.0), ..self.plan(PAIRS_FEW, 256, 1) };
            let result = self.in_turn(&relay, &reference, |run| pingpong::run(run, &plan))?;
            self.table.put(Row::ratio(latency, Bound::AtMost(1.25), ratio(&result, "latency_p99_us")?, "µs"));
        }
        Ok(())
    }

    /// How many times a message costs more with many pairs than with few, for both: all four in each round.
    fn growth(&mut self) -> Result<()> {
        let name = "growth of CPU per message, 4,000 pairs to 100";
        if !self.wants(name) {
            return Ok(());
        }
        let [(_one, relay), (_other, reference)] = self.relay_and_reference()?;
        let growth_of = |which: &Relay, number: usize| {
            let cost = |pairs: usize| {
                let plan = self.plan(pairs, 256, 1);
                let name = format!("{number}/{} {} at {pairs} pairs", self.args.rounds, which.target.url);
                one(which, &name, &|run| pingpong::run(run, &plan))?.figure_of(CPU)
            };
            Ok::<_, anyhow::Error>(cost(PAIRS_MANY)? / cost(PAIRS_FEW)?)
        };
        let mut rounds = Vec::new();
        for number in 1..=self.args.rounds.max(1) {
            rounds.push((growth_of(&relay, number)?, growth_of(&reference, number)?));
        }
        self.table.put(Row::ratio(name, Bound::AtMost(1.0), &Ratio::of(&rounds), "times"));
        Ok(())
    }

    fn plan(&self, pairs: usize, bytes: usize, depth: usize) -> pingpong::Plan {
        let seconds = self.args.seconds;
        pingpong::Plan {
            pairs,
            bytes,
            depth,
            rate: None,
            seconds,
            warm_up: WARM_UP,
            single_sends: false,
            sleeps: false,
        }
    }

    fn storm(&mut self) -> Result<()> {
        let name = "connect and authenticate, per second";
        if !self.wants(name) {
            return Ok(());
        }
        let [(_one, relay), (_other, reference)] = self.relay_and_reference()?;
        let plan = storm::Plan { pairs: PAIRS_MANY, herd: 1000, seconds: 60.0, restart: None };
        let result = self.in_turn(&relay, &reference, |run| storm::run(run, &plan))?;
        self.table.put(Row::ratio(name, Bound::AtLeast(0.9), ratio(&result, "connections_per_second")?, "/s"));
        Ok(())
    }

    /// Memory and CPU of very many connections, each time in a relay that has not served any before.
    fn memory(&mut self) -> Result<()> {
        let memory = "memory of an idle connection, 9,000 pairs, bytes";
        let rest = "CPU of 9,000 idle pairs, cores";
        let active = "the same while 1,000 of the 9,000 pairs exchange 256 B messages, bytes";
        let scenario = |active: usize, seconds: f64| {
            let (_server, relay) = Server::relay(&self.binaries, &[self.args.server_core], PAIRS_IDLE)?;
            let plan = idle::Plan { pairs: PAIRS_IDLE, active, bytes: 256, seconds };
            one(&relay, "relay", &|run| idle::run(run, &plan))
        };
        if self.wants(memory) || self.wants(rest) {
            let outcome = scenario(0, REST_SECONDS)?;
            let tokens = outcome.figures.get("rss_bytes_per_connection_with_tokens").copied().unwrap_or_default();
            let note = format!("with what the tokens take: {tokens:.0}");
            self.table.put(Row::new(memory, Bound::AtMost(450.0), outcome.figure_of(RSS)?, note));
            let note = format!("over {REST_SECONDS} s, each connection pinged");
            self.table.put(Row::new(rest, Bound::AtMost(0.01), outcome.figure_of("server_cores")?, note));
        }
        if self.wants(active) {
            let outcome = scenario(PAIRS_ACTIVE, self.args.seconds.max(3.0))?;
            self.table.put(Row::new(active, Bound::AtMost(600.0), outcome.figure_of(RSS)?, String::new()));
        }
        Ok(())
    }

    /// Two shards on both cores against one. The generator shares its core with the second one, so it sleeps when it
    /// has nothing to do, for both. At a rate that two can keep up with that way, both do the same work. With so many in
    /// flight instead each does what it can, and two are kept less busy by what is left of the generator's core: each
    /// gathers fewer messages in a turn, which costs more than there being two.
    fn shards(&mut self) -> Result<()> {
        let paced = "CPU per message, two shards on two cores against one, at the same rate";
        let mut rows = vec![
            ("CPU per message, two shards on two cores against one, one in flight", 1),
            ("CPU per message, two shards on two cores against one, 4 in flight", 4),
        ];
        rows.retain(|&(name, depth)| self.wants(name) || (self.wants(paced) && depth == 1));
        if rows.is_empty() {
            return Ok(());
        }
        let both = [self.args.server_core, self.args.generator_core];
        let (_one, two) = Server::relay(&self.binaries, &both, PAIRS_TWO_SHARDS)?;
        let (_other, single) = Server::relay(&self.binaries, &both[..1], PAIRS_TWO_SHARDS)?;
        for (name, depth) in rows {
            let plan = pingpong::Plan { sleeps: true, ..self.plan(PAIRS_TWO_SHARDS, 256, depth) };
            let result = self.in_turn(&two, &single, |run| pingpong::run(run, &plan))?;
            self.table.put(Row::ratio(name, Bound::AtMost(1.10), ratio(&result, CPU)?, "µs"));
            if depth == 1 && self.wants(paced) {
                let rate = result.ratio["messages_per_second"].values.0 / 2.0;
                let plan = pingpong::Plan { rate: Some(rate), ..plan };
                let result = self.in_turn(&two, &single, |run| pingpong::run(run, &plan))?;
                self.table.put(Row::ratio(paced, Bound::AtMost(1.10), ratio(&result, CPU)?, "µs"));
            }
        }
        Ok(())
    }
}

fn one(relay: &Relay, name: &str, scenario: &impl Fn(Run<'_>) -> Result<Outcome>) -> Result<Outcome> {
    let progress = Progress::new(name);
    let opening = Opening { concurrency: 64, ramp_up: Duration::ZERO };
    let outcome = scenario(Run { relay, opening, progress: &progress });
    progress.end();
    outcome
}

fn ratio<'a>(result: &'a Comparison, name: &str) -> Result<&'a Ratio> {
    result.ratio.get(name).with_context(|| format!("{name} was not measured"))
}
