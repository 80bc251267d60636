//! The configuration: flags, environment and a TOML file, resolved once into values that are valid.
//!
//! It must never print the admin key, and never guess where a value is wrong: it says which, and what would be right.

mod admin_key;
mod credential;
mod error;
mod flags;
mod secret;
mod source;
#[cfg(test)]
mod tests;
mod tls;
mod value;

pub use admin_key::{AdminKeyError, KeyOrigin, admin_key, admin_key_file, admin_key_kept};
pub use error::{ConfigError, Origin};
pub use secret::Secret;
pub use tls::{Listen, PairFiles, Tls};
pub use value::COUNT_MAX;

use crate::proto::limits::Limits;
use crate::sys::machine::Machine;
use crate::sys::net::Network;
use crate::telemetry::log::LogFormat;
use flags::Flags;
use source::Sources;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// The largest message that can be allowed: one takes that much memory while it is under way.
pub const MESSAGE_BYTES_HARD_MAX: u64 = 64 << 20;

/// The smallest that makes sense: control messages must pass.
const MESSAGE_BYTES_MIN: u64 = 1024;

/// Connections in all that have not authenticated. Each costs a descriptor and at most some 36 KiB (request head and body, or
/// first message, and a piece of an answer), so this is 288 MiB at worst; and with 10 s to authenticate it admits 800
/// newcomers a second even where all of them dawdle, which a crowd that comes back after a restart does not.
const UNAUTHENTICATED_MAX: u64 = 8192;

/// The same for each client address: homes and offices share one, and none has that many newcomers at once.
const UNAUTHENTICATED_PER_ADDRESS_MAX: u64 = 64;

/// The least memory for messages under way that a shard gets by default.
const MEMORY_BUDGET_MIN: u64 = 64 << 20;

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

    /// Whether a client with this `Origin` header may connect.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(origins) => origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
        }
    }
}

/// Where the metrics are served when nobody says: the port that exporters use by custom, seen by this machine alone.
const METRICS_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

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
    /// Names that the relay is reached by, beside those of [`Acme::domains`], in lower case.
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
    /// The limits of tokens without limits of their own.
    pub limits: Limits,
    /// Connections in all; `None`: as many as the open-files limit allows.
    pub max_connections: Option<u64>,
    /// Connections in all that have not authenticated; 0: no limit.
    pub max_unauthenticated: u64,
    /// The same for each client address; 0: no limit.
    pub max_unauthenticated_per_address: u64,
    /// Bytes for messages under way, for each shard; at least one largest message.
    pub memory_budget_bytes: u64,
    /// Shards, 1 to 1024.
    pub shards: u16,
    /// From accept to authenticated.
    pub auth_timeout: Duration,
    /// Between pings.
    pub ping_interval: Duration,
    /// Silence after which a connection is given up; longer than `ping_interval`.
    pub idle_timeout: Duration,
    /// How long a connection may take nothing of what waits for it.
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
    /// The least that is logged.
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
    <Flags as clap::CommandFactory>::command()
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

/// The names of all flags that take a value, without dashes.
#[must_use]
pub fn flag_names() -> Vec<String> {
    Flags::names()
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
    let flags = &Flags::read(args)?;
    let from = &Sources::open(&flags.config, &env)?;
    let seconds = Duration::from_secs;
    let limits = read_limits(from, flags)?;
    let shards = from.one("shards", &flags.shards, machine.cores, value::shards)?;
    let memory_budget =
        (machine.memory_bytes / 4 / u64::from(shards)).max(MEMORY_BUDGET_MIN).max(limits.message_bytes_max);
    let max_connections = from.one("max-connections", &flags.max_connections, 0, value::count)?;
    let per_address = &flags.max_unauthenticated_per_address;
    let db = from.one("db", &flags.db, PathBuf::from("relay.db"), value::store_path)?;
    let tls = Tls::read(from, flags, &db)?;
    let (listen, mut cautions) = tls::read_listen(from, flags, &tls)?;
    cautions.extend(from.open_secrets(&["admin-key", "acme-eab-key"]));
    let config = Config {
        listen,
        cautions,
        tls,
        echo_addrs: from.one("echo-addr", &flags.echo_addr, Vec::new(), value::listen)?,
        proxies: from.many("proxy-protocol", &flags.proxy_protocol, value::network)?,
        trusted_proxies: from.many("trusted-proxy", &flags.trusted_proxy, value::network)?,
        origins: Origins::of(from.many("allow-origin", &flags.allow_origin, value::origin)?),
        admin_key: match read_admin_key(from, flags)? {
            Some(key) => Some(key),
            None => credential::admin_key(&env)?,
        },
        own_names: from.many("own-name", &flags.own_name, tls::domain)?,
        phone: from.one("phone", &flags.phone, true, value::switch)?,
        db,
        registration: from.one("registration", &flags.registration, true, value::switch)?,
        register_per_hour: from.one("register-rate", &flags.register_rate, 5, value::count)?,
        limits,
        max_connections: Some(max_connections).filter(|&max| max != 0),
        max_unauthenticated: {
            from.one("max-unauthenticated", &flags.max_unauthenticated, UNAUTHENTICATED_MAX, value::count)?
        },
        max_unauthenticated_per_address: {
            from.one("max-unauthenticated-per-address", per_address, UNAUTHENTICATED_PER_ADDRESS_MAX, value::count)?
        },
        memory_budget_bytes: from.one("memory-budget", &flags.memory_budget, memory_budget, value::size)?,
        shards,
        auth_timeout: from.one("auth-timeout", &flags.auth_timeout, seconds(10), value::duration)?,
        ping_interval: from.one("ping-interval", &flags.ping_interval, seconds(30), value::duration)?,
        idle_timeout: from.one("idle-timeout", &flags.idle_timeout, seconds(60), value::duration)?,
        write_timeout: from.one("write-timeout", &flags.write_timeout, seconds(30), value::duration)?,
        drain_window: from
            .one("drain-window", &flags.drain_window, None, |text| value::duration_or_none(text).map(Some))?,
        drain_deadline: from.one("drain-deadline", &flags.drain_deadline, seconds(30), value::duration_or_none)?,
        metrics: read_metrics_addr(from, flags)?,
        log_format: from.one("log-format", &flags.log_format, LogFormat::Auto, value::log_format)?,
        log_level: from.one("log-level", &flags.log_level, LevelFilter::INFO, value::log_level)?,
        config_file: from.file().map(PathBuf::from),
    };
    config.check()?;
    Ok(config)
}

fn read_limits(from: &Sources<'_>, flags: &Flags) -> Result<Limits, ConfigError> {
    let default = Limits::default();
    let (day, month) = (default.daily_quota_bytes, default.monthly_quota_bytes);
    Ok(Limits {
        message_bytes_max: {
            from.one("max-message", &flags.max_message, default.message_bytes_max, read_max_message)?
        },
        phone_per_minute: from.one("phone-rate", &flags.phone_rate, default.phone_per_minute, value::count)?,
        agent_per_minute: from.one("agent-rate", &flags.agent_rate, default.agent_per_minute, value::count)?,
        stream_per_second: from.one("stream-rate", &flags.stream_rate, default.stream_per_second, value::count)?,
        daily_quota_bytes: from.one("daily-quota", &flags.daily_quota, day, value::size)?,
        monthly_quota_bytes: from.one("monthly-quota", &flags.monthly_quota, month, value::size)?,
    })
}

fn read_metrics_addr(from: &Sources<'_>, flags: &Flags) -> Result<MetricsAddr, ConfigError> {
    let unsaid = MetricsAddr::Default(METRICS_ADDR);
    from.one("metrics-addr", &flags.metrics_addr, unsaid, |text| {
        value::metrics_addr(text).map(|addr| addr.map_or(MetricsAddr::Off, MetricsAddr::Given))
    })
}

/// 0 means the hard bound.
fn read_max_message(text: &str) -> Result<u64, String> {
    let right = || "a size from 1KiB to 64MiB, such as 5MiB; 0 means 64MiB".to_owned();
    match value::size(text).map_err(|_| right())? {
        0 => Ok(MESSAGE_BYTES_HARD_MAX),
        bytes if (MESSAGE_BYTES_MIN..=MESSAGE_BYTES_HARD_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(right()),
    }
}

fn read_admin_key(from: &Sources<'_>, flags: &Flags) -> Result<Option<Secret>, ConfigError> {
    let Some(given) = from.given("admin-key", flags.admin_key.as_slice()) else { return Ok(None) };
    let origin = given.origin;
    match given.texts.as_slice() {
        [key] => Secret::new(key).map(Some).map_err(|problem| ConfigError::Secret { origin, problem }),
        _ => Err(ConfigError::Secret { origin, problem: "there is one admin key; give one text" }),
    }
}

impl Config {
    /// What must hold between values.
    fn check(&self) -> Result<(), ConfigError> {
        let conflict = |text: String| Err(ConfigError::Conflict(text));
        if self.idle_timeout <= self.ping_interval {
            return conflict(format!(
                "--idle-timeout ({:?}) must be longer than --ping-interval ({:?}): else a connection is given up before \
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
