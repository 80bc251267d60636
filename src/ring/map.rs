//! Anonymous memory straight from the kernel.

use std::io;
use std::ptr::NonNull;

pub(super) const PAGE_BYTES: usize = 4096;
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// As [`map`], in huge pages where the kernel has them. Memory that is never written to is none.
pub(super) fn map_huge(bytes: usize) -> io::Result<NonNull<u8>> {
    let memory = map(bytes, HUGE_PAGE_BYTES)?;
    // SAFETY: advice about our own mapping; where it is not taken, pages are small.
    unsafe { libc::madvise(memory.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
    Ok(memory)
}

/// Maps `bytes` of anonymous memory, aligned to `alignment`, a multiple of the page size.
pub(super) fn map(bytes: usize, alignment: usize) -> io::Result<NonNull<u8>> {
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
    let aligned = (start as usize).next_multiple_of(alignment) as *mut u8;
    // SAFETY: all three lie inside the mapping; what is cut off is not used, and its pages were never touched.
    unsafe {
        let before = aligned as usize - start as usize;
        if before > 0 {
            libc::munmap(start, before);
        }
        if alignment > before {
            libc::munmap(aligned.add(bytes).cast(), alignment - before);
        }
    }
    NonNull::new(aligned).ok_or_else(|| io::Error::other("mmap returned null"))
}

/// Lets the system have the pages of a range back, which reads as zeros from then on.
///
/// # Safety
/// The range is whole pages inside a mapping made here, and nobody holds a reference into it.
pub(super) unsafe fn give_back(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller says so.
    unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_DONTNEED) };
}

/// Ends a mapping.
///
/// # Safety
/// It was made by [`map`] or [`map_huge`] with that size, and is not used any more.
pub(super) unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller says so.
    unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
}
