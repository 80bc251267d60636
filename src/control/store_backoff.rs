//! The way to the store: while it fails, tries are spaced out, everyone is told, and the log stays readable.

use super::health::StoreHealth;
use crate::store::{StoreError, StoreState};
use std::sync::Arc;

/// The first pause after a failure; it doubles with each further one.
const PAUSE_MS_MIN: u64 = 1000;
/// The longest pause.
const PAUSE_MS_MAX: u64 = 30_000;
/// How often a failure that goes on is logged.
const REMIND_MS: u64 = 60_000;

/// Whether the store is worth trying now.
#[derive(Debug)]
pub(super) struct StoreBackoff {
    health: Arc<StoreHealth>,
    /// Not before then, while the store fails.
    retry_at_ms: u64,
    /// From `PAUSE_MS_MIN` to `PAUSE_MS_MAX`.
    pause_ms: u64,
    logged_ms: u64,
}

/// The store failed, or is not tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unavailable {
    /// When it is worth asking again.
    pub(super) retry_after_ms: u64,
}

impl StoreBackoff {
    pub(super) fn new(health: Arc<StoreHealth>) -> Self {
        Self { health, retry_at_ms: 0, pause_ms: PAUSE_MS_MIN, logged_ms: 0 }
    }

    pub(super) fn health(&self) -> &StoreHealth {
        &self.health
    }

    /// Whether the store may be tried.
    pub(super) fn poll_open(&self, now_ms: u64) -> Result<(), Unavailable> {
        // A clock that was set back must not keep the store out of use for longer than a pause.
        let left = self.retry_at_ms.saturating_sub(now_ms).min(PAUSE_MS_MAX);
        if self.health.is_ok() || left == 0 { Ok(()) } else { Err(Unavailable { retry_after_ms: left }) }
    }

    /// Takes note of how a write went.
    pub(super) fn handle_write<T>(&mut self, now_ms: u64, result: Result<T, StoreError>) -> Result<T, Unavailable> {
        if result.is_ok() && !self.health.is_ok() {
            self.health.set(StoreState::Ok, String::new());
            self.pause_ms = PAUSE_MS_MIN;
            tracing::info!("the store can be written again");
        }
        self.handle_read(now_ms, result)
    }

    /// Takes note of how a read went: one that succeeds says nothing about writing.
    pub(super) fn handle_read<T>(&mut self, now_ms: u64, result: Result<T, StoreError>) -> Result<T, Unavailable> {
        result.map_err(|error| self.handle_failure(now_ms, &error))
    }

    fn handle_failure(&mut self, now_ms: u64, error: &StoreError) -> Unavailable {
        let state = StoreState::of(error);
        self.health.add_error(state);
        if self.health.is_ok() {
            self.pause_ms = PAUSE_MS_MIN;
        }
        if self.health.state() != state || now_ms.abs_diff(self.logged_ms) >= REMIND_MS {
            self.logged_ms = now_ms;
            tracing::error!(
                state = state.name(), %error,
                "the store cannot be used: messages are forwarded, tokens can be neither made nor changed, \
                 usage waits in memory"
            );
        }
        self.health.set(state, error.to_string());
        self.retry_at_ms = now_ms.saturating_add(self.pause_ms);
        let unavailable = Unavailable { retry_after_ms: self.pause_ms };
        self.pause_ms = (self.pause_ms * 2).min(PAUSE_MS_MAX);
        unavailable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound_and_success_ends_them() {
        let mut store_backoff = StoreBackoff::new(Arc::default());
        assert_eq!(store_backoff.poll_open(0), Ok(()));
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let unavailable = store_backoff.handle_write::<()>(100, Err(StoreError::DiskFull)).unwrap_err();
            pauses.push(unavailable.retry_after_ms);
            assert_eq!(store_backoff.poll_open(100), Err(unavailable));
            assert_eq!(store_backoff.poll_open(100 + unavailable.retry_after_ms), Ok(()));
        }
        assert_eq!(pauses, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(store_backoff.health().state(), StoreState::DiskFull);

        assert_eq!(store_backoff.handle_read(100, Ok(())), Ok(()));
        assert_eq!(store_backoff.health().state(), StoreState::DiskFull, "reading says nothing about writing");
        assert_eq!(store_backoff.handle_write(100, Ok(())), Ok(()));
        assert_eq!((store_backoff.health().state(), store_backoff.poll_open(100)), (StoreState::Ok, Ok(())));
        assert_eq!(
            store_backoff.handle_write::<()>(100, Err(StoreError::Locked)),
            Err(Unavailable { retry_after_ms: 1000 })
        );
    }
}
