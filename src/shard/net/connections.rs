//! The table of a shard's connections, by the ids that the ring gave their sockets.
//!
//! What ended in a turn stays to its end, so that nobody who works on a connection loses it on the way; an id that outlives
//! it finds nothing, whoever has its place by then.

use super::connection::Connection;
use crate::ring::Conn;
use crate::shard::mutation::{Mutation, is_made};
use std::ops::{Index, IndexMut};

/// See the module.
#[derive(Default)]
pub(super) struct Connections {
    /// By [`Conn::index`].
    all: Vec<Option<Connection>>,
    count: usize,
}

impl Connections {
    /// Adds a connection, whose place nobody has.
    pub(super) fn insert(&mut self, conn: Conn, mut connection: Connection) {
        connection.generation = conn.generation();
        if self.all.len() <= conn.index() {
            self.all.resize_with(conn.index() + 1, || None);
        }
        debug_assert!(self.all[conn.index()].is_none(), "the ring gives a place anew when the turn is over");
        self.all[conn.index()] = Some(connection);
        self.count += 1;
    }

    pub(super) fn remove(&mut self, conn: Conn) -> Option<Connection> {
        self.get(conn)?;
        self.count -= 1;
        self.all[conn.index()].take()
    }

    #[inline]
    pub(super) fn get(&self, conn: Conn) -> Option<&Connection> {
        self.all.get(conn.index())?.as_ref().filter(|connection| is_of(connection, conn))
    }

    #[inline]
    pub(super) fn get_mut(&mut self, conn: Conn) -> Option<&mut Connection> {
        self.all.get_mut(conn.index())?.as_mut().filter(|connection| is_of(connection, conn))
    }

    /// Whose place this is.
    pub(super) fn at(&self, index: u32) -> Option<Conn> {
        let connection = self.all.get(index as usize)?.as_ref()?;
        Some(Conn::of(index, connection.generation))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Conn, &Connection)> {
        (0..).zip(&self.all).filter_map(|(index, connection)| {
            let connection = connection.as_ref()?;
            Some((Conn::of(index, connection.generation), connection))
        })
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}

fn is_of(connection: &Connection, conn: Conn) -> bool {
    connection.generation == conn.generation() || is_made(Mutation::StaleId)
}

/// Of a connection that has not ended, or has in this turn.
impl Index<Conn> for Connections {
    type Output = Connection;

    #[inline]
    fn index(&self, conn: Conn) -> &Connection {
        self.get(conn).expect("a connection stays to the end of the turn in which it ended")
    }
}

impl IndexMut<Conn> for Connections {
    #[inline]
    fn index_mut(&mut self, conn: Conn) -> &mut Connection {
        self.get_mut(conn).expect("a connection stays to the end of the turn in which it ended")
    }
}
