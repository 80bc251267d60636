//! How the cluster is, for `/health`, the metrics and control: written by its thread and by control, read by anyone.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Default)]
pub struct State {
    is_connected: AtomicBool,
    /// All that NATS has is in the store, and the other way round.
    is_synced: AtomicBool,
    /// Not asked before then.
    paused_until: Mutex<Option<Instant>>,
    /// Why it is not connected, in words.
    fault: Mutex<String>,
    revision: AtomicU64,
    failures: AtomicU64,
    unreadable: AtomicU64,
}

impl State {
    /// Whether NATS is worth asking.
    #[must_use]
    pub fn is_there(&self) -> bool {
        let paused = *self.paused_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.is_connected() && paused.is_none_or(|until| until <= Instant::now())
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Relaxed)
    }

    /// Whether, since the connection was made, all that NATS has came to be in the store, and the other way round.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.is_synced.load(Relaxed)
    }

    /// What is wrong, in words.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.is_there() {
            return None;
        }
        let fault = self.fault.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        Some(if fault.is_empty() { "NATS does not answer in time".to_owned() } else { fault })
    }

    /// The last write that has come from NATS.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision.load(Relaxed)
    }

    /// How often NATS was lost, or did not answer in time.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Documents that were passed over because they cannot be read.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Relaxed)
    }

    /// For control: store and NATS have the same.
    pub fn set_synced(&self) {
        self.is_synced.store(true, Relaxed);
    }

    pub(super) fn connect(&self) {
        self.fault.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
        *self.paused_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
        self.is_connected.store(true, Relaxed);
    }

    pub(super) fn disconnect(&self, fault: String) {
        *self.fault.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = fault;
        self.is_synced.store(false, Relaxed);
        if self.is_connected.swap(false, Relaxed) {
            self.failures.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn pause(&self, pause: Duration) {
        self.failures.fetch_add(1, Relaxed);
        *self.paused_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(Instant::now() + pause);
    }

    pub(super) fn set_revision(&self, revision: u64) {
        self.revision.store(revision, Relaxed);
    }

    pub(super) fn add_unreadable(&self) {
        self.unreadable.fetch_add(1, Relaxed);
    }
}
