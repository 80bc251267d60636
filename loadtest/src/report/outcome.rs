//! What one run of a scenario measured, in one shape for all scenarios.

use super::latency::{Recorder, round};
use crate::scenario::measure::{Measured, Usage};
use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// One run of one scenario against one relay.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: &'static str,
    pub(crate) url: String,
    /// What was asked for.
    pub(crate) settings: BTreeMap<&'static str, Value>,
    /// What it came to. The name says the unit; this is what two relays are compared by.
    pub(crate) figures: BTreeMap<&'static str, f64>,
    /// By what was timed.
    pub(crate) latency_us: BTreeMap<&'static str, super::latency::Latency>,
    pub(crate) usage: Usage,
    /// Messages that were not forwarded, connections that were lost, and how many of each.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What is counted a second in `series`.
    pub(crate) counted: &'static str,
    pub(crate) series: Vec<Sample>,
}

/// A moment of the measured window.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Seconds since the window's beginning.
    pub(crate) at: f64,
    /// Since the sample before.
    pub(crate) per_second: f64,
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) server_cores: Option<f64>,
    pub(crate) generator_cores: f64,
}

impl Outcome {
    /// The figures that every scenario has, from its measured window.
    pub(crate) fn new(scenario: &'static str, url: &str, counted: &'static str, measured: Measured) -> Self {
        let mut figures = BTreeMap::new();
        figures.extend(measured.usage.server_cores.map(|cores| ("server_cores", cores)));
        Self {
            scenario,
            url: url.to_owned(),
            settings: BTreeMap::new(),
            figures,
            latency_us: BTreeMap::new(),
            usage: measured.usage,
            errors: BTreeMap::new(),
            counted,
            series: measured.series,
        }
    }

    #[must_use]
    pub(crate) fn setting(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.settings.insert(name, value.into());
        self
    }

    #[must_use]
    pub(crate) fn figure(mut self, name: &'static str, value: f64) -> Self {
        self.figures.insert(name, round(value));
        self
    }

    /// A figure that there is only of a relay on this machine.
    #[must_use]
    pub(crate) fn figure_if(self, name: &'static str, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.figure(name, value),
            None => self,
        }
    }

    /// A figure that has to be there.
    pub(crate) fn figure_of(&self, name: &str) -> Result<f64> {
        self.figures.get(name).copied().with_context(|| format!("{name} was not measured"))
    }

    /// The count a second, and what each cost the relay.
    #[must_use]
    pub(crate) fn throughput(self, per_second: &'static str, cost: &'static str, count: u64) -> Self {
        let (seconds, server_us) = (self.usage.seconds, self.usage.server_cpu_us);
        let cost_each = server_us.filter(|_| count > 0).map(|us| us / count as f64);
        self.figure(per_second, count as f64 / seconds).figure_if(cost, cost_each)
    }

    /// A latency, and its median and 99th percentile as figures.
    #[must_use]
    pub(crate) fn latency(mut self, name: &'static str, p50: &'static str, p99: &'static str, all: &Recorder) -> Self {
        if all.is_empty() {
            return self;
        }
        let latency = all.latency();
        self.figures.extend([(p50, latency.percentiles.p50), (p99, latency.percentiles.p99)]);
        self.latency_us.insert(name, latency);
        self
    }
}
