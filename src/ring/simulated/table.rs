//! The connections of a simulated network: their sockets, and what is in progress on each.

use super::wire::Socket;
use crate::Conn;
use crate::chunk::{Outgoing, OwnedBuf};
use std::ops::{Index, IndexMut};

/// The receive that a connection has in progress.
#[derive(Debug, Default)]
pub(super) enum Receive {
    #[default]
    None,
    Stream {
        is_cancelled: bool,
    },
    Once,
    Fill(OwnedBuf, usize),
}

/// The send that a connection has in progress.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) outgoing: Outgoing,
    pub(super) wait: bool,
    /// So many bytes have left.
    pub(super) taken: Option<usize>,
}

#[derive(Default)]
pub(super) struct Entry {
    pub(super) socket: Option<Socket>,
    pub(super) generation: u32,
    pub(super) is_closing: bool,
    pub(super) is_shut: bool,
    pub(super) receive: Receive,
    pub(super) send: Option<Sending>,
}

impl Entry {
    fn is_open(&self, conn: Conn) -> bool {
        self.generation == conn.generation() && self.socket.is_some() && !self.is_closing
    }

    pub(super) fn is_busy(&self) -> bool {
        !matches!(self.receive, Receive::None) || self.send.is_some()
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

    pub(super) fn open(&mut self, socket: Socket) -> Conn {
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(Entry::default());
            (self.all.len() - 1) as u32
        });
        let entry = &mut self[index];
        entry.socket = Some(socket);
        Conn::of(index, entry.generation)
    }

    /// A connection that is not closed.
    pub(super) fn get(&self, conn: Conn) -> Option<&Entry> {
        self.all.get(conn.index()).filter(|entry| entry.is_open(conn))
    }

    /// As above.
    pub(super) fn get_mut(&mut self, conn: Conn) -> Option<&mut Entry> {
        self.all.get_mut(conn.index()).filter(|entry| entry.is_open(conn))
    }

    /// Frees a place on which nothing is in progress.
    pub(super) fn let_go(&mut self, index: u32) -> Option<Socket> {
        let entry = &mut self[index];
        let socket = entry.socket.take();
        let generation = Conn::of(index, entry.generation.wrapping_add(1)).generation();
        *entry = Entry { generation, ..Entry::default() };
        self.closed.push(index);
        socket
    }

    /// An operation on a connection that is closing has ended.
    pub(super) fn end_closing(&mut self, index: u32) {
        if !self[index].is_busy() {
            self.let_go(index);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Entry)> {
        (0..).zip(&self.all)
    }
}

impl Index<u32> for Table {
    type Output = Entry;

    fn index(&self, index: u32) -> &Entry {
        &self.all[index as usize]
    }
}

impl IndexMut<u32> for Table {
    fn index_mut(&mut self, index: u32) -> &mut Entry {
        &mut self.all[index as usize]
    }
}
