//! How the store fares, for `/health` and the metrics: written by the control thread, read by anyone.

use crate::push::PushState;
use crate::store::StoreState;
use crate::telemetry::metrics::Histogram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The store's health, shared through an `Arc`.
#[derive(Debug, Default)]
pub struct StoreHealth {
    state: AtomicU8,
    /// Usage records that wait for the store.
    usage_waiting: AtomicU64,
    /// Bytes of usage that were dropped because too many waited.
    usage_dropped_bytes: AtomicU64,
    /// Since when, in Unix milliseconds, usage has waited; 0 while none does.
    usage_since_ms: AtomicU64,
    /// Devices that tokens have, as they were last counted.
    devices: AtomicU64,
    /// How many of them can be woken, or could: by `PushState as usize`.
    pushes: [AtomicU64; PushState::ALL.len()],
    /// By `StoreState as usize`.
    errors: [AtomicU64; StoreState::ALL.len()],
    writes: Mutex<Histogram>,
    detail: Mutex<String>,
}

impl StoreHealth {
    /// The state now.
    #[must_use]
    pub fn state(&self) -> StoreState {
        StoreState::ALL.get(usize::from(self.state.load(Relaxed))).copied().unwrap_or(StoreState::Io)
    }

    /// Whether the last write succeeded.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.state() == StoreState::Ok
    }

    /// What the store said last; empty while it is well.
    #[must_use]
    pub fn detail(&self) -> String {
        // A text is whole even when a thread ended while it held the lock.
        self.detail.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Usage records (one for each token and day) in memory that wait for the store.
    #[must_use]
    pub fn usage_waiting(&self) -> u64 {
        self.usage_waiting.load(Relaxed)
    }

    /// Bytes of usage that were dropped because too many records waited.
    #[must_use]
    pub fn usage_dropped_bytes(&self) -> u64 {
        self.usage_dropped_bytes.load(Relaxed)
    }

    /// How long the oldest usage that is not in the store has waited.
    #[must_use]
    pub fn usage_lag(&self, now_unix_ms: u64) -> Duration {
        match self.usage_since_ms.load(Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now_unix_ms.saturating_sub(since)),
        }
    }

    /// Devices that tokens have.
    #[must_use]
    pub fn devices(&self) -> u64 {
        self.devices.load(Relaxed)
    }

    /// Devices that can be woken, or could, as they were last counted.
    pub fn pushes(&self) -> impl Iterator<Item = (PushState, u64)> + '_ {
        let all = PushState::ALL.into_iter().zip(&self.pushes);
        all.filter(|&(state, _)| state != PushState::None).map(|(state, count)| (state, count.load(Relaxed)))
    }

    /// Failures so far, by kind.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let all = StoreState::ALL.into_iter().zip(&self.errors);
        all.filter(|(state, _)| *state != StoreState::Ok).map(|(state, count)| (state.name(), count.load(Relaxed)))
    }

    /// How long writes took.
    #[must_use]
    pub fn writes(&self) -> Histogram {
        *self.writes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Carries out a write and notes how long it took.
    pub(super) fn timed<T>(&self, write: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let written = write();
        self.writes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).record(begun.elapsed(), 1);
        written
    }

    pub(super) fn add_error(&self, state: StoreState) {
        self.errors[state as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn set(&self, state: StoreState, detail: String) {
        *self.detail.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = detail;
        self.state.store(state as u8, Relaxed);
    }

    pub(super) fn set_usage_waiting(&self, now_unix_ms: u64, records: u64) {
        let since = match (records, self.usage_since_ms.load(Relaxed)) {
            (0, _) => 0,
            (_, 0) => now_unix_ms,
            (_, since) => since,
        };
        self.usage_since_ms.store(since, Relaxed);
        self.usage_waiting.store(records, Relaxed);
    }

    pub(super) fn set_devices(&self, devices: u64) {
        self.devices.store(devices, Relaxed);
    }

    pub(super) fn set_pushes(&self, pushes: &[(PushState, u64)]) {
        for state in PushState::ALL {
            let count = pushes.iter().find(|(of, _)| *of == state).map_or(0, |&(_, count)| count);
            self.pushes[state as usize].store(count, Relaxed);
        }
    }

    pub(super) fn add_usage_dropped(&self, bytes: u64) {
        self.usage_dropped_bytes.fetch_add(bytes, Relaxed);
    }
}
