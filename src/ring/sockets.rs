//! The sockets that a ring works on. It owns each of them for as long as the kernel may use it, and names it by an id that
//! no other connection ever has.
//!
//! An operation names its socket by a descriptor's number, which the kernel looks up when it takes the entry. So a socket that
//! is closed stays open until the last operation on it has completed; else its number could be another file's by then.

use rustix::net::Shutdown;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// A generation has so many bits; then it begins anew.
const GENERATION_BITS: u32 = 24;
const GENERATION_MAX: u32 = (1 << GENERATION_BITS) - 1;
/// [`Entry::state`]: the socket is to be closed when nothing is in progress on it.
const CLOSING: u32 = 1 << 7;
/// [`Entry::state`]: how many operations are in progress.
const UNDER_WAY: u32 = CLOSING - 1;
const GENERATION_SHIFT: u32 = 8;

/// Names a connection: a place in the ring's table, and how often it was taken before. An id that was closed names nobody any
/// more, whoever has the place now; it would take 16 million others of the same place before it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn {
    index: u32,
    generation: u32,
}

impl Conn {
    /// Its place, which no other open connection has.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// How often its place was taken before, in 24 bits.
    #[must_use]
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// The connection that has this place for the `generation`th time.
    #[must_use]
    pub fn of(index: u32, generation: u32) -> Self {
        Self { index, generation: generation & GENERATION_MAX }
    }

    /// In the lower 56 bits.
    pub(super) fn tag(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_tag(tag: u64) -> Self {
        Self::of(tag as u32, (tag >> 32) as u32)
    }
}

struct Entry {
    socket: Option<OwnedFd>,
    /// The place's generation, [`CLOSING`] and [`UNDER_WAY`].
    state: u32,
}

const _: () = assert!(size_of::<Entry>() == 8, "there is one for each idle connection");

/// See the module.
#[derive(Default)]
pub(super) struct Sockets {
    all: Vec<Entry>,
    free: Vec<u32>,
    /// Closed since the last turn: their places are free from the next one on.
    closed: Vec<u32>,
}

impl Sockets {
    pub(super) fn open(&mut self, socket: OwnedFd) -> Conn {
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(Entry { socket: None, state: 0 });
            (self.all.len() - 1) as u32
        });
        let entry = &mut self.all[index as usize];
        entry.socket = Some(socket);
        Conn::of(index, entry.state >> GENERATION_SHIFT)
    }

    fn entry(&mut self, conn: Conn) -> Option<&mut Entry> {
        self.all.get_mut(conn.index()).filter(|entry| entry.state >> GENERATION_SHIFT == conn.generation)
    }

    /// The socket, unless it is closed or to be closed.
    pub(super) fn get(&self, conn: Conn) -> Option<&OwnedFd> {
        let entry = self.all.get(conn.index())?;
        let is_open = entry.state & !UNDER_WAY == conn.generation << GENERATION_SHIFT;
        entry.socket.as_ref().filter(|_| is_open)
    }

    /// Counts an operation that begins; the number to carry it out on. `None`: the connection is closed.
    pub(super) fn begin(&mut self, conn: Conn) -> Option<i32> {
        let entry = self.entry(conn).filter(|entry| entry.state & CLOSING == 0)?;
        let number = entry.socket.as_ref()?.as_raw_fd();
        assert!(entry.state & UNDER_WAY != UNDER_WAY, "a connection has few operations in progress");
        entry.state += 1;
        Some(number)
    }

    /// Whether anybody is to hear of a completion. `last`: the operation has ended.
    pub(super) fn complete(&mut self, conn: Conn, last: bool) -> bool {
        let Some(entry) = self.entry(conn) else { return false };
        entry.state -= u32::from(last);
        let is_closing = entry.state & CLOSING != 0;
        if is_closing && entry.state & UNDER_WAY == 0 {
            self.let_go(conn);
        }
        !is_closing
    }

    /// Closes the socket when nothing is in progress on it, which is ended. Whether something is.
    pub(super) fn close(&mut self, conn: Conn) -> bool {
        let Some(entry) = self.entry(conn).filter(|entry| entry.state & CLOSING == 0) else { return false };
        if entry.state & UNDER_WAY == 0 {
            self.let_go(conn);
            return false;
        }
        if let Some(socket) = &entry.socket {
            // Where it fails, there is no connection any more that could keep an operation waiting.
            let _ = rustix::net::shutdown(socket, Shutdown::Both);
        }
        entry.state |= CLOSING;
        true
    }

    /// Gives the socket away; `None` while something is in progress on it.
    pub(super) fn take(&mut self, conn: Conn) -> Option<OwnedFd> {
        self.entry(conn).filter(|entry| entry.state & (CLOSING | UNDER_WAY) == 0)?;
        self.let_go(conn)
    }

    fn let_go(&mut self, conn: Conn) -> Option<OwnedFd> {
        let entry = &mut self.all[conn.index()];
        entry.state = ((conn.generation + 1) & GENERATION_MAX) << GENERATION_SHIFT;
        self.closed.push(conn.index);
        entry.socket.take()
    }

    /// A turn begins: nobody has an id any more that was closed before.
    pub(super) fn begin_turn(&mut self) {
        self.free.append(&mut self.closed);
    }

    /// Of a connection that is open.
    pub(super) fn try_get(&self, conn: Conn) -> io::Result<&OwnedFd> {
        self.get(conn).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}
