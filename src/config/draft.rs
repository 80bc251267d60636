//! The configuration while it is read: first each setting alone, then what follows from all of them together.

use super::error::ConfigError;
use super::source::Sources;
use super::{Cluster, Config, Io, MetricsAddr, Origins, Push, Tls, credential, settings, tls};
use crate::proto::limits::Limits;
use crate::shelf::QueueBounds;
use crate::sys::machine::Machine;
use crate::telemetry::log::LogFormat;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// The least memory for messages in progress that a shard gets by default.
pub(super) const MEMORY_BUDGET_MIN: u64 = 64 << 20;

/// The usual port of exporters, reachable from this machine only.
const METRICS_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// The settings as they are given, each valid on its own.
pub(super) struct Draft {
    /// Those that are final as they are given.
    pub(super) config: Config,
    /// What becomes [`Config::tls`].
    pub(super) tls: tls::Draft,
    /// What becomes [`Config::origins`]; `*` is any.
    pub(super) origins: Vec<String>,
    /// [`Config::memory_budget_bytes`], unless it follows from the machine.
    pub(super) memory_budget_bytes: Option<u64>,
}

impl Draft {
    /// Reads all settings.
    pub(super) fn read(machine: Machine, from: &Sources<'_>) -> Result<Self, ConfigError> {
        let config = blank(machine);
        let mut draft = Self { config, tls: tls::Draft::default(), origins: Vec::new(), memory_budget_bytes: None };
        settings::all().try_for_each(|setting| from.read(setting, &mut draft))?;
        Ok(draft)
    }

    /// The configuration that follows.
    pub(super) fn resolve(self, machine: Machine, from: &Sources<'_>) -> Result<Config, ConfigError> {
        let mut config = self.config;
        config.tls = self.tls.resolve(from, &config.db)?;
        config.cautions = tls::add_defaults(&mut config.listen, &config.tls)?;
        config.cautions.extend(from.open_secret());
        config.origins = Origins::of(self.origins);
        if config.admin_key.is_none() {
            config.admin_key = credential::admin_key(from.environment)?;
        }
        if config.push.hook_secret.is_none() {
            config.push.hook_secret = credential::push_hook_secret(from.environment)?;
        }
        let share = machine.memory_bytes / 4 / u64::from(config.shards);
        let standard = share.max(MEMORY_BUDGET_MIN).max(config.limits.message_bytes_max);
        config.memory_budget_bytes = self.memory_budget_bytes.unwrap_or(standard);
        config.config_file = from.file().map(PathBuf::from);
        config.check()?;
        Ok(config)
    }
}

/// What the settings are read into. A field whose default is only described has it here; the others are blank, because
/// their defaults are read like any value.
fn blank(machine: Machine) -> Config {
    Config {
        listen: Vec::new(),
        tls: Tls::default(),
        echo_addrs: Vec::new(),
        trusted_proxies: Vec::new(),
        proxies: Vec::new(),
        origins: Origins::Any,
        own_names: Vec::new(),
        phone: false,
        admin_key: None,
        db: PathBuf::new(),
        registration: false,
        register_per_hour: 0,
        devices_max: 0,
        push: Push::default(),
        cluster: Cluster::default(),
        limits: Limits::default(),
        mailbox: false,
        mailbox_total_bytes: 0,
        mailbox_queue: QueueBounds { messages_max: 0, bytes_max: 0 },
        mailbox_reads: 0,
        max_connections: None,
        max_unauthenticated: 0,
        max_unauthenticated_per_address: 0,
        memory_budget_bytes: 0,
        shards: machine.cores,
        io: Io::Auto,
        auth_timeout: Duration::ZERO,
        ping_interval: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        write_timeout: Duration::ZERO,
        drain_window: None,
        drain_deadline: Duration::ZERO,
        metrics: MetricsAddr::Default(METRICS_ADDR),
        log_format: LogFormat::Auto,
        log_level: LevelFilter::OFF,
        config_file: None,
        cautions: Vec::new(),
    }
}
