//! Receiving: which receive a connection should have under way, and what each one brought.
//!
//! Before authentication single receives, so that there is nothing to cancel when a connection moves; then a multishot
//! into the pool's buffers; and for what is still to come of a large message, receives straight into its allocation.

use super::Transport;
use super::connection::{NONE, Phase, Receiving};
use crate::ring::chunk::{Chunk, OwnedBuf};
use crate::ring::{Conn, Net};
use crate::shard::bounds::{DIRECT_READS_A_TURN, GLANCE_BYTES};
use rustix::io::Errno;
use std::io;

/// What a receive came to.
pub(in crate::shard) enum Received {
    /// Bytes that are to be read as they are.
    Plain(Chunk),
    /// Bytes of TLS.
    Sealed(Chunk),
    /// Out of buffers, or cancelled: it is armed again if it should be.
    Nothing,
    /// The connection is gone.
    Gone,
}

/// What a receive straight into an allocation came to.
pub(in crate::shard) enum Filled {
    /// So many bytes behind those that it had.
    Bytes(OwnedBuf, usize),
    /// None; it is armed again if it should be.
    Nothing(OwnedBuf),
    /// The connection is gone.
    Gone,
}

impl<N: Net> Transport<N> {
    /// A receive has brought something; `more` if it goes on.
    #[inline]
    pub(in crate::shard) fn handle_received(
        &mut self,
        conn: Conn,
        data: io::Result<Option<Chunk>>,
        more: bool,
    ) -> Received {
        let connection = &mut self.connections[conn];
        if !more {
            connection.receiving = Receiving::Idle;
        }
        if let Ok(Some(chunk)) = &data {
            // All has been read that was there: it has caught up.
            connection.paced &= more || chunk.len() >= GLANCE_BYTES as usize;
        }
        match data {
            Ok(Some(chunk)) if connection.tls == NONE => Received::Plain(chunk),
            Ok(Some(chunk)) => Received::Sealed(chunk),
            Err(error) if is_passing(&error) => Received::Nothing,
            Ok(None) | Err(_) => Received::Gone,
        }
    }

    /// Puts a connection off to the end of the turn of which only a part of something came, for the rest has perhaps come
    /// with the same turn. Whether it did.
    #[inline]
    pub(in crate::shard) fn defer_arming(&mut self, conn: Conn) -> bool {
        let is_partial = self.connections.get(conn).is_some_and(|connection| connection.inbox.is_some());
        if is_partial {
            self.partial_reads.push(conn);
        }
        is_partial
    }

    /// One that was put off by [`Transport::defer_arming`].
    #[inline]
    pub(in crate::shard) fn poll_partial_read(&mut self) -> Option<Conn> {
        self.partial_reads.pop()
    }

    /// A receive straight into an allocation has ended.
    pub(in crate::shard) fn handle_filled(&mut self, conn: Conn, buf: OwnedBuf, count: io::Result<usize>) -> Filled {
        self.connections[conn].receiving = Receiving::Idle;
        match count {
            Ok(0) => Filled::Gone,
            Ok(count) => Filled::Bytes(buf, count),
            Err(error) if is_passing(&error) => Filled::Nothing(buf),
            Err(_) => Filled::Gone,
        }
    }

    /// Sees to it that the connection is being received from in the way that it should be. `true`: nothing is received from
    /// it, for it is to move.
    #[inline]
    pub(in crate::shard) fn arm(&mut self, conn: Conn) -> bool {
        let Some(connection) = self.connections.get_mut(conn) else { return false };
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
                self.driver.cancel_receive(conn);
            }
            Receiving::Idle => match connection.phase() {
                Phase::Handshake if self.tls.is_ready(connection.tls) => {}
                Phase::Header | Phase::Handshake | Phase::Http | Phase::Auth | Phase::Closing if reads => {
                    connection.receiving = Receiving::Once;
                    self.driver.receive_once(conn);
                }
                Phase::Open | Phase::Echo if reads => {
                    if direct.is_some() {
                        connection.receiving = Receiving::Queued;
                        self.direct_reads.push_back(conn);
                    } else if connection.bulk || connection.paced || skips {
                        connection.receiving = Receiving::Once;
                        self.driver.receive_once(conn);
                    } else {
                        connection.receiving = Receiving::Multishot;
                        self.driver.receive(conn);
                    }
                }
                Phase::Moving => return true,
                _ => {}
            },
            _ => {}
        }
        false
    }

    /// Starts a turn's share of the receives that go straight into an allocation. Few at a time: each brings up to a whole
    /// message, which is unmasked, checked and sent while it is in the cache.
    #[inline]
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
                self.driver.fill(conn, buf, bytes_max);
            } else {
                // Who receives that way is past the phase in which connections move.
                self.arm(conn);
            }
        }
    }
}

/// Out of buffers, cancelled or interrupted: nothing is wrong with the connection.
fn is_passing(error: &io::Error) -> bool {
    let passing = [Errno::NOBUFS, Errno::CANCELED, Errno::INTR, Errno::AGAIN];
    error.raw_os_error().is_some_and(|code| passing.iter().any(|errno| errno.raw_os_error() == code))
}
