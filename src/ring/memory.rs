//! Memory for messages: small ones lie in the process's heap, large ones in blocks of the shard's arena, one mapping
//! in huge pages, so that copying a megabyte does not have to look up 256 pages twice.
//!
//! A block is the first free range that is long enough. The same low addresses are used again and again, while they are
//! in the cache, and what lies above them is given back to the system when it has not been needed for a while.

use super::map::{HUGE_PAGE_BYTES, Mapping};
use super::ranges::Ranges;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

/// Memory from this size on comes from the arena.
const BLOCK_BYTES_MIN: usize = 16 << 10;
/// Blocks begin and end at multiples of this.
const BLOCK_BYTES_STEP: usize = 4 << 10;
/// What an arena keeps of the memory that it has used once.
const KEPT_BYTES: usize = 8 << 20;

/// Where messages get their memory from.
#[derive(Debug)]
pub(super) struct Source {
    /// Address space of the arena.
    bytes_max: usize,
    /// Mapped when the first block is asked for; `None`: it could not be.
    arena: OnceCell<Option<Rc<Arena>>>,
}

impl Source {
    /// A source whose arena has room for `bytes_max` bytes. What finds no room there comes from the heap.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, arena: OnceCell::new() }
    }

    /// Empty memory with room for `capacity` bytes.
    pub(super) fn allocate(&self, capacity: usize) -> Memory {
        let block =
            || self.arena.get_or_init(|| Arena::map(self.bytes_max)).as_ref().and_then(|arena| arena.take(capacity));
        match (capacity >= BLOCK_BYTES_MIN).then(block).flatten() {
            Some(block) => Memory::Block(block),
            None => Memory::OwnedBuf(Vec::with_capacity(capacity)),
        }
    }

    /// Gives back to the system what has not been used since the last call.
    pub(super) fn trim(&self) {
        if let Some(Some(arena)) = self.arena.get() {
            arena.trim();
        }
    }
}

/// A run of bytes that grows up to its capacity.
#[derive(Debug)]
pub(super) enum Memory {
    OwnedBuf(Vec<u8>),
    Block(Block),
}

impl Memory {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::OwnedBuf(bytes) => bytes,
            Self::Block(block) => &block.all()[..block.used],
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            Self::OwnedBuf(bytes) => bytes,
            Self::Block(block) => {
                let used = block.used;
                &mut block.all_mut()[..used]
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::OwnedBuf(bytes) => bytes.len(),
            Self::Block(block) => block.used,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        match self {
            Self::OwnedBuf(bytes) => bytes.capacity(),
            Self::Block(block) => block.length,
        }
    }

    /// Appends what there is room for.
    ///
    /// # Panics
    /// When there is no room: a bug of the caller.
    pub(super) fn append(&mut self, more: &[u8]) {
        assert!(more.len() <= self.capacity() - self.len(), "the caller made room");
        match self {
            Self::OwnedBuf(bytes) => bytes.extend_from_slice(more),
            Self::Block(block) => {
                let end = block.used + more.len();
                let used = std::mem::replace(&mut block.used, end);
                block.all_mut()[used..end].copy_from_slice(more);
            }
        }
    }

    pub(super) fn truncate(&mut self, length: usize) {
        match self {
            Self::OwnedBuf(bytes) => bytes.truncate(length),
            Self::Block(block) => block.used = block.used.min(length),
        }
    }

    /// Where the next bytes may be written, and how many.
    pub(super) fn spare(&mut self) -> (*mut u8, usize) {
        match self {
            Self::OwnedBuf(bytes) => {
                let spare = bytes.spare_capacity_mut();
                (spare.as_mut_ptr().cast(), spare.len())
            }
            Self::Block(block) => {
                let used = block.used;
                let spare = &mut block.all_mut()[used..];
                (spare.as_mut_ptr(), spare.len())
            }
        }
    }

    /// # Panics
    /// When there is no room for so many: then the kernel has written past the end.
    ///
    /// # Safety
    /// `count` bytes behind the end must have been written, within the capacity.
    pub(super) unsafe fn extend_written(&mut self, count: usize) {
        assert!(count <= self.capacity() - self.len(), "written past the end");
        match self {
            // SAFETY: the caller says so.
            Self::OwnedBuf(bytes) => unsafe { bytes.set_len(bytes.len() + count) },
            Self::Block(block) => block.used += count,
        }
    }
}

/// A part of an arena that is nobody else's.
#[derive(Debug)]
pub(super) struct Block {
    arena: Rc<Arena>,
    start: usize,
    length: usize,
    /// Bytes in use, from its start. `used <= length`.
    used: usize,
}

impl Block {
    fn all(&self) -> &[u8] {
        // SAFETY: the range lies inside the mapping, which lives as long as `arena` does, belongs to no other block, and a
        // mapping's bytes are never uninitialised.
        unsafe { std::slice::from_raw_parts(self.arena.memory.start().add(self.start).as_ptr(), self.length) }
    }

    fn all_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this block is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.arena.memory.start().add(self.start).as_ptr(), self.length) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.arena.free.borrow_mut().give_back(self.start, self.length);
    }
}

/// A mapping, and which parts of it are free.
#[derive(Debug)]
struct Arena {
    memory: Mapping,
    free: RefCell<Ranges>,
    /// The end of the highest block since the last trim.
    recent_end: Cell<usize>,
    /// What lies behind this has not been written to since the system had it last.
    touched_end: Cell<usize>,
}

impl Arena {
    fn map(bytes_max: usize) -> Option<Rc<Self>> {
        let bytes = bytes_max.checked_next_multiple_of(HUGE_PAGE_BYTES)?;
        let memory = Mapping::huge(bytes).ok()?;
        Some(Rc::new(Self {
            memory,
            free: RefCell::new(Ranges::new(bytes)),
            recent_end: Cell::new(0),
            touched_end: Cell::new(0),
        }))
    }

    fn take(self: &Rc<Self>, capacity: usize) -> Option<Block> {
        let length = capacity.checked_next_multiple_of(BLOCK_BYTES_STEP)?;
        let start = self.free.borrow_mut().take(length)?;
        let end = start + length;
        self.recent_end.set(self.recent_end.get().max(end));
        self.touched_end.set(self.touched_end.get().max(end));
        Some(Block { arena: Rc::clone(self), start, length, used: 0 })
    }

    fn trim(&self) {
        let used_end = match self.free.borrow().last() {
            Some((start, length)) if start + length == self.memory.bytes() => start,
            _ => self.memory.bytes(),
        };
        let kept_end = self.recent_end.replace(used_end).max(used_end).max(KEPT_BYTES);
        let kept_end = kept_end.next_multiple_of(HUGE_PAGE_BYTES);
        let touched_end = self.touched_end.get();
        if kept_end < touched_end {
            // SAFETY: the range lies inside the mapping and no block does in it; its bytes are zeros from now on.
            unsafe { self.memory.give_back(kept_end..touched_end.next_multiple_of(HUGE_PAGE_BYTES)) };
            self.touched_end.set(kept_end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(source: &Source) -> Vec<(usize, usize)> {
        let arena = source.arena.get().and_then(Option::as_ref).expect("a block was asked for");
        arena.free.borrow().all().0
    }

    fn start(memory: &Memory) -> usize {
        match memory {
            Memory::OwnedBuf(_) => panic!("not a block"),
            Memory::Block(block) => block.start,
        }
    }

    #[test]
    fn blocks_take_the_first_room_there_is_and_grow_together_again() {
        let source = Source::new(3 << 20);
        let kib = |count: usize| count << 10;
        let (a, b, c) = (source.allocate(kib(64)), source.allocate(kib(65) - 1000), source.allocate(kib(16)));
        assert_eq!((start(&a), start(&b), start(&c)), (0, kib(64), kib(132)));
        drop(b);
        assert_eq!(blocks(&source), [(kib(64), kib(68)), (kib(148), (4 << 20) - kib(148))]);
        let d = source.allocate(kib(32));
        assert_eq!(start(&d), kib(64));
        drop((a, d, c));
        assert_eq!(blocks(&source), [(0, 4 << 20)]);
    }

    #[test]
    fn what_is_small_or_finds_no_room_comes_from_the_heap() {
        let source = Source::new(1);
        assert!(matches!(source.allocate(BLOCK_BYTES_MIN - 1), Memory::OwnedBuf(_)));
        assert!(source.arena.get().is_none());
        let all = source.allocate(HUGE_PAGE_BYTES);
        assert_eq!(start(&all), 0);
        assert!(matches!(source.allocate(BLOCK_BYTES_MIN), Memory::OwnedBuf(_)));
        let source = Source::new(usize::MAX);
        assert!(matches!(source.allocate(BLOCK_BYTES_MIN), Memory::OwnedBuf(_)));
    }

    #[test]
    fn a_block_holds_what_was_appended() {
        let source = Source::new(1);
        let mut memory = source.allocate(20_000);
        assert_eq!((memory.len(), memory.capacity()), (0, 20_480));
        memory.append(&[7; 20_000]);
        memory.as_mut_slice()[19_999] = 8;
        assert_eq!(memory.spare().1, 480);
        // SAFETY: a mapping's bytes are zeros until they are written to.
        unsafe { memory.extend_written(2) };
        assert_eq!(memory.as_slice()[19_998..], [7, 8, 0, 0]);
        memory.truncate(5);
        assert_eq!(memory.as_slice(), [7; 5]);
    }

    #[test]
    fn what_is_not_needed_any_more_is_given_back() {
        let source = Source::new(64 << 20);
        let mut large: Vec<_> = (0..8).map(|_| source.allocate(4 << 20)).collect();
        for memory in &mut large {
            memory.append(&[1; 100]);
        }
        let touched = || source.arena.get().and_then(Option::as_ref).map(|arena| arena.touched_end.get());
        large.truncate(4);
        source.trim();
        assert_eq!(touched(), Some(32 << 20), "needed since the last call");
        source.trim();
        assert_eq!(touched(), Some(16 << 20), "four are in use");
        drop(large);
        source.trim();
        source.trim();
        assert_eq!(touched(), Some(KEPT_BYTES));
        let (kept, fresh) = (source.allocate(KEPT_BYTES), source.allocate(KEPT_BYTES));
        let (mut kept, mut fresh) = (kept, fresh);
        // SAFETY: both are initialised.
        unsafe {
            kept.extend_written(1);
            fresh.extend_written(1);
        }
        assert_eq!((kept.as_slice(), fresh.as_slice()), (&[1][..], &[0][..]));
    }
}
