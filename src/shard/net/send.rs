//! The way out: outboxes are filled during a turn and flushed at its end.

use super::connection::{NONE, Pauses, Phase, Seat};
use super::outbox::{Outbox, Pushed};
use crate::proto::frame::Opcode;
use crate::ring::chunk::{Chunk, Outgoing, OwnedBuf};
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::close::CloseReason;
use crate::shard::mutation::{Mutation, is_made};
use rustix::io::Errno;
use std::io;

/// The outboxes in use, and those that wait to be used again.
#[derive(Default)]
pub(in crate::shard) struct Outboxes {
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

    fn give_back(&mut self, index: u32) {
        self.all[index as usize].reset();
        self.free.push(index);
    }

    /// How many are in use, and how many are to be flushed.
    #[cfg(test)]
    pub(in crate::shard) fn sizes(&self) -> (usize, usize) {
        (self.all.len() - self.free.len(), self.dirty.len())
    }

    /// Bytes in all of them, and how many do not get rid of theirs.
    pub(in crate::shard) fn queued(&self) -> (u64, u64) {
        let blocked = self.all.iter().filter(|outbox| outbox.blocked).count();
        (self.all.iter().map(|outbox| outbox.bytes() as u64).sum(), blocked as u64)
    }

    pub(in crate::shard) fn get(&self, index: u32) -> Option<&Outbox> {
        self.all.get(index as usize)
    }

    pub(in crate::shard) fn get_mut(&mut self, index: u32) -> Option<&mut Outbox> {
        self.all.get_mut(index as usize)
    }
}

impl<N: Net> Shard<N> {
    /// Queues whole frames for a connection.
    pub(in crate::shard) fn push(&mut self, conn: Conn, chunk: Chunk) -> Pushed {
        self.filled(conn, |outbox| outbox.push(chunk))
    }

    /// Queues a message that stands in an allocation of its own.
    pub(in crate::shard) fn push_message(&mut self, conn: Conn, message: OwnedBuf, opcode: Opcode) -> Pushed {
        self.filled(conn, |outbox| outbox.push_message(message, opcode))
    }

    /// Queues a frame of the relay's own; who makes it write too many of them is not read until they have been sent.
    pub(in crate::shard) fn push_own(&mut self, conn: Conn, frame: Vec<u8>) {
        let pushed = self.filled(conn, |outbox| outbox.push_own(frame));
        self.mind_pressure(conn, conn, pushed);
    }

    /// As [`Shard::push_own`], before the next frame that is queued.
    pub(in crate::shard) fn push_control(&mut self, conn: Conn, frame: &[u8]) {
        let pushed = self.filled(conn, |outbox| outbox.push_control(frame));
        self.mind_pressure(conn, conn, pushed);
    }

    /// Stops reading from `conn` if what it made the relay queue toward `to` is above the high-water mark.
    pub(in crate::shard) fn mind_pressure(&mut self, conn: Conn, to: Conn, pushed: Pushed) {
        if pushed == Pushed::UnderPressure {
            let reason = if conn == to { Pauses::OWN } else { Pauses::PEER };
            let pauses = &mut self.connections[conn].pauses;
            let before = *pauses;
            pauses.insert(reason);
            self.counters.high_water[usize::from(conn == to)] += u64::from(*pauses != before);
        }
    }

    pub(in crate::shard) fn filled(&mut self, conn: Conn, fill: impl FnOnce(&mut Outbox) -> Pushed) -> Pushed {
        let connection = &mut self.connections[conn];
        if connection.outbox == NONE {
            connection.outbox = self.outboxes.take();
        }
        let outbox = &mut self.outboxes.all[connection.outbox as usize];
        if outbox.finish || connection.phase() == Phase::Dead {
            // Behind a close frame nothing is sent.
            return Pushed::Queued;
        }
        if !outbox.dirty {
            outbox.dirty = true;
            self.outboxes.dirty.push(conn);
        }
        fill(outbox)
    }

    /// Queues records of TLS that leave with whatever is queued next.
    pub(in crate::shard) fn keep_sealed(&mut self, conn: Conn, records: Vec<u8>) {
        let connection = &mut self.connections[conn];
        if connection.outbox == NONE {
            connection.outbox = self.outboxes.take();
        }
        self.outboxes.all[connection.outbox as usize].push_sealed(OwnedBuf::from(records));
    }

    /// When all that is queued has been sent, the write side is shut and the client's end is awaited.
    pub(in crate::shard) fn finish_outbox(&mut self, conn: Conn) {
        let connection = &mut self.connections[conn];
        if connection.outbox == NONE {
            connection.outbox = self.outboxes.take();
        }
        let outbox = &mut self.outboxes.all[connection.outbox as usize];
        outbox.finish = true;
        if !outbox.dirty {
            outbox.dirty = true;
            self.outboxes.dirty.push(conn);
        }
    }

    /// Hands to the ring what was queued: one send for each socket.
    pub(in crate::shard) fn flush(&mut self) {
        let mut at = 0;
        // A connection for which nothing can be sealed any more ends here; what its peer is told of that comes last.
        while let Some(&conn) = self.outboxes.dirty.get(at) {
            at += 1;
            self.flush_one(conn);
        }
        self.outboxes.dirty.clear();
    }

    fn flush_one(&mut self, conn: Conn) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let Some(outbox) = self.outboxes.all.get_mut(connection.outbox as usize) else { return };
        if !std::mem::take(&mut outbox.dirty) {
            return;
        }
        if outbox.blocked {
            outbox.copy_slices(self.memory.budget());
        }
        if outbox.sending || connection.phase() == Phase::Dead {
            return;
        }
        let outgoing = match connection.tls {
            NONE => outbox.poll_send(),
            tls => match self.tls.poll_send(tls, outbox, self.memory.budget()) {
                Ok(outgoing) => outgoing,
                Err(fault) => {
                    tracing::debug!(%fault, "nothing can be sealed any more");
                    return self.end(conn, CloseReason::Tls);
                }
            },
        };
        if let Some(outgoing) = outgoing {
            outbox.sending = true;
            let wait = outbox.blocked;
            self.net.send(conn, outgoing, wait);
        } else if outbox.finish {
            self.net.shut_writing(conn);
        } else {
            self.let_outbox_go(conn);
        }
    }

    pub(in crate::shard) fn let_outbox_go(&mut self, conn: Conn) {
        let connection = &mut self.connections[conn];
        let index = std::mem::replace(&mut connection.outbox, NONE);
        if index != NONE {
            self.outboxes.give_back(index);
        }
    }

    pub(in crate::shard) fn handle_sent(&mut self, conn: Conn, outgoing: Outgoing, count: io::Result<usize>) {
        let connection = &self.connections[conn];
        let (index, phase) = (connection.outbox, connection.phase());
        let Some(outbox) = self.outboxes.all.get_mut(index as usize) else { return };
        let length = outgoing.len();
        let (sent, failed) = match count {
            Ok(sent) => (sent, false),
            Err(error) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => (0, false),
            Err(_) => (0, true),
        };
        outbox.handle_sent(outgoing, sent);
        if failed {
            self.end(conn, CloseReason::Gone);
            return;
        }
        let was_blocked = std::mem::replace(&mut outbox.blocked, sent < length);
        if outbox.blocked && was_blocked {
            outbox.unacknowledged_bytes += sent;
            outbox.taken_bytes += sent as u64;
        } else if outbox.blocked {
            outbox.blocked_since = self.pulse.tick();
            (outbox.taken_bytes, outbox.most_bytes) = (0, outbox.bytes());
            outbox.write_due = self.pulse.tick_after(self.settings.write_timeout);
            outbox.unacknowledged_bytes = self.net.unacknowledged_bytes(conn).unwrap_or(0);
            let due = outbox.write_due;
            self.watch(conn, due);
        }
        let Some(outbox) = self.outboxes.all.get_mut(index as usize) else { return };
        if outbox.poll_relief() {
            self.relieve(conn);
        }
        let Some(outbox) = self.outboxes.all.get_mut(index as usize) else { return };
        if !outbox.is_empty() || outbox.finish {
            if !outbox.dirty {
                outbox.dirty = true;
                self.outboxes.dirty.push(conn);
            }
        } else if !outbox.dirty {
            self.let_outbox_go(conn);
            match phase {
                Phase::Moving => self.try_move(conn),
                Phase::Answering => self.go_on_answering(conn),
                _ => {}
            }
        }
    }

    /// The outbox of `conn` has room again: who fills it may be read again.
    pub(in crate::shard) fn relieve(&mut self, conn: Conn) {
        let connection = &mut self.connections[conn];
        if connection.pauses.remove(Pauses::OWN) {
            self.readable.push(conn);
        }
        if let Some(seat) = connection.seat() {
            self.relieve_peers(seat);
        }
    }

    /// The outbox of who has this seat has room again, or is gone: the peers, who filled it, may be read again.
    pub(in crate::shard) fn relieve_peers(&mut self, Seat { session, role }: Seat) {
        let Some(live) = self.sessions.session(session) else { return };
        for filler in live.session.connections(role.peer()) {
            if self.connections[filler].pauses.remove(Pauses::PEER) && !is_made(Mutation::LostRelief) {
                self.readable.push(filler);
            }
        }
    }
}
