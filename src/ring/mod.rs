//! The data ring: an io_uring of a shard's own, under glommio's executor, behind a safe interface.
//!
//! All memory that the kernel may read or write belongs to the ring while an operation is under way: buffers of the
//! [`Pool`], and the chunks and allocations that are handed to [`Ring::send`] and [`Ring::fill`] and
//! come back with the [`Completion`]. This is the only module with `unsafe`. It takes no protocol decision.

#![allow(unsafe_code)]

pub mod buffers;
pub mod chunk;
mod inflight;
pub mod inherited;
mod map;
mod memory;
pub mod order;
pub mod probe;
pub mod queue;
mod ranges;
#[cfg(test)]
mod tests;
mod wake;

use self::buffers::{Pool, Slice};
use self::chunk::{Heap, Outgoing};
use self::inflight::{Inflight, InflightOp};
use self::order::Consumption;
pub use self::wake::Waker;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

/// Submission entries; when more is pushed in one turn, what is there is submitted first.
const SUBMISSIONS: u32 = 4096;
/// Completion entries; past them the kernel keeps completions in its own memory and hands them over later.
const COMPLETIONS: u32 = 16384;
/// Completions handled before the shard looks at its outboxes and lets glommio run again.
const COMPLETIONS_A_TURN: usize = 4096;
/// `IORING_ENTER_GETEVENTS`: run the deferred work, which fills the completion queue.
const ENTER_GETEVENTS: u32 = 1;

/// What an operation was for: the upper byte of its `user_data`; below it a connection or an in-flight index.
const ACCEPT: u64 = 1 << 56;
const RECEIVE: u64 = 2 << 56;
const FILL: u64 = 3 << 56;
const SEND: u64 = 4 << 56;
const CANCEL: u64 = 5 << 56;
const TICK: u64 = 6 << 56;
const WAKE: u64 = 7 << 56;
const RECEIVE_ONCE: u64 = 8 << 56;
const KIND: u64 = 0xff << 56;

/// Names a connection to the ring: its index in the shard's slab. The shard frees an index only when none of its
/// operations is under way, so that a completion never meets another connection.
pub type ConnIndex = u32;

/// What an operation came to.
#[derive(Debug)]
pub enum Completion {
    /// A connection was accepted on the listener of that index, or accepting failed; `more`: accepting goes on.
    Accepted {
        /// As given to [`Ring::accept`].
        listener: u32,
        /// The new socket.
        socket: io::Result<OwnedFd>,
        /// Whether the ring goes on accepting by itself.
        more: bool,
    },
    /// Bytes were received into a slice of the pool; an empty slice at the end of the stream.
    Received {
        /// The connection.
        conn: ConnIndex,
        /// The bytes; `None` at the end of the stream.
        data: io::Result<Option<Slice>>,
        /// Whether the ring goes on receiving by itself.
        more: bool,
    },
    /// Bytes were received into the allocation given to [`Ring::fill`], behind those it had.
    Filled {
        /// The connection.
        conn: ConnIndex,
        /// The allocation, `count` bytes longer.
        heap: Heap,
        /// How many bytes came; 0 at the end of the stream.
        count: io::Result<usize>,
    },
    /// A send ended.
    Sent {
        /// The connection.
        conn: ConnIndex,
        /// All that was given to [`Ring::send`].
        outgoing: Outgoing,
        /// How many of its bytes the kernel took.
        count: io::Result<usize>,
    },
    /// The time given to [`Ring::tick_in`] has passed.
    Tick,
}

/// What a ring has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kernel entries.
    pub enters: u64,
    /// Operations that the kernel took.
    pub submissions: u64,
    /// Completions that the kernel gave.
    pub completions: u64,
    /// Kernel entries before which the completion queue had overflowed: the kernel keeps aside what found no room.
    pub overflows: u64,
    /// Receives that found no buffer.
    pub shortages: u64,
}

/// A shard's data ring.
///
/// Operations take a borrowed descriptor and use its number later, when the entry is submitted: in the next turn, or in a
/// later one where the kernel is short of memory. **The caller keeps the descriptor open until the operation's last completion.** Closed before, its number may be
/// another file's by then, and the operation would be carried out on that one. Nothing here can check it; a shard keeps
/// sockets in its slab until nothing of theirs is under way (`Shard::release`, `Shard::try_move`), and listeners until
/// they have been heard of for the last time (`shard/listening.rs`).
pub struct Ring {
    counts: Counts,
    uring: IoUring,
    /// The buffers of multishot receives.
    streams: Rc<Pool>,
    /// Those of single receives.
    glances: Rc<Pool>,
    inflight: Inflight,
    waker: Waker,
    /// Written by the kernel while a read of the waker is under way, and never read. Not a `Box`, which says that nobody
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
        Self::build(Consumption::of_this_kernel())
    }

    fn build(wanted: Consumption) -> io::Result<Self> {
        Self::from_uring(builder().setup_cqsize(COMPLETIONS).build(SUBMISSIONS)?, wanted)
    }

    fn from_uring(uring: IoUring, wanted: Consumption) -> io::Result<Self> {
        // SAFETY: both pools are leaked with the ring, see `Drop`; before there is one, nothing is received.
        let ((streams, _), glances) =
            unsafe { (Pool::streams(&uring.submitter(), wanted)?, Pool::glances(&uring.submitter())?) };
        let mut ring = Self {
            counts: Counts::default(),
            uring,
            streams,
            glances,
            inflight: Inflight::default(),
            waker: Waker::new()?,
            wake_count: leaked(0),
            tick_after: leaked(types::Timespec::new()),
            failed: 0,
        };
        ring.listen_to_waker();
        Ok(ring)
    }

    /// What other threads wake this ring with.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The pools of receive buffers: that of [`Ring::receive`], and that of [`Ring::receive_once`].
    #[must_use]
    pub fn pools(&self) -> [&Pool; 2] {
        [&self.streams, &self.glances]
    }

    /// Accepts one connection on `listener`. Rings that wait on the same socket this way take turns, for each goes to
    /// the end of the socket's queue when it asks again; with [`Ring::accept`] the first one would have them all.
    ///
    /// `listener` stays open until the completion.
    pub fn accept_once(&mut self, listener: BorrowedFd<'_>, index: u32) {
        let entry = opcode::Accept::new(types::Fd(listener.as_raw_fd()), std::ptr::null_mut(), std::ptr::null_mut());
        let entry = entry.flags(libc::SOCK_CLOEXEC).build();
        self.push(entry.user_data(ACCEPT | u64::from(index)));
    }

    /// Accepts connections on `listener` until a completion says that it does no more; it stays open until then.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, index: u32) {
        let entry = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        self.push(entry.user_data(ACCEPT | u64::from(index)));
    }

    /// Stops accepting on the listener of that index; its last completion still comes, perhaps with a connection.
    pub fn cancel_accept(&mut self, index: u32) {
        self.push(opcode::AsyncCancel::new(ACCEPT | u64::from(index)).build().user_data(CANCEL));
    }

    /// Receives into slices of the pool until a completion says that it does no more; `socket` stays open until then.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, conn: ConnIndex) {
        let entry = opcode::RecvMulti::new(types::Fd(socket.as_raw_fd()), buffers::STREAMS).build();
        self.push(entry.user_data(RECEIVE | u64::from(conn)));
    }

    /// Receives once into a slice of the pool, at most [`GLANCE_BYTES`](buffers::GLANCE_BYTES). `socket` stays open until
    /// the completion.
    pub fn receive_once(&mut self, socket: BorrowedFd<'_>, conn: ConnIndex) {
        self.glances.replenish();
        let entry = opcode::Recv::new(types::Fd(socket.as_raw_fd()), std::ptr::null_mut(), buffers::GLANCE_BYTES)
            .buf_group(buffers::GLANCES)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry.user_data(RECEIVE_ONCE | u64::from(conn)));
    }

    /// Ends [`Ring::receive`]; its last completion still comes, perhaps with bytes.
    pub fn cancel_receive(&mut self, conn: ConnIndex) {
        self.push(opcode::AsyncCancel::new(RECEIVE | u64::from(conn)).build().user_data(CANCEL));
    }

    /// Receives once, straight into `heap` behind the bytes it has, at most `bytes_max` and at most up to its capacity.
    /// `socket` stays open until the completion.
    pub fn fill(&mut self, socket: BorrowedFd<'_>, conn: ConnIndex, mut heap: Heap, bytes_max: usize) {
        let (at, room) = heap.spare();
        let room = room.min(bytes_max).min(1 << 30) as u32;
        // The memory belongs to the in-flight table until the completion, and a heap's bytes do not move with it.
        let index = self.inflight.insert(conn, InflightOp::Fill(heap));
        let entry = opcode::Recv::new(types::Fd(socket.as_raw_fd()), at, room).build();
        self.push(entry.user_data(FILL | u64::from(index)));
    }

    /// Sends `outgoing`. With `wait`, the kernel waits until the socket takes some of it; without, a socket that is
    /// full completes with `WouldBlock` at once. `socket` stays open until the completion.
    pub fn send(&mut self, socket: BorrowedFd<'_>, conn: ConnIndex, outgoing: Outgoing, wait: bool) {
        let fd = types::Fd(socket.as_raw_fd());
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

    /// Asks for a [`Completion::Tick`] after `delay`. One tick is under way at a time: ask again when it came.
    pub fn tick_in(&mut self, delay: Duration) {
        // SAFETY: it lives as long as the process and is aligned. The kernel reads it when it takes the entry; were it
        // written twice before that, both ticks would have the later delay.
        unsafe { self.tick_after.write(types::Timespec::from(delay)) };
        let entry = opcode::Timeout::new(self.tick_after.as_ptr()).build().user_data(TICK);
        self.push(entry);
    }

    /// Submits what was pushed, lets the kernel run what is due, and appends what completed to `completions`. With
    /// `wait`, it sleeps in the kernel until there is something.
    ///
    /// # Errors
    /// Only what leaves the ring unusable: also what an operation met that was pushed since the last turn.
    pub fn turn(&mut self, completions: &mut Vec<Completion>, wait: bool) -> io::Result<()> {
        if self.failed != 0 {
            return Err(io::Error::from_raw_os_error(self.failed));
        }
        self.streams.replenish();
        match self.enter(u32::from(wait)) {
            Ok(_) => {}
            // What was not submitted stays in the queue for the next turn.
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        self.reap(completions);
        Ok(())
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
                    let data = received(&self.streams, result, flags, &mut self.counts);
                    completions.push(Completion::Received { conn: index, data, more: cqueue::more(flags) });
                }
                RECEIVE_ONCE => {
                    let data = received(&self.glances, result, flags, &mut self.counts);
                    completions.push(Completion::Received { conn: index, data, more: false });
                }
                SEND => {
                    if let Some((conn, InflightOp::Send(outgoing))) = self.inflight.remove(index) {
                        completions.push(Completion::Sent { conn, outgoing, count: outcome(result) });
                    }
                }
                FILL => {
                    if let Some((conn, InflightOp::Fill(mut heap))) = self.inflight.remove(index) {
                        let count = outcome(result);
                        if let Ok(count) = count {
                            // SAFETY: the kernel has just said that it wrote `count` bytes behind those that were there.
                            unsafe { heap.extend_filled(count) };
                        }
                        completions.push(Completion::Filled { conn, heap, count });
                    }
                }
                ACCEPT => {
                    // SAFETY: the descriptor is new and nobody else's.
                    let socket = outcome(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) });
                    completions.push(Completion::Accepted { listener: index, socket, more: cqueue::more(flags) });
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
        let count = self.wake_count.as_ptr().cast();
        let entry = opcode::Read::new(types::Fd(self.waker.as_raw_fd()), count, 8).build();
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

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may still write into what it holds for a moment after the ring's descriptor is closed: leak it.
        self.inflight.leak();
        std::mem::forget((Rc::clone(&self.streams), Rc::clone(&self.glances)));
    }
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
fn received(pool: &Rc<Pool>, result: i32, flags: u32, counts: &mut Counts) -> io::Result<Option<Slice>> {
    match cqueue::buffer_select(flags) {
        Some(buffer) if result > 0 => {
            // SAFETY: the kernel has just said that it wrote so many bytes into this buffer. One buffer has one completion,
            // or the kernel is trusted to keep those of one buffer in order (see `order`).
            Ok(Some(unsafe { Pool::take(pool, buffer, result as u32, cqueue::buffer_more(flags)) }))
        }
        Some(buffer) => {
            Pool::take_back(pool, buffer);
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
