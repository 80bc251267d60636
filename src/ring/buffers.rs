//! The pools of receive buffers that the kernel picks from, and the slices it hands out.
//!
//! The kernel takes buffers from a ring of entries; the pool gives them back by moving the ring's tail. Multishot
//! receives have one pool. Where the kernel can be trusted with it ([`Consumption`]), its buffers are consumed piece by
//! piece (`IOU_PBUF_RING_INC`): many small messages share one buffer, and a large read finds a large one. Elsewhere each
//! receive takes a buffer of its own. Single receives have a pool of small buffers that are never shared: what
//! newcomers send does not lie beside what pairs do. Only a few buffers are in a ring at a time and the one freed last
//! goes back first, so that the memory in use stays in the cache.

use super::map::{self, Mapping};
use super::order::{Consumption, Why};
use io_uring::{Submitter, types::BufRingEntry};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The most that one single receive brings.
pub const GLANCE_BYTES: u32 = 4 << 10;
/// The buffer group of multishot receives.
pub(super) const STREAMS: u16 = 0;
/// The buffer group of single receives.
pub(super) const GLANCES: u16 = 1;
/// Flag of `io_uring_register_buf_ring`: buffers are consumed incrementally.
const INCREMENTAL: u16 = 2;

/// How a pool's memory is cut.
#[derive(Clone, Copy)]
struct Cut {
    name: &'static str,
    buffer_bytes: usize,
    /// All buffers of the pool.
    count: u16,
    /// How many are in the kernel's ring when there is little to do.
    provided_min: u16,
    /// How many are there at most: all of them, and a power of two.
    provided_max: u16,
    incremental: bool,
}

impl Cut {
    /// For streams, 8 MiB.
    const INCREMENTAL: Self = Self {
        name: "incremental",
        buffer_bytes: 1 << 20,
        count: 8,
        provided_min: 2,
        provided_max: 8,
        incremental: true,
    };
    /// For streams as well.
    const WHOLE: Self = Self {
        name: "whole",
        buffer_bytes: 16 << 10,
        count: 512,
        provided_min: 16,
        provided_max: 512,
        incremental: false,
    };
    /// For single receives, 512 KiB: unauthenticated connections are read a page at a time, and few of a crowd are let in at
    /// once.
    const GLANCES: Self = Self {
        name: "single",
        buffer_bytes: GLANCE_BYTES as usize,
        count: 128,
        provided_min: 16,
        provided_max: 128,
        incremental: false,
    };

    const fn bytes(&self) -> usize {
        self.buffer_bytes * self.count as usize
    }

    const fn entries_bytes(&self) -> usize {
        // The kernel wants whole pages.
        (self.provided_max as usize * size_of::<BufRingEntry>()).next_multiple_of(map::PAGE_BYTES)
    }

    const fn is_sound(&self) -> bool {
        self.count <= self.provided_max
            && self.provided_min <= self.count
            && self.provided_max.is_power_of_two()
            && self.buffer_bytes < NOT_PROVIDED as usize
    }
}
const _: () = assert!(Cut::INCREMENTAL.is_sound() && Cut::WHOLE.is_sound() && Cut::GLANCES.is_sound());

/// [`State::written`] of a buffer that the kernel does not have: past the end of every buffer, and so that adding the
/// length of any completion does not wrap.
const NOT_PROVIDED: u32 = 1 << 31;

/// A shard's receive buffers of one kind.
pub struct Pool {
    cut: Cut,
    entries: Mapping,
    memory: Mapping,
    tail: Cell<u16>,
    /// Buffers in the kernel's ring. `provided <= cut.provided_max`.
    provided: Cell<u16>,
    /// How many should be there: few, so that the same memory is used again while it is in the cache, and more
    /// while they run out. `cut.provided_min <= wanted <= cut.provided_max`.
    wanted: Cell<u16>,
    states: Box<[State]>,
    /// Buffers that nobody uses; the last one freed is the next one given.
    free: RefCell<Vec<u16>>,
}

struct State {
    /// Slices of this buffer that are out, and one more while the kernel may write into it.
    users: Cell<u32>,
    /// Bytes from its start that the kernel has written, or [`NOT_PROVIDED`].
    written: Cell<u32>,
}

impl Pool {
    /// The pool of multishot receives, and how its buffers are consumed: as `wanted`, where the kernel does it.
    ///
    /// # Errors
    /// What `mmap` or the registration said.
    ///
    /// # Safety
    /// As [`Pool::register`].
    pub(super) unsafe fn streams(
        submitter: &Submitter<'_>,
        wanted: Consumption,
    ) -> io::Result<(Rc<Self>, Consumption)> {
        let consumption = match wanted {
            // SAFETY: the caller says so.
            Consumption::Incremental => match unsafe { Self::register(submitter, STREAMS, Cut::INCREMENTAL) } {
                Ok(pool) => return Ok((pool, wanted)),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Consumption::Whole(Why::Refused),
                Err(error) => return Err(error),
            },
            Consumption::Whole(_) => wanted,
        };
        // SAFETY: the caller says so.
        let pool = unsafe { Self::register(submitter, STREAMS, Cut::WHOLE) }?;
        Ok((pool, consumption))
    }

    /// The pool of single receives.
    ///
    /// # Errors
    /// What `mmap` or the registration said.
    ///
    /// # Safety
    /// As [`Pool::register`].
    pub(super) unsafe fn glances(submitter: &Submitter<'_>) -> io::Result<Rc<Self>> {
        // SAFETY: the caller says so.
        unsafe { Self::register(submitter, GLANCES, Cut::GLANCES) }
    }

    /// Maps the memory and registers the ring of buffers.
    ///
    /// # Safety
    /// The pool must outlive all receives of the group.
    unsafe fn register(submitter: &Submitter<'_>, group: u16, cut: Cut) -> io::Result<Rc<Self>> {
        let pool = Self::map(cut)?;
        let flags = if cut.incremental { INCREMENTAL } else { 0 };
        let entries = pool.entries().as_ptr() as u64;
        // SAFETY: the entries are page-aligned, `provided_max` of them, and live as long as the kernel uses them, for the
        // caller says so of the pool.
        unsafe { submitter.register_buf_ring_with_flags(entries, cut.provided_max, group, flags) }?;
        pool.replenish();
        Ok(Rc::new(pool))
    }

    /// A pool of which the kernel has no buffers yet.
    fn map(cut: Cut) -> io::Result<Self> {
        let memory = match cut.bytes() > map::HUGE_PAGE_BYTES {
            true => Mapping::huge(cut.bytes())?,
            // A few pages of it are in use most of the time.
            false => Mapping::new(cut.bytes(), map::PAGE_BYTES)?,
        };
        let state = || State { users: Cell::new(0), written: Cell::new(NOT_PROVIDED) };
        Ok(Self {
            cut,
            entries: Mapping::new(cut.entries_bytes(), map::PAGE_BYTES)?,
            memory,
            tail: Cell::new(0),
            provided: Cell::new(0),
            wanted: Cell::new(cut.provided_min),
            states: (0..cut.count).map(|_| state()).collect(),
            free: RefCell::new((0..cut.count).rev().collect()),
        })
    }

    fn entries(&self) -> NonNull<BufRingEntry> {
        self.entries.start().cast()
    }

    /// Gives free buffers to the kernel, as many as should be in its ring.
    pub fn replenish(&self) {
        if self.provided.get() >= self.wanted.get() {
            return;
        }
        let mut free = self.free.borrow_mut();
        let before = self.tail.get();
        while self.provided.get() < self.wanted.get()
            && let Some(id) = free.pop()
        {
            let at = usize::from(self.tail.get() & (self.cut.provided_max - 1));
            // SAFETY: `at` is inside the registered entries; the kernel reads an entry only after the tail has passed it.
            let entry = unsafe { &mut *self.entries().as_ptr().add(at) };
            entry.set_addr(self.start_of(id) as u64);
            entry.set_len(self.cut.buffer_bytes as u32);
            entry.set_bid(id);
            let state = &self.states[usize::from(id)];
            state.users.set(1);
            state.written.set(0);
            self.tail.set(self.tail.get().wrapping_add(1));
            self.provided.set(self.provided.get() + 1);
        }
        if self.tail.get() != before {
            // SAFETY: the tail is in the first entry's reserved field; the kernel reads it atomically.
            let tail = unsafe { &*BufRingEntry::tail(self.entries().as_ptr()).cast::<AtomicU16>() };
            tail.store(self.tail.get(), Ordering::Release);
        }
    }

    /// The kernel found no buffer: from the next turn on there are more.
    pub(super) fn want_more(&self) {
        self.wanted.set((self.wanted.get() * 2).min(self.cut.provided_max));
    }

    /// Called now and then: what was wanted in a rush is not wanted for ever.
    pub fn want_less(&self) {
        self.wanted.set((self.wanted.get() / 2).max(self.cut.provided_min));
    }

    /// The bytes that a completion said were written next into buffer `id`; `goes_on`: the kernel keeps the buffer.
    /// `length` is the result of a completion: below `1 << 31`.
    ///
    /// # Panics
    /// When the kernel cannot have written them there: the buffer is not the pool's, the kernel has given it back, or
    /// they do not fit behind what it wrote before. Then nothing that the kernel says of the pool can be believed.
    ///
    /// # Safety
    /// The kernel must have written `length` bytes into the buffer since the last call for it.
    pub(super) unsafe fn take(pool: &Rc<Self>, id: u16, length: u32, goes_on: bool) -> Slice {
        let state = &pool.states[usize::from(id)];
        let offset = state.written.get();
        let end = offset + length;
        assert!(end as usize <= pool.cut.buffer_bytes, "the kernel completed receives of one buffer out of order");
        state.written.set(end);
        state.users.set(state.users.get() + 1);
        // SAFETY: offset + length lies inside the buffer.
        let start = unsafe { NonNull::new_unchecked(pool.start_of(id).add(offset as usize)) };
        let slice = Slice { pool: Rc::clone(pool), start, length, id };
        if !goes_on {
            state.written.set(NOT_PROVIDED);
            pool.provided.set(pool.provided.get() - 1);
            pool.let_go(id);
        }
        slice
    }

    /// Buffer `id` was taken for a receive that brought nothing.
    ///
    /// # Panics
    /// When the buffer is consumed piece by piece. Multishot receives on sockets never pick a buffer for nothing; where
    /// kernels did so elsewhere, they did not say whether they kept it (liburing's issues 1545 and 1553).
    #[cold]
    pub(super) fn take_back(pool: &Rc<Self>, id: u16) {
        assert!(!pool.cut.incremental, "the kernel picked a shared buffer and received nothing");
        // SAFETY: nothing was written.
        drop(unsafe { Self::take(pool, id, 0, false) });
    }

    /// What tells it from a shard's other pool.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.cut.name
    }

    /// Buffers that are neither the kernel's nor in use.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.borrow().len()
    }

    /// Buffers that the kernel may write into.
    #[must_use]
    pub fn provided(&self) -> usize {
        usize::from(self.provided.get())
    }

    /// All buffers.
    #[must_use]
    pub fn buffers(&self) -> usize {
        self.states.len()
    }

    fn let_go(&self, id: u16) {
        let users = &self.states[usize::from(id)].users;
        debug_assert!(users.get() > 0);
        users.set(users.get() - 1);
        if users.get() == 0 {
            self.free.borrow_mut().push(id);
        }
    }

    fn start_of(&self, id: u16) -> *mut u8 {
        debug_assert!(usize::from(id) < self.states.len());
        // SAFETY: buffer `id` lies inside the mapping.
        unsafe { self.memory.start().as_ptr().add(usize::from(id) * self.cut.buffer_bytes) }
    }
}

/// Received bytes, in the memory that the kernel wrote them to. The buffer goes back when its last slice is dropped.
pub struct Slice {
    pool: Rc<Pool>,
    start: NonNull<u8>,
    length: u32,
    id: u16,
}

impl Slice {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the range was written by the kernel, is no other slice's, and the kernel writes only behind it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length as usize) }
    }

    /// The bytes, to be changed in place.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this slice is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length as usize) }
    }

    /// Cuts off the bytes from `at` on.
    ///
    /// # Panics
    /// When `at` is past the end: a bug of the caller.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        let users = &self.pool.states[usize::from(self.id)].users;
        users.set(users.get() + 1);
        let mut rest = Self { pool: Rc::clone(&self.pool), start: self.start, length: self.length, id: self.id };
        rest.narrow(at..self.length as usize);
        self.narrow(0..at);
        rest
    }

    /// Leaves only the bytes of `range`.
    ///
    /// # Panics
    /// When the range is not inside the slice: a bug of the caller.
    pub fn narrow(&mut self, range: std::ops::Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.length as usize, "narrow past the slice");
        // SAFETY: the range lies inside the slice.
        self.start = unsafe { self.start.add(range.start) };
        self.length = (range.end - range.start) as u32;
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes of buffer {})", self.length, self.id)
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        self.pool.let_go(self.id);
    }
}

#[cfg(test)]
mod tests;
