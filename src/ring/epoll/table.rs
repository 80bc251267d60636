//! The connections that the epoll driver works on: their sockets, what is in progress on each, and what is known of it.

use crate::Conn;
use std::os::fd::OwnedFd;

/// No place in the lists of memory that waits.
pub(super) const NONE: u32 = u32::MAX;

/// The receive that a connection has in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Receive {
    #[default]
    None,
    /// As [`Net::receive`](crate::Net::receive).
    Stream,
    /// That one, until the next turn says that it has ended.
    Cancelled,
    /// As [`Net::receive_once`](crate::Net::receive_once).
    Once,
    /// As [`Net::fill`](crate::Net::fill).
    Fill,
}

pub(super) struct Entry {
    /// `None`: nobody has the place.
    pub(super) socket: Option<OwnedFd>,
    generation: u32,
    pub(super) receive: Receive,
    /// There may be something to receive: only a receive that found nothing tells that there is not.
    pub(super) is_readable: bool,
    /// The client sends no more, or the connection is broken: whatever was received, there is the end to be received.
    pub(super) has_ended: bool,
    /// It is in the list of those to be received from.
    pub(super) is_listed: bool,
    /// A send is in progress, queued or waiting.
    pub(super) is_sending: bool,
    /// The allocation that is received into.
    pub(super) fill: u32,
    /// The send that waits until the socket takes more.
    pub(super) send: u32,
}

const _: () = assert!(size_of::<Entry>() <= 24, "there is one for each idle connection");

impl Entry {
    fn vacant(generation: u32) -> Self {
        Self {
            socket: None,
            generation,
            receive: Receive::None,
            is_readable: false,
            has_ended: false,
            is_listed: false,
            is_sending: false,
            fill: NONE,
            send: NONE,
        }
    }

    pub(super) fn is_receiving(&self) -> bool {
        !matches!(self.receive, Receive::None | Receive::Cancelled)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.receive != Receive::None || self.is_sending
    }
}

/// See the module. Ids are given as the ring gives them.
#[derive(Default)]
pub(super) struct Table {
    all: Vec<Entry>,
    free: Vec<u32>,
    /// Closed since the last turn: their places are free from the next one on.
    closed: Vec<u32>,
}

impl Table {
    pub(super) fn begin_turn(&mut self) {
        self.free.append(&mut self.closed);
    }

    pub(super) fn insert(&mut self, socket: OwnedFd) -> Conn {
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(Entry::vacant(0));
            (self.all.len() - 1) as u32
        });
        let entry = &mut self.all[index as usize];
        entry.socket = Some(socket);
        Conn::of(index, entry.generation)
    }

    /// The socket of a connection that is open.
    pub(super) fn socket(&self, conn: Conn) -> Option<&OwnedFd> {
        let entry = self.all.get(conn.index())?;
        entry.socket.as_ref().filter(|_| entry.generation == conn.generation())
    }

    /// The entry of a connection that is open.
    #[inline]
    pub(super) fn get_mut(&mut self, conn: Conn) -> Option<&mut Entry> {
        self.all.get_mut(conn.index()).filter(|entry| entry.generation == conn.generation() && entry.socket.is_some())
    }

    /// Takes a connection out; its place is another's from the next turn on.
    pub(super) fn remove(&mut self, conn: Conn) -> Option<Entry> {
        let entry = self.get_mut(conn)?;
        let generation = Conn::of(0, conn.generation() + 1).generation();
        let removed = std::mem::replace(entry, Entry::vacant(generation));
        self.closed.push(conn.index() as u32);
        Some(removed)
    }
}
