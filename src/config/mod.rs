//! The configuration: flags, environment and a TOML file, resolved once into values that are valid.
//!
//! It must never print the admin key, and never guess where a value is wrong: it says which, and what would be right.

mod admin_key;
mod cluster;
mod credential;
mod draft;
mod error;
mod flags;
mod push;
mod secret;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod tls;
mod value;

pub use admin_key::{AdminKeyError, KeyOrigin, admin_key, admin_key_file, admin_key_kept};
pub use cluster::Cluster;
pub use error::{ConfigError, Origin};
pub use push::Push;
pub use secret::{Secret, WEAK_KEY};
pub use settings::settings_table;
pub use tls::{Listen, PairFiles, Tls};

use crate::proto::limits::Limits;
use crate::shelf::QueueBounds;
use crate::sys::machine::Machine;
use crate::sys::net::Network;
use crate::telemetry::log::LogFormat;
use draft::Draft;
use source::Sources;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// Which browser origins may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Any, and clients without one.
    Any,
    /// These, in lower case, and clients without one: they are no browsers.
    Only(Vec<String>),
}

impl Origins {
    /// No origin named, or `*` among them, is any.
    fn of(origins: Vec<String>) -> Self {
        if origins.is_empty() || origins.iter().any(|origin| origin == "*") { Self::Any } else { Self::Only(origins) }
    }
}

/// What is to move the bytes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// io_uring, and epoll where it cannot be had.
    Auto,
    /// io_uring; where it cannot be had, the relay does not start.
    Uring,
    /// epoll.
    Epoll,
}

/// Where the metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAddr {
    /// Nowhere.
    Off,
    /// There, if it is free: nobody asked for it.
    Default(SocketAddr),
    /// There, as the operator said.
    Given(SocketAddr),
}

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen, at least one. `[::]` means every interface, IPv4 too (not `IPV6_V6ONLY`); on a machine without
    /// IPv6 it stands for `0.0.0.0`.
    pub listen: Vec<Listen>,
    /// Certificates, and where HTTP is redirected.
    pub tls: Tls,
    /// Where to echo; empty: nowhere.
    pub echo_addrs: Vec<SocketAddr>,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<Network>,
    /// Proxies that begin each connection with a PROXY protocol header.
    pub proxies: Vec<Network>,
    /// Browser origins that may connect.
    pub origins: Origins,
    /// Names that the relay is reached by, besides its domains, in lower case.
    pub own_names: Vec<String>,
    /// Whether the phone in the browser is served.
    pub phone: bool,
    /// The admin key as given; `None`: see [`admin_key()`].
    pub admin_key: Option<Secret>,
    /// The store.
    pub db: PathBuf,
    /// Whether clients may register themselves.
    pub registration: bool,
    /// Registrations an hour for each client address; 0: no limit.
    pub register_per_hour: u64,
    /// Devices that a token may have, from 1 to 64.
    pub devices_max: u64,
    /// How devices are woken.
    pub push: Push,
    /// Whether and how tokens are shared with other relays.
    pub cluster: Cluster,
    /// The limits of tokens without limits of their own.
    pub limits: Limits,
    /// Whether messages are kept for receivers that are not there.
    pub mailbox: bool,
    /// The most bytes that are kept in all.
    pub mailbox_total_bytes: u64,
    /// The most that may be on its way to the mailbox's disk.
    pub mailbox_queue: QueueBounds,
    /// Pages of the mailbox that a shard reads at a time.
    pub mailbox_reads: u64,
    /// Connections in all; `None`: as many as the open-files limit allows.
    pub max_connections: Option<u64>,
    /// Connections in all that have not authenticated; 0: no limit.
    pub max_unauthenticated: u64,
    /// The same for each client address; 0: no limit.
    pub max_unauthenticated_per_address: u64,
    /// Bytes for messages in progress, for each shard; at least one largest message.
    pub memory_budget_bytes: u64,
    /// Shards, 1 to 1024.
    pub shards: u16,
    /// What is to move the bytes of connections.
    pub io: Io,
    /// From accept to authenticated.
    pub auth_timeout: Duration,
    /// Between pings.
    pub ping_interval: Duration,
    /// Silence after which a connection is closed; longer than `ping_interval`.
    pub idle_timeout: Duration,
    /// How long a connection may take nothing of what is queued for it.
    pub write_timeout: Duration,
    /// On the first signal, the time over which clients are sent away, at most `drain_deadline`; `None`: as long as
    /// so many need.
    pub drain_window: Option<Duration>,
    /// From the first signal to the end; zero: at once.
    pub drain_deadline: Duration,
    /// Where to serve the metrics.
    pub metrics: MetricsAddr,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The least severe level that is logged.
    pub log_level: LevelFilter,
    /// The file that was read, if any.
    pub config_file: Option<PathBuf>,
    /// What is allowed and seldom meant, each in words that say what to do.
    pub cautions: Vec<String>,
}

/// Resolves a command line (program name first), the environment and the file that they name, on this machine.
///
/// # Errors
/// [`ConfigError`], also for `--help` and `--version`; see [`ConfigError::exit_code`].
pub fn resolve(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    resolve_on(Machine::ask(), args, env)
}

/// The command line, for completions and the manual.
#[must_use]
pub fn command() -> clap::Command {
    flags::command()
}

/// Reads a size or a count as the flags take them.
///
/// # Errors
/// What would be right.
pub fn read_size(text: &str) -> Result<u64, String> {
    value::size(text)
}

/// Reads a count as the flags take it.
///
/// # Errors
/// What would be right.
pub fn read_count(text: &str) -> Result<u64, String> {
    value::count(text)
}

/// As [`resolve`], for a given machine.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_on(
    machine: Machine,
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    let from = &Sources::open(flags::read(args)?, &env)?;
    Draft::read(machine, from)?.resolve(machine, from)
}

impl Config {
    /// What must hold between values.
    fn check(&self) -> Result<(), ConfigError> {
        let conflict = |text: String| Err(ConfigError::Conflict(text));
        if self.idle_timeout <= self.ping_interval {
            return conflict(format!(
                "--idle-timeout ({:?}) must be longer than --ping-interval ({:?}): else a connection is closed before \
                 it could answer a ping",
                self.idle_timeout, self.ping_interval
            ));
        }
        if self.memory_budget_bytes < self.limits.message_bytes_max {
            return conflict(format!(
                "--memory-budget ({} bytes for each shard) must have room for one message of --max-message ({} bytes)",
                self.memory_budget_bytes, self.limits.message_bytes_max
            ));
        }
        if let Some(window) = self.drain_window.filter(|&window| window > self.drain_deadline) {
            return conflict(format!(
                "--drain-window ({window:?}) must not be longer than --drain-deadline ({:?}): else the relay ends before \
                 it has told all clients to go",
                self.drain_deadline
            ));
        }
        self.push.check()?;
        self.cluster.check(self.admin_key.is_some())?;
        let mut seen = Vec::new();
        let listen = self.listen.iter().map(|listen| &listen.addr);
        // The default gives way to what is there already.
        let metrics = match &self.metrics {
            MetricsAddr::Given(addr) => Some(addr),
            MetricsAddr::Default(_) | MetricsAddr::Off => None,
        };
        for addr in listen.chain(&self.echo_addrs).chain(&self.tls.http_addrs).chain(metrics) {
            if addr.port() != 0 && seen.contains(&addr) {
                return conflict(format!("--addr, --echo-addr, --http-addr and --metrics-addr: {addr} is named twice"));
            }
            seen.push(addr);
        }
        Ok(())
    }
}
