//! What a ring gives back: completions, and counts of what it has done.

use super::buffers::Slice;
use super::chunk::{Outgoing, OwnedBuf};
use super::sockets::Conn;
use std::io;
use std::os::fd::OwnedFd;

/// What an operation came to. Of a connection that was closed before the turn began, nothing is heard any more.
#[derive(Debug)]
pub enum Completion {
    /// A connection was accepted on the listener of that index, or accepting failed; `more`: accepting goes on.
    Accepted {
        /// As given by [`Ring::listen`](super::Ring::listen).
        listener: u32,
        /// The new socket.
        socket: io::Result<OwnedFd>,
        /// Whether the ring goes on accepting by itself.
        more: bool,
    },
    /// Bytes were received into a slice of the pool; an empty slice at the end of the stream.
    Received {
        /// The connection.
        conn: Conn,
        /// The bytes; `None` at the end of the stream.
        data: io::Result<Option<Slice>>,
        /// Whether the ring goes on receiving by itself.
        more: bool,
    },
    /// Bytes were received into the allocation given to [`Ring::fill`](super::Ring::fill), behind those it had.
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
        /// All that was given to [`Ring::send`](super::Ring::send).
        outgoing: Outgoing,
        /// How many of its bytes the kernel took.
        count: io::Result<usize>,
    },
    /// The time given to [`Ring::tick_in`](super::Ring::tick_in) has passed.
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
