//! What comes due: deadlines, pings, and what is done once a second.

use super::Shard;
use super::bounds::{FINE_TICK, TICK};
use super::close::CloseReason;
use super::net::connection::{NONE, Pauses, Phase};
use super::net::send::Writing;
use crate::proto::frame::Opcode;
use crate::ring::{Conn, Net};
use crate::session::message::frame_of;
use crate::tls::outcome::Outcome;
use std::time::Duration;

impl<N: Net> Shard<N> {
    pub(super) fn handle_tick(&mut self) {
        self.pulse.set_unix(self.net.unix_now());
        self.shared.lifecycle.heartbeats.beat_shard(self.pulse.instant(), self.id);
        self.meet_deadlines();
        self.end_throttles();
        self.retry_budget();
        self.resume_listening();
        self.drain_on();
        self.net.want_less();
        if self.pulse.poll_second() {
            self.report_usage();
            self.report_seen();
            self.expire_pending();
            self.expire_reads();
            self.sessions.forget_empty(&self.pulse);
            self.publish_counters();
            self.log.end_second(self.pulse.instant());
            self.memory.trim();
        }
        self.read_pages();
        let fine = self.pulse.is_throttling() || self.memory.is_wanted() || self.is_draining();
        self.net.tick_in(if fine { FINE_TICK } else { TICK });
    }

    fn end_throttles(&mut self) {
        while let Some(conn) = self.pulse.poll_throttled() {
            self.net.unpause(conn, Pauses::RATE);
        }
    }

    /// Sees to it that the connection is looked at no later than at tick `due`.
    pub(super) fn watch(&mut self, conn: Conn, due: u32) {
        let connection = &self.net[conn];
        if matches!(connection.phase(), Phase::Open | Phase::Echo) && due < self.pulse.due(conn) {
            self.pulse.arm(conn, due);
        }
    }

    fn meet_deadlines(&mut self) {
        for index in self.pulse.poll_due() {
            if let Some(conn) = self.net.at(index) {
                self.handle_deadline(conn);
            }
        }
    }

    fn handle_deadline(&mut self, conn: Conn) {
        let phase = self.net[conn].phase();
        match phase {
            Phase::Open | Phase::Echo => self.look_after(conn),
            Phase::Auth | Phase::Moving if self.is_draining() => self.close(conn, CloseReason::Restart),
            Phase::Auth | Phase::Moving => self.close(conn, CloseReason::AuthTimeout),
            Phase::Slowed => self.finish_refusal(conn),
            Phase::Held => self.release_answer(conn),
            Phase::Answering => self.end(conn, CloseReason::SlowConsumer),
            Phase::Handshake => {
                self.counters.handshake_ended(Outcome::TimedOut);
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
        let tick = self.pulse.tick();
        let idle_ticks = ticks(self.settings.idle_timeout);
        let ping_ticks = ticks(self.settings.ping_interval);
        let connection = &mut self.net[conn];
        if connection.is_paused() {
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
        match self.check_writing(conn) {
            Writing::Flows => {}
            Writing::Until(due) => next = next.min(due),
            Writing::Stuck => return self.end(conn, CloseReason::SlowConsumer),
        }
        if let Some(pending) = self.net[conn].inbox.as_ref().and_then(|inbox| inbox.pending.as_ref()) {
            if pending.due <= tick {
                self.refuse_pending(conn);
            } else {
                next = next.min(pending.due);
            }
        }
        let Some(connection) = self.net.get_mut(conn) else { return };
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
                self.net.push_control(conn, &frame_of(Opcode::Ping, b""));
            }
        } else {
            self.net[conn].due = next;
        }
        if next != NONE {
            self.pulse.arm(conn, next);
        }
    }
}

/// Whole ticks of a timeout, at least one; 0 for none.
pub(super) fn ticks(timeout: Duration) -> u32 {
    timeout.as_millis().div_ceil(TICK.as_millis()).try_into().unwrap_or(NONE)
}
