//! Buffers of a pool that the kernel picks from.
//!
//! The kernel takes them from a ring of entries; they are provided by moving the ring's tail. Multishot receives have one
//! pool. Where the kernel can be trusted with it ([`Consumption`]), its buffers are consumed piece by piece
//! (`IOU_PBUF_RING_INC`): many small messages share one buffer, and a large read finds a large one. Elsewhere each receive
//! takes a buffer of its own. Single receives have a pool of small buffers that are never shared: what newcomers send does
//! not lie beside what pairs do. Only a few buffers are in a ring at a time, so that the memory in use stays in the cache.

use super::buffers::{Cut, Pool, Slice};
use super::completion::Buffers;
use super::map::{self, Mapping};
use super::order::{Consumption, Why};
use io_uring::{Submitter, types::BufRingEntry};
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The buffer group of multishot receives.
pub(super) const STREAMS: u16 = 0;
/// The buffer group of single receives.
pub(super) const GLANCES: u16 = 1;
/// Flag of `io_uring_register_buf_ring`: buffers are consumed incrementally.
const INCREMENTAL: u16 = 2;

/// A pool, and the ring of those of its buffers that the kernel may write into.
pub(super) struct Provided {
    pool: Rc<Pool>,
    entries: Mapping,
    tail: u16,
    /// Buffers in the kernel's ring. `provided <= cut.provided_max`.
    provided: u16,
    /// How many should be there: few, so that the same memory is used again while it is in the cache, and more
    /// while they run out. `cut.provided_min <= wanted <= cut.provided_max`.
    wanted: u16,
}

impl Provided {
    /// Those of multishot receives, and how they are consumed: as `wanted`, where the kernel does it.
    ///
    /// # Errors
    /// What `mmap` or the registration said.
    ///
    /// # Safety
    /// As [`Provided::register`].
    pub(super) unsafe fn streams(submitter: &Submitter<'_>, wanted: Consumption) -> io::Result<(Self, Consumption)> {
        let consumption = match wanted {
            // SAFETY: the caller says so.
            Consumption::Incremental => match unsafe { Self::register(submitter, STREAMS, Cut::INCREMENTAL) } {
                Ok(provided) => return Ok((provided, wanted)),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Consumption::Whole(Why::Refused),
                Err(error) => return Err(error),
            },
            Consumption::Whole(_) => wanted,
        };
        // SAFETY: the caller says so.
        let provided = unsafe { Self::register(submitter, STREAMS, Cut::WHOLE) }?;
        Ok((provided, consumption))
    }

    /// Those of single receives.
    ///
    /// # Errors
    /// What `mmap` or the registration said.
    ///
    /// # Safety
    /// As [`Provided::register`].
    pub(super) unsafe fn glances(submitter: &Submitter<'_>) -> io::Result<Self> {
        // SAFETY: the caller says so.
        unsafe { Self::register(submitter, GLANCES, Cut::GLANCES) }
    }

    /// Maps the memory and registers the ring of buffers.
    ///
    /// # Safety
    /// Pool and entries must outlive all receives of the group.
    unsafe fn register(submitter: &Submitter<'_>, group: u16, cut: Cut) -> io::Result<Self> {
        let mut provided = Self::map(cut)?;
        let flags = if cut.incremental { INCREMENTAL } else { 0 };
        let entries = provided.entries().as_ptr() as u64;
        // SAFETY: the entries are page-aligned, `provided_max` of them, and live as long as the kernel uses them, for the
        // caller says so of them.
        unsafe { submitter.register_buf_ring_with_flags(entries, cut.provided_max, group, flags) }?;
        provided.replenish();
        Ok(provided)
    }

    /// A pool of which the kernel has no buffers yet.
    fn map(cut: Cut) -> io::Result<Self> {
        // The kernel wants whole pages.
        let bytes = (usize::from(cut.provided_max) * size_of::<BufRingEntry>()).next_multiple_of(map::PAGE_BYTES);
        Ok(Self {
            pool: Pool::map(cut)?,
            entries: Mapping::new(bytes, map::PAGE_BYTES)?,
            tail: 0,
            provided: 0,
            wanted: cut.provided_min,
        })
    }

    fn entries(&self) -> NonNull<BufRingEntry> {
        self.entries.start().cast()
    }

    /// Gives free buffers to the kernel, as many as should be in its ring.
    pub(super) fn replenish(&mut self) {
        if self.provided >= self.wanted {
            return;
        }
        let before = self.tail;
        while self.provided < self.wanted
            && let Some(id) = self.pool.lend()
        {
            let (start, room) = self.pool.room(id);
            let at = usize::from(self.tail & (self.pool.cut().provided_max - 1));
            // SAFETY: `at` is inside the registered entries; the kernel reads an entry only after the tail has passed it.
            let entry = unsafe { &mut *self.entries().as_ptr().add(at) };
            entry.set_addr(start.as_ptr() as u64);
            entry.set_len(room as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            self.provided += 1;
        }
        if self.tail != before {
            // SAFETY: the tail is in the first entry's reserved field; the kernel reads it atomically.
            let tail = unsafe { &*BufRingEntry::tail(self.entries().as_ptr()).cast::<AtomicU16>() };
            tail.store(self.tail, Ordering::Release);
        }
    }

    /// The kernel found no buffer: from the next turn on there are more.
    pub(super) fn want_more(&mut self) {
        self.wanted = (self.wanted * 2).min(self.pool.cut().provided_max);
    }

    /// Called now and then: what was wanted in a rush is not wanted for ever.
    pub(super) fn want_less(&mut self) {
        self.wanted = (self.wanted / 2).max(self.pool.cut().provided_min);
    }

    /// The bytes that a completion said were written next into buffer `id`; `goes_on`: the kernel keeps the buffer.
    /// `length` is the result of a completion: below `1 << 31`.
    ///
    /// # Panics
    /// As [`Pool::take`].
    ///
    /// # Safety
    /// As [`Pool::take`].
    pub(super) unsafe fn take(&mut self, id: u16, length: u32, goes_on: bool) -> Slice {
        // SAFETY: the caller says so.
        let slice = unsafe { Pool::take(&self.pool, id, length, goes_on) };
        self.provided -= u16::from(!goes_on);
        slice
    }

    /// Buffer `id` was taken for a receive that brought nothing.
    ///
    /// # Panics
    /// When the buffer is consumed piece by piece. Multishot receives on sockets never pick a buffer for nothing; where
    /// kernels did so elsewhere, they did not say whether they kept it (liburing's issues 1545 and 1553).
    #[cold]
    pub(super) fn take_back(&mut self, id: u16) {
        assert!(!self.pool.cut().incremental, "the kernel picked a shared buffer and received nothing");
        // SAFETY: nothing was written.
        drop(unsafe { self.take(id, 0, false) });
    }

    /// The buffers, by who has them.
    pub(super) fn buffers(&self) -> Buffers {
        Buffers::of(&self.pool, self.provided)
    }
}

#[cfg(test)]
mod tests;
