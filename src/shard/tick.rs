//! The shard's pulse: time, deadlines, pings, and what is done once a second.

use super::Shard;
use super::bounds::{FINE_TICK, TAKEN_BYTES_MIN, TICK, WRITE_TIMEOUTS_MAX};
use super::close::CloseReason;
use super::connection::{NONE, Pauses, Phase};
use crate::proto::frame::Opcode;
use crate::ring::{Conn, Net};
use crate::session::message::frame_of;
use crate::tls::outcome::Outcome;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// A shard's time, read once a turn.
pub(super) struct Clock {
    started: Instant,
    now: Duration,
    /// The wall clock when the shard started, put right at each tick.
    unix_at_start: Duration,
    /// The tick at which things are next done that are done once a second.
    second_due: u32,
}

impl Clock {
    pub(super) fn start(started: Instant) -> Self {
        Self { started, now: Duration::ZERO, unix_at_start: Duration::ZERO, second_due: 0 }
    }

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
        (self.now.as_millis() / TICK.as_millis()) as u32
    }

    /// The first tick that is at least `delay` away.
    pub(super) fn tick_after(&self, delay: Duration) -> u32 {
        let due = (self.now + delay).as_millis().div_ceil(TICK.as_millis());
        // A delay of years is as good as none at all.
        u32::try_from(due).unwrap_or(NONE - 1).min(NONE - 1)
    }
}

/// Connections whose reading is slowed to a rate, by when it goes on.
#[derive(Default)]
pub(super) struct Throttled {
    heap: BinaryHeap<Reverse<(Duration, Conn)>>,
}

impl Throttled {
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = Conn> {
        self.heap.iter().map(|&Reverse((_, conn))| conn)
    }
}

impl<N: Net> Shard<N> {
    pub(super) fn handle_tick(&mut self) {
        self.clock.set_unix(self.net.unix_now());
        self.shared.lifecycle.heartbeats.beat_shard(self.clock.instant(), self.id);
        self.meet_deadlines();
        self.end_throttles();
        self.retry_budget();
        self.resume_listening();
        self.drain_on();
        self.net.want_less();
        if self.clock.tick() >= self.clock.second_due {
            self.clock.second_due = self.clock.tick_after(Duration::from_secs(1));
            self.report_usage();
            self.forget_empty_sessions();
            self.publish_counters();
            self.log_held_back();
            self.budget.trim();
        }
        let fine = !self.throttled.heap.is_empty() || !self.waiters.is_empty() || self.is_draining();
        self.net.tick_in(if fine { FINE_TICK } else { TICK });
    }

    /// Pauses a connection's reading until `wait` has passed.
    pub(super) fn throttle(&mut self, conn: Conn, wait: Duration) {
        self.throttled.heap.push(Reverse((self.clock.now() + wait, conn)));
    }

    fn end_throttles(&mut self) {
        while let Some(&Reverse((due, conn))) = self.throttled.heap.peek() {
            if due > self.clock.now() {
                return;
            }
            self.throttled.heap.pop();
            if let Some(connection) = self.connections.get_mut(conn)
                && connection.pauses.remove(Pauses::RATE)
            {
                self.readable.push(conn);
            }
        }
    }

    /// Sees to it that the connection is looked at no later than at tick `due`.
    pub(super) fn watch(&mut self, conn: Conn, due: u32) {
        let connection = &self.connections[conn];
        if matches!(connection.phase(), Phase::Open | Phase::Echo) && due < self.wheel.due(conn) {
            self.wheel.arm(conn, due);
        }
    }

    fn meet_deadlines(&mut self) {
        let mut met = Vec::new();
        self.wheel.advance(self.clock.tick(), &mut met);
        for index in met {
            if let Some(conn) = self.connections.at(index) {
                self.handle_deadline(conn);
            }
        }
    }

    fn handle_deadline(&mut self, conn: Conn) {
        let phase = self.connections[conn].phase();
        match phase {
            Phase::Open | Phase::Echo => self.look_after(conn),
            Phase::Auth | Phase::Moving if self.is_draining() => self.close(conn, CloseReason::Restart),
            Phase::Auth | Phase::Moving => self.close(conn, CloseReason::AuthTimeout),
            Phase::Slowed => self.finish_refusal(conn),
            Phase::Held => self.release_answer(conn),
            Phase::Answering => self.end(conn, CloseReason::SlowConsumer),
            Phase::Handshake => {
                self.count_handshake(Outcome::TimedOut);
                self.end(conn, CloseReason::Handshake);
            }
            Phase::Closing if self.keeps_until_sent(conn) => {}
            Phase::Header => self.end(conn, CloseReason::NoHeader),
            Phase::Http => self.end_unheard(conn),
            Phase::AwaitingControl | Phase::Closing => self.end(conn, CloseReason::Gone),
            Phase::Dead => {}
        }
    }

    /// Looks at all that can come due for a connection that is up, pings it if it is time, and sets the next deadline.
    fn look_after(&mut self, conn: Conn) {
        let tick = self.clock.tick();
        let idle_ticks = ticks(self.settings.idle_timeout);
        let ping_ticks = ticks(self.settings.ping_interval);
        let connection = &mut self.connections[conn];
        if connection.pauses.any() {
            // It is not being read: its silence is ours.
            connection.last_heard = tick;
        }
        let mut next = NONE;
        if idle_ticks > 0 {
            let silent_at = connection.last_heard.saturating_add(idle_ticks);
            if silent_at <= tick {
                return self.end(conn, CloseReason::Silent);
            }
            next = next.min(silent_at);
        }
        if let Some(outbox) = self.outboxes.get_mut(connection.outbox)
            && outbox.blocked
        {
            if outbox.write_due <= tick {
                let unacknowledged = self.net.unacknowledged_bytes(conn).unwrap_or(usize::MAX);
                let wanted = TAKEN_BYTES_MIN.max(outbox.most_bytes / WRITE_TIMEOUTS_MAX);
                if unacknowledged.saturating_add(wanted) > outbox.unacknowledged_bytes {
                    return self.end(conn, CloseReason::SlowConsumer);
                }
                outbox.unacknowledged_bytes = unacknowledged;
                outbox.write_due = self.clock.tick_after(self.settings.write_timeout);
            }
            next = next.min(outbox.write_due);
        }
        if let Some(pending) = connection.inbox.as_ref().and_then(|inbox| inbox.pending.as_ref()) {
            if pending.due <= tick {
                self.refuse_pending(conn);
            } else {
                next = next.min(pending.due);
            }
        }
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if let Some(partial) = connection.inbox.as_ref().and_then(|inbox| inbox.partial.as_ref()) {
            if partial.due <= tick {
                return self.close(conn, CloseReason::MessageTimeout);
            }
            next = next.min(partial.due);
        }
        if ping_ticks > 0 {
            let is_due = connection.due <= tick;
            if is_due {
                connection.due = tick + ping_ticks;
            }
            next = next.min(connection.due);
            if is_due {
                self.push_control(conn, &frame_of(Opcode::Ping, b""));
            }
        } else {
            self.connections[conn].due = next;
        }
        if next != NONE {
            self.wheel.arm(conn, next);
        }
    }
}

/// Whole ticks of a timeout, at least one; 0 for none.
pub(super) fn ticks(timeout: Duration) -> u32 {
    timeout.as_millis().div_ceil(TICK.as_millis()).try_into().unwrap_or(NONE)
}
