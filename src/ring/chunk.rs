//! Bytes on their way: what a connection received, or is to send.

use super::buffers::Slice;
use super::memory::{Memory, Source};
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

/// The chunks that one send takes at the most.
pub const CHUNKS_A_SEND_MAX: usize = 64;

/// Bytes in the memory they were received into, or in an allocation of their own.
#[derive(Debug)]
pub enum Chunk {
    /// A part of a receive buffer.
    Slice(Slice),
    /// An allocation.
    Owned(OwnedBuf),
}

impl Chunk {
    /// The bytes: of an owned buffer, those that show.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Slice(slice) => slice.as_slice(),
            Self::Owned(buf) => buf.as_slice(),
        }
    }

    /// The bytes, to be changed in place.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            Self::Slice(slice) => slice.as_mut_slice(),
            Self::Owned(buf) => buf.as_mut_slice(),
        }
    }

    /// Leaves only the bytes of `range`.
    pub fn narrow(&mut self, range: std::ops::Range<usize>) {
        match self {
            Self::Slice(slice) => slice.narrow(range),
            Self::Owned(buf) => buf.narrow(range),
        }
    }

    /// Takes the first `at` bytes off: shared memory of a slice, a copy of an owned buffer's. Whoever walks through a chunk this
    /// way copies each byte once at most, however many steps that takes.
    #[must_use]
    pub fn split_to(&mut self, at: usize) -> Self {
        match self {
            Self::Slice(slice) => {
                let rest = slice.split_off(at);
                Self::Slice(std::mem::replace(slice, rest))
            }
            Self::Owned(buf) => {
                let front = buf.as_slice()[..at].to_vec();
                buf.advance(at);
                Self::Owned(OwnedBuf::from(front))
            }
        }
    }

    /// Passes over the first `count` bytes.
    pub fn advance(&mut self, count: usize) {
        let length = self.len();
        match self {
            Self::Slice(slice) => slice.narrow(count..length),
            Self::Owned(buf) => buf.advance(count),
        }
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the largest headroom is filled with.
const ZEROS: [u8; 16] = [0; 16];

/// Bytes in an allocation of their own, of which a part is still to be sent.
///
/// `start <= stop <= bytes.len()`; what lies before `start` has been sent or is room for a header.
pub struct OwnedBuf {
    bytes: Memory,
    start: usize,
    stop: usize,
    reservation: Option<Reservation>,
}

impl OwnedBuf {
    /// An empty allocation with room for `headroom` bytes before its contents, at most 16, and for `capacity` bytes of those.
    #[must_use]
    pub fn with_headroom(headroom: usize, capacity: usize, reservation: Reservation) -> Self {
        let mut bytes = reservation.account.source.allocate(headroom + capacity);
        bytes.append(&ZEROS[..headroom]);
        Self { bytes, start: headroom, stop: headroom, reservation: Some(reservation) }
    }

    /// The bytes from `start` to `stop`.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes.as_slice()[self.start..self.stop]
    }

    /// The bytes from `start` to `stop`, to be changed in place.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes.as_mut_slice()[self.start..self.stop]
    }

    /// Appends, growing where it must.
    pub fn extend(&mut self, more: &[u8]) {
        debug_assert_eq!(self.stop, self.bytes.len());
        self.make_room(more.len());
        self.bytes.append(more);
        self.stop = self.bytes.len();
    }

    /// Bytes that are neither sent nor within [`OwnedBuf::as_slice`]: what [`OwnedBuf::reveal`] can still show.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.bytes.len() - self.stop
    }

    /// Hides all but the first `count` bytes, to be shown later by [`OwnedBuf::reveal`].
    pub fn hide_from(&mut self, count: usize) {
        self.stop = self.bytes.len().min(self.start + count);
    }

    /// Once all that shows has been sent: puts `header` in front of the next `count` hidden bytes and shows both. The
    /// header is written over bytes that have been sent.
    pub fn reveal(&mut self, header: &[u8], count: usize) {
        debug_assert_eq!(self.start, self.stop);
        self.stop = self.bytes.len().min(self.stop + count);
        self.prepend(header);
    }

    /// Puts `header` in front of what shows, into the headroom or over bytes that have been sent.
    ///
    /// # Panics
    /// When there is no room: a bug of the caller.
    pub fn prepend(&mut self, header: &[u8]) {
        let start = self.start.checked_sub(header.len()).expect("the caller left room for the header");
        self.bytes.as_mut_slice()[start..self.start].copy_from_slice(header);
        self.start = start;
    }

    /// Leaves only the bytes of `range`.
    pub fn narrow(&mut self, range: std::ops::Range<usize>) {
        let start = self.start;
        assert!(range.start <= range.end && start + range.end <= self.bytes.len(), "narrow past the buf");
        if self.hidden() == 0 {
            self.bytes.truncate(start + range.end);
        }
        self.stop = start + range.end;
        self.start = start + range.start;
    }

    /// Passes over the first `count` bytes of what shows.
    ///
    /// # Panics
    /// When so many do not show: a bug of the caller.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.stop - self.start, "advance past the buf");
        self.start += count;
    }

    /// Where the next bytes may be written, and how many.
    pub(super) fn spare(&mut self) -> (*mut u8, usize) {
        self.bytes.spare()
    }

    /// # Safety
    /// `count` bytes behind the end must have been written, within the capacity.
    pub(super) unsafe fn extend_filled(&mut self, count: usize) {
        // SAFETY: the caller says so.
        unsafe { self.bytes.extend_written(count) };
        self.stop = self.bytes.len();
    }

    /// Makes room for `more` bytes behind those that are there; for twice those at least, up to what is reserved, so that
    /// a message that comes in many pieces is not copied for each.
    pub fn make_room(&mut self, more: usize) {
        let wanted = self.bytes.len() + more;
        if self.bytes.capacity() >= wanted {
            return;
        }
        let mut larger = match &self.reservation {
            Some(reservation) => {
                let roomy = self.bytes.len().saturating_mul(2).min(reservation.bytes);
                reservation.account.source.allocate(wanted.max(roomy))
            }
            None => Memory::OwnedBuf(Vec::with_capacity(wanted.max(self.bytes.len().saturating_mul(2)))),
        };
        larger.append(self.bytes.as_slice());
        self.bytes = larger;
    }
}

impl From<Vec<u8>> for OwnedBuf {
    /// A small message of the relay's own: not counted against the budget.
    fn from(bytes: Vec<u8>) -> Self {
        Self { start: 0, stop: bytes.len(), bytes: Memory::OwnedBuf(bytes), reservation: None }
    }
}

impl OwnedBuf {
    /// Counts more bytes against the budget.
    pub fn reserve_more(&mut self, more: Reservation) {
        match &mut self.reservation {
            Some(reservation) => reservation.join(more),
            None => self.reservation = Some(more),
        }
    }

    /// Bytes that are reserved for it.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        self.reservation.as_ref().map_or(0, |reservation| reservation.bytes)
    }

    /// As `From<Vec<u8>>`, counted against the budget by `reservation`.
    #[must_use]
    pub fn reserved(bytes: Vec<u8>, reservation: Reservation) -> Self {
        Self { start: 0, stop: bytes.len(), bytes: Memory::OwnedBuf(bytes), reservation: Some(reservation) }
    }
}

impl fmt::Debug for OwnedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reserved = self.reserved_bytes();
        write!(f, "OwnedBuf({}..{} of {}, {reserved} reserved)", self.start, self.stop, self.bytes.len())
    }
}

/// What one send takes.
#[derive(Debug)]
pub enum Outgoing {
    /// One run of bytes: `send`.
    One(Chunk),
    /// Several: `sendmsg`.
    Many(Box<Batch>),
}

impl Outgoing {
    /// All bytes of it.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::One(chunk) => chunk.len(),
            Self::Many(batch) => batch.chunks.iter().map(Chunk::len).sum(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Several chunks that leave in one `sendmsg`, with the structures that the kernel reads.
pub struct Batch {
    /// The chunks, in order.
    pub chunks: Vec<Chunk>,
    vectors: Vec<libc::iovec>,
    message: libc::msghdr,
}

impl Batch {
    /// A batch of `chunks`, at most [`CHUNKS_A_SEND_MAX`].
    #[must_use]
    pub fn new(chunks: Vec<Chunk>) -> Box<Self> {
        debug_assert!(chunks.len() <= CHUNKS_A_SEND_MAX);
        // SAFETY: a message header of zeros is a valid one: no name, no vectors, no control data.
        let message = unsafe { std::mem::zeroed() };
        Box::new(Self { chunks, vectors: Vec::new(), message })
    }

    /// The header for the kernel; valid while the batch lives and its chunks do not change.
    pub(super) fn message(&mut self) -> *const libc::msghdr {
        self.vectors = self
            .chunks
            .iter()
            .map(|chunk| {
                let bytes = chunk.as_slice();
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
            })
            .collect();
        self.message.msg_iov = self.vectors.as_mut_ptr();
        self.message.msg_iovlen = self.vectors.len() as _;
        &raw const self.message
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.chunks).finish()
    }
}

/// A shard's memory for messages in progress.
#[derive(Clone, Debug)]
pub struct Budget {
    account: Rc<Account>,
}

#[derive(Debug)]
struct Account {
    used_bytes: Cell<usize>,
    bytes_max: Cell<usize>,
    source: Source,
}

impl Budget {
    /// A budget of `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let source = Source::new(bytes_max);
        Self { account: Rc::new(Account { used_bytes: Cell::new(0), bytes_max: Cell::new(bytes_max), source }) }
    }

    /// From now on `bytes_max` bytes can be reserved. What exceeds that already stays, and what exceeds the bytes that the
    /// budget was made with comes from the process's heap.
    pub fn resize(&self, bytes_max: usize) {
        self.account.bytes_max.set(bytes_max);
    }

    /// Reserves `bytes`, or `None` while too much is in use.
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> Option<Reservation> {
        (self.account.used_bytes.get() + bytes <= self.account.bytes_max.get()).then(|| self.charge(bytes))
    }

    /// Counts `bytes` that are there already, whether or not the budget has room; new reservations then wait.
    #[must_use]
    pub fn charge(&self, bytes: usize) -> Reservation {
        self.account.used_bytes.set(self.account.used_bytes.get() + bytes);
        Reservation { account: Rc::clone(&self.account), bytes }
    }

    /// All that can be reserved.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.account.bytes_max.get()
    }

    /// Called now and then: gives memory back to the system that has not been used since the last call.
    pub fn trim(&self) {
        self.account.source.trim();
    }

    /// Bytes reserved now.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.account.used_bytes.get()
    }
}

/// Bytes of a [`Budget`], given back when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    account: Rc<Account>,
    bytes: usize,
}

impl Reservation {
    /// Takes over what `other` of the same budget has reserved.
    fn join(&mut self, mut other: Self) {
        debug_assert!(Rc::ptr_eq(&self.account, &other.account), "reservations of one budget");
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.used_bytes.set(self.account.used_bytes.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_waits_for_what_is_given_back() {
        let budget = Budget::new(100);
        let first = budget.reserve(60).unwrap();
        assert!(budget.reserve(41).is_none());
        drop(first);
        let forced = budget.charge(150);
        assert!(budget.reserve(0).is_none());
        drop(forced);
        assert_eq!(budget.used_bytes(), 0);
        budget.resize(10);
        assert!(budget.reserve(11).is_none() && budget.reserve(10).is_some());
    }

    #[test]
    fn what_is_reserved_in_two_steps_is_given_back_in_one() {
        let budget = Budget::new(100);
        let mut buf = OwnedBuf::with_headroom(0, 10, budget.charge(10));
        buf.reserve_more(budget.reserve(30).unwrap());
        assert_eq!((buf.reserved_bytes(), budget.used_bytes()), (40, 40));
        drop(buf);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_heap_is_walked_through_from_the_front() {
        let mut chunk = Chunk::Owned(OwnedBuf::from(b"abcdef".to_vec()));
        assert_eq!(chunk.split_to(2).as_slice(), b"ab");
        chunk.advance(1);
        assert_eq!(chunk.as_slice(), b"def");
        assert_eq!(chunk.split_to(3).as_slice(), b"def");
        assert!(chunk.is_empty());
    }

    #[test]
    fn a_large_message_shows_one_fragment_after_the_other() {
        let mut buf = OwnedBuf::with_headroom(10, 9, Budget::new(100).charge(9));
        buf.extend(b"abcdefghi");
        buf.hide_from(4);
        buf.prepend(&[1, 4]);
        assert_eq!(buf.as_slice(), b"\x01\x04abcd");
        buf.narrow(6..6);
        buf.reveal(&[0, 4], 4);
        assert_eq!(buf.as_slice(), b"\x00\x04efgh");
        buf.narrow(3..6);
        assert_eq!(buf.as_slice(), b"fgh");
        buf.narrow(3..3);
        buf.reveal(&[0x80, 1], 4);
        assert_eq!((buf.as_slice(), buf.hidden()), (&b"\x80\x01i"[..], 0));
    }
}
