//! What moves the bytes of connections: their table, what is received from each and queued toward it, TLS, and listeners.
//!
//! It knows nothing of tokens, sessions or requests. What it is told takes effect here and in the ring, what comes of that is
//! returned, and it is for the shard to say what follows.

pub(super) mod connection;
mod connections;
mod listening;
pub(super) mod outbox;
pub(super) mod receive;
pub(super) mod send;
pub(super) mod tls;

use self::connection::{Connection, NONE, Pauses, Receiving};
use self::connections::Connections;
use self::listening::Listening;
use self::outbox::Outbox;
use self::send::Outboxes;
use self::tls::TlsTable;
use super::command::Listener;
use super::door::newcomer::Newcomer;
use crate::ring::{Buffers, Completion, Conn, Counts, Net};
use crate::tls::Tls;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

pub(super) use self::listening::Purpose;

/// See the module.
pub(super) struct Transport<N: Net> {
    driver: N,
    listening: Listening,
    connections: Connections,
    outboxes: Outboxes,
    tls: TlsTable,
    /// Those that have ended in this turn.
    ended: Vec<Conn>,
    /// Connections whose reading may go on, to be looked at before the turn ends.
    readable: Vec<Conn>,
    /// Connections that a turn brought a part of something of, and whose receive goes on.
    partial_reads: Vec<Conn>,
    /// Connections that wait to receive straight into an allocation.
    direct_reads: VecDeque<Conn>,
    /// How often reading was paused because of the peer's outbox, and because of the connection's own.
    pressed: [u64; 2],
}

/// A connection that is no more, with what goes on elsewhere.
pub(super) struct Taken<S> {
    pub(super) socket: S,
    pub(super) tls: Option<Tls>,
    pub(super) newcomer: Option<Box<Newcomer>>,
}

impl<N: Net> Transport<N> {
    pub(super) fn new(driver: N) -> Self {
        Self {
            driver,
            listening: Listening::default(),
            connections: Connections::default(),
            outboxes: Outboxes::default(),
            tls: TlsTable::default(),
            ended: Vec::new(),
            readable: Vec::new(),
            partial_reads: Vec::new(),
            direct_reads: VecDeque::new(),
            pressed: [0; 2],
        }
    }

    /// What time it is.
    pub(super) fn now(&self) -> Instant {
        self.driver.now()
    }

    /// The wall clock, since 1970.
    pub(super) fn unix_now(&self) -> Duration {
        self.driver.unix_now()
    }

    /// Asks for the next tick.
    pub(super) fn tick_in(&mut self, delay: Duration) {
        self.driver.tick_in(delay);
    }

    /// Begins what was asked for, and takes what has completed. With `wait` it sleeps where there is nothing else to do here.
    #[inline]
    pub(super) fn turn(&mut self, completions: &mut Vec<Completion<N::Socket>>, wait: bool) -> io::Result<()> {
        self.driver.turn(completions, wait && self.direct_reads.is_empty())
    }

    /// Gives receive buffers back that have not been needed lately.
    pub(super) fn want_less(&mut self) {
        self.driver.want_less();
    }

    /// The receive buffers of each pool.
    pub(super) fn buffers(&self) -> [Buffers; 2] {
        self.driver.buffers()
    }

    /// What the ring has done so far.
    pub(super) fn counts(&self) -> Counts {
        self.driver.counts()
    }

    /// How often reading was paused because of the peer's outbox, and because of the connection's own.
    pub(super) fn pressed(&self) -> [u64; 2] {
        self.pressed
    }

    /// Accepts on `listeners` too.
    pub(super) fn listen(&mut self, listeners: Vec<Listener<N::Socket>>) {
        self.listening.add(&mut self.driver, listeners);
    }

    /// Accepts on a listener, unless that is under way or over.
    pub(super) fn accept(&mut self, listener: u32) {
        self.listening.arm(&mut self.driver, listener);
    }

    /// Accepts connections one by one from now on, or as many as there are.
    pub(super) fn set_one_by_one(&mut self, one_by_one: bool) {
        self.listening.set_one_by_one(&mut self.driver, one_by_one);
    }

    /// Accepts no more, and gives the ports back, unless they are the service manager's.
    pub(super) fn stop_listening(&mut self) {
        self.listening.stop(&mut self.driver);
    }

    /// What a listener is for.
    pub(super) fn purpose(&self, listener: u32) -> Option<Purpose> {
        self.listening.purpose(listener)
    }

    /// Where a socket comes from that is no connection yet.
    ///
    /// # Errors
    /// The client has gone already.
    pub(super) fn peer_address(socket: &N::Socket) -> io::Result<SocketAddr> {
        N::peer_address(socket)
    }

    /// A new connection, heard at `tick`.
    pub(super) fn open(&mut self, socket: N::Socket, tick: u32, due: u32, newcomer: Box<Newcomer>) -> Conn {
        let conn = self.driver.open(socket);
        self.connections.insert(conn, Connection::new(tick, due, newcomer));
        conn
    }

    /// Takes a connection out, once nothing of it is under way here.
    pub(super) fn take(&mut self, conn: Conn) -> Option<Taken<N::Socket>> {
        let connection = self.connections.get(conn)?;
        if connection.outbox != NONE || connection.receiving != Receiving::Idle {
            return None;
        }
        let socket = self.driver.take(conn)?;
        let mut connection = self.connections.remove(conn)?;
        let tls = self.tls.remove(&mut connection.tls);
        Some(Taken { socket, tls, newcomer: connection.into_newcomer() })
    }

    /// Nothing is received or sent any more; the entry stays until [`Transport::forget_ended`].
    pub(super) fn end(&mut self, conn: Conn) {
        let connection = &mut self.connections[conn];
        connection.inbox = None;
        self.tls.remove(&mut connection.tls);
        self.driver.close(conn);
        self.ended.push(conn);
    }

    /// At the end of a turn, when nobody works on those who have ended in it.
    #[inline]
    pub(super) fn forget_ended(&mut self) {
        while let Some(conn) = self.ended.pop() {
            self.let_outbox_go(conn);
            self.connections.remove(conn);
        }
    }

    #[inline]
    pub(super) fn get(&self, conn: Conn) -> Option<&Connection> {
        self.connections.get(conn)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, conn: Conn) -> Option<&mut Connection> {
        self.connections.get_mut(conn)
    }

    /// Whose place this is.
    pub(super) fn at(&self, index: u32) -> Option<Conn> {
        self.connections.at(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Conn, &Connection)> {
        self.connections.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// What is queued toward a connection.
    pub(super) fn outbox(&self, connection: &Connection) -> Option<&Outbox> {
        self.outboxes.get(connection.outbox)
    }

    /// Bytes in all outboxes, and how many do not get rid of theirs.
    pub(super) fn queued(&self) -> (u64, u64) {
        self.outboxes.queued()
    }

    /// Bytes that have come and were not received yet.
    pub(super) fn unread_bytes(&self, conn: Conn) -> io::Result<u64> {
        self.driver.unread_bytes(conn)
    }

    /// Stops reading from a connection, for a reason more.
    pub(super) fn pause(&mut self, conn: Conn, reason: Pauses) {
        self.connections[conn].pauses.insert(reason);
    }

    /// A reason to pause is gone: reading goes on before the turn ends, if that was the last. Whether it was one.
    pub(super) fn unpause(&mut self, conn: Conn, reason: Pauses) -> bool {
        let was_paused = self.take_pause(conn, reason);
        if was_paused {
            self.readable.push(conn);
        }
        was_paused
    }

    /// As [`Transport::unpause`], for who is about to go on with it.
    pub(super) fn take_pause(&mut self, conn: Conn, reason: Pauses) -> bool {
        self.connections.get_mut(conn).is_some_and(|connection| connection.pauses.remove(reason))
    }

    /// One whose reading may go on.
    #[inline]
    pub(super) fn poll_readable(&mut self) -> Option<Conn> {
        self.readable.pop()
    }
}

/// Of a connection that has not ended, or has in this turn.
impl<N: Net> Index<Conn> for Transport<N> {
    type Output = Connection;

    #[inline]
    fn index(&self, conn: Conn) -> &Connection {
        &self.connections[conn]
    }
}

impl<N: Net> IndexMut<Conn> for Transport<N> {
    #[inline]
    fn index_mut(&mut self, conn: Conn) -> &mut Connection {
        &mut self.connections[conn]
    }
}

#[cfg(test)]
impl<N: Net> Transport<N> {
    /// What moves the bytes.
    pub(super) fn driver(&self) -> &N {
        &self.driver
    }

    /// How many connections are on each list: readable, partial and direct reads, ended.
    pub(super) fn list_sizes(&self) -> [usize; 4] {
        [self.readable.len(), self.partial_reads.len(), self.direct_reads.len(), self.ended.len()]
    }

    /// All that are on one of the first three.
    pub(super) fn listed(&self) -> impl Iterator<Item = Conn> {
        self.readable.iter().chain(&self.partial_reads).chain(&self.direct_reads).copied()
    }

    /// Whether a connection is looked at before the turn ends.
    pub(super) fn is_looked_at(&self, conn: Conn) -> bool {
        self.readable.contains(&conn) || self.partial_reads.contains(&conn)
    }

    /// How many outboxes are in use, how many are to be flushed, and how many connections have TLS.
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let (outboxes, dirty) = self.outboxes.sizes();
        (outboxes, dirty, self.tls.len())
    }
}
