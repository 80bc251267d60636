//! Anonymous memory straight from the kernel.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

pub(super) const PAGE_BYTES: usize = 4096;
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A mapping, unmapped when this is dropped. Its bytes are zeros until they are written to.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// As [`Mapping::new`], in huge pages where the kernel has them. Memory that is never written to is none.
    pub(super) fn huge(bytes: usize) -> io::Result<Self> {
        let mapping = Self::new(bytes, HUGE_PAGE_BYTES)?;
        // SAFETY: advice about our own mapping; where it is not taken, pages are small.
        unsafe { libc::madvise(mapping.start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        Ok(mapping)
    }

    /// Maps `bytes` of anonymous memory, aligned to `alignment`, a multiple of the page size.
    pub(super) fn new(bytes: usize, alignment: usize) -> io::Result<Self> {
        let padded = bytes.checked_add(alignment).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        // SAFETY: a fresh anonymous mapping.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                padded,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let before = (start as usize).next_multiple_of(alignment) - start as usize;
        // SAFETY: both lie inside the mapping, `before <= alignment`; what is cut off was never used.
        let aligned = unsafe {
            let aligned = start.add(before);
            if before > 0 {
                libc::munmap(start, before);
            }
            if alignment > before {
                libc::munmap(aligned.add(bytes), alignment - before);
            }
            aligned
        };
        let start = NonNull::new(aligned.cast()).ok_or_else(|| io::Error::other("mmap returned null"))?;
        Ok(Self { start, bytes })
    }

    /// Its first byte.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its length.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets the system have the pages of a range back, which reads as zeros from then on.
    ///
    /// # Panics
    /// When the range is not inside: a bug of the caller.
    ///
    /// # Safety
    /// The range is whole pages, and nobody holds a reference into it.
    pub(super) unsafe fn give_back(&self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.bytes, "give back what is not there");
        // SAFETY: it lies inside the mapping; the rest the caller says.
        unsafe { libc::madvise(self.start.add(range.start).as_ptr().cast(), range.len(), libc::MADV_DONTNEED) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: whoever lends the memory out keeps this as long as it is used.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
