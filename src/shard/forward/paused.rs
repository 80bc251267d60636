//! Connections whose reading is paused: what they have sent waits, counted, and is taken in order when reading goes on.

use crate::proto::envelope;
use crate::ring::chunk::{Chunk, OwnedBuf};
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::bounds::{BACKLOG_SHARE, BACKLOG_SHARE_SCARCE};
use crate::shard::close::CloseReason;
use crate::shard::net::connection::{Pauses, Phase};
use std::collections::VecDeque;

impl<N: Net> Shard<N> {
    /// Keeps bytes that cannot be looked at now, at the end of what waits or in front of it. Where all that waits on the
    /// shard is too much, a connection with more than its share of that is closed.
    pub(super) fn keep_waiting(&mut self, conn: Conn, chunk: Chunk, put: fn(&mut VecDeque<OwnedBuf>, OwnedBuf)) {
        let own_bytes = self.inbox(conn).waiting_bytes() + chunk.len();
        let share = match self.memory.backlog().used_bytes() / self.memory.backlog().bytes_max() {
            0 => usize::MAX,
            1 => BACKLOG_SHARE,
            _ => BACKLOG_SHARE_SCARCE,
        };
        if own_bytes > share {
            return self.close(conn, CloseReason::Backlog);
        }
        let buf = match chunk {
            Chunk::Slice(slice) => {
                let bytes = slice.as_slice();
                OwnedBuf::reserved(bytes.to_vec(), self.memory.backlog().charge(bytes.len()))
            }
            Chunk::Owned(mut buf) => {
                // It is counted already if it has waited before.
                if buf.reserved_bytes() == 0 {
                    buf.reserve_more(self.memory.backlog().charge(buf.as_slice().len()));
                }
                buf
            }
        };
        put(&mut self.inbox(conn).waiting, buf);
    }

    /// Pauses reading until `wait` has passed.
    pub(super) fn slow_down(&mut self, conn: Conn, wait: std::time::Duration) {
        self.net[conn].pace();
        self.net.pause(conn, Pauses::RATE);
        self.pulse.throttle(conn, wait);
    }

    /// Goes on with connections whose reading was paused.
    pub(in crate::shard) fn resume_all(&mut self) {
        while let Some(conn) = self.net.poll_readable() {
            self.resume(conn);
        }
    }

    pub(super) fn resume(&mut self, conn: Conn) {
        let Some(connection) = self.net.get_mut(conn) else { return };
        if connection.is_paused() {
            return;
        }
        connection.last_heard = self.pulse.tick();
        if connection.phase() == Phase::Http {
            self.resume_requests(conn);
        }
        self.read_waiting(conn);
        self.tidy_inbox(conn);
        self.arm(conn);
    }

    /// Takes what has waited, in the order that it came in, until something has to go on waiting.
    fn read_waiting(&mut self, conn: Conn) {
        let mut share = self.turns.share();
        let Some(inbox) = &mut self.net[conn].inbox else { return };
        if let Some(pending) = &inbox.pending {
            let (header, in_hand) = (pending.header, inbox.waiting_bytes());
            self.begin_frame(conn, header, in_hand);
        } else if let Some((buf, opcode)) = inbox.ready.take() {
            share.take_frame(buf.as_slice().len());
            self.hand_on(conn, buf, opcode, envelope::peek);
        }
        loop {
            let connection = &mut self.net[conn];
            if connection.is_paused() {
                return;
            }
            let Some(buf) = connection.inbox.as_mut().and_then(|inbox| inbox.waiting.pop_front()) else { return };
            self.read_frames(conn, Chunk::Owned(buf), &mut share);
        }
    }
}
