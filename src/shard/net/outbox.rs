//! The bounded queue toward a socket.
//!
//! All that one turn queues leaves in one send. Slices are sent from the memory they were received into; only when the
//! socket did not take them at once are they copied, so that a slow peer cannot pin the shard's buffers. A large
//! message shows one fragment after the other, and control frames go between them.

use crate::proto::frame::{self, Opcode};
use crate::ring::chunk::{Batch, Budget, CHUNKS_A_SEND_MAX, Chunk, Outgoing, OwnedBuf};
use crate::shard::bounds::{FRAGMENT_BYTES, HIGH_WATER_BYTES, JOINED_BYTES_MAX, LOW_WATER_BYTES, SLOW_FRAGMENT_BYTES};
use std::collections::VecDeque;

/// The queue keeps this capacity when it empties.
const KEPT_CAPACITY: usize = 32;

/// What a push came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(in crate::shard) enum Pushed {
    /// Queued; there is room for more.
    Queued,
    /// Queued, and above the high-water mark: stop filling.
    UnderPressure,
}

/// Bytes queued toward one socket.
#[derive(Default)]
pub(in crate::shard) struct Outbox {
    queue: VecDeque<Chunk>,
    /// Control frames, which go before the next frame of the queue.
    urgent: Vec<u8>,
    /// Records of TLS, which leave as they are and before the queue.
    sealed: VecDeque<Chunk>,
    /// The send under way is of those.
    carries_sealed: bool,
    /// All bytes queued here and being sent, hidden fragments included.
    bytes: usize,
    /// Of those, what the connection itself made the relay write, since the outbox was low. What its peer sends it does
    /// not keep it from being read.
    own_bytes: usize,
    /// A part of the queue's first frame has been sent: nothing can go before the rest of it.
    mid_frame: bool,
    /// The send under way carries control frames: in its first chunk, or in its second where `mid_frame`.
    carries_urgent: bool,
    /// It was above the high-water mark and has not been below the low-water mark since.
    pressed: bool,
    /// A send is under way.
    pub(in crate::shard) sending: bool,
    /// The socket did not take all at once: sends wait in the kernel, and queued slices are copied.
    pub(super) blocked: bool,
    /// The tick at which a blocked send has taken too long.
    pub(super) write_due: u32,
    /// What the peer had not acknowledged when `write_due` was set, and what the kernel has taken since: by as much less
    /// as stands in its queue then, the peer has taken something.
    pub(super) unacknowledged_bytes: usize,
    /// The tick at which it was blocked.
    pub(in crate::shard) blocked_since: u32,
    /// What the kernel has taken since then.
    pub(in crate::shard) taken_bytes: u64,
    /// The most that has waited since then.
    pub(super) most_bytes: usize,
    /// This outbox is on the list of those to be flushed.
    pub(in crate::shard) dirty: bool,
    /// Nothing will be queued any more; when all is sent, the write side is shut.
    pub(super) finish: bool,
}

impl Outbox {
    /// Queues whole frames.
    pub(super) fn push(&mut self, chunk: Chunk) -> Pushed {
        self.bytes += chunk.len();
        self.queue.push_back(chunk);
        self.pressure()
    }

    /// Queues a message without header, whose buffer has room for one; a large one will leave as fragments.
    pub(super) fn push_message(&mut self, mut message: OwnedBuf, opcode: Opcode) -> Pushed {
        let length = message.as_slice().len();
        message.hide_from(FRAGMENT_BYTES);
        let mut header = [0; frame::HEADER_BYTES_MAX];
        let shown = message.as_slice().len();
        let header_bytes = frame::write_header(&mut header, shown == length, opcode, shown as u64);
        message.prepend(&header[..header_bytes]);
        self.bytes += header_bytes + length;
        self.queue.push_back(Chunk::Owned(message));
        self.pressure()
    }

    /// Queues a frame of the relay's own.
    pub(super) fn push_own(&mut self, frame: Vec<u8>) -> Pushed {
        self.bytes += frame.len();
        self.own_bytes += frame.len();
        self.queue.push_back(Chunk::Owned(OwnedBuf::from(frame)));
        self.own_pressure()
    }

    /// Queues a control frame before the next frame of the queue.
    pub(super) fn push_control(&mut self, frame: &[u8]) -> Pushed {
        self.bytes += frame.len();
        self.own_bytes += frame.len();
        self.urgent.extend_from_slice(frame);
        self.own_pressure()
    }

    /// Queues records of TLS with what stood in the queue.
    pub(super) fn push_sealed(&mut self, records: OwnedBuf) {
        self.bytes += records.as_slice().len();
        self.sealed.push_back(Chunk::Owned(records));
    }

    /// Queues records of TLS that the connection itself made the relay write.
    pub(super) fn push_own_sealed(&mut self, records: Vec<u8>) -> Pushed {
        self.own_bytes += records.len();
        self.push_sealed(OwnedBuf::from(records));
        self.own_pressure()
    }

    /// Takes the records of TLS that the next send is to carry, if there are any.
    pub(super) fn poll_sealed(&mut self) -> Option<Outgoing> {
        debug_assert!(!self.sending);
        let sealed = self.sealed.pop_front()?;
        self.carries_sealed = true;
        Some(Outgoing::One(sealed))
    }

    /// Takes the records of TLS that wait, where they are so few that the next ones may as well join them.
    pub(super) fn poll_joined(&mut self) -> Option<Chunk> {
        let has_more = !self.queue.is_empty() || !self.urgent.is_empty();
        let joins = |sealed: &Chunk| sealed.len() <= JOINED_BYTES_MAX;
        if self.sealed.len() != 1 || !has_more || !self.sealed.front().is_some_and(joins) {
            return None;
        }
        let sealed = self.sealed.pop_front()?;
        self.bytes -= sealed.len();
        Some(sealed)
    }

    /// Makes it as new, with the capacity that it has.
    pub(super) fn reset(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.clear();
        *self = Self { queue, ..Self::default() };
    }

    /// All bytes queued here and being sent.
    #[must_use]
    pub(in crate::shard) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it keeps memory from others, since its socket takes no more.
    #[must_use]
    pub(in crate::shard) fn holds_memory(&self) -> bool {
        self.blocked && self.bytes > LOW_WATER_BYTES
    }

    /// Whether nothing is queued or being sent.
    #[must_use]
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.bytes == 0 && !self.sending
    }

    /// Whether filling was stopped and may go on now; says so once.
    #[must_use]
    pub(super) fn poll_relief(&mut self) -> bool {
        if self.bytes > LOW_WATER_BYTES {
            return false;
        }
        self.own_bytes = 0;
        std::mem::take(&mut self.pressed)
    }

    /// Whether filling was stopped and may not go on yet.
    #[must_use]
    pub(super) fn is_pressed(&self) -> bool {
        self.pressed
    }

    fn pressure(&mut self) -> Pushed {
        self.pushed(self.bytes)
    }

    fn own_pressure(&mut self) -> Pushed {
        self.pushed(self.own_bytes)
    }

    fn pushed(&mut self, bytes: usize) -> Pushed {
        self.most_bytes = self.most_bytes.max(self.bytes);
        if bytes <= HIGH_WATER_BYTES {
            return Pushed::Queued;
        }
        self.pressed = true;
        Pushed::UnderPressure
    }

    /// Copies queued slices into memory of their own, for they will stay longer than this turn.
    pub(super) fn copy_slices(&mut self, budget: &Budget) {
        if !self.queue.iter().any(|chunk| matches!(chunk, Chunk::Slice(_))) {
            return;
        }
        let mut copied = VecDeque::with_capacity(self.queue.len());
        let mut run: Vec<u8> = Vec::new();
        let flush = |run: &mut Vec<u8>, copied: &mut VecDeque<Chunk>| {
            if !run.is_empty() {
                let bytes = std::mem::take(run);
                let reservation = budget.charge(bytes.len());
                copied.push_back(Chunk::Owned(OwnedBuf::reserved(bytes, reservation)));
            }
        };
        for chunk in self.queue.drain(..) {
            match chunk {
                Chunk::Slice(slice) => run.extend_from_slice(slice.as_slice()),
                buf @ Chunk::Owned(_) => {
                    flush(&mut run, &mut copied);
                    copied.push_back(buf);
                }
            }
        }
        flush(&mut run, &mut copied);
        self.queue = copied;
    }

    /// Takes what the next send is to carry, if there is anything.
    pub(super) fn poll_send(&mut self) -> Option<Outgoing> {
        debug_assert!(!self.sending);
        self.carries_urgent = false;
        if self.urgent.is_empty() && self.queue.len() == 1 {
            return self.queue.pop_front().map(Outgoing::One);
        }
        let mut chunks = Vec::with_capacity((self.queue.len() + 1).min(CHUNKS_A_SEND_MAX));
        if self.mid_frame {
            chunks.extend(self.queue.pop_front());
        }
        let fragmented = chunks.first().is_some_and(shows_a_fragment);
        if !self.urgent.is_empty() && !fragmented {
            self.carries_urgent = true;
            chunks.push(Chunk::Owned(OwnedBuf::from(std::mem::take(&mut self.urgent))));
        }
        while chunks.len() < CHUNKS_A_SEND_MAX && !chunks.last().is_some_and(shows_a_fragment) {
            let Some(chunk) = self.queue.pop_front() else { break };
            chunks.push(chunk);
        }
        match chunks.len() {
            0 => None,
            1 => chunks.pop().map(Outgoing::One),
            _ => Some(Outgoing::Many(Batch::new(chunks))),
        }
    }

    /// The kernel took `count` bytes of `outgoing`; the rest goes back to the front of the queue.
    pub(super) fn handle_sent(&mut self, outgoing: Outgoing, count: usize) {
        self.sending = false;
        if !std::mem::take(&mut self.carries_sealed) {
            return self.take_sent(outgoing, count);
        }
        self.bytes -= count;
        if let Outgoing::One(mut chunk) = outgoing
            && count < chunk.len()
        {
            let length = chunk.len();
            chunk.narrow(count..length);
            self.sealed.push_front(chunk);
        }
    }

    /// `count` bytes of what [`Outbox::poll_send`] gave are on their way; the rest goes back to the front of the queue.
    pub(super) fn take_sent(&mut self, outgoing: Outgoing, count: usize) {
        self.bytes -= count;
        let urgent_at = self.carries_urgent.then_some(usize::from(self.mid_frame));
        let mut count = count;
        match outgoing {
            Outgoing::One(chunk) => {
                if let Some(rest) = self.unsent(chunk, &mut count, 0, urgent_at) {
                    self.queue.push_front(rest);
                }
            }
            Outgoing::Many(batch) => {
                let mut rest = Vec::new();
                for (at, chunk) in batch.chunks.into_iter().enumerate() {
                    rest.extend(self.unsent(chunk, &mut count, at, urgent_at));
                }
                for chunk in rest.into_iter().rev() {
                    self.queue.push_front(chunk);
                }
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > KEPT_CAPACITY {
            self.queue.shrink_to(KEPT_CAPACITY);
        }
    }

    /// What is left of the chunk at place `at` of a send after `count` more bytes of it were taken.
    fn unsent(&mut self, mut chunk: Chunk, count: &mut usize, at: usize, urgent_at: Option<usize>) -> Option<Chunk> {
        let length = chunk.len();
        if *count == 0 && urgent_at == Some(at) {
            // Back to the control frames, in front of those that came later: queued, it would be overtaken by them.
            self.urgent.splice(..0, chunk.as_slice().iter().copied());
            return None;
        }
        if *count == 0 && at > 0 {
            return Some(chunk);
        }
        if *count < length {
            // A first chunk that nothing was taken of keeps the state that it had.
            self.mid_frame |= *count > 0;
            chunk.narrow(*count..length);
            *count = 0;
            return Some(chunk);
        }
        *count -= length;
        self.mid_frame = false;
        let Chunk::Owned(mut buf) = chunk else { return None };
        if buf.hidden() == 0 {
            return None;
        }
        buf.narrow(length..length);
        let next = buf.hidden().min(if self.blocked { SLOW_FRAGMENT_BYTES } else { FRAGMENT_BYTES });
        let mut header = [0; frame::HEADER_BYTES_MAX];
        let is_last = next == buf.hidden();
        let header_bytes = frame::write_header(&mut header, is_last, Opcode::Continuation, next as u64);
        buf.reveal(&header[..header_bytes], next);
        self.bytes += header_bytes;
        Some(Chunk::Owned(buf))
    }
}

fn shows_a_fragment(chunk: &Chunk) -> bool {
    matches!(chunk, Chunk::Owned(buf) if buf.hidden() > 0)
}

#[cfg(test)]
mod tests;
