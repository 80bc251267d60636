//! A shard's time: what it is, read once a turn, and what comes due when.

mod wheel;

use self::wheel::Wheel;
use super::bounds::TICK;
use super::net::connection::NONE;
use crate::ring::Conn;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// See the module. Nothing else here knows what time it is.
pub(super) struct Pulse {
    started: Instant,
    now: Duration,
    /// The wall clock when the shard started, put right at each tick.
    unix_at_start: Duration,
    /// The tick at which things are next done that are done once a second.
    second_due: u32,
    /// One deadline for each connection.
    wheel: Wheel,
    /// Connections whose reading is slowed to a rate, by when it goes on.
    throttled: BinaryHeap<Reverse<(Duration, Conn)>>,
}

impl Pulse {
    pub(super) fn start(started: Instant, unix: Duration) -> Self {
        Self {
            started,
            now: Duration::ZERO,
            unix_at_start: unix,
            second_due: 0,
            wheel: Wheel::new(),
            throttled: BinaryHeap::new(),
        }
    }

    /// Takes over what time it is.
    pub(super) fn update(&mut self, instant: Instant) {
        self.now = instant.saturating_duration_since(self.started);
    }

    /// Puts the wall clock right.
    pub(super) fn set_unix(&mut self, unix: Duration) {
        self.unix_at_start = unix.saturating_sub(self.now);
    }

    /// Since the shard started.
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// As other threads count it.
    pub(super) fn instant(&self) -> Instant {
        self.started + self.now
    }

    /// Milliseconds since 1970.
    pub(super) fn unix_ms(&self) -> u64 {
        (self.unix_at_start + self.now).as_millis() as u64
    }

    /// The tick that now belongs to.
    pub(super) fn tick(&self) -> u32 {
        (self.now.as_millis() as u64 / TICK.as_millis() as u64) as u32
    }

    /// The first tick that is at least `delay` away.
    pub(super) fn tick_after(&self, delay: Duration) -> u32 {
        let due = (self.now + delay).as_millis().div_ceil(TICK.as_millis());
        // A delay of years is as good as none at all.
        u32::try_from(due).unwrap_or(NONE - 1).min(NONE - 1)
    }

    /// Whether a second has passed since it last had.
    pub(super) fn poll_second(&mut self) -> bool {
        let is_due = self.tick() >= self.second_due;
        if is_due {
            self.second_due = self.tick_after(Duration::from_secs(1));
        }
        is_due
    }

    /// Sets the deadline of a connection, whatever it was.
    pub(super) fn arm(&mut self, conn: Conn, due: u32) {
        self.wheel.arm(conn, due);
    }

    /// Takes the deadline of a connection away. To be done at its end, for the place's next connection has none.
    pub(super) fn disarm(&mut self, conn: Conn) {
        self.wheel.disarm(conn);
    }

    /// The deadline of a connection; [`u32::MAX`]: none.
    pub(super) fn due(&self, conn: Conn) -> u32 {
        self.wheel.due(conn)
    }

    /// The places of those whose deadline has come.
    pub(super) fn poll_due(&mut self) -> Vec<u32> {
        let mut met = Vec::new();
        self.wheel.advance(self.tick(), &mut met);
        met
    }

    /// Keeps a connection until `wait` has passed, for [`Pulse::poll_throttled`].
    pub(super) fn throttle(&mut self, conn: Conn, wait: Duration) {
        self.throttled.push(Reverse((self.now + wait, conn)));
    }

    /// One whose wait is over.
    pub(super) fn poll_throttled(&mut self) -> Option<Conn> {
        let &Reverse((due, conn)) = self.throttled.peek()?;
        if due > self.now {
            return None;
        }
        self.throttled.pop();
        Some(conn)
    }

    /// Whether any waits.
    pub(super) fn is_throttling(&self) -> bool {
        !self.throttled.is_empty()
    }

    /// All that wait.
    #[cfg(test)]
    pub(super) fn throttled(&self) -> impl Iterator<Item = Conn> {
        self.throttled.iter().map(|&Reverse((_, conn))| conn)
    }
}
