//! The way in: received bytes become frames, frames become messages.
//!
//! Whole frames in one piece of memory take the short way: unmasked where they lie, moved down over the mask keys of
//! those before them so that all of them are one run, and queued for the peer in that memory. What is not whole goes
//! through the connection's [`Inbox`] (`assembly`).

use super::assembly::HEADROOM;
use super::inbox::Inbox;
use super::message::Step;
use super::turns::Share;
use crate::proto::envelope::{self, Scanner};
use crate::proto::frame::{self, Header, Opcode};
use crate::proto::payload::{STEP_BYTES, unmask_and_feed};
use crate::ring::chunk::{Chunk, OwnedBuf};
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::bounds::AUTH_BYTES_MAX;
use crate::shard::close::CloseReason;
use crate::shard::door::newcomer::Newcomer;
use crate::shard::mutation::{Mutation, is_made};
use crate::shard::net::connection::Phase;
use std::collections::VecDeque;
use std::ops::Range;

/// Whole frames that lie behind each other in one piece of memory, as they are to be sent.
#[derive(Default)]
struct Run {
    bytes: Range<usize>,
    /// Whom they are for; `None`: there are none.
    to: Option<Conn>,
    /// What stands behind them, up to this offset, is for this one: [`RunEnd::Turn`].
    next: Option<(usize, Conn)>,
}

impl Run {
    fn of(bytes: Range<usize>, to: Conn) -> Self {
        Self { bytes, to: Some(to), next: None }
    }
}

/// Why a run of whole frames ended.
enum RunEnd {
    /// The frame at this offset does not go the short way.
    Other(usize),
    /// Nothing more is to be read now; the rest begins at this offset.
    Stop(usize),
    /// The frame before this offset is for somebody else, and stands behind the run: the next run begins with it.
    Turn(usize),
    /// The frame before this offset asks the relay for something.
    Order(usize),
    /// The connection is to be closed, once the run has been queued.
    Close(CloseReason),
}

impl<N: Net> Shard<N> {
    /// Takes bytes in, whatever the connection is at.
    pub(in crate::shard) fn handle_bytes(&mut self, conn: Conn, chunk: Chunk) {
        let connection = &mut self.net[conn];
        connection.last_heard = self.pulse.tick();
        match connection.phase() {
            Phase::Header => self.handle_header_bytes(conn, &chunk),
            Phase::Http | Phase::AwaitingControl | Phase::Held | Phase::Answering => {
                self.handle_request_bytes(conn, chunk)
            }
            Phase::Handshake | Phase::Closing | Phase::Slowed | Phase::Dead => {}
            Phase::Auth | Phase::Moving | Phase::Open | Phase::Echo => match &connection.inbox {
                // Reading may go on, but what waits comes first.
                Some(inbox) if inbox.holds_back() && is_made(Mutation::Overtaken) => {
                    self.keep_waiting(conn, chunk, VecDeque::push_front);
                }
                Some(inbox) if inbox.holds_back() => self.keep_waiting(conn, chunk, VecDeque::push_back),
                _ => self.read_frames(conn, chunk, &mut self.turns.share()),
            },
        }
    }

    /// Reads frames until the bytes or the share of the turn are used up, or reading is paused or over.
    pub(super) fn read_frames(&mut self, conn: Conn, mut chunk: Chunk, share: &mut Share) {
        loop {
            let connection = &mut self.net[conn];
            match connection.phase() {
                Phase::Moving => {
                    if let Some(destination) = connection.newcomer_mut().and_then(Newcomer::destination_mut) {
                        destination.add(chunk.as_slice());
                    }
                    return;
                }
                Phase::Auth | Phase::Open | Phase::Echo => {}
                _ => return,
            }
            if chunk.is_empty() {
                return;
            }
            let is_paused = connection.is_paused();
            if is_paused || share.is_used_up() {
                if !is_paused {
                    self.defer(conn);
                }
                // In front of what came later, if it waited before.
                return self.keep_waiting(conn, chunk, VecDeque::push_front);
            }
            if connection.inbox.as_ref().is_some_and(|inbox| inbox.wants_bytes()) {
                let used = self.feed_inbox(conn, chunk.as_mut_slice(), share);
                chunk.advance(used);
                continue;
            }
            let (end, run) = self.read_runs(conn, &mut chunk, share);
            let rest_at = match end {
                RunEnd::Other(at) | RunEnd::Stop(at) | RunEnd::Order(at) | RunEnd::Turn(at) => at,
                RunEnd::Close(_) => chunk.len(),
            };
            if rest_at == chunk.len() {
                self.forward_run(conn, chunk, run);
                match end {
                    RunEnd::Close(reason) => self.close(conn, reason),
                    RunEnd::Order(_) => self.carry_out(conn),
                    _ => {}
                }
                return;
            }
            if run.to.is_none() {
                chunk.advance(rest_at);
            } else {
                let front = chunk.split_to(rest_at);
                self.forward_run(conn, front, run);
            }
            match end {
                RunEnd::Other(_) => {
                    let used = self.begin_other(conn, chunk.as_slice(), share);
                    chunk.advance(used);
                }
                RunEnd::Order(_) => self.carry_out(conn),
                _ => {}
            }
        }
    }

    /// Reads whole frames and queues them, but for the last run of those that are for the same one. Offsets count from where
    /// `chunk` begins then.
    fn read_runs(&mut self, conn: Conn, chunk: &mut Chunk, share: &mut Share) -> (RunEnd, Run) {
        let (mut run, mut at) = (Run::default(), 0);
        loop {
            match self.read_run(conn, chunk, &mut run, at, share) {
                RunEnd::Turn(rest_at) => {
                    let cut = run.bytes.end;
                    let next = run.next.map_or_else(Run::default, |(end, to)| Run::of(0..end - cut, to));
                    let front = chunk.split_to(cut);
                    self.forward_run(conn, front, std::mem::replace(&mut run, next));
                    at = rest_at - cut;
                }
                end => return (end, run),
            }
        }
    }

    /// Reads whole frames from `at` on and gathers those that are to be forwarded in `run`.
    fn read_run(&mut self, conn: Conn, chunk: &mut Chunk, run: &mut Run, mut at: usize, share: &mut Share) -> RunEnd {
        let bytes = chunk.as_mut_slice();
        let limit = self.message_bytes_max(conn);
        let in_message = self.net[conn].inbox.as_ref().is_some_and(|inbox| inbox.partial.is_some());
        // What each frame makes the relay answer is bounded: above the high-water mark the rest waits.
        while at < bytes.len() && !share.is_used_up() && !self.net[conn].is_paused() {
            let header = match frame::parse_header(&bytes[at..]) {
                Ok(Some(header)) => header,
                Ok(None) => return RunEnd::Other(at),
                Err(violation) => return RunEnd::Close(CloseReason::Protocol(violation)),
            };
            let Header { fin, opcode, key, header_bytes, payload_bytes } = header;
            if payload_bytes > (bytes.len() - at - header_bytes) as u64 {
                return RunEnd::Other(at);
            }
            let payload = at + header_bytes..at + header_bytes + payload_bytes as usize;
            if opcode.is_control() {
                share.take_frame(payload.len());
                frame::unmask(&mut bytes[payload.clone()], key, 0);
                at = payload.end;
                if let Some(reason) = self.handle_control(conn, opcode, &bytes[payload]) {
                    return RunEnd::Close(reason);
                }
                continue;
            }
            if !fin || in_message || opcode == Opcode::Continuation || payload_bytes > limit {
                return RunEnd::Other(at);
            }
            at = payload.end;
            share.take_frame(payload.len());
            // The header that it leaves with is at least four bytes shorter than the one it came with, so it always fits
            // between the run so far and the payload.
            let start = match run.bytes.end {
                0 => payload.start,
                end => end + frame::header_bytes(payload_bytes),
            };
            let length = payload.len();
            // An echo is not looked into.
            let (step, message) = if length <= STEP_BYTES || self.net[conn].phase() == Phase::Echo {
                frame::unmask_shift(bytes, payload, start, key);
                let message = &bytes[start..start + length];
                (self.handle_message(conn, opcode, message, envelope::peek), message)
            } else {
                let mut scanner = Scanner::new();
                let moved = &mut bytes[start..payload.end];
                let fed = unmask_and_feed(moved, payload.start - start, key, 0, &mut scanner);
                let message = &moved[..length];
                let step = self.handle_message(conn, opcode, message, |message| {
                    fed?;
                    scanner.finish(message)
                });
                (step, message)
            };
            match step {
                Step::Forward(opcode, to) => {
                    self.net[conn].set_bulk(false);
                    let header_start = start - frame::header_bytes(payload_bytes);
                    frame::write_header(&mut bytes[header_start..], true, opcode, payload_bytes);
                    match run.to {
                        Some(it) if it == to => run.bytes.end = start + length,
                        None => (run.bytes, run.to) = (header_start..start + length, Some(to)),
                        Some(_) => {
                            run.next = Some((start + length, to));
                            return RunEnd::Turn(at);
                        }
                    }
                }
                Step::Done => {}
                Step::Order => return RunEnd::Order(at),
                Step::Wait(wait) => {
                    let mut buf = OwnedBuf::with_headroom(HEADROOM, length, self.memory.budget().charge(length));
                    buf.extend(message);
                    self.inbox(conn).ready = Some((buf, opcode));
                    self.slow_down(conn, wait);
                    return RunEnd::Stop(at);
                }
                Step::Stop => return RunEnd::Stop(at),
                Step::Close(reason) => return RunEnd::Close(reason),
            }
        }
        RunEnd::Stop(at)
    }

    /// Queues a run of frames for whom they are meant.
    fn forward_run(&mut self, conn: Conn, mut chunk: Chunk, run: Run) {
        let Some(to) = run.to else { return };
        chunk.narrow(run.bytes);
        if let Chunk::Owned(buf) = &mut chunk
            && buf.reserved_bytes() == 0
        {
            buf.reserve_more(self.memory.budget().charge(buf.as_slice().len()));
        }
        let behind = self.net.push(conn, to, chunk);
        self.count_queued(conn, behind);
    }

    /// What was forwarded is queued; `behind`: behind what is being sent already.
    #[inline]
    pub(super) fn count_queued(&mut self, conn: Conn, behind: bool) {
        if let Some(seat) = self.net[conn].seat() {
            self.counters.queued(seat.role, behind);
        }
    }

    /// Begins a frame that does not go the short way: bytes that it used.
    fn begin_other(&mut self, conn: Conn, bytes: &[u8], share: &mut Share) -> usize {
        share.take_frame(0);
        match frame::parse_header(bytes) {
            Ok(Some(header)) if !header.opcode.is_control() => {
                self.begin_frame(conn, header, bytes.len() - header.header_bytes);
                header.header_bytes
            }
            // A control frame of which a part is missing, or a header of which a part is.
            _ => {
                self.inbox(conn).head.extend_from_slice(bytes);
                bytes.len()
            }
        }
    }

    /// Bytes for what the inbox has begun: how many of them it used.
    fn feed_inbox(&mut self, conn: Conn, bytes: &mut [u8], share: &mut Share) -> usize {
        let checked = self.net[conn].phase() != Phase::Echo;
        let inbox = self.inbox(conn);
        if inbox.head.is_empty() {
            let Some(partial) = &mut inbox.partial else { return 0 };
            let left = partial.frame.map_or(0, |frame| frame.left);
            let used = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            partial.take(&mut bytes[..used], checked);
            share.take(used);
            self.after_piece(conn);
            return used;
        }
        let wanted = match frame::parse_header(&inbox.head) {
            Ok(Some(header)) => header.header_bytes + header.payload_bytes as usize - inbox.head.len(),
            _ => 1,
        };
        let used = wanted.min(bytes.len());
        inbox.head.extend_from_slice(&bytes[..used]);
        let parsed = frame::parse_header(&inbox.head);
        match parsed {
            Err(violation) => self.close(conn, CloseReason::Protocol(violation)),
            Ok(Some(header)) if !header.opcode.is_control() => {
                // Only its header stands in `head`, for a data frame begins as soon as the header is whole.
                inbox.head = Vec::new();
                self.begin_frame(conn, header, bytes.len() - used);
            }
            Ok(Some(header)) if inbox.head.len() as u64 == header.header_bytes as u64 + header.payload_bytes => {
                let mut head = std::mem::take(&mut inbox.head);
                let payload = &mut head[header.header_bytes..];
                frame::unmask(payload, header.key, 0);
                self.tidy_inbox(conn);
                if let Some(reason) = self.handle_control(conn, header.opcode, payload) {
                    self.close(conn, reason);
                }
            }
            Ok(_) => {}
        }
        used
    }

    /// The largest message that the connection may send now.
    pub(super) fn message_bytes_max(&self, conn: Conn) -> u64 {
        let connection = &self.net[conn];
        match connection.seat() {
            Some(seat) => self.sessions.message_bytes_max(seat),
            None if connection.phase() == Phase::Auth => AUTH_BYTES_MAX,
            None => self.settings.limits.message_bytes_max,
        }
    }
}

impl Inbox {
    /// Whether the next bytes belong to what it has begun.
    fn wants_bytes(&self) -> bool {
        !self.head.is_empty() || self.partial.as_ref().is_some_and(|partial| partial.frame.is_some())
    }
}
