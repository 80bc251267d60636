//! The time of day, for whoever has not been given it. Never for durations: the clock may be set.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Since 1970; zero on a clock that stands before.
#[must_use]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
