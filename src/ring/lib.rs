//! What moves a shard's bytes, behind a safe interface: the data ring, an io_uring of the shard's own; where there is none,
//! [`Epoll`]; and for tests the [simulated network](simulated).
//!
//! All memory that the kernel may read or write belongs to the ring while an operation is in progress: the
//! [receive buffers](buffers), and the chunks and allocations that are handed to [`Net::send`] and [`Net::fill`] and come
//! back with the [`Completion`]. This is the only module with `unsafe`. It takes no protocol decision.

pub mod buffers;
pub mod chunk;
mod completion;
#[cfg(test)]
mod contract;
mod epoll;
mod inflight;
pub mod inherited;
mod listeners;
mod map;
mod memory;
mod net;
pub mod order;
mod persist;
pub mod probe;
mod provided;
mod queue;
mod ranges;
pub mod simulated;
mod sockets;
#[cfg(test)]
mod tests;
mod wake;

use self::chunk::{Chunk, Outgoing, OwnedBuf};
pub use self::completion::{Buffers, Completion, Counts};
pub use self::epoll::Epoll;
use self::inflight::{Inflight, InflightOp};
use self::listeners::Listeners;
pub use self::net::Net;
use self::order::Consumption;
use self::provided::Provided;
pub use self::sockets::Conn;
use self::sockets::Sockets;
pub use self::wake::Waker;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::net::Shutdown;
use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Submission entries; when more is pushed in one turn, what is there is submitted first.
const SUBMISSIONS: u32 = 4096;
/// Completion entries; past them the kernel keeps completions in its own memory and hands them over later.
const COMPLETIONS: u32 = 16384;
/// Completions handled before the shard looks at its outboxes and lets glommio run again.
const COMPLETIONS_A_TURN: usize = 4096;
/// `IORING_ENTER_GETEVENTS`: run the deferred work, which fills the completion queue.
const ENTER_GETEVENTS: u32 = 1;

/// What an operation was for: the upper byte of its `user_data`; below it a connection, a listener or an in-flight index.
const ACCEPT: u64 = 1 << 56;
const RECEIVE: u64 = 2 << 56;
const FILL: u64 = 3 << 56;
const SEND: u64 = 4 << 56;
const CANCEL: u64 = 5 << 56;
const TICK: u64 = 6 << 56;
const WAKE: u64 = 7 << 56;
const RECEIVE_ONCE: u64 = 8 << 56;
const KIND: u64 = 0xff << 56;

/// A shard's data ring, and the sockets that it works on.
///
/// An operation on a connection that is closed does nothing and completes never: its memory goes back at once.
pub struct Ring {
    counts: Counts,
    uring: IoUring,
    /// The buffers of multishot receives. Leaked with the ring, as those below, for the kernel may still write into them
    /// for a moment after its descriptor is closed.
    streams: ManuallyDrop<Provided>,
    /// Those of single receives.
    glances: ManuallyDrop<Provided>,
    sockets: Sockets,
    listeners: Listeners,
    inflight: Inflight,
    waker: Waker,
    /// Written by the kernel while a read of the waker is in progress, and never read. Not a `Box`, which says that nobody
    /// else writes there; leaked with the ring.
    wake_count: NonNull<u64>,
    /// Read by the kernel when it takes a tick. As above.
    tick_after: NonNull<types::Timespec>,
    /// The error number with which the kernel refused an operation for good; 0: none.
    failed: i32,
}

impl Ring {
    /// Builds the ring and its buffers. To be called on the thread (inside the glommio executor) that will use it.
    ///
    /// # Errors
    /// What the kernel said; the preflight has named the usual reasons before.
    pub fn new() -> io::Result<Self> {
        persist::persist(|| Self::build(Consumption::of_this_kernel()))
    }

    fn build(wanted: Consumption) -> io::Result<Self> {
        Self::from_uring(builder().setup_cqsize(COMPLETIONS).build(SUBMISSIONS)?, wanted)
    }

    fn from_uring(uring: IoUring, wanted: Consumption) -> io::Result<Self> {
        // SAFETY: both are leaked with the ring; before there is one, nothing is received.
        let ((streams, _), glances) =
            unsafe { (Provided::streams(&uring.submitter(), wanted)?, Provided::glances(&uring.submitter())?) };
        let mut ring = Self {
            counts: Counts::default(),
            uring,
            streams: ManuallyDrop::new(streams),
            glances: ManuallyDrop::new(glances),
            sockets: Sockets::default(),
            listeners: Listeners::default(),
            inflight: Inflight::default(),
            waker: Waker::new()?,
            wake_count: leaked(0),
            tick_after: leaked(types::Timespec::new()),
            failed: 0,
        };
        ring.listen_to_waker();
        Ok(ring)
    }

    fn enter(&mut self, min_complete: u32) -> io::Result<usize> {
        let submission = self.uring.submission();
        let to_submit = submission.len() as u32;
        self.counts.overflows += u64::from(submission.cq_overflow());
        drop(submission);
        self.counts.enters += 1;
        // SAFETY: all that the entries point to is owned by `inflight`, the pools, `wake_count` or `tick_after`, which live
        // until the completions have been taken (or are leaked when the ring is dropped before, see `Drop`).
        let taken =
            unsafe { self.uring.submitter().enter::<libc::sigset_t>(to_submit, min_complete, ENTER_GETEVENTS, None) };
        self.counts.submissions += *taken.as_ref().unwrap_or(&0) as u64;
        taken
    }

    fn reap(&mut self, completions: &mut Vec<Completion>) {
        let mut woken = false;
        for entry in self.uring.completion().take(COMPLETIONS_A_TURN) {
            self.counts.completions += 1;
            let (tag, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            let index = tag as u32;
            match tag & KIND {
                RECEIVE => {
                    let data = received(&mut self.streams, result, flags, &mut self.counts);
                    let (conn, more) = (Conn::from_tag(tag), cqueue::more(flags));
                    if self.sockets.complete(conn, !more) {
                        completions.push(Completion::Received { conn, data, more });
                    }
                }
                RECEIVE_ONCE => {
                    let data = received(&mut self.glances, result, flags, &mut self.counts);
                    let conn = Conn::from_tag(tag);
                    if self.sockets.complete(conn, true) {
                        completions.push(Completion::Received { conn, data, more: false });
                    }
                }
                SEND => {
                    if let Some((conn, InflightOp::Send(outgoing))) = self.inflight.remove(index)
                        && self.sockets.complete(conn, true)
                    {
                        completions.push(Completion::Sent { conn, outgoing, count: outcome(result) });
                    }
                }
                FILL => {
                    if let Some((conn, InflightOp::Fill(mut buf))) = self.inflight.remove(index)
                        && self.sockets.complete(conn, true)
                    {
                        let count = outcome(result);
                        if let Ok(count) = count {
                            // SAFETY: the kernel has just said that it wrote `count` bytes behind those that were there.
                            unsafe { buf.extend_filled(count) };
                        }
                        completions.push(Completion::Filled { conn, buf, count });
                    }
                }
                ACCEPT => {
                    // SAFETY: the descriptor is new and nobody else's.
                    let socket = outcome(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) });
                    let more = cqueue::more(flags);
                    self.listeners.complete(index, !more);
                    completions.push(Completion::Accepted { listener: index, socket, more });
                }
                TICK => completions.push(Completion::Tick),
                WAKE => woken = true,
                _ => {}
            }
        }
        if woken {
            self.listen_to_waker();
        }
    }

    fn listen_to_waker(&mut self) {
        let Some(eventfd) = self.waker.eventfd() else { return };
        let entry = opcode::Read::new(types::Fd(eventfd.as_raw_fd()), self.wake_count.as_ptr().cast(), 8).build();
        self.push(entry.user_data(WAKE));
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: each caller above says who owns the memory that the entry points to until it completes.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            // Full: submit without reaping. The kernel takes entries even while completions wait to be reaped; what passes
            // does so as soon as its task work has run, which the same call does.
            match self.enter(0) {
                Err(error) if !is_passing(&error) => {
                    // The entry is lost, and so is the ring: the next turn says so. What the entry would have pointed to is
                    // leaked with it.
                    self.failed = error.raw_os_error().unwrap_or(libc::EIO);
                    return;
                }
                _ => {}
            }
        }
    }
}

impl Net for Ring {
    type Socket = OwnedFd;

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_now(&self) -> Duration {
        unix_now()
    }

    fn listen(&mut self, socket: OwnedFd) -> u32 {
        // The socket of a service manager may come from a process that had another driver. An accept on one that does not
        // wait fails where there is nobody yet.
        let _ = rustix::io::ioctl_fionbio(&socket, false);
        self.listeners.add(socket)
    }

    fn accept(&mut self, listener: u32) {
        let Some(number) = self.listeners.begin(listener) else { return };
        let entry = opcode::AcceptMulti::new(types::Fd(number)).flags(libc::SOCK_CLOEXEC).build();
        self.push(entry.user_data(ACCEPT | u64::from(listener)));
    }

    fn accept_once(&mut self, listener: u32) {
        let Some(number) = self.listeners.begin(listener) else { return };
        let entry = opcode::Accept::new(types::Fd(number), std::ptr::null_mut(), std::ptr::null_mut());
        let entry = entry.flags(libc::SOCK_CLOEXEC).build();
        self.push(entry.user_data(ACCEPT | u64::from(listener)));
    }

    fn is_accepting(&self, listener: u32) -> bool {
        self.listeners.is_accepting(listener)
    }

    fn cancel_accept(&mut self, listener: u32) {
        self.push(opcode::AsyncCancel::new(ACCEPT | u64::from(listener)).build().user_data(CANCEL));
    }

    fn close_listener(&mut self, listener: u32, shut: bool) {
        if self.listeners.close(listener, shut) {
            self.cancel_accept(listener);
        }
    }

    fn peer_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
        peer_address(socket)
    }

    fn open(&mut self, socket: OwnedFd) -> Conn {
        self.sockets.open(socket)
    }

    fn close(&mut self, conn: Conn) {
        if self.sockets.close(conn) {
            self.cancel_receive(conn);
        }
    }

    fn take(&mut self, conn: Conn) -> Option<OwnedFd> {
        self.sockets.take(conn)
    }

    fn shut_writing(&mut self, conn: Conn) {
        if let Some(socket) = self.sockets.get(conn) {
            // Fails only where the peer has gone, which the receive in progress will say.
            let _ = rustix::net::shutdown(socket, Shutdown::Write);
        }
    }

    fn unacknowledged_bytes(&self, conn: Conn) -> io::Result<usize> {
        queue::unacknowledged_bytes(self.sockets.try_get(conn)?)
    }

    fn unread_bytes(&self, conn: Conn) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(self.sockets.try_get(conn)?)?)
    }

    fn receive(&mut self, conn: Conn) {
        let Some(number) = self.sockets.begin(conn) else { return };
        let entry = opcode::RecvMulti::new(types::Fd(number), provided::STREAMS).build();
        self.push(entry.user_data(RECEIVE | conn.tag()));
    }

    fn receive_once(&mut self, conn: Conn) {
        let Some(number) = self.sockets.begin(conn) else { return };
        self.glances.replenish();
        let entry = opcode::Recv::new(types::Fd(number), std::ptr::null_mut(), buffers::GLANCE_BYTES)
            .buf_group(provided::GLANCES)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry.user_data(RECEIVE_ONCE | conn.tag()));
    }

    fn cancel_receive(&mut self, conn: Conn) {
        self.push(opcode::AsyncCancel::new(RECEIVE | conn.tag()).build().user_data(CANCEL));
    }

    fn fill(&mut self, conn: Conn, mut buf: OwnedBuf, bytes_max: usize) {
        let Some(number) = self.sockets.begin(conn) else { return };
        let (at, room) = buf.spare();
        let room = room.min(bytes_max).min(1 << 30) as u32;
        // The memory belongs to the in-flight table until the completion, and its bytes do not move with it.
        let index = self.inflight.insert(conn, InflightOp::Fill(buf));
        let entry = opcode::Recv::new(types::Fd(number), at, room).build();
        self.push(entry.user_data(FILL | u64::from(index)));
    }

    fn send(&mut self, conn: Conn, outgoing: Outgoing, wait: bool) {
        let Some(number) = self.sockets.begin(conn) else { return };
        let fd = types::Fd(number);
        let flags = libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
        // The memory belongs to the in-flight table until the completion, and none of it moves with the table.
        let index = self.inflight.insert(conn, InflightOp::Send(outgoing));
        let entry = match self.inflight.outgoing_mut(index) {
            Outgoing::One(chunk) => {
                let bytes = chunk.as_slice();
                opcode::Send::new(fd, bytes.as_ptr(), bytes.len() as u32).flags(flags).build()
            }
            Outgoing::Many(batch) => opcode::SendMsg::new(fd, batch.message()).flags(flags as u32).build(),
        };
        self.push(entry.user_data(SEND | u64::from(index)));
    }

    fn tick_in(&mut self, delay: Duration) {
        // SAFETY: it lives as long as the process and is aligned. The kernel reads it when it takes the entry; were it
        // written twice before that, both ticks would have the later delay.
        unsafe { self.tick_after.write(types::Timespec::from(delay)) };
        let entry = opcode::Timeout::new(self.tick_after.as_ptr()).build().user_data(TICK);
        self.push(entry);
    }

    fn turn(&mut self, completions: &mut Vec<Completion>, wait: bool) -> io::Result<()> {
        if self.failed != 0 {
            return Err(io::Error::from_raw_os_error(self.failed));
        }
        self.streams.replenish();
        self.sockets.begin_turn();
        match self.enter(u32::from(wait)) {
            Ok(_) => {}
            // What was not submitted stays in the queue for the next turn.
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        self.reap(completions);
        Ok(())
    }

    fn want_less(&mut self) {
        self.streams.want_less();
        self.glances.want_less();
    }

    fn buffers(&self) -> [Buffers; 2] {
        [self.streams.buffers(), self.glances.buffers()]
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // As the buffers.
        self.inflight.leak();
    }
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn peer_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getpeername(socket)?.ok_or(rustix::io::Errno::NOTCONN)?;
    Ok(SocketAddr::try_from(address)?)
}

/// Memory that the kernel may use at any time, for good.
fn leaked<T>(value: T) -> NonNull<T> {
    NonNull::from(Box::leak(Box::new(value)))
}

/// A signal; or the kernel is short of memory, or its completion backlog is full.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::EINTR))
}

/// What every ring here is built with, and what the preflight tries.
fn builder() -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
    builder
}

/// What a receive into one of `pool`'s buffers came to.
#[inline]
fn received(pool: &mut Provided, result: i32, flags: u32, counts: &mut Counts) -> io::Result<Option<Chunk>> {
    match cqueue::buffer_select(flags) {
        Some(buffer) if result > 0 => {
            // SAFETY: the kernel has just said that it wrote so many bytes into this buffer. One buffer has one completion,
            // or the kernel is trusted to keep those of one buffer in order (see `order`).
            Ok(Some(Chunk::Slice(unsafe { pool.take(buffer, result as u32, cqueue::buffer_more(flags)) })))
        }
        Some(buffer) => {
            pool.take_back(buffer);
            outcome(result).map(|_| None)
        }
        None => {
            if result == -libc::ENOBUFS {
                counts.shortages += 1;
                pool.want_more();
            }
            outcome(result).map(|_| None)
        }
    }
}

fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
