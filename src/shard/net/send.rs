//! The way out: outboxes are filled during a turn and flushed at its end.

use super::Transport;
use super::connection::{NONE, Pauses};
use super::outbox::{Outbox, Pushed};
use crate::proto::frame::Opcode;
use crate::ring::chunk::{Budget, Chunk, Outgoing, OwnedBuf};
use crate::ring::{Conn, Net};
use crate::shard::bounds::{TAKEN_BYTES_MIN, WRITE_TIMEOUTS_MAX};
use crate::shard::pulse::Pulse;
use crate::tls::fault::Fault;
use rustix::io::Errno;
use std::io;
use std::time::Duration;

/// The outboxes in use, and those that wait to be used again.
#[derive(Default)]
pub(super) struct Outboxes {
    all: Vec<Outbox>,
    free: Vec<u32>,
    /// Connections whose outbox was filled since the last flush.
    dirty: Vec<Conn>,
}

impl Outboxes {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.all.push(Outbox::default());
            (self.all.len() - 1) as u32
        })
    }

    /// The outbox of that index, of `conn`, for something to be put into it.
    fn fill(&mut self, index: &mut u32, conn: Conn) -> &mut Outbox {
        if *index == NONE {
            *index = self.take();
        }
        self.mark(*index, conn)
    }

    /// Sees to it that the outbox is flushed.
    #[inline]
    fn mark(&mut self, index: u32, conn: Conn) -> &mut Outbox {
        let outbox = &mut self.all[index as usize];
        if !outbox.dirty {
            outbox.dirty = true;
            self.dirty.push(conn);
        }
        outbox
    }

    fn give_back(&mut self, index: u32) {
        self.all[index as usize].reset();
        self.free.push(index);
    }

    /// How many are in use, and how many are to be flushed.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.all.len() - self.free.len(), self.dirty.len())
    }

    /// Bytes in all of them, and how many do not get rid of theirs.
    pub(super) fn queued(&self) -> (u64, u64) {
        let blocked = self.all.iter().filter(|outbox| outbox.blocked).count();
        (self.all.iter().map(|outbox| outbox.bytes() as u64).sum(), blocked as u64)
    }

    pub(super) fn get(&self, index: u32) -> Option<&Outbox> {
        self.all.get(index as usize)
    }
}

/// What has become of an outbox after a send.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::shard) struct Sent {
    /// Its socket has just stopped taking everything: the tick at which it has taken too long.
    pub(in crate::shard) blocked_until: Option<u32>,
    /// It has room again for those who fill it.
    pub(in crate::shard) is_relieved: bool,
    /// Nothing is queued any more.
    pub(in crate::shard) is_empty: bool,
}

/// How a socket takes what is queued for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Writing {
    /// At once.
    Flows,
    /// It is looked at again at this tick.
    Until(u32),
    /// Not at all, for too long.
    Stuck,
}

impl<N: Net> Transport<N> {
    /// Queues whole frames of `from` for a connection; whether they stand behind what is being sent already.
    #[inline]
    pub(in crate::shard) fn push(&mut self, from: Conn, to: Conn, chunk: Chunk) -> bool {
        self.filled(from, to, |outbox| outbox.push(chunk))
    }

    /// Queues a message of `from` that stands in an allocation of its own. As [`Transport::push`].
    pub(in crate::shard) fn push_message(&mut self, from: Conn, to: Conn, message: OwnedBuf, opcode: Opcode) -> bool {
        self.filled(from, to, |outbox| outbox.push_message(message, opcode))
    }

    /// Queues a frame of the relay's own; who makes it write too many of them is not read until they have been sent.
    pub(in crate::shard) fn push_own(&mut self, conn: Conn, frame: Vec<u8>) {
        self.filled(conn, conn, |outbox| outbox.push_own(frame));
    }

    /// As [`Transport::push_own`], before the next frame that is queued.
    pub(in crate::shard) fn push_control(&mut self, conn: Conn, frame: &[u8]) {
        self.filled(conn, conn, |outbox| outbox.push_control(frame));
    }

    /// Queues bytes that are to leave as they are.
    pub(in crate::shard) fn push_sealed(&mut self, conn: Conn, bytes: Vec<u8>) {
        self.filled(conn, conn, |outbox| outbox.push_own_sealed(bytes));
    }

    /// Fills the outbox of `to`, and stops reading from `from` if what it made the relay queue there is above the high-water
    /// mark. Whether a send was under way.
    #[inline]
    fn filled(&mut self, from: Conn, to: Conn, fill: impl FnOnce(&mut Outbox) -> Pushed) -> bool {
        let connection = &mut self.connections[to];
        let is_dead = connection.is_dead();
        if connection.outbox == NONE {
            connection.outbox = self.outboxes.take();
        }
        let index = connection.outbox;
        if is_dead || self.outboxes.all[index as usize].finish {
            // Behind a close frame nothing is sent.
            return false;
        }
        let outbox = self.outboxes.mark(index, to);
        let was_sending = outbox.sending;
        if fill(outbox) == Pushed::UnderPressure {
            let reason = if from == to { Pauses::OWN } else { Pauses::PEER };
            let pauses = &mut self.connections[from].pauses;
            let before = *pauses;
            pauses.insert(reason);
            self.pressed[usize::from(from == to)] += u64::from(*pauses != before);
        }
        was_sending
    }

    /// Whether the outbox of a connection is above its high-water mark, or was and has not fallen below the low one.
    pub(in crate::shard) fn is_pressed(&self, conn: Conn) -> bool {
        let connection = self.connections.get(conn);
        connection.and_then(|connection| self.outboxes.get(connection.outbox)).is_some_and(Outbox::is_pressed)
    }

    /// Queues records of TLS that leave with whatever is queued next.
    pub(in crate::shard) fn keep_sealed(&mut self, conn: Conn, records: Vec<u8>) {
        let connection = &mut self.connections[conn];
        if connection.outbox == NONE {
            connection.outbox = self.outboxes.take();
        }
        self.outboxes.all[connection.outbox as usize].push_sealed(OwnedBuf::from(records));
    }

    /// Whatever still comes is thrown away. When all that is queued has been sent, the write side is shut, and the client's
    /// end is awaited.
    pub(in crate::shard) fn finish(&mut self, conn: Conn) {
        let connection = &mut self.connections[conn];
        connection.pauses = Pauses::default();
        connection.inbox = None;
        self.outboxes.fill(&mut connection.outbox, conn).finish = true;
    }

    /// From now on what is sent has to have been taken at tick `due`: what was taken before does not count.
    pub(in crate::shard) fn hasten(&mut self, due: u32) {
        for (conn, connection) in self.connections.iter() {
            let Some(outbox) = self.outboxes.all.get_mut(connection.outbox as usize) else { continue };
            if outbox.blocked {
                outbox.write_due = due;
                outbox.unacknowledged_bytes = self.driver.unacknowledged_bytes(conn).unwrap_or(0);
            }
        }
    }

    /// Whether something is queued or being sent.
    pub(in crate::shard) fn has_queued(&self, conn: Conn) -> bool {
        self.outboxes.get(self.connections[conn].outbox).is_some_and(|outbox| !outbox.is_empty())
    }

    /// Hands to the ring what was queued: one send for each socket, from place `at` of the list on. Stops at a connection for
    /// which nothing can be sealed any more: what follows from that comes last.
    #[inline]
    pub(in crate::shard) fn flush(&mut self, at: &mut usize, budget: &Budget) -> Option<(Conn, Fault)> {
        while let Some(&conn) = self.outboxes.dirty.get(*at) {
            *at += 1;
            if let Err(fault) = self.flush_one(conn, budget) {
                return Some((conn, fault));
            }
        }
        self.outboxes.dirty.clear();
        None
    }

    #[inline]
    fn flush_one(&mut self, conn: Conn, budget: &Budget) -> Result<(), Fault> {
        let Some(connection) = self.connections.get_mut(conn) else { return Ok(()) };
        let Some(outbox) = self.outboxes.all.get_mut(connection.outbox as usize) else { return Ok(()) };
        if !std::mem::take(&mut outbox.dirty) {
            return Ok(());
        }
        if outbox.blocked {
            outbox.copy_slices(budget);
        }
        if outbox.sending || connection.is_dead() {
            return Ok(());
        }
        let outgoing = match connection.tls {
            NONE => outbox.poll_send(),
            tls => self.tls.poll_send(tls, outbox, budget)?,
        };
        if let Some(outgoing) = outgoing {
            outbox.sending = true;
            let wait = outbox.blocked;
            self.driver.send(conn, outgoing, wait);
        } else if outbox.finish {
            self.driver.shut_writing(conn);
        } else {
            self.let_outbox_go(conn);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn let_outbox_go(&mut self, conn: Conn) {
        let connection = &mut self.connections[conn];
        let index = std::mem::replace(&mut connection.outbox, NONE);
        if index != NONE {
            self.outboxes.give_back(index);
        }
    }

    /// A send has ended; `None`: the connection is gone.
    #[inline]
    pub(in crate::shard) fn handle_sent(
        &mut self,
        conn: Conn,
        outgoing: Outgoing,
        count: io::Result<usize>,
        pulse: &Pulse,
        write_timeout: Duration,
    ) -> Option<Sent> {
        let mut after = Sent::default();
        let index = self.connections[conn].outbox;
        let Some(outbox) = self.outboxes.all.get_mut(index as usize) else { return Some(after) };
        let length = outgoing.len();
        let (sent, failed) = match count {
            Ok(sent) => (sent, false),
            Err(error) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => (0, false),
            Err(_) => (0, true),
        };
        outbox.handle_sent(outgoing, sent);
        if failed {
            return None;
        }
        let was_blocked = std::mem::replace(&mut outbox.blocked, sent < length);
        if outbox.blocked && was_blocked {
            outbox.unacknowledged_bytes += sent;
            outbox.taken_bytes += sent as u64;
        } else if outbox.blocked {
            outbox.blocked_since = pulse.tick();
            (outbox.taken_bytes, outbox.most_bytes) = (0, outbox.bytes());
            outbox.write_due = pulse.tick_after(write_timeout);
            outbox.unacknowledged_bytes = self.driver.unacknowledged_bytes(conn).unwrap_or(0);
            after.blocked_until = Some(outbox.write_due);
        }
        after.is_relieved = outbox.poll_relief();
        if !outbox.is_empty() || outbox.finish {
            self.outboxes.mark(index, conn);
        } else if !outbox.dirty {
            self.let_outbox_go(conn);
            after.is_empty = true;
        }
        if after.is_relieved {
            self.unpause(conn, Pauses::OWN);
        }
        Some(after)
    }

    /// Looks how a socket gets on that did not take everything at once.
    pub(in crate::shard) fn check_writing(&mut self, conn: Conn, pulse: &Pulse, write_timeout: Duration) -> Writing {
        let index = self.connections[conn].outbox;
        let blocked = self.outboxes.all.get_mut(index as usize).filter(|outbox| outbox.blocked);
        let Some(outbox) = blocked else { return Writing::Flows };
        if outbox.write_due <= pulse.tick() {
            let unacknowledged = self.driver.unacknowledged_bytes(conn).unwrap_or(usize::MAX);
            let wanted = TAKEN_BYTES_MIN.max(outbox.most_bytes / WRITE_TIMEOUTS_MAX);
            let takes = unacknowledged.saturating_add(wanted) <= outbox.unacknowledged_bytes;
            outbox.unacknowledged_bytes = unacknowledged;
            outbox.write_due = pulse.tick_after(write_timeout);
            if !takes {
                return Writing::Stuck;
            }
        }
        Writing::Until(outbox.write_due)
    }
}
