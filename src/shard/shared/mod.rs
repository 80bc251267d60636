//! What all shards count together: connections, sessions, and who is not authenticated yet.

pub mod addresses;
pub mod guesses;

use self::addresses::Addresses;
use self::guesses::Guesses;
use super::counters::Counters;
use crate::api::{Driver, HealthReport};
use crate::cluster::Cluster;
use crate::directory::Directory;
use crate::http::RequestPolicy;
use crate::notifier::Notifier;
use crate::shelf::Mailbox;
use crate::sys::net::Network;
use crate::sys::time::unix_now;
use crate::telemetry::lifecycle::{Lifecycle, Stage};
use crate::tls::certificates::Certificates;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Caps over all shards; 0 lifts one.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Sockets in all.
    pub connections_max: u64,
    /// Connections that have not authenticated, in all.
    pub unauthenticated_max: u64,
    /// Connections that have not authenticated, of one address.
    pub unauthenticated_per_address_max: u64,
}

/// What newcomers and requests are measured by; replaced as a whole when the configuration is read again.
pub struct Rules {
    /// The caps.
    pub caps: Caps,
    /// Proxies that begin each connection with a PROXY protocol header.
    pub proxies: Vec<Network>,
    /// What HTTP requests are checked against on the relay's listeners.
    pub gate: RequestPolicy,
    /// The same on the echo listener.
    pub echo_gate: RequestPolicy,
}

/// What all threads share. Written when connections come, authenticate and go; never for a message.
pub struct Shared {
    /// What holds until the configuration is read again.
    pub rules: ArcSwap<Rules>,
    /// The tokens.
    pub directory: Arc<Directory>,
    /// Why the store is degraded, if it is; shown by `/health`.
    pub store_fault: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// The mailbox; `None`: nothing is kept.
    pub mailbox: Option<Arc<Mailbox>>,
    /// Who wakes devices; `None`: nobody does.
    pub notifier: Option<Arc<Notifier>>,
    /// The relays that tokens are shared with; `None`: there are none.
    pub cluster: Option<Arc<Cluster>>,
    /// The certificates and how they fare; `None`: no TLS is spoken.
    pub certificates: Option<Arc<Certificates>>,
    /// What each address is up to.
    pub addresses: Addresses,
    /// Who shows wrong admin keys.
    pub guesses: Guesses,
    /// What each shard counted, as it last published it; a shard never waits for the lock.
    pub counters: Box<[Mutex<Counters>]>,
    /// Where the process is in its life, and its threads' signs of life.
    pub lifecycle: Arc<Lifecycle>,
    /// When the relay started.
    pub started: Instant,
    /// How many shards there are.
    pub shards: u16,
    /// What they run on.
    pub driver: Driver,
    /// How TLS is spoken; `None`: nowhere.
    pub tls: Option<Arc<ServerConfig>>,
    /// Sockets.
    pub sockets: AtomicU64,
    /// Sockets that have not authenticated.
    pub unauthenticated: AtomicU64,
    /// Authenticated connections.
    pub connections: AtomicU64,
    /// Tokens with at least one authenticated connection.
    pub sessions: AtomicU64,
}

impl Shared {
    /// What `/health` says.
    #[must_use]
    pub fn health_report(&self, now: Instant) -> HealthReport {
        HealthReport {
            connections: self.connections.load(Relaxed),
            sessions: self.sessions.load(Relaxed),
            uptime_sec: now.saturating_duration_since(self.started).as_secs(),
            shards: self.shards,
            driver: self.driver.clone(),
            beat_ages_ms: self.lifecycle.heartbeats.shard_ages(now).map(|age| age.as_millis() as u64).collect(),
            store_fault: (self.store_fault)(),
            mailbox: self.mailbox.is_some(),
            mailbox_fault: self.mailbox.as_ref().and_then(|mailbox| mailbox.health.fault()),
            tls: self.certificates.is_some(),
            certificate_fault: self.certificates.as_ref().and_then(|all| all.fault(unix_now().as_secs())),
            nats: self.cluster.is_some(),
            nats_fault: self.cluster.as_ref().and_then(|cluster| cluster.state().fault()),
            push: self.notifier.as_ref().map(|notifier| notifier.state(now)),
            draining: self.lifecycle.stage() == Stage::Draining,
            unready: self.lifecycle.unready(now),
        }
    }
}

/// Adds one to a counter unless that takes it over `max` (0: no maximum).
#[must_use]
pub fn try_count(counter: &AtomicU64, max: u64) -> bool {
    if counter.fetch_add(1, Relaxed) < max || max == 0 {
        return true;
    }
    counter.fetch_sub(1, Relaxed);
    false
}
