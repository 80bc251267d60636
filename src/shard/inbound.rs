//! The way in: received bytes become frames, frames become messages.
//!
//! Whole frames in one piece of memory take the short way: unmasked where they lie, moved down over the mask keys of
//! those before them so that all of them are one run, and queued for the peer in that memory. What is not whole goes
//! through the connection's [`Inbox`].

use super::Shard;
use super::bounds::{AUTH_BYTES_MAX, DIRECT_BYTES_MIN, GLANCE_BYTES, SMALL_BYTES_MAX};
use super::close::CloseReason;
use super::connection::{NONE, Pauses, Phase};
use super::inbox::{FrameLeft, Inbox, Partial};
use super::message::Step;
use crate::proto::envelope::{self, Scanner};
use crate::proto::frame::{self, Header, Opcode};
use crate::proto::payload::{STEP_BYTES, unmask_and_feed};
use crate::ring::chunk::{Chunk, Heap, Reservation};
use std::ops::Range;

/// Room in front of a payload for the header it leaves with.
const HEADROOM: usize = frame::header_bytes(u64::MAX);

/// Why a run of whole frames ended.
enum RunEnd {
    /// The frame at this offset does not go the short way.
    Other(usize),
    /// Nothing more is to be read now; the rest begins at this offset.
    Stop(usize),
    /// The connection is to be closed, once the run has been queued.
    Close(CloseReason),
}

impl Shard {
    /// Takes bytes in, whatever the connection is at.
    pub(super) fn handle_bytes(&mut self, conn: u32, chunk: Chunk) {
        let connection = &mut self.connections[conn as usize];
        connection.last_heard = self.clock.tick();
        match connection.phase() {
            Phase::Header => self.handle_header_bytes(conn, &chunk),
            Phase::Http | Phase::Call => self.handle_request_bytes(conn, chunk),
            Phase::Handshake | Phase::Closing | Phase::Slowed | Phase::Dead => {}
            Phase::Auth | Phase::Moving | Phase::Open | Phase::Echo => match &connection.inbox {
                // Reading may go on, but what waits comes first.
                Some(inbox) if inbox.holds_back() => self.keep_waiting(conn, chunk.as_slice()),
                _ => self.read_frames(conn, chunk),
            },
        }
    }

    /// Reads frames until the bytes are used up, or reading is paused or over.
    pub(super) fn read_frames(&mut self, conn: u32, mut chunk: Chunk) {
        loop {
            let connection = &mut self.connections[conn as usize];
            match connection.phase() {
                Phase::Moving => {
                    if let Some(destination) = connection.early.as_mut().and_then(|early| early.moving.as_mut()) {
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
            if connection.pauses.any() {
                self.keep_waiting(conn, chunk.as_slice());
                return;
            }
            if connection.inbox.as_ref().is_some_and(|inbox| inbox.wants_bytes()) {
                let used = self.feed_inbox(conn, chunk.as_mut_slice());
                let length = chunk.len();
                chunk.narrow(used..length);
                continue;
            }
            let mut run = 0..0;
            let end = self.read_run(conn, &mut chunk, &mut run);
            let rest_at = match end {
                RunEnd::Other(at) | RunEnd::Stop(at) => at,
                RunEnd::Close(_) => chunk.len(),
            };
            if rest_at == chunk.len() {
                self.forward_run(conn, chunk, run);
                if let RunEnd::Close(reason) = end {
                    self.close(conn, reason);
                }
                return;
            }
            let mut rest = chunk.split_off(rest_at);
            self.forward_run(conn, chunk, run);
            if matches!(end, RunEnd::Other(_)) {
                let used = self.begin_other(conn, rest.as_mut_slice());
                let length = rest.len();
                rest.narrow(used..length);
            }
            chunk = rest;
        }
    }

    /// Reads whole frames and gathers those that are to be forwarded in `run`.
    fn read_run(&mut self, conn: u32, chunk: &mut Chunk, run: &mut Range<usize>) -> RunEnd {
        let bytes = chunk.as_mut_slice();
        let limit = self.message_bytes_max(conn);
        let in_message = self.connections[conn as usize].inbox.as_ref().is_some_and(|inbox| inbox.partial.is_some());
        let mut at = 0;
        // What each frame makes the relay answer is bounded: above the high-water mark the rest waits.
        while at < bytes.len() && !self.connections[conn as usize].pauses.any() {
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
            // The header that it leaves with is at least four bytes shorter than the one it came with, so it always fits
            // between the run so far and the payload.
            let start = match run.end {
                0 => payload.start,
                end => end + frame::header_bytes(payload_bytes),
            };
            let length = payload.len();
            // An echo is not looked into.
            let (step, message) = if length <= STEP_BYTES || self.connections[conn as usize].phase() == Phase::Echo {
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
                Step::Forward(opcode) => {
                    self.connections[conn as usize].bulk = false;
                    let header_start = start - frame::header_bytes(payload_bytes);
                    frame::write_header(&mut bytes[header_start..], true, opcode, payload_bytes);
                    *run = if run.end == 0 { header_start } else { run.start }..start + length;
                }
                Step::Done => {}
                Step::Wait(wait) => {
                    let mut heap = Heap::with_headroom(HEADROOM, length, self.budget.charge(length));
                    heap.extend(message);
                    self.inbox(conn).ready = Some((heap, opcode));
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
    fn forward_run(&mut self, conn: u32, mut chunk: Chunk, run: Range<usize>) {
        if run.end == 0 {
            return;
        }
        chunk.narrow(run);
        if let Some(to) = self.receiver(conn) {
            self.count_queued(conn, to);
            let pushed = self.push(to, chunk);
            self.mind_pressure(conn, to, pushed);
        }
    }

    /// Begins a frame that does not go the short way: bytes that it used.
    fn begin_other(&mut self, conn: u32, bytes: &mut [u8]) -> usize {
        match frame::parse_header(bytes) {
            Ok(Some(header)) if !header.opcode.is_control() => match self.begin_frame(conn, header) {
                true => header.header_bytes,
                false => 0,
            },
            // A control frame of which a part is missing, or a header of which a part is.
            _ => {
                self.inbox(conn).head.extend_from_slice(bytes);
                bytes.len()
            }
        }
    }

    /// Bytes for what the inbox has begun: how many of them it used.
    fn feed_inbox(&mut self, conn: u32, bytes: &mut [u8]) -> usize {
        let checked = self.connections[conn as usize].phase() != Phase::Echo;
        let inbox = self.inbox(conn);
        if inbox.head.is_empty() {
            let Some(partial) = &mut inbox.partial else { return 0 };
            let left = partial.frame.map_or(0, |frame| frame.left);
            let used = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            partial.take(&mut bytes[..used], checked);
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
                let head = std::mem::take(&mut inbox.head);
                if !self.begin_frame(conn, header) {
                    self.keep_waiting(conn, &head);
                }
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

    /// Begins a data frame in the inbox. `false`: its header was not taken, because memory for it has to wait.
    fn begin_frame(&mut self, conn: u32, header: Header) -> bool {
        let limit = self.message_bytes_max(conn);
        let phase = self.connections[conn as usize].phase();
        let continues = header.opcode == Opcode::Continuation;
        let under_way = self.connections[conn as usize].inbox.as_ref().and_then(|inbox| inbox.partial.as_ref());
        if continues != under_way.is_some() {
            self.close(conn, CloseReason::Fragments);
            return true;
        }
        let announced_bytes =
            under_way.map_or(0, |partial| partial.announced_bytes).saturating_add(header.payload_bytes);
        let too_large = announced_bytes > limit;
        if too_large && phase == Phase::Auth {
            self.refuse_auth(conn, "the first message is larger than an auth message can be");
            return true;
        }
        if too_large && phase == Phase::Echo {
            self.close(conn, CloseReason::TooLarge);
            return true;
        }
        if !continues && !self.begin_message(conn, header, too_large, limit) {
            return false;
        }
        let Some(partial) = &mut self.inbox(conn).partial else { return true };
        partial.announced_bytes = announced_bytes;
        partial.frame = Some(FrameLeft::from(header));
        if too_large {
            partial.grow_too_large();
        } else if let Some(heap) = &mut partial.heap
            && continues
        {
            heap.make_room(header.payload_bytes as usize);
        }
        self.after_piece(conn);
        true
    }

    /// Begins a message in the inbox. `false`: memory for it has to wait.
    fn begin_message(&mut self, conn: u32, header: Header, too_large: bool, limit: u64) -> bool {
        // How long a message in fragments will be is not known: the most is reserved before its first byte is read, so
        // that no two of them can ever wait for each other.
        let reserved_bytes = match (too_large, header.fin) {
            (true, _) => 0,
            (false, true) => header.payload_bytes,
            (false, false) => limit,
        } as usize;
        let Some(reservation) = self.reserve(conn, reserved_bytes) else {
            self.wait_for_budget(conn);
            return false;
        };
        // What is received straight into the allocation gets its room when its turn comes: until then it would only be
        // so much more memory to go through.
        let direct = self.connections[conn as usize].tls == NONE
            && header.payload_bytes >= DIRECT_BYTES_MIN + u64::from(GLANCE_BYTES);
        let capacity = if too_large || direct { 0 } else { header.payload_bytes as usize };
        let due = self.clock.tick_after(super::bounds::MESSAGE_TIMEOUT);
        self.inbox(conn).partial = Some(Partial {
            opcode: header.opcode,
            heap: Some(Heap::with_headroom(HEADROOM, capacity, reservation)),
            frame: None,
            announced_bytes: 0,
            scanner: Scanner::new(),
            invalid: None,
            too_large,
            told: false,
            direct: false,
            due,
        });
        self.watch(conn, due);
        true
    }

    /// Memory for a message, unless it has to wait for its turn.
    fn reserve(&self, conn: u32, bytes: usize) -> Option<Reservation> {
        if bytes <= SMALL_BYTES_MAX {
            return Some(self.budget.charge(bytes));
        }
        // Who comes later does not take what others wait for.
        let is_next = self.budget_waiters.is_empty() || self.first_in_line == Some(conn);
        is_next.then(|| self.budget.reserve(bytes)).flatten()
    }

    /// After a piece of a message: hands it on when it is whole.
    pub(super) fn after_piece(&mut self, conn: u32) {
        let Some(inbox) = &mut self.connections[conn as usize].inbox else { return };
        let Some(partial) = &mut inbox.partial else { return };
        if partial.too_large {
            if let Some(reference) = partial.too_large_to_tell() {
                self.refuse_too_large(conn, reference.as_deref());
            }
            let Some(partial) = &mut self.inbox(conn).partial else { return };
            if !partial.is_whole() {
                partial.end_fragment();
                return;
            }
            self.inbox(conn).partial = None;
        } else if partial.is_whole() {
            let Some(partial) = inbox.partial.take() else { return };
            let Partial { heap: Some(heap), opcode, scanner, invalid, direct, .. } = partial else { return };
            self.connections[conn as usize].bulk = direct;
            self.hand_on(conn, heap, opcode, |message| match invalid {
                Some(invalid) => Err(invalid),
                None => scanner.finish(message),
            });
        } else {
            partial.end_fragment();
            return;
        }
        self.tidy_inbox(conn);
    }

    /// Hands a whole message on that stands in an allocation of its own.
    pub(super) fn hand_on(
        &mut self,
        conn: u32,
        heap: Heap,
        opcode: Opcode,
        peek: impl for<'a> FnOnce(&'a [u8]) -> Result<envelope::Envelope<'a>, envelope::Invalid>,
    ) {
        match self.handle_message(conn, opcode, heap.as_slice(), peek) {
            Step::Forward(opcode) => {
                if let Some(to) = self.receiver(conn) {
                    self.count_queued(conn, to);
                    let pushed = self.push_message(to, heap, opcode);
                    self.mind_pressure(conn, to, pushed);
                }
            }
            Step::Wait(wait) => {
                self.inbox(conn).ready = Some((heap, opcode));
                self.slow_down(conn, wait);
            }
            Step::Close(reason) => self.close(conn, reason),
            Step::Done | Step::Stop => {}
        }
    }

    /// The largest message that the connection may send now.
    fn message_bytes_max(&self, conn: u32) -> u64 {
        let connection = &self.connections[conn as usize];
        match connection.phase() {
            Phase::Auth => AUTH_BYTES_MAX,
            _ => match self.tokens.session(connection.session) {
                Some(live) => live.session.policy().limits.message_bytes_max,
                None => self.settings.limits.message_bytes_max,
            },
        }
    }

    /// Whom the connection's messages are for.
    fn receiver(&self, conn: u32) -> Option<u32> {
        let connection = &self.connections[conn as usize];
        match connection.phase() {
            Phase::Echo => Some(conn),
            _ if connection.session == NONE => None,
            _ => self.tokens.session(connection.session)?.session.connection(connection.role.peer()),
        }
    }

    pub(super) fn inbox(&mut self, conn: u32) -> &mut Inbox {
        self.connections[conn as usize].inbox.get_or_insert_default()
    }

    /// Lets an empty inbox go: an idle connection has none.
    pub(super) fn tidy_inbox(&mut self, conn: u32) {
        let inbox = &mut self.connections[conn as usize].inbox;
        if inbox.as_ref().is_some_and(|inbox| inbox.is_empty()) {
            *inbox = None;
        }
    }

    fn keep_waiting(&mut self, conn: u32, bytes: &[u8]) {
        self.inbox(conn).waiting.extend_from_slice(bytes);
    }

    /// Pauses reading for a stream's rate.
    fn slow_down(&mut self, conn: u32, wait: std::time::Duration) {
        self.connections[conn as usize].pauses.insert(Pauses::RATE);
        self.throttle(conn, wait);
    }

    fn wait_for_budget(&mut self, conn: u32) {
        self.connections[conn as usize].pauses.insert(Pauses::BUDGET);
        // Who is let try again and has to go on waiting was counted before.
        self.cells.budget_waits += u64::from(self.first_in_line != Some(conn));
        self.budget_waiters.push_back(conn);
    }
}

impl Inbox {
    /// Whether the next bytes belong to what it has begun.
    fn wants_bytes(&self) -> bool {
        !self.head.is_empty() || self.partial.as_ref().is_some_and(|partial| partial.frame.is_some())
    }
}
