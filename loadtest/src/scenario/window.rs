//! A window of time, and what relay and generator used in it.

use crate::report::latency::round;
use crate::server::{Process, machine_busy_ns};
use anyhow::Result;
use serde::Serialize;
use std::time::Instant;

/// The beginning of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    process: Option<Process>,
    start: Instant,
    server_ns: u64,
    generator_ns: u64,
    machine_ns: u64,
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

impl Window {
    pub(crate) fn open(process: Option<Process>) -> Result<Self> {
        let generator_ns = own().cpu_ns()?;
        let server_ns = process.map_or(Ok(0), Process::cpu_ns)?;
        Ok(Self { process, start: Instant::now(), server_ns, generator_ns, machine_ns: machine_busy_ns()? })
    }

    pub(crate) fn close(self) -> Result<Usage> {
        let server_ns = self.process.map(Process::cpu_ns).transpose()?.map(|ns| (ns - self.server_ns) as f64);
        let seconds = self.start.elapsed().as_secs_f64();
        let generator_ns = (own().cpu_ns()? - self.generator_ns) as f64;
        let machine_ns = (machine_busy_ns()? - self.machine_ns) as f64;
        let others_ns = (machine_ns - generator_ns - server_ns.unwrap_or(0.0)).max(0.0);
        Ok(Usage {
            seconds: round(seconds),
            server_cpu_us: server_ns.map(|ns| round(ns / 1e3)),
            server_cores: server_ns.map(|ns| round(ns / 1e9 / seconds)),
            generator_cores: round(generator_ns / 1e9 / seconds),
            others_cores: round(others_ns / 1e9 / seconds),
        })
    }
}

fn own() -> Process {
    Process { pid: std::process::id() }
}
