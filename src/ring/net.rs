//! What a shard asks of whatever moves its bytes: an io_uring, epoll, or the simulated network of the tests.
//!
//! Which one it is, is settled when the shard is compiled: nothing is looked up on the way of a message.

use super::chunk::{Outgoing, OwnedBuf};
use super::completion::{Buffers, Completion, Counts};
use super::sockets::Conn;
use super::wake::Waker;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// See the module. Operations on a connection that is closed do nothing and never complete.
pub trait Net {
    /// A socket that is nobody's connection yet, or no more.
    type Socket: Send + 'static;

    /// What other threads wake it with.
    #[must_use]
    fn waker(&self) -> Waker;

    /// What time it is.
    fn now(&self) -> Instant;

    /// The wall clock, since 1970.
    fn unix_now(&self) -> Duration;

    /// Takes a listening socket in; its index.
    fn listen(&mut self, socket: Self::Socket) -> u32;

    /// Accepts connections on a listener until a completion says that it does no more, unless it is accepted on already.
    fn accept(&mut self, listener: u32);

    /// Accepts one connection on a listener, unless it is accepted on already.
    fn accept_once(&mut self, listener: u32);

    /// Whether a listener is accepted on.
    #[must_use]
    fn is_accepting(&self, listener: u32) -> bool;

    /// Stops accepting on a listener; its last completion still comes, perhaps with a connection.
    fn cancel_accept(&mut self, listener: u32);

    /// Closes a listener; connections that are accepted already still complete. With `shut`, the port refuses at once, also where
    /// other processes have the socket.
    fn close_listener(&mut self, listener: u32, shut: bool);

    /// Where a connected socket comes from.
    ///
    /// # Errors
    /// The client has gone already.
    fn peer_address(socket: &Self::Socket) -> io::Result<SocketAddr>;

    /// Takes a connected socket in.
    fn open(&mut self, socket: Self::Socket) -> Conn;

    /// Ends what is in progress on a connection, and closes its socket then. Nobody hears of what completes from the next turn
    /// on, and no other connection has the id before that turn.
    fn close(&mut self, conn: Conn);

    /// Gives the socket of a connection away, which is closed by that; `None` while something is in progress on it.
    fn take(&mut self, conn: Conn) -> Option<Self::Socket>;

    /// Shuts the write side: the peer hears of the end when it has taken all that was sent.
    fn shut_writing(&mut self, conn: Conn);

    /// Bytes that were sent and that the peer has not acknowledged.
    ///
    /// # Errors
    /// They cannot be known.
    fn unacknowledged_bytes(&self, conn: Conn) -> io::Result<usize>;

    /// Bytes that have come and were not received yet.
    ///
    /// # Errors
    /// They cannot be known.
    fn unread_bytes(&self, conn: Conn) -> io::Result<u64>;

    /// Receives until a completion says that it does no more.
    fn receive(&mut self, conn: Conn);

    /// Receives once, at most [`GLANCE_BYTES`](super::buffers::GLANCE_BYTES).
    fn receive_once(&mut self, conn: Conn);

    /// Ends [`Net::receive`]; its last completion still comes, perhaps with bytes.
    fn cancel_receive(&mut self, conn: Conn);

    /// Receives once, straight into `buf` behind the bytes it has, at most `bytes_max` and at most up to its capacity.
    fn fill(&mut self, conn: Conn, buf: OwnedBuf, bytes_max: usize);

    /// Sends `outgoing`. With `wait`, it completes when the socket has taken some of it; without, a socket that is full
    /// completes with `WouldBlock` at once.
    fn send(&mut self, conn: Conn, outgoing: Outgoing, wait: bool);

    /// Asks for a [`Completion::Tick`] after `delay`. One is in progress at a time: ask again when it came.
    fn tick_in(&mut self, delay: Duration);

    /// Begins what was asked for, and appends what has completed to `completions`. With `wait`, it sleeps until there is
    /// something.
    ///
    /// # Errors
    /// Only what leaves it unusable.
    fn turn(&mut self, completions: &mut Vec<Completion<Self::Socket>>, wait: bool) -> io::Result<()>;

    /// Gives receive buffers back that have not been needed lately. Called at each tick.
    fn want_less(&mut self);

    /// The receive buffers of each pool.
    #[must_use]
    fn buffers(&self) -> [Buffers; 2];

    /// What it has done so far.
    #[must_use]
    fn counts(&self) -> Counts;
}
