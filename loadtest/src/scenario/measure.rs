//! The measured window of a scenario: what relay and generator used in it, and how it went over time.

use super::{Run, nanoseconds};
use crate::generator::{Handler, Net, SECOND};
use crate::report::latency::round;
use crate::report::outcome::Sample;
use crate::report::plot::short;
use crate::report::progress::steps;
use crate::server::{Process, machine_busy_ns};
use anyhow::Result;
use serde::Serialize;
use std::time::Duration;

/// How often a window is looked at, at most.
const SAMPLE: f64 = 0.5;
/// Samples in a window that is short, at least.
const SAMPLES_MIN: f64 = 8.0;

/// A handler whose work is counted.
pub(crate) trait Load: Handler {
    /// How much has been done, in what the scenario counts.
    fn count(&self) -> u64;
    /// From now on latencies are wanted, or no more.
    fn set_recording(&mut self, recording: bool);
}

/// What a window showed.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) usage: Usage,
    /// What was done in it.
    pub(crate) count: u64,
    pub(crate) series: Vec<Sample>,
}

/// CPU time in a window.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Usage {
    pub(crate) seconds: f64,
    /// Of the relay, all threads, in microseconds; none for a relay that is not on this machine.
    pub(crate) server_cpu_us: Option<f64>,
    /// The share of one core that the relay used: near 1 it was saturated.
    pub(crate) server_cores: Option<f64>,
    /// The share of one core that the generator used. Where it sleeps and is near 1, it was the bottleneck.
    pub(crate) generator_cores: f64,
    /// Cores that were used by others or given to other virtual machines: much above 0 nothing here can be relied on.
    pub(crate) others_cores: f64,
}

/// CPU times at one moment, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    at: u64,
    server: Option<u64>,
    generator: u64,
    machine: u64,
}

impl Clocks {
    fn read(net: &Net, process: Option<Process>) -> Result<Self> {
        let own = Process::from(std::process::id());
        let server = process.map(Process::cpu_ns).transpose()?;
        Ok(Self { at: net.now(), server, generator: own.cpu_ns()?, machine: machine_busy_ns()? })
    }

    fn since(&self, before: &Self) -> Usage {
        let passed = self.at.saturating_sub(before.at).max(1) as f64;
        let server = self.server.zip(before.server).map(|(now, then)| now.saturating_sub(then) as f64);
        let generator = (self.generator - before.generator) as f64;
        let machine = self.machine.saturating_sub(before.machine) as f64;
        Usage {
            seconds: round(passed / SECOND as f64),
            server_cpu_us: server.map(|ns| round(ns / 1e3)),
            server_cores: server.map(|ns| round(ns / passed)),
            generator_cores: round(generator / passed),
            others_cores: round((machine - generator - server.unwrap_or(0.0)).max(0.0) / passed),
        }
    }
}

/// Runs the load for `seconds` without measuring anything.
pub(crate) fn warm_up<L: Load>(run: Run<'_>, net: &mut Net, load: &mut L, seconds: f64) -> Result<()> {
    run.progress.begin("warms up", 1);
    let end = net.now() + nanoseconds(seconds);
    net.run(load, end, |_, _| false)
}

/// Runs the load for `seconds`, or until it says that it is `done`, and measures.
pub(crate) fn measure<L: Load>(
    run: Run<'_>,
    net: &mut Net,
    load: &mut L,
    seconds: f64,
    mut done: impl FnMut(&Net, &L) -> bool,
) -> Result<Measured> {
    let process = run.relay.process;
    let step = nanoseconds(SAMPLE.min(seconds / SAMPLES_MIN));
    run.progress.begin("measures", steps(Duration::from_secs_f64(seconds)));
    load.set_recording(true);
    let (begin, counted) = (Clocks::read(net, process)?, load.count());
    let end = begin.at + nanoseconds(seconds);
    let (mut last, mut last_count, mut series, mut over) = (begin, counted, Vec::new(), false);
    while last.at < end && !over {
        // No sample is so short that what it shows is chance.
        let until = if last.at + step * 3 / 2 < end { last.at + step } else { end };
        net.run(load, until, |net, load| {
            over = done(net, load);
            over
        })?;
        let (now, count) = (Clocks::read(net, process)?, load.count());
        let usage = now.since(&last);
        let per_second = (count - last_count) as f64 / ((now.at - last.at).max(1) as f64 / SECOND as f64);
        series.push(Sample {
            at: round((now.at - begin.at) as f64 / SECOND as f64),
            per_second: per_second.round(),
            rss_bytes: process.map(Process::rss).transpose()?,
            server_cores: usage.server_cores,
            generator_cores: usage.generator_cores,
        });
        run.progress.show(steps(Duration::from_nanos(now.at - begin.at)), format!("{}/s", short(per_second)));
        (last, last_count) = (now, count);
    }
    load.set_recording(false);
    run.progress.end();
    Ok(Measured { usage: last.since(&begin), count: last_count - counted, series })
}
