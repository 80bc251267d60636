//! Composition: the preflight, the threads, the signals, the end.
//!
//! The main thread does what may wait: it checks the machine, opens the store, binds the listeners, starts the shards
//! and the control thread, and then sleeps until a signal comes. Nothing here touches a connection.

pub(crate) mod announce;
mod certificates;
mod cluster;
pub mod exit;
mod figures;
pub mod healthcheck;
mod http_listener;
mod inherited;
mod lapses;
pub(crate) mod listeners;
mod metrics_listener;
mod notify;
mod push;
mod reload;
mod signals;
mod stalls;
mod supervise;
mod threads;

pub use self::inherited::Inherited;

use self::certificates::Prepared;
use self::lapses::Lapses;
use self::notify::Notify;
use self::stalls::Stalls;
use self::supervise::{Order, Running};
use self::threads::{start_control, start_shards, start_shelf};
use crate::api;
use crate::cluster::Cluster;
use crate::config::{Config, KeyOrigin, Origins, Secret, admin_key};
use crate::console;
use crate::control::message::{Notice, Shards as _};
use crate::control::{self, StoreHealth};
use crate::directory::Directory;
use crate::http::{RequestPolicy, RequestPolicyOptions};
use crate::notifier::Notifier;
use crate::preflight::{Driver, ProbeError, rlimits};
use crate::shard::Settings;
use crate::shard::command::Command;
use crate::shard::shared::addresses::Addresses;
use crate::shard::shared::guesses::Guesses;
use crate::shard::shared::{Caps, Rules, Shared};
use crate::shelf::{self, Mailbox};
use crate::store::Store;
use crate::sys::file::beside;
use crate::sys::time::unix_now;
use crate::telemetry::lifecycle::Lifecycle;
use crate::tls::certificates::Certificates;
use crate::tls::settings::server_config;
use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

/// Orders that the main thread has not taken yet.
const ORDERS_MAX: usize = 1024;

/// What the process ends with, and the line that says why.
struct Failure {
    exit_code: u8,
    text: String,
}

impl Failure {
    fn new(exit_code: u8, text: impl Display) -> Self {
        Self { exit_code, text: format!("coralmux-relay: {text}") }
    }
}

/// Runs the relay until it is told to stop, on the sockets of the service manager where it passed any; returns the
/// process's exit code. What keeps it from starting goes to standard error in plain words.
#[must_use]
pub fn run(config: &Config, inherited: Inherited) -> u8 {
    match start(config, inherited) {
        Ok(running) => running.until_stopped(),
        Err(failure) => {
            console::warn(failure.text.trim_end());
            failure.exit_code
        }
    }
}

fn start(config: &Config, mut inherited: Inherited) -> Result<Running, Failure> {
    // Before anything that lasts, so that a signal during the start is not lost.
    let (orders, ordered) = crossbeam_channel::bounded(ORDERS_MAX);
    signals::listen(orders.clone()).map_err(|error| Failure::new(exit::FAILURE, error))?;
    let (nofile, driver) = check_machine(config)?;
    let mut store = Store::open(&config.db, unix_ms()).map_err(|error| Failure::new(exit::STORE, error))?;
    let (key, origin) =
        admin_key(config.admin_key.clone(), &config.db, random()).map_err(|error| Failure::new(exit::STORE, error))?;
    announce::cautions(config, &key);
    let listeners = listeners::bind(&config.listen, &config.echo_addrs, config.shards, &mut inherited)?;
    let metrics = metrics_listener::bind(config.metrics)?;
    let health = Arc::new(StoreHealth::default());
    let prepared = Prepared::new(&config.tls)?;
    let http_addrs = prepared.as_ref().map(Prepared::http_addrs).unwrap_or_default();
    let all = prepared.as_ref().map(|prepared| Arc::clone(&prepared.certificates));
    let mailbox = mailbox(config, &orders);
    let notifier = push::notifier(config, &mut store)?;
    let cluster = cluster::join(config, &mut store)?;
    let shared = Arc::new(shared(
        config,
        &key,
        nofile,
        driver,
        Arc::clone(&health),
        Parts { mailbox, notifier, cluster, certificates: all },
    )?);
    let kept = prepared.map(|prepared| prepared.start(&listeners.listen)).transpose()?;
    let (shards, control_requests) = start_shards(config, driver, settings(config), &shared, &orders)?;
    if let Some(notifier) = &shared.notifier {
        push::start(notifier, &store, shards.control.clone())?;
    }
    if let Some(listener) = metrics {
        announce::metrics(&listener);
        let (shared, store) = (Arc::clone(&shared), Arc::clone(&health));
        metrics_listener::start(
            listener,
            figures::Figures { shared, store, control: shards.control.clone(), started: unix_ms() as f64 / 1000.0 },
        )?;
    }
    let admit = |key, slot| {
        let owner = shards.queues.owner(key);
        let _ = shards.queues.post(owner, Command::Notice(Notice::Admit { key, slot }));
    };
    let index =
        control::load(&store, &shared.directory, unix_ms(), admit).map_err(|error| Failure::new(exit::STORE, error))?;
    let tokens = index.len();
    let control = start_control(config, store, index, health, &shared, &shards, control_requests)?;
    if let Some(cluster) = &shared.cluster {
        cluster::follow(cluster, shards.control.clone());
    }
    let shelf = shared.mailbox.as_ref().filter(|mailbox| mailbox.is_started());
    let shelf = shelf.map(|mailbox| start_shelf(config, mailbox, &shards.queues)).transpose()?;
    announce::ready(config, &listeners, &http_addrs, &shared.rules.load().caps, tokens);
    if let KeyOrigin::Made(path) = &origin {
        announce::admin_key(&key, path);
    }
    // The first client may ask whether it does.
    shared.lifecycle.serve();
    shards.listen(listeners);
    let notify = Notify::from_environment();
    let stalls = Stalls::new(config.shards);
    let lapses = Lapses::default();
    Ok(Running {
        config: config.clone(),
        key,
        nofile,
        shared,
        shards,
        control,
        shelf,
        kept,
        ordered,
        notify,
        stalls,
        lapses,
    })
}

/// Raises the limits, and gives how many files may be open and what the shards run on.
fn check_machine(config: &Config) -> Result<(u64, Driver), Failure> {
    let nofile = rlimits::raise_nofile();
    let memlock = rlimits::raise_memlock();
    tracing::info!(
        nofile = nofile.now,
        nofile_before = nofile.before,
        connections = rlimits::connection_capacity(nofile.now, config.shards),
        "open files, and the connections that they allow"
    );
    let unfit = |error: ProbeError| Failure { exit_code: exit::PREFLIGHT, text: error.report() };
    ProbeError::check_nofile(nofile.now, config.shards).map_err(unfit)?;
    let driver = Driver::choose(config.io, memlock.now).map_err(unfit)?;
    announce::driver(driver);
    Ok((nofile.now, driver))
}

fn control_settings(config: &Config) -> control::Settings {
    let &Config { register_per_hour, limits, devices_max, .. } = config;
    control::Settings { register_per_hour, limits, devices_max }
}

fn settings(config: &Config) -> Settings {
    Settings {
        limits: config.limits,
        auth_timeout: config.auth_timeout,
        ping_interval: config.ping_interval,
        idle_timeout: config.idle_timeout,
        write_timeout: config.write_timeout,
        budget_bytes: usize::try_from(config.memory_budget_bytes).unwrap_or(usize::MAX),
        mailbox_reads: usize::try_from(config.mailbox_reads).unwrap_or(usize::MAX),
    }
}

/// The mailbox. Its thread is started at once where there is a file, else with the first message that is to be kept.
fn mailbox(config: &Config, orders: &Sender<Order>) -> Option<Arc<Mailbox>> {
    if !config.mailbox {
        return None;
    }
    let orders = orders.clone();
    let start = move || {
        // Full, it holds orders enough; messages are refused until the relay is started again. Not met in practice.
        if orders.try_send(Order::StartShelf).is_err() {
            tracing::error!("the mailbox cannot be started");
        }
    };
    let is_started = beside(&config.db, shelf::SUFFIX).exists();
    let mailbox = Mailbox::new(config.mailbox_queue, config.mailbox_total_bytes, is_started, Box::new(start));
    Some(Arc::new(mailbox))
}

/// What a relay may have and may do without.
struct Parts {
    mailbox: Option<Arc<Mailbox>>,
    notifier: Option<Arc<Notifier>>,
    cluster: Option<Arc<Cluster>>,
    certificates: Option<Arc<Certificates>>,
}

fn shared(
    config: &Config,
    key: &Secret,
    nofile: u64,
    driver: Driver,
    health: Arc<StoreHealth>,
    Parts { mailbox, notifier, cluster, certificates }: Parts,
) -> Result<Shared, Failure> {
    let tls = certificates.clone().map(server_config).transpose();
    Ok(Shared {
        rules: ArcSwap::from_pointee(rules(config, key, nofile)),
        directory: Arc::new(Directory::default()),
        store_fault: Box::new(move || {
            (!health.is_ok()).then(|| format!("{}: {}", health.state().name(), health.detail()))
        }),
        mailbox,
        notifier,
        cluster,
        certificates,
        addresses: Addresses::default(),
        guesses: Guesses::default(),
        counters: (0..config.shards).map(|_| Default::default()).collect(),
        lifecycle: Arc::new(Lifecycle::new(Instant::now(), config.shards)),
        started: Instant::now(),
        shards: config.shards,
        driver: api::Driver { name: driver.name(), reason: driver.reason().map(|missing| missing.to_string()) },
        tls: tls.map_err(|error| Failure::new(exit::FAILURE, error))?,
        sockets: Default::default(),
        unauthenticated: Default::default(),
        connections: Default::default(),
        sessions: Default::default(),
    })
}

/// The names that the relay is reached by, in lower case: those that the operator has given, and the machine's own.
fn own_names(config: &Config) -> Vec<String> {
    let machine = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    domains(config).iter().chain(&config.own_names).cloned().chain([machine]).collect()
}

/// The names that there are certificates for by `--domain`.
fn domains(config: &Config) -> &[String] {
    config.tls.acme.as_ref().map_or(&[], |acme| &acme.domains)
}

fn rules(config: &Config, key: &Secret, nofile: u64) -> Rules {
    let capacity = rlimits::connection_capacity(nofile, config.shards);
    let policy = |any_path: bool| {
        RequestPolicy::new(RequestPolicyOptions {
            admin_key: key.expose(),
            trusted_proxies: config.trusted_proxies.clone(),
            allowed_origins: match &config.origins {
                Origins::Any => None,
                Origins::Only(origins) => Some(origins.clone()),
            },
            names: own_names(config),
            transport_security: !domains(config).is_empty(),
            registration: config.registration,
            phone: config.phone && !any_path,
            any_path,
        })
    };
    Rules {
        caps: Caps {
            // A cap of more connections than there are descriptors would only fail later and less politely.
            connections_max: config.max_connections.unwrap_or(capacity).min(capacity),
            unauthenticated_max: config.max_unauthenticated,
            unauthenticated_per_address_max: config.max_unauthenticated_per_address,
        },
        proxies: config.proxies.clone(),
        gate: policy(false),
        echo_gate: policy(true),
    }
}

fn unix_ms() -> u64 {
    unix_now().as_millis() as u64
}

/// Bytes from the system's secure random source.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The source fails only where the system is broken beyond use: a kernel without getrandom(2) is older than Rust runs on.
    getrandom::fill(&mut bytes).expect("the system has a random source");
    bytes
}
