//! The driver for where there is no io_uring: one epoll set for each shard, and calls that do not wait.
//!
//! Sockets are added once, edge-triggered for both directions; the driver remembers what the set has told. What the shard
//! asks for is done in [`Net::turn`], as the ring does it in its kernel entry: first what is to be sent, then what can be
//! received. A turn that has sent something does not look for more: what it sent is given back first, and the memory is used
//! again for what is received in the next one.

mod incoming;
mod listeners;
mod table;
#[cfg(test)]
mod tests;

use self::incoming::{Came, Incoming};
use self::listeners::{Listeners, leave};
use self::table::{NONE, Receive, Table};
use super::chunk::{CHUNKS_A_SEND_MAX, Chunk, Outgoing, OwnedBuf};
use super::queue::unacknowledged_bytes;
use super::{Buffers, Completion, Conn, Counts, Net, Waker};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, send, sendmsg, shutdown};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use slab::Slab;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Events that one call brings; the set keeps the others for the next one.
const EVENTS_A_TURN: usize = 1024;

/// Once a turn has received so many bytes, the others wait for the next one: by then these have been sent, and their memory
/// is used again while it is in the cache.
const BYTES_A_TURN: usize = 256 << 10;

/// What an event is about: the upper byte of its data; below it a connection or a listener.
const CONNECTION: u64 = 1 << 56;
const LISTENER: u64 = 2 << 56;
const TICK: u64 = 3 << 56;
const WAKE: u64 = 4 << 56;
const KIND: u64 = 0xff << 56;

/// A send that the shard has asked for.
struct Queued {
    conn: Conn,
    outgoing: Outgoing,
    wait: bool,
}

/// See the module.
pub struct Epoll {
    set: OwnedFd,
    timer: OwnedFd,
    waker: Waker,
    incoming: Incoming,
    table: Table,
    listeners: Listeners,
    /// The sends that the next turn carries out.
    queued: Vec<Queued>,
    /// Sends that wait for their sockets.
    sends: Slab<Outgoing>,
    /// What is to be received straight into an allocation, and how much at most.
    fills: Slab<(OwnedBuf, usize)>,
    /// Receives whose end the next turn tells.
    cancelled: Vec<Conn>,
    /// Those that have a receive in progress and may have something to be received.
    ready: Vec<Conn>,
    /// As above, while they are gone through.
    looked_at: Vec<Conn>,
    events: Vec<epoll::Event>,
    /// The last turn did not look for events.
    has_skipped: bool,
    counts: Counts,
}

impl Epoll {
    /// A set that has nobody yet.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn new() -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let waker = Waker::new()?;
        // Edge-triggered, neither has to be read: each wake-up and each tick is an event of its own.
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&set, &timer, epoll::EventData::new_u64(TICK), edge)?;
        if let Some(eventfd) = waker.eventfd() {
            epoll::add(&set, eventfd, epoll::EventData::new_u64(WAKE), edge)?;
        }
        Ok(Self {
            set,
            timer,
            waker,
            incoming: Incoming::new()?,
            table: Table::default(),
            listeners: Listeners::default(),
            queued: Vec::new(),
            sends: Slab::new(),
            fills: Slab::new(),
            cancelled: Vec::new(),
            ready: Vec::new(),
            looked_at: Vec::new(),
            events: Vec::with_capacity(EVENTS_A_TURN),
            has_skipped: false,
            counts: Counts::default(),
        })
    }

    fn begin_receive(&mut self, conn: Conn, receive: Receive, fill: u32) {
        let Some(entry) = self.table.get_mut(conn) else { return };
        (entry.receive, entry.fill) = (receive, fill);
        if entry.is_readable && !std::mem::replace(&mut entry.is_listed, true) {
            self.ready.push(conn);
        }
    }

    /// Carries out the sends that were asked for since the last turn.
    #[inline]
    fn send_queued(&mut self, completions: &mut Vec<Completion>) {
        let mut queued = std::mem::take(&mut self.queued);
        for Queued { conn, outgoing, wait } in queued.drain(..) {
            let Some(entry) = self.table.get_mut(conn) else { continue };
            let Some(socket) = &entry.socket else { continue };
            self.counts.submissions += 1;
            match transmit(socket, &outgoing) {
                Err(Errno::AGAIN) if wait => entry.send = self.sends.insert(outgoing) as u32,
                sent => {
                    entry.is_sending = false;
                    completions.push(Completion::Sent { conn, outgoing, count: sent.map_err(Into::into) });
                }
            }
        }
        self.queued = queued;
    }

    /// The socket takes more, perhaps: carries the send out that waits for that.
    #[cold]
    fn send_waiting(&mut self, conn: Conn, completions: &mut Vec<Completion>) {
        let Some(entry) = self.table.get_mut(conn) else { return };
        let index = entry.send as usize;
        let (Some(socket), Some(outgoing)) = (&entry.socket, self.sends.get(index)) else { return };
        self.counts.submissions += 1;
        let sent = transmit(socket, outgoing);
        if sent == Err(Errno::AGAIN) {
            return;
        }
        (entry.send, entry.is_sending) = (NONE, false);
        let outgoing = self.sends.remove(index);
        completions.push(Completion::Sent { conn, outgoing, count: sent.map_err(Into::into) });
    }

    /// Asks the set what has happened; with `wait` until something has.
    fn poll(&mut self, wait: bool) -> io::Result<()> {
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.events.clear();
        self.counts.enters += 1;
        match epoll::wait(&self.set, spare_capacity(&mut self.events), (!wait).then_some(&NOW)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    #[inline]
    fn handle_event(&mut self, event: epoll::Event, completions: &mut Vec<Completion>) {
        use epoll::EventFlags;
        let (data, flags) = (event.data.u64(), event.flags);
        match data & KIND {
            CONNECTION => {
                let conn = Conn::from_tag(data);
                let Some(entry) = self.table.get_mut(conn) else { return };
                let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
                if flags.intersects(EventFlags::IN | ends) {
                    entry.is_readable = true;
                    entry.has_ended |= flags.intersects(ends);
                    if entry.is_receiving() && !std::mem::replace(&mut entry.is_listed, true) {
                        self.ready.push(conn);
                    }
                }
                if entry.send != NONE {
                    self.send_waiting(conn, completions);
                }
            }
            LISTENER => self.counts.submissions += self.listeners.accept(&self.set, data as u32, completions),
            TICK => completions.push(Completion::Tick),
            // Woken, it takes the commands that it was woken for.
            _ => {}
        }
    }

    /// Receives once from each of those that have something.
    #[inline]
    fn receive_ready(&mut self, completions: &mut Vec<Completion>) {
        self.incoming.begin_turn();
        let mut ready = std::mem::replace(&mut self.ready, std::mem::take(&mut self.looked_at));
        let (mut waiting, mut bytes) = (ready.drain(..), 0);
        while bytes < BYTES_A_TURN
            && let Some(conn) = waiting.next()
        {
            bytes += self.receive_from(conn, completions);
        }
        // Before those that have just been received from and have more.
        self.ready.splice(..0, waiting);
        self.looked_at = ready;
    }

    /// How many bytes came.
    #[inline]
    fn receive_from(&mut self, conn: Conn, completions: &mut Vec<Completion>) -> usize {
        let Some(entry) = self.table.get_mut(conn) else { return 0 };
        entry.is_listed = false;
        let Some(socket) = &entry.socket else { return 0 };
        self.counts.submissions += 1;
        let came = match entry.receive {
            Receive::None | Receive::Cancelled => return 0,
            Receive::Stream => self.incoming.receive(socket),
            Receive::Once => self.incoming.receive_once(socket),
            Receive::Fill => return self.fill_from(conn, completions),
        };
        let data = match came {
            Some(Ok(Came { what, is_full })) => {
                // The end is told of once, perhaps before this.
                entry.is_readable = is_full || entry.has_ended;
                Ok(what.map(Chunk::Slice))
            }
            Some(Err(Errno::AGAIN)) => {
                entry.is_readable = false;
                return 0;
            }
            Some(Err(error)) => Err(error.into()),
            None => {
                // In the next turn there are buffers again.
                self.counts.shortages += 1;
                entry.is_listed = true;
                self.ready.push(conn);
                return 0;
            }
        };
        let more = entry.receive == Receive::Stream && matches!(data, Ok(Some(_)));
        if !more {
            entry.receive = Receive::None;
        } else if entry.is_readable {
            entry.is_listed = true;
            self.ready.push(conn);
        }
        let bytes = data.as_ref().map_or(0, |chunk| chunk.as_ref().map_or(0, Chunk::len));
        completions.push(Completion::Received { conn, data, more });
        bytes
    }

    fn fill_from(&mut self, conn: Conn, completions: &mut Vec<Completion>) -> usize {
        let Some(entry) = self.table.get_mut(conn) else { return 0 };
        let index = entry.fill as usize;
        let (Some(socket), Some((buf, bytes_max))) = (&entry.socket, self.fills.get_mut(index)) else { return 0 };
        let count = match incoming::fill(socket, buf, *bytes_max) {
            Ok(Came { what, is_full }) => {
                entry.is_readable = is_full || entry.has_ended;
                Ok(what)
            }
            Err(Errno::AGAIN) => {
                entry.is_readable = false;
                return 0;
            }
            Err(error) => Err(error.into()),
        };
        (entry.receive, entry.fill) = (Receive::None, NONE);
        let (buf, _) = self.fills.remove(index);
        let bytes = *count.as_ref().unwrap_or(&0);
        completions.push(Completion::Filled { conn, buf, count });
        bytes
    }

    fn end_cancelled(&mut self, completions: &mut Vec<Completion>) {
        for conn in self.cancelled.drain(..) {
            if let Some(entry) = self.table.get_mut(conn) {
                entry.receive = Receive::None;
                completions.push(Completion::Received { conn, data: Err(Errno::CANCELED.into()), more: false });
            }
        }
        self.listeners.tell_ended(completions);
    }

    /// Takes a connection out, with what waits for it.
    fn remove(&mut self, conn: Conn) -> Option<OwnedFd> {
        let entry = self.table.remove(conn)?;
        if entry.send != NONE {
            self.sends.try_remove(entry.send as usize);
        }
        if entry.fill != NONE {
            self.fills.try_remove(entry.fill as usize);
        }
        entry.socket
    }
}

impl Net for Epoll {
    type Socket = OwnedFd;

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_now(&self) -> Duration {
        super::unix_now()
    }

    fn listen(&mut self, socket: OwnedFd) -> u32 {
        self.listeners.add(socket)
    }

    fn accept(&mut self, listener: u32) {
        self.listeners.begin(&self.set, listener, false);
    }

    fn accept_once(&mut self, listener: u32) {
        self.listeners.begin(&self.set, listener, true);
    }

    fn is_accepting(&self, listener: u32) -> bool {
        self.listeners.is_accepting(listener)
    }

    fn cancel_accept(&mut self, listener: u32) {
        self.listeners.cancel(&self.set, listener);
    }

    fn close_listener(&mut self, listener: u32, shut: bool) {
        self.listeners.close(&self.set, listener, shut);
    }

    fn peer_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
        super::peer_address(socket)
    }

    fn open(&mut self, socket: OwnedFd) -> Conn {
        use epoll::EventFlags;
        let conn = self.table.insert(socket);
        let Some(entry) = self.table.get_mut(conn) else { return conn };
        let Some(socket) = &entry.socket else { return conn };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        if epoll::add(&self.set, socket, epoll::EventData::new_u64(CONNECTION | conn.tag()), flags).is_err() {
            // No memory, or as many as this user may watch: its first receive finds that it has ended.
            let _ = shutdown(socket, Shutdown::Both);
            (entry.is_readable, entry.has_ended) = (true, true);
        }
        conn
    }

    fn close(&mut self, conn: Conn) {
        // Closed, the socket is in the set no more.
        drop(self.remove(conn));
    }

    fn take(&mut self, conn: Conn) -> Option<OwnedFd> {
        self.table.get_mut(conn).filter(|entry| !entry.is_busy())?;
        let socket = self.remove(conn)?;
        leave(&self.set, &socket);
        Some(socket)
    }

    fn shut_writing(&mut self, conn: Conn) {
        if let Some(socket) = self.table.socket(conn) {
            // Fails only where the peer has gone, which the receive in progress will say.
            let _ = shutdown(socket, Shutdown::Write);
        }
    }

    fn unacknowledged_bytes(&self, conn: Conn) -> io::Result<usize> {
        unacknowledged_bytes(self.table.socket(conn).ok_or(io::ErrorKind::NotConnected)?)
    }

    fn unread_bytes(&self, conn: Conn) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(self.table.socket(conn).ok_or(io::ErrorKind::NotConnected)?)?)
    }

    fn receive(&mut self, conn: Conn) {
        self.begin_receive(conn, Receive::Stream, NONE);
    }

    fn receive_once(&mut self, conn: Conn) {
        self.begin_receive(conn, Receive::Once, NONE);
    }

    fn cancel_receive(&mut self, conn: Conn) {
        if let Some(entry) = self.table.get_mut(conn).filter(|entry| entry.receive == Receive::Stream) {
            entry.receive = Receive::Cancelled;
            self.cancelled.push(conn);
        }
    }

    fn fill(&mut self, conn: Conn, buf: OwnedBuf, bytes_max: usize) {
        if self.table.socket(conn).is_some() {
            let index = self.fills.insert((buf, bytes_max)) as u32;
            self.begin_receive(conn, Receive::Fill, index);
        }
    }

    fn send(&mut self, conn: Conn, outgoing: Outgoing, wait: bool) {
        if let Some(entry) = self.table.get_mut(conn) {
            entry.is_sending = true;
            self.queued.push(Queued { conn, outgoing, wait });
        }
    }

    fn tick_in(&mut self, delay: Duration) {
        // A timer that is to go off at once is none.
        let delay = delay.max(Duration::from_nanos(1));
        let (seconds, nanos) = (delay.as_secs() as i64, i64::from(delay.subsec_nanos()));
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: seconds, tv_nsec: nanos },
        };
        // Fails for a time that is none.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
    }

    fn turn(&mut self, completions: &mut Vec<Completion>, wait: bool) -> io::Result<()> {
        let before = completions.len();
        self.table.begin_turn();
        self.end_cancelled(completions);
        self.send_queued(completions);
        let is_first = completions.len() == before;
        self.has_skipped = !is_first && !self.has_skipped;
        if !self.has_skipped {
            self.poll(wait && is_first && self.ready.is_empty())?;
            let mut events = std::mem::take(&mut self.events);
            for event in events.drain(..) {
                self.handle_event(event, completions);
            }
            self.events = events;
            self.receive_ready(completions);
        }
        self.counts.completions += (completions.len() - before) as u64;
        Ok(())
    }

    /// What was received in a rush into is used again, or not touched.
    fn want_less(&mut self) {}

    fn buffers(&self) -> [Buffers; 2] {
        self.incoming.buffers()
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}

/// Sends as much as the socket takes at once.
#[inline]
fn transmit(socket: &OwnedFd, outgoing: &Outgoing) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match outgoing {
        Outgoing::One(chunk) => retry_on_intr(|| send(socket, chunk.as_slice(), flags)),
        Outgoing::Many(batch) => {
            let mut slices = [IoSlice::new(&[]); CHUNKS_A_SEND_MAX];
            let slices = &mut slices[..batch.chunks.len()];
            for (slice, chunk) in slices.iter_mut().zip(&batch.chunks) {
                *slice = IoSlice::new(chunk.as_slice());
            }
            retry_on_intr(|| sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags))
        }
    }
}
