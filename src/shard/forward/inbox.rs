//! What a connection has sent that could not be passed on yet: a part of a frame, a message under way, or bytes that
//! wait because reading is paused.

use crate::proto::device::DeviceId;
use crate::proto::envelope::{Invalid, Scanner};
use crate::proto::frame::{self, Header, Opcode};
use crate::proto::payload;
use crate::ring::chunk::OwnedBuf;
use crate::shard::bounds::{DIRECT_BYTES_MIN, GLANCE_BYTES, PREFIX_BYTES_MAX, SMALL_BYTES_MAX};
use std::collections::VecDeque;

/// What could not be passed on yet. A connection has one only while there is something in it.
#[derive(Default)]
pub(in crate::shard) struct Inbox {
    /// The beginning of a frame: its header is not whole, or it is a control frame that is not.
    pub(super) head: Vec<u8>,
    /// The message under way.
    pub(in crate::shard) partial: Option<Partial>,
    /// A whole message that has to wait, with its kind: first in line when reading goes on.
    pub(super) ready: Option<(OwnedBuf, Opcode)>,
    /// The frame that waits for memory: first in line when reading goes on.
    pub(in crate::shard) pending: Option<Pending>,
    /// Bytes that have not been looked at, because reading is paused. They count against a budget of their own: counted
    /// against that of messages, those who wait for it would keep each other waiting for ever.
    pub(super) waiting: VecDeque<OwnedBuf>,
}

/// The header of a data frame that waits for memory.
pub(in crate::shard) struct Pending {
    /// The header.
    pub(in crate::shard) header: Header,
    /// The tick at which it began to wait.
    pub(in crate::shard) since: u32,
    /// The tick at which its message is refused.
    pub(in crate::shard) due: u32,
}

impl Inbox {
    /// Whether something waits that comes before whatever is received next.
    pub(in crate::shard) fn holds_back(&self) -> bool {
        self.ready.is_some() || self.pending.is_some() || !self.waiting.is_empty()
    }

    /// Whether the message under way is thrown away.
    #[must_use]
    pub(in crate::shard) fn skips(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| partial.skipped.is_some())
    }

    /// Bytes that have not been looked at.
    #[must_use]
    pub(in crate::shard) fn waiting_bytes(&self) -> usize {
        self.waiting.iter().map(|buf| buf.as_slice().len()).sum()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.partial.is_none() && !self.holds_back()
    }

    /// How many bytes can be received straight into the message under way; `None`: too few for that.
    pub(in crate::shard) fn direct_bytes(&self) -> Option<usize> {
        let partial = self.partial.as_ref().filter(|partial| partial.skipped.is_none() && self.head.is_empty())?;
        let left = partial.frame?.left;
        // Once begun, the message is received that way to its end.
        let enough = left >= DIRECT_BYTES_MIN || (partial.direct && left > 0);
        enough.then(|| usize::try_from(left).unwrap_or(usize::MAX))
    }
}

/// Why the rest of a message is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Skipped {
    /// It is over the size limit.
    TooLarge,
    /// There was no memory for it.
    NoMemory,
}

/// A message of which a part has come.
pub(in crate::shard) struct Partial {
    /// Text or binary.
    pub(super) opcode: Opcode,
    /// The payload so far, unmasked, with headroom for a header; away while the ring fills it.
    pub(in crate::shard) buf: Option<OwnedBuf>,
    /// The frame under way; `None` between fragments.
    pub(super) frame: Option<FrameLeft>,
    /// Payload bytes of all frames begun so far.
    pub(super) announced_bytes: u64,
    /// What is known of the JSON.
    pub(super) scanner: Scanner,
    /// What is wrong with it: the rest is skipped.
    pub(super) invalid: Option<Invalid>,
    /// It is not taken: only a prefix is kept, and the rest is skipped.
    pub(in crate::shard) skipped: Option<Skipped>,
    /// The sender has been told so.
    pub(super) told: bool,
    /// Frames without payload that it has had.
    pub(super) empty_frames: u16,
    /// The tick at which it began.
    pub(in crate::shard) since: u32,
    /// A part of it has been received straight into its allocation.
    pub(super) direct: bool,
    /// The tick at which it has taken too long.
    pub(in crate::shard) due: u32,
}

/// What is still to come of a data frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameLeft {
    /// The mask key.
    pub(super) key: [u8; 4],
    /// Payload bytes that have come.
    pub(super) come: u64,
    /// Payload bytes that have not.
    pub(super) left: u64,
    /// The message ends with this frame.
    pub(super) fin: bool,
}

impl Partial {
    /// Takes payload bytes of the frame under way, as received: unmasks, checks and keeps them.
    pub(super) fn take(&mut self, piece: &mut [u8], checked: bool) {
        if self.skipped.is_some() {
            return self.take_prefix(piece);
        }
        self.unmask_and_check(piece, checked);
        let left = self.frame.map_or(0, |frame| frame.left) as usize;
        let Some(buf) = &mut self.buf else { return };
        if piece.len() > GLANCE_BYTES as usize {
            // More than a glance has come, so the rest is close: all of the frame gets its room at once.
            buf.make_room(piece.len() + left);
        }
        buf.extend(piece);
    }

    /// As [`Partial::take`], of a message that is skipped: of what goes beyond the prefix not even the mask is taken off.
    fn take_prefix(&mut self, piece: &mut [u8]) {
        let (Some(frame), Some(buf)) = (&mut self.frame, &mut self.buf) else { return };
        let kept = piece.len().min(PREFIX_BYTES_MAX.saturating_sub(buf.as_slice().len()));
        frame::unmask(&mut piece[..kept], frame.key, frame.come as usize & 3);
        buf.extend(&piece[..kept]);
        frame.come += piece.len() as u64;
        frame.left -= piece.len() as u64;
    }

    /// As [`Partial::take`], for `count` bytes that the ring put at the end of `buf`.
    pub(super) fn take_filled(&mut self, mut buf: OwnedBuf, count: usize, checked: bool) {
        let bytes = buf.as_mut_slice();
        let start = bytes.len() - count;
        self.unmask_and_check(&mut bytes[start..], checked);
        self.buf = Some(buf);
        self.direct = true;
    }

    fn unmask_and_check(&mut self, piece: &mut [u8], checked: bool) {
        let Some(frame) = &mut self.frame else { return };
        let phase = frame.come as usize & 3;
        if checked && self.invalid.is_none() {
            self.invalid = payload::unmask_and_feed(piece, 0, frame.key, phase, &mut self.scanner).err();
        } else {
            frame::unmask(piece, frame.key, phase);
        }
        frame.come += piece.len() as u64;
        frame.left -= piece.len() as u64;
    }

    /// Only a prefix is kept from now on.
    pub(super) fn skip(&mut self, why: Skipped) {
        if self.skipped.replace(why).is_none()
            && let Some(buf) = &mut self.buf
        {
            let kept = buf.as_slice();
            *buf = OwnedBuf::from(kept[..kept.len().min(PREFIX_BYTES_MAX)].to_vec());
        }
    }

    /// Whether it keeps memory from others.
    #[must_use]
    pub(in crate::shard) fn holds_memory(&self) -> bool {
        self.skipped.is_none() && self.announced_bytes > SMALL_BYTES_MAX as u64
    }

    /// Payload bytes that have come.
    #[must_use]
    pub(in crate::shard) fn come_bytes(&self) -> u64 {
        self.announced_bytes - self.frame.map_or(0, |frame| frame.left)
    }

    /// Why it is skipped, what its `id` is and which device it names, for its sender: once, as soon as that can be known.
    pub(super) fn poll_refusal(&mut self) -> Option<(Skipped, Option<String>, Option<DeviceId>)> {
        let why = self.skipped?;
        let prefix = self.buf.as_ref()?.as_slice();
        if self.told || (prefix.len() < PREFIX_BYTES_MAX && !self.is_whole()) {
            return None;
        }
        let mut scanner = Scanner::new();
        let (reference, device) = match scanner.feed(prefix) {
            Ok(()) => (scanner.id_so_far(prefix).map(str::to_owned), scanner.device_so_far(prefix)),
            Err(_) => (None, None),
        };
        self.told = true;
        Some((why, reference, device))
    }

    /// Whether the message is whole.
    #[must_use]
    pub(super) fn is_whole(&self) -> bool {
        self.frame.is_some_and(|frame| frame.left == 0 && frame.fin)
    }

    /// Ends a frame that has come whole and is not the last.
    pub(super) fn end_fragment(&mut self) {
        if self.frame.is_some_and(|frame| frame.left == 0 && !frame.fin) {
            self.frame = None;
        }
    }
}

impl From<Header> for FrameLeft {
    fn from(header: Header) -> Self {
        Self { key: header.key, come: 0, left: header.payload_bytes, fin: header.fin }
    }
}
