//! Sockets of the simulated network: a stream has two ends, the shard's and the client's; a port has a queue of streams
//! that wait to be accepted.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes on their way in one direction.
#[derive(Debug, Default)]
struct Flow {
    bytes: Vec<u8>,
    /// What has been taken of them.
    start: usize,
    /// How many there can be at a time.
    room: usize,
    /// No more will come.
    ended: bool,
    /// Nobody will take any.
    deaf: bool,
}

impl Flow {
    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn free(&self) -> usize {
        self.room.saturating_sub(self.len())
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let taken = self.bytes[self.start..self.start + count].to_vec();
        self.start += count;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > self.room {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        taken
    }
}

/// A stream between a client and a shard.
#[derive(Debug)]
pub(super) struct Wire {
    /// From the client.
    up: Flow,
    /// To the client.
    down: Flow,
    /// Bytes that the client's kernel takes in, and acknowledges, before the client has read them.
    acknowledged_ahead: usize,
    address: Option<SocketAddr>,
    is_reset: bool,
}

/// What an end can take.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Bytes, at least one.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// The other end sends no more.
    End,
    /// The stream was reset.
    Reset,
}

impl Wire {
    /// For the shard: how many bytes there are to receive.
    pub(super) fn unread(&self) -> usize {
        self.up.len()
    }

    /// For the shard: how many bytes the client's kernel has no room for yet.
    pub(super) fn unacknowledged(&self) -> usize {
        self.down.len().saturating_sub(self.acknowledged_ahead)
    }

    /// For the shard: what comes next, at most `bytes_max` of it.
    pub(super) fn receive(&mut self, bytes_max: usize) -> Heard {
        hear(&mut self.up, self.is_reset, bytes_max)
    }

    /// For the shard: how many bytes can be sent now. Where the client has gone, they are sent all the same.
    ///
    /// # Errors
    /// The stream was reset.
    pub(super) fn sendable(&self) -> io::Result<usize> {
        match (self.is_reset, self.down.deaf) {
            (true, _) => Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
            (false, true) => Ok(usize::MAX),
            (false, false) => Ok(self.down.free()),
        }
    }

    /// For the shard: as many bytes as [`Wire::sendable`] says, at the most.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.down.deaf {
            self.is_reset = true;
        } else {
            self.down.put(bytes);
        }
    }

    /// For the shard: the client hears of the end behind what was sent.
    pub(super) fn shut_writing(&mut self) {
        self.down.ended = true;
    }

    /// For the shard: what it has not received is lost, and the client told so.
    pub(super) fn close(&mut self) {
        self.is_reset |= self.up.len() > 0;
        self.up.deaf = true;
        self.down.ended = true;
    }
}

fn hear(flow: &mut Flow, is_reset: bool, bytes_max: usize) -> Heard {
    match flow.len().min(bytes_max) {
        0 if is_reset => Heard::Reset,
        0 if flow.ended && flow.len() == 0 => Heard::End,
        0 => Heard::Nothing,
        count => Heard::Bytes(flow.take(count)),
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket as a shard has it: the shard's end of a stream, or a listener. Dropping it closes it.
#[derive(Debug)]
pub struct Socket(Kind);

#[derive(Debug)]
enum Kind {
    Stream(Arc<Mutex<Wire>>),
    Listener(Arc<Mutex<Backlog>>),
}

impl Socket {
    /// The stream that it is an end of.
    ///
    /// # Panics
    /// It is a listener: a bug of the shard.
    pub(super) fn wire(&self) -> MutexGuard<'_, Wire> {
        match &self.0 {
            Kind::Stream(wire) => lock(wire),
            Kind::Listener(_) => panic!("a listener has no stream"),
        }
    }

    /// The next client that waits to be accepted.
    ///
    /// # Panics
    /// It is not a listener: a bug of the shard.
    pub(super) fn next_client(&self) -> Option<Self> {
        match &self.0 {
            Kind::Listener(backlog) => lock(backlog).waiting.pop_front(),
            Kind::Stream(_) => panic!("a stream accepts nobody"),
        }
    }

    /// Nobody can connect any more, by whatever descriptor.
    pub(super) fn shut(&self) {
        if let Kind::Listener(backlog) = &self.0 {
            let mut backlog = lock(backlog);
            backlog.is_shut = true;
            backlog.waiting.clear();
        }
    }

    /// Where the client is.
    ///
    /// # Errors
    /// It has gone already.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.wire().address.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTCONN))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Kind::Stream(wire) = &self.0 {
            lock(wire).close();
        }
    }
}

/// Clients that have connected and were not accepted yet.
#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<Socket>,
    is_shut: bool,
}

/// A port that clients connect to.
#[derive(Clone, Debug, Default)]
pub struct Port(Arc<Mutex<Backlog>>);

/// What a stream is like.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Bytes that can be on their way to the shard.
    pub up_bytes: usize,
    /// The same to the client.
    pub down_bytes: usize,
    /// Of those to the client, how many its kernel acknowledges before it has read them.
    pub acknowledged_ahead: usize,
}

impl Port {
    /// A listening socket on it. There may be several, as where a service manager keeps one.
    #[must_use]
    pub fn listener(&self) -> Socket {
        Socket(Kind::Listener(Arc::clone(&self.0)))
    }

    /// A client connects; `None`: nobody listens. Without an `address` it is one that has gone before it was looked at.
    #[must_use]
    pub fn connect(&self, address: Option<SocketAddr>, link: Link) -> Option<Client> {
        let mut backlog = lock(&self.0);
        if backlog.is_shut {
            return None;
        }
        let (client, socket) = pair(address, link);
        backlog.waiting.push_back(socket);
        Some(client)
    }
}

/// Both ends of a stream.
#[must_use]
pub fn pair(address: Option<SocketAddr>, link: Link) -> (Client, Socket) {
    let wire = Arc::new(Mutex::new(Wire {
        up: Flow { room: link.up_bytes, ..Flow::default() },
        down: Flow { room: link.down_bytes, ..Flow::default() },
        acknowledged_ahead: link.acknowledged_ahead,
        address,
        is_reset: false,
    }));
    (Client(Arc::clone(&wire)), Socket(Kind::Stream(wire)))
}

/// The client's end of a stream. Dropping it closes it.
#[derive(Debug)]
pub struct Client(Arc<Mutex<Wire>>);

impl Client {
    /// Sends as much of `bytes` as there is room for; how much that was. What the shard does not want any more is lost.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let mut wire = lock(&self.0);
        if wire.up.deaf || wire.is_reset {
            return bytes.len();
        }
        assert!(!wire.up.ended, "the client has shut its write side");
        let count = wire.up.free().min(bytes.len());
        wire.up.put(&bytes[..count]);
        count
    }

    /// What has come, at most `bytes_max` of it.
    pub fn receive(&self, bytes_max: usize) -> Heard {
        let mut wire = lock(&self.0);
        let is_reset = wire.is_reset;
        hear(&mut wire.down, is_reset, bytes_max)
    }

    /// Bytes that the shard has not received yet.
    #[must_use]
    pub fn unread(&self) -> usize {
        lock(&self.0).up.len()
    }

    /// Sends no more.
    pub fn shut_writing(&self) {
        lock(&self.0).up.ended = true;
    }

    /// Resets the stream: what is on its way is lost.
    pub fn reset(&self) {
        let mut wire = lock(&self.0);
        wire.is_reset = true;
        let unread = wire.up.len();
        wire.up.take(unread);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut wire = lock(&self.0);
        wire.is_reset |= wire.down.len() > 0;
        wire.up.ended = true;
        wire.down.deaf = true;
    }
}
