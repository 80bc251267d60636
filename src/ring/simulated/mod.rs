//! A network in one process, without a kernel: what tests and benches drive a shard with.
//!
//! The test holds the clock and the clients' ends of all streams. Each [`Simulated`] has a seed, and all that it does to
//! its shard follows from that. It does what a kernel may do under the contract of [`Net`]: a receive brings any part of
//! what has come, or ends without any; a send takes a part and completes late; a cancelled receive still brings bytes;
//! completions come in any order that keeps each connection's bytes in theirs. In turn it insists that the shard keeps its
//! side of the contract: one receive and one send at a time, and nothing begun on a connection that it has closed.

mod clock;
mod random;
mod table;
#[cfg(test)]
mod tests;
mod wire;

pub use self::clock::Clock;
pub use self::random::Random;
use self::table::{Receive, Sending, Table};
pub use self::wire::{Client, Heard, Link, Port, Socket, pair};
use super::buffers::GLANCE_BYTES;
use super::chunk::{Chunk, Outgoing, OwnedBuf};
use super::{Buffers, Completion, Conn, Counts, Net, Waker};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The most that one completion of a stream's receive brings.
const STREAM_BYTES_MAX: usize = 64 << 10;

/// How often the network does what a kernel seldom does, in a thousand cases.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// What could complete in this turn does so in a later one.
    pub delayed: u16,
    /// A receive brings a part of what is there.
    pub cut: u16,
    /// A receive ends without bytes: no buffer, or a signal.
    pub interrupted: u16,
    /// A receive that continues ends on its own with the bytes that it brings.
    pub ended: u16,
    /// A cancelled receive or accept brings something before it ends.
    pub raced: u16,
    /// A send takes a part of what it could.
    pub short: u16,
    /// Bytes have left in an earlier turn than the one in which their send completes.
    pub late: u16,
    /// An accept fails: no descriptors.
    pub accept: u16,
    /// How many bytes are unread or unacknowledged cannot be known.
    pub unknown: u16,
    /// Completions come in any order.
    pub is_shuffled: bool,
}

/// How a listener is accepted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accept {
    None,
    Once,
    Many,
}

struct Listener {
    /// `None`: it is closed.
    socket: Option<Socket>,
    accept: Accept,
    is_cancelled: bool,
    is_closing: bool,
}

/// A part of what a turn does.
#[derive(Clone, Copy)]
enum Job {
    Tick,
    Accept(u32),
    Receive(u32),
    Send(u32),
}

/// See the module. One for each shard.
pub struct Simulated {
    clock: Clock,
    random: Random,
    faults: Faults,
    table: Table,
    listeners: Vec<Listener>,
    tick_due: Option<Instant>,
    jobs: Vec<Job>,
    counts: Counts,
}

impl Simulated {
    /// A network that has nobody yet.
    #[must_use]
    pub fn new(clock: Clock, seed: u64, faults: Faults) -> Self {
        Self {
            clock,
            random: Random::new(seed),
            faults,
            table: Table::default(),
            listeners: Vec::new(),
            tick_due: None,
            jobs: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// From now on it does what a kernel seldom does as often as this.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Places that a connection has, or had and that something is in progress on.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.table.iter().filter(|(_, entry)| entry.socket.is_some()).count()
    }

    /// Listeners that are not closed.
    #[must_use]
    pub fn listening(&self) -> usize {
        self.listeners.iter().filter(|listener| listener.socket.is_some()).count()
    }

    /// When the next [`Completion::Tick`] is due.
    #[must_use]
    pub fn next_tick(&self) -> Option<Instant> {
        self.tick_due
    }

    /// An open connection that begins an operation.
    fn begin(&mut self, conn: Conn, what: &str) -> &mut table::Entry {
        self.counts.submissions += 1;
        self.table.get_mut(conn).unwrap_or_else(|| panic!("{what} on {conn:?}, which is closed"))
    }

    fn begin_receive(&mut self, conn: Conn, receive: Receive) {
        let entry = self.begin(conn, "a receive");
        assert!(matches!(entry.receive, Receive::None), "two receives on {conn:?}");
        entry.receive = receive;
    }

    fn begin_accept(&mut self, listener: u32, accept: Accept) {
        if let Some(listener) = self.listeners.get_mut(listener as usize)
            && listener.accept == Accept::None
            && !listener.is_closing
        {
            (listener.accept, listener.is_cancelled) = (accept, false);
        }
    }

    /// Whether a question about a connection is answered: by what it has been asked so far, for the question changes nothing.
    fn known(&self, conn: Conn) -> io::Result<&Socket> {
        let socket = self.table.get(conn).and_then(|entry| entry.socket.as_ref()).ok_or(io::ErrorKind::NotConnected)?;
        let mut random = Random::new(self.counts.completions ^ (conn.index() as u64) << 32);
        match random.chance(self.faults.unknown) {
            true => Err(io::Error::from_raw_os_error(libc::ENOTCONN)),
            false => Ok(socket),
        }
    }

    fn accept_on(&mut self, index: u32, completions: &mut Vec<Completion<Socket>>) {
        loop {
            let (random, faults) = (&mut self.random, &self.faults);
            let listener = &mut self.listeners[index as usize];
            if listener.accept == Accept::None || random.chance(faults.delayed) {
                break;
            }
            let ends = |errno| Some((Err(io::Error::from_raw_os_error(errno)), false));
            let next = || listener.socket.as_ref().and_then(Socket::next_client);
            let accepted = if listener.is_cancelled && !random.chance(faults.raced) {
                ends(libc::ECANCELED)
            } else if !listener.is_cancelled && random.chance(faults.accept) {
                ends(libc::EMFILE)
            } else if let Some(socket) = next() {
                let goes_on = listener.accept == Accept::Many && !random.chance(faults.ended);
                Some((Ok(socket), goes_on))
            } else {
                None
            };
            let Some((socket, more)) = accepted else { break };
            if !more {
                (listener.accept, listener.is_cancelled) = (Accept::None, false);
                if listener.is_closing {
                    listener.socket = None;
                }
            }
            completions.push(Completion::Accepted { listener: index, socket, more });
        }
    }

    /// What is in progress now, in the order in which it is tried.
    fn plan(&mut self) -> Vec<Job> {
        let mut jobs = std::mem::take(&mut self.jobs);
        if self.tick_due.is_some_and(|due| due <= self.clock.now()) {
            jobs.push(Job::Tick);
        }
        for (index, listener) in (0..).zip(&self.listeners) {
            jobs.extend((listener.accept != Accept::None).then_some(Job::Accept(index)));
        }
        for (index, entry) in self.table.iter() {
            if !matches!(entry.receive, Receive::None) {
                let pieces = if self.faults.cut > 0 { self.random.between(1, 3) } else { 1 };
                jobs.extend(std::iter::repeat_n(Job::Receive(index), pieces));
            }
            if entry.send.is_some() {
                jobs.push(Job::Send(index));
            }
        }
        if self.faults.is_shuffled {
            self.random.shuffle(&mut jobs);
        }
        jobs
    }

    fn complete_receive(&mut self, index: u32, completions: &mut Vec<Completion<Socket>>) {
        let (random, faults) = (&mut self.random, &self.faults);
        let entry = &mut self.table[index];
        if entry.is_closing {
            entry.receive = Receive::None;
            return self.table.end_closing(index);
        }
        let Some(socket) = &entry.socket else { return };
        let conn = Conn::of(index, entry.generation);
        let bytes_max = match &mut entry.receive {
            Receive::None => return,
            Receive::Stream { .. } => STREAM_BYTES_MAX,
            Receive::Once => GLANCE_BYTES as usize,
            Receive::Fill(buf, bytes_max) => buf.spare().1.min(*bytes_max),
        };
        let is_cancelled = matches!(entry.receive, Receive::Stream { is_cancelled: true });
        let heard = if is_cancelled && !random.chance(faults.raced) {
            Err(io::Error::from_raw_os_error(libc::ECANCELED))
        } else if random.chance(faults.interrupted) {
            let errno = random.pick(&[libc::ENOBUFS, libc::EINTR, libc::EAGAIN, libc::ECANCELED]);
            self.counts.shortages += u64::from(errno == libc::ENOBUFS);
            Err(io::Error::from_raw_os_error(errno))
        } else {
            let mut wire = socket.wire();
            let there = wire.unread().min(bytes_max);
            let wanted = if random.chance(faults.cut) { random.between(1, there) } else { bytes_max };
            match wire.receive(wanted) {
                Heard::Bytes(bytes) => Ok(bytes),
                Heard::Nothing if is_cancelled => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
                Heard::Nothing => return,
                Heard::End => Ok(Vec::new()),
                Heard::Reset => Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
            }
        };
        let receive = std::mem::take(&mut entry.receive);
        if let Receive::Fill(mut buf, _) = receive {
            let count = heard.map(|bytes| {
                buf.extend(&bytes);
                bytes.len()
            });
            return completions.push(Completion::Filled { conn, buf, count });
        }
        let has_bytes = heard.as_ref().is_ok_and(|bytes| !bytes.is_empty());
        let more = matches!(receive, Receive::Stream { .. }) && has_bytes && !random.chance(faults.ended);
        if more {
            entry.receive = receive;
        }
        let chunk = |bytes: Vec<u8>| (!bytes.is_empty()).then(|| Chunk::Owned(OwnedBuf::from(bytes)));
        completions.push(Completion::Received { conn, data: heard.map(chunk), more });
    }

    fn complete_send(&mut self, index: u32, completions: &mut Vec<Completion<Socket>>) {
        let (random, faults) = (&mut self.random, &self.faults);
        let entry = &mut self.table[index];
        if entry.is_closing {
            entry.send = None;
            return self.table.end_closing(index);
        }
        let (Some(socket), Some(send)) = (&entry.socket, &mut entry.send) else { return };
        let count = match send.taken {
            Some(taken) => Ok(taken),
            None => {
                let mut wire = socket.wire();
                match wire.sendable() {
                    Ok(0) if send.wait => return,
                    Ok(0) => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
                    Ok(room) => {
                        let most = send.outgoing.len().min(room);
                        let count = if random.chance(faults.short) { random.between(1, most) } else { most };
                        send_to(&mut wire, &send.outgoing, count);
                        if random.chance(faults.late) {
                            send.taken = Some(count);
                            return;
                        }
                        Ok(count)
                    }
                    Err(error) => Err(error),
                }
            }
        };
        let conn = Conn::of(index, entry.generation);
        if let Some(Sending { outgoing, .. }) = entry.send.take() {
            completions.push(Completion::Sent { conn, outgoing, count });
        }
    }
}

fn send_to(wire: &mut wire::Wire, outgoing: &Outgoing, count: usize) {
    let mut left = count;
    let mut send = |chunk: &Chunk| {
        let bytes = chunk.as_slice();
        let now = left.min(bytes.len());
        if now > 0 {
            wire.send(&bytes[..now]);
        }
        left -= now;
    };
    match outgoing {
        Outgoing::One(chunk) => send(chunk),
        Outgoing::Many(batch) => batch.chunks.iter().for_each(send),
    }
}

impl Net for Simulated {
    type Socket = Socket;

    /// Whoever drives the simulation turns the shard anyway.
    fn waker(&self) -> Waker {
        Waker::of_nobody()
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn unix_now(&self) -> Duration {
        self.clock.unix_now()
    }

    fn listen(&mut self, socket: Socket) -> u32 {
        self.listeners.push(Listener {
            socket: Some(socket),
            accept: Accept::None,
            is_cancelled: false,
            is_closing: false,
        });
        (self.listeners.len() - 1) as u32
    }

    fn accept(&mut self, listener: u32) {
        self.begin_accept(listener, Accept::Many);
    }

    fn accept_once(&mut self, listener: u32) {
        self.begin_accept(listener, Accept::Once);
    }

    fn is_accepting(&self, listener: u32) -> bool {
        self.listeners.get(listener as usize).is_some_and(|listener| listener.accept != Accept::None)
    }

    fn cancel_accept(&mut self, listener: u32) {
        if let Some(listener) = self.listeners.get_mut(listener as usize) {
            listener.is_cancelled |= listener.accept != Accept::None;
        }
    }

    fn close_listener(&mut self, listener: u32, shut: bool) {
        let Some(listener) = self.listeners.get_mut(listener as usize) else { return };
        if let Some(socket) = listener.socket.as_ref().filter(|_| shut) {
            socket.shut();
        }
        listener.is_closing = true;
        if listener.accept == Accept::None {
            listener.socket = None;
        } else {
            listener.is_cancelled = true;
        }
    }

    fn peer_address(socket: &Socket) -> io::Result<SocketAddr> {
        socket.address()
    }

    fn open(&mut self, socket: Socket) -> Conn {
        self.table.open(socket)
    }

    fn close(&mut self, conn: Conn) {
        let Some(entry) = self.table.get_mut(conn) else { panic!("{conn:?} is closed twice") };
        if !entry.is_busy() {
            self.table.let_go(conn.index() as u32);
            return;
        }
        entry.is_closing = true;
        if let Some(socket) = &entry.socket {
            socket.wire().close();
        }
    }

    fn take(&mut self, conn: Conn) -> Option<Socket> {
        self.table.get_mut(conn).filter(|entry| !entry.is_busy())?;
        self.table.let_go(conn.index() as u32)
    }

    fn shut_writing(&mut self, conn: Conn) {
        let Some(entry) = self.table.get_mut(conn) else { return };
        assert!(entry.send.is_none(), "{conn:?} is shut before what it sends has left");
        entry.is_shut = true;
        if let Some(socket) = &entry.socket {
            socket.wire().shut_writing();
        }
    }

    fn unacknowledged_bytes(&self, conn: Conn) -> io::Result<usize> {
        let socket = self.known(conn)?;
        Ok(socket.wire().unacknowledged())
    }

    fn unread_bytes(&self, conn: Conn) -> io::Result<u64> {
        let socket = self.known(conn)?;
        Ok(socket.wire().unread() as u64)
    }

    fn receive(&mut self, conn: Conn) {
        self.begin_receive(conn, Receive::Stream { is_cancelled: false });
    }

    fn receive_once(&mut self, conn: Conn) {
        self.begin_receive(conn, Receive::Once);
    }

    fn cancel_receive(&mut self, conn: Conn) {
        if let Some(table::Entry { receive: Receive::Stream { is_cancelled }, .. }) = self.table.get_mut(conn) {
            *is_cancelled = true;
        }
    }

    fn fill(&mut self, conn: Conn, mut buf: OwnedBuf, bytes_max: usize) {
        assert!(buf.spare().1.min(bytes_max) > 0, "{conn:?} has no room to fill");
        self.begin_receive(conn, Receive::Fill(buf, bytes_max));
    }

    fn send(&mut self, conn: Conn, outgoing: Outgoing, wait: bool) {
        assert!(!outgoing.is_empty(), "{conn:?} sends nothing");
        let entry = self.begin(conn, "a send");
        assert!(entry.send.is_none(), "two sends on {conn:?}");
        assert!(!entry.is_shut, "{conn:?} sends behind its end");
        entry.send = Some(Sending { outgoing, wait, taken: None });
    }

    fn tick_in(&mut self, delay: Duration) {
        assert!(self.tick_due.is_none(), "two ticks are in progress");
        self.tick_due = Some(self.clock.now() + delay);
    }

    fn turn(&mut self, completions: &mut Vec<Completion<Socket>>, _wait: bool) -> io::Result<()> {
        self.counts.enters += 1;
        self.table.begin_turn();
        let before = completions.len();
        let mut jobs = self.plan();
        for job in jobs.drain(..) {
            if self.random.chance(self.faults.delayed) {
                continue;
            }
            match job {
                Job::Tick => {
                    self.tick_due = None;
                    completions.push(Completion::Tick);
                }
                Job::Accept(index) => self.accept_on(index, completions),
                Job::Receive(index) => self.complete_receive(index, completions),
                Job::Send(index) => self.complete_send(index, completions),
            }
        }
        self.jobs = jobs;
        self.counts.completions += (completions.len() - before) as u64;
        Ok(())
    }

    fn want_less(&mut self) {}

    fn buffers(&self) -> [Buffers; 2] {
        Default::default()
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}
