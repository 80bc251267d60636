//! The time of a simulation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Passes when it is told to, and is the same for all that have a clone.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    unix_at_start: Duration,
    elapsed_ns: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that begins at `unix`, since 1970.
    #[must_use]
    pub fn new(unix: Duration) -> Self {
        Self { started: Instant::now(), unix_at_start: unix, elapsed_ns: Arc::default() }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.elapsed_ns.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Since it began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_ns.load(Relaxed))
    }

    /// As [`Net::now`](crate::Net::now).
    #[must_use]
    pub fn now(&self) -> Instant {
        self.started + self.elapsed()
    }

    /// As [`Net::unix_now`](crate::Net::unix_now).
    #[must_use]
    pub fn unix_now(&self) -> Duration {
        self.unix_at_start + self.elapsed()
    }
}
