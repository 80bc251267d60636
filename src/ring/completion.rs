//! What a ring gives back: completions, and counts of what it has done and of what it holds.

use super::buffers::Pool;
use super::chunk::{Chunk, Outgoing, OwnedBuf};
use super::sockets::Conn;
use std::io;
use std::os::fd::OwnedFd;

/// What an operation came to. Of a connection that was closed before the turn began, nothing is heard any more.
#[derive(Debug)]
pub enum Completion<S = OwnedFd> {
    /// A connection was accepted on the listener of that index, or accepting failed; `more`: accepting goes on.
    Accepted {
        /// As given by [`Net::listen`](super::Net::listen).
        listener: u32,
        /// The new socket.
        socket: io::Result<S>,
        /// Whether the ring continues to accept.
        more: bool,
    },
    /// Bytes were received.
    Received {
        /// The connection.
        conn: Conn,
        /// The bytes; `None` at the end of the stream.
        data: io::Result<Option<Chunk>>,
        /// Whether the ring continues to receive.
        more: bool,
    },
    /// Bytes were received into the allocation given to [`Net::fill`](super::Net::fill), behind those it had.
    Filled {
        /// The connection.
        conn: Conn,
        /// The allocation, `count` bytes longer.
        buf: OwnedBuf,
        /// How many bytes came; 0 at the end of the stream.
        count: io::Result<usize>,
    },
    /// A send ended.
    Sent {
        /// The connection.
        conn: Conn,
        /// All that was given to [`Net::send`](super::Net::send).
        outgoing: Outgoing,
        /// How many of its bytes the kernel took.
        count: io::Result<usize>,
    },
    /// The time given to [`Net::tick_in`](super::Net::tick_in) has passed.
    Tick,
}

/// What a ring has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kernel entries.
    pub enters: u64,
    /// Operations that the kernel took.
    pub submissions: u64,
    /// Completions that the kernel gave.
    pub completions: u64,
    /// Kernel entries before which the completion queue had overflowed: the kernel keeps aside what found no room.
    pub overflows: u64,
    /// Receives that found no buffer.
    pub shortages: u64,
}

/// A pool's receive buffers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buffers {
    /// What tells the pool from the other one; empty before it has been looked at.
    pub pool: &'static str,
    /// The kernel may write into them, or the driver that receives by itself.
    pub kernel: u64,
    /// Nobody uses them.
    pub free: u64,
    /// All of them.
    pub all: u64,
}

impl Buffers {
    /// Those of `pool`, of which so many are lent.
    pub(super) fn of(pool: &Pool, lent: u16) -> Self {
        let cut = pool.cut();
        Self { pool: cut.name, kernel: u64::from(lent), free: pool.free() as u64, all: u64::from(cut.count) }
    }
}
