//! The pool of receive buffers that the kernel picks from, and the slices it hands out.
//!
//! The kernel takes buffers from a ring of entries; the pool gives them back by moving the ring's tail. Where the
//! kernel can (6.12), a buffer is consumed piece by piece (`IOU_PBUF_RING_INC`): many small messages share one buffer,
//! and a large read finds a large one. Before that each receive takes a buffer of its own. Only a few buffers stand in
//! the ring at a time and the one freed last goes back first, so that the memory in use stays in the cache.

use super::map;
use io_uring::{Submitter, types::BufRingEntry};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The buffer group of the pool.
pub const GROUP: u16 = 0;
/// Flag of `io_uring_register_buf_ring`: buffers are consumed incrementally.
const INCREMENTAL: u16 = 2;
/// All the memory of a pool.
const POOL_BYTES: usize = 8 << 20;
/// Room for the entries of the largest ring, 16 bytes each.
const ENTRIES_BYTES: usize = 512 * 16;

/// How the pool's memory is cut.
#[derive(Clone, Copy)]
struct Cut {
    buffer_bytes: usize,
    /// How many stand in the kernel's ring when little is to do.
    provided_min: u16,
    /// How many stand there at the most: all of them, and a power of two.
    provided_max: u16,
    incremental: bool,
}

const CUTS: [Cut; 2] = [
    Cut { buffer_bytes: 1 << 20, provided_min: 2, provided_max: 8, incremental: true },
    Cut { buffer_bytes: 16 << 10, provided_min: 16, provided_max: 512, incremental: false },
];
const _: () =
    assert!(POOL_BYTES.is_multiple_of(CUTS[0].buffer_bytes) && POOL_BYTES.is_multiple_of(CUTS[1].buffer_bytes));

/// A shard's receive buffers.
pub struct Pool {
    cut: Cut,
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: Cell<u16>,
    /// Buffers in the kernel's ring. `provided <= cut.provided_max`.
    provided: Cell<u16>,
    /// How many should stand there: few, so that the same memory is used again while it is in the cache, and more
    /// while they run out. `cut.provided_min <= wanted <= cut.provided_max`.
    wanted: Cell<u16>,
    states: Box<[State]>,
    /// Buffers that nobody uses; the last one freed is the next one given.
    free: RefCell<Vec<u16>>,
}

#[derive(Default)]
struct State {
    /// Slices of this buffer that are out, and one more while the kernel may write into it.
    users: Cell<u32>,
    /// Bytes from its start that the kernel has written.
    written: Cell<u32>,
}

impl Pool {
    /// Maps the memory and registers the ring of buffers, incremental where the kernel can.
    ///
    /// # Errors
    /// What `mmap` or the registration said.
    pub fn register(submitter: &Submitter<'_>) -> io::Result<Rc<Self>> {
        // Neither is ever unmapped, for a shard lives as long as the process.
        let memory = map::map_huge(POOL_BYTES)?;
        let entries: NonNull<BufRingEntry> = map::map(ENTRIES_BYTES, map::PAGE_BYTES)?.cast();
        let mut last_error = io::Error::from_raw_os_error(libc::EINVAL);
        for cut in CUTS {
            let flags = if cut.incremental { INCREMENTAL } else { 0 };
            // SAFETY: `entries` is page-aligned, holds `provided_max` entries of 16 bytes, and is never
            // unmapped.
            let registered = unsafe {
                submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, cut.provided_max, GROUP, flags)
            };
            match registered {
                Ok(()) => return Ok(Rc::new(Self::new(cut, entries, memory))),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    fn new(cut: Cut, entries: NonNull<BufRingEntry>, memory: NonNull<u8>) -> Self {
        let count = (POOL_BYTES / cut.buffer_bytes) as u16;
        let pool = Self {
            cut,
            entries,
            memory,
            tail: Cell::new(0),
            provided: Cell::new(0),
            wanted: Cell::new(cut.provided_min),
            states: (0..count).map(|_| State::default()).collect(),
            free: RefCell::new((0..count).rev().collect()),
        };
        pool.replenish();
        pool
    }

    /// Gives free buffers to the kernel, as many as should stand in its ring.
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
            let entry = unsafe { &mut *self.entries.as_ptr().add(at) };
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
            // SAFETY: the tail stands in the first entry's reserved field; the kernel reads it atomically.
            let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
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
    ///
    /// # Safety
    /// The kernel must have written `length` bytes into the buffer since the last call for it.
    pub(super) unsafe fn take(pool: &Rc<Self>, id: u16, length: u32, goes_on: bool) -> Slice {
        let state = &pool.states[usize::from(id)];
        let offset = state.written.get();
        state.written.set(offset + length);
        debug_assert!(state.written.get() as usize <= pool.cut.buffer_bytes);
        state.users.set(state.users.get() + 1);
        // SAFETY: the kernel says that offset + length lies inside the buffer.
        let start = unsafe { NonNull::new_unchecked(pool.start_of(id).add(offset as usize)) };
        let slice = Slice { pool: Rc::clone(pool), start, length, id };
        if !goes_on {
            pool.provided.set(pool.provided.get() - 1);
            pool.let_go(id);
        }
        slice
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

    /// The size of one buffer: no slice is longer.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.cut.buffer_bytes
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
        unsafe { self.memory.as_ptr().add(usize::from(id) * self.cut.buffer_bytes) }
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
