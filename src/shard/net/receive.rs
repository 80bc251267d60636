//! Receiving: which receive a connection should have under way, and what each one brought.
//!
//! Before authentication single receives, so that there is nothing to cancel when a connection moves; then a multishot
//! into the pool's buffers; and for what is still to come of a large message, receives straight into its allocation.

use super::connection::{NONE, Phase, Receiving};
use crate::ring::chunk::{Chunk, OwnedBuf};
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::bounds::{DIRECT_BYTES_MIN, DIRECT_READS_A_TURN, GLANCE_BYTES};
use crate::shard::close::CloseReason;
use crate::shard::forward::inbox::Inbox;
use rustix::io::Errno;
use std::io;

impl<N: Net> Shard<N> {
    pub(in crate::shard) fn handle_received(&mut self, conn: Conn, data: io::Result<Option<Chunk>>, more: bool) {
        let connection = &mut self.connections[conn];
        if !more {
            connection.receiving = Receiving::Idle;
        }
        if let Ok(Some(chunk)) = &data {
            // All has been read that was there: it has caught up.
            connection.paced &= more || chunk.len() >= GLANCE_BYTES as usize;
        }
        match data {
            Ok(Some(chunk)) if connection.tls == NONE => self.handle_bytes(conn, chunk),
            Ok(Some(chunk)) => self.handle_sealed(conn, chunk),
            Ok(None) => self.end(conn, CloseReason::Gone),
            // Out of buffers, or cancelled: armed again below if it should be.
            Err(error) if is_passing(&error) => {}
            Err(_) => self.end(conn, CloseReason::Gone),
        }
        match self.connections.get(conn) {
            // The rest of the message has perhaps come with the same turn.
            Some(connection) if more && connection.inbox.is_some() => self.partial_reads.push(conn),
            _ => self.arm(conn),
        }
    }

    /// Looks at the end of a turn at those of whom only a part of something came.
    pub(in crate::shard) fn arm_partial_reads(&mut self) {
        while let Some(conn) = self.partial_reads.pop() {
            self.arm(conn);
        }
    }

    pub(in crate::shard) fn handle_filled(&mut self, conn: Conn, buf: OwnedBuf, count: io::Result<usize>) {
        let connection = &mut self.connections[conn];
        connection.receiving = Receiving::Idle;
        connection.last_heard = self.pulse.tick();
        let checked = connection.phase() != Phase::Echo;
        match count {
            Ok(0) => self.end(conn, CloseReason::Gone),
            Ok(count) => {
                if let Some(partial) = connection.inbox.as_mut().and_then(|inbox| inbox.partial.as_mut()) {
                    partial.take_filled(buf, count, checked);
                    self.after_piece(conn);
                }
            }
            Err(error) if is_passing(&error) => {
                if let Some(partial) = connection.inbox.as_mut().and_then(|inbox| inbox.partial.as_mut()) {
                    partial.buf = Some(buf);
                }
            }
            Err(_) => self.end(conn, CloseReason::Gone),
        }
        self.arm(conn);
    }

    /// Sees to it that the connection is being received from in the way that it should be.
    pub(in crate::shard) fn arm(&mut self, conn: Conn) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let holds_back = connection.inbox.as_ref().is_some_and(|inbox| inbox.holds_back());
        let reads = !connection.pauses.any() && !holds_back;
        // What is thrown away comes in small pieces: it is to keep nobody waiting.
        let skips = connection.inbox.as_ref().is_some_and(|inbox| inbox.skips());
        let direct = match &connection.inbox {
            // Records have to be opened before anything of a message can be kept.
            Some(inbox) if reads && connection.tls == NONE => inbox.direct_bytes(),
            _ => None,
        };
        match connection.receiving {
            Receiving::Multishot if !reads || direct.is_some() || skips => {
                connection.receiving = Receiving::Cancelling;
                self.net.cancel_receive(conn);
            }
            Receiving::Idle => match connection.phase() {
                Phase::Handshake if self.tls.is_ready(connection.tls) => {}
                Phase::Header | Phase::Handshake | Phase::Http | Phase::Auth | Phase::Closing if reads => {
                    connection.receiving = Receiving::Once;
                    self.net.receive_once(conn);
                }
                Phase::Open | Phase::Echo if reads => {
                    if direct.is_some() {
                        connection.receiving = Receiving::Queued;
                        self.direct_reads.push_back(conn);
                    } else if connection.bulk || connection.paced || skips {
                        connection.receiving = Receiving::Once;
                        self.net.receive_once(conn);
                    } else {
                        connection.receiving = Receiving::Multishot;
                        self.net.receive(conn);
                    }
                }
                Phase::Moving => self.try_move(conn),
                _ => {}
            },
            _ => {}
        }
    }

    /// Starts a turn's share of the receives that go straight into an allocation. Few at a time: each brings up to a whole
    /// message, which is unmasked, checked and sent while it is in the cache.
    pub(in crate::shard) fn start_direct_reads(&mut self) {
        for _ in 0..DIRECT_READS_A_TURN {
            let Some(conn) = self.direct_reads.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(conn) else { continue };
            if connection.receiving != Receiving::Queued {
                continue;
            }
            connection.receiving = Receiving::Idle;
            let inbox = connection.inbox.as_mut().filter(|_| !connection.pauses.any());
            if let Some(inbox) = inbox
                && let Some(bytes_max) = inbox.direct_bytes()
                && let Some(mut buf) = inbox.partial.as_mut().and_then(|partial| partial.buf.take())
            {
                buf.make_room(bytes_max);
                connection.receiving = Receiving::Filling;
                self.net.fill(conn, buf, bytes_max);
            } else {
                self.arm(conn);
            }
        }
    }
}

impl Inbox {
    /// How many bytes can be received straight into the message under way; `None`: too few for that.
    fn direct_bytes(&self) -> Option<usize> {
        let partial = self.partial.as_ref().filter(|partial| partial.skipped.is_none() && self.head.is_empty())?;
        let left = partial.frame?.left;
        // Once begun, the message is received that way to its end.
        let enough = left >= DIRECT_BYTES_MIN || (partial.direct && left > 0);
        enough.then(|| usize::try_from(left).unwrap_or(usize::MAX))
    }
}

/// Out of buffers, cancelled or interrupted: nothing is wrong with the connection.
fn is_passing(error: &io::Error) -> bool {
    let passing = [Errno::NOBUFS, Errno::CANCELED, Errno::INTR, Errno::AGAIN];
    error.raw_os_error().is_some_and(|code| passing.iter().any(|errno| errno.raw_os_error() == code))
}
