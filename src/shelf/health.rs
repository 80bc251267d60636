//! How the mailbox fares, for `/health` and the metrics: written by the shelf's thread, read by anyone.

use crate::store::{StoreError, StoreState};
use crate::telemetry::metrics::Histogram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// See the module.
#[derive(Debug, Default)]
pub struct ShelfHealth {
    state: AtomicU8,
    detail: Mutex<String>,
    /// Bytes of the messages in the file, and how many there are.
    bytes: AtomicU64,
    messages: AtomicU64,
    /// The most bytes that may be in it, as the disk is now.
    bytes_max: AtomicU64,
    expired: AtomicU64,
    commits: Mutex<Histogram>,
    errors: [AtomicU64; StoreState::ALL.len()],
}

impl ShelfHealth {
    /// The state now.
    #[must_use]
    pub fn state(&self) -> StoreState {
        StoreState::ALL.get(usize::from(self.state.load(Relaxed))).copied().unwrap_or(StoreState::Io)
    }

    /// What is wrong with it, in words; `None`: nothing.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let detail = || self.detail.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        (self.state() != StoreState::Ok).then(|| format!("{}: {}", self.state().name(), detail()))
    }

    /// Messages in the file, and their bytes.
    #[must_use]
    pub fn stored(&self) -> (u64, u64) {
        (self.messages.load(Relaxed), self.bytes.load(Relaxed))
    }

    /// The most bytes that may be in the file, as the disk is now.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Relaxed)
    }

    /// Messages that have expired.
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.expired.load(Relaxed)
    }

    /// How long commits took.
    #[must_use]
    pub fn commits(&self) -> Histogram {
        *self.commits.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Failures so far, by kind.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let all = StoreState::ALL.into_iter().zip(&self.errors);
        all.filter(|(state, _)| *state != StoreState::Ok).map(|(state, count)| (state.name(), count.load(Relaxed)))
    }

    pub(super) fn set_stored(&self, messages: u64, bytes: u64) {
        self.messages.store(messages, Relaxed);
        self.bytes.store(bytes, Relaxed);
    }

    pub(super) fn set_bytes_max(&self, bytes: u64) {
        self.bytes_max.store(bytes, Relaxed);
    }

    pub(super) fn add_expired(&self, count: u64) {
        self.expired.fetch_add(count, Relaxed);
    }

    pub(super) fn add_commit(&self, took: std::time::Duration) {
        self.commits.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).record(took, 1);
    }

    /// Takes note of how it went. Whether that is news.
    pub(super) fn note(&self, error: Option<&StoreError>) -> bool {
        let state = error.map_or(StoreState::Ok, StoreState::of);
        if error.is_some() {
            self.errors[state as usize].fetch_add(1, Relaxed);
        }
        let detail = error.map(ToString::to_string).unwrap_or_default();
        *self.detail.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = detail;
        self.state.swap(state as u8, Relaxed) != state as u8
    }
}
