//! The receive buffers of a shard, and the slices of them that are handed out.
//!
//! Whoever writes into a buffer has it on loan: the kernel, of those in its ring (`provided.rs`), or the driver that
//! receives by itself. Bytes are written behind those that were there. A buffer is free again when it is lent no more and
//! all slices of it are gone, and the one freed last is lent next, so that the memory in use stays in the cache.

use super::map::{self, Mapping};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;

/// The most that one single receive brings.
pub const GLANCE_BYTES: u32 = 4 << 10;

/// How a pool's memory is cut.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// What tells it from a shard's other pool.
    pub(super) name: &'static str,
    pub(super) buffer_bytes: usize,
    /// All buffers of the pool.
    pub(super) count: u16,
    /// How many are in the kernel's ring when there is little to do.
    pub(super) provided_min: u16,
    /// How many are there at most: all of them, and a power of two.
    pub(super) provided_max: u16,
    /// Buffers are consumed piece by piece.
    pub(super) incremental: bool,
}

impl Cut {
    /// For streams, 8 MiB.
    pub(super) const INCREMENTAL: Self = Self {
        name: "incremental",
        buffer_bytes: 1 << 20,
        count: 8,
        provided_min: 2,
        provided_max: 8,
        incremental: true,
    };
    /// For streams as well.
    pub(super) const WHOLE: Self = Self {
        name: "whole",
        buffer_bytes: 16 << 10,
        count: 512,
        provided_min: 16,
        provided_max: 512,
        incremental: false,
    };
    /// For single receives, 512 KiB: unauthenticated connections are read a page at a time, and few of a crowd are let in at
    /// once.
    pub(super) const GLANCES: Self = Self {
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

    const fn is_sound(&self) -> bool {
        self.count <= self.provided_max
            && self.provided_min <= self.count
            && self.provided_max.is_power_of_two()
            && self.buffer_bytes < NOT_LENT as usize
    }
}
const _: () = assert!(Cut::INCREMENTAL.is_sound() && Cut::WHOLE.is_sound() && Cut::GLANCES.is_sound());

/// [`State::written`] of a buffer that nobody has on loan: past the end of every buffer, and so that adding the length of
/// any completion does not wrap.
const NOT_LENT: u32 = 1 << 31;

/// A shard's receive buffers of one kind, and who uses each of them.
pub(super) struct Pool {
    cut: Cut,
    memory: Mapping,
    states: Box<[State]>,
    /// Buffers that nobody uses; the last one freed is the next one given.
    free: RefCell<Vec<u16>>,
}

struct State {
    /// Slices of this buffer that are out, and one more while it is lent.
    users: Cell<u32>,
    /// Bytes from its start that have been written, or [`NOT_LENT`].
    written: Cell<u32>,
}

impl Pool {
    pub(super) fn map(cut: Cut) -> io::Result<Rc<Self>> {
        let memory = match cut.bytes() > map::HUGE_PAGE_BYTES {
            true => Mapping::huge(cut.bytes())?,
            // A few pages of it are in use most of the time.
            false => Mapping::new(cut.bytes(), map::PAGE_BYTES)?,
        };
        let state = || State { users: Cell::new(0), written: Cell::new(NOT_LENT) };
        Ok(Rc::new(Self {
            cut,
            memory,
            states: (0..cut.count).map(|_| state()).collect(),
            free: RefCell::new((0..cut.count).rev().collect()),
        }))
    }

    /// Lends a buffer that nobody uses to whoever writes into it; `None`: there is none.
    pub(super) fn lend(&self) -> Option<u16> {
        let id = self.free.borrow_mut().pop()?;
        let state = &self.states[usize::from(id)];
        state.users.set(1);
        state.written.set(0);
        Some(id)
    }

    /// Where buffer `id`, which is lent, may be written to next, and how many bytes.
    ///
    /// # Panics
    /// When it is not lent: a bug of the caller.
    pub(super) fn room(&self, id: u16) -> (NonNull<u8>, usize) {
        let written = self.states[usize::from(id)].written.get() as usize;
        assert!(written <= self.cut.buffer_bytes, "the buffer is not lent");
        // SAFETY: it lies inside the buffer, or at its end.
        (unsafe { self.start_of(id).add(written) }, self.cut.buffer_bytes - written)
    }

    /// The bytes that were written next into buffer `id`; `goes_on`: it stays lent. `length` is below `1 << 31`.
    ///
    /// # Panics
    /// When they cannot have been written there: the buffer is not the pool's, it has been given back, or they do not
    /// fit behind what was written before. Then nothing that the kernel says of the pool can be believed.
    ///
    /// # Safety
    /// `length` bytes must have been written into the buffer since the last call for it.
    pub(super) unsafe fn take(pool: &Rc<Self>, id: u16, length: u32, goes_on: bool) -> Slice {
        let state = &pool.states[usize::from(id)];
        let offset = state.written.get();
        let end = offset + length;
        assert!(end as usize <= pool.cut.buffer_bytes, "the kernel completed receives of one buffer out of order");
        state.written.set(end);
        state.users.set(state.users.get() + 1);
        // SAFETY: offset + length lies inside the buffer.
        let start = unsafe { pool.start_of(id).add(offset as usize) };
        let slice = Slice { pool: Rc::clone(pool), start, length, id };
        if !goes_on {
            pool.give_back(id);
        }
        slice
    }

    /// Buffer `id` is lent no more: it is free when all of its slices have been dropped.
    pub(super) fn give_back(&self, id: u16) {
        self.states[usize::from(id)].written.set(NOT_LENT);
        self.let_go(id);
    }

    /// How it is cut.
    pub(super) fn cut(&self) -> &Cut {
        &self.cut
    }

    /// Buffers that are neither lent nor in use.
    pub(super) fn free(&self) -> usize {
        self.free.borrow().len()
    }

    fn let_go(&self, id: u16) {
        let users = &self.states[usize::from(id)].users;
        debug_assert!(users.get() > 0);
        users.set(users.get() - 1);
        if users.get() == 0 {
            self.free.borrow_mut().push(id);
        }
    }

    fn start_of(&self, id: u16) -> NonNull<u8> {
        debug_assert!(usize::from(id) < self.states.len());
        // SAFETY: buffer `id` lies inside the mapping.
        unsafe { self.memory.start().add(usize::from(id) * self.cut.buffer_bytes) }
    }
}

/// Received bytes, in the memory that they were written to. The buffer goes back when its last slice is dropped.
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
        // SAFETY: the range was written, is no other slice's, and whoever has the buffer on loan writes only behind it.
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
