//! The command line.

use crate::scenario::{Opening, idle, pingpong};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Load test and capacity planning for relays that speak the CoralMux wire contract.
#[derive(Debug, Parser)]
#[command(name = "coralmux-loadtest", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Saturation: each pair keeps messages in flight, to and fro
    Pingpong(PingpongArgs),
    /// Density: what connections cost that do nothing
    Idle(IdleArgs),
    /// Be a relay that does the least a relay can do, on 127.0.0.1, to measure others against
    Reference {
        /// Where to listen
        port: u16,
    },
}

/// Which relay, and how the result is shown.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The relay
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080/ws")]
    pub(crate) url: String,
    /// The relay's process [default: found by its port, where it is on this machine]
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
    /// Another relay, tested in turn with the first
    #[arg(long, value_name = "URL")]
    pub(crate) compare: Option<String>,
    /// The other relay's process
    #[arg(long, value_name = "PID", requires = "compare")]
    pub(crate) compare_pid: Option<u32>,
    /// How often the two are tested in turn
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Key with which tokens are made
    #[arg(long, value_name = "KEY", env = "RELAY_ADMIN_KEY", hide_env_values = true, default_value = "loadtest")]
    pub(crate) admin_key: String,
    /// Tokens, one a line, instead of new ones
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    /// Connections that are opened at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    pub(crate) concurrency: usize,
    /// Where the result goes [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PingpongArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Pairs of phone and agent
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub(crate) pairs: usize,
    /// Size of each message
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub(crate) bytes: usize,
    /// Messages in flight for each pair
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) depth: usize,
    /// Length of the measured window
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Time before it under the same load
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub(crate) warm_up: f64,
    /// Sleep while there is nothing to do; otherwise the generator takes all of its core, and the relay does not pay
    /// for waking it
    #[arg(long)]
    pub(crate) sleep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Pairs of phone and agent
    #[arg(long, value_name = "COUNT", default_value_t = 4000)]
    pub(crate) pairs: usize,
    /// How many of them exchange messages all the time
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) active: usize,
    /// Size of their messages
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub(crate) bytes: usize,
    /// Length of the measured rest
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub(crate) seconds: f64,
}

impl Common {
    pub(crate) fn opening(&self) -> Opening {
        Opening { concurrency: self.concurrency.max(1) }
    }
}

impl PingpongArgs {
    pub(crate) fn plan(&self) -> pingpong::Plan {
        let Self { pairs, bytes, depth, seconds, warm_up, sleep: sleeps, ref common } = *self;
        pingpong::Plan { pairs, bytes, depth: depth.max(1), seconds, warm_up, sleeps, opening: common.opening() }
    }
}

impl IdleArgs {
    pub(crate) fn plan(&self) -> idle::Plan {
        let Self { pairs, active, bytes, seconds, ref common } = *self;
        idle::Plan { pairs, active, bytes, seconds, opening: common.opening() }
    }
}
