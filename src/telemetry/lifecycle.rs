//! Where the process is in its life, and whether it can take new traffic: for `/readyz`, `/health`, the metrics and the
//! service manager's watchdog.

use super::heartbeats::Heartbeats;
use crate::api::Unready;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A shard that does not beat for this long is stuck. It beats ten times a second.
pub const SHARD_STUCK_AFTER: Duration = Duration::from_secs(5);
/// The control thread that does not beat for this long is: a write waits a second for another program's lock, and a
/// disk may take some.
pub const STORE_STUCK_AFTER: Duration = Duration::from_secs(10);

/// The process's stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Connections are not accepted yet.
    Starting = 0,
    /// It serves.
    Serving = 1,
    /// It takes nobody new, and ends.
    Draining = 2,
}

/// The process's stage and its threads' signs of life.
#[derive(Debug)]
pub struct Lifecycle {
    stage: AtomicU8,
    /// The signs of life.
    pub heartbeats: Heartbeats,
}

impl Lifecycle {
    /// A process that starts.
    #[must_use]
    pub fn new(now: Instant, shards: u16) -> Self {
        Self { stage: AtomicU8::new(Stage::Starting as u8), heartbeats: Heartbeats::new(now, shards) }
    }

    /// The stage now.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.stage.load(Relaxed) {
            0 => Stage::Starting,
            1 => Stage::Serving,
            _ => Stage::Draining,
        }
    }

    /// Connections are accepted from now on; a process that drains already goes on with that.
    pub fn serve(&self) {
        let _ = self.stage.compare_exchange(Stage::Starting as u8, Stage::Serving as u8, Relaxed, Relaxed);
    }

    /// Nobody new is taken from now on.
    pub fn drain(&self) {
        self.stage.store(Stage::Draining as u8, Relaxed);
    }

    /// Why new traffic should go elsewhere, if it should.
    #[must_use]
    pub fn unready(&self, now: Instant) -> Option<Unready> {
        match self.stage() {
            Stage::Starting => Some(Unready::Starting),
            Stage::Draining => Some(Unready::Draining),
            Stage::Serving => self.stuck(now),
        }
    }

    /// Which thread has stopped, if one has.
    #[must_use]
    pub fn stuck(&self, now: Instant) -> Option<Unready> {
        if let Some(shard) = self.heartbeats.stuck(now, SHARD_STUCK_AFTER) {
            return Some(Unready::ShardStuck(shard));
        }
        (self.heartbeats.control_age(now) > STORE_STUCK_AFTER).then_some(Unready::StoreStuck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_who_serves_while_all_threads_beat() {
        let start = Instant::now();
        let at = |sec| start + Duration::from_secs(sec);
        let lifecycle = Lifecycle::new(start, 2);
        assert_eq!(lifecycle.unready(start), Some(Unready::Starting));
        lifecycle.serve();
        assert_eq!(lifecycle.unready(start), None);
        lifecycle.heartbeats.beat_shard(at(6), 0);
        assert_eq!(lifecycle.unready(at(6)), Some(Unready::ShardStuck(1)));
        lifecycle.heartbeats.beat_shard(at(9), 0);
        lifecycle.heartbeats.beat_shard(at(9), 1);
        assert_eq!(lifecycle.unready(at(10)), None);
        assert_eq!(lifecycle.unready(at(11)), Some(Unready::StoreStuck));
        lifecycle.drain();
        lifecycle.serve();
        assert_eq!((lifecycle.stage(), lifecycle.unready(start)), (Stage::Draining, Some(Unready::Draining)));
    }
}
